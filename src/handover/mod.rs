//! How listening sockets come from another process, and what a supervisor and its child tell each other.
//!
//! Owns the messages ([`message`]), the pair of sockets that carries them and the descriptors ([`link`]), the sockets that a
//! service manager passes ([`activation`]), and what a service manager is told ([`manager`]). Promises that nothing here
//! takes bytes from anybody but the process that started us or that we started. When a socket is bound, published or given
//! up is decided elsewhere: by [`crate::supervise`] in the parent, by [`crate::app`] in the child.

pub mod activation;
pub mod link;
pub mod manager;
pub mod message;

pub use self::link::{Link, Parent, ReceiveError};
pub use self::message::{ToChild, ToParent};
