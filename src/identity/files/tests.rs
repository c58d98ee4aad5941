use std::os::unix::fs::symlink;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rcgen::KeyPair;

use super::*;
use crate::clock::ManualClock;
use crate::config::settings::{Identity, IdentitySource, OnDenied, SvidSelect};
use crate::identity::material::Material;
use crate::identity::source::{Handle, spawn};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::workload_api::authority::{Authority, leaf_params};

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn authority(name: &str) -> Authority {
    Authority::new(TrustDomain::new(name).unwrap(), 24 * HOUR, now()).unwrap()
}

fn pem(der: &[u8]) -> String {
    let base64 = {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in der.chunks(3) {
            let bits = chunk
                .iter()
                .fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte))
                << (8 * (3 - chunk.len()));
            for place in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= chunk.len() {
                    char::from(digit)
                } else {
                    '='
                });
            }
        }
        text
    };
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

fn issue(authority: &Authority) -> (String, KeyPair) {
    let id = SpiffeId::new("spiffe://example.org/web").unwrap();
    let issued = authority.sign(&leaf_params(&id, HOUR, now()).unwrap()).unwrap();
    (issued.chain.iter().map(|der| pem(der)).collect(), issued.key)
}

/// Writes a whole set of files.
fn write_set(dir: &Path, authority: &Authority) {
    let (chain, key) = issue(authority);
    std::fs::write(dir.join("tls.crt"), chain).unwrap();
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("ca.crt"), pem(authority.root())).unwrap();
}

fn paths(dir: &Path) -> IdentityFiles {
    IdentityFiles {
        certificate: dir.join("tls.crt"),
        key: dir.join("tls.key"),
        bundles: BTreeMap::from([(TrustDomain::new("example.org").unwrap(), dir.join("ca.crt"))]),
    }
}

fn follow_files(files: IdentityFiles) -> Handle {
    let settings = Identity {
        source: IdentitySource::Files(files),
        select: SvidSelect::First,
        trust_domain: None,
        on_denied: OnDenied::Keep,
    };
    spawn(&settings, Arc::new(ManualClock::new(now())))
}

async fn generation(handle: &Handle, wanted: u64) -> Arc<Material> {
    let mut state = handle.state.clone();
    let of = |material: &Option<Arc<Material>>| material.as_ref().map(|material| material.generation);
    let found = tokio::time::timeout(HOUR, state.wait_for(|state| of(&state.material) == Some(wanted))).await;
    let Ok(found) = found else {
        panic!("generation {wanted} never came: {:?}", handle.now())
    };
    found.unwrap().material.clone().unwrap()
}

#[tokio::test(start_paused = true)]
async fn rotation_by_files_written_in_place_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority("example.org");
    write_set(dir.path(), &ours);
    let handle = follow_files(paths(dir.path()));
    let first = generation(&handle, 1).await;
    assert_eq!(first.svid.id.to_string(), "spiffe://example.org/web");
    assert_eq!(first.bundles.len(), 1);

    let (chain, key) = issue(&ours);
    std::fs::write(dir.path().join("tls.crt"), chain).unwrap();
    // Half of the pair is new: looked at again, and nothing said.
    tokio::time::sleep(SETTLE / 2).await;
    assert_eq!(
        (handle.now().last_problem.clone(), handle.now().rotations),
        (None, 0)
    );
    std::fs::write(dir.path().join("tls.key"), key.serialize_pem()).unwrap();
    let second = generation(&handle, 2).await;
    assert_ne!(second.svid.serial, first.svid.serial);
    assert_eq!(handle.now().rotations, 1);

    // Touched, with the same content: no news.
    std::fs::copy(dir.path().join("tls.crt"), dir.path().join("copy")).unwrap();
    std::fs::rename(dir.path().join("copy"), dir.path().join("tls.crt")).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(handle.now().material.as_ref().unwrap().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn rotation_by_the_swap_of_a_symbolic_link() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority("example.org");
    for name in ["v1", "v2"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        write_set(&dir.path().join(name), &ours);
    }
    // As a kubelet does it: tls.crt -> ..data/tls.crt, ..data -> v1, then ..data is renamed over.
    symlink("v1", dir.path().join("..data")).unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        symlink(Path::new("..data").join(name), dir.path().join(name)).unwrap();
    }
    let handle = follow_files(paths(dir.path()));
    let first = generation(&handle, 1).await;
    symlink("v2", dir.path().join("..tmp")).unwrap();
    std::fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
    let before = tokio::time::Instant::now();
    let second = generation(&handle, 2).await;
    assert!(
        before.elapsed() <= Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
    assert_ne!(first.svid.serial, second.svid.serial);
}

