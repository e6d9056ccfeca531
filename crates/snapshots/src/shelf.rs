//! What every driver keeps alike: which layers and read-write layers there are, on what each lies, and under which name.
//!
//! ```text
//! <root>/<16 digits of the chain ID>/fs            the layer
//! <root>/<16 digits of the chain ID>/layer.json    chain ID, parent, size
//! <root>/containers/<id>/top -> <16 digits>        what the read-write layer lies on; absent for scratch
//! <root>/containers/<id>/…                         the read-write layer, in the driver's own way
//! <root>/rest/<number>                             stages, and trees on their way out; emptied at open
//! ```
//! A layer that is *doubted* when the shelf is opened (see [`Doubted`]) loses its tree and keeps its place: what lies on
//! it stays, and it is filled again by committing it.
//!
//! Names are short because overlayfs mounts carry one path per layer. What is on disk is read once, at open; after
//! that, memory knows. Every change of the disk that gives or takes a name is one `rename` under the lock; filling and
//! emptying trees happens outside of it.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci::Digest;
use rustix::fs::{IFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::{Doubted, Error, Form, Layer, Rest, Stage, check_name, io};

const SHORT_LEN: usize = 16;

/// Removes a tree, whatever lies in it.
pub type Remove = fn(&Path) -> std::io::Result<()>;

/// One driver's directory; one process at a time may have it open.
#[derive(Debug)]
pub struct Shelf {
    root: PathBuf,
    form: Form,
    remove: Remove,
    rest_next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    layers: HashMap<Digest, Kept>,
    containers: BTreeMap<String, Option<Digest>>,
}

#[derive(Debug)]
struct Kept {
    parent: Option<Digest>,
    bytes: u64,
    /// Its tree is there. It is not while a layer is doubted.
    filled: bool,
    /// Layers directly above, there or being made.
    children: usize,
    /// Containers directly above.
    containers: usize,
}

#[derive(Serialize, Deserialize)]
struct LayerFile {
    chain: Digest,
    parent: Option<Digest>,
    bytes: u64,
}

impl State {
    fn insert(&mut self, file: LayerFile) {
        if let Some(parent) = file.parent.as_ref().and_then(|parent| self.layers.get_mut(parent)) {
            parent.children += 1;
        }
        self.layers.insert(file.chain, Kept::new(file.parent, file.bytes));
    }

    fn forget_container(&mut self, container: &str) {
        let top = self.containers.remove(container).flatten();
        if let Some(layer) = top.and_then(|top| self.layers.get_mut(&top)) {
            layer.containers -= 1;
        }
    }
}

impl Kept {
    fn new(parent: Option<Digest>, bytes: u64) -> Kept {
        Kept { parent, bytes, filled: true, children: 0, containers: 0 }
    }
}

fn short(chain: &Digest) -> &str {
    &chain.hex()[..SHORT_LEN]
}

/// Asks ext4 to put what is made in a directory each into a part of the disk of its own (`chattr +T`). Layers have nothing
/// to do with each other; and side by side, a new one would be slow for minutes after others were removed, as inodes that
/// have just become free are looked at and left alone, one by one, for each new file (`recently_deleted` in
/// `fs/ext4/ialloc.c`). It is a hint: other file systems have none.
fn spread(path: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(directory) = rustix::fs::open(path, flags, Mode::empty())
        && let Ok(flags) = rustix::fs::ioctl_getflags(&directory)
        && !flags.contains(IFlags::TOPDIR)
    {
        let _ = rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR);
    }
}

