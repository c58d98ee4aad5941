//! Held to what `nft` sends for the same rules.

use super::encode::bytes;
use super::*;
use crate::intercept::rules::{Action, Match};

/// What nft 1.0.6 sent for the rules of [`all_kinds`] (`strace -xx nft -f`): the type and the body of each message.
const NFT: &str = include_str!("nft.hex");

/// A rule of each kind.
fn all_kinds() -> Table {
    let net = |text: &str| Match::Destination(text.parse().unwrap());
    let rule = |matches: &[Match], action| Rule {
        matches: matches.to_vec(),
        action,
    };
    let out = |matches: &[Match]| rule(matches, Action::Return);
    let to = Action::Redirect(15001);
    Table {
        chains: vec![
            Chain {
                hook: Hook::Output,
                rules: vec![
                    out(&[Match::User(65532)]),
                    out(&[Match::Group(70)]),
                    out(&[Match::OutLoopback]),
                    out(&[net("10.0.0.0/8")]),
                    out(&[net("10.128.0.0/9")]),
                    out(&[net("127.0.0.1/32")]),
                    out(&[net("fd00::/8")]),
                    out(&[net("fe80::/10")]),
                    out(&[net("::1/128")]),
                    out(&[Match::Port(22)]),
                    rule(&[net("10.9.0.0/16"), Match::Port(80)], to),
                    rule(&[net("10.7.0.0/16"), Match::Tcp], to),
                    rule(&[Match::Tcp], to),
                ],
            },
            Chain {
                hook: Hook::Prerouting,
                rules: vec![
                    out(&[Match::InLoopback]),
                    out(&[Match::NotForUs]),
                    rule(&[Match::Port(8080)], Action::Redirect(15006)),
                ],
            },
        ],
    }
}

/// Each message's type, flags and number, and its body in hexadecimal.
fn messages(batch: &Batch) -> Vec<(u16, u16, u32, String)> {
    let mut all = Vec::new();
    let mut start = 0;
    while let Some(end) = next_message(batch.bytes(), start) {
        let message = &batch.bytes()[start..end];
        let body: String = message[HEADER..]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let (kind, flags) = (short(message, 4).unwrap(), short(message, 6).unwrap());
        all.push((kind, flags, long(message, 8).unwrap(), body));
        start = end;
    }
    assert_eq!(start, batch.bytes().len());
    all
}

#[test]
fn the_messages_are_those_of_nft() {
    let ours = messages(&replace(&all_kinds()));
    // nft was given an empty namespace: ours make and delete the table before.
    assert_eq!((ours[1].0, ours[2].0), (NEW_TABLE, DELETE_TABLE));
    let ours = [&ours[..1], &ours[3..]].concat();
    let theirs: Vec<(u16, &str)> = NFT
        .lines()
        .map(|line| {
            let (kind, body) = line.split_once(' ').unwrap();
            (u16::from_str_radix(kind, 16).unwrap(), body)
        })
        .collect();
    assert_eq!(ours.len(), theirs.len());
    for ((kind, _, number, body), (their_kind, their_body)) in ours.iter().zip(theirs) {
        assert_eq!(
            (*kind, body.as_str()),
            (their_kind, their_body),
            "message {number}"
        );
    }
}

#[test]
fn the_last_message_before_the_end_is_acknowledged_and_no_other() {
    for batch in [replace(&all_kinds()), delete()] {
        let all = messages(&batch);
        let asked: Vec<u32> = all
            .iter()
            .filter(|(_, flags, ..)| flags & ACKNOWLEDGE != 0)
            .map(|(_, _, number, _)| *number)
            .collect();
        assert_eq!(asked, [batch.last()]);
        assert_eq!(batch.last() as usize, all.len() - 2);
    }
}

/// An answer of the kernel: an error about message `number`, with words where there are some.
fn answer(errno: i32, number: u32, words: Option<&str>) -> Vec<u8> {
    let mut told = Vec::new();
    if let Some(words) = words {
        bytes(&mut told, 2, &7_u32.to_ne_bytes());
        text(&mut told, 1, words);
    }
    let mut message = Vec::new();
    let length = (HEADER + 4 + HEADER + told.len()) as u32;
    message.extend(length.to_ne_bytes());
    message.extend(2_u16.to_ne_bytes());
    message.extend((0x100 | if words.is_some() { 0x200_u16 } else { 0 }).to_ne_bytes());
    message.extend(number.to_ne_bytes());
    message.extend([0; 4]);
    message.extend((-errno).to_ne_bytes());
    message.extend([0; HEADER]);
    message.extend(told);
    message
}

#[test]
fn what_the_kernel_answers_is_read() {
    let batch = delete();
    let done = answer(0, batch.last(), None);
    let refused = |errno, words: Option<&str>| Answer::Refused {
        errno,
        words: words.map(str::to_owned),
    };
    for (received, expected) in [
        (Vec::new(), Answer::Missing),
        (done.clone(), Answer::Done),
        (answer(0, batch.last() + 1, None), Answer::Missing),
        (answer(1, 0, None), refused(1, None)),
        (answer(22, 3, Some("bad hook")), refused(22, Some("bad hook"))),
        // The first that is wrong counts, whatever else is said.
        (
            [answer(2, 1, None), answer(22, 2, None)].concat(),
            refused(2, None),
        ),
        ([answer(2, 1, None), done.clone()].concat(), refused(2, None)),
    ] {
        assert_eq!(batch.answer(&received), expected);
    }
    // Cut anywhere, it is no answer, or the same one.
    let whole = answer(22, 3, Some("bad hook"));
    for length in 0..whole.len() {
        assert_eq!(batch.answer(&whole[..length]), Answer::Missing, "{length}");
    }
    // An attribute without a length does not hold the reader.
    let mut endless = answer(22, 3, Some("bad hook"));
    patch(&mut endless, HEADER + 4 + HEADER, &[0, 0]);
    assert_eq!(batch.answer(&endless), refused(22, None));
}
