//! The name in a certificate, as far into DER as it takes to find it. The signature was checked before.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
/// The version stands in a field of its own, if it is there.
const VERSION: u8 = 0xa0;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The first value: its tag, its contents, and what follows it.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

fn contents(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, contents, rest) = split(bytes)?;
    (tag == wanted).then_some((contents, rest))
}

/// The common name of a certificate's subject; of several the last, as Go has it.
pub fn common_name(der: &[u8]) -> Option<String> {
    let (certificate, _) = contents(der, SEQUENCE)?;
    let (mut fields, _) = contents(certificate, SEQUENCE)?;
    if let Some((_, rest)) = contents(fields, VERSION) {
        fields = rest;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        fields = split(fields)?.2;
    }
    let (mut names, _) = contents(fields, SEQUENCE)?;
    let mut found = None;
    while let Some((mut set, rest)) = contents(names, SET) {
        names = rest;
        while let Some((attribute, rest)) = contents(set, SEQUENCE) {
            set = rest;
            let (kind, value) = contents(attribute, OBJECT_ID)?;
            if kind == COMMON_NAME {
                found = text(value);
            }
        }
    }
    found
}

fn text(value: &[u8]) -> Option<String> {
    let (tag, contents, _) = split(value)?;
    match tag {
        BMP_STRING => {
            let units: Vec<u16> =
                contents.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16(&units).ok()
        }
        _ => String::from_utf8(contents.to_vec()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(tag: u8, contents: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match contents.len() {
            length @ 0..=0x7f => bytes.push(length as u8),
            length => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        bytes.extend_from_slice(contents);
        bytes
    }

    fn certificate(name: &str, version: bool) -> Vec<u8> {
        let attribute = |kind: &[u8], text: &str| {
            let pair = [value(OBJECT_ID, kind), value(0x0c, text.as_bytes())].concat();
            value(SET, &value(SEQUENCE, &pair))
        };
        let subject =
            [attribute(&[0x55, 0x04, 0x0a], "an organisation"), attribute(COMMON_NAME, name)].concat();
        let mut fields = if version { value(VERSION, &value(2, &[2])) } else { Vec::new() };
        fields.extend(value(2, &[1]));
        for _ in 0..3 {
            fields.extend(value(SEQUENCE, &[0; 200]));
        }
        fields.extend(value(SEQUENCE, &subject));
        value(SEQUENCE, &value(SEQUENCE, &fields))
    }

    #[test]
    fn the_subject_s_name_is_found() {
        assert_eq!(common_name(&certificate("alice", true)).as_deref(), Some("alice"));
        assert_eq!(common_name(&certificate("zoë", false)).as_deref(), Some("zoë"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..600, byte: u8) {
            let _ = common_name(&bytes);
            let mut broken = certificate("alice", true);
            let at = at % broken.len();
            broken[at] = byte;
            let _ = common_name(&broken);
            let _ = common_name(&broken[..at]);
        }
    }
}
