//! A deny list as written, and its compilation.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::{DenyList, Entry, What};
use crate::policy::compile::content_hash;
use crate::policy::file::values::{description, moment, name, patterns};
use crate::policy::ids::{IdSet, Ids};
use crate::spiffe::IdPattern;
use crate::yaml::{self, Diagnostic, Fields, Findings, Node, Place, Value, one_of};

/// Entries in one list.
const MAX_ENTRIES: usize = 10_000;
/// Values in one list of an entry.
const MAX_VALUES: usize = 10_000;
/// The most octets of a serial number (RFC 5280 section 4.1.2.2).
const MAX_SERIAL_BYTES: usize = 20;

pub(in crate::policy) const TOP: &[&str] = &["deny"];
pub(in crate::policy) const ENTRY: &[&str] = &[
    "name",
    "description",
    "ids",
    "serials",
    "keys",
    "issued_before",
    "from",
];
/// Of these an entry has one.
const KINDS: &[&str] = &["ids", "serials", "keys", "issued_before"];

/// A deny list's file, read.
#[derive(Debug)]
pub struct DenyFile {
    /// The entries in order. Where the file has errors, what could be read of them.
    pub entries: Vec<WrittenEntry>,
    /// What was found so far; compiling adds to it.
    pub findings: Findings,
    /// The text the entries were read from.
    pub text: String,
}

/// One entry as written.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenEntry {
    /// Its name and where that stands.
    pub name: (Arc<str>, Place),
    /// For people.
    pub description: Option<Arc<str>>,
    /// What it names.
    pub what: WrittenWhat,
    /// The IDs that it is narrowed to.
    pub from: Option<Vec<IdPattern>>,
}

/// What an entry names.
#[derive(Clone, Debug, PartialEq)]
pub enum WrittenWhat {
    /// Peers by ID.
    Ids(Vec<IdPattern>),
    /// Certificates by serial number: lower-case hexadecimal, two digits a byte, no leading zero bytes.
    Serials(Vec<Box<str>>),
    /// Keys by the SHA-256 of their SubjectPublicKeyInfo.
    Keys(Vec<[u8; 32]>),
    /// Certificates by age.
    IssuedBefore(SystemTime, Place),
}

/// Reads and compiles a deny list's text by itself. Pure; never panics.
///
/// # Errors
/// All that is wrong with it.
pub fn parse_text(text: &str) -> Result<Vec<WrittenEntry>, Vec<Diagnostic>> {
    let file = read("deny list", text);
    if file.findings.errors() > 0 {
        Err(file.findings.into_list())
    } else {
        Ok(file.entries)
    }
}

/// Reads a deny list's text, keeping entries and findings both.
#[must_use]
pub fn read(file_name: &str, text: &str) -> DenyFile {
    let mut findings = Findings::new(file_name, text);
    let entries = entries(text, &mut findings).unwrap_or_default();
    DenyFile {
        entries,
        findings,
        text: text.to_owned(),
    }
}

/// Compiles a deny list that was read.
///
/// # Errors
/// All findings, when one of them is an error: the list is refused whole.
pub fn compile(file: DenyFile, now: SystemTime) -> Result<(DenyList, Vec<Diagnostic>), Vec<Diagnostic>> {
    let DenyFile {
        entries: written,
        mut findings,
        text,
    } = file;
    let mut names: HashMap<Arc<str>, u32> = HashMap::new();
    let mut entries = Vec::with_capacity(written.len());
    for entry in written {
        let (name, place) = &entry.name;
        if let Some(line) = names.insert(Arc::clone(name), place.line) {
            let message = format!("entry `{name}` is here twice, first in line {line}");
            findings.error_with_help(*place, message, "names are unique in a deny list");
        }
        if let WrittenWhat::IssuedBefore(at, place) = entry.what
            && at > now
        {
            let message = format!(
                "`issued_before` is in the future: until {} it names every certificate that is issued",
                crate::clock::rfc3339(at)
            );
            findings.warn(place, message, "name the instant at which the compromise ended");
        }
        entries.push(translate(entry, Arc::clone(findings.file())));
    }
    let hash = content_hash([(findings.file().as_bytes(), text.as_bytes())].into_iter());
    if findings.errors() > 0 {
        Err(findings.into_list())
    } else {
        Ok((DenyList::new(entries, hash), findings.into_list()))
    }
}

fn translate(entry: WrittenEntry, file: Arc<str>) -> Entry {
    Entry {
        name: entry.name.0,
        description: entry.description,
        what: match entry.what {
            WrittenWhat::Ids(ids) => What::Ids(id_set(ids)),
            WrittenWhat::Serials(serials) => What::Serials(serials.into_iter().collect()),
            WrittenWhat::Keys(keys) => What::Keys(keys.into_iter().collect()),
            WrittenWhat::IssuedBefore(at, _) => What::IssuedBefore(at),
        },
        from: entry.from.map(id_set),
        file,
        line: entry.name.1.line,
    }
}

