//! The volumes of one container: reserved when it is created, mounted while it runs, released when it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use metadata::Batch;
use model::create::Record;
use model::mounts::{ContainerMount, Source};
use model::spec::Place;
use model::volumes::{self as rules, Backing, NewVolume, VolumeRecord};
use model::{Kind, Refusal};

use super::{Entry, Keeper, Step, TABLE, Volumes, encode, filesystem, refusal};
use crate::{Engine, failpoint};

/// What a container that is being created holds of volumes. Dropped without [`Reserved::keep`], it lets go of all of
/// it, and the volumes that were made for it are gone.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reserved<'a> {
    volumes: &'a Keeper,
    container: String,
    names: Vec<String>,
    /// Volumes made for this container, not named yet.
    made: Vec<(VolumeRecord, volumes::Staged)>,
    kept: bool,
}

impl Reserved<'_> {
    /// Where a volume's directory is now.
    pub(super) fn staged_data(&self, name: &str) -> Option<PathBuf> {
        self.made.iter().find(|(record, _)| record.name == name).map(|(_, staged)| staged.data())
    }

    /// What a volume that was made is.
    pub(super) fn backing(&self, name: &str) -> Backing {
        let made = self.made.iter().find(|(record, _)| record.name == name);
        made.map_or(Backing::Directory, |(record, _)| record.backing())
    }

    /// Adds the records of the volumes that were made to what is committed with the container's own.
    pub(crate) fn records(&self, mut batch: Batch) -> Result<Batch, Refusal> {
        for (record, _) in &self.made {
            batch = batch.put(TABLE, &record.name, encode(record)?);
        }
        Ok(batch)
    }

    /// The records are on disk: names the volumes. Returns which are new. A directory that cannot be named now is told
    /// in the log, and named by the next daemon.
    pub(crate) fn keep(mut self) -> Vec<String> {
        self.kept = true;
        let mut made = Vec::new();
        for (record, staged) in std::mem::take(&mut self.made) {
            if let Err(error) = staged.publish() {
                tracing::error!(volume = %record.name, %error, "cannot name the volume's directory");
            }
            self.volumes.give_back(&record.name);
            made.push(record.name);
        }
        made
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut table = self.volumes.lock();
        for name in &self.names {
            if let Some(entry) = table.get_mut(name) {
                entry.users.remove(&self.container);
            }
        }
        for (record, _) in &self.made {
            table.remove(&record.name);
        }
        drop(table);
        self.volumes.changed.notify_all();
    }
}

/// Volumes that go with a container, unnamed already. [`Going::done`] when their records are deleted; dropped without
/// that, they are back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Going<'a> {
    volumes: &'a Keeper,
    gone: BTreeMap<String, volumes::Gone>,
}

impl Going<'_> {
    pub(crate) fn records(&self, batch: Batch) -> Batch {
        self.gone.keys().fold(batch, |batch, name| batch.delete(TABLE, name))
    }

    /// Their records are deleted. What comes back is to be dropped where nobody waits.
    pub(crate) fn done(mut self) -> BTreeMap<String, volumes::Gone> {
        let gone = std::mem::take(&mut self.gone);
        gone.keys().for_each(|name| self.volumes.forget(name));
        gone
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        for (name, gone) in std::mem::take(&mut self.gone) {
            if let Err(error) = gone.undo() {
                tracing::error!(volume = %name, %error, "cannot bring the volume's directory back");
            }
            self.volumes.give_back(&name);
        }
    }
}

