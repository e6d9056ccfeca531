//! The 512 bytes of a tar header: reading and writing its fields.

/// In the extended header of a member whose content goes as a descriptor: its size.
pub const APART: &[u8] = b"CORTEN.apart";

pub const BLOCK: usize = 512;
pub type Block = [u8; BLOCK];

pub const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
pub const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const MAJOR: std::ops::Range<usize> = 329..337;
const MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;

/// Fields of one header block, as they stand there.
#[derive(Debug)]
pub struct Raw {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u64,
    pub uid: i64,
    pub gid: i64,
    pub size: u64,
    pub mtime: i64,
    pub kind: u8,
    pub major: i64,
    pub minor: i64,
}

/// Reads a block whose checksum is right; the message says what is not.
pub fn parse(block: &Block) -> Result<Raw, &'static str> {
    if !checksum_valid(block) {
        return Err("wrong checksum");
    }
    let mut name = text(&block[NAME]).to_vec();
    let magic = &block[MAGIC];
    let ustar = magic == b"ustar\x0000" || magic.starts_with(b"ustar\0");
    let gnu = magic == b"ustar  \0";
    // The old format has no magic, and nothing behind the link name that could be trusted.
    let extended = ustar || gnu;
    if ustar {
        let prefix = text(&block[PREFIX]);
        if !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
    }
    let unsigned = |range: std::ops::Range<usize>, what| number(&block[range]).ok_or(what);
    let size = u64::try_from(unsigned(SIZE, "size is no number")?).map_err(|_| "negative size")?;
    Ok(Raw {
        name,
        link: text(&block[LINK]).to_vec(),
        mode: u64::try_from(unsigned(MODE, "mode is no number")?).map_err(|_| "negative mode")?,
        uid: unsigned(UID, "user ID is no number")?,
        gid: unsigned(GID, "group ID is no number")?,
        size,
        mtime: unsigned(MTIME, "time is no number")?,
        kind: block[TYPE],
        major: if extended { unsigned(MAJOR, "device number is no number")? } else { 0 },
        minor: if extended { unsigned(MINOR, "device number is no number")? } else { 0 },
    })
}

/// Up to the first zero byte.
pub fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits between blanks and zero bytes, or GNU's big-endian two's complement marked by the highest bit.
pub fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (index, &byte) in field.iter().enumerate() {
            let byte = match index {
                0 if negative => byte | 0x80,
                0 => byte & 0x7f,
                _ => byte,
            };
            // What is shifted out must be nothing but copies of the sign.
            if value >> 55 != if negative { -1 } else { 0 } {
                return None;
            }
            value = (value << 8) | i64::from(byte);
        }
        return Some(value);
    }
    let digits: &[u8] = {
        let blank = |b: &u8| matches!(b, b' ' | 0);
        let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
        let rest = &field[start..];
        let end = rest.iter().position(blank).unwrap_or(rest.len());
        if !rest[end..].iter().all(blank) && rest.get(end) != Some(&0) {
            return None;
        }
        &rest[..end]
    };
    digits.iter().try_fold(0i64, |sum, &digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn checksum_valid(block: &Block) -> bool {
    let Some(expected) = number(&block[CHECKSUM]) else { return false };
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (index, &byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&index) { b' ' } else { byte };
        unsigned += i64::from(byte);
        // Some old programs summed signed characters.
        signed += i64::from(byte.cast_signed());
    }
    expected == unsigned || expected == signed
}

/// What a header block is to say; numbers that do not fit must have gone into PAX records before.
#[derive(Debug)]
pub struct Fields<'a> {
    pub name: &'a [u8],
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub mtime: u64,
    pub kind: u8,
    pub major: u32,
    pub minor: u32,
}

/// Largest value that a numeric field of `width` bytes holds in octal.
pub const fn octal_max(width: u32) -> u64 {
    (1u64 << (3 * (width - 1))) - 1
}

/// A ustar block. Names longer than their field are cut, numbers beyond theirs written as 0: the PAX records before
/// this block say the truth.
pub fn format(fields: &Fields<'_>) -> Block {
    let mut block = [0u8; BLOCK];
    let copy = |block: &mut Block, range: std::ops::Range<usize>, bytes: &[u8]| {
        let count = bytes.len().min(range.len());
        block[range.start..range.start + count].copy_from_slice(&bytes[..count]);
    };
    copy(&mut block, NAME, fields.name);
    copy(&mut block, LINK, fields.link);
    let octal = |block: &mut Block, range: std::ops::Range<usize>, value: u64| {
        let width = range.len() - 1;
        let value = if value > octal_max(range.len() as u32) { 0 } else { value };
        copy(block, range, format!("{value:0width$o}\0").as_bytes());
    };
    octal(&mut block, MODE, u64::from(fields.mode));
    octal(&mut block, UID, fields.uid);
    octal(&mut block, GID, fields.gid);
    octal(&mut block, SIZE, fields.size);
    octal(&mut block, MTIME, fields.mtime);
    octal(&mut block, MAJOR, u64::from(fields.major));
    octal(&mut block, MINOR, u64::from(fields.minor));
    block[TYPE] = fields.kind;
    copy(&mut block, MAGIC, b"ustar\x0000");
    block[CHECKSUM].fill(b' ');
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    copy(&mut block, CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777"), Some(0o77777777));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"-1\0"), None);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(b"\x80\x01\0\0\0\0\0\0\0\0\0\0"), None);
        assert_eq!(number(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), None);
    }

    proptest! {
        #[test]
        fn formatted_headers_parse(name in "[a-z/]{1,100}", mode in 0u32..0o10000, size in 0u64..0o77777777777, mtime in 0u64..0o77777777777) {
            let block = format(&Fields { name: name.as_bytes(), link: b"", mode, uid: 0, gid: 7, size, mtime, kind: b'0', major: 0, minor: 0 });
            let raw = parse(&block).unwrap();
            prop_assert_eq!(raw.name, name.as_bytes());
            prop_assert_eq!((raw.mode, raw.size, raw.mtime, raw.gid), (u64::from(mode), size, mtime as i64, 7));
        }

        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), BLOCK)) {
            let block: Block = bytes.try_into().unwrap();
            let _ = parse(&block);
            let _ = number(&block[SIZE]);
        }
    }
}
