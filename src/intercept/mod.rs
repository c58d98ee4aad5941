//! Rules of the packet filter (nftables) that redirect connections to transparent listeners.
//!
//! [`rules`] says which, as a value that can be printed in the syntax of `nft`; [`netlink`] writes the same value as the
//! messages of one transaction, which [`apply`] and [`remove`] hand to the kernel: an image that has no `nft` needs none.
//! All of it stands in one table, `inet svidecar`, that nobody else writes to. The rules are about this network namespace.

pub mod netlink;
pub mod rules;

use std::io;

use self::netlink::{Answer, Batch};
use self::rules::Table;
use crate::sys::netfilter;

/// The user that a sidecar with transparent listeners runs as, where nothing else is said: what it calls is left out of the
/// rules. So it must be nobody else's: it is no user of common images (65532, `nonroot` of many, is the user of ours without
/// transparent listeners), in no range that people, packages or systemd are given users from by themselves, and in none of
/// Istio's.
pub const SIDECAR_USER: u32 = 15065;

/// Why the rules are not what was asked for. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// Without the capability, or against who owns the table.
    #[error(
        "changing the packet filter needs the capability NET_ADMIN in this network namespace; in Kubernetes, run \
         `svidecar intercept` in an init container with `capabilities: {{ add: [NET_ADMIN] }}`, and the sidecar without it; \
         with that capability, another program owns the table `inet svidecar`, or this user namespace is not the network's \
         ({0})"
    )]
    NotPermitted(String),
    /// The kernel has no nftables, or lacks a part of it.
    #[error(
        "this kernel lacks a part of nftables ({0}): it needs nf_tables with nft_chain_nat, nft_redir and nft_fib_inet, \
         built in or loaded as modules"
    )]
    Unsupported(String),
    /// The kernel refuses a message.
    #[error("the kernel refuses the rules: {0}")]
    Refused(String),
    /// It cannot be talked to.
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
}

/// Puts the rules in force, in place of those that a call before did: all of them or, on an error, none.
///
/// # Errors
/// See [`InterceptError`].
pub fn apply(table: &Table) -> Result<(), InterceptError> {
    commit(&netlink::replace(table))
}

/// Takes the rules away; quiet where there are none.
///
/// # Errors
/// See [`InterceptError`].
pub fn remove() -> Result<(), InterceptError> {
    commit(&netlink::delete())
}

fn commit(batch: &Batch) -> Result<(), InterceptError> {
    match batch.answer(&netfilter::exchange(batch.bytes())?) {
        Answer::Done => Ok(()),
        Answer::Refused { errno, words } => Err(refused(io::Error::from_raw_os_error(errno), words)),
        Answer::Missing => Err(io::Error::other("the kernel did not answer").into()),
    }
}

fn refused(error: io::Error, words: Option<String>) -> InterceptError {
    use io::ErrorKind::{NotFound, PermissionDenied, Unsupported};
    let said = words.map_or_else(|| error.to_string(), |words| format!("{error}: {words}"));
    match error.kind() {
        PermissionDenied => InterceptError::NotPermitted(said),
        // A kind of expression or chain that the kernel does not know is not found.
        NotFound | Unsupported => InterceptError::Unsupported(said),
        _ => InterceptError::Refused(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        for (errno, words, needle) in [
            (1, None, "capabilities: { add: [NET_ADMIN] }"),
            (1, Some("table is owned"), "(os error 1): table is owned)"),
            (2, None, "nft_fib_inet"),
            (95, None, "nft_chain_nat"),
            (
                22,
                Some("bad hook"),
                "refuses the rules: Invalid argument (os error 22): bad hook",
            ),
        ] {
            let error = refused(io::Error::from_raw_os_error(errno), words.map(str::to_owned)).to_string();
            assert!(error.contains(needle), "{errno}: {error}");
        }
    }
}
