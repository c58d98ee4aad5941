//! Puts into force what was read together with a new config: whatever of it is another, and nothing twice.

use super::{Found, Loaded, in_force, name, path_of, set_rules};
use crate::app::shared::Control;
use crate::config::listener_names;
use crate::config::settings::Settings;
use crate::policy::Policy;
use crate::telemetry::metrics::{Document, ReloadResult};
use crate::yaml::Diagnostic;

impl Control {
    /// Takes over the documents of a config that is in force already. `deny_list` is the generation of that one when they were
    /// read, `before` are the settings that they were read for last.
    pub(in crate::app) fn replace(&self, found: Vec<Found>, deny_list: u64, before: &Settings) {
        let running = self.running();
        let settings = &running.settings;
        let mode = settings.policy.mode;
        if mode != before.policy.mode {
            self.live.set_policy(self.live.policy().with_mode(mode));
        }
        let same_listeners = listener_names(&settings.listeners) == listener_names(&before.listeners);
        for document in [Document::Policy, Document::DenyList, Document::Candidate] {
            let read = found.iter().any(|found| found.document == document);
            if !read && path_of(before, document).is_some() {
                self.no_more(document);
            }
        }
        for Found {
            document,
            path,
            fingerprint,
            loaded,
        } in found
        {
            // Nobody waits with the deny list: a newer one that came into force meanwhile stays.
            let stays = document == Document::DenyList
                && self.view.reloads.generation(document) != deny_list
                && path_of(before, document) == Some(&path);
            if stays {
                continue;
            }
            self.view.reloads.saw(document, &path, fingerprint);
            match loaded {
                Ok(loaded) => {
                    let same = same_listeners || document == Document::DenyList;
                    self.replace_one(document, loaded, same);
                }
                Err(problems) => {
                    let moved = path_of(before, document) != Some(&path);
                    self.unusable(document, &problems, moved);
                }
            }
        }
        let view = self.live.policy();
        for listener in running.listeners.iter() {
            let context = &listener.context;
            set_rules(&context.metrics, &context.settings, &view.admission.policy);
        }
        for document in [Document::Policy, Document::DenyList, Document::Candidate] {
            // Where it was read from may be another file with the same content.
            self.metrics.set_in_force(document, self.metric(&view, document));
        }
        self.show_all();
    }

    /// A document that is `same` in all but its content, which is compared.
    fn replace_one(&self, document: Document, loaded: Loaded, same: bool) {
        self.metrics.policy_reloaded(document, ReloadResult::Success);
        let view = self.live.policy();
        let is_new = in_force(&view, document)
            .is_none_or(|(_, content_hash, _)| !same || content_hash != loaded.content_hash());
        self.view.reloads.note(document, self.clock.now(), &[]);
        if is_new {
            let what = name(document);
            let generation = self.put(loaded);
            tracing::info!(generation, "a new {what} is in force, or for other listeners");
            self.audit_document(document, &[]);
        }
    }

    /// A candidate that cannot be used. The last good one stays, unless it was another file.
    fn unusable(&self, document: Document, problems: &[Diagnostic], moved: bool) {
        if moved && document == Document::Candidate {
            self.live.set_policy(self.live.policy().without_candidate());
        }
        self.refused(document, problems);
    }

    /// The config names none any more.
    fn no_more(&self, document: Document) {
        let view = self.live.policy();
        match document {
            Document::Policy => {
                self.put(Loaded::Policy(Policy::deny_all()));
            }
            Document::DenyList => self.live.set_policy(view.without_deny_list(self.clock.now())),
            Document::Candidate => self.live.set_policy(view.without_candidate()),
            Document::Config => {}
        }
        let what = name(document);
        tracing::info!("the config names no {what} any more: none is in force");
        self.view.reloads.note(document, self.clock.now(), &[]);
        self.view.reloads.forget(document);
        self.audit_no_document(document);
    }
}
