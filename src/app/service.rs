//! Who runs us, and what it is told: a supervisor whose child we are, or a service manager, or nobody.
//!
//! A supervisor says, besides, when another child takes over. Its end is ours: what it would bind next would be in use.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::build_info;
use crate::config::settings::Address;
use crate::handover::link::AsyncLink;
use crate::handover::manager::{self, Notice};
use crate::handover::{Parent, ReceiveError, ToChild, ToParent};
use crate::lifecycle::readiness::{Readiness, Snapshot};
use crate::worker::ListenerSet;

/// What a supervisor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// A newer child serves.
    Superseded,
    /// Accept, ready or not.
    Open,
    /// No other child sends the audit log on.
    Alone,
    /// The config file is the next child's to read.
    KeepConfig,
    /// It is ours again.
    FollowConfig,
    /// It is gone.
    Orphaned,
}

/// Who runs us.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Option<Supervised>,
    /// The service manager was told that we are ready.
    announced: AtomicBool,
}

#[derive(Debug)]
struct Supervised {
    parent: Parent,
    /// Until the supervisor is gone.
    orders: Mutex<Option<AsyncLink>>,
}

impl Service {
    /// With the supervisor, if there is one; call inside a runtime with I/O.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(parent: Option<Parent>) -> io::Result<Self> {
        let supervised = parent.map(|parent| {
            let orders = Mutex::new(Some(AsyncLink::new(parent.link.clone())?));
            Ok::<_, io::Error>(Supervised { parent, orders })
        });
        Ok(Self {
            supervisor: supervised.transpose()?,
            announced: AtomicBool::new(false),
        })
    }

    /// Whether we must not accept before we are ready otherwise, or told to.
    pub(super) fn holds(&self) -> bool {
        self.supervisor.as_ref().is_some_and(|it| it.parent.hold)
    }

    /// Whether no other process sends the audit log on.
    pub(super) fn alone(&self) -> bool {
        self.supervisor.as_ref().is_none_or(|it| it.parent.alone)
    }

    fn tell(&self, message: &ToParent) {
        if let Some(supervised) = &self.supervisor {
            supervised.parent.tell(message);
        }
    }

    fn notify(&self, notice: Notice) {
        if self.supervisor.is_none() {
            manager::notify(notice);
        }
    }

    /// Everything that can fail at the start has been done.
    pub(super) fn started(&self) {
        self.tell(&ToParent::Started {
            version: build_info::VERSION.to_owned(),
        });
    }

    /// SIGHUP is being seen to. Before we are ready that is part of the start, whose end it must not be taken for.
    pub(super) fn reloading(&self) {
        if self.announced.load(Ordering::Relaxed) {
            self.notify(Notice::Reloading);
        }
    }

    /// SIGHUP has been seen to, well or not.
    pub(super) fn reloaded(&self) {
        self.tell(&ToParent::Reloaded);
        if self.announced.load(Ordering::Relaxed) {
            self.notify(Notice::Ready);
        }
    }

    /// No more connections are accepted; where another process was told to go on, everything else is given up, too.
    pub(super) fn draining(&self, open: usize, superseded: bool) {
        self.tell(&ToParent::Draining { open, superseded });
    }

    /// The process ends.
    pub(super) fn stopping(&self) {
        self.notify(Notice::Stopping);
    }

    /// The process has drained.
    pub(super) fn ended(&self, cut: usize) {
        self.tell(&ToParent::Ended { cut });
    }

    /// These are all the listeners from now, after some were bound or given up while we run: a supervisor keeps their sockets
    /// for the next child. Those whose port the system picked are each child's own.
    pub(super) fn sockets(&self, listeners: &ListenerSet) {
        let Some(supervised) = &self.supervisor else {
            return;
        };
        let copies: io::Result<Vec<_>> = listeners
            .iter()
            .map(|listener| (listener.context.settings.listen.clone(), listener))
            .filter(|(address, _)| !matches!(address, Address::Tcp(address) if address.port() == 0))
            .map(|(address, listener)| Ok((address, listener.copy()?)))
            .collect();
        let told = copies.and_then(|copies| {
            let sockets = copies.iter().map(|(address, socket)| (address, socket));
            let message = |sockets| ToParent::Sockets { sockets };
            supervised.parent.link.send_sockets(sockets, message)
        });
        if let Err(error) = told {
            tracing::error!(%error, "the supervisor does not know the new listeners: an upgrade may fail to bind them");
        }
    }

    /// Whether a supervisor holds our sockets.
    pub(super) fn is_supervised(&self) -> bool {
        self.supervisor.is_some()
    }

    /// What the supervisor asks for next; never anything where there is none. Cancel safe.
    pub(super) async fn order(&self) -> Order {
        let Some(supervised) = &self.supervisor else {
            return std::future::pending().await;
        };
        let mut orders = supervised.orders.lock().await;
        loop {
            let Some(link) = &*orders else {
                return std::future::pending().await;
            };
            match link.receive::<ToChild>().await {
                Ok((ToChild::Superseded, _)) => return Order::Superseded,
                Ok((ToChild::Open, _)) => return Order::Open,
                Ok((ToChild::Alone, _)) => return Order::Alone,
                Ok((ToChild::KeepConfig, _)) => return Order::KeepConfig,
                Ok((ToChild::FollowConfig, _)) => return Order::FollowConfig,
                Ok((ToChild::Ping, _)) => self.tell(&ToParent::Alive),
                Ok((
                    ToChild::Sockets { .. }
                    | ToChild::AuditLock { .. }
                    | ToChild::Passed { .. }
                    | ToChild::Unknown,
                    _,
                ))
                | Err(ReceiveError::Message(_)) => {}
                Err(error) => {
                    tracing::warn!(%error, "the supervisor is gone: this process drains and ends");
                    *orders = None;
                    return Order::Orphaned;
                }
            }
        }
    }

    /// Tells how we are, for as long as the process runs.
    pub(super) async fn attend(&self, readiness: &Readiness) {
        let mut changes = readiness.changes();
        let mut watchdog = manager::watchdog()
            .filter(|_| self.supervisor.is_none())
            .map(|every| {
                let mut ticks = interval(every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            });
        let mut last = String::new();
        loop {
            let now = readiness.snapshot();
            if now.ready && !self.announced.swap(true, Ordering::Relaxed) {
                self.tell(&ToParent::Ready);
                self.notify(Notice::Ready);
            }
            let text = status_line(&now);
            if text != last {
                last = text;
                match &self.supervisor {
                    Some(_) => self.tell(&ToParent::Status { text: last.clone() }),
                    None => manager::status(&last),
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                () = tick(watchdog.as_mut()) => manager::notify(Notice::Watchdog),
            }
        }
    }
}

async fn tick(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// One line on what is ready and what is not.
fn status_line(now: &Snapshot) -> String {
    if now.ready {
        return "ready".to_owned();
    }
    let missing: Vec<_> = now
        .conditions
        .iter()
        .filter(|condition| !condition.ok)
        .map(|condition| format!("{}: {}", condition.name, condition.detail))
        .collect();
    format!("not ready: {}", missing.join("; "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::handover::Link;
    use crate::lifecycle::readiness::Condition;

    /// A supervisor's end, and the service of its child.
    fn supervised(hold: bool) -> (AsyncLink, Service) {
        let (parent, child) = Link::pair().unwrap();
        let told = |sockets| ToChild::Sockets {
            sockets,
            hold,
            alone: !hold,
        };
        parent.send_sockets([], told).unwrap();
        let (greeted, _) = Parent::greet(Link::from(child)).unwrap();
        let service = Service::new(Some(greeted)).unwrap();
        (AsyncLink::new(Arc::new(parent)).unwrap(), service)
    }

    #[tokio::test]
    async fn a_supervisor_is_answered_and_obeyed() {
        let (parent, service) = supervised(true);
        assert!(service.holds() && !service.alone());
        for message in [
            ToChild::Ping,
            ToChild::Open,
            ToChild::Alone,
            ToChild::KeepConfig,
            ToChild::FollowConfig,
            ToChild::Superseded,
        ] {
            parent.send(&message).unwrap();
        }
        assert_eq!(service.order().await, Order::Open);
        assert_eq!(service.order().await, Order::Alone);
        assert_eq!(service.order().await, Order::KeepConfig);
        assert_eq!(service.order().await, Order::FollowConfig);
        assert_eq!(service.order().await, Order::Superseded);
        let (answer, _) = parent.receive::<ToParent>().await.unwrap();
        assert_eq!(answer, ToParent::Alive);
        drop(parent);
        assert_eq!(service.order().await, Order::Orphaned);
    }

    #[tokio::test]
    async fn a_supervisor_hears_of_readiness_once_and_of_its_details() {
        let (parent, service) = supervised(false);
        assert!(!service.holds() && service.alone());
        let readiness = Readiness::new();
        let hearing = async {
            let hear = async || parent.receive::<ToParent>().await.unwrap().0;
            assert!(
                matches!(hear().await, ToParent::Status { text } if text.contains("identity: no SVID yet"))
            );
            for condition in Condition::ALL {
                readiness.set(*condition, true, "");
            }
            while hear().await != ToParent::Ready {}
            let ready = ToParent::Status {
                text: "ready".to_owned(),
            };
            assert_eq!(hear().await, ready);
            readiness.set(Condition::Identity, false, "expired");
            assert!(matches!(hear().await, ToParent::Status { text } if text.contains("expired")));
            readiness.set(Condition::Identity, true, "");
            assert_eq!(hear().await, ready);
        };
        tokio::select! {
            () = hearing => {}
            () = service.attend(&readiness) => panic!("it ended"),
        }
    }
}
