//! One pull: what it is about, and carrying it out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use images::{
    Arrival, LayerBlob, LayerPlace, OriginalManifest, Pins, Registered, Registration, StoredImage, Target,
};
use oci::image::CONFIG_BYTES_MAX;
use oci::{Descriptor, Digest, Image, Platform, Reference, Timestamp, media_type};
use registry::{Credentials, Fetched, Repository};
use tokio::runtime::Handle;

use crate::board::Board;
use crate::download::{Download, Fetching};
use crate::error::of_pull;
use crate::follow::Follow;
use crate::wait::LOOK;
use crate::{Error, Setup, Transfers, blocking, manifest};

/// Layers that are worked on at once, at least.
const WORKERS_MIN: usize = 2;
/// And at most: each takes some memory.
const WORKERS_MAX: usize = 4;
/// Indexes within indexes.
const INDEXES_MAX: usize = 4;

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// With a tag or a digest; a bare name means all tags.
    pub reference: Reference,
    pub platform: Option<Platform>,
    pub credentials: Credentials,
    pub now: Timestamp,
}

/// A pull whose first image is known to be there.
pub struct Pull {
    transfers: Transfers,
    repository: Arc<Repository>,
    request: PullRequest,
    first: Resolved,
    /// Tags that come after the first.
    rest: Vec<String>,
}

/// An image in the registry.
struct Resolved {
    /// What was asked for: a tag or a digest.
    asked: String,
    reference: Reference,
    /// Of what stands under that name: an index, or the image's manifest.
    digest: Digest,
    what: What,
}

enum What {
    /// The name means the same here, and its image for the wanted platform is there.
    Known(Target, Arc<StoredImage>),
    New(Box<NewImage>),
}

pub(crate) struct NewImage {
    pub(crate) manifest: Fetched,
    layers: Vec<Descriptor>,
    pub(crate) config_bytes: Vec<u8>,
    config: Image,
    /// The indexes that led to it, outermost first.
    pub(crate) indexes: Vec<Fetched>,
}

/// What came of a pull.
#[derive(Debug, Clone)]
pub struct Pulled {
    pub reference: Reference,
    pub image: Arc<StoredImage>,
    /// It was not here before, or not under this name.
    pub is_new: bool,
}

impl Transfers {
    /// Finds out what a pull is about. What is wrong with the name or the registry is told here, before anything moves.
    pub async fn pull(&self, request: PullRequest) -> Result<Pull, Error> {
        let reference = &request.reference;
        let repository = self.registries().repository(
            reference.domain(),
            reference.path(),
            request.credentials.clone(),
        )?;
        let repository = Arc::new(repository);
        let mut tags = VecDeque::new();
        if reference.is_name_only() {
            tags.extend(repository.tags().await.map_err(|error| of_pull(error, reference))?);
        }
        let first = match tags.pop_front() {
            Some(tag) => with_tag(reference, &tag)?,
            None if reference.is_name_only() => return Err(Error::NoTag(reference.familiar())),
            None => reference.clone(),
        };
        let first = self.resolve(&repository, first, &request).await?;
        Ok(Pull { transfers: self.clone(), repository, first, rest: tags.into(), request })
    }

    async fn resolve(
        &self,
        repository: &Repository,
        reference: Reference,
        request: &PullRequest,
    ) -> Result<Resolved, Error> {
        let asked = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let denied = |error| of_pull(error, &reference);
        let mut wanted = asked.clone();
        let known_name = self.0.images.names().find(&reference.clone().favouring_digest());
        let mut digest = reference.digest().cloned();
        if digest.is_none() && known_name.is_some() {
            // One question tells whether anything has changed.
            digest = repository.head_manifest(&asked).await.map_err(denied)?.digest;
            if let Some(digest) = &digest {
                wanted = digest.to_string();
            }
        }
        if let Some(digest) = digest
            && let Some((target, image)) = self.known(&reference, &digest, request)
        {
            return Ok(Resolved { asked, reference, digest, what: What::Known(target, image) });
        }
        let top = repository.manifest(&wanted).await.map_err(denied)?;
        let digest = top.digest.clone();
        let new = self.new_image(repository, &reference, top, request).await?;
        Ok(Resolved { asked, reference, digest, what: What::New(Box::new(new)) })
    }

