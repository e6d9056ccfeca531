//! How a stream is compressed, found out from its first bytes.

use std::io::{self, BufRead, BufReader, Read};

use crate::Error;
use crate::reader::read_error;

/// The longest magic number.
const HEAD_BYTES: usize = 6;
const BUFFER_BYTES: usize = 128 << 10;
/// A zstd stream may ask for at most this window (2^27 bytes), so that it cannot ask for all memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// An xz stream may ask for at most so much, in KiB: the strongest preset needs 65 MiB.
const XZ_MEMORY_KIB_MAX: u32 = 160 << 10;

/// What a stream is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    /// Looks at the first bytes of a stream, and gives it back whole.
    pub fn peek<R: Read>(mut stream: R) -> Result<(Compression, impl Read + use<R>), Error> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        stream.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(read_error)?;
        Ok((detect(&head)?, io::Cursor::new(head).chain(stream)))
    }
}

/// Gives the plain bytes of a stream.
pub struct Decoder<R: Read> {
    inner: Inner<Source<R>>,
    compression: Compression,
}

/// The stream with the bytes that were looked at put back.
type Source<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>;

enum Inner<S: BufRead> {
    None(S),
    Gzip(Box<flate2::bufread::MultiGzDecoder<S>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<S>>),
    Xz(Box<lzma_rust2::XzReader<S>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, S>>),
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes. Formats that are known but not read are refused by name.
    pub fn new(mut stream: R) -> Result<Decoder<R>, Error> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        stream.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(read_error)?;
        let compression = detect(&head)?;
        let stream = BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(head).chain(stream));
        let inner = match compression {
            Compression::None => Inner::None(stream),
            Compression::Gzip => Inner::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(stream))),
            Compression::Bzip2 => Inner::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(stream))),
            Compression::Xz => {
                let reader = lzma_rust2::XzReader::new_mem_limit(stream, true, XZ_MEMORY_KIB_MAX);
                Inner::Xz(Box::new(reader))
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(stream).map_err(Error::Read)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(Error::Read)?;
                Inner::Zstd(Box::new(decoder))
            }
        };
        Ok(Decoder { inner, compression })
    }

    pub fn compression(&self) -> Compression {
        self.compression
    }
}

fn detect(head: &[u8]) -> Result<Compression, Error> {
    let known: [(&[u8], Result<Compression, &'static str>); 6] = [
        (b"\x1f\x8b\x08", Ok(Compression::Gzip)),
        (b"\x28\xb5\x2f\xfd", Ok(Compression::Zstd)),
        (b"BZh", Ok(Compression::Bzip2)),
        (b"\xfd7zXZ\0", Ok(Compression::Xz)),
        (b"\x5d\0\0\x80\0", Err("lzma")),
        (b"LZIP", Err("lzip")),
    ];
    for (magic, answer) in known {
        if head.starts_with(magic) {
            return answer.map_err(Error::Compression);
        }
    }
    // A skippable frame may come first in a zstd stream.
    if let [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] = head {
        return Ok(Compression::Zstd);
    }
    Ok(Compression::None)
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::None(stream) => stream.read(buffer),
            Inner::Gzip(stream) => stream.read(buffer),
            Inner::Bzip2(stream) => stream.read(buffer),
            Inner::Xz(stream) => stream.read(buffer).map_err(|error| match error.kind() {
                // It asks for more memory than it may have.
                io::ErrorKind::OutOfMemory | io::ErrorKind::Unsupported | io::ErrorKind::Other => {
                    io::Error::new(io::ErrorKind::InvalidData, error)
                }
                _ => error,
            }),
            // The binding reports damage as "other"; it is the data that is wrong.
            Inner::Zstd(stream) => stream.read(buffer).map_err(|error| match error.kind() {
                io::ErrorKind::Other => io::Error::new(io::ErrorKind::InvalidData, error),
                _ => error,
            }),
        }
    }
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}
