//! The directories: staged, named, retired, adopted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::{Error, io, mount};

const DATA: &str = "_data";
const OPTIONS: &str = "opts.json";
const NEW: &str = ".new.";
const GONE: &str = ".gone.";
/// Levels of directories that are measured: what runs in a container can make any number.
const DEPTH_MAX: usize = 500;
/// Largest `opts.json` that is read, in bytes.
const OPTIONS_MAX: u64 = 64 << 10;

/// The driver on one directory; one process at a time may have it open.
#[derive(Debug)]
pub struct Local {
    root: PathBuf,
    next: AtomicU64,
}

/// A volume whose directory was found and that nobody knew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    pub name: String,
    /// `type`, `o` and `device`, where it has them.
    pub options: BTreeMap<String, String>,
}

/// What opening found.
#[derive(Debug, Default)]
pub struct Opened {
    pub adopted: Vec<Adopted>,
    /// Known volumes whose directory was not there; it has been made anew.
    pub remade: Vec<String>,
    /// What could not be put right.
    pub failed: Vec<Error>,
}

/// `opts.json`, with Docker's names.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct OptionsFile {
    mount_type: String,
    mount_opts: String,
    mount_device: String,
}

impl OptionsFile {
    fn of(options: &BTreeMap<String, String>) -> OptionsFile {
        let text = |key: &str| options.get(key).cloned().unwrap_or_default();
        OptionsFile { mount_type: text("type"), mount_opts: text("o"), mount_device: text("device") }
    }

    fn options(self) -> BTreeMap<String, String> {
        let all = [("type", self.mount_type), ("o", self.mount_opts), ("device", self.mount_device)];
        all.into_iter().filter(|(_, text)| !text.is_empty()).map(|(key, text)| (key.into(), text)).collect()
    }
}

/// A volume being made. Dropped without [`Staged::publish`], it goes away with its content.
#[derive(Debug)]
pub struct Staged {
    /// Where it is now.
    holder: PathBuf,
    name: PathBuf,
    /// The directory was there before, and stays whatever happens.
    found: bool,
}

impl Staged {
    /// The directory of its content, to be filled before it is named.
    pub fn data(&self) -> PathBuf {
        self.holder.join(DATA)
    }

    /// Gives it its name, in one step.
    pub fn publish(mut self) -> Result<(), Error> {
        if !self.found {
            std::fs::rename(&self.holder, &self.name).map_err(io("name", &self.name))?;
            self.found = true;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.found {
            // Swept at the next open if it fails now.
            let _ = remove(&self.holder);
        }
    }
}

/// New content for an empty volume. Dropped without [`Refill::publish`], it goes away.
#[derive(Debug)]
pub struct Refill {
    holder: PathBuf,
    data: PathBuf,
}

impl Refill {
    /// The directory to fill.
    pub fn data(&self) -> PathBuf {
        self.holder.join(DATA)
    }

    /// Puts it in the place of the empty directory, in one step.
    pub fn publish(self) -> Result<(), Error> {
        std::fs::rename(self.data(), &self.data).map_err(io("fill", &self.data))
    }
}

impl Drop for Refill {
    fn drop(&mut self) {
        let _ = remove(&self.holder);
    }
}

/// A volume that has lost its name. [`Gone::undo`] gives it back; dropping it removes the content, which takes as
/// long as it has files: drop it where nobody waits.
#[derive(Debug)]
#[must_use = "dropping it is the slow part"]
pub struct Gone {
    holder: Option<PathBuf>,
    name: PathBuf,
}

impl Gone {
    pub fn undo(mut self) -> Result<(), Error> {
        match self.holder.take() {
            Some(holder) => std::fs::rename(&holder, &self.name).map_err(io("bring back", &self.name)),
            None => Ok(()),
        }
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(holder) = &self.holder {
            let _ = remove(holder);
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let remove = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(parent, flags, Mode::empty())?;
        sys::remove_tree(parent.as_fd(), &CString::new(name.as_bytes())?)
    };
    remove().map_err(io("remove", path))
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::DirBuilder::new().mode(mode).create(path).map_err(io("create", path))?;
    // The process's umask must not narrow what a container's users see.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io("create", path))
}

impl Local {
    /// Opens or makes the root, finishes what a crash cut short, and unmounts nothing: that is for who knows what runs.
    /// `known` are the names of the volumes that there are.
    pub fn open(root: &Path, known: &BTreeSet<String>) -> Result<(Local, Opened), Error> {
        std::fs::DirBuilder::new().recursive(true).mode(0o701).create(root).map_err(io("create", root))?;
        let local = Local { root: root.to_owned(), next: AtomicU64::new(0) };
        let mut opened = Opened::default();
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(root).map_err(io("list", root))? {
            let entry = entry.map_err(io("list", root))?;
            let Some(name) = entry.file_name().to_str().map(String::from) else { continue };
            match local.take_up(&name, known, &mut opened) {
                Ok(Some(name)) => {
                    found.insert(name);
                }
                Ok(None) => {}
                Err(error) => opened.failed.push(error),
            }
        }
        for name in known.difference(&found) {
            // A loss of power may have taken a directory that nobody had written to.
            match local.stage(name, &BTreeMap::new()).and_then(Staged::publish) {
                Ok(()) => opened.remade.push(name.clone()),
                Err(error) => opened.failed.push(error),
            }
        }
        Ok((local, opened))
    }

