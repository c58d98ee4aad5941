//! Tables of what is and is not a header, each with every prefix of it; and what is written is read again.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn of(source: &str, destination: &str) -> Origin {
    Origin::Of {
        source: addr(source),
        destination: addr(destination),
    }
}

/// A header of version 2 with this much after the signature.
fn v2(rest: &[u8]) -> Vec<u8> {
    [SIGNATURE.as_slice(), rest].concat()
}

/// A header of version 2 from its parts.
fn block(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    v2(&[&[command, family], &length[..], block].concat())
}

const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 7, 0xd9, 0x03, 0x01, 0xbb];

fn v4_with(fields: &[u8]) -> Vec<u8> {
    block(0x21, 0x11, &[V4, fields].concat())
}

/// The header is read from its own bytes, is incomplete before, and is not changed by what follows.
fn check_good(header: &[u8], origin: Origin) {
    let complete = Ok(Progress::Complete {
        origin,
        length: header.len(),
    });
    for end in 0..header.len() {
        assert_eq!(
            parse(&header[..end]),
            Ok(Progress::Incomplete),
            "{end} of {header:?}"
        );
    }
    assert_eq!(parse(header), complete, "{header:?}");
    for next in [b'\r', b'\n', 22, b'P', 0, 255] {
        assert_eq!(parse(&[header, &[next; 5000]].concat()), complete, "{header:?}");
    }
}

/// It is refused, at the latest by `certain` bytes, and ever after.
fn check_bad(header: &[u8], error: Malformed, certain: usize) {
    for end in 0..certain {
        assert_eq!(
            parse(&header[..end]),
            Ok(Progress::Incomplete),
            "{end} of {header:?}"
        );
    }
    for end in certain..=header.len() {
        assert_eq!(parse(&header[..end]), Err(error), "{end} of {header:?}");
    }
}

#[test]
fn lines_of_version_1() {
    let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), 104);
    let ones = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 16));
    assert_eq!(unknown.len(), MAX_LINE);
    for (line, origin) in [
        (
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            of("192.168.0.1:56324", "192.168.0.11:443"),
        ),
        (
            "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
            of("0.0.0.0:0", "255.255.255.255:65535"),
        ),
        (
            "PROXY TCP6 ::1 2001:DB8::2 1 2\r\n",
            of("[::1]:1", "[2001:db8::2]:2"),
        ),
        (
            "PROXY TCP6 ::ffff:c000:201 ::ffff:192.0.2.2 1 2\r\n",
            of("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2"),
        ),
        (longest, of(ones, ones)),
        ("PROXY UNKNOWN\r\n", Origin::Sender),
        ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Origin::Sender),
        ("PROXY UNKNOWN  any thing\0\r\n", Origin::Sender),
        (&unknown, Origin::Sender),
    ] {
        check_good(line.as_bytes(), origin);
    }
}

#[test]
fn what_is_no_line_of_version_1() {
    use Malformed::{Address, Line, Port, Protocol};
    for (line, error) in [
        ("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", Protocol),
        ("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", Protocol),
        ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Protocol),
        ("PROXY UNKNOWNX\r\n", Protocol),
        ("PROXY \r\n", Protocol),
        ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Protocol),
        ("PROXY TCP4\r\n", Address),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Address),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Address),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", Address),
        ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.4\t1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.+4 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", Address),
        ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP6 [::1] [::1] 1 2\r\n", Address),
        ("PROXY TCP6 fe80::1%lo ::1 1 2\r\n", Address),
        ("PROXY TCP6 1::2::3 ::1 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 -2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 0x2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4  1\r\n", Port),
    ] {
        check_bad(line.as_bytes(), error, line.len());
    }
    for line in [
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN\r\r\n",
        "PROXY TCP4\rx",
        "PROXY \n\r",
    ] {
        let certain = line
            .find('\n')
            .unwrap_or(usize::MAX)
            .min(line.find('\r').map_or(usize::MAX, |at| at + 1));
        check_bad(line.as_bytes(), Line, certain + 1);
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    check_bad(endless.as_bytes(), Line, MAX_LINE);
    // The CRLF of one that is a byte too long.
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 15));
    check_bad(long.as_bytes(), Line, MAX_LINE);
}

