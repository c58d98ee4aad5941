//! What only a new process can do: fields that are read at the start alone, and what is beyond what this process has confined
//! itself to.

use std::path::Path;

use crate::config::Difference;
use crate::config::settings::{Address, ListenerKind, Settings};
use crate::sandbox::plan::{Plan, Surroundings};
use crate::yaml::Diagnostic;

/// What to do about it.
const ADVICE: &str = "restart it; under `svidecar supervise`, SIGUSR2 starts a new process beside this one, and no \
                      connection is dropped";

/// The rules of the packet filter are written once, by somebody else, and this process may not even look at them.
const RULES: &str = "another `listen` or `ports` of a transparent listener needs other rules, which the running ones know \
                     nothing of (`svidecar intercept --apply` with the new config first; in Kubernetes, a new pod)";

/// What of the settings the rules of the packet filter are made of: the listeners that connections are redirected to, and the
/// ports that they take.
fn redirects(settings: &Settings) -> Vec<(&Address, &[u16], bool)> {
    let listeners = settings.listeners.iter();
    let mut all: Vec<_> = listeners
        .filter_map(|listener| match &listener.kind {
            ListenerKind::Inbound {
                redirected: Some(redirected),
                ..
            } => Some((&listener.listen, redirected.ports.as_slice(), true)),
            ListenerKind::Transparent(_) => Some((&listener.listen, &[][..], false)),
            _ => None,
        })
        .collect();
    all.sort_by_key(|(listen, ports, inbound)| (listen.to_string(), *ports, *inbound));
    all
}

/// Why the settings of `path` need a new process; `None` where this one can do. `granted` is what it is confined to. Blocking.
pub(super) fn needed(
    path: &Path,
    in_force: &Settings,
    settings: &Settings,
    granted: &Plan,
) -> Option<Diagnostic> {
    let fields = Difference::between(in_force, settings).at_start_alone;
    let mut why: Vec<String> = fields
        .iter()
        .map(|field| format!("`{field}` cannot be changed while the process runs"))
        .collect();
    if redirects(in_force) != redirects(settings) {
        why.push(RULES.to_owned());
    }
    let wanted = Plan::of(settings, path, &Surroundings::of_process());
    let lacking = granted.lacking(&wanted);
    why.extend(
        lacking
            .iter()
            .map(|lack| format!("{lack}, which the sandbox does not allow")),
    );
    (!why.is_empty()).then(|| because(path, &why.join("; ")))
}

/// The finding that says so.
pub(super) fn because(path: &Path, why: &str) -> Diagnostic {
    let message = format!("restart needed: {why}");
    Diagnostic::of_file(&path.display().to_string(), message).with_help(ADVICE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, check};
    use crate::sandbox::plan::Held;

    fn settings(workers: usize, port: u16) -> Settings {
        let text = format!(
            "identity: {{ socket: unix:///a.sock }}\nworkers: {workers}\noutbound:\n  - {{ name: payments, listen: \
             127.0.0.1:{port}, connect: 127.0.0.1:8443, peer: [spiffe://example.org/payments] }}\n"
        );
        let environment = Environment {
            endpoint_socket: None,
            cores: 1,
        };
        check(&text, "c.yaml", Path::new("/"), &environment).unwrap().0
    }

    #[test]
    fn each_field_and_each_grant_is_named() {
        let path = Path::new("/etc/svidecar.yaml");
        let old = settings(2, 9001);
        let held = Held {
            network: true,
            ..Held::default()
        };
        let free = Plan::of(&old, path, &Surroundings::of_process());
        let granted = free.clone().held(held);
        let found = |new: &Settings, granted| needed(path, &old, new, granted).map(|one| one.summary());
        assert_eq!(found(&settings(2, 9001), &granted), None);
        assert_eq!(found(&settings(2, 9002), &free), None, "nothing holds it");
        let both = found(&settings(3, 9002), &granted).unwrap();
        for part in [
            "/etc/svidecar.yaml: restart needed: `workers` cannot be changed",
            "listener `payments`: binding TCP port 9002, which the sandbox",
            "SIGUSR2",
        ] {
            assert!(both.contains(part), "{part}: {both}");
        }
    }

    #[test]
    fn rules_that_would_be_others_are_named() {
        let settings = |inbound: &str, outbound: u16| {
            let text = format!(
                "identity: {{ socket: unix:///a.sock }}\npolicy: {{ path: p }}\ninbound:\n  - {{ name: app, listen: \
                 '[::]:15006', transparent: true{inbound} }}\noutbound:\n  - {{ name: mesh, listen: '[::]:{outbound}', \
                 transparent: true, destinations: [{{ to: ['10.0.0.0/8:80'], peer: ['spiffe://td/**'] }}] }}\n"
            );
            let environment = Environment {
                endpoint_socket: None,
                cores: 1,
            };
            check(&text, "c.yaml", Path::new("/"), &environment).unwrap().0
        };
        let path = Path::new("/etc/svidecar.yaml");
        let old = settings(", ports: [8080]", 15001);
        let free = Plan::of(&old, path, &Surroundings::of_process());
        let found = |new: &Settings| needed(path, &old, new, &free).map(|one| one.summary());
        assert_eq!(found(&settings(", ports: [8080], alpn: [h2]", 15001)), None);
        for new in [
            settings(", ports: [8080, 9090]", 15001),
            settings("", 15001),
            settings(", ports: [8080]", 15002),
        ] {
            let why = found(&new).unwrap();
            assert!(why.contains("svidecar intercept --apply"), "{why}");
        }
    }
}
