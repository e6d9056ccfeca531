//! The overlayfs driver: one directory per layer, put over each other by the kernel. A container has `upper` and `work`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci::Digest;
use rustix::fs::{Mode, OFlags};

use crate::shelf::{Shelf, make_directory};
use crate::{
    Change, Difference, Doubted, Error, Form, Layer, Mounts, Rest, Snapshotter, Stage, Usage, changes,
    detached, io, tree,
};

pub const NAME: &str = "overlay2";

/// The driver on one directory; one process at a time may have it open.
#[derive(Debug)]
pub struct Overlay {
    shelf: Shelf,
}

impl Overlay {
    /// Opens or makes the driver's directory and removes what earlier work left unfinished there, and what is doubted.
    pub fn open(root: &Path, doubted: &[Doubted]) -> Result<Overlay, Error> {
        Ok(Overlay { shelf: Shelf::open(root, Form::Difference, tree::remove, doubted)? })
    }

    /// Whether overlayfs takes directories of this place as an upper directory. Those of another overlayfs it does not.
    pub fn works_in(directory: &Path) -> Result<(), Error> {
        let scratch = directory.join(format!("overlay-probe-{}", std::process::id()));
        let tried = (|| {
            let at = |name: &str| scratch.join(name);
            std::fs::create_dir_all(at("lower"))?;
            std::fs::create_dir(at("upper"))?;
            std::fs::create_dir(at("work"))?;
            let root = detached::open(&[at("lower")], Some((&at("upper"), &at("work"))))?;
            // What counts is that it can be written to.
            rustix::fs::mkdirat(&root, "written", Mode::RWXU)?;
            Ok(())
        })();
        let _ = tree::remove(&scratch);
        tried.map_err(io("mount an overlay in", directory))
    }

    fn upper(&self, container: &str) -> Result<PathBuf, Error> {
        Ok(self.shelf.container_directory(container)?.join("upper"))
    }

    fn parts(&self, container: &str) -> Result<(Vec<PathBuf>, PathBuf, PathBuf), Error> {
        let directory = self.shelf.container_directory(container)?;
        let lowers = self.shelf.container_layers(container)?;
        Ok((lowers, directory.join("upper"), directory.join("work")))
    }
}

