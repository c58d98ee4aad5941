use std::collections::BTreeMap;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;

use super::*;
use crate::sys::bind;

fn tcp() -> (Address, Listening) {
    let socket = bind::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    (Address::Tcp(socket.tcp_address().unwrap()), socket)
}

fn hand_over(all: &[(Address, Listening)]) -> (Link, Parent, Vec<(Address, Listening)>) {
    let (parent, child) = Link::pair().unwrap();
    let told = |sockets| ToChild::Sockets {
        sockets,
        hold: true,
        alone: false,
    };
    let pairs = all.iter().map(|(address, socket)| (address, socket));
    parent.send_sockets(pairs, told).unwrap();
    let (greeted, got) = Parent::greet(Link(child)).unwrap();
    assert!(got.audit_lock.is_none());
    (parent, greeted, got.sockets)
}

#[test]
fn a_socket_that_was_handed_over_has_the_same_queue() {
    let all = [tcp()];
    let Address::Tcp(address) = all[0].0 else { panic!() };
    // It waits in the queue before anybody but the parent has the socket.
    let mut waiting = TcpStream::connect(address).unwrap();
    let (_link, parent, got) = hand_over(&all);
    assert!(parent.hold && !parent.alone);
    drop(all);
    let Listening::Tcp(listener) = &got[0].1 else {
        panic!()
    };
    listener.set_nonblocking(false).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    waiting.write_all(b"a").unwrap();
    let mut byte = [0];
    accepted.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"a");
}

#[test]
fn more_sockets_than_one_packet_takes_all_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..2 * MAX_DESCRIPTORS + 1)
        .map(|n| {
            let path = folder.path().join(n.to_string());
            let socket = bind::unix(&path, 0o600).unwrap();
            (Address::Unix(path), socket)
        })
        .collect();
    let (_link, _parent, got) = hand_over(&all);
    let got: BTreeMap<_, _> = got
        .into_iter()
        .map(|(address, socket)| (address.to_string(), socket))
        .collect();
    assert_eq!(got.len(), all.len());
    for (address, socket) in got {
        let Listening::Unix(listener) = socket else {
            panic!()
        };
        let path = listener.local_addr().unwrap();
        let path = path.as_pathname().unwrap().display().to_string();
        assert_eq!(address, format!("unix://{path}"));
    }
}

#[test]
fn the_lock_of_the_audit_log_is_the_same_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let lock = File::create(&path).unwrap();
    lock.try_lock().unwrap();
    let (parent, child) = Link::pair().unwrap();
    let told = ToChild::AuditLock {
        path: "/log".to_owned(),
    };
    parent.send(&told, &[lock.as_fd()]).unwrap();
    let told = |sockets| ToChild::Sockets {
        sockets,
        hold: false,
        alone: true,
    };
    parent.send_sockets([], told).unwrap();
    let (_, dowry) = Parent::greet(Link(child)).unwrap();
    let (name, handed) = dowry.audit_lock.unwrap();
    assert_eq!(name, PathBuf::from("/log"));
    drop(lock);
    assert!(File::open(&path).unwrap().try_lock().is_err());
    drop(handed);
    File::open(&path).unwrap().try_lock().unwrap();
}

#[test]
fn no_socket_at_all_is_a_message_too() {
    let (_link, _parent, got) = hand_over(&[]);
    assert!(got.is_empty());
}

#[test]
fn what_does_not_listen_is_refused() {
    let (address, _listening) = tcp();
    let Address::Tcp(target) = address else { panic!() };
    let connected = TcpStream::connect(target).unwrap();
    let sockets = Sockets {
        addresses: vec![address.to_string()],
        more: false,
    };
    let refused = listening(&sockets, vec![connected.into()]);
    assert!(matches!(refused, Err(ReceiveError::NotListening(a)) if a == address));
    // A socket of the other family is not what was announced.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let Listening::Unix(unix) = bind::unix(&path, 0o600).unwrap() else {
        panic!()
    };
    let refused = listening(&sockets, vec![unix.into()]);
    assert!(matches!(refused, Err(ReceiveError::NotListening(_))));
}

#[test]
fn a_parent_that_is_gone_or_says_something_else_is_told() {
    let (parent, child) = Link::pair().unwrap();
    drop(parent);
    assert!(matches!(Parent::greet(Link(child)), Err(ReceiveError::Ended)));
    let (parent, child) = Link::pair().unwrap();
    parent.send(&ToChild::Ping, &[]).unwrap();
    assert!(matches!(Parent::greet(Link(child)), Err(ReceiveError::NoSockets)));
    let (parent, child) = Link::pair().unwrap();
    rustix::net::send(&parent.0, b"hello", SendFlags::empty()).unwrap();
    assert!(matches!(
        Parent::greet(Link(child)),
        Err(ReceiveError::Message(_))
    ));
}

#[tokio::test]
async fn messages_come_in_order_and_the_end_is_seen() {
    let (parent, child) = Link::pair().unwrap();
    let parent = AsyncLink::new(Arc::new(parent)).unwrap();
    let child = Parent {
        link: Arc::new(Link(child)),
        hold: false,
        alone: true,
    };
    child.tell(&ToParent::Ready);
    child.tell(&ToParent::Ended { cut: 2 });
    drop(child);
    let mut got = Vec::new();
    let end = loop {
        match parent.receive::<ToParent>().await {
            Ok((message, _)) => got.push(message),
            Err(error) => break error,
        }
    };
    assert_eq!(got, [ToParent::Ready, ToParent::Ended { cut: 2 }]);
    assert!(matches!(end, ReceiveError::Ended));
    assert!(parent.send(&ToChild::Ping).is_err());
}
