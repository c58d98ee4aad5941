//! What a supervisor and its child tell each other: one JSON object a packet.
//!
//! The two may be of different versions, as an upgrade replaces the child alone. So a field that is not known is passed over,
//! and a message that is not known is [`ToChild::Unknown`] or [`ToParent::Unknown`], which both ignore. A message is never
//! given another meaning; a new one gets a new name.

use serde::{Deserialize, Serialize};

use crate::config::address;
use crate::config::settings::Address;

/// Listening sockets: in each packet as many descriptors as addresses, in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// As the settings call them: `IP:port` or `unix:///path`.
    pub addresses: Vec<String>,
    /// Whether another packet of this kind follows, with further ones.
    #[serde(default)]
    pub more: bool,
}

/// From the supervisor to its child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "snake_case")]
pub enum ToChild {
    /// The sockets to accept from. The first message.
    Sockets {
        /// With their addresses.
        #[serde(flatten)]
        sockets: Sockets,
        /// Not to accept before it is ready otherwise, or told [`Self::Open`]: it would refuse whom another child serves, or
        /// who waits for it to be ready.
        #[serde(default)]
        hold: bool,
        /// Whether no other child sends the audit log on.
        #[serde(default)]
        alone: bool,
    },
    /// The right to write an audit log, which the supervisor's children share: one descriptor. Before the sockets.
    AuditLock {
        /// The log's path.
        path: String,
    },
    /// Which of the sockets a service manager has opened: it keeps them open whatever we do, so that a config which leaves one
    /// out would have callers wait for ever. Before the sockets.
    Passed {
        /// As the settings call them.
        addresses: Vec<String>,
    },
    /// An upgrade is under way: the config file is the next child's to read.
    KeepConfig,
    /// The upgrade has failed: follow the config file again, and try again what was refused meanwhile.
    FollowConfig,
    /// A newer child serves: stop accepting, give up the admin endpoint, drain, end.
    Superseded,
    /// Accept, ready or not.
    Open,
    /// No other child sends the audit log on any more.
    Alone,
    /// Answer [`ToParent::Alive`].
    Ping,
    /// From a newer supervisor.
    #[serde(other)]
    Unknown,
}

/// From the child to its supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "snake_case")]
pub enum ToParent {
    /// Everything that can fail at the start has been done.
    Started {
        /// The program's version.
        version: String,
    },
    /// It accepts, and `/readyz` says ready.
    Ready,
    /// How it is, for the service manager's status line.
    Status {
        /// For a person.
        text: String,
    },
    /// The answer to [`ToChild::Ping`].
    Alive,
    /// SIGHUP was seen to.
    Reloaded,
    /// All sockets of its listeners from now, after it bound or gave up some.
    Sockets {
        /// With their addresses.
        #[serde(flatten)]
        sockets: Sockets,
    },
    /// It accepts no more.
    Draining {
        /// Connections that are open.
        open: usize,
        /// Whether it was superseded, and so has given up the sockets, the admin endpoint and the sending of the audit log.
        #[serde(default)]
        superseded: bool,
    },
    /// It ends.
    Ended {
        /// Connections that were cut.
        cut: usize,
    },
    /// It ends because of this.
    Failed {
        /// For a person.
        why: String,
    },
    /// From a newer child.
    #[serde(other)]
    Unknown,
}

/// Why a packet with sockets is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketsError {
    /// The numbers differ.
    #[error("a packet names {named} sockets and carries {carried}")]
    Number {
        /// Addresses.
        named: usize,
        /// Descriptors.
        carried: usize,
    },
    /// A name is no address.
    #[error("`{0}` is no address to listen on")]
    Address(String),
}

impl Sockets {
    /// The addresses, where they are as many as the `carried` descriptors.
    ///
    /// # Errors
    /// See [`SocketsError`].
    pub fn addresses(&self, carried: usize) -> Result<Vec<Address>, SocketsError> {
        let named = self.addresses.len();
        if named != carried {
            return Err(SocketsError::Number { named, carried });
        }
        self.addresses
            .iter()
            .map(|text| address::listen(text).map_err(|_| SocketsError::Address(text.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_reads_as_it_was_written() {
        let sockets = || Sockets {
            addresses: vec!["[::1]:80".to_owned(), "unix:///run/a.sock".to_owned()],
            more: true,
        };
        for message in [
            ToChild::Sockets {
                sockets: sockets(),
                hold: true,
                alone: false,
            },
            ToChild::AuditLock {
                path: "/var/log/a".to_owned(),
            },
            ToChild::Passed {
                addresses: vec!["127.0.0.1:80".to_owned()],
            },
            ToChild::KeepConfig,
            ToChild::FollowConfig,
            ToChild::Superseded,
            ToChild::Open,
            ToChild::Alone,
            ToChild::Ping,
        ] {
            let text = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<ToChild>(&text).unwrap(), message, "{text}");
        }
        for message in [
            ToParent::Started {
                version: "1".to_owned(),
            },
            ToParent::Ready,
            ToParent::Sockets { sockets: sockets() },
            ToParent::Draining {
                open: 3,
                superseded: true,
            },
            ToParent::Ended { cut: 4 },
        ] {
            let text = serde_json::to_string(&message).unwrap();
            assert_eq!(
                serde_json::from_str::<ToParent>(&text).unwrap(),
                message,
                "{text}"
            );
        }
    }

    #[test]
    fn another_versions_words_are_passed_over() {
        let read = |text| serde_json::from_str::<ToChild>(text).unwrap();
        assert_eq!(read(r#"{"tell":"dance","how":"well"}"#), ToChild::Unknown);
        assert_eq!(read(r#"{"tell":"ping","how":"well"}"#), ToChild::Ping);
        let sockets = read(r#"{"tell":"sockets","addresses":[],"colour":"red"}"#);
        assert!(matches!(
            sockets,
            ToChild::Sockets {
                hold: false,
                alone: false,
                ..
            }
        ));
    }

    #[test]
    fn sockets_are_told_by_addresses_that_can_be_listened_on() {
        let sockets = |text: &str| Sockets {
            addresses: vec![text.to_owned()],
            more: false,
        };
        assert_eq!(
            sockets("127.0.0.1:80").addresses(1).unwrap(),
            [Address::Tcp(([127, 0, 0, 1], 80).into())]
        );
        assert_eq!(
            sockets("unix:///a").addresses(1).unwrap(),
            [Address::Unix("/a".into())]
        );
        let two = SocketsError::Number { named: 1, carried: 2 };
        assert_eq!(sockets("127.0.0.1:80").addresses(2), Err(two));
        assert!(matches!(
            sockets("nowhere").addresses(1),
            Err(SocketsError::Address(_))
        ));
    }
}
