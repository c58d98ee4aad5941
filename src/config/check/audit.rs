//! The audit log.

use crate::yaml::{Fields, Findings};

pub(super) fn read(top: &Fields<'_>, findings: &mut Findings) {
    if let Some(place) = top.key_place("audit") {
        let help = "take the section out; every connection's end is one log line meanwhile";
        findings.error_with_help(place, "`audit` is not in this version", help);
    }
}
