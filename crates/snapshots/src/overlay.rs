//! The overlayfs driver: one directory per layer, put over each other by the kernel.
//!
//! ```text
//! <root>/<16 digits of the chain ID>/fs            the layer's own content
//! <root>/<16 digits of the chain ID>/layer.json    chain ID, parent, size
//! <root>/containers/<id>/top -> <16 digits>        what the read-write layer lies on; absent for scratch
//! <root>/containers/<id>/{upper,work}
//! <root>/rest/<number>                             stages, and trees on their way out; emptied at open
//! ```
//! Names are short because overlayfs mounts carry one path per layer. What is on disk is read once, at open; after
//! that, memory knows. Every change of the disk that gives or takes a name is one `rename` under the lock; filling and
//! emptying trees happens outside of it.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci::Digest;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::{
    Change, Error, Layer, Mounts, Rest, Snapshotter, Stage, Usage, changes, check_name, detached, io, tree,
};

const SHORT_LEN: usize = 16;

/// The driver on one directory; one process at a time may have it open.
#[derive(Debug)]
pub struct Overlay {
    root: PathBuf,
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
    /// Layers directly above.
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
        let kept = Kept { parent: file.parent, bytes: file.bytes, children: 0, containers: 0 };
        self.layers.insert(file.chain, kept);
    }

    fn forget_container(&mut self, container: &str) -> Option<Option<Digest>> {
        let top = self.containers.remove(container)?;
        if let Some(layer) = top.as_ref().and_then(|top| self.layers.get_mut(top)) {
            layer.containers -= 1;
        }
        Some(top)
    }
}

fn short(chain: &Digest) -> &str {
    &chain.hex()[..SHORT_LEN]
}

