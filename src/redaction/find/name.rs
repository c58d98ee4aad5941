//! SPIFFE IDs, and what else certificates name their owners by.
//!
//! What a verified ID may hold is narrow. What a certificate merely claims goes into texts as well, and its maker chose it:
//! so an ID goes on as far as it can be told from the text around it, whatever it is made of.

use super::Part;

const SCHEME: &str = "spiffe://";
/// After these stands the name that a certificate claims, in backticks: see [`crate::tls::verify::Refusal`] and
/// [`crate::spiffe::svid`].
const CLAIMS: &[&str] = &["claims `", "URI SAN `"];

/// All of a text, in order. A name in backticks ends at the next one.
pub(super) fn all(text: &str) -> Vec<Part> {
    // Schemes are the same in capitals (RFC 3986 section 3.1). Places stay what they are.
    let lower = text.to_ascii_lowercase();
    let mut parts = Vec::new();
    let mut from = 0;
    while let Some((begin, quoted)) = next(text, &lower, from) {
        let rest = text.get(begin..).unwrap_or_default();
        let length = if quoted {
            rest.find('`').unwrap_or(rest.len())
        } else {
            let ends = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '`');
            let word = rest
                .get(..rest.find(ends).unwrap_or(rest.len()))
                .unwrap_or_default();
            let in_text = ['.', ',', ';', ':', '!', '?', ')', ']', '}', '>', '\''];
            word.trim_end_matches(in_text).len().max(SCHEME.len())
        };
        let range = begin..begin + length;
        let is_id = lower.get(begin..).is_some_and(|rest| rest.starts_with(SCHEME));
        from = range.end;
        if is_id {
            let path = SCHEME.len() + trust_domain(rest.get(SCHEME.len()..length).unwrap_or_default());
            parts.push(Part::SpiffeId { range, path });
        } else if length > 0 {
            parts.push(Part::Name { range });
        }
    }
    parts
}

/// Where the next begins, and whether it ends at a backtick.
fn next(text: &str, lower: &str, from: usize) -> Option<(usize, bool)> {
    let id = lower.get(from..)?.find(SCHEME).map(|at| {
        let begin = from + at;
        (
            begin,
            text.get(..begin).is_some_and(|before| before.ends_with('`')),
        )
    });
    let claimed = CLAIMS.iter().filter_map(|mark| {
        let begin = from + text.get(from..)?.find(mark)? + mark.len();
        Some((begin, true))
    });
    claimed.chain(id).min_by_key(|(begin, _)| *begin)
}

/// How much of an ID without its scheme is its trust domain; nothing where there is more before the path than a trust
/// domain can be (SPIFFE-ID section 2.1), such as a user.
fn trust_domain(id: &str) -> usize {
    let authority = id.find(['/', '?', '#']).unwrap_or(id.len());
    let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_one = id
        .get(..authority)
        .is_some_and(|domain| domain.chars().all(belongs));
    if is_one { authority } else { 0 }
}
