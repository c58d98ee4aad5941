//! Sizes as people write them: `64KiB`, `64MiB`, `1GiB`.

/// 2^20 bytes.
pub const MIB: u64 = 1 << 20;
/// 2^30 bytes.
pub const GIB: u64 = 1 << 30;

/// The units, the largest first.
const UNITS: [(&str, u64); 3] = [("GiB", GIB), ("MiB", MIB), ("KiB", 1 << 10)];

/// Parses one whole number and its unit. `None` for anything else, and for what does not fit.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A whole number of KiB as the shortest text that [`parse`] reads.
pub(super) fn show(bytes: u64) -> String {
    let fitting = UNITS.iter().find(|(_, factor)| bytes.is_multiple_of(*factor));
    match fitting {
        Some((name, factor)) => format!("{}{name}", bytes.wrapping_div(*factor)),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, bytes) in [
            ("1KiB", Some(1024)),
            ("64MiB", Some(64 << 20)),
            ("2GiB", Some(2 << 30)),
            ("0MiB", Some(0)),
            ("64", None),
            ("64MB", None),
            ("64 MiB", None),
            ("64mib", None),
            ("MiB", None),
            ("1.5GiB", None),
            ("-1MiB", None),
            ("", None),
            ("18446744073709551615KiB", None),
        ] {
            assert_eq!(parse(text), bytes, "{text}");
        }
        for text in ["1KiB", "64MiB", "3GiB"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
