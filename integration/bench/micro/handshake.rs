//! Mutual TLS handshakes of two of our own ends, with our verifier on both sides, over a unix socket pair and one
//! thread: both ends' work and the calls it takes added up, no TCP, no wake-up of another thread.

use std::hint::black_box;

use criterion::Criterion;
use svidecar::sys::stream::Stream;
use svidecar::tls::configs::{Client, Context, Server};
use svidecar::tls::handshake::{self, Established};
use svidecar::tls::record::record_length;
use tokio::net::UnixStream;
use tokio::runtime::Builder;

use crate::world::World;

/// What one kind of handshake is made with.
struct Ends {
    client: Client,
    server: Server,
}

impl Ends {
    /// Those of a sidecar's listeners.
    fn of(context: &Context) -> Self {
        Self {
            client: context.client("out").unwrap(),
            server: context.server("in").unwrap(),
        }
    }

    async fn shake(&self) -> (Established, Established) {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Stream::Unix(near), Stream::Unix(far));
        let (client, server) = tokio::join!(
            handshake::connect(&mut near, self.client.clone(), || false),
            handshake::accept(&mut far, self.server.clone(), Vec::new()),
        );
        (client.unwrap(), server.unwrap())
    }

    /// A handshake, and the server's ticket handed to the client; whether it was resumed.
    async fn shake_and_tell(&self) -> bool {
        let (mut client, mut server) = self.shake().await;
        let mut tickets = Vec::new();
        server.session.before_data(&mut tickets).unwrap();
        let mut rest = tickets.as_mut_slice();
        while let Some(length) = record_length(rest).unwrap() {
            let (record, after) = rest.split_at_mut(length);
            client.session.receive(record).unwrap();
            rest = after;
        }
        client.resumed
    }
}

pub(crate) fn bench(criterion: &mut Criterion, world: &World) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("handshake");
    // Whose chains are known already, as those of any peer after the first connection.
    let full = Ends::of(&world.context(false));
    group.bench_function("full", |bencher| {
        bencher.iter(|| black_box(runtime.block_on(full.shake())));
    });
    let resumed = Ends::of(&world.context(true));
    runtime.block_on(resumed.shake_and_tell());
    group.bench_function("resumed", |bencher| {
        bencher.iter(|| assert!(runtime.block_on(resumed.shake_and_tell())));
    });
    group.finish();
}
