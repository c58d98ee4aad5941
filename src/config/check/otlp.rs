//! A collector that takes the OpenTelemetry protocol: the same fields wherever one is named.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

use super::duration_field;
use crate::config::address::{self, AddressError};
use crate::config::settings::{Otlp, OtlpHeaders, OtlpProtocol, Target};
use crate::yaml::{Fields, Findings, Place, text};

pub(super) const OTLP: &[&str] = &[
    "endpoint",
    "protocol",
    "timeout",
    "headers",
    "service_name",
    "allow_plaintext",
];

/// Sent by ourselves, or part of the connection.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];
const MAX_HEADERS: usize = 32;
const MAX_SERVICE_NAME: usize = 255;

/// The field `otlp` of a section, which must be there.
pub(super) fn read(section: &Fields<'_>, findings: &mut Findings) -> Option<Otlp> {
    let node = section.require("otlp", "{ endpoint: http://127.0.0.1:4317 }", findings)?;
    let fields = Fields::of(node, &section.name_of("otlp"), OTLP, findings)?;
    let protocols = [("grpc", OtlpProtocol::Grpc), ("http", OtlpProtocol::Http)];
    let protocol = fields.word("protocol", &protocols, findings);
    let plaintext = fields.boolean("allow_plaintext", findings).unwrap_or(false);
    let bounds = (Duration::from_millis(100), Duration::from_secs(300));
    let timeout = duration_field(&fields, "timeout", bounds, findings);
    let headers = headers(&fields, findings);
    let service_name = service_name(&fields, findings);
    let endpoint = endpoint(&fields, protocol, plaintext, findings);
    let (endpoint, path) = endpoint?;
    Some(Otlp {
        endpoint,
        path,
        protocol: protocol.unwrap_or(OtlpProtocol::Grpc),
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
        headers,
        service_name: service_name.unwrap_or_else(|| "svidecar".to_owned()),
    })
}

/// Where the collector listens, and the path before the protocol's own.
fn endpoint(
    fields: &Fields<'_>,
    protocol: Option<OtlpProtocol>,
    plaintext: bool,
    findings: &mut Findings,
) -> Option<(Target, String)> {
    let (text, place) = fields.required_text("endpoint", "http://127.0.0.1:4317", findings)?;
    let name = fields.name_of("endpoint");
    let found = match parse(text) {
        Ok(found) => found,
        Err(problem) => {
            findings.error_with_help(
                place,
                format!("`{name}` is `{text}`: {}", problem.what),
                problem.help,
            );
            return None;
        }
    };
    let (target, path) = found;
    if !path.is_empty() && protocol != Some(OtlpProtocol::Http) {
        let help = "take the path out, or write `protocol: http` for OTLP over HTTP";
        findings.error_with_help(place, format!("`{name}` is `{text}`: gRPC takes no path"), help);
    }
    if !is_local(&target) && !plaintext {
        let message =
            format!("`{name}` is `{text}`: who talks to whom would cross the network in plain text");
        findings.error_with_help(place, message, OUTBOUND);
    }
    Some((target, path))
}

/// What is recommended in place of plain text and of a TLS of its own.
const OUTBOUND: &str = "name an outbound listener of this sidecar, such as `http://127.0.0.1:4317`, that connects to the \
     collector's sidecar (mutual TLS with SPIFFE identities), or a collector on this machine; `allow_plaintext: true` if \
     plain text is meant";

struct Problem {
    what: String,
    help: String,
}

fn parse(text: &str) -> Result<(Target, String), Problem> {
    let problem = |what: &str, help: &str| Problem {
        what: what.to_owned(),
        help: help.to_owned(),
    };
    if text.starts_with("unix:") {
        let target = address::target(text)
            .map_err(|e| problem(&e.to_string(), "for example `unix:///run/otel.sock`"))?;
        return Ok((target, String::new()));
    }
    if text.starts_with("https://") {
        return Err(problem("svidecar speaks no TLS but with its SVID", OUTBOUND));
    }
    let example = "for example `http://127.0.0.1:4317`, or `unix:///run/otel.sock`";
    let Some(rest) = text.strip_prefix("http://") else {
        return Err(problem("the scheme is missing", example));
    };
    if rest.contains(['?', '#', '@', '%']) || !rest.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(problem("it is an address and a path, and nothing else", example));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let target = address::target(authority).map_err(|error| match error {
        AddressError::Port => problem(
            "the port is missing or not a number up to 65535",
            "write it: 4317 is usual for gRPC, 4318 for HTTP",
        ),
        error => problem(&error.to_string(), example),
    })?;
    // The name means loopback everywhere (RFC 6761, section 6.3); whoever answers for it must not decide.
    let target = match target {
        Target::Name(host, port) if host == "localhost" => Target::Ip(([127, 0, 0, 1], port).into()),
        target => target,
    };
    Ok((target, path.trim_end_matches('/').to_owned()))
}

/// Whether what is sent there stays on this machine, or in this pod.
fn is_local(target: &Target) -> bool {
    match target {
        Target::Ip(address) => address.ip().is_loopback(),
        Target::Unix(_) => true,
        Target::Name(..) => false,
    }
}

fn headers(fields: &Fields<'_>, findings: &mut Findings) -> OtlpHeaders {
    let path = fields.name_of("headers");
    let mut headers = Vec::new();
    for (name, place, node) in fields
        .mapping("headers", MAX_HEADERS, findings)
        .unwrap_or_default()
    {
        let Some(value) = text(node, &format!("{path}.{name}"), findings) else {
            continue;
        };
        if let Some(name) = header_name(name, place, &path, findings) {
            // Its text is not shown: it may be a secret.
            if HeaderValue::from_str(value).is_err() || !value.is_ascii() {
                let message = format!("`{path}.{name}` is no value of a header");
                findings.error_with_help(node.place, message, "write visible ASCII characters");
            }
            headers.push((name, value.to_owned()));
        }
    }
    OtlpHeaders(headers)
}

fn header_name(name: &str, place: Place, path: &str, findings: &mut Findings) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let taken =
        OWN_HEADERS.contains(&lower.as_str()) || lower.starts_with("grpc-") || lower.ends_with("-bin");
    if HeaderName::from_bytes(lower.as_bytes()).is_err() || taken {
        let help = "for example `authorization`; headers of the connection and of gRPC are svidecar's own";
        findings.error_with_help(
            place,
            format!("`{path}`: `{name}` is no header that can be set"),
            help,
        );
        return None;
    }
    Some(lower)
}

fn service_name(fields: &Fields<'_>, findings: &mut Findings) -> Option<String> {
    let (text, place) = fields.text("service_name", findings)?;
    if text.len() > MAX_SERVICE_NAME {
        let message = format!(
            "`{}` has {MAX_SERVICE_NAME} bytes at most",
            fields.name_of("service_name")
        );
        findings.error_with_help(place, message, "write a short name, such as `orders`");
        return None;
    }
    Some(text.to_owned())
}