    /// The image that a digest stood for when it was pulled here, if it would do.
    fn known(
        &self,
        reference: &Reference,
        digest: &Digest,
        request: &PullRequest,
    ) -> Option<(Target, Arc<StoredImage>)> {
        let images = &self.0.images;
        let target = images.names().find(&reference.with_digest(digest.clone()))?;
        let wanted = request.platform.clone().unwrap_or_else(Platform::host);
        let image = match &target {
            Target::Image(id) => images
                .get(id)
                .filter(|image| request.platform.is_none() || image.config.platform().serves(&wanted))?,
            Target::Index(digest) => {
                // The one that a registry would be asked for, and no other that would run as well.
                let index = images.index(digest)?;
                let entries = index.children.iter().map(|child| (child.descriptor.platform.clone(), child));
                images.get(wanted.closest(entries)?.image()?)?
            }
        };
        Some((target, image))
    }

    async fn new_image(
        &self,
        repository: &Repository,
        reference: &Reference,
        top: Fetched,
        request: &PullRequest,
    ) -> Result<NewImage, Error> {
        let wanted = request.platform.clone().unwrap_or_else(Platform::host);
        let (mut fetched, mut indexes) = (top, Vec::new());
        while media_type::is_index(&fetched.media_type) {
            if indexes.len() == INDEXES_MAX {
                return Err(Error::Manifest("the manifest list is nested too deep".into()));
            }
            let entry = manifest::select(&fetched.bytes, &wanted)?;
            indexes.push(fetched);
            fetched = repository
                .manifest(entry.digest.as_str())
                .await
                .map_err(|error| of_pull(error, reference))?;
        }
        if fetched.media_type == registry::SCHEMA_1 {
            return Err(Error::Schema1 { reference: reference.familiar() });
        }
        let parsed = manifest::image(&fetched.bytes)?;
        let needed = parsed.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        let free = self.0.images.layers().free_bytes()?;
        if needed > free {
            return Err(Error::NoRoom { needed, free });
        }
        let config_bytes = match self.0.images.content().read(&parsed.config.digest, CONFIG_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(_) => repository.blob_bytes(&parsed.config.digest, CONFIG_BYTES_MAX).await?,
        };
        let config = manifest::config(&config_bytes, &parsed)?;
        Ok(NewImage { manifest: fetched, layers: parsed.layers, config_bytes, config, indexes })
    }
}

fn with_tag(reference: &Reference, tag: &str) -> Result<Reference, Error> {
    reference.with_tag(tag).map_err(|error| Error::Manifest(format!("the registry's tag {tag:?}: {error}")))
}

impl Pull {
    /// Carries the pull out. `done` hears of each image.
    pub async fn run(self, board: Board, done: impl Fn(&Pulled) + Send + Sync) -> Result<(), Error> {
        let Pull { transfers, repository, request, first, rest } = self;
        let familiar = request.reference.familiar_name();
        let all = request.reference.is_name_only();
        let mut any_new = false;
        let mut next = Some(first);
        let mut rest = rest.into_iter();
        while let Some(resolved) = next.take() {
            board.step(&resolved.asked, format!("Pulling from {}", short_name(&request.reference)));
            let pulled = carry_out(&transfers, &repository, &request, resolved, &board).await?;
            warn_of_platform(&pulled, &request, &board);
            any_new |= pulled.is_new;
            done(&pulled);
            if let Some(tag) = rest.next() {
                let reference = with_tag(&request.reference, &tag)?;
                next = Some(transfers.resolve(&repository, reference, &request).await?);
            }
        }
        let name = if all { familiar } else { request.reference.familiar() };
        board.say(match any_new {
            true => format!("Status: Downloaded newer image for {name}"),
            false => format!("Status: Image is up to date for {name}"),
        });
        Ok(())
    }
}

/// The path on the registry: how Docker names the repository that it pulls from.
fn short_name(reference: &Reference) -> &str {
    reference.path()
}

fn warn_of_platform(pulled: &Pulled, request: &PullRequest, board: &Board) {
    let Some(wanted) = &request.platform else { return };
    let found = pulled.image.config.platform();
    if !found.serves(wanted) {
        let reference = pulled.reference.familiar();
        board.say(format!(
            "WARNING: image with reference {reference} was found but its platform ({found}) does not match the specified \
             platform ({wanted})"
        ));
    }
}

