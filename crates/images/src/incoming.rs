//! Layers that come in from afar: unpacked while they come, in any order, and put on each other in theirs.
//!
//! 1. [`Layers::unpack_ahead`] unpacks a layer's stream into a stage, also if the layers below it are not there yet.
//! 2. The caller checks that the archive was what was asked for, and commits it to the content store.
//! 3. [`Layers::settle`] gives the stage its place, once its parent has one.
//!
//! Where layers are whole trees they cannot be unpacked ahead; they go through [`Layers::unpack_stored`] once their
//! parents are there.

use std::io::Read;

use archive::{Decoder, Unpacked};
use oci::{Algorithm, Digest};
use serde::{Deserialize, Serialize};
use snapshots::{Form, Stage};

use crate::layers::dress;
use crate::{Error, Layers, StoredImage};

/// Where a layer belongs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerPlace {
    /// Counted from the lowest.
    pub index: usize,
    pub diff_id: Digest,
    /// Chain ID of the layer below.
    pub parent: Option<Digest>,
    pub chain: Digest,
}

impl LayerPlace {
    /// The places of an image's layers, lowest first.
    pub fn all(diff_ids: &[Digest]) -> Vec<LayerPlace> {
        let chains = oci::chain_ids(diff_ids);
        let below = std::iter::once(None).chain(chains.iter().cloned().map(Some));
        let layers = diff_ids.iter().zip(&chains).zip(below).enumerate();
        layers
            .map(|(index, ((diff_id, chain), parent))| LayerPlace {
                index,
                diff_id: diff_id.clone(),
                parent,
                chain: chain.clone(),
            })
            .collect()
    }

    /// Refuses an archive that is not the one that belongs here.
    pub(crate) fn check(&self, found: Digest) -> Result<(), Error> {
        if found == self.diff_id {
            return Ok(());
        }
        Err(Error::DiffId { index: self.index, expected: self.diff_id.clone(), found })
    }
}

/// A layer that is unpacked and has no place yet. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Ahead {
    stage: Stage,
    unpacked: Unpacked,
}

impl Ahead {
    /// The stage, which looks as it does in its place, and the bytes of file content.
    pub(crate) fn dressed(self) -> Result<(Stage, u64), Error> {
        dress(&self.stage, &self.unpacked.implied)?;
        Ok((self.stage, self.unpacked.bytes))
    }
}

impl Layers<'_> {
    /// Whether the layer is unpacked and in its place.
    pub fn has(self, chain: &Digest) -> bool {
        self.0.snapshots.layer(chain).is_some()
    }

    /// Unpacks an archive while it comes, compressed or not, and checks its diff ID. `None` if it has to be unpacked onto
    /// the layers below and they are not there yet; then nothing has been read.
    pub fn unpack_ahead(self, stream: impl Read + Send, place: &LayerPlace) -> Result<Option<Ahead>, Error> {
        let parent = place.parent.as_ref().filter(|parent| self.has(parent));
        if parent.is_none() && place.parent.is_some() && self.0.snapshots.form() == Form::Whole {
            return Ok(None);
        }
        let decoder = Decoder::new(stream)?;
        let (found, ahead) = self.unpack_onto(parent, decoder, place.diff_id.algorithm(), &mut || {})?;
        place.check(found)?;
        Ok(Some(ahead))
    }

    /// Unpacks an archive of which nobody knows yet where it belongs, and gives its diff ID.
    pub(crate) fn unpack_unplaced(
        self,
        stream: impl Read + Send,
        algorithm: Algorithm,
    ) -> Result<(Digest, Ahead), Error> {
        self.unpack_onto(None, Decoder::new(stream)?, algorithm, &mut || {})
    }

    /// Unpacks a plain archive, and gives its digest.
    pub(crate) fn unpack_onto(
        self,
        parent: Option<&Digest>,
        plain: impl Read + Send,
        algorithm: Algorithm,
        on_piece: &mut dyn FnMut(),
    ) -> Result<(Digest, Ahead), Error> {
        let stage = self.0.snapshots.stage(parent)?;
        let (unpacked, digest) = self.unpack_into(&stage, plain, algorithm, on_piece)?;
        Ok((digest, Ahead { stage, unpacked }))
    }

    /// Gives a layer its place, unpacked from the archive `blob`. Its parent must have one.
    pub fn settle(self, mut ahead: Ahead, place: &LayerPlace, blob: &Digest) -> Result<(), Error> {
        if let Some(parent) = &place.parent {
            ahead.stage = self.0.snapshots.reparent(ahead.stage, parent)?;
        }
        let (stage, bytes) = ahead.dressed()?;
        self.0.settling().name_layer(place, blob, || self.0.snapshots.commit(stage, &place.chain, bytes))
    }

    /// Sees to it that the layers of an image are unpacked. They are, unless another storage driver did it, or files were
    /// lost; then they are unpacked again from their archives.
    pub fn unpack_missing(self, image: &StoredImage) -> Result<(), Error> {
        let Some(top) = image.chain().filter(|top| !self.has(top)) else { return Ok(()) };
        let mut pins = self.0.pins();
        image.chains.iter().for_each(|chain| pins.chain(chain));
        if self.0.get(&image.id).is_none() {
            return Err(Error::NoSuchImage(image.id.to_string()));
        }
        let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let places = LayerPlace::all(&diff_ids).into_iter().zip(&image.layers);
        for (place, layer) in places.filter(|(place, _)| !self.has(&place.chain)) {
            self.unpack_stored(&layer.blob.digest, &place, &mut |_, _| {})?;
        }
        debug_assert!(self.has(top));
        Ok(())
    }

    /// Unpacks an archive of the content store onto its parent, which must be there. The layer's chain must be pinned.
    /// `on_read` hears how far it has been read, and of how much.
    pub fn unpack_stored(
        self,
        blob: &Digest,
        place: &LayerPlace,
        on_read: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Error> {
        self.unpack_one(blob, place, on_read).map(drop)
    }
}
