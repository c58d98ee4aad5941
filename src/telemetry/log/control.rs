//! Which lines are written, and how that is changed while the process runs.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use super::{LogError, parse_filter};

/// The longest list of directives, in bytes. Each one costs a comparison at every place that logs.
const MAX_DIRECTIVES: usize = 4096;

/// The filter, behind a lock that only what is neither always nor never let through takes: for directives of targets and
/// levels every place that logs knows its answer until the filter changes.
pub(super) type Filter = reload::Layer<Targets, Registry>;

/// Tells and changes which lines are written: those of events and those of records alike. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogControl {
    handle: reload::Handle<Targets, Registry>,
    /// The directives in force, as they were given. Serializes changes.
    current: Arc<Mutex<String>>,
}

impl LogControl {
    /// The filter of these directives, and what changes it.
    pub(super) fn new(directives: &str) -> Result<(Filter, Self), LogError> {
        let (filter, handle) = reload::Layer::new(parse_filter(directives)?);
        let control = Self {
            handle,
            current: Arc::new(Mutex::new(directives.trim().to_owned())),
        };
        Ok((filter, control))
    }

    /// One that belongs to no log.
    #[cfg(test)]
    pub(crate) fn detached(directives: &str) -> Self {
        Self::new(directives).unwrap().1
    }

    /// The directives in force.
    #[must_use]
    pub fn current(&self) -> String {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts these directives (as `telemetry.log.level` takes them) into force at once, and gives those of before. Nothing keeps
    /// them: a new process begins with those of its config.
    ///
    /// # Errors
    /// [`LogError::Filter`] where they are none, or longer than 4096 bytes: those in force stay. [`LogError::Ended`] where
    /// logging has ended.
    pub fn set(&self, directives: &str) -> Result<String, LogError> {
        if directives.len() > MAX_DIRECTIVES {
            return Err(LogError::Filter(format!(
                "these directives have more than {MAX_DIRECTIVES} bytes"
            )));
        }
        let filter = parse_filter(directives)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Before: the new ones may let nothing through, this line among it.
        tracing::warn!(from = *current, to = directives, "the log's filter is changed");
        self.handle.reload(filter).map_err(|_| LogError::Ended)?;
        Ok(std::mem::replace(&mut *current, directives.trim().to_owned()))
    }
}