async fn carry_out(
    transfers: &Transfers,
    repository: &Arc<Repository>,
    request: &PullRequest,
    resolved: Resolved,
    board: &Board,
) -> Result<Pulled, Error> {
    let Resolved { reference, digest, what, .. } = resolved;
    let images = Arc::clone(&transfers.0.images);
    let by_digest = reference.with_digest(digest.clone());
    let mut names = vec![by_digest];
    if reference.digest().is_none() {
        names.insert(0, reference.clone());
    }
    let now = request.now;
    let (image, is_new) = match give_name(transfers, repository, request, &reference, what, &names[0]).await?
    {
        Given::Known(image, is_new) => (image, is_new),
        Given::New(new) => {
            let earlier = images.names().find(&names[0]);
            let work = Work {
                transfers: transfers.clone(),
                setup: transfers.setup(),
                repository: Arc::clone(repository),
                runtime: Handle::current(),
                board: board.clone(),
            };
            let Registered { target, image, known, .. } =
                blocking(move || work.bring_in(*new, names, now)).await?;
            let is_new = !known || earlier.as_ref() != Some(&target);
            (image, is_new)
        }
    };
    board.say(format!("Digest: {digest}"));
    Ok(Pulled { reference, image, is_new })
}

/// What there is to do after all.
enum Given {
    /// Nothing more; whether the name is new for the image.
    Known(Arc<StoredImage>, bool),
    New(Box<NewImage>),
}

