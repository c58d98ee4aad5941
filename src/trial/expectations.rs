//! Expectations as written: one `*.test.yaml` file, every value with its place.
//!
//! ```yaml
//! config: ../svidecar.yaml            # the config whose policy, deny list, listeners and trust domain are tested
//! # or, where policies live without a config:
//! # policy: policy/
//! # deny_list: deny-list.yaml
//! # trust_domain: example.org         # ours
//! at: 2026-12-01T00:00:00Z            # the time of all tests; left out: now
//! tests:
//!   - name: storefront may order
//!     from: spiffe://example.org/ns/shop/sa/storefront
//!     to: orders
//!     source: 10.0.0.7
//!     expect: allow
//!     by: storefront-places-orders
//! ```

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::policy::deny_list;
use crate::record::Verdict;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::yaml::{self, Diagnostic, Fields, Findings, Node, Place};

/// Tests in one file.
const MAX_TESTS: usize = 10_000;

pub(super) const FILE: &[&str] = &["config", "policy", "deny_list", "trust_domain", "at", "tests"];
pub(super) const TEST: &[&str] = &[
    "name",
    "from",
    "to",
    "source",
    "certificate",
    "at",
    "expect",
    "by",
    "reason",
];
pub(super) const CERTIFICATE: &[&str] = &["serial", "key", "issued"];

/// One file of expectations.
#[derive(Debug)]
pub struct Expectations {
    /// The file, as its user named it.
    pub file: Arc<str>,
    /// What is tested.
    pub subject: Subject,
    /// The time of tests that do not say theirs.
    pub at: Option<SystemTime>,
    /// The tests, in order.
    pub tests: Vec<Expectation>,
}

/// What is tested. Paths are as written: relative to the folder of the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// All that a config names.
    Config(PathBuf),
    /// Files without a config: what rules say of listeners is not checked, and every trust domain is accepted.
    Files {
        /// The policy.
        policy: PathBuf,
        /// The deny list.
        deny_list: Option<PathBuf>,
        /// Our own trust domain.
        trust_domain: Option<TrustDomain>,
    },
}

/// One expectation.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// What it is called in reports.
    pub name: String,
    /// Where it begins.
    pub place: Place,
    /// Who asks.
    pub from: SpiffeId,
    /// For which listener.
    pub to: String,
    /// From where.
    pub source: Option<IpAddr>,
    /// With which certificate: what a deny list may ask of it.
    pub certificate: Option<Certificate>,
    /// When.
    pub at: Option<SystemTime>,
    /// What is expected.
    pub expect: Verdict,
    /// The rule, or entry of the deny list, that is expected to decide.
    pub by: Option<String>,
    /// Why a denial is expected.
    pub reason: Option<String>,
}

/// What a deny list may ask of a certificate. By default it is on no list: no certificate has an empty serial number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 over the SubjectPublicKeyInfo.
    pub key_hash: [u8; 32],
    /// When it was issued.
    pub issued: Option<SystemTime>,
}

/// Reads one file's text. Pure; never panics.
///
/// # Errors
/// All that is wrong with it.
pub fn read(file: &str, text: &str) -> Result<Expectations, Vec<Diagnostic>> {
    let mut findings = Findings::new(file, text);
    match expectations(text, &mut findings) {
        Some(expectations) if findings.errors() == 0 => Ok(expectations),
        _ => Err(findings.into_list()),
    }
}

fn expectations(text: &str, findings: &mut Findings) -> Option<Expectations> {
    let root = yaml::root(
        text,
        "write `config`, and under `tests` what you expect",
        findings,
    )?;
    let fields = Fields::of(&root, "", FILE, findings)?;
    let subject = subject(&fields, findings);
    let at = instant(&fields, "at", findings);
    fields.require("tests", "[{ name: …, from: …, to: …, expect: allow }]", findings);
    let items = fields.list("tests", MAX_TESTS, findings)?;
    let tests = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| test(item, index, findings))
        .collect();
    Some(Expectations {
        file: Arc::clone(findings.file()),
        subject: subject?,
        at,
        tests,
    })
}

fn subject(fields: &Fields<'_>, findings: &mut Findings) -> Option<Subject> {
    let path =
        |name, findings: &mut Findings| fields.text(name, findings).map(|(text, _)| PathBuf::from(text));
    if fields.mentions("config") {
        for other in ["policy", "deny_list", "trust_domain"] {
            if let Some(place) = fields.key_place(other) {
                let message = format!("`config` and `{other}` exclude each other");
                findings.error_with_help(place, message, "the config says it already: take the line out");
            }
        }
        return path("config", findings).map(Subject::Config);
    }
    if !fields.mentions("policy") {
        let help = "write `config: svidecar.yaml`, or `policy: policy/` where there is no config; paths are relative to this file";
        findings.error_with_help(fields.place, "the file does not say what it tests", help);
        return None;
    }
    let policy = path("policy", findings);
    let deny_list = path("deny_list", findings);
    let trust_domain = match fields.text("trust_domain", findings) {
        Some((text, place)) => Some(trust_domain(text, place, findings)?),
        None => None,
    };
    Some(Subject::Files {
        policy: policy?,
        deny_list,
        trust_domain,
    })
}

