//! Annotations of ours where nobody reads them: whoever wrote them believes that there is a sidecar.

use super::PREFIX;
use crate::inject::tree::{Node, Scalar};
use crate::yaml::Findings;

/// Finds fault with annotations and labels of ours anywhere in a workload but on its pods. `template` is where those are described.
pub(in crate::inject) fn refuse_misplaced(
    object: &Node,
    template: &[&str],
    workload: &str,
    findings: &mut Findings,
) {
    let right: Vec<&str> = template
        .iter()
        .chain(&["metadata", "annotations"])
        .copied()
        .collect();
    each(object, &mut Vec::new(), &mut |path, key| {
        if path == right {
            return;
        }
        let message = format!(
            "{workload}: `{}` stands in `{}` and would do nothing",
            key.text,
            path.join(".")
        );
        let help = format!("move it to the annotations of the pods: `{}`", right.join("."));
        findings.error_with_help(key.place, message, help);
    });
}

/// Finds fault with an object of a kind that is not known, and has annotations of ours: it would be written without a sidecar.
pub(in crate::inject) fn refuse_unknown(object: &Node, kind: &str, group: &str, findings: &mut Findings) {
    let mut first = None;
    each(object, &mut Vec::new(), &mut |path, key| {
        first.get_or_insert_with(|| (path.join("."), key.clone()));
    });
    let Some((path, key)) = first else {
        return;
    };
    let name = object.at(&["metadata", "name"]).and_then(Node::text);
    let message = format!(
        "{kind}/{}: has `{}` in `{path}`, but `{kind}` of `{group}` is no kind that gets a sidecar",
        name.unwrap_or("?"),
        key.text
    );
    let help = "put the sidecar in by hand, as docs/inject.md says, and take the annotations out";
    findings.error_with_help(key.place, message, help);
}

/// Tells of each key of ours among annotations or labels, with the path of the mapping that it stands in. As deep as
/// what was read, which has a limit.
fn each<'n>(node: &'n Node, path: &mut Vec<&'n str>, found: &mut impl FnMut(&[&str], &Scalar)) {
    match node {
        Node::Map(entries) => {
            let is_place = matches!(path.last(), Some(&"annotations" | &"labels"));
            for (key, value) in entries {
                if is_place && key.text.starts_with(PREFIX) {
                    found(path, key);
                }
                path.push(&key.text);
                each(value, path, found);
                path.pop();
            }
        }
        Node::List(items) => items.iter().for_each(|item| each(item, path, found)),
        Node::Scalar(_) => {}
    }
}
