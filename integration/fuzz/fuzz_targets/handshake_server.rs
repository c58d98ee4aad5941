//! Any bytes as a client's flights: the driver ends in an error that says something, and never panics or hangs.
#![no_main]

mod tls;

use libfuzzer_sys::fuzz_target;

// The first byte says in what pieces the rest is sent, and whether a good ClientHello goes before it.
fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else {
        return;
    };
    let mut bytes = if first & 1 == 1 { tls::hello() } else { Vec::new() };
    bytes.extend(rest);
    let piece = 1 << (first >> 1 & 15);
    let failure = tls::accept(bytes.chunks(piece)).expect_err("nobody was authenticated");
    assert!(!failure.detail.is_empty());
    assert!(failure.peer.is_none());
});
