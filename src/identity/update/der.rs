//! Takes concatenated DER apart (Workload API section 5.2.1: certificates one after the other, nothing between).

use rustls::pki_types::CertificateDer;

/// Why bytes are not DER certificates one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// What begins here is no certificate.
    #[error("no certificate begins at byte {0}")]
    NotASequence(usize),
    /// It says that it is longer than what there is.
    #[error("the certificate at byte {0} is cut off")]
    CutOff(usize),
    /// More than are read.
    #[error("there are more than {0} certificates")]
    TooMany(usize),
}

/// The certificates in `bytes`, at most `most` of them. Looks only at each one's outermost tag and length.
pub(super) fn split(bytes: &[u8], most: usize) -> Result<Vec<CertificateDer<'static>>, SplitError> {
    let mut certificates = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = bytes.len().saturating_sub(rest.len());
        if certificates.len() >= most {
            return Err(SplitError::TooMany(most));
        }
        let length = element_length(rest).ok_or(SplitError::NotASequence(at))?;
        let (certificate, after) = rest.split_at_checked(length).ok_or(SplitError::CutOff(at))?;
        certificates.push(CertificateDer::from(certificate.to_vec()));
        rest = after;
    }
    Ok(certificates)
}

/// The length of the SEQUENCE at the start of `bytes`, its header included. Lengths of up to four bytes, shortest
/// form only (X.690 section 10.1).
fn element_length(bytes: &[u8]) -> Option<usize> {
    const SEQUENCE: u8 = 0x30;
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if tag != SEQUENCE {
        return None;
    }
    if first < 0x80 {
        return Some(usize::from(first).saturating_add(2));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        return None;
    }
    let digits = rest.get(..count)?;
    let length = digits
        .iter()
        .fold(0_usize, |length, &digit| (length << 8) | usize::from(digit));
    let shortest = if count == 1 {
        length >= 0x80
    } else {
        digits.first().is_some_and(|&digit| digit != 0)
    };
    if shortest {
        length.checked_add(count)?.checked_add(2)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_apart_what_is_whole() {
        let long = [&[0x30, 0x81, 0x80][..], &[7; 0x80]].concat();
        let longer = [&[0x30, 0x82, 0x01, 0x00][..], &[8; 0x100]].concat();
        let all = [&[0x30, 0x01, 0x05][..], &long, &longer, &[0x30, 0x00]].concat();
        let parts = split(&all, 4).unwrap();
        assert_eq!(
            parts.iter().map(|p| p.len()).collect::<Vec<_>>(),
            [3, 0x83, 0x104, 2]
        );
        assert_eq!(split(&all, 3), Err(SplitError::TooMany(3)));
        assert_eq!(split(&[], 0), Ok(Vec::new()));
    }

    #[test]
    fn refuses_what_is_not() {
        for (bytes, error) in [
            (&b"-----BEGIN"[..], SplitError::NotASequence(0)),
            (&[0x30, 0x00, 0x00], SplitError::NotASequence(2)),
            (&[0x30], SplitError::NotASequence(0)),
            (&[0x30, 0x80, 0x00, 0x00], SplitError::NotASequence(0)),
            (&[0x30, 0x81, 0x01, 0x00], SplitError::NotASequence(0)),
            (&[0x30, 0x82, 0x00, 0x80], SplitError::NotASequence(0)),
            (&[0x30, 0x85, 1, 1, 1, 1, 1], SplitError::NotASequence(0)),
            (&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], SplitError::CutOff(0)),
            (&[0x30, 0x00, 0x30, 0x02, 0x05], SplitError::CutOff(2)),
        ] {
            assert_eq!(split(bytes, 9), Err(error), "{bytes:x?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_apart_is_all_there_was(bytes: Vec<u8>) {
            if let Ok(parts) = split(&bytes, 1000) {
                proptest::prop_assert_eq!(parts.iter().flat_map(|p| p.to_vec()).collect::<Vec<_>>(), bytes);
            }
        }
    }
}