#[test]
fn headers_of_version_2() {
    let v6 = [
        &[0; 15][..],
        &[1],
        &[0x20, 1, 0xd, 0xb8],
        &[0; 11],
        &[2],
        &[0, 1, 0, 2],
    ]
    .concat();
    let sender = Origin::Sender;
    let caller = of("192.0.2.1:55555", "198.51.100.7:443");
    for (header, origin) in [
        (block(0x20, 0x00, b""), sender),
        // What LOCAL says is discarded, whatever it is.
        (block(0x20, 0x11, V4), sender),
        (block(0x20, 0x11, b""), sender),
        (block(0x20, 0xff, b"\x01\xff\xff"), sender),
        (block(0x21, 0x00, b""), sender),
        (block(0x21, 0x00, b"\x04\0\x01x"), sender),
        (block(0x21, 0x11, V4), caller),
        (block(0x21, 0x21, &v6), of("[::1]:1", "[2001:db8::2]:2")),
        // Valid, and no TCP.
        (block(0x21, 0x12, V4), sender),
        (block(0x21, 0x22, &v6), sender),
        (block(0x21, 0x31, &[b'/'; 216]), sender),
        (block(0x21, 0x32, &[0; 216]), sender),
        (v4_with(b"\x04\0\0\xe0\0\x02hi\xff\0\0"), caller),
        (
            v4_with(&[&[0xd0, 0x0f, 0xe1][..], &[b'x'; 0xfe1]].concat()),
            caller,
        ),
    ] {
        check_good(&header, origin);
    }
}

#[test]
fn what_is_no_header_of_version_2() {
    use Malformed::{Command, Family, Field, Length, TooLong};
    for (command, certain) in [
        (0x11, 13),
        (0x31, 13),
        (0x22, 13),
        (0x2f, 13),
        (0x00, 13),
        (0x0a, 13),
    ] {
        check_bad(&block(command, 0x11, V4), Command(command), certain);
    }
    for family in [0x01, 0x10, 0x13, 0x1f, 0x20, 0x30, 0x33, 0x41, 0xff] {
        check_bad(&block(0x21, family, V4), Family(family), 14);
    }
    check_bad(&block(0x21, 0x11, &V4[..11]), Length, FIXED);
    check_bad(&block(0x21, 0x21, &[0; 35]), Length, FIXED);
    check_bad(&block(0x21, 0x31, &[0; 215]), Length, FIXED);
    check_bad(&block(0x21, 0x11, &[0; MAX_HEADER - FIXED + 1]), TooLong, FIXED);
    check_bad(&block(0x20, 0x00, &[0; 0xffff]), TooLong, FIXED);
    for fields in [
        &b"\x04"[..],
        b"\x04\0",
        b"\x04\0\x01",
        b"\x04\0\x02x",
        b"\x04\xff\xff",
        b"\x04\0\x01xx",
        b"\x03\0\x03xxx",
        b"\x03\0\x05xxxxx",
        b"\x03\0\x04\0\0\0\0\x03\0\x04\0\0\0\0",
    ] {
        let header = v4_with(fields);
        check_bad(&header, Field, header.len());
    }
}

#[test]
fn other_beginnings_are_refused_at_the_first_wrong_byte() {
    for (bytes, certain) in [
        (&b"\x16\x03\x01\0\0"[..], 1),
        (b"GET / HTTP/1.1\r\n", 1),
        (b"POST / HTTP/1.1\r\n", 2),
        (b"proxy UNKNOWN\r\n", 1),
        (b"PROXYUNKNOWN\r\n", 6),
        (b"PROXY\r\n", 6),
        (b" PROXY UNKNOWN\r\n", 1),
        (b"\r\n\r\n\0\r\nQUIT\r", 12),
        (b"\r\n\r\n\r\n", 5),
        (b"\0", 1),
    ] {
        check_bad(bytes, Malformed::Beginning, certain);
    }
}

/// With a checksum field behind `fields`.
fn checked(fields: &[u8], behind: &[u8], spoil: u32) -> Vec<u8> {
    let empty = v4_with(&[fields, b"\x03\0\x04\0\0\0\0", behind].concat());
    let sum = (crc32c::crc32c([empty.as_slice()]) ^ spoil).to_be_bytes();
    v4_with(&[fields, b"\x03\0\x04", &sum, behind].concat())
}

#[test]
fn a_checksum_is_verified_wherever_it_stands() {
    let caller = of("192.0.2.1:55555", "198.51.100.7:443");
    for (fields, behind) in [
        (&b""[..], &b""[..]),
        (b"\x04\0\x02xx", b""),
        (b"", b"\xe0\0\x01y"),
        (b"\x05\0\x01z", b"\x04\0\0"),
    ] {
        check_good(&checked(fields, behind, 0), caller);
        let wrong = checked(fields, behind, 1 << 31);
        check_bad(&wrong, Malformed::Checksum, wrong.len());
    }
}