    /// Puts one entry of the root right; returns the volume that it is.
    fn take_up(
        &self,
        entry: &str,
        known: &BTreeSet<String>,
        opened: &mut Opened,
    ) -> Result<Option<String>, Error> {
        let path = self.root.join(entry);
        let unfinished = entry
            .strip_prefix(NEW)
            .or_else(|| entry.strip_prefix(GONE).and_then(|rest| Some(rest.split_once('.')?.1)));
        if let Some(name) = unfinished {
            // Its record decides: made but not named yet, or retired and not forgotten yet.
            let wanted = known.contains(name) && !self.root.join(name).exists();
            if !wanted {
                remove(&path)?;
                return Ok(None);
            }
            std::fs::rename(&path, self.root.join(name)).map_err(io("name", &path))?;
            return Ok(Some(name.into()));
        }
        if !is_name(entry) || !path.join(DATA).is_dir() {
            return Ok(None);
        }
        if !known.contains(entry) {
            opened.adopted.push(Adopted { name: entry.into(), options: self.read_options(entry) });
        }
        Ok(Some(entry.into()))
    }

    /// What `opts.json` of a volume's directory says; nothing if it is not there or not readable.
    pub fn read_options(&self, name: &str) -> BTreeMap<String, String> {
        let path = self.root.join(name).join(OPTIONS);
        let small =
            std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= OPTIONS_MAX);
        let bytes = if small { std::fs::read(&path).ok() } else { None };
        let file: Option<OptionsFile> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        file.map(OptionsFile::options).unwrap_or_default()
    }

    /// The directory of a volume's content.
    pub fn data(&self, name: &str) -> PathBuf {
        self.root.join(name).join(DATA)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a volume's directory, without its name. One that is there already under the name is taken as it is.
    pub fn stage(&self, name: &str, options: &BTreeMap<String, String>) -> Result<Staged, Error> {
        let path = self.root.join(name);
        if path.join(DATA).is_dir() {
            return Ok(Staged { holder: path.clone(), name: path, found: true });
        }
        if std::fs::symlink_metadata(&path).is_ok() && std::fs::remove_dir(&path).is_err() {
            return Err(Error::Foreign(path));
        }
        let holder = self.root.join(format!("{NEW}{name}"));
        // What an earlier failure could not remove.
        remove(&holder)?;
        make_directory(&holder, 0o701)?;
        let staged = Staged { holder, name: path, found: false };
        make_directory(&staged.data(), 0o755)?;
        if !options.is_empty() {
            let file = staged.holder.join(OPTIONS);
            let text = serde_json::to_vec(&OptionsFile::of(options))
                .map_err(|error| io("write", &file)(error.into()))?;
            std::fs::write(&file, text).map_err(io("write", &file))?;
        }
        Ok(staged)
    }

    /// Prepares content for a volume that is empty and that nobody has mounted, so that a crash leaves it empty or
    /// whole.
    pub fn refill(&self, name: &str) -> Result<Refill, Error> {
        let holder = self.root.join(format!("{NEW}{name}"));
        remove(&holder)?;
        make_directory(&holder, 0o701)?;
        let refill = Refill { holder, data: self.data(name) };
        make_directory(&refill.data(), 0o755)?;
        Ok(refill)
    }

    /// Takes a volume's name; a directory that is not there is no error.
    pub fn retire(&self, name: &str) -> Result<Gone, Error> {
        let path = self.root.join(name);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let holder = self.root.join(format!("{GONE}{number}.{name}"));
        // Left from an earlier daemon, if it could not be removed.
        remove(&holder)?;
        match std::fs::rename(&path, &holder) {
            Ok(()) => Ok(Gone { holder: Some(holder), name: path }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Gone { holder: None, name: path }),
            Err(error) => Err(io("remove", &path)(error)),
        }
    }

    /// Fails if a volume's directory has gone away.
    pub fn check(&self, name: &str) -> Result<(), Error> {
        let data = self.data(name);
        if data.is_dir() { Ok(()) } else { Err(Error::Missing(data)) }
    }

    /// Names of the volumes that something is mounted on.
    pub fn mounted(&self) -> BTreeSet<String> {
        let names = mount::mounted_below(&self.root).into_iter().filter_map(|path| {
            let rest = path.strip_prefix(&self.root).ok()?;
            rest.components().next()?.as_os_str().to_str().map(String::from)
        });
        names.collect()
    }

    /// Bytes of content, hard links counted once. Takes as long as there are files.
    pub fn usage(&self, name: &str) -> Result<u64, Error> {
        measure(&self.data(name))
    }
}

/// Bytes of content below a directory.
fn measure(path: &Path) -> Result<u64, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| io("measure", path)(errno.into()))?;
    sys::tree_usage(directory, DEPTH_MAX).map(|usage| usage.bytes).map_err(io("measure", path))
}