impl Keeper {
    /// Takes the volumes of a container that is being created, and makes those that are missing.
    pub(crate) fn reserve(&self, record: &Record) -> Result<Reserved<'_>, Refusal> {
        let wanted = rules::wanted(record);
        let mut reserved = Reserved {
            volumes: self,
            container: record.id.clone(),
            names: wanted.iter().map(|volume| volume.name.clone()).collect(),
            made: Vec::new(),
            kept: false,
        };
        if wanted.is_empty() {
            return Ok(reserved);
        }
        let missing = match self.enter(&record.id, wanted) {
            Ok(missing) => missing,
            Err(refused) => {
                reserved.kept = true;
                return Err(refused);
            }
        };
        let mut left = missing.into_iter();
        while let Some(volume) = left.next() {
            let doing = format!("create {}", volume.name);
            let staged = failpoint::hit("create.volume").and_then(|()| {
                self.local.stage(&volume.name, &volume.options).map_err(|error| refusal(&doing, &error))
            });
            match staged {
                Ok(staged) => reserved.made.push((volume, staged)),
                Err(refused) => {
                    // Those that were entered and not made; the others go with what is dropped.
                    std::iter::once(volume).chain(left).for_each(|volume| self.forget(&volume.name));
                    return Err(refused);
                }
            }
        }
        Ok(reserved)
    }

    /// Puts the container into the table, at all its volumes or none. Returns those that are to be made.
    fn enter(&self, container: &str, wanted: Vec<NewVolume>) -> Result<Vec<VolumeRecord>, Refusal> {
        let mut table = self.lock();
        // All at once: who held one while waiting for another could wait for ever.
        let unsettled = |step: Step| matches!(step, Step::Making | Step::Removing);
        while wanted.iter().any(|volume| table.get(&volume.name).is_some_and(|entry| unsettled(entry.step))) {
            table = self.wait(table);
        }
        for volume in &wanted {
            match table.get(&volume.name) {
                Some(entry) => volume.fits(&entry.record)?,
                // Not "not found": clients would pull the image and ask again.
                None => volume.check().map_err(|refused| match refused.kind {
                    Kind::NotFound => Refusal { kind: Kind::Invalid, ..refused },
                    _ => refused,
                })?,
            }
        }
        let mut missing = Vec::new();
        for volume in wanted {
            let entry = table.entry(volume.name.clone()).or_insert_with(|| {
                let record = self.adopting(volume);
                missing.push(record.clone());
                Entry::new(record, Step::Making)
            });
            entry.users.insert(container.into());
        }
        Ok(missing)
    }

    /// Notes what a container of the store has. A volume whose record is lost comes back, empty, under its name.
    pub(crate) fn restore(&self, record: &Record) {
        for name in rules::names(record) {
            if !self.known(&name) {
                tracing::error!(container = %record.id, volume = %name, "its volume is lost; an empty one takes its place");
                let volume = NewVolume { name: name.clone(), ..NewVolume::default() };
                let record = volume.record(crate::clock::now());
                let staged = self.local.stage(&name, &record.options).and_then(volumes::Staged::publish);
                let stored = encode(&record)
                    .ok()
                    .map(|bytes| self.store.commit(Batch::default().put(TABLE, &name, bytes)));
                if staged.is_err() || !matches!(stored, Some(Ok(()))) {
                    tracing::error!(volume = %name, "it cannot be made");
                }
                self.lock().insert(name.clone(), Entry::new(record, Step::Ready));
            }
            if let Some(entry) = self.lock().get_mut(&name) {
                entry.users.insert(record.id.clone());
            }
        }
    }

    /// Notes that a container which an earlier daemon started runs with its volumes.
    pub(crate) fn adopt_running(&self, record: &Record) {
        let mut table = self.lock();
        for name in rules::names(record) {
            if let Some(entry) = table.get_mut(&name) {
                entry.mounted_by.insert(record.id.clone());
            }
        }
    }

    /// Unmounts what nobody runs with: a crash may have left it.
    pub(crate) fn sweep(&self) {
        for name in self.local.mounted() {
            let used = self.lock().get(&name).is_some_and(|entry| !entry.mounted_by.is_empty());
            if !used && let Err(error) = volumes::unmount(&self.local.data(&name)) {
                tracing::warn!(volume = %name, %error, "cannot be unmounted");
            }
        }
    }

    /// Finds a container's volumes when it starts, mounts what is to be mounted, and says where each is. A failure
    /// leaves nothing mounted for it.
    pub(crate) fn attach(&self, record: &Record) -> Result<BTreeMap<PathBuf, Place>, Refusal> {
        let mut places = BTreeMap::new();
        for mount in &record.mounts {
            let Some(name) = mount.volume() else { continue };
            match self.attach_one(&record.id, mount, name) {
                Ok(place) => places.insert(mount.destination.clone(), place),
                Err(refused) => {
                    self.detach(record);
                    return Err(refused);
                }
            };
        }
        Ok(places)
    }

    fn attach_one(&self, container: &str, mount: &ContainerMount, name: &str) -> Result<Place, Refusal> {
        let doing = format!("error while mounting volume '{}'", self.local.data(name).display());
        self.local.check(name).map_err(|error| refusal(&doing, &error))?;
        let place = self.place(name).ok_or_else(|| rules::not_found(name))?;
        if let Place::Directory { path, .. } = &place
            && !path.exists()
        {
            // A bind whose directory is not there.
            let text = format!(
                "{doing}: failed to mount local volume: mount {}:{}, flags: 0x1000: no such file or directory",
                path.display(),
                self.local.data(name).display()
            );
            return Err(
                Refusal::system(text).hint("make that directory, or remove the volume and create it anew")
            );
        }
        let record = self.get(name).ok_or_else(|| rules::not_found(name))?;
        if let Some(filesystem) = filesystem(record.backing()) {
            self.mount(container, name, &filesystem, &doing)?;
        }
        self.check_subpath(mount, &place)?;
        Ok(place)
    }

    /// Finds a subpath now, to tell of a wrong one with its name; it is looked up again, by descriptor, when it is
    /// mounted.
    fn check_subpath(&self, mount: &ContainerMount, place: &Place) -> Result<(), Refusal> {
        let (Source::Volume { name, subpath, .. }, Place::Directory { path, .. }) = (&mount.source, place)
        else {
            return Ok(());
        };
        if subpath.is_empty() {
            return Ok(());
        }
        let found = sys::Root::open_path(path).and_then(|root| root.locate(subpath.as_ref()));
        found.map(drop).map_err(|error| {
            let text = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_string(),
                std::io::ErrorKind::NotADirectory => "not a directory".to_string(),
                _ => error.to_string(),
            };
            Refusal::new(Kind::Invalid, format!("cannot access path \"{subpath}\" in volume {name}: {text}"))
        })
    }

    /// Mounts a volume's filesystem for its first running container.
    pub(super) fn mount(
        &self,
        container: &str,
        name: &str,
        filesystem: &volumes::Filesystem,
        doing: &str,
    ) -> Result<(), Refusal> {
        self.take(name, Step::Busy).ok_or_else(|| rules::not_found(name))?;
        let first = self.lock().get(name).is_some_and(|entry| entry.mounted_by.is_empty());
        let mounted = if first { volumes::mount(filesystem, &self.local.data(name)) } else { Ok(()) };
        if mounted.is_ok()
            && let Some(entry) = self.lock().get_mut(name)
        {
            entry.mounted_by.insert(container.into());
        }
        self.give_back(name);
        mounted.map_err(|error| refusal(doing, &error))
    }

    /// Whether a container has volumes that are mounted for it.
    pub(crate) fn has_mounted(&self, record: &Record) -> bool {
        let table = self.lock();
        record
            .mounts
            .iter()
            .filter_map(ContainerMount::volume)
            .any(|name| table.get(name).is_some_and(|entry| entry.mounted_by.contains(&record.id)))
    }

    /// Unmounts what no other container runs with.
    pub(crate) fn detach(&self, record: &Record) {
        for name in rules::names(record) {
            self.unmount(&record.id, &name);
        }
    }

    pub(super) fn unmount(&self, container: &str, name: &str) {
        let mounted = self.lock().get(name).is_some_and(|entry| entry.mounted_by.contains(container));
        if !mounted || self.take(name, Step::Busy).is_none() {
            return;
        }
        let last = {
            let mut table = self.lock();
            table
                .get_mut(name)
                .is_some_and(|entry| entry.mounted_by.remove(container) && entry.mounted_by.is_empty())
        };
        if last && let Err(error) = volumes::unmount(&self.local.data(name)) {
            tracing::warn!(volume = %name, %error, "cannot be unmounted");
        }
        self.give_back(name);
    }

    /// Takes the names of the volumes that nobody named and that only this container has. `remove` false: of none.
    pub(crate) fn going(&self, record: &Record, remove: bool) -> Result<Going<'_>, Refusal> {
        let mut going = Going { volumes: self, gone: BTreeMap::new() };
        let names = if remove { rules::anonymous(record) } else { Vec::new() };
        for name in names {
            if !self.take_last(&record.id, &name) {
                continue;
            }
            match self.local.retire(&name) {
                Ok(gone) => {
                    going.gone.insert(name, gone);
                }
                Err(error) => {
                    self.give_back(&name);
                    return Err(refusal(&format!("remove {name}"), &error));
                }
            }
        }
        Ok(going)
    }

    /// Takes a volume for removal if this container is the only one that has it.
    fn take_last(&self, container: &str, name: &str) -> bool {
        let mut table = self.lock();
        loop {
            let Some(entry) = table.get_mut(name) else { return false };
            let only = entry.users.len() == 1 && entry.users.contains(container);
            if !only || entry.step == Step::Removing {
                return false;
            }
            if entry.step == Step::Ready {
                entry.step = Step::Removing;
                return true;
            }
            table = self.wait(table);
        }
    }

    /// The container is gone: it has no volumes any more.
    pub(crate) fn release(&self, record: &Record) {
        let mut table = self.lock();
        for name in record.mounts.iter().filter_map(ContainerMount::volume) {
            if let Some(entry) = table.get_mut(name) {
                entry.users.remove(&record.id);
            }
        }
    }
}

