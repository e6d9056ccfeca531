//! Images out of an archive: `docker save`'s, old and new, and OCI image layouts.
//!
//! 1. The stream is undone of its compression and its files are spooled to disk ([`Spool`]): what a file means may
//!    only be told by the last one.
//! 2. `manifest.json`, or else `index.json`, says which images there are ([`Plan`]).
//! 3. Each image's layers go into the content store and are registered, which unpacks and checks them.
//!
//! An archive that fails in step 1 or 2 changes nothing; one that fails in step 3 leaves the images before the bad one.

use std::io::Read;
use std::sync::Arc;

use oci::{Digest, Image, Platform, Reference, Timestamp};

use crate::register::{OriginalManifest, Registration};
use crate::spool::Spool;
use crate::state::StoredImage;
use crate::{Error, Images, docker_archive, oci_archive};

/// What to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Only the image for this platform; the host's is preferred if there are several and none is asked for.
    pub platform: Option<Platform>,
    pub now: Timestamp,
}

/// How far a layer's archive has been read.
#[derive(Debug, Clone, Copy)]
pub struct LoadProgress<'a> {
    pub diff_id: &'a Digest,
    /// Bytes of the archive.
    pub current: u64,
    pub total: u64,
}

/// An image that was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub image: Arc<StoredImage>,
    /// Names it got. For each, Docker says `Loaded image: name:tag`, and without any `Loaded image ID: sha256:…`.
    pub references: Vec<Reference>,
    /// Names that other images lost to it, with those images.
    pub replaced: Vec<(Reference, Digest)>,
}

/// An image as an archive describes it.
#[derive(Debug)]
pub struct Plan {
    pub config: Vec<u8>,
    pub manifest: Option<OriginalManifest>,
    /// Paths in the archive, lowest layer first.
    pub layers: Vec<String>,
    pub references: Vec<Reference>,
    pub parent: Option<Digest>,
}

impl Plan {
    /// Reads the configuration and refuses what could not run here.
    fn check(&self, wanted: Option<&Platform>) -> Result<(), Error> {
        let invalid = |source| Error::Document { what: "the image configuration".into(), source };
        let config: Image = serde_json::from_slice(&self.config).map_err(invalid)?;
        if !config.os.is_empty() && config.os != "linux" {
            return Err(Error::OperatingSystem(config.os));
        }
        if let Some(wanted) = wanted
            && !config.platform().serves(wanted)
        {
            let reference = self.references.first().map(Reference::familiar);
            let reference = reference.unwrap_or_else(|| Digest::of(&self.config).to_string());
            return Err(Error::Platform { reference, platform: wanted.to_string() });
        }
        let expected = config.rootfs.diff_ids.len();
        if expected != self.layers.len() {
            return Err(Error::LayerCount { expected, found: self.layers.len() });
        }
        Ok(())
    }
}

impl Images {
    /// Loads every image of an archive.
    pub fn load(
        &self,
        stream: impl Read,
        options: &LoadOptions,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Vec<Loaded>, Error> {
        let limits = crate::Limits { bytes: self.unpack_bytes_max()?, ..self.limits };
        let mut spool = Spool::read(&self.content, stream, limits)?;
        let plans = if spool.contains("manifest.json") {
            docker_archive::plans(&spool)?
        } else if spool.contains("index.json") {
            oci_archive::plans(&spool, options.platform.as_ref())?
        } else {
            return Err(Error::InvalidArchive("it has neither a manifest.json nor an index.json".into()));
        };
        for plan in &plans {
            plan.check(options.platform.as_ref())?;
        }
        let mut loaded = Vec::with_capacity(plans.len());
        for plan in plans {
            loaded.push(self.load_one(&mut spool, plan, options.now, on_progress)?);
        }
        Ok(loaded)
    }

    fn load_one(
        &self,
        spool: &mut Spool<'_>,
        plan: Plan,
        now: Timestamp,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Loaded, Error> {
        let mut pins = self.pins();
        let layers = plan
            .layers
            .iter()
            .map(|path| spool.commit_layer(path, &mut pins))
            .collect::<Result<Vec<_>, Error>>()?;
        let parent = plan.parent.filter(|parent| self.get(parent).is_some());
        let registration = Registration {
            config: &plan.config,
            manifest: plan.manifest,
            layers,
            references: plan.references.clone(),
            parent,
            now,
        };
        let registered = self.register(&mut pins, registration, &mut |diff_id, current, total| {
            on_progress(LoadProgress { diff_id, current, total });
        })?;
        Ok(Loaded { image: registered.image, references: plan.references, replaced: registered.replaced })
    }
}
