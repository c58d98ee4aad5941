//! What a running process is asked to do: by signals, by its supervisor, at the admin endpoint.

use std::sync::Arc;

use crate::app::doors::Doors;
use crate::app::service::{Order, Service};
use crate::app::shared::Control;
use crate::lifecycle::signal::{Signal, Signals};

/// What somebody asks of a process that runs.
pub(super) enum Asked {
    /// The end.
    End,
    /// The end, as another process has taken over.
    Superseded,
    /// No other process sends the audit log on.
    Alone,
    /// The config file is the next process's to read.
    KeepConfig,
    /// It is ours again.
    FollowConfig,
    /// To accept connections, which waited for everything else, or long enough.
    Open,
}

/// Handles signals, and a drain that the admin endpoint asks for, up to what ends the process or changes its part. `draining`
/// says that this drain has begun. Cancel safe.
pub(super) async fn asked(
    control: &Arc<Control>,
    signals: &mut Signals,
    doors: &Doors,
    service: &Arc<Service>,
    draining: &mut bool,
) -> Asked {
    let mut drain_asked = control.view.drain_asked.subscribe();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Terminate { .. } => return Asked::End,
                Signal::Reload => {
                    service.reloading();
                    let (control, service) = (control.clone(), service.clone());
                    tokio::spawn(async move {
                        // What came of it is in the log.
                        let _ = control.view.read_again().await;
                        service.reloaded();
                    });
                }
            },
            order = service.order() => return match order {
                Order::Superseded => Asked::Superseded,
                Order::Open => Asked::Open,
                Order::Alone => Asked::Alone,
                Order::KeepConfig => Asked::KeepConfig,
                Order::FollowConfig => Asked::FollowConfig,
                Order::Orphaned => Asked::End,
            },
            // The sender lives in the view, so that waiting cannot fail.
            _ = drain_asked.wait_for(|asked| *asked), if !*draining => {
                *draining = true;
                doors.close();
                service.draining(control.live.capacity.connections(), false);
            }
        }
    }
}
