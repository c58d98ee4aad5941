//! The `policy` section.

use super::Context;
use crate::config::settings::{Policy, PolicyMode};
use crate::yaml::{Fields, Findings};

pub(super) const POLICY: &[&str] = &["path", "mode", "deny_list", "candidate"];

pub(super) fn read(
    top: &Fields<'_>,
    context: &Context<'_>,
    any_inbound: bool,
    findings: &mut Findings,
) -> Policy {
    let mut policy = Policy::default();
    let section = top
        .get("policy")
        .and_then(|node| Fields::of(node, "policy", POLICY, findings));
    if let Some(fields) = section {
        // The deny list is asked about servers, too: a sidecar that only calls needs no more of the section.
        let path = if any_inbound || !fields.mentions("deny_list") || fields.mentions("candidate") {
            fields.required_text("path", "policy/", findings)
        } else {
            fields.text("path", findings)
        };
        policy.path = path.map(|(text, _)| context.path(text));
        let modes = [("enforce", PolicyMode::Enforce), ("audit", PolicyMode::Audit)];
        if let Some(mode) = fields.word("mode", &modes, findings) {
            policy.mode = mode;
        }
        policy.deny_list = fields
            .text("deny_list", findings)
            .map(|(text, _)| context.path(text));
        policy.candidate = candidate(&fields, context, &policy, findings);
    } else if any_inbound && !top.mentions("policy") {
        let place = top.key_place("inbound").unwrap_or_default();
        let help = "name the policy files: `policy: { path: policy/ }`; without a rule that allows them, peers are denied";
        findings.error_with_help(place, "`inbound` listeners need a `policy`", help);
    }
    policy
}

fn candidate(
    fields: &Fields<'_>,
    context: &Context<'_>,
    policy: &Policy,
    findings: &mut Findings,
) -> Option<std::path::PathBuf> {
    let (text, place) = fields.text("candidate", findings)?;
    let path = context.path(text);
    if policy.path.as_ref() == Some(&path) {
        let message = "`policy.candidate` is `policy.path`: it would never say anything else";
        findings.error_with_help(place, message, "name the files of the policy that is to come");
        return None;
    }
    Some(path)
}
