//! Which listeners are open: publishes the set to the workers, and keeps the files of unix sockets in step with it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use super::service::Service;
use crate::config::settings::Address;
use crate::connection::registry::lock;
use crate::sys::bind::SocketFile;
use crate::worker::{ListenerSet, Publisher};

/// The listeners' doors. Once they are closed they stay so.
#[derive(Debug)]
pub(super) struct Doors {
    publisher: Publisher,
    /// Sockets that another process opened: their files are its own.
    lent: HashSet<Address>,
    service: Arc<Service>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Nothing is accepted yet.
    held: bool,
    closed: bool,
    set: ListenerSet,
    files: HashMap<PathBuf, SocketFile>,
}

impl Doors {
    /// Held until [`Self::release`].
    pub(super) fn new(publisher: Publisher, lent: HashSet<Address>, service: Arc<Service>) -> Self {
        Self {
            publisher,
            lent,
            service,
            state: Mutex::new(State {
                held: true,
                closed: false,
                set: Arc::new([]),
                files: HashMap::new(),
            }),
        }
    }

    /// Accepts from the listeners that are open from now on.
    pub(super) fn release(&self) {
        let mut state = lock(&self.state);
        state.held = false;
        self.publisher.publish(state.set.clone());
    }

    /// Accepts from these listeners and no others. Files of sockets that left are removed: those who hold the set of before
    /// let go of it only then.
    pub(super) fn open(&self, set: &ListenerSet) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        let paths = set
            .iter()
            .filter_map(|listener| match &listener.context.settings.listen {
                // Where there is a supervisor it has all of them.
                listen @ Address::Unix(path)
                    if !self.service.is_supervised() && !self.lent.contains(listen) =>
                {
                    Some(path)
                }
                Address::Unix(_) | Address::Tcp(_) => None,
            });
        let mut files = HashMap::new();
        for path in paths {
            let file = state.files.remove(path);
            if let Some(file) = file.or_else(|| SocketFile::of(path).ok()) {
                files.insert(path.clone(), file);
            }
        }
        let left = std::mem::replace(&mut state.files, files);
        left.values().for_each(SocketFile::remove);
        state.set = set.clone();
        if !state.held {
            self.publisher.publish(set.clone());
        }
    }

    /// Accepts no more.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        // Before the sockets are closed: another process that finds nobody listening may put its own in their place.
        state.files.values().for_each(SocketFile::remove);
        state.files.clear();
        // Whoever still shows the listeners must not keep their ports.
        state.set.iter().for_each(|listener| listener.close());
        state.set = Arc::new([]);
        self.publisher.publish(Arc::new([]));
    }

    /// Whether no more is accepted.
    pub(super) fn are_closed(&self) -> bool {
        lock(&self.state).closed
    }
}