#[test]
fn lines_are_written_as_the_specification_has_them() {
    for (source, destination, line) in [
        (
            "192.0.2.1:1",
            "198.51.100.7:443",
            "PROXY TCP4 192.0.2.1 198.51.100.7 1 443\r\n",
        ),
        ("[2001:db8::1]:1", "[::1]:2", "PROXY TCP6 2001:db8::1 ::1 1 2\r\n"),
        (
            "192.0.2.1:1",
            "[::1]:2",
            "PROXY TCP6 0:0:0:0:0:ffff:c000:201 ::1 1 2\r\n",
        ),
        (
            "[::1]:1",
            "192.0.2.1:2",
            "PROXY TCP6 ::1 0:0:0:0:0:ffff:c000:201 1 2\r\n",
        ),
    ] {
        assert_eq!(encode_v1(addr(source), addr(destination)), line.as_bytes());
    }
}

#[test]
fn a_header_of_version_2_byte_for_byte() {
    let caller = Caller {
        alpn: Some(b"h2"),
        authority: Some("orders"),
        unique_id: Some(b"7"),
        ssl: Some(Ssl {
            version: "TLSv1.3",
            cipher: "TLS_X",
            resumed: false,
        }),
        custom: Some((0xd0, b"spiffe://td/a")),
    };
    let addresses = Some((addr("192.0.2.1:55555"), addr("198.51.100.7:443")));
    let ssl = b"\x20\0\x17\x07\0\0\0\0\x21\0\x07TLSv1.3\x23\0\x05TLS_X";
    let fields = [
        &b"\x01\0\x02h2\x02\0\x06orders\x05\0\x017"[..],
        ssl,
        b"\xd0\0\x0dspiffe://td/a",
    ]
    .concat();
    assert_eq!(encode_v2(addresses, &caller).unwrap(), v4_with(&fields));
    let resumed = Caller {
        ssl: caller.ssl.map(|ssl| Ssl { resumed: true, ..ssl }),
        ..Caller::default()
    };
    let header = encode_v2(None, &resumed).unwrap();
    assert_eq!(
        header,
        block(0x21, 0x00, &[&ssl[..3], &[0x05][..], &ssl[4..]].concat())
    );
}

#[test]
fn what_does_not_fit_is_an_error() {
    let long = "x".repeat(0x1_0000);
    let bad = |caller| assert_eq!(encode_v2(None, &caller), Err(TooLong));
    bad(Caller {
        authority: Some(&long),
        ..Caller::default()
    });
    bad(Caller {
        alpn: Some(&long.as_bytes()[..0xfff0]),
        custom: Some((0xd0, &long.as_bytes()[..0x10])),
        ..Caller::default()
    });
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        any::<[u8; 4]>().prop_map(|v4| std::net::Ipv4Addr::from(v4).to_ipv6_mapped().into()),
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

/// As it comes out where the two differ in family: mapped.
fn canonical(origin: Origin) -> Option<[(IpAddr, u16); 2]> {
    match origin {
        Origin::Of { source, destination } => {
            Some([source, destination].map(|addr| (addr.ip().to_canonical(), addr.port())))
        }
        Origin::Sender => None,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        source in any_address(),
        destination in any_address(),
        fields in proptest::collection::vec((any::<u8>().prop_filter("checksum", |kind| *kind != 3), proptest::collection::vec(any::<u8>(), 0..64)), 0..4),
        resumed in any::<bool>(),
        rest in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let wanted = canonical(Origin::Of { source, destination });
        let mut headers = vec![encode_v1(source, destination)];
        for (kind, value) in &fields {
            let caller = Caller {
                alpn: Some(value),
                authority: Some("orders.example.org"),
                unique_id: Some(b"12"),
                ssl: Some(Ssl { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256", resumed }),
                custom: Some((*kind, value)),
            };
            headers.push(encode_v2(Some((source, destination)), &caller).unwrap());
        }
        for header in headers {
            for end in 0..header.len() {
                prop_assert_eq!(parse(&header[..end]), Ok(Progress::Incomplete));
            }
            let read = parse(&[&header[..], &rest].concat());
            let Ok(Progress::Complete { origin, length }) = read else {
                return Err(TestCaseError::fail(format!("{read:?}")));
            };
            prop_assert_eq!(length, header.len());
            prop_assert_eq!(canonical(origin), wanted);
        }
    }

    /// Whatever comes: an answer, the same with more behind it, and never a wait beyond what is allowed.
    #[test]
    fn any_bytes_have_an_answer(
        start in prop_oneof![Just(b"PROXY ".to_vec()), Just(SIGNATURE.to_vec()), Just(v2(b"\x21\x11")), Just(Vec::new())],
        tail in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [start, tail].concat();
        let mut decided = None;
        for end in 0..=bytes.len() {
            let now = parse(&bytes[..end]);
            match decided {
                None if now != Ok(Progress::Incomplete) => decided = Some(now),
                Some(before) => prop_assert_eq!(now, before),
                None => {}
            }
        }
    }
}