fn trust_domain(text: &str, place: Place, findings: &mut Findings) -> Option<TrustDomain> {
    // `TrustDomain` takes whole IDs, too, and keeps their trust domain.
    match TrustDomain::new(text) {
        Ok(domain) if !text.contains('/') => Some(domain),
        _ => {
            findings.error_with_help(
                place,
                format!("`{text}` is no trust domain"),
                "for example `example.org`",
            );
            None
        }
    }
}

fn test(node: &Node, index: usize, findings: &mut Findings) -> Option<Expectation> {
    let path = format!("tests[{index}]");
    let fields = Fields::of(node, &path, TEST, findings)?;
    let name = fields.required_text("name", "storefront may order", findings);
    let from = from(&fields, findings);
    let to = fields.required_text("to", "orders", findings);
    let source = source(&fields, findings);
    let certificate = certificate(&fields, &path, findings);
    let at = instant(&fields, "at", findings);
    fields.require("expect", "allow", findings);
    let words = [("allow", Verdict::Allow), ("deny", Verdict::Deny)];
    let expect = fields.word("expect", &words, findings);
    let by = fields.text("by", findings);
    let reason = reason(&fields, expect, findings);
    Some(Expectation {
        name: name?.0.to_owned(),
        place: node.place,
        from: from?,
        to: to?.0.to_owned(),
        source,
        certificate,
        at,
        expect: expect?,
        by: by.map(|(text, _)| text.to_owned()),
        reason,
    })
}

fn from(fields: &Fields<'_>, findings: &mut Findings) -> Option<SpiffeId> {
    let (text, place) = fields.required_text("from", "spiffe://example.org/ns/shop/sa/web", findings)?;
    match SpiffeId::new(text) {
        Ok(id) if !id.path().is_empty() => Some(id),
        Ok(_) => {
            let help = "a workload's ID has a path: `spiffe://example.org/ns/shop/sa/web`";
            findings.error_with_help(place, format!("`{text}` is the ID of a trust domain"), help);
            None
        }
        Err(error) => {
            let help =
                "a test is about one peer, not a pattern: for example `spiffe://example.org/ns/shop/sa/web`";
            findings.error_with_help(place, format!("`{text}` is no SPIFFE ID: {error}"), help);
            None
        }
    }
}

fn source(fields: &Fields<'_>, findings: &mut Findings) -> Option<IpAddr> {
    let (text, place) = fields.text("source", findings)?;
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical()),
        Err(_) => {
            let help = "one address, such as `10.1.2.3`; left out, it is unknown, as on a unix socket";
            findings.error_with_help(place, format!("`{text}` is no IP address"), help);
            None
        }
    }
}

/// The word for a denial. Which there are is a closed set.
fn reason(fields: &Fields<'_>, expect: Option<Verdict>, findings: &mut Findings) -> Option<String> {
    let words = super::DENIALS.map(|reason| (reason.as_str(), reason));
    let reason = fields.word("reason", &words, findings)?;
    if expect == Some(Verdict::Allow)
        && let Some(place) = fields.key_place("reason")
    {
        findings.error_with_help(
            place,
            "only a denial has a reason",
            "take the line out, or expect `deny`",
        );
    }
    Some(reason.as_str().to_owned())
}

fn instant(fields: &Fields<'_>, name: &str, findings: &mut Findings) -> Option<SystemTime> {
    let (text, place) = fields.text(name, findings)?;
    let at = crate::clock::parse_rfc3339(text);
    if at.is_none() {
        let help = "write date, time and zone (RFC 3339): `2027-01-01T00:00:00Z`";
        findings.error_with_help(place, format!("`{text}` is no point in time"), help);
    }
    at
}

fn certificate(fields: &Fields<'_>, path: &str, findings: &mut Findings) -> Option<Certificate> {
    let node = fields.get("certificate")?;
    let fields = Fields::of(node, &format!("{path}.certificate"), CERTIFICATE, findings)?;
    let serial = value(&fields, "serial", deny_list::serial, findings);
    let key_hash = value(&fields, "key", deny_list::key, findings);
    let of_no_list = Certificate::default();
    Some(Certificate {
        serial: serial.map_or(of_no_list.serial, String::from),
        key_hash: key_hash.unwrap_or(of_no_list.key_hash),
        issued: instant(&fields, "issued", findings),
    })
}

/// A value as deny lists have it.
fn value<T>(
    fields: &Fields<'_>,
    name: &str,
    read: impl Fn(&str) -> Result<T, (&'static str, &'static str)>,
    findings: &mut Findings,
) -> Option<T> {
    let (text, place) = fields.text(name, findings)?;
    read(text)
        .map_err(|(message, help)| findings.error_with_help(place, format!("`{text}` {message}"), help))
        .ok()
}
