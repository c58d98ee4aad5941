//! Mutual TLS handshakes of two of our own ends, with our verifier on both sides, over a unix socket pair and one
//! thread: both ends' work and the calls it takes added up, no TCP, no wake-up of another thread.

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use svidecar::sys::stream::Stream;
use svidecar::tls::handshake::{self, Established};
use tokio::net::UnixStream;
use tokio::runtime::Builder;

use crate::world::World;

/// What one kind of handshake is made with.
struct Ends {
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
    server: Arc<ServerConfig>,
}

impl Ends {
    /// Those of a sidecar's listeners, as a [`svidecar::tls::configs::Context`] has them.
    fn of(world: &World) -> Self {
        let (client, name) = world.context.client("out").unwrap();
        let server = world.context.server("in").unwrap();
        Self { client, name, server }
    }

    async fn shake(&self) -> (Established, Established) {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Stream::Unix(near), Stream::Unix(far));
        let (client, server) = tokio::join!(
            handshake::connect(&mut near, self.client.clone(), self.name.clone()),
            handshake::accept(&mut far, self.server.clone()),
        );
        (client.unwrap(), server.unwrap())
    }
}

pub(crate) fn bench(criterion: &mut Criterion, world: &World) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("handshake");
    let mut kind = |name: &str, ends: &Ends| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(runtime.block_on(ends.shake())));
        });
    };
    kind("full", &Ends::of(world));
    group.finish();
}
