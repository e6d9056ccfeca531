//! Copy-up: an empty volume gets what the image has at its place, once, when a container is created on it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use model::Refusal;
use model::create::Record;
use model::mounts::{ContainerMount, Source};
use model::volumes::Backing;
use rustix::fs::{FileType, Mode, OFlags};
use sys::Root;

use super::{Keeper, Reserved, Step, Volumes, filesystem, refusal};
use crate::failpoint;

impl Volumes {
    /// Fills the empty volumes among a new container's from its image; `top` is the image's topmost layer. Blocks.
    pub(crate) fn fill(
        &self,
        record: &Record,
        reserved: &Reserved<'_>,
        top: Option<&oci::Digest>,
    ) -> Result<(), Refusal> {
        let mut image = None;
        let mut written = 0;
        for mount in &record.mounts {
            let Source::Volume { name, copy, anonymous, .. } = &mount.source else { continue };
            let Some(top) = top.filter(|_| *copy) else { continue };
            failpoint::hit("create.fill")?;
            let mut find = || -> Result<Option<OwnedFd>, Refusal> {
                if image.is_none() {
                    let opened = self.0.snapshots().open_layers(top);
                    let opened = opened
                        .map_err(|error| Refusal::from_error("cannot open the image's layers", &error))?;
                    image = Some(Root::from_descriptor(opened));
                }
                image.as_ref().map_or(Ok(None), |image| in_image(image, mount, *anonymous))
            };
            written += self.keeper().fill(record, reserved, name, &mut find)?;
        }
        if written > 0 {
            // What the answer to the create promises is on disk then; volumes that begin empty cost no sync.
            sync(self.keeper().local.root())
                .map_err(|error| Refusal::from_error("cannot sync the volumes", &error))?;
        }
        Ok(())
    }
}

fn sync(root: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::syncfs(rustix::fs::open(root, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?)
}

/// What the image has at a mount's place; none if there is nothing to copy.
fn in_image(image: &Root, mount: &ContainerMount, anonymous: bool) -> Result<Option<OwnedFd>, Refusal> {
    let Ok(found) = image.locate(&mount.destination) else { return Ok(None) };
    let kind = rustix::fs::fstat(&found).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::Directory) => Ok(Some(found)),
        Ok(_) if anonymous => Err(Refusal::invalid(format!(
            "cannot mount volume over existing file, file exists {}",
            mount.destination.display()
        ))),
        _ => Ok(None),
    }
}

type Find<'a> = &'a mut dyn FnMut() -> Result<Option<OwnedFd>, Refusal>;

impl Keeper {
    /// Fills one volume if it is empty; returns the entries that were copied.
    fn fill(
        &self,
        record: &Record,
        reserved: &Reserved<'_>,
        name: &str,
        find: Find<'_>,
    ) -> Result<u64, Refusal> {
        if let Some(data) = reserved.staged_data(name) {
            // Nobody else knows it yet.
            let backing = reserved.backing(name);
            return fill_backing(name, &backing, &data, find);
        }
        // Whoever comes second waits here until the first is done, and finds it filled.
        let Some(volume) = self.take(name, Step::Busy) else { return Ok(0) };
        let (mounted, shared) = self
            .lock()
            .get(name)
            .map_or((false, false), |entry| (!entry.mounted_by.is_empty(), entry.users.len() > 1));
        let data = self.local.data(name);
        let filled = match volume.backing() {
            // Mounted for a container that runs: what is there is what it sees.
            Backing::Filesystem { .. } if mounted => fill_directory(name, &data, find),
            Backing::Directory if !shared => self.fill_apart(name, &data, find),
            backing => fill_backing(name, &backing, &data, find),
        };
        self.give_back(name);
        filled.map_err(|refused| Refusal {
            message: format!("container {}: {}", record.name, refused.message),
            ..refused
        })
    }
}

impl Keeper {
    /// Fills a volume that no other container has: a crash leaves it empty, or whole.
    fn fill_apart(&self, name: &str, data: &Path, find: Find<'_>) -> Result<u64, Refusal> {
        if !is_empty_directory(data) {
            return Ok(0);
        }
        let Some(source) = find()? else { return Ok(0) };
        let doing = format!("failed to copy the image's content to volume {name}");
        let refill = self.local.refill(name).map_err(|error| refusal(&doing, &error))?;
        let copied = fill_directory(name, &refill.data(), &mut || Ok(source.try_clone().ok()))?;
        refill.publish().map_err(|error| refusal(&doing, &error))?;
        Ok(copied)
    }
}

fn is_empty_directory(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.is_ok_and(|directory| sys::is_empty_directory(directory).unwrap_or(false))
}

fn fill_backing(name: &str, backing: &Backing, data: &Path, find: Find<'_>) -> Result<u64, Refusal> {
    let doing = format!("error while mounting volume '{}'", data.display());
    let path: PathBuf = match backing {
        Backing::Directory => data.to_owned(),
        Backing::Bind { read_only: true, .. } => return Ok(0),
        Backing::Bind { path, .. } => path.clone(),
        // What is written there is gone when the last container ends.
        Backing::Filesystem { kind, .. } if matches!(kind.as_str(), "tmpfs" | "ramfs") => return Ok(0),
        Backing::Filesystem { .. } => {
            let Some(filesystem) = filesystem(backing.clone()) else { return Ok(0) };
            volumes::mount(&filesystem, data).map_err(|error| refusal(&doing, &error))?;
            let filled = fill_directory(name, data, find);
            volumes::unmount(data).map_err(|error| refusal(&doing, &error))?;
            return filled;
        }
    };
    fill_directory(name, &path, find)
}

fn fill_directory(name: &str, path: &Path, find: Find<'_>) -> Result<u64, Refusal> {
    let failed = |error: &dyn std::error::Error| {
        Refusal::from_error(&format!("failed to copy the image's content to volume {name}"), error)
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(target) => target,
        // Told when it is mounted, with what to do about it.
        Err(rustix::io::Errno::NOENT) => return Ok(0),
        Err(errno) => return Err(failed(&std::io::Error::from(errno))),
    };
    if !sys::is_empty_directory(&target).map_err(|error| failed(&error))? {
        return Ok(0);
    }
    let Some(source) = find()? else { return Ok(0) };
    match sys::copy_tree(&source, &target) {
        Ok(copied) => Ok(copied.entries),
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Err(failed(&error).hint("the disk is full: see what takes the space with system df"))
        }
        Err(error) => Err(failed(&error)),
    }
}
