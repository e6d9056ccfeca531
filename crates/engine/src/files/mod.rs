//! Files of containers: looked at, copied out and in, compared with the image, exported, and made an image of.
//!
//! Nothing here resolves a path of a container by string, and nothing mounts:
//! - Of a running container the shim hands out a handle of the root directory as the first process sees it. Walking
//!   from there meets the container's own mounts, as the kernel crosses them for anybody.
//! - Of one that does not run, the root is an overlay that is mounted nowhere, and what its mounts would show of the
//!   host is [grafted](archive::Root::graft) onto it.
//!
//! Archives are packed and unpacked in this process, by descriptor, as they stream.

mod changes;
mod commit;
mod path;
mod stat;
mod transfer;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api_types::container::PathStat;
use archive::{Ownership, PackOptions, Root};
use model::create::Record;
use model::{Kind, Refusal};
use rustix::fs::{FileType, Mode, OFlags, StatVfsMountFlags};

use crate::container::{Command, GivenFiles, Handle, Lease};
use crate::volumes::Held;
use crate::{Engine, blocking};

pub use commit::{Commit, Commits};
pub use transfer::{Destination, Source};

/// How long what is left of a container's last run may take to go.
const SETTLING: Duration = Duration::from_secs(10);

/// The use cases.
#[derive(Clone)]
pub struct Files(pub(crate) Engine);

/// A container's files, held as long as this is.
struct Opened {
    /// As the client named it, for messages.
    name: String,
    root: Root,
    is_running: bool,
    record: Arc<Record>,
    /// Of a container that does not run, shared with all who have it open; dropped before the lease is.
    _mounted: Option<Arc<OwnedFd>>,
    /// The user and group of the host that are the root of the container's user namespace, where its files are seen
    /// through that: (0, 0) else.
    offset: (u32, u32),
    _lease: Lease,
    /// Of a container that does not run: its volumes that had to be mounted.
    _volumes: Option<Held>,
}

/// How an archive is to be copied in.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractOptions {
    /// Refuse to put a file where a directory is, and a directory where a file is.
    pub keep_kinds: bool,
    /// Give everything to the container's user.
    pub to_user: bool,
}

type WriteTo = dyn FnOnce(&mut dyn Write) -> Result<(), Refusal> + Send;

/// An archive that is yet to be written; blocks.
pub struct Archive(Box<WriteTo>);

impl Archive {
    pub fn write(self, out: &mut dyn Write) -> Result<(), Refusal> {
        (self.0)(out)
    }
}

impl Files {
    /// What is at a path.
    pub async fn stat(&self, container: &str, path: &str) -> Result<PathStat, Refusal> {
        let opened = self.open(container).await?;
        let path = path.to_string();
        blocking(move || Ok(opened.stat(&path)?.0)).await
    }

    /// What is at a path, to be copied out.
    pub async fn source(&self, container: &str, path: &str) -> Result<(PathStat, Source), Refusal> {
        let opened = self.open(container).await?;
        let (files, path) = (self.clone(), path.to_string());
        blocking(move || {
            let (stat, place) = opened.stat(&path)?;
            files.0.events().container(&opened.record, "archive-path", &[]);
            Ok((stat, Source { opened, path, place }))
        })
        .await
    }

    /// A directory to be copied into; refused is what cannot be written to.
    pub async fn destination(
        &self,
        container: &str,
        path: &str,
        options: ExtractOptions,
    ) -> Result<Destination, Refusal> {
        let opened = self.open(container).await?;
        let (files, path) = (self.clone(), path.to_string());
        blocking(move || {
            let place = opened.directory(&path)?;
            let ownership = opened.ownership(options)?;
            Ok(Destination { files, opened, path, place, ownership, options })
        })
        .await
    }