impl Overlay {
    /// Opens or makes the driver's directory and removes what earlier work left unfinished there.
    pub fn open(root: &Path) -> Result<Overlay, Error> {
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
        let overlay = Overlay {
            root: root.to_owned(),
            rest_next: AtomicU64::new(0),
            state: Mutex::new(State::default()),
        };
        overlay.sweep()?;
        let layers = overlay.read_layers()?;
        let containers = overlay.read_containers(&layers)?;
        *overlay.lock() = State { layers, containers };
        overlay.count_users();
        Ok(overlay)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No operation leaves the state half changed, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweep(&self) -> Result<(), Error> {
        let rest = self.root.join("rest");
        for entry in std::fs::read_dir(&rest).map_err(io("list", &rest))? {
            let path = entry.map_err(io("list", &rest))?.path();
            tree::remove(&path).map_err(io("remove", &path))?;
        }
        Ok(())
    }

    /// Whole layers only: one without a readable `layer.json`, or whose parent is not there, is put away.
    fn read_layers(&self) -> Result<HashMap<Digest, Kept>, Error> {
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
        loop {
            let orphans: Vec<Digest> = found
                .values()
                .filter(|file| file.parent.as_ref().is_some_and(|parent| !found.contains_key(parent)))
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
        let kept =
            |file: LayerFile| Kept { parent: file.parent, bytes: file.bytes, children: 0, containers: 0 };
        Ok(found.into_iter().map(|(chain, file)| (chain, kept(file))).collect())
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
        tree::remove(&rest).map_err(io("remove", &rest))
    }

    fn container_directory(&self, container: &str) -> Result<PathBuf, Error> {
        check_name(container)?;
        Ok(self.root.join("containers").join(container))
    }

    fn chain_directories(&self, state: &State, top: Option<&Digest>) -> Result<Vec<PathBuf>, Error> {
        let mut directories = Vec::new();
        let mut next = top;
        while let Some(chain) = next {
            let kept = state.layers.get(chain).ok_or_else(|| Error::NoLayer(chain.clone()))?;
            directories.push(self.root.join(short(chain)).join("fs"));
            next = kept.parent.as_ref();
        }
        Ok(directories)
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
        if state.layers.contains_key(chain) {
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
        state.insert(file);
        Ok(())
    }

    fn describe(&self, chain: &Digest, kept: &Kept) -> Layer {
        Layer {
            chain: chain.clone(),
            parent: kept.parent.clone(),
            bytes: kept.bytes,
            directory: self.root.join(short(chain)).join("fs"),
        }
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::DirBuilder::new().mode(mode).create(path).map_err(io("create", path))?;
    // The process's umask must not narrow what a container's users see.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io("create", path))
}

impl Snapshotter for Overlay {
    fn driver(&self) -> &'static str {
        "overlay2"
    }

    fn stage(&self, parent: Option<&Digest>) -> Result<Stage, Error> {
        let lowers = self.chain_directories(&self.lock(), parent)?;
        let holder = self.rest();
        make_directory(&holder, 0o700)?;
        let stage = Stage { holder, parent: parent.cloned(), lowers };
        make_directory(&stage.directory(), 0o755)?;
        Ok(stage)
    }

    fn reparent(&self, mut stage: Stage, parent: &Digest) -> Result<Stage, Error> {
        stage.lowers = self.chain_directories(&self.lock(), Some(parent))?;
        stage.parent = Some(parent.clone());
        Ok(stage)
    }

    fn commit(&self, stage: Stage, chain: &Digest, bytes: u64) -> Result<(), Error> {
        if let Some(present) = self.layer(chain)
            && present.parent != stage.parent
        {
            return Err(Error::Parent(chain.clone()));
        }
        // Dropping the stage afterwards finds nothing under its old name, or the loser of a race.
        self.name_layer(&stage.holder, chain, stage.parent.clone(), bytes)
    }

    fn adopt(&self, container: &str, chain: &Digest, bytes: u64) -> Result<Rest, Error> {
        let top = self.top(container)?;
        let directory = self.container_directory(container)?;
        if self.layer(chain).is_none() {
            let holder = self.rest();
            make_directory(&holder, 0o700)?;
            let stage = Stage { holder, parent: top.clone(), lowers: Vec::new() };
            let upper = directory.join("upper");
            std::fs::rename(&upper, stage.directory()).map_err(io("adopt", &upper))?;
            self.name_layer(&stage.holder, chain, top, bytes)?;
        }
        self.destroy(container)
    }

    fn layer(&self, chain: &Digest) -> Option<Layer> {
        let state = self.lock();
        state.layers.get(chain).map(|kept| self.describe(chain, kept))
    }

    fn layers(&self) -> Vec<Layer> {
        let state = self.lock();
        state.layers.iter().map(|(chain, kept)| self.describe(chain, kept)).collect()
    }

    fn remove(&self, chain: &Digest) -> Result<Rest, Error> {
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
            let path = self.root.join(short(chain));
            std::fs::rename(&path, &rest).map_err(io("remove", &path))?;
            let parent = state.layers.remove(chain).and_then(|kept| kept.parent);
            if let Some(parent) = parent.as_ref().and_then(|parent| state.layers.get_mut(parent)) {
                parent.children -= 1;
            }
        }
        Ok(Rest { path: rest })
    }

    fn lowers(&self, chain: &Digest) -> Result<Vec<PathBuf>, Error> {
        self.chain_directories(&self.lock(), Some(chain))
    }

    fn create(&self, container: &str, top: Option<&Digest>) -> Result<(), Error> {
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
        let made = make_container(&directory, top);
        if made.is_err() {
            self.lock().forget_container(container);
            let _ = tree::remove(&directory);
        }
        made
    }

    fn limit(&self, container: &str, bytes: u64) -> Result<(), Error> {
        let directory = self.container_directory(container)?;
        limit(&directory, bytes).map_err(io("limit", &directory))
    }

    fn mounts(&self, container: &str) -> Result<Mounts, Error> {
        let directory = self.container_directory(container)?;
        let state = self.lock();
        let top = state.containers.get(container).ok_or_else(|| Error::NoContainer(container.to_owned()))?;
        let lowers = self.chain_directories(&state, top.as_ref())?;
        Ok(Mounts::Overlay { lowers, upper: directory.join("upper"), work: directory.join("work") })
    }

    fn open_root(&self, container: &str) -> Result<OwnedFd, Error> {
        let Mounts::Overlay { lowers, upper, work } = self.mounts(container)?;
        detached::open(&lowers, Some((&upper, &work))).map_err(io("mount", &upper))
    }

    fn open_view(&self, container: &str) -> Result<OwnedFd, Error> {
        let Mounts::Overlay { lowers, upper, .. } = self.mounts(container)?;
        // As one more layer to be read: a second mount with the same work directory would spoil the first one's work.
        let layers: Vec<PathBuf> = std::iter::once(upper.clone()).chain(lowers).collect();
        detached::open(&layers, None).map_err(io("mount", &upper))
    }

    fn open_layers(&self, chain: &Digest) -> Result<OwnedFd, Error> {
        let lowers = self.lowers(chain)?;
        detached::open(&lowers, None).map_err(io("mount", &self.root.join(short(chain))))
    }

    fn top(&self, container: &str) -> Result<Option<Digest>, Error> {
        let state = self.lock();
        state.containers.get(container).cloned().ok_or_else(|| Error::NoContainer(container.to_owned()))
    }

    fn containers(&self) -> Vec<String> {
        self.lock().containers.keys().cloned().collect()
    }

    fn usage(&self, container: &str) -> Result<Usage, Error> {
        self.top(container)?;
        let upper = self.container_directory(container)?.join("upper");
        tree::usage(&upper).map_err(io("measure", &upper))
    }

    fn changes(&self, container: &str) -> Result<Vec<Change>, Error> {
        let Mounts::Overlay { lowers, upper, .. } = self.mounts(container)?;
        let find = || {
            let above = detached::open(std::slice::from_ref(&upper), None)?;
            let below = if lowers.is_empty() { None } else { Some(detached::open(&lowers, None)?) };
            let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = rustix::fs::openat(&above, c".", directory, Mode::empty())?;
            changes::find(&above, below.as_ref())
        };
        find().map_err(io("compare", &upper))
    }

    fn destroy(&self, container: &str) -> Result<Rest, Error> {
        let directory = self.container_directory(container)?;
        let rest = self.rest();
        {
            let mut state = self.lock();
            match std::fs::rename(&directory, &rest) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io("remove", &directory)(error));
                }
                _ => {}
            }
            state.forget_container(container);
        }
        Ok(Rest { path: rest })
    }

    fn sync(&self) -> Result<(), Error> {
        let directory = std::fs::File::open(&self.root).map_err(io("open", &self.root))?;
        rustix::fs::syncfs(&directory).map_err(|errno| io("sync", &self.root)(errno.into()))
    }
}

