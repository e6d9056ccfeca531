//! Images from registries and to them.
//!
//! **A pull** ([`Pull`]):
//! 1. The name becomes a manifest: one `HEAD` if it is known here already, else the manifest (through an index, by
//!    platform) and the configuration. They are kept while the layers come, and so is what the index says about the image
//!    ([`documents`]).
//! 2. Workers take the layers, lowest first. A layer that is missing is fetched into a partial blob ([`download`]) over
//!    one connection or several, and read behind the front of what has come ([`follow`]): hashed and decompressed on
//!    one thread, hashed again and unpacked on another, while the rest is still on its way.
//! 3. Each layer is checked, committed and put on those below it, in order; then one commit of the record makes the image
//!    exist.
//!
//! What has come of a layer outlives a broken connection and the daemon itself. A layer that several pulls want is
//! fetched by one of them ([`busy`]); the others find it done.
//!
//! **A push** ([`Transfers::push`]) asks for what is there, has other repositories' blobs mounted, and sends the rest,
//! compressed on the way where it is not. An index goes whole if everything that it names is here or there; otherwise one
//! of its images goes in its place.
//!
//! Network waits are async; everything that touches the disk runs on blocking threads. Progress goes to a [`Board`],
//! which never makes anybody wait for a slow reader.

mod board;
mod busy;
mod documents;
mod download;
mod error;
mod follow;
pub mod manifest;
mod pull;
mod push;
mod upload;
mod wait;

use std::sync::{Arc, PoisonError, RwLock};

use images::Images;
use registry::Registries;
use tokio::sync::Semaphore;

pub use board::{Board, Event};
pub use error::{Error, Kind};
pub use pull::{Pull, PullRequest};
pub use push::{PushRequest, Pushed};

/// How much goes on at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections that fetch layers, in the whole daemon.
    pub downloads: usize,
    /// Layers that are sent, in the whole daemon.
    pub uploads: usize,
    /// Tries of a layer without any progress.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { downloads: 3, uploads: 5, attempts: 5 }
    }
}

/// How registries are reached, and how much at once.
pub struct Setup {
    registries: Registries,
    limits: Limits,
    downloads: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
}

impl Setup {
    pub fn new(registries: Registries, limits: Limits) -> Setup {
        Setup {
            registries,
            limits,
            downloads: Arc::new(Semaphore::new(limits.downloads.max(1))),
            uploads: Arc::new(Semaphore::new(limits.uploads.max(1))),
        }
    }
}

/// The pulls and pushes of one daemon. Clones share everything.
#[derive(Clone)]
pub struct Transfers(Arc<Inner>);

struct Inner {
    images: Arc<Images>,
    /// Replaced when the daemon is told anew; what goes on goes on as it began.
    setup: RwLock<Arc<Setup>>,
    busy: busy::Busy,
}

impl Transfers {
    pub fn new(images: Arc<Images>, setup: Setup) -> Transfers {
        Transfers(Arc::new(Inner {
            images,
            setup: RwLock::new(Arc::new(setup)),
            busy: busy::Busy::default(),
        }))
    }

    /// From the next transfer on.
    pub fn set_up(&self, setup: Setup) {
        *self.0.setup.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(setup);
    }

    fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.0.setup.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn registries(&self) -> Registries {
        self.setup().registries.clone()
    }
}

/// Runs work that touches the disk where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Internal(error.to_string()))?
}