impl Shelf {
    /// Opens or makes the directory and removes what earlier work left unfinished there, and the trees of layers that are
    /// doubted.
    pub fn open(root: &Path, form: Form, remove: Remove, doubted: &[Doubted]) -> Result<Shelf, Error> {
        for path in [root.to_owned(), root.join("containers"), root.join("rest")] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(&path)
                .map_err(io("create", &path))?;
        }
        // Layers hold setuid programs and device nodes of strangers: only root may pass.
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700))
            .map_err(io("protect", root))?;
        spread(&root.join("rest"));
        let shelf = Shelf {
            root: root.to_owned(),
            form,
            remove,
            rest_next: AtomicU64::new(0),
            state: Mutex::new(State::default()),
        };
        shelf.sweep()?;
        for layer in doubted {
            let directory = shelf.root.join(short(&layer.chain));
            if std::fs::symlink_metadata(&directory).is_ok() {
                shelf.put_away(&directory)?;
            }
        }
        let layers = shelf.read_layers(doubted)?;
        let containers = shelf.read_containers(&layers)?;
        *shelf.lock() = State { layers, containers };
        shelf.count_users();
        Ok(shelf)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No operation leaves the state half changed, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweep(&self) -> Result<(), Error> {
        let rest = self.root.join("rest");
        for entry in std::fs::read_dir(&rest).map_err(io("list", &rest))? {
            let path = entry.map_err(io("list", &rest))?.path();
            (self.remove)(&path).map_err(io("remove", &path))?;
        }
        Ok(())
    }

    /// Whole layers only: one without a readable `layer.json`, or whose parent is not there, is put away. Those that are
    /// doubted have a place and nothing in it.
    fn read_layers(&self, doubted: &[Doubted]) -> Result<HashMap<Digest, Kept>, Error> {
        let mut found: HashMap<Digest, LayerFile> = HashMap::new();
        for entry in std::fs::read_dir(&self.root).map_err(io("list", &self.root))? {
            let entry = entry.map_err(io("list", &self.root))?;
            let name = entry.file_name();
            if name == "containers" || name == "rest" {
                continue;
            }
            let file = std::fs::read(entry.path().join("layer.json")).ok();
            match file.and_then(|bytes| serde_json::from_slice::<LayerFile>(&bytes).ok()) {
                Some(file) if name.to_str() == Some(short(&file.chain)) => {
                    found.insert(file.chain.clone(), file);
                }
                _ => self.put_away(&entry.path())?,
            }
        }
        let empty = |chain: &Digest| doubted.iter().any(|layer| layer.chain == *chain);
        loop {
            let is_there = |chain: &Digest| found.contains_key(chain) || empty(chain);
            let orphans: Vec<Digest> = found
                .values()
                .filter(|file| file.parent.as_ref().is_some_and(|parent| !is_there(parent)))
                .map(|file| file.chain.clone())
                .collect();
            if orphans.is_empty() {
                break;
            }
            for chain in orphans {
                found.remove(&chain);
                self.put_away(&self.root.join(short(&chain)))?;
            }
        }
        let whole = found.into_iter().map(|(chain, file)| (chain, Kept::new(file.parent, file.bytes)));
        let empty = doubted.iter().map(|layer| {
            let kept = Kept { filled: false, ..Kept::new(layer.parent.clone(), 0) };
            (layer.chain.clone(), kept)
        });
        Ok(whole.chain(empty).collect())
    }

    fn read_containers(
        &self,
        layers: &HashMap<Digest, Kept>,
    ) -> Result<BTreeMap<String, Option<Digest>>, Error> {
        let by_short: HashMap<&str, &Digest> = layers.keys().map(|chain| (short(chain), chain)).collect();
        let directory = self.root.join("containers");
        let mut containers = BTreeMap::new();
        for entry in std::fs::read_dir(&directory).map_err(io("list", &directory))? {
            let entry = entry.map_err(io("list", &directory))?;
            let top = match std::fs::read_link(entry.path().join("top")) {
                Ok(target) => {
                    let target = target.to_str().and_then(|target| by_short.get(target));
                    // Its layers are lost; so is it, whatever its record says.
                    let Some(chain) = target else {
                        self.put_away(&entry.path())?;
                        continue;
                    };
                    Some((*chain).clone())
                }
                Err(_) => None,
            };
            if let Some(name) = entry.file_name().to_str() {
                containers.insert(name.to_owned(), top);
            }
        }
        Ok(containers)
    }

    fn count_users(&self) {
        let mut state = self.lock();
        let parents: Vec<Digest> = state.layers.values().filter_map(|layer| layer.parent.clone()).collect();
        for parent in parents {
            if let Some(layer) = state.layers.get_mut(&parent) {
                layer.children += 1;
            }
        }
        let tops: Vec<Digest> = state.containers.values().flatten().cloned().collect();
        for top in tops {
            if let Some(layer) = state.layers.get_mut(&top) {
                layer.containers += 1;
            }
        }
    }

    fn rest(&self) -> PathBuf {
        self.root.join("rest").join(self.rest_next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Takes a tree's name at once, and then the tree.
    fn put_away(&self, path: &Path) -> Result<(), Error> {
        let rest = self.rest();
        std::fs::rename(path, &rest).map_err(io("remove", path))?;
        (self.remove)(&rest).map_err(io("remove", &rest))
    }

    pub fn container_directory(&self, container: &str) -> Result<PathBuf, Error> {
        check_name(container)?;
        Ok(self.root.join("containers").join(container))
    }

    pub fn layer_directory(&self, chain: &Digest) -> PathBuf {
        self.root.join(short(chain)).join("fs")
    }

    /// The directories of a layer and those below it, topmost first.
    fn directories(&self, state: &State, top: Option<&Digest>) -> Result<Vec<PathBuf>, Error> {
        let mut directories = Vec::new();
        let mut next = top;
        while let Some(chain) = next {
            let kept = state.layers.get(chain).ok_or_else(|| Error::NoLayer(chain.clone()))?;
            directories.push(self.layer_directory(chain));
            next = kept.parent.as_ref();
        }
        Ok(directories)
    }

    pub fn layer_directories(&self, top: Option<&Digest>) -> Result<Vec<PathBuf>, Error> {
        self.directories(&self.lock(), top)
    }

    /// The same for what a container lies on.
    pub fn container_layers(&self, container: &str) -> Result<Vec<PathBuf>, Error> {
        let state = self.lock();
        let top = state.containers.get(container).ok_or_else(|| self.no_container(container))?;
        self.directories(&state, top.as_ref())
    }

    /// Another driver may have it.
    fn no_container(&self, container: &str) -> Error {
        let drivers = self.root.parent().and_then(|parent| std::fs::read_dir(parent).ok());
        let other = drivers.into_iter().flatten().flatten().find(|entry| {
            let holder = entry.path().join("containers").join(container);
            entry.path() != self.root && std::fs::symlink_metadata(holder).is_ok()
        });
        let container = container.to_owned();
        match other {
            None => Error::NoContainer(container),
            Some(other) => {
                Error::Elsewhere { container, driver: other.file_name().to_string_lossy().into_owned() }
            }
        }
    }

    /// A stage whose directory is still to be made.
    pub fn stage(&self, parent: Option<&Digest>, lowers: Vec<PathBuf>) -> Result<Stage, Error> {
        let holder = self.rest();
        make_directory(&holder, 0o700)?;
        let (form, remove) = (self.form, self.remove);
        Ok(Stage { holder, parent: parent.cloned(), lowers, form, remove })
    }

    /// Keeps a layer from going away while something is made of it.
    pub fn hold<T>(&self, chain: &Digest, work: impl FnOnce(&Path) -> Result<T, Error>) -> Result<T, Error> {
        let change = |by: fn(usize) -> usize| {
            let mut state = self.lock();
            let kept = state.layers.get_mut(chain).ok_or_else(|| Error::NoLayer(chain.clone()))?;
            kept.children = by(kept.children);
            Ok::<_, Error>(())
        };
        change(|count| count + 1)?;
        let made = work(&self.layer_directory(chain));
        change(|count| count - 1)?;
        made
    }

    pub fn commit(&self, stage: Stage, chain: &Digest, bytes: u64) -> Result<(), Error> {
        if let Some(present) = self.layer(chain)
            && present.parent != stage.parent
        {
            return Err(Error::Parent(chain.clone()));
        }
        // Dropping the stage afterwards finds nothing under its old name, or the loser of a race.
        self.name_layer(&stage.holder, chain, stage.parent.clone(), bytes)
    }

    /// Gives the tree in `holder` (`fs` filled) its name.
    fn name_layer(
        &self,
        holder: &Path,
        chain: &Digest,
        parent: Option<Digest>,
        bytes: u64,
    ) -> Result<(), Error> {
        let file = LayerFile { chain: chain.clone(), parent, bytes };
        let path = holder.join("layer.json");
        let text = serde_json::to_vec(&file).map_err(|error| io("write", &path)(error.into()))?;
        std::fs::write(&path, text).map_err(io("write", &path))?;
        let mut state = self.lock();
        if state.layers.get(chain).is_some_and(|kept| kept.filled) {
            return Ok(());
        }
        if let Some(parent) = &file.parent
            && !state.layers.contains_key(parent)
        {
            return Err(Error::NoLayer(parent.clone()));
        }
        let name = self.root.join(short(chain));
        if name.exists() {
            return Err(Error::ShortName(chain.clone()));
        }
        std::fs::rename(holder, &name).map_err(io("name", &name))?;
        match state.layers.get_mut(chain) {
            // Its place was kept, with those who lie on it.
            Some(kept) => (kept.bytes, kept.filled) = (bytes, true),
            None => state.insert(file),
        }
        Ok(())
    }

    /// Makes a layer of what `fill` puts into a stage's directory, and takes the container away.
    pub fn adopt(
        &self,
        container: &str,
        chain: &Digest,
        bytes: u64,
        fill: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Rest, Error> {
        let top = self.top(container)?;
        if self.layer(chain).is_none() {
            let stage = self.stage(top.as_ref(), Vec::new())?;
            fill(&stage.directory())?;
            self.name_layer(&stage.holder, chain, top, bytes)?;
        }
        self.destroy(container)
    }

    pub fn layer(&self, chain: &Digest) -> Option<Layer> {
        let state = self.lock();
        state.layers.get(chain).filter(|kept| kept.filled).map(|kept| self.describe(chain, kept))
    }

    pub fn layers(&self) -> Vec<Layer> {
        let state = self.lock();
        let filled = state.layers.iter().filter(|(_, kept)| kept.filled);
        filled.map(|(chain, kept)| self.describe(chain, kept)).collect()
    }

    fn describe(&self, chain: &Digest, kept: &Kept) -> Layer {
        Layer {
            chain: chain.clone(),
            parent: kept.parent.clone(),
            bytes: kept.bytes,
            directory: self.layer_directory(chain),
        }
    }

    pub fn remove(&self, chain: &Digest) -> Result<Rest, Error> {
        let rest = self.rest();
        {
            let mut state = self.lock();
            let kept = state.layers.get(chain).ok_or_else(|| Error::NoLayer(chain.clone()))?;
            if kept.children > 0 {
                return Err(Error::HasChildren(chain.clone()));
            }
            if kept.containers > 0 {
                let user = state.containers.iter().find(|(_, top)| top.as_ref() == Some(chain));
                let container = user.map(|(name, _)| name.clone()).unwrap_or_default();
                return Err(Error::InUse { layer: chain.clone(), container });
            }
            if kept.filled {
                let path = self.root.join(short(chain));
                std::fs::rename(&path, &rest).map_err(io("remove", &path))?;
            }
            let parent = state.layers.remove(chain).and_then(|kept| kept.parent);
            if let Some(parent) = parent.as_ref().and_then(|parent| state.layers.get_mut(parent)) {
                parent.children -= 1;
            }
        }
        Ok(Rest { path: rest, remove: self.remove })
    }

    /// Makes a container's directory and lets `fill` put its read-write layer there.
    pub fn create(
        &self,
        container: &str,
        top: Option<&Digest>,
        fill: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let directory = self.container_directory(container)?;
        {
            // Counted first, so that the layer cannot go away meanwhile.
            let mut state = self.lock();
            if state.containers.contains_key(container) {
                return Err(Error::ContainerExists(container.to_owned()));
            }
            if let Some(top) = top {
                let kept = state.layers.get_mut(top).ok_or_else(|| Error::NoLayer(top.clone()))?;
                kept.containers += 1;
            }
            state.containers.insert(container.to_owned(), top.cloned());
        }
        let made = make_container(&directory, top).and_then(|()| fill(&directory));
        if made.is_err() {
            self.lock().forget_container(container);
            let _ = (self.remove)(&directory);
        }
        made
    }

    pub fn top(&self, container: &str) -> Result<Option<Digest>, Error> {
        self.lock().containers.get(container).cloned().ok_or_else(|| self.no_container(container))
    }

    pub fn containers(&self) -> Vec<String> {
        self.lock().containers.keys().cloned().collect()
    }

    pub fn destroy(&self, container: &str) -> Result<Rest, Error> {
        let directory = self.container_directory(container)?;
        let rest = self.rest();
        {
            let mut state = self.lock();
            match std::fs::rename(&directory, &rest) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(io("remove", &directory)(error));
                }
                _ => {}
            }
            state.forget_container(container);
        }
        Ok(Rest { path: rest, remove: self.remove })
    }

    pub fn sync(&self) -> Result<(), Error> {
        let directory = std::fs::File::open(&self.root).map_err(io("open", &self.root))?;
        rustix::fs::syncfs(&directory).map_err(|errno| io("sync", &self.root)(errno.into()))
    }
}

pub fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::DirBuilder::new().mode(mode).create(path).map_err(io("create", path))?;
    // The process's umask must not narrow what a container's users see.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io("create", path))
}

fn make_container(directory: &Path, top: Option<&Digest>) -> Result<(), Error> {
    std::fs::DirBuilder::new().mode(0o700).create(directory).map_err(io("create", directory))?;
    if let Some(top) = top {
        let link = directory.join("top");
        symlink(short(top), &link).map_err(io("create", &link))?;
    }
    Ok(())
}
