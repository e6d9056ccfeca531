//! Images made here: imported from a plain archive, or from a container's changes.

use std::io::{self, Read, Write};
use std::sync::Arc;

use archive::{Changed, Compression, Decoder, PackOptions, Root};
use oci::{Algorithm, Config, Digest, History, Image, Platform, Reference, RootFs, Timestamp};
use snapshots::{Change, ChangeKind, Difference};

use crate::layers::layer_media_type;
use crate::pins::Pins;
use crate::register::{LayerBlob, Registered, Registration};
use crate::state::StoredImage;
use crate::{Error, Images, LayerPlace};

/// An archive without members has nothing but its end.
const EMPTY_ARCHIVE_BYTES: u64 = 1024;

/// A flat archive that becomes an image of one layer.
#[derive(Debug)]
pub struct Import {
    pub reference: Option<Reference>,
    pub config: Config,
    /// Comment of the image's history.
    pub message: String,
    pub platform: Platform,
    pub now: Timestamp,
}

/// An image on top of another one.
#[derive(Debug)]
pub struct NewImage {
    /// `None` starts from scratch.
    pub parent: Option<Arc<StoredImage>>,
    /// The layer to add, or none if only the configuration changes.
    pub layer: Option<NewLayer>,
    pub config: Config,
    pub author: String,
    pub comment: String,
    /// The step's command, as the history shows it.
    pub created_by: String,
    pub platform: Platform,
    pub references: Vec<Reference>,
    /// The container that it is made of, if any.
    pub container: Option<Committed>,
    pub now: Timestamp,
}

/// What an image says of the container that it was committed from.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    pub id: String,
    /// Its configuration, in the shape of the API.
    pub config: serde_json::Value,
}

/// A layer's archive in the content store, and what it is when it is not compressed.
#[derive(Debug, Clone)]
pub struct NewLayer {
    pub blob: LayerBlob,
    pub diff_id: Digest,
    /// Bytes of file content.
    pub bytes: u64,
}

/// Writes down what is read.
struct Keep<'a, 'b, R> {
    stream: R,
    writer: &'a mut content::Writer<'b>,
}

impl<R: Read> Read for Keep<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.writer.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// Paths of changes have a slash in front, those of archives have not.
fn changed(change: Change) -> Changed {
    let removed = change.kind == ChangeKind::Deleted;
    Changed { path: change.path.get(1..).unwrap_or_default().to_vec(), removed }
}

/// Makes images here.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a>(pub(crate) &'a Images);