fn id_set(patterns: Vec<IdPattern>) -> IdSet {
    let written = patterns
        .iter()
        .map(|pattern| Arc::clone(pattern.text()))
        .collect();
    IdSet::new(vec![Arc::new(Ids::new(patterns))], written)
}

fn entries(text: &str, findings: &mut Findings) -> Option<Vec<WrittenEntry>> {
    let root = yaml::root(text, "write `deny: []` if it shall name nobody", findings)?;
    let top = Fields::of(&root, "", TOP, findings)?;
    let node = top.require("deny", "[]", findings)?;
    if node.value == Value::List(Vec::new()) {
        return Some(Vec::new());
    }
    let items = top.list("deny", MAX_ENTRIES, findings)?;
    Some(
        items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| entry(item, i, findings))
            .collect(),
    )
}

fn entry(node: &Node, index: usize, findings: &mut Findings) -> Option<WrittenEntry> {
    let fields = Fields::of(node, &format!("deny[{index}]"), ENTRY, findings)?;
    let name = name(&fields, "an entry", findings);
    let description = description(&fields, findings);
    let from = patterns(&fields, "from", findings);
    let what = what(&fields, findings);
    if fields.mentions("ids")
        && let Some(place) = fields.key_place("from")
    {
        let help = "take `from` out: `ids` says which IDs already";
        findings.error_with_help(
            place,
            "`from` narrows `serials`, `keys` and `issued_before`",
            help,
        );
    }
    Some(WrittenEntry {
        name: name?,
        description,
        what: what?,
        from,
    })
}

fn what(fields: &Fields<'_>, findings: &mut Findings) -> Option<WrittenWhat> {
    let mentioned: Vec<&str> = KINDS
        .iter()
        .copied()
        .filter(|kind| fields.mentions(kind))
        .collect();
    match mentioned.as_slice() {
        [] => {
            let message = format!("`{}` names nobody", fields.path);
            let help = format!("say {}", one_of(KINDS));
            findings.error_with_help(fields.place, message, help);
            None
        }
        ["ids"] => patterns(fields, "ids", findings).map(WrittenWhat::Ids),
        ["serials"] => values(fields, "serials", serial, findings).map(WrittenWhat::Serials),
        ["keys"] => values(fields, "keys", key, findings).map(WrittenWhat::Keys),
        [_] => {
            moment(fields, "issued_before", findings).map(|(at, place)| WrittenWhat::IssuedBefore(at, place))
        }
        [first, others @ ..] => {
            let message = format!("`{}` has `{first}` and {}", fields.path, one_of(others));
            let help = "an entry says one thing: make an entry of each";
            findings.error_with_help(fields.place, message, help);
            None
        }
    }
}

/// The values of a list, each read by `read`, which says what is wrong and what to write.
fn values<T>(
    fields: &Fields<'_>,
    field: &str,
    read: impl Fn(&str) -> Result<T, (&'static str, &'static str)>,
    findings: &mut Findings,
) -> Option<Vec<T>> {
    let mut values = Vec::new();
    for (text, place) in fields.texts(field, MAX_VALUES, findings)? {
        match read(text) {
            Ok(value) => values.push(value),
            Err((message, help)) => findings.error_with_help(place, format!("`{text}` {message}"), help),
        }
    }
    Some(values)
}

/// A serial number in hexadecimal as tools print it: with or without colons, in upper or lower case.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn serial(text: &str) -> Result<Box<str>, (&'static str, &'static str)> {
    let help = "hexadecimal, as `openssl x509 -noout -serial` prints it behind `serial=`";
    let digits: String = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(("is no serial number", help));
    }
    let digits = digits.trim_start_matches('0');
    if digits.len() > MAX_SERIAL_BYTES * 2 {
        return Err(("is longer than a serial number may be, which is 20 bytes", help));
    }
    if digits.is_empty() {
        return Ok("00".into());
    }
    let pad = if digits.len() % 2 == 1 { "0" } else { "" };
    Ok(format!("{pad}{digits}").into())
}

/// A key's hash: `sha256:` and 64 hexadecimal digits.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn key(text: &str) -> Result<[u8; 32], (&'static str, &'static str)> {
    let help = "`sha256:` and the 64 digits of `openssl x509 -noout -pubkey -in leaf.pem | openssl pkey -pubin -outform der | sha256sum`";
    let wrong = ("is no key hash", help);
    let digits = text.strip_prefix("sha256:").ok_or(wrong)?;
    let hash = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| wrong)?;
    hash.try_into().map_err(|_| wrong)
}
