//! The files a build may copy from, unpacked below the builder's scratch directory.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use archive::{Decoder, Limits, Root, UnpackOptions};
use dockerfile::{Dockerfile, FILE_BYTES_MAX, Ignore};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::Error;

/// An unpacked context; its files go with it.
#[derive(Debug)]
pub struct Context {
    path: PathBuf,
    root: Root,
}

impl Drop for Context {
    fn drop(&mut self) {
        // Cleared at the next start if it fails now.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Context {
    pub(crate) fn unpack(stream: impl Read, path: &Path) -> Result<Context, Error> {
        let io = |operation| {
            let path = path.to_owned();
            move |source| Error::Io { operation, path, source }
        };
        std::fs::create_dir(path).map_err(io("create"))?;
        let root = Root::open_path(path).map_err(io("open"))?;
        let context = Context { path: path.to_owned(), root };
        // Bounded by the disk that containers need as well.
        let free = rustix::fs::statvfs(path)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|errno| io("measure")(errno.into()))?;
        let limits = Limits { bytes: Limits::default().bytes.min(free / 20 * 19), ..Limits::default() };
        let options = UnpackOptions { limits, ..UnpackOptions::default() };
        archive::unpack(Decoder::new(stream)?, &context.root, &options)?;
        Ok(context)
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// Reads and parses the Dockerfile.
    pub(crate) fn dockerfile(&self, path: &str) -> Result<Dockerfile, Error> {
        if archive::clean(path.as_bytes()).is_err() {
            return Err(Error::Invalid(format!("forbidden path outside the build context: {path} ()")));
        }
        let missing = || Error::Invalid(format!("Cannot locate specified Dockerfile: {path}"));
        let text = match self.read(path)? {
            Some(text) => text,
            // Some name it in lower case.
            None if path == "Dockerfile" => self.read("dockerfile")?.ok_or_else(missing)?,
            None => return Err(missing()),
        };
        if text.trim().is_empty() {
            return Err(Error::Invalid(format!("the Dockerfile ({path}) cannot be empty")));
        }
        dockerfile::parse(&text).map_err(|error| match error {
            dockerfile::Error::File(what) => Error::Invalid(format!("failed to parse {path}: {what}")),
            located => located.into(),
        })
    }

    /// Takes the Dockerfile and `.dockerignore` out of the context if `.dockerignore` says so. Everything else that it
    /// names was left out by the client already.
    pub(crate) fn apply_ignore(&self, dockerfile: &str) -> Result<(), Error> {
        let Some(text) = self.read(".dockerignore")? else { return Ok(()) };
        let ignore = Ignore::parse(&text)
            .map_err(|what| Error::Invalid(format!("error reading .dockerignore: {what}")))?;
        for name in [dockerfile, ".dockerignore"] {
            if !ignore.matches(name) {
                continue;
            }
            let (parent, file) = name.rsplit_once('/').unwrap_or((".", name));
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            if let Ok(parent) = self.root.open(Path::new(parent), flags, Mode::empty()) {
                let _ = rustix::fs::unlinkat(&parent, file, AtFlags::empty());
            }
        }
        Ok(())
    }

    /// A small text file, or `None` if it is not there.
    fn read(&self, path: &str) -> Result<Option<String>, Error> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened: Result<OwnedFd, _> = self.root.open(Path::new(path), flags, Mode::empty());
        let file = match opened {
            Ok(file) => File::from(file),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(source) => return Err(Error::Io { operation: "open", path: path.into(), source }),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|source| Error::Io {
            operation: "read",
            path: path.into(),
            source,
        })?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(Error::Invalid(format!("{path} is larger than {FILE_BYTES_MAX} bytes")));
        }
        String::from_utf8(bytes).map(Some).map_err(|_| Error::Invalid(format!("{path} is not UTF-8")))
    }
}