impl Maker<'_> {
    /// Makes an image of a root filesystem's archive, compressed or not.
    pub fn import(self, stream: impl Read + Send, import: Import) -> Result<Registered, Error> {
        let mut pins = self.0.pins();
        let layer = self.import_layer(stream, &mut pins)?;
        let created = Some(import.now.to_string());
        let history = History { created: created.clone(), comment: import.message, ..History::default() };
        let config = Image {
            created,
            architecture: import.platform.architecture,
            variant: import.platform.variant,
            os: import.platform.os,
            config: import.config,
            rootfs: RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() },
            history: vec![history],
            ..Image::default()
        };
        let config = serde_json::to_vec(&config).map_err(Error::Encode)?;
        let registration = Registration {
            config: &config,
            manifest: None,
            layers: vec![layer.blob],
            parent: None,
            now: import.now,
        };
        let references = import.reference.into_iter().map(Reference::or_latest).collect();
        self.0.registrar().register(&mut pins, registration, references, &mut |_, _, _| {})
    }

    /// Keeps an archive as it comes (or plain, if layers have no name for its compression), and unpacks it on the way as
    /// a layer on nothing.
    fn import_layer(self, stream: impl Read + Send, pins: &mut Pins<'_>) -> Result<NewLayer, Error> {
        let mut writer = self.0.content.writer()?;
        let (compression, stream) = Compression::peek(stream)?;
        let media_type = layer_media_type(compression).to_owned();
        let (stage, diff_id, bytes) = match compression {
            Compression::Bzip2 | Compression::Xz => {
                let plain = Keep { stream: Decoder::new(stream)?, writer: &mut writer };
                self.0.layers().unpack_stream(plain, Algorithm::Sha256, None, &mut || {})?
            }
            Compression::None | Compression::Gzip | Compression::Zstd => {
                let decoder = Decoder::new(Keep { stream, writer: &mut writer })?;
                self.0.layers().unpack_stream(decoder, Algorithm::Sha256, None, &mut || {})?
            }
        };
        let ingested = writer.finish()?;
        pins.blob(&ingested.blob().digest);
        let blob = ingested.commit()?;
        // The chain of a lowest layer is its diff ID.
        pins.chain(&diff_id);
        let place = LayerPlace { index: 0, diff_id: diff_id.clone(), parent: None, chain: diff_id.clone() };
        self.0
            .settling()
            .name_layer(&place, &blob.digest, || self.0.snapshots.commit(stage, &diff_id, bytes))?;
        let verified = Some(diff_id.clone());
        let blob = LayerBlob { digest: blob.digest, size: blob.size, media_type, verified };
        Ok(NewLayer { blob, diff_id, bytes })
    }

    /// Writes the changes of a container's read-write layer as a layer's archive into the content store. The layer may
    /// be in use; then the archive has each file as it was at some moment.
    pub fn pack_container(self, container: &str, pins: &mut Pins<'_>) -> Result<NewLayer, Error> {
        self.pack_difference(container, &[], pins)
    }

    fn pack_difference(
        self,
        container: &str,
        leave_out: &[Vec<u8>],
        pins: &mut Pins<'_>,
    ) -> Result<NewLayer, Error> {
        let leave_out = leave_out.iter().cloned().collect();
        let options = PackOptions { leave_out, ..PackOptions::default() };
        let mut writer = self.0.content.writer()?;
        let mut buffered = io::BufWriter::with_capacity(256 << 10, &mut writer);
        let (_, bytes) = match self.0.snapshots.difference(container)? {
            Difference::Upper(upper) => {
                let root = Root::open_path(&upper)
                    .map_err(|source| Error::Io { operation: "open a layer", source })?;
                let options = PackOptions { overlay_upper: true, ..options };
                archive::pack(&root, &options, &mut buffered)?
            }
            Difference::Paths { root, changes } => {
                let changes: Vec<Changed> = changes.into_iter().map(changed).collect();
                archive::pack_changes(&Root::from_descriptor(root), &changes, &options, &mut buffered)?
            }
        };
        drop(buffered);
        let ingested = writer.finish()?;
        let digest = ingested.blob().digest.clone();
        pins.blob(&digest);
        let blob = ingested.commit()?;
        let media_type = layer_media_type(Compression::None).to_owned();
        let verified = Some(digest.clone());
        let blob = LayerBlob { digest: blob.digest, size: blob.size, media_type, verified };
        Ok(NewLayer { diff_id: digest, blob, bytes })
    }

    /// Makes a layer of a container's read-write layer without copying it: packs it, and then turns the directory itself
    /// into the layer on the image that the container ran on. The read-write layer must not be mounted; it is gone
    /// afterwards.
    pub fn adopt_container(
        self,
        container: &str,
        parent: Option<&StoredImage>,
        pins: &mut Pins<'_>,
    ) -> Result<NewLayer, Error> {
        let layer = self.pack_container(container, pins)?;
        let mut diff_ids: Vec<Digest> = parent
            .map(|parent| parent.layers.iter().map(|layer| layer.diff_id.clone()).collect())
            .unwrap_or_default();
        diff_ids.push(layer.diff_id.clone());
        let places = LayerPlace::all(&diff_ids);
        for place in &places {
            pins.chain(&place.chain);
        }
        if let Some(place) = places.last() {
            let adopt = || self.0.snapshots.adopt(container, &place.chain, layer.bytes);
            drop(self.0.settling().name_layer(place, &layer.blob.digest, adopt)?);
        }
        Ok(layer)
    }

    /// Makes an image of a container as it is now. `new.layer` is made here, without the paths of `leave_out`; a container
    /// that changed nothing adds none.
    pub fn commit(self, container: &str, leave_out: &[Vec<u8>], new: NewImage) -> Result<Registered, Error> {
        let mut pins = self.0.pins();
        let layer = self.pack_difference(container, leave_out, &mut pins)?;
        let layer = Some(layer).filter(|layer| layer.blob.size > EMPTY_ARCHIVE_BYTES);
        self.create(NewImage { layer, ..new }, &mut pins)
    }

    /// Makes an image on top of another: the parent's layers and history with one step more. The layer's blob must be
    /// pinned in `pins`; if its snapshot is there already (see [`Maker::adopt_container`]), nothing is unpacked.
    pub fn create(self, new: NewImage, pins: &mut Pins<'_>) -> Result<Registered, Error> {
        let created = Some(new.now.to_string());
        let parent = new.parent.as_ref().map(|parent| &*parent.config);
        let mut history: Vec<History> = parent.map(|parent| parent.history.clone()).unwrap_or_default();
        // A parent that does not tell how its layers came would shift every later step onto the wrong layer.
        let told = history.iter().filter(|step| !step.empty_layer).count();
        let untold = new.parent.as_ref().map_or(0, |parent| parent.layers.len()).saturating_sub(told);
        let unknown =
            History { created: parent.and_then(|parent| parent.created.clone()), ..History::default() };
        history.extend(std::iter::repeat_n(unknown, untold));
        history.push(History {
            created: created.clone(),
            author: new.author.clone(),
            created_by: new.created_by,
            comment: new.comment.clone(),
            empty_layer: new.layer.is_none(),
        });
        let mut layers: Vec<LayerBlob> = Vec::new();
        let mut diff_ids: Vec<Digest> = Vec::new();
        for layer in new.parent.iter().flat_map(|parent| &parent.layers) {
            diff_ids.push(layer.diff_id.clone());
            layers.push(LayerBlob {
                digest: layer.blob.digest.clone(),
                size: layer.blob.size,
                media_type: layer.blob.media_type.clone(),
                verified: Some(layer.diff_id.clone()),
            });
        }
        if let Some(layer) = new.layer {
            diff_ids.push(layer.diff_id);
            layers.push(layer.blob);
        }
        let (container, container_config) = match new.container {
            Some(container) => (container.id, Some(container.config)),
            None => (String::new(), None),
        };
        let config = Image {
            created,
            author: new.author,
            architecture: new.platform.architecture,
            variant: new.platform.variant,
            os: new.platform.os,
            config: new.config,
            rootfs: RootFs { diff_ids, ..RootFs::default() },
            history,
            comment: new.comment,
            container,
            container_config,
            ..Image::default()
        };
        let config = serde_json::to_vec(&config).map_err(Error::Encode)?;
        let registration = Registration {
            config: &config,
            manifest: None,
            layers,
            parent: new.parent.map(|parent| parent.id.clone()),
            now: new.now,
        };
        let references = new.references.into_iter().map(Reference::or_latest).collect();
        self.0.registrar().register(pins, registration, references, &mut |_, _, _| {})
    }
}
