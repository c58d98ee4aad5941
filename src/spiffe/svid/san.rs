//! Reads the URIs of a subject alternative name from its DER (RFC 5280 section 4.2.1.6).
//!
//! Our own reader, because the ones at hand skip what they cannot show: a URI that is not UTF-8 is no URI to
//! x509-parser and webpki, and a certificate with one good and one such URI would pass as having exactly one.

use super::errors::Defect;

const SEQUENCE: u8 = 0x30;
/// `uniformResourceIdentifier [6] IMPLICIT IA5String`.
const URI: u8 = 0x86;

/// The content of every URI in the extension's value, in its order.
pub(super) fn uris(value: &[u8]) -> Result<Vec<&[u8]>, Defect> {
    let (tag, mut names, rest) = element(value)?;
    if tag != SEQUENCE {
        return Err(Defect::MalformedSan("it is no sequence"));
    }
    if !rest.is_empty() {
        return Err(Defect::MalformedSan("bytes follow the names"));
    }
    if names.is_empty() {
        return Err(Defect::MalformedSan("it holds no name"));
    }
    let mut uris = Vec::new();
    while !names.is_empty() {
        let (tag, content, rest) = element(names)?;
        match tag {
            URI => uris.push(content),
            // otherName, x400Address, directoryName and ediPartyName are constructed; rfc822Name, dNSName,
            // iPAddress and registeredID are not. Any other tag, a constructed URI too, is no GeneralName.
            0xa0 | 0x81 | 0x82 | 0xa3 | 0xa4 | 0xa5 | 0x87 | 0x88 => {}
            _ => return Err(Defect::MalformedSan("it holds something that is no general name")),
        }
        names = rest;
    }
    Ok(uris)
}

/// One DER element: its tag, its content, and what follows. Tags above 30 come out as 0x1f of their class, which
/// no caller takes.
fn element(der: &[u8]) -> Result<(u8, &[u8], &[u8]), Defect> {
    const CUT: Defect = Defect::MalformedSan("it is cut short");
    let (&[tag, first], mut rest) = der.split_first_chunk::<2>().ok_or(CUT)?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        // A value within a certificate of 16 KiB needs at most two length bytes.
        let (bytes, after) = match first {
            0x81 => rest.split_at_checked(1),
            0x82 => rest.split_at_checked(2),
            _ => return Err(Defect::MalformedSan("a length is not DER")),
        }
        .ok_or(CUT)?;
        rest = after;
        let length = bytes
            .iter()
            .fold(0, |length, byte| (length << 8) | usize::from(*byte));
        let shortest = if first == 0x81 { 0x80 } else { 0x100 };
        if length < shortest {
            return Err(Defect::MalformedSan("a length is not DER"));
        }
        length
    };
    let (content, rest) = rest.split_at_checked(length).ok_or(CUT)?;
    Ok((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_counted_by_their_tag() {
        assert_eq!(uris(b"\x30\x04\x86\x02ab").unwrap(), [b"ab"]);
        assert_eq!(
            uris(b"\x30\x08\x86\x02ab\x86\x02\xff\xfe").unwrap(),
            [b"ab", b"\xff\xfe"]
        );
        assert_eq!(uris(b"\x30\x08\x82\x02ab\x87\x02ab").unwrap(), [] as [&[u8]; 0]);
    }

    #[test]
    fn what_is_not_der_is_refused() {
        let cases: &[(&str, &[u8])] = &[
            ("empty", b""),
            ("no content", b"\x30"),
            ("no names", b"\x30\x00"),
            ("set", b"\x31\x04\x86\x02ab"),
            ("trailing", b"\x30\x04\x86\x02ab\x00"),
            ("name beyond the end", b"\x30\x04\x86\x03ab"),
            ("constructed URI", b"\x30\x06\xa6\x04\x86\x02ab"),
            ("high tag form", b"\x30\x05\x9f\x06\x02ab"),
            ("indefinite", b"\x30\x80\x86\x02ab\x00\x00"),
            ("long form of a short length", b"\x30\x81\x04\x86\x02ab"),
            ("leading zero in a length", b"\x30\x82\x00\x04\x86\x02ab"),
            ("length of three bytes", b"\x30\x83\x00\x00\x04\x86\x02ab"),
            ("universal tag inside", b"\x30\x04\x16\x02ab"),
        ];
        for (name, der) in cases {
            assert!(matches!(uris(der), Err(Defect::MalformedSan(_))), "{name}");
        }
    }

    /// A name of so many bytes, in the names' sequence, with the length octets that DER wants of each.
    fn long(length: usize) -> Vec<u8> {
        let headed = |tag: u8, content: &[u8]| {
            let [.., high, low] = content.len().to_be_bytes();
            let mut der = match content.len() {
                ..0x80 => vec![tag, low],
                0x80..0x100 => vec![tag, 0x81, low],
                _ => vec![tag, 0x82, high, low],
            };
            der.extend_from_slice(content);
            der
        };
        headed(SEQUENCE, &headed(URI, &vec![b'a'; length]))
    }

    #[test]
    fn every_form_of_a_length_is_read() {
        for length in [
            0, 1, 0x7d, 0x7e, 0x7f, 0x80, 0xfc, 0xfd, 0xff, 0x100, 0x101, 0x1234,
        ] {
            let der = long(length);
            assert_eq!(uris(&der).unwrap(), [vec![b'a'; length]], "{length}");
            assert!(uris(&der[..der.len() - 1]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_length_has_one_form() {
        let cases: [(&[u8], usize); 4] = [
            // Were the indefinite form a length, it would be this one.
            (b"\x30\x82\x00\x82\x86\x80", 0x80),
            (b"\x30\x81\x82\x86\x80", 0x80),
            (b"\x30\x81\x82\x86\x81\x7f", 0x7f),
            (b"\x30\x82\x01\x03\x86\x82\x00\xff", 0xff),
        ];
        for (head, length) in cases {
            let der = [head, &vec![b'a'; length]].concat();
            assert_eq!(
                uris(&der),
                Err(Defect::MalformedSan("a length is not DER")),
                "{head:02x?}"
            );
        }
    }

    #[test]
    fn every_prefix_is_refused() {
        let whole = b"\x30\x0c\x82\x02ab\x86\x06spiffe";
        assert_eq!(uris(whole).unwrap(), [b"spiffe"]);
        for end in 0..whole.len() {
            assert!(uris(&whole[..end]).is_err(), "{end}");
        }
    }
}
