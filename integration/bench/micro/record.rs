//! The record layer: one record sealed, one opened, in the buffer where it lies and that fits a core's cache.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use rustls::crypto::aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConnection, ConnectionTrafficSecrets, ContentType, ServerConnection, SupportedCipherSuite,
};
use svidecar::tls::record::{HEADER, MAX_PAYLOAD, Opener, Sealer, TRAILER};

use crate::world::World;

const SUITES: [(&str, SupportedCipherSuite); 2] = [
    ("aes-128", TLS13_AES_128_GCM_SHA256),
    ("aes-256", TLS13_AES_256_GCM_SHA384),
];
const PAYLOADS: [usize; 3] = [64, 1024, MAX_PAYLOAD];
/// What is opened between two looks at the clock: enough to make the look not count, little enough to stay in cache.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_RECORDS: usize = 512;

pub(crate) fn bench(criterion: &mut Criterion, world: &World) {
    let secrets = SUITES.map(|(name, suite)| (name, secrets(world, suite)));
    let mut group = criterion.benchmark_group("record/seal");
    for (suite, secrets) in &secrets {
        for payload in PAYLOADS {
            group.throughput(Throughput::Bytes(payload as u64));
            group.bench_function(BenchmarkId::new(*suite, payload), |bencher| {
                let mut sealer = Sealer::new(0, secrets).unwrap();
                let mut slot = vec![0; HEADER + payload + TRAILER];
                bencher.iter(|| {
                    let sealed = sealer.seal(ContentType::ApplicationData, black_box(&mut slot), payload);
                    assert_eq!(sealed, Ok(HEADER + payload + TRAILER));
                });
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("record/open");
    for (suite, secrets) in &secrets {
        for payload in PAYLOADS {
            group.throughput(Throughput::Bytes(payload as u64));
            group.bench_function(BenchmarkId::new(*suite, payload), |bencher| {
                bencher.iter_custom(|records| open(secrets, payload, records));
            });
        }
    }
    group.finish();
}

/// The time to open `records` records. A record opens once, so that each batch is sealed first, off the clock.
fn open(secrets: &ConnectionTrafficSecrets, payload: usize, records: u64) -> Duration {
    let length = HEADER + payload + TRAILER;
    let mut batch = vec![0; length * (BATCH_BYTES / length).clamp(1, BATCH_RECORDS)];
    let mut sealer = Sealer::new(0, secrets).unwrap();
    let mut opener = Opener::new(0, secrets).unwrap();
    let mut left = usize::try_from(records).unwrap();
    let mut taken = Duration::ZERO;
    while left > 0 {
        for slot in batch.chunks_exact_mut(length).take(left) {
            sealer.seal(ContentType::ApplicationData, slot, payload).unwrap();
        }
        let start = Instant::now();
        for record in batch.chunks_exact_mut(length).take(left) {
            let opened = opener.open(black_box(record));
            assert_eq!(
                opened,
                Ok((ContentType::ApplicationData, HEADER..HEADER + payload))
            );
        }
        taken += start.elapsed();
        left = left.saturating_sub(batch.len() / length);
    }
    taken
}

/// The secrets of one direction, from a handshake with this suite.
fn secrets(world: &World, suite: SupportedCipherSuite) -> ConnectionTrafficSecrets {
    let name = ServerName::try_from("elsewhere.test").unwrap();
    let mut client = ClientConnection::new(Arc::new(world.stock_client(&[suite])), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(world.stock_server(&[suite]))).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        flight.clear();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    client.dangerous_extract_secrets().unwrap().tx.1
}
