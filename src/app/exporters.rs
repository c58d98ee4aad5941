//! The tasks that send telemetry to collectors, and their end.
//!
//! A collector may stand behind a listener of our own. Then the connection to it is one of those that a drain waits for,
//! while what the others leave behind is still to be sent over it, and no new one can be made. So exporters keep their
//! connections until no others are left, and then let go of them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::tasks::{named, one_ended};
use crate::telemetry::otlp::Stage;

/// For what is still to be sent when the process ends.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// The tasks that send to collectors.
pub(super) struct Exporters {
    stage: watch::Sender<Stage>,
    tasks: JoinSet<&'static str>,
    /// Those that run, each of which a task of `tasks` waits for.
    running: Vec<AbortHandle>,
}

impl Drop for Exporters {
    fn drop(&mut self) {
        self.running.iter().for_each(AbortHandle::abort);
    }
}

impl Exporters {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            stage: watch::Sender::new(Stage::Running),
            tasks: JoinSet::new(),
            running: Vec::new(),
        }
    }

    /// Starts one. It is told of the stages, and must end in the last one.
    pub(super) fn spawn<F>(&mut self, name: &'static str, exporter: impl FnOnce(watch::Receiver<Stage>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = tokio::spawn(exporter(self.stage.subscribe()));
        self.running.push(running.abort_handle());
        self.tasks.spawn(named(name, running));
    }

    /// The name of the first one that ends. None may while the process runs.
    pub(super) async fn one_ended(&mut self) -> &'static str {
        one_ended(&mut self.tasks).await
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Has our own connections to collectors closed.
    pub(super) fn leave(&self) {
        self.stage.send_replace(Stage::Leaving);
    }

    /// Has what is left sent, for a moment; says whether all of it was. Nothing is sent any more after that.
    pub(super) async fn end(&mut self) -> bool {
        self.stage.send_replace(Stage::Ending);
        let sent = async { while self.tasks.join_next().await.is_some() {} };
        let sent = tokio::time::timeout(LAST_EXPORT, sent).await.is_ok();
        self.running.drain(..).for_each(|running| running.abort());
        sent
    }
}
