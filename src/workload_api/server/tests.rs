//! The server as a foreign client sees it: raw gRPC over the socket.

use hyper::http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::*;
use crate::clock::SystemClock;
use crate::identity::workload_api::Sender;
use crate::spiffe::svid::{check_authority, check_leaf};
use crate::workload_api::proto::{FETCH_X509_BUNDLES, FETCH_X509_SVID, SECURITY_HEADER, X509SvidRequest};
use crate::workload_api::server::bind;

const HOUR: Duration = Duration::from_secs(3600);

fn start(dir: &tempfile::TempDir) -> Handle {
    let authority =
        Authority::new(TrustDomain::new("example.org").unwrap(), HOUR, SystemTime::now()).unwrap();
    let listener = bind(&dir.path().join("s"), 0o600).unwrap();
    let entries = ["a", "b"].map(|path| {
        SpiffeId::new(format!("spiffe://example.org/{path}"))
            .unwrap()
            .into()
    });
    serve(listener, authority, entries.to_vec(), HOUR, Arc::new(SystemClock)).unwrap()
}

async fn call<M: prost::Message + Default + 'static>(
    dir: &tempfile::TempDir,
    path: &'static str,
    header: Option<&'static str>,
) -> Result<Streaming<M>, Status> {
    let stream = tokio::net::UnixStream::connect(dir.path().join("s"))
        .await
        .unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut request = Request::new(X509SvidRequest {});
    if let Some(value) = header {
        request
            .metadata_mut()
            .insert(SECURITY_HEADER, MetadataValue::from_static(value));
    }
    let mut client = Grpc::with_origin(Sender(sender), hyper::Uri::from_static("http://localhost"));
    let codec = ProstCodec::<X509SvidRequest, M>::default();
    client
        .server_streaming(request, PathAndQuery::from_static(path), codec)
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn security_header_is_required() {
    let dir = tempfile::tempdir().unwrap();
    let _server = start(&dir);
    for header in [None, Some("false"), Some("")] {
        for path in [
            FETCH_X509_SVID,
            FETCH_X509_BUNDLES,
            "/SpiffeWorkloadAPI/FetchJWTSVID",
        ] {
            let status = call::<X509SvidResponse>(&dir, path, header).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{path} {header:?}");
        }
    }
}

#[tokio::test]
async fn jwt_methods_are_unimplemented() {
    let dir = tempfile::tempdir().unwrap();
    let _server = start(&dir);
    for method in ["FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"] {
        let path = match method {
            "FetchJWTSVID" => "/SpiffeWorkloadAPI/FetchJWTSVID",
            "FetchJWTBundles" => "/SpiffeWorkloadAPI/FetchJWTBundles",
            _ => "/SpiffeWorkloadAPI/ValidateJWTSVID",
        };
        let status = call::<X509SvidResponse>(&dir, path, Some("true"))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{method}");
    }
}

#[tokio::test]
async fn svids_and_bundles_keep_to_the_standard() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir);
    let partner = Authority::new(
        TrustDomain::new("partner.example").unwrap(),
        HOUR,
        SystemTime::now(),
    )
    .unwrap();
    server
        .federate(partner.trust_domain(), Some(partner.root().to_vec()))
        .unwrap();

    let mut svids = call::<X509SvidResponse>(&dir, FETCH_X509_SVID, Some("true"))
        .await
        .unwrap();
    let given = svids.message().await.unwrap().unwrap();
    let ids: Vec<&str> = given.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    assert_eq!(ids, ["spiffe://example.org/a", "spiffe://example.org/b"]);
    for svid in &given.svids {
        let leaf = check_leaf(&svid.x509_svid).unwrap();
        assert_eq!(leaf.id.to_string(), svid.spiffe_id);
        assert!(leaf.may_serve() && leaf.may_connect());
        assert!(leaf.not_before < SystemTime::now() - Duration::from_secs(8));
        check_authority(&svid.bundle).unwrap();
    }
    assert_eq!(
        given.federated_bundles.keys().collect::<Vec<_>>(),
        ["spiffe://partner.example"]
    );

    let mut bundles = call::<X509BundlesResponse>(&dir, FETCH_X509_BUNDLES, Some("true"))
        .await
        .unwrap();
    let trusted = bundles.message().await.unwrap().unwrap().bundles;
    assert_eq!(trusted["spiffe://example.org"], given.svids[0].bundle);
    assert_eq!(trusted["spiffe://partner.example"], partner.root().to_vec());

    // A change reaches each open stream.
    server.rotate().unwrap();
    let again = svids.message().await.unwrap().unwrap();
    assert_ne!(again.svids[0].x509_svid, given.svids[0].x509_svid);
    assert!(bundles.message().await.unwrap().is_some());
    server.deny();
    let status = svids.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, NO_IDENTITY_ISSUED)
    );
    assert_eq!(
        bundles.message().await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn foreign_entry_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir);
    let foreign = SpiffeId::new("spiffe://other.example/a").unwrap();
    assert!(matches!(
        server.add(foreign.into()),
        Err(AuthorityError::Foreign { .. })
    ));
}