/// Makes a container's directories a project of their own. All of them: overlayfs makes files in the work directory
/// and moves them, which is not allowed between projects.
fn limit(directory: &Path, bytes: u64) -> std::io::Result<()> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let holder = open(directory)?;
    // Where the file's own number is taken, the next free one.
    let mut project = (rustix::fs::fstat(&holder)?.st_ino as u32).max(1);
    while sys::quota::is_used(holder.as_fd(), project)? {
        project = project.checked_add(1).unwrap_or(1);
    }
    for path in [directory.to_path_buf(), directory.join("upper"), directory.join("work")] {
        sys::quota::assign(open(&path)?.as_fd(), project)?;
    }
    sys::quota::limit(holder.as_fd(), project, bytes)
}

fn make_container(directory: &Path, top: Option<&Digest>) -> Result<(), Error> {
    std::fs::DirBuilder::new().mode(0o700).create(directory).map_err(io("create", directory))?;
    if let Some(top) = top {
        let link = directory.join("top");
        symlink(short(top), &link).map_err(io("create", &link))?;
    }
    make_directory(&directory.join("upper"), 0o755)?;
    make_directory(&directory.join("work"), 0o700)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    #[test]
    fn overlay_keeps_the_contract() {
        contract::suite(&|root| Box::new(Overlay::open(root).unwrap()));
    }

    #[test]
    fn broken_layers_are_put_away_at_open() {
        let directory = tempfile::tempdir().unwrap();
        let (low, high) = (Digest::of(b"low"), Digest::of(b"high"));
        {
            let overlay = Overlay::open(directory.path()).unwrap();
            overlay.commit(overlay.stage(None).unwrap(), &low, 0).unwrap();
            overlay.commit(overlay.stage(Some(&low)).unwrap(), &high, 0).unwrap();
            overlay.create("c1", Some(&high)).unwrap();
        }
        std::fs::write(directory.path().join(short(&low)).join("layer.json"), b"").unwrap();
        std::fs::create_dir(directory.path().join("rest/7")).unwrap();
        let overlay = Overlay::open(directory.path()).unwrap();
        assert!(overlay.layers().is_empty());
        assert!(overlay.containers().is_empty());
        assert_eq!(std::fs::read_dir(directory.path().join("rest")).unwrap().count(), 0);
        assert!(!directory.path().join(short(&high)).exists());
    }
}
