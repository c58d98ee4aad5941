//! Puts a config into force that was read and is good, whole or not at all.
//!
//! All that can fail comes first: fields that only a new process can take over, sockets, TLS configurations. What follows
//! cannot fail and is done without a pause, on the one thread that publishes anything, so that whoever is told of a
//! change finds all of it. New listeners are opened last.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::leaving::see_out;
use super::{Read, Reloader, fit};
use crate::app::running::{Running, features};
use crate::app::sockets;
use crate::config::Difference;
use crate::config::settings::{Address, Listener, Settings};
use crate::connection::ListenerContext;
use crate::connection::live::{IdentityView, Terms};
use crate::sys::bind::{BindError, Listening, SocketFile};
use crate::telemetry::metrics::Document;
use crate::tls::configs::{self, Context};
use crate::worker::{BoundListener, ListenerSet};
use crate::yaml::Diagnostic;

/// What to do where a port is ours already, at another address. A new process beside this one could not bind it either.
const PORT_IN_USE: &str = "remove the old listener in one change of the config and add the new one in the next, use another \
                           port, or stop the process and start it again";

/// For the workers to leave the listeners that are gone.
const LEFT: Duration = Duration::from_secs(2);

/// The socket of a listener.
enum Door {
    /// Nothing is another: it stays as it is.
    Same(Arc<BoundListener>),
    /// It has a copy of the socket of one that runs and whose place it takes.
    Taken(Listening, Arc<BoundListener>),
    /// It was bound just now.
    New(Listening),
}

/// A listener that is gone, and all that it was since connections are open that came to it.
type Gone = (Arc<str>, Vec<Weak<Listener>>);

/// The sockets of a config that is not in force yet. Files of unix sockets that were made for it go with it.
struct Prepared {
    doors: Vec<(Arc<Listener>, Door)>,
    made: Vec<SocketFile>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.made.iter().for_each(SocketFile::remove);
    }
}

impl Reloader {
    /// Puts a config into force, with the documents that it names.
    ///
    /// # Errors
    /// Why the last one stays in force: nothing was changed.
    pub(super) async fn apply(&self, mut read: Read, asked: u64) -> Result<(), Vec<Diagnostic>> {
        let (control, running) = (&self.control, self.control.running());
        let wanted = read.settings.limits.max_connections;
        let lowered = fit(&mut read.settings.limits, self.fitting);
        let difference = Difference::between(&running.settings, &read.settings);
        if self.doors.are_closed() {
            self.apply_to_open(read, &running, &difference);
            for document in Document::ALL {
                control.view.reloads.answer(*document, asked);
            }
            return Ok(());
        }
        let Read {
            mut settings,
            documents,
            deny_list,
            warnings,
        } = read;
        let prepared = self
            .prepare(&running, &mut settings)
            .map_err(|problem| vec![problem])?;
        let context = self
            .context(&running, &settings)
            .map_err(|problem| vec![problem])?;

        for warning in &warnings {
            tracing::warn!("{}", warning.summary());
        }
        if lowered {
            let max_connections = self.fitting;
            tracing::warn!(
                wanted,
                max_connections,
                "limits.max_connections is lowered to what the limit of open files allows"
            );
        }
        let set = self.listeners(prepared);
        let leaving = control.live.terms().leaving.clone();
        let (gone, past, leaving) = before(&running, &set, leaving);
        let replaced: Vec<_> = running
            .listeners
            .iter()
            .filter(|old| !set.iter().any(|new| Arc::ptr_eq(old, new)))
            .map(|old| old.left())
            .collect();
        control.live.set_terms(terms(&settings, &gone, leaving));
        control.set_upstreams(&settings);
        let (level, patience) = (settings.log.level.clone(), settings.limits.drain_timeout);
        control.view.running.store(Arc::new(Running {
            settings,
            listeners: set.clone(),
            past,
            generation: control.view.reloads.next_generation(Document::Config),
            since: control.clock.now(),
        }));
        control.replace(documents, deny_list, &running.settings);
        if let Some(context) = context {
            control.live.set_identity(IdentityView::Held(Arc::new(context)));
        }
        self.doors.open(&set);
        // For the next process, which a supervisor starts with the sockets that it knows of.
        self.service.sockets(&set);
        if level != running.settings.log.level
            && let Err(error) = control.view.log.set(&level)
        {
            // It was checked with the file.
            tracing::error!(%error, "the log's filter cannot be changed");
        }
        control.config_in_force(&difference);
        // Only now are the sockets closed of those that are gone.
        drop(running);
        for (name, versions) in gone {
            tokio::spawn(see_out(control.clone(), versions, name, patience));
        }
        let left = async {
            for left in replaced {
                left.await;
            }
        };
        if tokio::time::timeout(LEFT, left).await.is_err() {
            tracing::warn!("workers still accept from listeners that are gone: they are busy");
        }
        // All of them were read with it.
        for document in Document::ALL {
            control.view.reloads.answer(*document, asked);
        }
        Ok(())
    }