/// Volumes that are mounted for somebody who reaches into a container that does not run. Dropping it unmounts them,
/// in the background.
pub(crate) struct Held {
    engine: Engine,
    key: String,
    names: Vec<String>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.names.is_empty() {
            return;
        }
        let (key, names) = (std::mem::take(&mut self.key), std::mem::take(&mut self.names));
        self.engine.in_background(move |engine| {
            names.iter().for_each(|name| engine.volume_keeper().unmount(&key, name));
        });
    }
}

impl Volumes {
    /// Mounts the filesystems among a container's volumes, so that what is read and written there is the volume's. Blocks.
    pub(crate) fn hold(&self, record: &Record) -> Result<Held, Refusal> {
        let mut held = Held { engine: self.0.clone(), key: crate::clock::new_id(), names: Vec::new() };
        for name in rules::names(record) {
            let Some(volume) = self.keeper().get(&name) else { continue };
            let Some(filesystem) = filesystem(volume.backing()) else { continue };
            let doing =
                format!("error while mounting volume '{}'", self.keeper().mountpoint(&name).display());
            self.keeper().mount(&held.key, &name, &filesystem, &doing)?;
            held.names.push(name);
        }
        Ok(held)
    }

    /// Where volumes and images of a container are, by destination; mounts what is to be mounted. Blocks.
    pub(crate) fn attach(&self, record: &Record) -> Result<BTreeMap<PathBuf, Place>, Refusal> {
        let mut places = self.keeper().attach(record)?;
        for mount in &record.mounts {
            let Source::Image { image, id, .. } = &mount.source else { continue };
            match self.image_place(image, id) {
                Ok(place) => {
                    places.insert(mount.destination.clone(), place);
                }
                Err(refused) => {
                    self.keeper().detach(record);
                    return Err(refused);
                }
            }
        }
        Ok(places)
    }

