//! Volumes: which there are, who uses them, and what happens to them.
//!
//! The table of volumes is one piece of state behind one lock, which is held for look-ups and never while a disk or a
//! mount is waited for. What takes long marks the volume (`Step`) and gives the lock back; whoever needs that
//! volume meanwhile waits on the condition variable, holding nothing. Everything here blocks, and is called on blocking
//! threads.
//!
//! Who uses a volume is not stored: containers' records say it, and the table is filled from them at start.

mod container;
mod fill;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use metadata::{Batch, Store};
use model::Refusal;
use model::mounts::HostMount;
use model::spec::Place;
use model::volumes::{Backing, VolumeRecord};

use crate::{Engine, clock};

pub(crate) use container::{Held, Reserved};

const TABLE: &str = "volumes";

/// The use cases of volumes.
#[derive(Clone)]
pub struct Volumes(pub(crate) Engine);

/// The volumes of one data root.
#[derive(Debug)]
pub struct Keeper {
    local: volumes::Local,
    store: Store,
    table: Mutex<BTreeMap<String, Entry>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Entry {
    record: Arc<VolumeRecord>,
    step: Step,
    /// Containers that have it, running or not.
    users: BTreeSet<String>,
    /// Containers that run with it, for volumes of a filesystem: it is mounted while there are some.
    mounted_by: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Ready,
    /// Its record is on its way.
    Making,
    /// Filled, mounted or unmounted by somebody.
    Busy,
    Removing,
}

impl Entry {
    fn new(record: VolumeRecord, step: Step) -> Entry {
        Entry { record: Arc::new(record), step, users: BTreeSet::new(), mounted_by: BTreeSet::new() }
    }
}

type Table<'a> = MutexGuard<'a, BTreeMap<String, Entry>>;

/// What the driver says, as the engine says it.
fn refusal(doing: &str, error: &volumes::Error) -> Refusal {
    let refused = Refusal::from_error(doing, error);
    match error {
        volumes::Error::Missing(_) => {
            refused.hint("bring the directory back, or remove the volume and create it again")
        }
        volumes::Error::Foreign(_) => refused.hint("move it away, or take another name"),
        _ if error.is_full() => refused.hint("the disk is full: see what takes the space with system df"),
        _ => refused,
    }
}

impl Keeper {
    /// Reads the records, finishes what a crash cut short, and adopts directories that nobody knows.
    pub fn open(root: &Path, store: &Store) -> Result<Keeper, Refusal> {
        let mut table = BTreeMap::new();
        for (name, bytes) in store.scan(TABLE) {
            match serde_json::from_slice::<VolumeRecord>(&bytes) {
                Ok(record) => {
                    table.insert(name, Entry::new(record, Step::Ready));
                }
                Err(error) => tracing::error!(volume = %name, %error, "its record cannot be read"),
            }
        }
        let known = table.keys().cloned().collect();
        let (local, opened) =
            volumes::Local::open(root, &known).map_err(|error| refusal("cannot open the volumes", &error))?;
        for error in opened.failed {
            tracing::warn!(%error, "cannot put a volume's directory right");
        }
        for name in opened.remade {
            tracing::warn!(volume = %name, "its directory was missing and has been made anew, empty");
        }
        let mut batch = Batch::default();
        for found in opened.adopted {
            let (name, options) = (found.name, found.options);
            let record =
                VolumeRecord { name: name.clone(), created: clock::now(), labels: BTreeMap::new(), options };
            tracing::info!(volume = %name, "a directory was adopted as a volume");
            batch = batch.put(TABLE, &name, encode(&record)?);
            table.insert(name, Entry::new(record, Step::Ready));
        }
        store
            .commit(batch)
            .map_err(|error| Refusal::from_error("cannot store the adopted volumes", &error))?;
        Ok(Keeper { local, store: store.clone(), table: Mutex::new(table), changed: Condvar::new() })
    }

    fn lock(&self) -> Table<'_> {
        // Each change is one insertion, removal or assignment: a panic elsewhere does not spoil the table.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, table: Table<'a>) -> Table<'a> {
        self.changed.wait(table).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody works on a volume, and takes it for `step`; none if there is none of that name.
    fn take(&self, name: &str, step: Step) -> Option<Arc<VolumeRecord>> {
        let mut table = self.lock();
        loop {
            let entry = table.get_mut(name)?;
            if entry.step == Step::Ready {
                entry.step = step;
                return Some(entry.record.clone());
            }
            table = self.wait(table);
        }
    }

    /// Gives a volume back that [`Keeper::take`] took.
    fn give_back(&self, name: &str) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.step = Step::Ready;
        }
        self.changed.notify_all();
    }

    fn forget(&self, name: &str) {
        self.lock().remove(name);
        self.changed.notify_all();
    }

    /// The record of a volume that there is.
    pub fn get(&self, name: &str) -> Option<Arc<VolumeRecord>> {
        self.lock().get(name).filter(|entry| entry.step != Step::Making).map(|entry| entry.record.clone())
    }

    /// Where the API says that a volume's content is.
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        self.local.data(name)
    }

    /// Where a volume's content is, seen from the host, while it is mounted.
    fn place(&self, name: &str) -> Option<Place> {
        let backing = self.lock().get(name)?.record.backing();
        let own = self.local.data(name);
        Some(match backing {
            Backing::Directory => Place::Directory { path: own, recursive: false, read_only: false },
            Backing::Filesystem { .. } => Place::Directory { path: own, recursive: false, read_only: false },
            Backing::Bind { path, recursive, read_only } => Place::Directory { path, recursive, read_only },
        })
    }

    /// A volume that was found in a record and is not known: it was lost with its record, and comes back empty.
    fn known(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }
}

fn encode(record: &VolumeRecord) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(record).map_err(|error| Refusal::from_error("volume record", &error))
}

fn filesystem(backing: Backing) -> Option<volumes::Filesystem> {
    match backing {
        Backing::Filesystem { kind, device, options } => Some(volumes::Filesystem { kind, device, options }),
        Backing::Directory | Backing::Bind { .. } => None,
    }
}

impl Volumes {
    fn keeper(&self) -> &Keeper {
        self.0.volume_keeper()
    }

    /// The mounts of a container that show places of the host, in the order in which they are mounted. The content of a
    /// volume of a filesystem is there only while a container runs with it.
    pub fn host_mounts(&self, record: &model::create::Record) -> Vec<HostMount> {
        model::mounts::on_host(&record.mounts, &|name| match self.keeper().place(name)? {
            Place::Directory { path, .. } => Some(path),
            Place::Layers(_) => None,
        })
    }

    /// The `Mounts` member of inspect and list.
    pub(crate) fn mount_points(
        &self,
        record: &model::create::Record,
    ) -> Vec<api_types::container::MountPoint> {
        model::mounts::points(&record.mounts, &|name| Some(self.keeper().mountpoint(name)))
    }

    pub(crate) fn emit(&self, action: &str, name: &str, more: &[(&str, String)]) {
        let mut attributes: api_types::StringMap =
            more.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
        attributes.insert("driver".into(), model::volumes::LOCAL.into());
        self.0.events().emit("volume", action, name, attributes);
    }
}