impl Snapshotter for Overlay {
    fn driver(&self) -> &'static str {
        NAME
    }

    fn form(&self) -> Form {
        Form::Difference
    }

    fn stage(&self, parent: Option<&Digest>) -> Result<Stage, Error> {
        let stage = self.shelf.stage(parent, self.shelf.layer_directories(parent)?)?;
        make_directory(&stage.directory(), 0o755)?;
        Ok(stage)
    }

    fn reparent(&self, mut stage: Stage, parent: &Digest) -> Result<Stage, Error> {
        stage.lowers = self.shelf.layer_directories(Some(parent))?;
        stage.parent = Some(parent.clone());
        Ok(stage)
    }

    fn commit(&self, stage: Stage, chain: &Digest, bytes: u64) -> Result<(), Error> {
        self.shelf.commit(stage, chain, bytes)
    }

    fn adopt(&self, container: &str, chain: &Digest, bytes: u64) -> Result<Rest, Error> {
        let upper = self.upper(container)?;
        let fill = |directory: &Path| std::fs::rename(&upper, directory).map_err(io("adopt", &upper));
        self.shelf.adopt(container, chain, bytes, fill)
    }

    fn layer(&self, chain: &Digest) -> Option<Layer> {
        self.shelf.layer(chain)
    }

    fn layers(&self) -> Vec<Layer> {
        self.shelf.layers()
    }

    fn remove(&self, chain: &Digest) -> Result<Rest, Error> {
        self.shelf.remove(chain)
    }

    fn lowers(&self, chain: &Digest) -> Result<Vec<PathBuf>, Error> {
        self.shelf.layer_directories(Some(chain))
    }

    fn create(&self, container: &str, top: Option<&Digest>) -> Result<(), Error> {
        self.shelf.create(container, top, |directory| {
            make_directory(&directory.join("upper"), 0o755)?;
            make_directory(&directory.join("work"), 0o700)
        })
    }

    fn limit(&self, container: &str, bytes: u64) -> Result<(), Error> {
        let directory = self.shelf.container_directory(container)?;
        limit(&directory, bytes).map_err(io("limit", &directory))
    }

    fn mounts(&self, container: &str) -> Result<Mounts, Error> {
        let (lowers, upper, work) = self.parts(container)?;
        Ok(Mounts::Overlay { lowers, upper, work })
    }

    fn open_root(&self, container: &str) -> Result<OwnedFd, Error> {
        let (lowers, upper, work) = self.parts(container)?;
        detached::open(&lowers, Some((&upper, &work))).map_err(io("mount", &upper))
    }

    fn open_view(&self, container: &str) -> Result<OwnedFd, Error> {
        let (lowers, upper, _) = self.parts(container)?;
        // As one more layer to be read: a second mount with the same work directory would spoil the first one's work.
        let layers: Vec<PathBuf> = std::iter::once(upper.clone()).chain(lowers).collect();
        detached::open(&layers, None).map_err(io("mount", &upper))
    }

    fn open_layers(&self, chain: &Digest) -> Result<OwnedFd, Error> {
        let lowers = self.lowers(chain)?;
        detached::open(&lowers, None).map_err(io("mount", &self.shelf.layer_directory(chain)))
    }

    fn top(&self, container: &str) -> Result<Option<Digest>, Error> {
        self.shelf.top(container)
    }

    fn containers(&self) -> Vec<String> {
        self.shelf.containers()
    }

    fn usage(&self, container: &str) -> Result<Usage, Error> {
        self.top(container)?;
        let upper = self.upper(container)?;
        tree::usage(&upper).map_err(io("measure", &upper))
    }

    fn changes(&self, container: &str) -> Result<Vec<Change>, Error> {
        let (lowers, upper, _) = self.parts(container)?;
        let find = || {
            let above = detached::open(std::slice::from_ref(&upper), None)?;
            let below = if lowers.is_empty() { None } else { Some(detached::open(&lowers, None)?) };
            let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = rustix::fs::openat(&above, c".", directory, Mode::empty())?;
            changes::find(&above, below.as_ref())
        };
        find().map_err(io("compare", &upper))
    }

    fn difference(&self, container: &str) -> Result<Difference, Error> {
        self.top(container)?;
        Ok(Difference::Upper(self.upper(container)?))
    }

    fn destroy(&self, container: &str) -> Result<Rest, Error> {
        self.shelf.destroy(container)
    }

    fn sync(&self) -> Result<(), Error> {
        self.shelf.sync()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    #[test]
    fn overlay_keeps_the_contract() {
        let directory = tempfile::tempdir().unwrap();
        contract::suite(directory.path(), &|root, doubted| Box::new(Overlay::open(root, doubted).unwrap()));
    }

    #[test]
    fn overlay_keeps_the_contract_at_the_end_of_long_paths() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("long".repeat(50)).join("long".repeat(50));
        std::fs::create_dir_all(&long).unwrap();
        contract::suite(&long, &|root, doubted| Box::new(Overlay::open(root, doubted).unwrap()));
    }

    #[test]
    fn the_probe_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        Overlay::works_in(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn ext4_is_asked_to_spread_what_is_unpacked() {
        const EXT4: i64 = 0xef53;
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            drop(Overlay::open(directory.path(), &[]).unwrap());
            let rest = std::fs::File::open(directory.path().join("rest")).unwrap();
            let is_asked = rustix::fs::ioctl_getflags(&rest)
                .is_ok_and(|flags| flags.contains(rustix::fs::IFlags::TOPDIR));
            assert_eq!(is_asked, rustix::fs::fstatfs(&rest).unwrap().f_type == EXT4);
        }
    }

    #[test]
    fn broken_layers_are_put_away_at_open() {
        let directory = tempfile::tempdir().unwrap();
        let (low, high) = (Digest::of(b"low"), Digest::of(b"high"));
        let holder = |layer: &Digest| directory.path().join(&layer.hex()[..16]);
        {
            let overlay = Overlay::open(directory.path(), &[]).unwrap();
            overlay.commit(overlay.stage(None).unwrap(), &low, 0).unwrap();
            overlay.commit(overlay.stage(Some(&low)).unwrap(), &high, 0).unwrap();
            overlay.create("c1", Some(&high)).unwrap();
        }
        std::fs::write(holder(&low).join("layer.json"), b"").unwrap();
        std::fs::create_dir(directory.path().join("rest/7")).unwrap();
        let overlay = Overlay::open(directory.path(), &[]).unwrap();
        assert!(overlay.layers().is_empty());
        assert!(overlay.containers().is_empty());
        assert_eq!(std::fs::read_dir(directory.path().join("rest")).unwrap().count(), 0);
        assert!(!holder(&high).exists());
    }
}
