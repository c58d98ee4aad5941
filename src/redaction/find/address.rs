//! IP addresses, wherever they stand in a text: behind a scheme, before a port, between others.
//!
//! Peers choose some of these texts, so nothing is asked of what stands around an address, but that a digit there would make
//! it another one. What merely looks like one is taken for one, as a version of four numbers. Spared is what can be none: times,
//! versions of three numbers, and paths of modules (`h2::codec`), whose names begin with hexadecimal letters by chance.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Part;

/// The longest text of an IPv6 address (RFC 4291 section 2.2, with an IPv4 address at its end).
const MAX_IPV6: usize = 45;
/// Colons that no path of modules has.
const MIN_COLONS: usize = 3;

/// All addresses of a text, in order.
pub(super) fn all(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut at, mut last) = (0, 0);
    while at < text.len() {
        let scan = Scan { text, last };
        match scan.ipv6(at).or_else(|| scan.ipv4(at)) {
            Some((begin, end, ip)) => {
                let (end, length) = scan.tail(end, ip);
                parts.push(Part::Address {
                    range: begin..end,
                    ip: ip.to_canonical(),
                    length,
                });
                (at, last) = (end, end);
            }
            None => at += 1,
        }
    }
    parts
}

/// A look at a text, of which what is before `last` was found already.
struct Scan<'a> {
    text: &'a str,
    last: usize,
}

impl Scan<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// What stands before, where that was not found.
    fn before(&self, at: usize) -> Option<u8> {
        let before = (at > self.last).then(|| at.checked_sub(1)).flatten();
        before.and_then(|before| self.byte(before))
    }

    /// How many bytes from there on are such.
    fn run(&self, at: usize, is: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.as_bytes().get(at..).unwrap_or_default();
        rest.iter().take_while(|byte| is(**byte)).count()
    }

    fn is_digit(&self, at: usize) -> bool {
        self.byte(at).is_some_and(|byte| byte.is_ascii_digit())
    }

    /// The longest IPv6 address that begins there, with its brackets and its zone (RFC 4007 section 11).
    fn ipv6(&self, at: usize) -> Option<(usize, usize, IpAddr)> {
        let hex = |byte: u8| byte.is_ascii_hexdigit();
        let letter = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let before = self.before(at);
        if self.byte(at).is_some_and(hex) && before.is_some_and(hex) {
            return None;
        }
        let run = self.run(at, |byte| hex(byte) || matches!(byte, b':' | b'.'));
        let (ip, end) = (2..=run.min(MAX_IPV6)).rev().find_map(|length| {
            let end = at + length;
            let next = self.byte(end);
            let word = self.text.get(at..end)?;
            if next.is_some_and(hex) {
                return None;
            }
            let colons = word.bytes().filter(|byte| *byte == b':').count();
            let ip = (colons >= 2).then(|| word.parse::<Ipv6Addr>().ok()).flatten()?;
            let in_a_word = letter(before) || letter(next);
            (!in_a_word || colons >= MIN_COLONS).then_some((ip, end))
        })?;
        let zone = match self.byte(end) {
            Some(b'%') => {
                let is = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~');
                let zone = self.text.get(end + 1..end + 1 + self.run(end + 1, is));
                // The full stop of a sentence.
                zone.map_or(0, |zone| zone.trim_end_matches('.').len())
            }
            _ => 0,
        };
        let end = if zone > 0 { end + 1 + zone } else { end };
        let in_brackets = before == Some(b'[') && self.byte(end) == Some(b']');
        let (begin, end) = if in_brackets { (at - 1, end + 1) } else { (at, end) };
        Some((begin, end, ip.into()))
    }

    /// The numbers with dots between them that begin there, if four in a row are an address. All of them: the first or the last
    /// alone would tell.
    fn ipv4(&self, at: usize) -> Option<(usize, usize, IpAddr)> {
        let begins = self.is_digit(at) && !self.before(at).is_some_and(|byte| byte.is_ascii_digit());
        let goes_on =
            self.before(at) == Some(b'.') && at.checked_sub(2).is_some_and(|before| self.is_digit(before));
        if !begins || (goes_on && at.saturating_sub(1) > self.last) {
            return None;
        }
        let mut numbers = Vec::new();
        let mut end = at;
        loop {
            let digits = self.run(end, |byte| byte.is_ascii_digit());
            numbers.push(self.text.get(end..end + digits).and_then(octet));
            end += digits;
            if self.byte(end) != Some(b'.') || !self.is_digit(end + 1) {
                break;
            }
            end += 1;
        }
        let ip = numbers.windows(4).find_map(|four| match four {
            [Some(a), Some(b), Some(c), Some(d)] => Some(Ipv4Addr::new(*a, *b, *c, *d)),
            _ => None,
        })?;
        Some((at, end, ip.into()))
    }

    /// Where an address ends with its port or its prefix length, and that length.
    fn tail(&self, end: usize, ip: IpAddr) -> (usize, Option<u8>) {
        let mark = self.byte(end);
        let digits = self.run(end + 1, |byte| byte.is_ascii_digit());
        let after = end + 1 + digits;
        let number = self.text.get(end + 1..after).unwrap_or_default();
        // Otherwise it is the beginning of another address.
        let ends = match self.byte(after) {
            Some(b'.') => !self.is_digit(after + 1),
            Some(b':') => !self
                .byte(after + 1)
                .is_some_and(|byte| byte == b':' || byte.is_ascii_hexdigit()),
            byte => !byte.is_some_and(|byte| byte.is_ascii_alphanumeric()),
        };
        let most = if ip.is_ipv4() { 32 } else { 128 };
        match mark {
            Some(b':') if ends && number.parse::<u16>().is_ok() => (after, None),
            Some(b'/') if ends => match number.parse::<u8>() {
                Ok(length) if length <= most => (after, Some(length)),
                _ => (end, None),
            },
            _ => (end, None),
        }
    }
}

/// A number of an IPv4 address, also where it is filled up with zeros.
fn octet(digits: &str) -> Option<u8> {
    (digits.len() <= 3).then(|| digits.parse().ok()).flatten()
}
