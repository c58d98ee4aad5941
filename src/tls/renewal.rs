//! Renewal: proof, on a connection that is open, that an end now holds a newer SVID of the same SPIFFE ID. The protocol,
//! and what an attacker can and cannot do with it: `docs/renewal.md`.
//!
//! Owns what is said ([`message`]), how it is bound to its connection and proven ([`proof`]), who may say it
//! ([`capability`]), and where a connection is in it ([`Link`]). Promises that a renewal which [`Link::check`] lets pass is
//! the next of this very connection, by an end that holds the key of the leaf it shows. Leaves to others: whether that
//! chain is good (`tls::verify`), whether its ID is the right one and may do anything, how often renewals may come, and
//! when ours are due (`connection::renewal`).

pub(super) mod capability;
mod link;
pub mod message;
pub mod proof;
#[cfg(test)]
mod tests;

pub use link::{Heard, Link, NotOffered};
pub use message::{Renewal, Verdict};
pub use proof::{Binding, Flaw};