    /// An archive of the whole root, without what is mounted in it.
    pub async fn export(&self, container: &str) -> Result<Archive, Refusal> {
        let record = self.0.find(container)?.view().record.clone();
        let files = self.clone();
        blocking(move || {
            let id = record.id.clone();
            let view = files.0.snapshots().open_view(&id);
            let root =
                view.map_err(|error| Refusal::from_error("cannot open the container's files", &error))?;
            files.0.events().container(&record, "export", &[]);
            Ok(Archive(Box::new(move |out| {
                let options = PackOptions { skip_kernel_files: true, ..PackOptions::default() };
                archive::pack(&Root::from_descriptor(root), &options, out)
                    .map(drop)
                    .map_err(|error| refusal(&format!("cannot export container {id}"), &error))
            })))
        })
        .await
    }

    async fn open(&self, container: &str) -> Result<Opened, Refusal> {
        let handle = self.0.find(container)?;
        let reached = handle.ask(|answer| Command::Reach { answer }).await?;
        let record = handle.view().record.clone();
        let (name, lease) = (container.to_string(), reached.lease);
        if let Some(root) = reached.root {
            let root = Root::from_descriptor(root);
            let facts = self.0.facts();
            let remap = model::remap::of(&record.host_config, facts.remap.as_ref());
            let offset = remap.map_or((0, 0), model::remap::Remap::root);
            return Ok(Opened {
                name,
                root,
                is_running: true,
                record,
                offset,
                _mounted: None,
                _lease: lease,
                _volumes: None,
            });
        }
        settle(&handle).await?;
        let files = self.clone();
        blocking(move || {
            let volumes = files.0.volumes().hold(&record)?;
            let mounted = lease.share_root(|| {
                let root = files.0.snapshots().open_root(&record.id);
                root.map_err(|error| cannot_open(&record, &error))
            })?;
            let root = mounted.try_clone().map_err(|error| cannot_open(&record, &error))?;
            let root = files.with_mounts(Root::from_descriptor(root), &record)?;
            // Its layers are opened as they are on disk, where they have the container's own numbers.
            Ok(Opened {
                name,
                root,
                is_running: false,
                record,
                offset: (0, 0),
                _mounted: Some(mounted),
                _lease: lease,
                _volumes: Some(volumes),
            })
        })
        .await
    }

    /// The root of a container that does not run, with what is mounted in it from the host.
    fn with_mounts(&self, mut root: Root, record: &Record) -> Result<Root, Refusal> {
        let cannot = |error: &dyn std::error::Error| cannot_open(record, error);
        let given = GivenFiles::of(self.0.paths(), record);
        for (source, target) in [
            (&given.resolv_conf, "/etc/resolv.conf"),
            (&given.hostname, "/etc/hostname"),
            (&given.hosts, "/etc/hosts"),
        ] {
            let own = record.mounts.iter().any(|mount| mount.destination == Path::new(target));
            // They are written with the first start.
            if let (false, Ok(file)) = (own, open_source(source, Path::new(""))) {
                root.graft(Path::new(target), file, record.host_config.readonly_rootfs)
                    .map_err(|error| cannot(&error))?;
            }
        }
        for mount in self.0.volumes().host_mounts(record) {
            let source = match open_source(&mount.source, &mount.subpath) {
                // A bind's source may be gone, or not yet be made; then there is nothing to see there.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(|error| {
                    let what = format!(
                        "cannot open {}, which is mounted on {}",
                        mount.source.display(),
                        mount.target.display()
                    );
                    Refusal::from_error(&what, &error)
                })?,
            };
            root.graft(&mount.target, source, mount.read_only).map_err(|error| cannot(&error))?;
        }
        Ok(root)
    }
}

fn cannot_open(record: &Record, error: &dyn std::error::Error) -> Refusal {
    Refusal::from_error(&format!("cannot open the files of container {}", record.name), error)
}

fn open_source(source: &Path, below: &Path) -> std::io::Result<OwnedFd> {
    let handle = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if below.as_os_str().is_empty() { Ok(handle) } else { Root::from_descriptor(handle).locate(below) }
}

/// Waits until nothing of the container's last run is left on its root.
async fn settle(handle: &Handle) -> Result<(), Refusal> {
    match tokio::time::timeout(SETTLING, handle.until(|view| view.settled)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Refusal::conflict(format!(
            "container {} has ended, and its end takes long; try again",
            handle.view().name()
        ))),
    }
}

