//! What a rule compares and does, as expressions of nftables, and the attributes that all of it is made of.

use ipnet::IpNet;

use super::NESTED;
use crate::intercept::rules::{Action, Match};

/// `NFT_REG_1`, and the register of verdicts.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;

/// Writes over what is there.
pub(super) fn patch(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (place, byte) in bytes.iter_mut().skip(at).zip(with) {
        *place = *byte;
    }
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    to.extend([0; 2]);
    to.extend(kind.to_ne_bytes());
    value(to);
    // A rule has no more than a few hundred bytes.
    let length = u16::try_from(to.len() - start).unwrap_or(u16::MAX);
    patch(to, start, &length.to_ne_bytes());
    to.resize(to.len().next_multiple_of(4), 0);
}

/// An attribute that holds attributes.
pub(super) fn nested(to: &mut Vec<u8>, kind: u16, inner: impl FnOnce(&mut Vec<u8>)) {
    attribute(to, kind | NESTED, inner);
}

/// An attribute that is these bytes.
pub(super) fn bytes(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    attribute(to, kind, |to| to.extend(value));
}

/// An attribute that is text, with the zero behind it.
pub(super) fn text(to: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(to, kind, |to| {
        to.extend(value.bytes());
        to.push(0);
    });
}

/// An attribute that is a number.
pub(super) fn number(to: &mut Vec<u8>, kind: u16, value: u32) {
    bytes(to, kind, &value.to_be_bytes());
}

/// A value that is compared with or loaded.
fn data(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nested(to, kind, |to| bytes(to, 1, value));
}

fn expression(to: &mut Vec<u8>, name: &str, fields: impl FnOnce(&mut Vec<u8>)) {
    nested(to, 1, |to| {
        text(to, 1, name);
        nested(to, 2, fields);
    });
}

/// What is compared, and how it is loaded.
#[derive(Clone, Copy)]
enum Meta {
    InInterface = 6,
    OutInterface = 7,
    User = 10,
    Group = 11,
    Family = 15,
    Protocol = 16,
}

fn meta(to: &mut Vec<u8>, key: Meta) {
    expression(to, "meta", |to| {
        number(to, 2, key as u32);
        number(to, 1, REGISTER);
    });
}

/// So many bytes of a header: 1 is the network's, 2 the transport's.
fn payload(to: &mut Vec<u8>, header: u32, offset: u32, length: usize) {
    expression(to, "payload", |to| {
        number(to, 1, REGISTER);
        number(to, 2, header);
        number(to, 3, offset);
        number(to, 4, u32::try_from(length).unwrap_or(u32::MAX));
    });
}

#[derive(Clone, Copy)]
enum Compare {
    Equal = 0,
    NotEqual = 1,
}

fn compare(to: &mut Vec<u8>, how: Compare, value: &[u8]) {
    expression(to, "cmp", |to| {
        number(to, 1, REGISTER);
        number(to, 2, how as u32);
        data(to, 3, value);
    });
}

fn is(to: &mut Vec<u8>, value: &[u8]) {
    compare(to, Compare::Equal, value);
}

/// The expressions that compare what a rule asks for, each with the next only where it holds.
pub(super) fn matches(to: &mut Vec<u8>, condition: Match) {
    /// A name of an interface fills its place, so that the whole of it is compared.
    const LOOPBACK: &[u8] = b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const TCP: u8 = 6;
    match condition {
        Match::User(user) => {
            meta(to, Meta::User);
            is(to, &user.to_ne_bytes());
        }
        Match::Group(group) => {
            meta(to, Meta::Group);
            is(to, &group.to_ne_bytes());
        }
        Match::OutLoopback => {
            meta(to, Meta::OutInterface);
            is(to, LOOPBACK);
        }
        Match::InLoopback => {
            meta(to, Meta::InInterface);
            is(to, LOOPBACK);
        }
        Match::NotForUs => {
            /// `RTN_LOCAL`.
            const LOCAL: u32 = 2;
            expression(to, "fib", |to| {
                // By the destination's address, its type.
                number(to, 3, 2);
                number(to, 2, 3);
                number(to, 1, REGISTER);
            });
            compare(to, Compare::NotEqual, &LOCAL.to_ne_bytes());
        }
        Match::Destination(network) => destination(to, network),
        Match::Port(port) => {
            meta(to, Meta::Protocol);
            is(to, &[TCP]);
            payload(to, 2, 2, 2);
            is(to, &port.to_be_bytes());
        }
        Match::Tcp => {
            meta(to, Meta::Protocol);
            is(to, &[TCP]);
        }
    }
}

/// The family, then the address as far as the network goes.
fn destination(to: &mut Vec<u8>, network: IpNet) {
    let (family, offset, address, mask) = match network {
        IpNet::V4(v4) => (
            2,
            16,
            v4.network().octets().to_vec(),
            v4.netmask().octets().to_vec(),
        ),
        IpNet::V6(v6) => (
            10,
            24,
            v6.network().octets().to_vec(),
            v6.netmask().octets().to_vec(),
        ),
    };
    meta(to, Meta::Family);
    is(to, &[family]);
    let bits = usize::from(network.prefix_len());
    // The family is all that is asked for.
    if bits == 0 {
        return;
    }
    // Whole bytes are loaded as such.
    if bits.is_multiple_of(8) {
        let whole = address.get(..bits / 8).unwrap_or_default();
        payload(to, 1, offset, whole.len());
        is(to, whole);
        return;
    }
    payload(to, 1, offset, address.len());
    expression(to, "bitwise", |to| {
        number(to, 1, REGISTER);
        number(to, 2, REGISTER);
        number(to, 3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
        data(to, 4, &mask);
        data(to, 5, &vec![0; mask.len()]);
    });
    is(to, &address);
}

/// The expressions that do what a rule does.
pub(super) fn act(to: &mut Vec<u8>, action: Action) {
    match action {
        Action::Return => expression(to, "immediate", |to| {
            /// `NFT_RETURN`.
            const RETURN: i32 = -5;
            number(to, 1, VERDICT);
            nested(to, 2, |to| {
                nested(to, 2, |to| number(to, 1, RETURN.cast_unsigned()))
            });
        }),
        Action::Redirect(port) => {
            expression(to, "immediate", |to| {
                number(to, 1, REGISTER);
                data(to, 2, &port.to_be_bytes());
            });
            expression(to, "redir", |to| {
                /// `NF_NAT_RANGE_PROTO_SPECIFIED`.
                const PORT_GIVEN: u32 = 2;
                number(to, 1, REGISTER);
                number(to, 3, PORT_GIVEN);
            });
        }
    }
}
