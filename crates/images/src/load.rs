//! Images out of an archive: `docker save`'s, old and new, and OCI image layouts.
//!
//! 1. The archive is undone of its compression and its files are spooled to disk ([`Spool`]): what a file means may
//!    only be told by the last one.
//! 2. `index.json` and `manifest.json` say what there is ([`Plan`]).
//! 3. The layers go into the content store, are unpacked and checked. Most have been unpacked while the rest was read
//!    ([`Early`]).
//! 4. One commit makes all of it exist. An archive that fails before leaves the store as it was.

use std::io::Read;
use std::sync::Arc;

use archive::Compression;
use oci::{Descriptor, Digest, Image, Platform, Reference, Timestamp};

use crate::early::Early;
use crate::register::{Arrival, LayerBlob, OriginalManifest, Registration};
use crate::spool::{ArchiveFile, Spool};
use crate::state::{StoredImage, Target};
use crate::{Error, Images, LAYERS_MAX, LayerPlace, Pins, docker_archive, failpoint, oci_archive};

/// What to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Only the images for these platforms; none means all.
    pub platforms: Vec<Platform>,
    pub now: Timestamp,
}

/// Where an archive comes from.
#[derive(Debug)]
pub enum Input<'a, R> {
    Stream(R),
    /// Members of a file are read where they lie, several at once.
    File(ArchiveFile<'a>),
}

/// How far a layer's archive has been read.
#[derive(Debug, Clone, Copy)]
pub struct LoadProgress<'a> {
    pub diff_id: &'a Digest,
    /// Bytes of the archive.
    pub current: u64,
    pub total: u64,
}

/// What was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub target: Target,
    /// What stands for it.
    pub image: Arc<StoredImage>,
    /// Names it got. For each, Docker says `Loaded image: name:tag`, and without any `Loaded image ID: sha256:…`.
    pub references: Vec<Reference>,
    /// Names that other images lost to it, with those images.
    pub replaced: Vec<(Reference, Digest)>,
}

/// What names in an archive stand for.
#[derive(Debug)]
pub struct Plan {
    pub images: Vec<ImagePlan>,
    /// The index that they belong to.
    pub index: Option<IndexPlan>,
    pub references: Vec<Reference>,
    pub parent: Option<Digest>,
}

/// An image as an archive describes it.
#[derive(Debug)]
pub struct ImagePlan {
    pub id: Digest,
    pub config: Vec<u8>,
    pub manifest: Option<OriginalManifest>,
    /// Paths in the archive, lowest layer first.
    pub layers: Vec<String>,
}

/// An index as an archive has it.
#[derive(Debug)]
pub struct IndexPlan {
    pub descriptor: Descriptor,
    /// Paths in the archive of all that belongs to it and to none of its images.
    pub blobs: Vec<String>,
}

impl Plan {
    pub fn is_of_the_same(&self, other: &Plan) -> bool {
        match (&self.index, &other.index) {
            (Some(own), Some(other)) => own.descriptor.digest == other.descriptor.digest,
            (None, None) => {
                self.images.iter().map(|image| &image.id).eq(other.images.iter().map(|image| &image.id))
            }
            _ => false,
        }
    }

    pub fn add_reference(&mut self, reference: Reference) {
        if !self.references.contains(&reference) {
            self.references.push(reference);
        }
    }

