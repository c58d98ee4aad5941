//! Which listeners are open: publishes the set to the workers, and keeps the files of unix sockets in step with it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use crate::config::settings::Address;
use crate::connection::registry::lock;
use crate::sys::bind::SocketFile;
use crate::worker::{ListenerSet, Publisher};

/// The listeners' doors. Once they are closed they stay so.
#[derive(Debug)]
pub(super) struct Doors {
    publisher: Publisher,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    closed: bool,
    /// Nobody else keeps it: a socket closes when it has left.
    set: ListenerSet,
    files: HashMap<PathBuf, SocketFile>,
}

impl Doors {
    pub(super) fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            state: Mutex::new(State {
                closed: false,
                set: Arc::new([]),
                files: HashMap::new(),
            }),
        }
    }

    /// Accepts from these listeners and no others. Files of sockets that left are removed before these are closed.
    pub(super) fn open(&self, set: &ListenerSet) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        let paths = set
            .iter()
            .filter_map(|listener| match &listener.context.settings.listen {
                Address::Unix(path) => Some(path),
                Address::Tcp(_) => None,
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
        self.publisher.publish(set.clone());
    }

    /// Those that are open.
    pub(super) fn listeners(&self) -> ListenerSet {
        lock(&self.state).set.clone()
    }

    /// Accepts no more.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        // Before the sockets are closed: another process that finds nobody listening may put its own in their place.
        state.files.values().for_each(SocketFile::remove);
        state.files.clear();
        state.set = Arc::new([]);
        self.publisher.publish(Arc::new([]));
    }

    /// Whether no more is accepted.
    pub(super) fn are_closed(&self) -> bool {
        lock(&self.state).closed
    }
}
