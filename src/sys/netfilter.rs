//! Talks to the kernel's packet filter over netlink(7).

use std::io;

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use rustix::net::RecvFlags;

/// Room for what the kernel answers to one batch: an error for each of its messages at worst.
const ROOM: usize = 64 << 10;
/// Answers that are read at most.
const MAX_ANSWERS: usize = 64;

/// Sends a batch of messages and returns what the kernel answers, one message behind the other. The kernel works while it
/// is sent to: all answers are there then, and nothing is waited for.
///
/// # Errors
/// The system's.
pub fn exchange(batch: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    // Errors come with words, and with the header alone of what they are about.
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    let sent = socket.send(batch, 0)?;
    if sent != batch.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut answers = Vec::new();
    let flags = RecvFlags::DONTWAIT.bits().cast_signed();
    for _ in 0..MAX_ANSWERS {
        let mut answer = Vec::with_capacity(ROOM);
        match socket.recv(&mut answer, flags) {
            Ok(_) => answers.append(&mut answer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(answers)
}
