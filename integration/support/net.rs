//! Free ports of loopback.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// An address of loopback with a port that was free a moment ago and that no other test of this process got.
///
/// The config wants a port before the sidecar binds it, so another process can still take it in between.
pub(crate) fn free_address() -> SocketAddr {
    let mut handed_out = HANDED_OUT.lock().unwrap();
    // Ports that were handed out before stay bound while we look, so that the system offers another one.
    let mut tried = Vec::new();
    for _ in 0..1000 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        if handed_out.insert(addr.port()) {
            return addr;
        }
        tried.push(listener);
    }
    panic!("no free port on loopback");
}