    fn image_place(&self, name: &str, id: &str) -> Result<Place, Refusal> {
        let failed =
            |error: &dyn std::error::Error| Refusal::from_error(&format!("cannot mount image {name}"), error);
        let image = self.0.images().resolve(id).map_err(|error| crate::images_refusal(&error))?;
        self.0.images().layers().unpack_missing(&image).map_err(|error| crate::images_refusal(&error))?;
        let Some(chain) = image.chain() else {
            return Err(Refusal::invalid(format!("cannot mount image {name}: it has no layers")));
        };
        let mut layers = self.0.snapshots().lowers(chain).map_err(|error| failed(&error))?;
        Ok(match layers.len() {
            1 => Place::Directory { path: layers.remove(0), recursive: false, read_only: true },
            _ => Place::Layers(layers),
        })
    }

    /// Tells of volumes that a container starts or ceases to use.
    pub(crate) fn emit_mounts(&self, record: &Record, mounted: bool) {
        let mut told = BTreeSet::new();
        for mount in &record.mounts {
            let Some(name) = mount.volume() else { continue };
            if mounted {
                let more = [
                    ("container", record.id.clone()),
                    ("destination", mount.destination.to_string_lossy().into_owned()),
                    ("propagation", String::new()),
                    ("read/write", (!mount.read_only).to_string()),
                ];
                self.emit("mount", name, &more);
            } else if told.insert(name) {
                self.emit("unmount", name, &[("container", record.id.clone())]);
            }
        }
    }
}
