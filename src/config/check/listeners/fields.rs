//! Fields that listeners of several kinds have: whom they dial, who may answer, and by which protocol.

use super::MAX_PATTERNS;
use crate::config::address::{self, AddressError};
use crate::config::settings::Target;
use crate::spiffe::IdPattern;
use crate::yaml::{Fields, Findings, Value};

/// The server name to send: as written, or else the host of what is dialled.
pub(super) fn server_name(
    fields: &Fields<'_>,
    connect: Option<&Target>,
    findings: &mut Findings,
) -> Option<String> {
    match fields.text("sni", findings) {
        Some((text, place)) if !address::is_dns_name(text) || text.ends_with('.') => {
            let message = format!("`{}` is `{text}`, which is no DNS name", fields.name_of("sni"));
            let help = "a server name has no port and no final dot and is no IP address; without it the host of `connect` is sent";
            findings.error_with_help(place, message, help);
            None
        }
        Some((text, _)) => Some(text.to_ascii_lowercase()),
        None => match connect {
            Some(Target::Name(host, _)) => Some(host.strip_suffix('.').unwrap_or(host).to_owned()),
            _ => None,
        },
    }
}

/// An address to dial.
pub(super) fn target(
    fields: &Fields<'_>,
    field: &str,
    example: &str,
    findings: &mut Findings,
) -> Option<Target> {
    let (text, place) = fields.required_text(field, example, findings)?;
    match address::target(text) {
        Ok(target) => Some(target),
        Err(error) => {
            let help = match error {
                AddressError::NoAddress(_) => format!("write `127.0.0.1{text}`"),
                _ => format!("for example `{example}`, `127.0.0.1:8080` or `unix:///run/app.sock`"),
            };
            findings.error_with_help(
                place,
                format!("`{}` is `{text}`: {error}", fields.name_of(field)),
                help,
            );
            None
        }
    }
}

/// Who may answer.
pub(super) fn peer(fields: &Fields<'_>, findings: &mut Findings) -> Option<Vec<IdPattern>> {
    if !fields.mentions("peer") {
        let message = format!("`{}` does not say which `peer` may answer", fields.path);
        let help = "name the SPIFFE ID of the service: `peer: [spiffe://example.org/ns/shop/sa/payments]`";
        findings.error_with_help(fields.place, message, help);
        return None;
    }
    let texts = fields.texts("peer", MAX_PATTERNS, findings)?;
    let before = findings.errors();
    let mut patterns = Vec::with_capacity(texts.len());
    for (text, place) in texts {
        match text.parse::<IdPattern>() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                findings.error_with_help(
                    place,
                    format!("`{text}` is no SPIFFE ID pattern: {error}"),
                    error.advice(),
                );
            }
        }
    }
    (findings.errors() == before && !patterns.is_empty()).then_some(patterns)
}

/// Application protocol names (RFC 7301 section 3.1: 1 to 255 bytes each). An empty list is the default.
pub(super) fn alpn(fields: &Fields<'_>, findings: &mut Findings) -> Vec<Vec<u8>> {
    if fields
        .get("alpn")
        .is_some_and(|node| node.value == Value::List(Vec::new()))
    {
        return Vec::new();
    }
    let mut protocols: Vec<Vec<u8>> = Vec::new();
    for (text, place) in fields.texts("alpn", 32, findings).unwrap_or_default() {
        if text.len() > 255 {
            findings.error(place, "an ALPN protocol name has 1 to 255 bytes");
        } else if protocols.iter().any(|other| other == text.as_bytes()) {
            findings.error(
                place,
                format!("`{text}` is in `{}` twice", fields.name_of("alpn")),
            );
        } else {
            protocols.push(text.as_bytes().to_vec());
        }
    }
    protocols
}

/// What is named in the documents, and is for later.
pub(super) fn refuse_later_fields(fields: &Fields<'_>, findings: &mut Findings) {
    let http = fields.word("protocol", &[("tcp", false), ("http", true)], findings);
    if let (Some(true), Some((_, place))) = (http, fields.text("protocol", findings)) {
        let help = "take the line out: HTTP passes as bytes with `tcp`, without http rules";
        findings.error_with_help(place, "`protocol: http` is not in this version", help);
    }
}
