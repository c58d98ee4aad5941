//! The messages of the Workload API's X.509 profile, written by hand (SPIFFE Workload API, section 5).
//!
//! Five small messages do not earn a protobuf compiler in the build. Tags and types are those of the standard's
//! `workload.proto`; the JWT profile's messages are left out because the methods that use them are not served.

use std::collections::HashMap;
use std::fmt;

use zeroize::Zeroize as _;

/// The path of the method that streams X.509-SVIDs. The service has no package.
pub const FETCH_X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
/// The path of the method that streams bundles.
pub const FETCH_X509_BUNDLES: &str = "/SpiffeWorkloadAPI/FetchX509Bundles";
/// The metadata that every request must carry with the value `true`, so that a request which something else was
/// tricked into sending is refused (Workload Endpoint, section 3).
pub const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Asks for X.509-SVIDs.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct X509SvidRequest {}

/// Every SVID that the workload is entitled to, and the bundles of federated trust domains.
#[derive(Clone, PartialEq, prost::Message)]
pub struct X509SvidResponse {
    /// In the server's order; the first is the default identity.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
    /// Certificate revocation lists, DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    /// The authorities of each foreign trust domain, DER one after the other, by the trust domain's SPIFFE ID.
    #[prost(map = "string, bytes", tag = "3")]
    pub federated_bundles: HashMap<String, Vec<u8>>,
}

/// One X.509-SVID.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct X509Svid {
    /// The SPIFFE ID in the leaf.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// The chain, DER one after the other, leaf first.
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    /// The private key, unencrypted PKCS#8.
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    /// The authorities of the SVID's trust domain, DER one after the other.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    /// What the operator wrote to tell several SVIDs apart; empty for nothing.
    #[prost(string, tag = "5")]
    pub hint: String,
}

// The key must never reach a log by way of `{:?}`.
impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl Drop for X509Svid {
    fn drop(&mut self) {
        self.x509_svid_key.zeroize();
    }
}

/// Asks for bundles.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct X509BundlesRequest {}

/// The bundles of every trust domain the workload may verify peers of.
#[derive(Clone, PartialEq, prost::Message)]
pub struct X509BundlesResponse {
    /// Certificate revocation lists, DER.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub crl: Vec<Vec<u8>>,
    /// The authorities of each trust domain, DER one after the other, by the trust domain's SPIFFE ID.
    #[prost(map = "string, bytes", tag = "2")]
    pub bundles: HashMap<String, Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn tags_are_those_of_the_standard() {
        let svid = X509Svid {
            spiffe_id: "a".to_owned(),
            x509_svid: vec![1],
            x509_svid_key: vec![2],
            bundle: vec![3],
            hint: "h".to_owned(),
        };
        assert_eq!(
            svid.encode_to_vec(),
            b"\x0a\x01a\x12\x01\x01\x1a\x01\x02\x22\x01\x03\x2a\x01h"
        );
        let response = X509SvidResponse {
            svids: Vec::new(),
            crl: vec![vec![7]],
            federated_bundles: HashMap::from([("t".to_owned(), vec![9])]),
        };
        assert_eq!(
            response.encode_to_vec(),
            b"\x12\x01\x07\x1a\x06\x0a\x01t\x12\x01\x09"
        );
        let bundles = X509BundlesResponse {
            crl: Vec::new(),
            bundles: HashMap::from([("t".to_owned(), vec![9])]),
        };
        assert_eq!(bundles.encode_to_vec(), b"\x12\x06\x0a\x01t\x12\x01\x09");
    }

    #[test]
    fn debug_hides_the_key() {
        let mut svid = X509Svid::default();
        svid.x509_svid_key = b"secret".to_vec();
        let text = format!(
            "{:?}",
            X509SvidResponse {
                svids: vec![svid],
                ..X509SvidResponse::default()
            }
        );
        assert!(!text.contains("key") && !text.contains("115, 101"), "{text}");
    }
}
