//! Finds the build id in the head of a 64-bit little-endian ELF file: all that svidecar is built for.
//!
//! Sources: System V ABI, "Object Files" (header, program headers, notes); elf(5).

/// Where the header tells of the program headers: their place, the size of one, their number.
const PHOFF: usize = 32;
const PHENTSIZE: usize = 54;
const PHNUM: usize = 56;
/// In a program header: the place of the segment in the file, and its size there.
const P_OFFSET: usize = 8;
const P_FILESZ: usize = 32;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
/// 64 bits, little-endian, version 1.
const IDENT: &[u8] = b"\x7fELF\x02\x01\x01";

/// The build id of the file that begins with `head`; `None` where it has none, or not in this part.
pub(super) fn build_id(head: &[u8]) -> Option<&[u8]> {
    if !head.starts_with(IDENT) {
        return None;
    }
    let table = offset(head, PHOFF)?;
    let size = usize::from(u16::from_le_bytes(bytes(head, PHENTSIZE)?));
    let count = usize::from(u16::from_le_bytes(bytes(head, PHNUM)?));
    (0..count).find_map(|n| {
        let header = head.get(table.checked_add(n.checked_mul(size)?)?..)?;
        if word(header, 0)? != PT_NOTE {
            return None;
        }
        let (at, length) = (offset(header, P_OFFSET)?, offset(header, P_FILESZ)?);
        in_notes(head.get(at..at.checked_add(length)?)?)
    })
}

fn in_notes(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let name_size = usize::try_from(word(notes, 0)?).ok()?;
        let size = usize::try_from(word(notes, 4)?).ok()?;
        let kind = word(notes, 8)?;
        let name = notes.get(12..12_usize.checked_add(name_size)?)?;
        let from = 12_usize.checked_add(name_size.checked_next_multiple_of(4)?)?;
        let description = notes.get(from..from.checked_add(size)?)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" && !description.is_empty() {
            return Some(description);
        }
        notes = notes.get(from.checked_add(size.checked_next_multiple_of(4)?)?..)?;
    }
}

fn bytes<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..)?.first_chunk().copied()
}

fn word(of: &[u8], at: usize) -> Option<u32> {
    bytes(of, at).map(u32::from_le_bytes)
}

fn offset(of: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes(of, at)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a program header of another kind, then one of the notes that follow.
    fn file(notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * 56];
        file[..IDENT.len()].copy_from_slice(IDENT);
        file[PHOFF] = 64;
        file[PHENTSIZE] = 56;
        file[PHNUM] = 2;
        file[64] = 1;
        let note = 64 + 56;
        file[note] = PT_NOTE as u8;
        file[note + P_OFFSET] = (64 + 2 * 56) as u8;
        file[note + P_FILESZ..note + P_FILESZ + 8].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        file.extend(notes);
        file
    }

    fn note(kind: u32, name: &[u8], description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len() as u32, description.len() as u32, kind] {
            note.extend(number.to_le_bytes());
        }
        for part in [name, description] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_id_is_found_behind_other_notes() {
        let mut notes = note(1, b"GNU\0", &[9; 16]);
        notes.extend(note(NT_GNU_BUILD_ID, b"other\0", &[8; 5]));
        notes.extend(note(NT_GNU_BUILD_ID, b"GNU\0", &[7; 20]));
        assert_eq!(build_id(&file(&notes)), Some(&[7; 20][..]));
    }

    #[test]
    fn a_file_that_is_none_or_has_none_gives_none() {
        let good = file(&note(NT_GNU_BUILD_ID, b"GNU\0", &[7; 20]));
        for cut in 0..good.len() {
            assert_eq!(build_id(&good[..cut]), None, "cut at {cut}");
        }
        assert_eq!(build_id(&file(&note(1, b"GNU\0", &[9; 16]))), None);
        assert_eq!(build_id(&file(&note(NT_GNU_BUILD_ID, b"GNU\0", &[]))), None);
        let mut other = good.clone();
        other[4] = 1;
        assert_eq!(build_id(&other), None, "32 bits");
        // Numbers that lead out of the file, or past the end of all numbers.
        for at in [PHOFF, 64 + 56 + P_OFFSET, 64 + 56 + P_FILESZ] {
            let mut wild = good.clone();
            wild[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            assert_eq!(build_id(&wild), None, "at {at}");
        }
    }
}
