//! The classic builder: a Dockerfile and a context to an image, through an executor.
//!
//! One build, from top to bottom:
//! 1. The context, a tar stream, is unpacked below the builder's scratch directory ([`Context`]).
//! 2. The Dockerfile in it is parsed; `FROM` by `FROM` a stage begins on an image or on nothing.
//! 3. Every instruction makes an image of its own on the one before. If there is one already that was made by the same
//!    instruction from the same image, it is used (the cache is nothing but the images themselves).
//! 4. `RUN` goes through the [`Executor`], whose container's read-write layer becomes the new image's layer. `COPY` and
//!    `ADD` need no container: they write by descriptor into a read-write layer of their own.
//!
//! What is printed on the way, and what it says when it fails, is what Docker's clients are used to.

mod arguments;
pub mod changes;
mod context;
mod copy;
mod instructions;
mod owner;
mod run;
mod stage;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use images::{Images, StoredImage, Target};
use oci::{Config, Digest, Platform, Reference, Timestamp};

pub use context::Context;

/// What sort of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    Invalid,
    NotImplemented,
    Cancelled,
    System,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Dockerfile(#[from] dockerfile::Error),
    #[error("{0}")]
    Invalid(String),
    /// `line` is the instruction's line in the Dockerfile.
    #[error("dockerfile parse error on line {line}: {what}")]
    Instruction { line: usize, what: String },
    #[error("The command '{command}' returned a non-zero code: {code}")]
    ExitCode { command: String, code: i64 },
    #[error("{0} is not supported yet")]
    NotImplemented(String),
    #[error("{keyword} failed: {what}")]
    Copy { keyword: &'static str, what: String },
    #[error("Build cancelled")]
    Cancelled,
    #[error(transparent)]
    Images(#[from] images::Error),
    #[error(transparent)]
    Archive(#[from] archive::Error),
    #[error(transparent)]
    Snapshot(#[from] snapshots::Error),
    #[error("{0}")]
    Executor(ExecutorError),
    #[error("cannot {operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Error::Dockerfile(_) | Error::Invalid(_) | Error::Instruction { .. } | Error::Copy { .. } => {
                Kind::Invalid
            }
            Error::NotImplemented(_) => Kind::NotImplemented,
            Error::Cancelled => Kind::Cancelled,
            Error::ExitCode { .. } | Error::Snapshot(_) | Error::Io { .. } => Kind::System,
            Error::Images(error) => match error.kind() {
                images::Kind::NotFound => Kind::NotFound,
                images::Kind::Invalid | images::Kind::Conflict => Kind::Invalid,
                images::Kind::NotImplemented => Kind::NotImplemented,
                images::Kind::System => Kind::System,
            },
            Error::Archive(error) if error.is_invalid_archive() => Kind::Invalid,
            Error::Archive(_) => Kind::System,
            Error::Executor(error) => error.kind,
        }
    }

    /// The number that goes with the message in the stream: a command's exit code.
    pub fn code(&self) -> Option<i64> {
        match self {
            Error::ExitCode { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// What an executor says when it cannot.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExecutorError {
    pub kind: Kind,
    pub message: String,
}

/// Which of a command's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What happens, as it happens.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Text of the builder.
    Text(&'a str),
    /// Output of a command.
    Output(Stream, &'a [u8]),
    /// A stage is done (`aux` of the stream).
    Image(&'a Digest),
    /// An image got a name, for the engine's own events.
    Tagged(&'a Digest, &'a Reference),
}

/// A command to run.
#[derive(Debug)]
pub struct RunStep<'a> {
    /// The image that the container's root filesystem shows; `None` is an empty one.
    pub image: Option<&'a Arc<StoredImage>>,
    /// All that the container gets: user, directory, environment with build arguments. `cmd` is the whole command line;
    /// entrypoint and health check are empty.
    pub config: &'a Config,
    /// `default`, `none`, `host` or a network's name.
    pub network: &'a str,
}

/// Runs commands in containers.
pub trait Executor {
    /// Makes a container with a read-write layer of the same ID in the snapshots. Its ID is printed before it runs.
    fn create(&self, step: &RunStep<'_>) -> Result<String, ExecutorError>;

    /// Starts the container and waits. Gives its exit code. When it returns, the root filesystem is mounted no more.
    fn run(&self, container: &str, output: &mut dyn FnMut(Stream, &[u8])) -> Result<i64, ExecutorError>;

    /// Removes the container. Its read-write layer may be gone already: it has become an image's.
    fn remove(&self, container: &str) -> Result<(), ExecutorError>;

    /// Brings an image into the store that is not there, or (`--pull`) may be newer elsewhere.
    fn fetch(
        &self,
        reference: &Reference,
        platform: &Platform,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<(), ExecutorError>;
}

/// What to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    pub tags: Vec<Reference>,
    pub no_cache: bool,
    /// Images whose steps alone may be used again; empty: those of all images. A name that is not there is skipped.
    pub cache_from: Vec<String>,
    /// Look for newer base images.
    pub pull: bool,
    /// `None` is a name without a value: it counts as given, with nothing in it to use.
    pub build_args: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    /// Stage to stop after, by name or number.
    pub target: String,
    pub platform: Option<Platform>,
    pub network: String,
    /// Remove containers of steps that worked.
    pub remove: bool,
    /// Remove containers of steps that failed as well.
    pub force_remove: bool,
    /// Set by somebody else to end the build before its next step.
    pub cancel: Arc<AtomicBool>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            dockerfile: "Dockerfile".into(),
            tags: Vec::new(),
            no_cache: false,
            cache_from: Vec::new(),
            pull: false,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            target: String::new(),
            platform: None,
            network: "default".into(),
            remove: true,
            force_remove: false,
            cancel: Arc::default(),
        }
    }
}

/// Read-write layers that belong to a builder, and not to a container, have this in front.
const LAYER_PREFIX: &str = "build-";

/// Builds images; any number at the same time.
#[derive(Debug)]
pub struct Builder {
    images: Arc<Images>,
    scratch: PathBuf,
    next: AtomicU64,
}

impl Builder {
    /// Makes the scratch directory and clears what an earlier process left there and in the snapshots.
    pub fn open(images: Arc<Images>, scratch: &Path) -> Result<Builder, Error> {
        let io = |operation| {
            let path = scratch.to_owned();
            move |source| Error::Io { operation, path, source }
        };
        match std::fs::remove_dir_all(scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("clear")(error)),
            _ => {}
        }
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(scratch).map_err(io("create"))?;
        for container in images.snapshots().containers() {
            if container.starts_with(LAYER_PREFIX) {
                drop(images.release(&container)?);
            }
        }
        Ok(Builder { images, scratch: scratch.to_owned(), next: AtomicU64::new(0) })
    }

    /// Unpacks a context: a tar stream, compressed or not.
    pub fn context(&self, stream: impl std::io::Read) -> Result<Context, Error> {
        Context::unpack(stream, &self.scratch.join(format!("context-{}", self.number())))
    }

    /// Builds, and gives the image of the last stage.
    pub fn build(
        &self,
        context: &Context,
        options: &Options,
        executor: &dyn Executor,
        clock: &dyn Fn() -> Timestamp,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Digest, Error> {
        let file = context.dockerfile(&options.dockerfile)?;
        context.apply_ignore(&options.dockerfile)?;
        let mut build = stage::Build::new(self, context, options, executor, clock, on_event);
        let image = build.run(file)?;
        build.text(&format!("Successfully built {}\n", image.id.short()));
        for tag in &options.tags {
            let tag = tag.clone().or_latest();
            self.images.names().tag(&Target::Image(image.id.clone()), &tag, clock())?;
            build.event(Event::Tagged(&image.id, &tag));
            build.text(&format!("Successfully tagged {}\n", tag.familiar()));
        }
        Ok(image.id.clone())
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A name for a read-write layer that no container has.
    fn layer_name(&self) -> String {
        format!("{LAYER_PREFIX}{}", self.number())
    }
}
