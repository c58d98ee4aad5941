//! What a FIPS build (cargo feature `fips`) promises: all cryptography is AWS-LC's FIPS module, and rustls negotiates only
//! what is approved. What that is, and what it takes beyond a build: `docs/fips.md`.
//!
//! There is no switch at run time: a process that could leave the approved mode would have to be watched for it.

use rustls::NamedGroup;
use rustls::crypto::CryptoProvider;

use super::configs;

/// A FIPS build that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    /// The library that is linked is not the module, or its self-tests did not pass.
    #[error(
        "this is a FIPS build, but AWS-LC's FIPS module is not what is linked: build it again with `--features fips`"
    )]
    Module,
    /// rustls would negotiate something that is not approved.
    #[error(
        "this is a FIPS build, but what it would negotiate is not approved: build it again with `--features fips`"
    )]
    Provider,
}

/// Whether this build keeps what it promises. Always well where it promises nothing.
///
/// # Errors
/// A FIPS build without the module, or with something beyond it. Nothing may start then.
pub fn check() -> Result<(), NotApproved> {
    if !cfg!(feature = "fips") {
        return Ok(());
    }
    aws_lc_rs::try_fips_mode().map_err(|_| NotApproved::Module)?;
    if configs::provider().fips() {
        Ok(())
    } else {
        Err(NotApproved::Provider)
    }
}

/// The key exchanges that this provider offers and takes, the preferred one first.
#[must_use]
pub fn key_exchanges(provider: &CryptoProvider) -> String {
    let names: Vec<_> = provider
        .kx_groups
        .iter()
        .map(|group| match group.name() {
            // As IANA writes it; rustls has it like the constants beside it.
            NamedGroup::secp256r1MLKEM768 => "SecP256r1MLKEM768".to_owned(),
            name => format!("{name:?}"),
        })
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;

    use super::*;

    #[test]
    fn every_build_keeps_what_it_promises() {
        assert_eq!(check(), Ok(()));
        let provider = configs::provider();
        assert_eq!(aws_lc_rs::try_fips_mode().is_ok(), cfg!(feature = "fips"));
        assert_eq!(provider.fips(), cfg!(feature = "fips"));
        let suites: Vec<_> = provider.cipher_suites.iter().map(|s| s.suite()).collect();
        assert_eq!(
            suites,
            [
                CipherSuite::TLS13_AES_128_GCM_SHA256,
                CipherSuite::TLS13_AES_256_GCM_SHA384
            ]
        );
    }

    #[test]
    fn post_quantum_key_exchange_comes_first_in_every_build() {
        let expected = if cfg!(feature = "fips") {
            "X25519MLKEM768, SecP256r1MLKEM768, secp256r1, secp384r1"
        } else {
            "X25519MLKEM768, X25519, secp256r1, secp384r1"
        };
        assert_eq!(key_exchanges(&configs::provider()), expected);
    }

    #[cfg(feature = "fips")]
    #[test]
    fn a_provider_with_something_else_is_noticed() {
        use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
        let mut provider = configs::provider().as_ref().clone();
        provider.kx_groups.push(kx_group::X25519);
        assert!(!provider.fips());
        let mut provider = configs::provider().as_ref().clone();
        provider
            .cipher_suites
            .push(cipher_suite::TLS13_CHACHA20_POLY1305_SHA256);
        assert!(!provider.fips());
    }
}
