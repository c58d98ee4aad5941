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

#[derive(Debug, Default)]
struct State {
    closed: bool,
    files: HashMap<PathBuf, SocketFile>,
}

impl Doors {
    pub(super) fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            state: Mutex::default(),
        }
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
        self.publisher.publish(set.clone());
    }

    /// Accepts no more.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        // Before the sockets are closed: another process that finds nobody listening may put its own in their place.
        state.files.values().for_each(SocketFile::remove);
        state.files.clear();
        self.publisher.publish(Arc::new([]));
    }

    /// Whether no more is accepted.
    pub(super) fn are_closed(&self) -> bool {
        lock(&self.state).closed
    }
}
