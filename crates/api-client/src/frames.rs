//! The framing of attach and log streams without a terminal: a byte for the stream, three zero bytes, the length as a
//! big-endian 32-bit number, and that many bytes.

use bytes::{Buf, Bytes, BytesMut};

use crate::Error;

/// Which stream a piece of output belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    Stdin,
    Stdout,
    Stderr,
    /// The daemon's own message: something went wrong with the stream.
    System,
}

/// Takes bytes as they come and gives back pieces of output, without holding a frame until it is complete.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
    /// The frame being read, and how much of it is left.
    current: Option<(StreamKind, usize)>,
}

impl FrameReader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece, if there is one.
    pub fn piece(&mut self) -> Result<Option<(StreamKind, Bytes)>, Error> {
        loop {
            let (kind, left) = match self.current {
                Some(current) => current,
                None if self.buffer.len() < 8 => return Ok(None),
                None => self.header()?,
            };
            if left == 0 {
                self.current = None;
                continue;
            }
            if self.buffer.is_empty() {
                self.current = Some((kind, left));
                return Ok(None);
            }
            let take = left.min(self.buffer.len());
            let piece = self.buffer.split_to(take).freeze();
            self.current = (left > take).then_some((kind, left - take));
            return Ok(Some((kind, piece)));
        }
    }

    fn header(&mut self) -> Result<(StreamKind, usize), Error> {
        let kind = match self.buffer[0] {
            0 => StreamKind::Stdin,
            1 => StreamKind::Stdout,
            2 => StreamKind::Stderr,
            3 => StreamKind::System,
            other => return Err(Error::Http(format!("Unrecognized input header: {other}"))),
        };
        self.buffer.advance(4);
        let length = self.buffer.get_u32() as usize;
        Ok((kind, length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend((text.len() as u32).to_be_bytes());
        bytes.extend(text);
        bytes
    }

    #[test]
    fn unknown_streams_are_refused() {
        let mut reader = FrameReader::default();
        reader.push(&frame(9, b"x"));
        assert!(reader.piece().is_err());
    }

    proptest! {
        #[test]
        fn output_does_not_depend_on_how_bytes_arrive(
            frames in proptest::collection::vec((1u8..3, proptest::collection::vec(any::<u8>(), 0..50)), 0..8),
            cuts in proptest::collection::vec(1usize..20, 1..10),
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|(kind, text)| frame(*kind, text)).collect();
            let mut reader = FrameReader::default();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let (mut at, mut round) = (0, 0);
            while at < wire.len() {
                let end = (at + cuts[round % cuts.len()]).min(wire.len());
                reader.push(&wire[at..end]);
                at = end;
                round += 1;
                while let Some((kind, piece)) = reader.piece().expect("valid") {
                    if kind == StreamKind::Stdout { out.extend(piece) } else { err.extend(piece) }
                }
            }
            let wanted = |wanted: u8| -> Vec<u8> {
                frames.iter().filter(|(kind, _)| *kind == wanted).flat_map(|(_, text)| text.clone()).collect()
            };
            prop_assert_eq!(out, wanted(1));
            prop_assert_eq!(err, wanted(2));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = FrameReader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.piece() {}
        }
    }
}
