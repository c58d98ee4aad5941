//! Workers with a listener of their own, and no identity: whoever is served gets an alert.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::*;
use crate::clock::ManualClock;
use crate::config::settings::{Address, Limits, Listener, ListenerKind, OpenConnections, PolicyMode, Target};
use crate::lifecycle::drain::Drain;
use crate::record::{ConnectionRecord, Decision, Direction, LogLine, Reason, Receipt, RecordSink};
use crate::sys::bind;
use crate::telemetry::metrics::Metrics;
use crate::upstream::resolve::System;

#[derive(Default)]
struct Kept(Mutex<Vec<Reason>>);

impl RecordSink for Kept {
    fn record(&self, record: &ConnectionRecord) {
        self.0.lock().unwrap().push(record.reason);
    }

    fn decision(&self, _: &Arc<Decision>, _: LogLine) -> Receipt {
        Receipt::Kept
    }
}

/// A drain that begins the moment a connection has come still serves it, however far its acceptance has got.
#[test]
fn a_drain_waits_for_connections_that_are_only_just_there() {
    let kept = Arc::new(Kept::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    for round in 0..100 {
        let live = Arc::new(Live::new(
            Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH)),
            kept.clone(),
            Limits::default(),
            OpenConnections::default(),
            PolicyMode::Enforce,
        ));
        let socket = bind::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.tcp_address().unwrap();
        let settings = Arc::new(Listener {
            name: "orders".into(),
            listen: Address::Tcp(address),
            alpn: Vec::new(),
            kind: ListenerKind::inbound(Target::Ip(address)),
        });
        let metrics = Metrics::new(None).listener(&"orders".into(), Direction::Inbound);
        let context = ListenerContext::new(settings, metrics);
        let drain = Drain::new();
        let workers = Workers::start(2, &live, &drain.watch(), &System::default()).unwrap();
        workers.publish(Arc::new([Arc::new(BoundListener::new(context, socket))]));
        // One to see that the workers accept, one that comes with the drain.
        let alert = |mut client: TcpStream| {
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut read = [0; 7];
            client.read_exact(&mut read).map(|()| read[0])
        };
        assert_eq!(alert(TcpStream::connect(address).unwrap()).unwrap(), 21);
        while drain.tokens() > 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let client = TcpStream::connect(address).unwrap();
        workers.publish(Arc::new([]));
        let reader = std::thread::spawn(move || alert(client));
        runtime.block_on(drain.drain(Duration::from_secs(5)));
        workers.stop();
        assert_eq!(reader.join().unwrap().unwrap(), 21, "round {round}");
    }
    assert_eq!(*kept.0.lock().unwrap(), [Reason::NoIdentity; 200]);
}

/// Descriptors run out when a listener comes: it is accepted from as soon as there are some again, unless it is gone by then.
#[tokio::test(start_paused = true)]
async fn a_socket_that_cannot_be_copied_is_tried_again() {
    let socket = bind::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let tries = std::cell::Cell::new(0);
    let copy = || {
        tries.set(tries.get() + 1);
        match tries.get() {
            ..4 => Err(rustix::io::Errno::MFILE.into()),
            _ => socket.try_clone().and_then(Acceptor::new),
        }
    };
    let never = std::pin::pin!(std::future::pending());
    assert!(acceptor("orders", copy, never).await.is_some());
    assert_eq!(tries.get(), 4);

    let none = || Err(rustix::io::Errno::MFILE.into());
    let leave = std::pin::pin!(async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Waiting::Leave
    });
    assert!(acceptor("orders", none, leave).await.is_none());
    let closed = || Err(io::ErrorKind::NotConnected.into());
    let never = std::pin::pin!(std::future::pending());
    assert!(acceptor("orders", closed, never).await.is_none());
}
