//! The checksum of section 2.2.3: CRC-32C (RFC 4960 appendix B), by a table. Headers are short and rarely carry one.

/// The reflected polynomial.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut left: &mut [u32] = &mut table;
    let mut byte = 0_u32;
    while let Some((entry, rest)) = left.split_first_mut() {
        let mut value = byte;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ POLYNOMIAL
            } else {
                value >> 1
            };
            bit += 1;
        }
        *entry = value;
        left = rest;
        byte += 1;
    }
    table
}

/// The checksum of the pieces, one behind the other.
pub(super) fn crc32c<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let bytes = pieces.into_iter().flatten();
    !bytes.fold(!0, |crc: u32, byte| {
        let [low, ..] = crc.to_le_bytes();
        let entry = TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default();
        (crc >> 8) ^ entry
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // RFC 3720 appendix B.4, and the check value of the catalogue of CRCs.
        assert_eq!(crc32c([&[0_u8; 32][..]]), 0x8a91_36aa);
        assert_eq!(crc32c([&[0xff_u8; 32][..]]), 0x62a8_ab43);
        assert_eq!(crc32c([&b"123456789"[..]]), 0xe306_9283);
        assert_eq!(crc32c([&b"1234"[..], b"", b"56789"]), 0xe306_9283);
    }
}