/// Whether a directory may be a volume by its name.
fn is_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.len() > 1 && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    fn listing(root: &Path) -> Vec<String> {
        let mut all: Vec<String> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_volume_is_named_whole_or_not_at_all() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("volumes");
        let (local, _) = Local::open(&root, &names(&[])).unwrap();
        drop(local.stage("lost", &BTreeMap::new()).unwrap());
        assert_eq!(listing(&root), [""; 0]);
        let staged = local.stage("kept", &BTreeMap::new()).unwrap();
        std::fs::write(staged.data().join("file"), "1234").unwrap();
        staged.publish().unwrap();
        assert_eq!(local.usage("kept").unwrap(), 4);
        // What is there is taken as it is, and stays when the making fails.
        drop(local.stage("kept", &BTreeMap::new()).unwrap());
        assert_eq!(listing(&root), ["kept"]);
        local.retire("kept").unwrap().undo().unwrap();
        assert_eq!(listing(&root), ["kept"]);
        drop(local.retire("kept").unwrap());
        drop(local.retire("kept").unwrap());
        assert_eq!(listing(&root), [""; 0]);
        assert!(matches!(local.check("kept"), Err(Error::Missing(_))));
    }

    #[test]
    fn a_crash_at_any_point_is_finished_at_open() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        let make = |name: &str| std::fs::create_dir_all(root.join(name).join(DATA)).unwrap();
        make(".new.committed");
        make(".new.uncommitted");
        make(".gone.0.still-recorded");
        make(".gone.7.forgotten");
        make("plain");
        std::fs::create_dir(root.join("no-data")).unwrap();
        make("-bad");
        let known = names(&["committed", "still-recorded", "lost", "plain"]);
        let (_, opened) = Local::open(root, &known).unwrap();
        assert!(opened.adopted.is_empty() && opened.failed.is_empty(), "{opened:?}");
        assert_eq!(opened.remade, ["lost"]);
        assert_eq!(listing(root), ["-bad", "committed", "lost", "no-data", "plain", "still-recorded"]);
    }

    #[test]
    fn an_empty_volume_is_filled_whole_or_not_at_all() {
        let scratch = tempfile::tempdir().unwrap();
        let (local, _) = Local::open(scratch.path(), &names(&[])).unwrap();
        local.stage("web", &BTreeMap::new()).unwrap().publish().unwrap();
        let refill = local.refill("web").unwrap();
        std::fs::write(refill.data().join("half"), "").unwrap();
        drop(refill);
        assert_eq!(local.usage("web").unwrap(), 0);
        let refill = local.refill("web").unwrap();
        std::fs::write(refill.data().join("whole"), "12").unwrap();
        refill.publish().unwrap();
        assert_eq!(local.usage("web").unwrap(), 2);
        assert_eq!(listing(scratch.path()), ["web"]);
    }

    #[test]
    fn directories_are_adopted_with_their_options() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        let (local, _) = Local::open(root, &names(&[])).unwrap();
        let options: BTreeMap<String, String> = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        local.stage("shared", &options).unwrap().publish().unwrap();
        std::fs::create_dir_all(root.join("bare").join(DATA)).unwrap();
        std::fs::write(root.join("bare").join(OPTIONS), "not json").unwrap();
        let (_, mut opened) = Local::open(root, &names(&[])).unwrap();
        opened.adopted.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(
            opened.adopted,
            [
                Adopted { name: "bare".into(), options: BTreeMap::new() },
                Adopted { name: "shared".into(), options }
            ]
        );
    }
}