    /// Refuses what could not run here.
    fn check(&self) -> Result<(), Error> {
        let invalid = |source| Error::Document { what: "the image configuration".into(), source };
        for image in &self.images {
            let config: Image = oci::image::read(&image.config).map_err(invalid)?;
            if !config.os.is_empty() && config.os != "linux" {
                return Err(Error::OperatingSystem(config.os));
            }
            let expected = config.rootfs.diff_ids.len();
            if image.layers.len() > LAYERS_MAX {
                return Err(Error::TooManyLayers { found: image.layers.len(), max: LAYERS_MAX });
            }
            if expected != image.layers.len() {
                return Err(Error::LayerCount { expected, found: image.layers.len() });
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        match (self.references.first(), self.images.first()) {
            (Some(reference), _) => reference.familiar(),
            (None, Some(image)) => image.id.to_string(),
            (None, None) => String::new(),
        }
    }
}

/// Leaves only the images for these platforms. Each of them must be there.
fn choose(plans: &mut Vec<Plan>, platforms: &[Platform]) -> Result<(), Error> {
    if platforms.is_empty() {
        return Ok(());
    }
    let name = plans.first().map(Plan::name).unwrap_or_default();
    let mut missing: Vec<&Platform> = platforms.iter().collect();
    for plan in &mut *plans {
        let mut chosen = Vec::new();
        for image in std::mem::take(&mut plan.images) {
            let found = image.platform()?;
            missing.retain(|wanted| !found.serves(wanted));
            if platforms.iter().any(|wanted| found.serves(wanted)) {
                chosen.push(image);
            }
        }
        plan.images = chosen;
    }
    if let Some(missing) = missing.first() {
        return Err(Error::Platform { reference: name, platform: missing.to_string() });
    }
    plans.retain(|plan| !plan.images.is_empty());
    Ok(())
}

/// Images into archives and out of them.
#[derive(Debug, Clone, Copy)]
pub struct Archives<'a>(pub(crate) &'a Images);

impl Archives<'_> {
    /// Loads every image of an archive, or none.
    pub fn load(
        self,
        input: Input<'_, impl Read>,
        options: &LoadOptions,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Vec<Loaded>, Error> {
        Early::run(self.0, |early| self.load_all(input, options, early, on_progress))
    }

    fn load_all(
        self,
        input: Input<'_, impl Read>,
        options: &LoadOptions,
        early: &Early<'_>,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Vec<Loaded>, Error> {
        let Archives(images) = self;
        let limits = crate::Limits { bytes: images.layers().unpack_bytes_max()?, ..images.limits };
        failpoint::hit("images.spool")?;
        // Of an archive from which only some images are wanted, nobody knows what is a waste.
        let all = options.platforms.is_empty();
        let helper = all.then_some(early);
        let spooled = match input {
            Input::Stream(stream) => Spool::read(&images.content, stream, limits, helper),
            Input::File(file) if file.compression()? == Compression::None => {
                Spool::read_file(&images.content, &file, limits, helper)
            }
            Input::File(file) => Spool::read(&images.content, file.stream(), limits, helper),
        };
        let mut spool = spooled.map_err(|error| images.layers().too_large(error, limits.bytes))?;
        let plans = read_plans(&spool, &options.platforms)?;
        let mut pins = images.pins();
        let mut arrivals = Vec::with_capacity(plans.len());
        let mut references = Vec::with_capacity(plans.len());
        for plan in plans {
            references.push(plan.references.clone());
            let arrival = self.load_one(&mut pins, &mut spool, plan, early, options.now, on_progress)?;
            arrivals.push(arrival);
        }
        let registered = images.registrar().record(arrivals, options.now)?;
        let loaded = registered.into_iter().zip(references).map(|(registered, references)| {
            let shown = images.read().shown(&registered.target).cloned();
            Loaded {
                image: shown.unwrap_or(registered.image),
                target: registered.target,
                references,
                replaced: registered.replaced,
            }
        });
        Ok(loaded.collect())
    }

    fn load_one(
        self,
        pins: &mut Pins<'_>,
        spool: &mut Spool<'_>,
        plan: Plan,
        early: &Early<'_>,
        now: Timestamp,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Arrival, Error> {
        let Archives(images) = self;
        let parent = plan.parent.filter(|parent| images.get(parent).is_some());
        let index = match plan.index {
            Some(index) => {
                for path in &index.blobs {
                    spool.commit(path, pins)?;
                }
                Some(index.descriptor)
            }
            None => None,
        };
        let mut prepared = Vec::with_capacity(plan.images.len());
        for image in plan.images {
            failpoint::hit("images.layer")?;
            let layers = image.layers.iter().map(|path| spool.commit_layer(path, pins));
            let mut layers = layers.collect::<Result<Vec<_>, Error>>()?;
            self.settle_early(pins, &image.config, &mut layers, early, on_progress)?;
            let registration = Registration {
                config: &image.config,
                manifest: image.manifest,
                layers,
                parent: parent.clone(),
                now,
            };
            let image = images.registrar().prepare(pins, registration, &mut |diff_id, current, total| {
                on_progress(LoadProgress { diff_id, current, total });
            })?;
            prepared.push(image);
        }
        Ok(Arrival { images: prepared, index, references: plan.references, of_registry: false })
    }
}

impl Archives<'_> {
    /// Gives those layers their places that have been unpacked already and are what the configuration says.
    fn settle_early(
        self,
        pins: &mut Pins<'_>,
        config: &[u8],
        blobs: &mut [LayerBlob],
        early: &Early<'_>,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<(), Error> {
        let invalid = |source| Error::Document { what: "the image configuration".into(), source };
        let config: Image = oci::image::read(config).map_err(invalid)?;
        let layers = self.0.layers();
        for (place, blob) in LayerPlace::all(&config.rootfs.diff_ids).iter().zip(blobs) {
            // Also the layers that came another way: those above are put onto them here.
            pins.chain(&place.chain);
            let fitting = early.take(&blob.digest).filter(|(found, _)| *found == place.diff_id);
            let Some((diff_id, ahead)) = fitting else { continue };
            failpoint::hit("images.unpack")?;
            let is_settled = layers.has(&place.chain);
            if !is_settled && place.parent.as_ref().is_some_and(|parent| !layers.has(parent)) {
                continue;
            }
            if !is_settled {
                layers.settle(ahead, place, &blob.digest)?;
            }
            blob.verified = Some(diff_id);
            on_progress(LoadProgress { diff_id: &place.diff_id, current: blob.size, total: blob.size });
        }
        Ok(())
    }
}

fn read_plans(spool: &Spool<'_>, platforms: &[Platform]) -> Result<Vec<Plan>, Error> {
    let (layout, docker) = (spool.contains("index.json"), spool.contains("manifest.json"));
    if !layout && !docker {
        return Err(Error::InvalidArchive("it has neither a manifest.json nor an index.json".into()));
    }
    let mut plans = if layout { oci_archive::plans(spool, platforms)? } else { Vec::new() };
    if docker {
        docker_archive::add_plans(spool, &mut plans)?;
    } else if plans.is_empty() {
        return Err(Error::InvalidArchive("it has no image for this platform".into()));
    }
    choose(&mut plans, platforms)?;
    for plan in &plans {
        plan.check()?;
    }
    Ok(plans)
}