/// Gives an image that is here its name. One that has been removed meanwhile is to be fetched again.
async fn give_name(
    transfers: &Transfers,
    repository: &Repository,
    request: &PullRequest,
    reference: &Reference,
    what: What,
    name: &Reference,
) -> Result<Given, Error> {
    let (target, image) = match what {
        What::New(new) => return Ok(Given::New(new)),
        What::Known(target, image) => (target, image),
    };
    let images = &transfers.0.images;
    if images.names().find(name).as_ref() == Some(&target) {
        return Ok(Given::Known(image, false));
    }
    let (images, given, now) = (Arc::clone(images), name.clone(), request.now);
    let named = blocking(move || Ok(images.names().give(&target, &given, now).map(drop))).await?;
    match named {
        Ok(()) => Ok(Given::Known(image, true)),
        Err(images::Error::NoSuchImage(_)) => {
            let wanted = reference
                .digest()
                .map_or_else(|| reference.tag().unwrap_or("latest").to_owned(), Digest::to_string);
            let top = repository.manifest(&wanted).await.map_err(|error| of_pull(error, reference))?;
            let new = transfers.new_image(repository, reference, top, request).await?;
            Ok(Given::New(Box::new(new)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Bringing one image in; runs on blocking threads.
pub(crate) struct Work {
    transfers: Transfers,
    setup: Arc<Setup>,
    pub(crate) repository: Arc<Repository>,
    pub(crate) runtime: Handle,
    pub(crate) board: Board,
}

/// One layer of an image that comes in.
struct Layer {
    place: LayerPlace,
    blob: Descriptor,
    /// What it is called on the board.
    id: String,
}

/// How far the layers are; one mutex for all workers of a pull.
#[derive(Default)]
struct Progress {
    next: usize,
    /// Layers that are in their places, from the lowest on.
    settled: usize,
    failed: Option<Error>,
}

struct Workers<'a> {
    work: &'a Work,
    layers: &'a [Layer],
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Work {
    pub(crate) fn images(&self) -> &images::Images {
        &self.transfers.0.images
    }

    fn bring_in(
        &self,
        new: NewImage,
        references: Vec<Reference>,
        now: Timestamp,
    ) -> Result<Registered, Error> {
        let images = self.images();
        let mut pins = images.pins();
        let places = LayerPlace::all(&new.config.rootfs.diff_ids);
        let layers: Vec<Layer> = places
            .into_iter()
            .zip(new.layers.iter().cloned())
            .map(|(place, blob)| Layer { place, id: blob.digest.short().to_owned(), blob })
            .collect();
        self.pin(&mut pins, &layers);
        let missing = layers.iter().filter(|layer| !self.is_there(layer));
        missing.for_each(|layer| self.board.step(&layer.id, "Pulling fs layer"));
        // What is waited for at the end is on the disk by then.
        std::thread::scope(|scope| {
            let documents = scope.spawn(|| self.keep_documents(&mut pins, &new));
            let received = self.receive_all(&layers);
            let kept = documents.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            received.and(kept)
        })?;
        let blobs = layers.iter().map(|layer| LayerBlob {
            digest: layer.blob.digest.clone(),
            size: layer.blob.size,
            media_type: layer.blob.media_type.clone(),
            verified: Some(layer.place.diff_id.clone()),
        });
        let index = new
            .indexes
            .first()
            .map(|index| Descriptor::new(&index.media_type, index.digest.clone(), index.bytes.len() as u64));
        let Fetched { media_type, bytes, .. } = new.manifest;
        let registration = Registration {
            config: &new.config_bytes,
            manifest: Some(OriginalManifest { media_type, bytes }),
            layers: blobs.collect(),
            parent: None,
            now,
        };
        let registrar = images.registrar();
        let image = registrar.prepare(&mut pins, registration, &mut |_, _, _| {})?;
        let arrival = Arrival { images: vec![image], index, references, of_registry: true };
        let registered = registrar.record(vec![arrival], now)?.pop();
        registered.ok_or_else(|| Error::Internal("nothing came in".into()))
    }

    fn pin(&self, pins: &mut Pins<'_>, layers: &[Layer]) {
        for layer in layers {
            pins.blob(&layer.blob.digest);
            pins.chain(&layer.place.chain);
        }
    }

    fn is_there(&self, layer: &Layer) -> bool {
        self.images().layers().has(&layer.place.chain) && self.images().content().contains(&layer.blob.digest)
    }

    fn receive_all(&self, layers: &[Layer]) -> Result<(), Error> {
        let workers = Workers { work: self, layers, progress: Mutex::default(), changed: Condvar::new() };
        let count = self.setup.limits.downloads.clamp(WORKERS_MIN, WORKERS_MAX).min(layers.len());
        std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| workers.run());
            }
        });
        match workers.lock().failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Workers<'_> {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes layers, lowest first, until there is none left.
    fn run(&self) {
        let _end = WorkerEnd(self);
        loop {
            let index = {
                let mut progress = self.lock();
                if progress.failed.is_some() || progress.next == self.layers.len() {
                    return;
                }
                progress.next += 1;
                progress.next - 1
            };
            let outcome = match self.work.board.is_cancelled() {
                true => Err(Error::Cancelled),
                false => self.receive(&self.layers[index]),
            };
            let mut progress = self.lock();
            match outcome {
                Ok(()) => progress.settled += 1,
                // The first failure is the cause of the others.
                Err(error) if progress.failed.is_none() => progress.failed = Some(error),
                Err(_) => {}
            }
            drop(progress);
            self.changed.notify_all();
        }
    }

    /// Waits until all layers below this one are in their places.
    fn wait_for_parent(&self, layer: &Layer) -> Result<(), Error> {
        let mut progress = self.lock();
        while progress.settled < layer.place.index {
            if progress.failed.is_some() || self.work.board.is_cancelled() {
                return Err(Error::Cancelled);
            }
            progress = self.changed.wait_timeout(progress, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        match progress.failed {
            Some(_) => Err(Error::Cancelled),
            None => Ok(()),
        }
    }

    fn receive(&self, layer: &Layer) -> Result<(), Error> {
        let Work { transfers, board, .. } = self.work;
        let images = self.work.images();
        // Given up before anything is waited for, so that two pulls never wait for each other.
        let taken = transfers.0.busy.take(&layer.blob.digest, board, || board.step(&layer.id, "Waiting"))?;
        if self.work.is_there(layer) {
            drop(taken);
            board.step(&layer.id, "Already exists");
            return self.wait_for_parent(layer);
        }
        let mut ahead = None;
        if !images.content().contains(&layer.blob.digest) {
            ahead = self.fetch(layer)?;
        }
        drop(taken);
        self.wait_for_parent(layer)?;
        match ahead {
            Some(ahead) => images.layers().settle(ahead, &layer.place, &layer.blob.digest)?,
            None if images.layers().has(&layer.place.chain) => {}
            None => images.layers().unpack_stored(&layer.blob.digest, &layer.place, &mut |read, size| {
                board.progress(&layer.id, "Extracting", read, size);
            })?,
        }
        board.step(&layer.id, "Pull complete");
        Ok(())
    }

    /// Fetches a layer's archive into the content store, and unpacks it on the way if that can be done.
    fn fetch(&self, layer: &Layer) -> Result<Option<images::Ahead>, Error> {
        match self.fetch_once(layer) {
            // What an earlier daemon left may be damaged; then everything is fetched once more.
            Err((true, Error::Verification { .. })) => self.fetch_once(layer).map_err(|(_, error)| error),
            outcome => outcome.map_err(|(_, error)| error),
        }
    }

    /// One go. With the error comes whether something was there before.
    fn fetch_once(&self, layer: &Layer) -> Result<Option<images::Ahead>, (bool, Error)> {
        let Work { setup, repository, runtime, board, .. } = self.work;
        let images = self.work.images();
        let fresh = |error: content::Error| (false, Error::from(error));
        let partial = images.content().partial(&layer.blob.digest, layer.blob.size).map_err(fresh)?;
        let download = Arc::new(Download::new(partial).map_err(fresh)?);
        let resumed = download.was_resumed();
        let fetching = Fetching {
            repository: Arc::clone(repository),
            runtime: runtime.clone(),
            permits: Arc::clone(&setup.downloads),
            attempts: setup.limits.attempts,
            board: board.clone(),
            id: layer.id.clone(),
        };
        let told = Arc::new(AtomicBool::new(false));
        let (synced, outcome) = std::thread::scope(|scope| {
            let downloading = scope.spawn(|| {
                download.run(&fetching);
                if !download.is_whole() {
                    return Ok(());
                }
                board.step(&layer.id, "Verifying Checksum");
                board.step(&layer.id, "Download complete");
                told.store(true, Ordering::Release);
                // It is unpacked meanwhile.
                download.sync()
            });
            let outcome = self.unpack(layer, &download, &told);
            if outcome.is_err() {
                download.cancel();
            }
            (downloading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), outcome)
        });
        // Nobody may write to the file any more: it is about to be believed, or somebody else's.
        let partial = wait_for_last(download).into_partial();
        let (ahead, digest) = match outcome {
            Ok(done) => done,
            Err(error) => {
                // On a full disk, what has come would be in everybody's way.
                if matches!(error, Error::Registry(registry::Error::File { .. })) {
                    partial.discard().map_err(fresh)?;
                }
                return Err((resumed, error));
            }
        };
        if digest != layer.blob.digest {
            partial.discard().map_err(fresh)?;
            return Err((
                resumed,
                Error::Verification { expected: layer.blob.digest.clone(), found: digest },
            ));
        }
        match ahead {
            Ok(ahead) => {
                synced.and_then(|()| partial.commit()).map_err(fresh)?;
                Ok(ahead)
            }
            // The bytes are what was asked for, and no good.
            Err(error) => {
                partial.discard().map_err(fresh)?;
                Err((resumed, error))
            }
        }
    }

    /// Unpacks a download behind its front. Gives what came of that, and the digest of all bytes.
    #[allow(clippy::type_complexity)]
    fn unpack(
        &self,
        layer: &Layer,
        download: &Arc<Download>,
        download_told: &Arc<AtomicBool>,
    ) -> Result<(Result<Option<images::Ahead>, Error>, Digest), Error> {
        let images = self.work.images();
        let (board, id, size) = (self.work.board.clone(), layer.id.clone(), layer.blob.size);
        let (told, whole) = (board.clone(), Arc::clone(download_told));
        let follow = Follow::new(Arc::clone(download), board, move |read| {
            // Clients expect the one after the other.
            if whole.load(Ordering::Acquire) {
                told.progress(&id, "Extracting", read, size);
            }
        });
        let ahead = match images.layers().has(&layer.place.chain) {
            true => Ok(None),
            false => images.layers().unpack_ahead(follow.clone(), &layer.place).map_err(Error::from),
        };
        let digest = follow.finish().map_err(|error| self.why(download, error))?;
        Ok((ahead, digest))
    }

    /// Why a download did not come to its end.
    fn why(&self, download: &Download, error: std::io::Error) -> Error {
        match download.take_failure() {
            Some(failure) => Error::Registry(failure),
            None if self.work.board.is_cancelled() => Error::Cancelled,
            None => Error::Io { operation: "read the download", source: error },
        }
    }
}

/// The others do not wait for a worker that panicked.
struct WorkerEnd<'a>(&'a Workers<'a>);

impl Drop for WorkerEnd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().failed.get_or_insert(Error::Internal("a layer's worker panicked".into()));
            self.0.changed.notify_all();
        }
    }
}

/// The download itself, once nobody else has it.
fn wait_for_last(mut download: Arc<Download>) -> Download {
    loop {
        match Arc::try_unwrap(download) {
            Ok(download) => return download,
            Err(shared) => {
                download = shared;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