#[tokio::test(start_paused = true)]
async fn files_that_are_missing_or_bad_are_said_and_heal() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority("example.org");
    let handle = follow_files(paths(dir.path()));
    let mut state = handle.state.clone();
    let mut said = async |words: &'static str| {
        let found = tokio::time::timeout(
            HOUR,
            state.wait_for(|state| {
                state
                    .last_problem
                    .as_ref()
                    .is_some_and(|problem| problem.contains(words))
            }),
        );
        assert!(found.await.is_ok(), "never said: {words}; {:?}", handle.now());
    };
    said("tls.crt`: No such file").await;
    write_set(dir.path(), &ours);
    let first = generation(&handle, 1).await;

    let (_, other_key) = issue(&ours);
    std::fs::write(dir.path().join("tls.key"), other_key.serialize_pem()).unwrap();
    said("private key does not belong").await;
    std::fs::write(dir.path().join("ca.crt"), "rubbish").unwrap();
    write_set(dir.path(), &ours);
    std::fs::write(dir.path().join("ca.crt"), "rubbish").unwrap();
    said("bundle of its trust domain cannot be used").await;
    std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
    said("ca.crt`: No such file").await;
    assert_eq!(
        handle.now().material.as_ref().unwrap().generation,
        first.generation
    );
    write_set(dir.path(), &ours);
    generation(&handle, 2).await;
    assert_eq!(handle.now().last_problem, None);
}

#[tokio::test(start_paused = true)]
async fn foreign_bundle_that_cannot_be_read_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let partner = TrustDomain::new("partner.example").unwrap();
    let mut files = paths(dir.path());
    files
        .bundles
        .insert(partner.clone(), dir.path().join("partner.crt"));
    let ours = authority("example.org");
    write_set(dir.path(), &ours);
    std::fs::write(
        dir.path().join("partner.crt"),
        pem(authority("partner.example").root()),
    )
    .unwrap();
    let handle = follow_files(files);
    let first = generation(&handle, 1).await;
    assert_eq!(first.bundles.len(), 2);
    let bad = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
    std::fs::write(dir.path().join("partner.crt"), bad).unwrap();
    write_set(dir.path(), &ours);
    let second = generation(&handle, 2).await;
    assert_eq!(first.bundles.get(&partner), second.bundles.get(&partner));
    assert!(
        handle
            .now()
            .last_problem
            .as_ref()
            .unwrap()
            .contains("partner.example")
    );

    std::fs::remove_file(dir.path().join("partner.crt")).unwrap();
    write_set(dir.path(), &ours);
    let third = generation(&handle, 3).await;
    assert_eq!(first.bundles.get(&partner), third.bundles.get(&partner));

    std::fs::write(dir.path().join("partner.crt"), "").unwrap();
    let fourth = generation(&handle, 4).await;
    assert!(!fourth.bundles.contains_key(&partner));
}

#[tokio::test(start_paused = true)]
async fn own_trust_domain_without_a_bundle_is_said() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), &authority("example.org"));
    let mut files = paths(dir.path());
    files.bundles = BTreeMap::from([(
        TrustDomain::new("other.example").unwrap(),
        dir.path().join("ca.crt"),
    )]);
    let told = Arc::new(Mutex::new(String::new()));
    let tell = Arc::clone(&told);
    follow(files, move |seen| {
        *tell.lock().unwrap() = seen.unwrap_err().to_string();
        async { false }
    })
    .await;
    assert!(
        told.lock()
            .unwrap()
            .contains("no bundle for our own trust domain `example.org`")
    );
}

#[test]
fn oversized_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(MAX_FILE + 1)
        .unwrap();
    assert!(matches!(read_file(&path), Err(FileError::TooLarge(_))));
}

/// Made for this test.
const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----\n\
    MHcCAQEEIN0sQ5gbnT5Z7AAoOveWATcG7aEz9xsIKmJATO/27CixoAoGCCqGSM49\n\
    AwEHoUQDQgAE4X5EghWRkRbg8mfHMxt0xwvPZ3+BOaiD9ZJBjn+oFc1IFXc5fO/J\n\
    iSfmaMXflUnjvXnAMt/7gTmqoL43N1WugQ==\n\
    -----END EC PRIVATE KEY-----";

#[test]
fn key_in_the_older_form_is_read() {
    let key = PrivateKeyDer::from_pem_slice(SEC1.as_bytes()).unwrap();
    assert!(matches!(key, PrivateKeyDer::Sec1(_)));
    let id = SpiffeId::new("spiffe://example.org/web").unwrap();
    let pair = KeyPair::try_from(&key).unwrap();
    let leaf = leaf_params(&id, HOUR, now()).unwrap().self_signed(&pair).unwrap();
    assert!(belongs_together(leaf.der(), &key));
    let (chain, _) = issue(&authority("example.org"));
    let other = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    assert!(!belongs_together(&other, &key));
}

/// To open a pipe waits for its writer, and with it the control thread would wait, signals and all.
#[tokio::test(start_paused = true)]
async fn a_pipe_in_place_of_a_file_is_said_and_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_set(dir, &authority("example.org"));
    std::fs::remove_file(dir.join("tls.crt")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(dir.join("tls.crt"))
        .status();
    assert!(made.unwrap().success());
    // Should reading wait after all, somebody writes to it.
    let pipe = dir.join("tls.crt");
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(5));
        let _ = std::fs::OpenOptions::new().write(true).open(pipe);
    });
    let mut handle = follow_files(paths(dir));
    let said = tokio::time::timeout(
        Duration::from_secs(20),
        handle.state.wait_for(|s| s.last_problem.is_some()),
    );
    let said = said.await.unwrap().unwrap().last_problem.clone().unwrap();
    assert!(said.contains("no regular file"), "{said}");
}