    /// What a process that drains takes over of a config: all by which its open connections are judged. Its listeners are
    /// closed, and what it serves with stays as it is.
    fn apply_to_open(&self, read: Read, running: &Running, difference: &Difference) {
        let control = &self.control;
        let settings = Settings {
            policy: read.settings.policy,
            open_connections: read.settings.open_connections,
            content_hash: read.settings.content_hash,
            ..running.settings.clone()
        };
        control.live.set_terms(Terms {
            open_connections: settings.open_connections,
            ..Terms::clone(&control.live.terms())
        });
        control.view.running.store(Arc::new(Running {
            settings,
            listeners: running.listeners.clone(),
            past: running.past.clone(),
            generation: control.view.reloads.next_generation(Document::Config),
            since: control.clock.now(),
        }));
        control.replace(read.documents, read.deny_list, &running.settings);
        tracing::info!(
            "no more connections are accepted: of the new config only what judges open ones is taken over"
        );
        control.config_in_force(difference);
    }

    fn problem(&self, message: &str) -> Diagnostic {
        Diagnostic::of_file(&self.control.view.config.display().to_string(), message)
    }

    /// Finds or binds the socket of each listener. Those that are the same as before are made the very ones of before, by
    /// which all know them.
    fn prepare(&self, running: &Running, settings: &mut Settings) -> Result<Prepared, Diagnostic> {
        let mut prepared = Prepared {
            doors: Vec::new(),
            made: Vec::new(),
        };
        for listener in &mut settings.listeners {
            if let Some(same) = running.same(listener) {
                *listener = same.context.settings.clone();
                prepared.doors.push((listener.clone(), Door::Same(same.clone())));
                continue;
            }
            let here = running
                .listeners
                .iter()
                .find(|old| is_at_the_place_of(&old.context.settings, listener));
            let door = match here {
                Some(old) => old
                    .copy()
                    .map(|copy| Door::Taken(copy, old.clone()))
                    .map_err(|error| BindError::new(listener.listen.to_string(), error)),
                None => sockets::bind(listener).map(Door::New),
            };
            let door = door.map_err(|error| self.not_bound(running, listener, &error))?;
            if let (Door::New(_), Address::Unix(path)) = (&door, &listener.listen) {
                prepared.made.extend(SocketFile::of(path));
            }
            prepared.doors.push((listener.clone(), door));
        }
        Ok(prepared)
    }

    fn not_bound(&self, running: &Running, listener: &Listener, error: &BindError) -> Diagnostic {
        let ours = |old: &&Arc<BoundListener>| match (&old.context.settings.listen, &listener.listen) {
            (Address::Tcp(old), Address::Tcp(new)) => old.port() == new.port(),
            _ => false,
        };
        let name = &listener.name;
        match (error, running.listeners.iter().find(ours)) {
            (BindError::InUse(_), Some(old)) => {
                let (other, address) = (&old.context.settings.name, &old.context.settings.listen);
                let why = format!(
                    "restart needed: listener `{name}` cannot be bound while `{other}` still has `{address}`"
                );
                self.problem(&why).with_help(PORT_IN_USE)
            }
            _ => self.problem(&format!("listener `{name}`: {error}")),
        }
    }

