//! One layer from its archive into the snapshots, checked against its diff ID.

use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use archive::{Compression, Decoder, Implied, Root, UnpackOptions, Unpacked, Whiteouts};
use oci::{Algorithm, Digest, media_type};
use snapshots::{Form, Stage};

use crate::pipeline::{self, Counting, Received};
use crate::{Error, Images, LayerPlace};

/// Bytes of the archive read and in all.
pub type OnRead<'a> = &'a mut dyn FnMut(u64, u64);

/// Share of the free disk that one layer may take.
const FREE_SHARE: (u64, u64) = (19, 20);

/// The OCI media type of a layer's archive.
pub fn layer_media_type(compression: Compression) -> &'static str {
    match compression {
        // There is no name for the others; what they hold is told by their first bytes.
        Compression::None | Compression::Bzip2 | Compression::Xz => media_type::OCI_LAYER,
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
    }
}

/// The layers.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a>(pub(crate) &'a Images);

impl Layers<'_> {
    /// Sees to it that the layer of the archive `blob` is in its place, and that the archive is what its diff ID says. The
    /// layer's chain must be pinned, and its parent there. Returns the bytes of its file content.
    pub(crate) fn unpack_one(
        self,
        blob: &Digest,
        place: &LayerPlace,
        on_read: OnRead<'_>,
    ) -> Result<u64, Error> {
        let Some(present) = self.0.snapshots.layer(&place.chain) else {
            let (stage, bytes) = self.unpack_tree(blob, place, on_read)?;
            self.0
                .settling()
                .name_layer(place, blob, || self.0.snapshots.commit(stage, &place.chain, bytes))?;
            return Ok(bytes);
        };
        let size = self.0.content.size(blob)?;
        let read = AtomicU64::new(0);
        let file = self.0.content.open_blob(blob)?;
        let decoder = Decoder::new(Counting { inner: file, read: &read })?;
        // An archive that is not compressed was checked when it came: its digest is its diff ID.
        if decoder.compression() == Compression::None && *blob == place.diff_id {
            return Ok(present.bytes);
        }
        let mut on_piece = || on_read(read.load(Ordering::Relaxed), size);
        // Somebody else's archive brought the layer; this one must be honest all the same.
        let bytes_max = self.unpack_bytes_max()?;
        let algorithm = place.diff_id.algorithm();
        let (_, found) =
            pipeline::run(decoder, algorithm, &mut on_piece, |stream| discard(stream, bytes_max))?;
        place.check(found)?;
        Ok(present.bytes)
    }

    /// Unpacks an archive of the content store onto its parent, checks it, and gives it no place yet.
    pub(crate) fn unpack_tree(
        self,
        blob: &Digest,
        place: &LayerPlace,
        on_read: OnRead<'_>,
    ) -> Result<(Stage, u64), Error> {
        let size = self.0.content.size(blob)?;
        let read = AtomicU64::new(0);
        let file = self.0.content.open_blob(blob)?;
        let decoder = Decoder::new(Counting { inner: file, read: &read })?;
        let mut on_piece = || on_read(read.load(Ordering::Relaxed), size);
        let algorithm = place.diff_id.algorithm();
        let (stage, found, bytes) =
            self.unpack_stream(decoder, algorithm, place.parent.as_ref(), &mut on_piece)?;
        place.check(found)?;
        Ok((stage, bytes))
    }

    /// Unpacks a plain archive into a new stage. Gives the stage, the digest of the whole stream, and the bytes of file
    /// content.
    pub(crate) fn unpack_stream(
        self,
        stream: impl Read + Send,
        algorithm: Algorithm,
        parent: Option<&Digest>,
        on_piece: &mut dyn FnMut(),
    ) -> Result<(Stage, Digest, u64), Error> {
        let (digest, ahead) = self.unpack_onto(parent, stream, algorithm, on_piece)?;
        let (stage, bytes) = ahead.dressed()?;
        Ok((stage, digest, bytes))
    }

    /// Unpacks a plain archive into a stage, whose directories are still to be dressed.
    pub(crate) fn unpack_into(
        self,
        stage: &Stage,
        stream: impl Read + Send,
        algorithm: Algorithm,
        on_piece: &mut dyn FnMut(),
    ) -> Result<(Unpacked, Digest), Error> {
        let root = open(&stage.directory())?;
        let bytes_max = self.unpack_bytes_max()?;
        let options = UnpackOptions {
            whiteouts: match stage.form() {
                Form::Difference => Whiteouts::Overlay,
                Form::Whole => Whiteouts::Remove,
            },
            limits: archive::Limits { bytes: bytes_max, entries: self.0.limits.entries },
            ..UnpackOptions::default()
        };
        pipeline::run(stream, algorithm, on_piece, |stream| {
            archive::unpack_buffered(stream, &root, &options)
                .map_err(|error| self.too_large(error.into(), bytes_max))
        })
    }

    /// The set bound, or most of what the disk has left if that is less: a layer that fills the disk of every container
    /// harms more than the one who loads it.
    pub(crate) fn unpack_bytes_max(self) -> Result<u64, Error> {
        Ok(self.0.limits.bytes.min(self.free_bytes()? / FREE_SHARE.1 * FREE_SHARE.0))
    }

    /// What it means that an archive has more than these bytes: is it the archive that is too large, or the disk too full?
    pub(crate) fn too_large(self, error: Error, bytes_max: u64) -> Error {
        match error {
            Error::Archive(archive::Error::Limit { what: "bytes", max })
                if max == bytes_max && bytes_max < self.0.limits.bytes =>
            {
                Error::NoRoom { bytes: bytes_max }
            }
            other => other,
        }
    }

    /// Bytes that the disk of images has left.
    pub fn free_bytes(self) -> Result<u64, Error> {
        rustix::fs::statvfs(self.0.content.root())
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|errno| Error::Io { operation: "measure the free disk", source: errno.into() })
    }
}

fn open(path: &Path) -> Result<Root, Error> {
    Root::open_path(path).map_err(|source| Error::Io { operation: "open a layer", source })
}

/// Makes the directories that an archive did not carry look as they do in the layers below its stage.
pub(crate) fn dress(stage: &Stage, implied: &Implied) -> Result<(), Error> {
    let lowers = stage.lowers().iter().map(|lower| open(lower)).collect::<Result<Vec<Root>, Error>>()?;
    Ok(implied.look_like(&open(&stage.directory())?, &lowers)?)
}

/// Reads to the end of a stream that may have so many bytes.
fn discard(stream: &mut Received<'_>, bytes_max: u64) -> Result<(), Error> {
    let mut bounded = stream.take(bytes_max.saturating_add(1));
    let read = io::copy(&mut bounded, &mut io::sink()).map_err(unwrap)?;
    if read > bytes_max {
        return Err(archive::Error::Limit { what: "bytes", max: bytes_max }.into());
    }
    Ok(())
}

/// What `archive` put into an I/O error.
pub fn unwrap(error: io::Error) -> Error {
    match error.downcast::<archive::Error>() {
        Ok(error) => error.into(),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => archive::Error::Truncated.into(),
        Err(error) => archive::Error::Read(error).into(),
    }
}