impl Opened {
    /// Docker's words for a path that leads nowhere.
    fn cannot_find(&self, path: &str, error: &std::io::Error) -> Refusal {
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                Refusal::not_found(format!("Could not find the file {path} in container {}", self.name))
            }
            std::io::ErrorKind::NotADirectory => Refusal::invalid(format!("lstat {path}: not a directory")),
            _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                Refusal::invalid(format!("lstat {path}: too many levels of symbolic links"))
            }
            std::io::ErrorKind::InvalidFilename => {
                Refusal::invalid(format!("lstat {path}: file name too long"))
            }
            _ => Refusal::from_error(&format!("lstat {path}"), error),
        }
    }

    fn stat(&self, path: &str) -> Result<(PathStat, archive::Place), Refusal> {
        let absolute = path::absolute(path);
        let failed = |error: std::io::Error| self.cannot_find(path, &error);
        let place = self.root.place_of_link(Path::new(&absolute)).map_err(failed)?;
        let mut stat = stat::of(&place.found, path::base(&absolute)).map_err(failed)?;
        if stat.mode & stat::SYMLINK != 0 {
            let target = self.root.follow(Path::new(&absolute)).map_err(failed)?;
            stat.link_target = target.to_string_lossy().into_owned();
        }
        Ok((stat, place))
    }

    /// The directory at a path, if it may be written to.
    fn directory(&self, path: &str) -> Result<archive::Place, Refusal> {
        let absolute = path::absolute(path);
        let failed = |error: std::io::Error| self.cannot_find(path, &error);
        let place = self.root.place(Path::new(&absolute)).map_err(failed)?;
        let stat = rustix::fs::fstat(&place.found).map_err(|errno| failed(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Refusal::invalid("extraction point is not a directory"));
        }
        self.check_writable(&place)?;
        Ok(place)
    }

    fn check_writable(&self, place: &archive::Place) -> Result<(), Refusal> {
        let read_only = |what: &str| Refusal::new(Kind::Forbidden, format!("{what} is marked read-only"));
        if !self.is_running {
            return match self.root.graft_over(&place.path) {
                Some(graft) if graft.read_only => Err(read_only("mounted volume")),
                None if self.record.host_config.readonly_rootfs => Err(read_only("container rootfs")),
                _ => Ok(()),
            };
        }
        let flags = rustix::fs::fstatvfs(&place.found).map(|stat| stat.f_flag);
        if !flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::RDONLY)) {
            return Ok(());
        }
        let here = Path::new("/").join(&place.path);
        let in_mount = self.record.mounts.iter().any(|mount| here.starts_with(&mount.destination));
        Err(read_only(if in_mount { "mounted volume" } else { "container rootfs" }))
    }

    fn ownership(&self, options: ExtractOptions) -> Result<Ownership, Refusal> {
        let user = &self.record.config.user;
        if !options.to_user || user.is_empty() {
            return Ok(match self.offset {
                (0, 0) => Ownership::Keep,
                (uid, gid) => Ownership::Shift { uid, gid },
            });
        }
        let identity = sandbox::users::lookup(&self.root, user, &[]);
        let identity = identity.map_err(|error| Refusal::invalid(error.to_string()))?;
        let (users, groups) = self.offset;
        Ok(Ownership::Fixed {
            uid: identity.uid.saturating_add(users),
            gid: identity.gid.saturating_add(groups),
        })
    }
}

/// What went wrong with an archive, in the API's words.
pub(crate) fn refusal(doing: &str, error: &archive::Error) -> Refusal {
    let kind = match error {
        error if error.is_invalid_archive() => Kind::Invalid,
        archive::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
            Kind::Forbidden
        }
        _ => Kind::System,
    };
    let refusal = Refusal { kind, ..Refusal::from_error(doing, error) };
    match error {
        archive::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => refusal
            .hint("the disk is full: what was copied until then is there; remove something and copy again"),
        _ => refusal,
    }
}