    /// What handshakes run with from now on, where we hold an identity. Listeners that are the same keep what they have.
    fn context(&self, running: &Running, settings: &Settings) -> Result<Option<Context>, Diagnostic> {
        let IdentityView::Held(context) = &*self.control.live.identity() else {
            return Ok(None);
        };
        let features = features(settings);
        let mut listeners = self.control.listeners_to_serve(&[]);
        // Whoever is about to be removed may still have connections on the way.
        listeners.extend(running.settings.listeners.iter().cloned());
        listeners.extend(settings.listeners.iter().cloned());
        let is_kept = |listener: &Arc<Listener>| {
            features == running.features()
                && running
                    .settings
                    .listeners
                    .iter()
                    .any(|old| Arc::ptr_eq(old, listener))
        };
        let clock = &self.control.clock;
        context
            .with_listeners(&listeners, &configs::provider(), clock, features, is_kept)
            .map(Some)
            .map_err(|error| self.problem(&error.to_string()))
    }

    /// The listeners with their sockets.
    fn listeners(&self, mut prepared: Prepared) -> ListenerSet {
        // They are in force: the doors keep their files from here on.
        prepared.made.clear();
        let bound = |(listener, door): (Arc<Listener>, Door)| {
            let context = |listener: Arc<Listener>| {
                let metrics = self
                    .control
                    .metrics
                    .listener(&listener.name, listener.direction());
                ListenerContext::new(listener, metrics)
            };
            match door {
                Door::Same(same) => same,
                Door::Taken(socket, old) => {
                    Arc::new(BoundListener::new(context(listener), socket).in_place_of(&old))
                }
                Door::New(socket) => Arc::new(BoundListener::new(context(listener), socket)),
            }
        };
        std::mem::take(&mut prepared.doors)
            .into_iter()
            .map(bound)
            .collect()
    }
}

fn terms(settings: &Settings, gone: &[Gone], mut leaving: Vec<Weak<Listener>>) -> Terms {
    leaving.extend(gone.iter().flat_map(|(_, versions)| versions.iter().cloned()));
    Terms {
        limits: settings.limits.clone(),
        open_connections: settings.open_connections,
        listeners: by_name(&settings.listeners),
        leaving,
    }
}

/// Which listeners are gone with the set of before, what those that are not were before, and which of those that were
/// `leaving` still are: one that comes back in time is a listener that has changed.
fn before(
    running: &Running,
    set: &ListenerSet,
    leaving: Vec<Weak<Listener>>,
) -> (Vec<Gone>, Vec<Weak<Listener>>, Vec<Weak<Listener>>) {
    let is_in = |listener: &Listener| {
        set.iter().any(|new| {
            let new = &new.context.settings;
            new.name == listener.name && new.direction() == listener.direction()
        })
    };
    let mut gone: Vec<Gone> = Vec::new();
    let is_back = |left: &Weak<Listener>| left.upgrade().is_some_and(|listener| is_in(&listener));
    let (mut past, leaving): (Vec<_>, Vec<_>) = leaving.into_iter().partition(is_back);
    let old = running.listeners.iter().map(|old| old.context.settings.clone());
    for listener in old.chain(running.past.iter().filter_map(Weak::upgrade)) {
        let weak = Arc::downgrade(&listener);
        if set
            .iter()
            .any(|new| Arc::ptr_eq(&new.context.settings, &listener))
        {
            continue;
        }
        if is_in(&listener) {
            past.push(weak);
        } else if let Some((_, versions)) = gone.iter_mut().find(|(name, _)| *name == listener.name) {
            versions.push(weak);
        } else {
            gone.push((listener.name.clone(), vec![weak]));
        }
    }
    (gone, past, leaving)
}

/// Whether two listeners have one address. Where the system picks the port, each has its own.
fn is_at_the_place_of(old: &Listener, new: &Listener) -> bool {
    let picked = matches!(&new.listen, Address::Tcp(address) if address.port() == 0);
    old.listen == new.listen && (!picked || old.name == new.name)
}

/// The listeners by their names.
pub(in crate::app) fn by_name(listeners: &[Arc<Listener>]) -> HashMap<Arc<str>, Arc<Listener>> {
    listeners
        .iter()
        .map(|listener| (listener.name.clone(), listener.clone()))
        .collect()
}
