//! What the service manager is told, where there is one (systemd: `sd_notify(3)`; `NOTIFY_SOCKET` says where).

use std::time::Duration;

use sd_notify::NotifyState;

/// The longest status line, in bytes: `systemctl status` shows one line.
const LONGEST_STATUS: usize = 500;

/// The environment that tells a process of its service manager; a child of ours must not speak to it.
pub const ENVIRONMENT: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// What to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The start or the reload is done.
    Ready,
    /// The files are read again.
    Reloading,
    /// The end has begun.
    Stopping,
    /// The process works.
    Watchdog,
}

/// Tells it. Without a service manager nothing happens.
pub fn notify(notice: Notice) {
    match notice {
        Notice::Ready => send(&[NotifyState::Ready]),
        // With the time: systemd must see that it is the answer to this request (`Type=notify-reload`).
        Notice::Reloading => match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told of the reload: no clock")
            }
        },
        Notice::Stopping => send(&[NotifyState::Stopping]),
        Notice::Watchdog => send(&[NotifyState::Watchdog]),
    }
}

/// Sets the line that `systemctl status` shows.
pub fn status(text: &str) {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() > LONGEST_STATUS {
        let end = (0..=LONGEST_STATUS).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or_default());
    }
    send(&[NotifyState::Status(&line)]);
}

/// How often the service manager wants [`Notice::Watchdog`]: half of its patience. None where it does not watch.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|patience| patience / 2)
        .filter(|every| !every.is_zero())
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
