//! Reads what offline questions are asked of: a config with the policy and deny list it names, or these by themselves.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::settings::{ListenerName, Settings};
use crate::config::{self, Environment};
use crate::policy::{self, Admission, DenyList, Policy, Surroundings};
use crate::yaml::Diagnostic;

/// A config with what decides for its listeners.
pub(super) struct Configured {
    pub(super) settings: Settings,
    pub(super) listeners: Vec<ListenerName>,
    pub(super) admission: Admission,
    pub(super) warnings: Vec<Diagnostic>,
}

/// Reads a config and what it names; `deny_list` in place of the one that it names. The questions are about policy: that
/// an agent's socket is known only where the sidecar runs is no obstacle.
pub(super) fn config(
    path: &Path,
    deny_list: Option<&Path>,
    environment: &Environment,
    now: SystemTime,
) -> Result<Configured, Vec<Diagnostic>> {
    let offline = Environment {
        endpoint_socket: environment
            .endpoint_socket
            .clone()
            .or_else(|| Some("unix:///not-asked".to_owned())),
        ..environment.clone()
    };
    let (settings, mut warnings) = config::load(path, &offline)?;
    let listeners = config::listener_names(&settings.listeners);
    let surroundings = Surroundings {
        listeners: Some(&listeners),
        own_trust_domain: settings.identity.trust_domain.as_ref(),
    };
    let policy = settings.policy.path.as_deref();
    let deny_list = deny_list.or(settings.policy.deny_list.as_deref());
    let admission = admission(policy, deny_list, surroundings, now, &mut warnings)?;
    Ok(Configured {
        settings,
        listeners,
        admission,
        warnings,
    })
}

/// Reads a policy and a deny list; what is not named denies all, and names nobody.
pub(super) fn admission(
    policy: Option<&Path>,
    deny_list: Option<&Path>,
    surroundings: Surroundings<'_>,
    now: SystemTime,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Admission, Vec<Diagnostic>> {
    let mut take = |warned: Vec<Diagnostic>| warnings.extend(warned);
    let policy = match policy {
        Some(path) => {
            let (policy, warned) = policy::load(path, surroundings, now)?;
            take(warned);
            policy
        }
        None => Policy::deny_all(),
    };
    let deny_list = match deny_list {
        Some(path) => {
            let (list, warned) = policy::load_deny_list(path, now)?;
            take(warned);
            list
        }
        None => DenyList::empty(),
    };
    Ok(Admission::new(Arc::new(policy), Arc::new(deny_list)))
}
