//! Which containers there are: handles by ID, IDs by name.
//!
//! The lock is held for a look-up or an insertion and never while something is waited for.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use model::Refusal;
use model::create::Record;

use crate::container::Handle;

/// Containers of which it is known how they ended after they are gone.
const ENDED_MAX: usize = 256;

#[derive(Debug, Default)]
pub struct Registry(RwLock<Tables>);

#[derive(Debug, Default)]
struct Tables {
    handles: BTreeMap<String, Handle>,
    /// Also names that are reserved by a create or rename under way.
    names: HashMap<String, String>,
    /// Containers that others are linked to, with the IDs of those.
    linked: HashMap<String, BTreeSet<String>>,
    /// Levels of SELinux's, with the number of containers that have them.
    levels: HashMap<String, usize>,
    /// IDs and exit codes of the last containers that were to go after their exit; the oldest first.
    ended: VecDeque<(String, i32)>,
}

impl Tables {
    /// The container that another one, by its name, is linked to under an alias.
    fn at_link(&self, parent: &str, alias: &str) -> Option<Handle> {
        let parent = self.handles.get(self.names.get(parent)?)?.view();
        let link = parent.record.links.iter().find(|link| link.alias == alias)?;
        self.handles.get(&link.container).cloned()
    }

    fn unlink(&mut self, child: &str, parent: &str) {
        if let Some(parents) = self.linked.get_mut(child) {
            parents.remove(parent);
            if parents.is_empty() {
                self.linked.remove(child);
            }
        }
    }
}

/// The level of SELinux's that a container has, if it has one.
fn level(record: &Record) -> Option<String> {
    let level = model::security::level(&record.labels.process);
    (!level.is_empty()).then(|| level.to_string())
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn contains(&self, id: &str) -> bool {
        self.read().handles.contains_key(id)
    }

    /// Whether a container has this ID, or is about to.
    pub fn knows(&self, id: &str) -> bool {
        let tables = self.read();
        tables.handles.contains_key(id) || tables.names.values().any(|owner| owner == id)
    }

    /// Full ID, name with or without a slash, or the unambiguous beginning of an ID.
    pub fn find(&self, name: &str) -> Result<Handle, Refusal> {
        let tables = self.read();
        let bare = name.strip_prefix('/').unwrap_or(name);
        if let Some(handle) = tables.handles.get(name) {
            return Ok(handle.clone());
        }
        if let Some(handle) = tables.names.get(bare).and_then(|id| tables.handles.get(id)) {
            return Ok(handle.clone());
        }
        if let Some((parent, alias)) = bare.split_once('/')
            && let Some(handle) = tables.at_link(parent, alias)
        {
            return Ok(handle);
        }
        let missing = || Refusal::not_found(format!("No such container: {name}"));
        if name.is_empty() {
            return Err(missing());
        }
        let mut matching = tables
            .handles
            .range(name.to_string()..)
            .take_while(|(id, _)| id.starts_with(name))
            .map(|(_, handle)| handle);
        match (matching.next(), matching.next()) {
            (Some(handle), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => {
                Err(Refusal::invalid(format!("multiple IDs found with provided prefix: {name}"))
                    .hint("give more of the ID, or the container's name"))
            }
            _ => Err(missing()),
        }
    }

    /// Every container, ordered by ID.
    pub fn all(&self) -> Vec<Handle> {
        self.read().handles.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.read().handles.len()
    }

    /// Takes a name for `id`.
    pub fn reserve(&self, name: &str, id: &str) -> Result<(), Refusal> {
        let mut tables = self.write();
        match tables.names.get(name) {
            Some(owner) => Err(Refusal::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove \
                 (or rename) that container to be able to reuse that name."
            ))),
            None => {
                tables.names.insert(name.into(), id.into());
                Ok(())
            }
        }
    }

    /// Gives a name back that `id` holds.
    pub fn release(&self, name: &str, id: &str) {
        let mut tables = self.write();
        if tables.names.get(name).is_some_and(|owner| owner == id) {
            tables.names.remove(name);
        }
    }

    pub fn insert(&self, id: &str, handle: Handle) {
        let record = handle.view().record.clone();
        let mut tables = self.write();
        for link in &record.links {
            tables.linked.entry(link.container.clone()).or_default().insert(id.into());
        }
        if let Some(level) = level(&record) {
            *tables.levels.entry(level).or_default() += 1;
        }
        tables.handles.insert(id.into(), handle);
    }

    /// The exit code of a container that went after its exit, by its full ID.
    pub fn ended(&self, id: &str) -> Option<i32> {
        self.read().ended.iter().find(|(known, _)| known == id).map(|(_, code)| *code)
    }

    /// Takes a container's name and ID out of sight. `ended`: the exit code that those who wait are still told.
    pub fn remove(&self, record: &Record, ended: Option<i32>) {
        let (id, name) = (&record.id, &record.name);
        let mut tables = self.write();
        if let Some(code) = ended {
            if tables.ended.len() == ENDED_MAX {
                tables.ended.pop_front();
            }
            tables.ended.push_back((id.clone(), code));
        }
        tables.handles.remove(id);
        if tables.names.get(name).is_some_and(|owner| owner == id) {
            tables.names.remove(name);
        }
        record.links.iter().for_each(|link| tables.unlink(&link.container, id));
        if let Some(level) = level(record)
            && let Some(count) = tables.levels.get_mut(&level)
        {
            *count -= 1;
            if *count == 0 {
                tables.levels.remove(&level);
            }
        }
    }

    /// Whether a container has this level of SELinux's.
    pub fn has_level(&self, level: &str) -> bool {
        self.read().levels.contains_key(level)
    }

    /// A container is not linked to another one any more.
    pub fn unlink(&self, child: &str, parent: &str) {
        self.write().unlink(child, parent);
    }

    /// The containers that are linked to one.
    pub fn parents(&self, child: &str) -> Vec<Handle> {
        let tables = self.read();
        let parents = tables.linked.get(child).into_iter().flatten();
        parents.filter_map(|id| tables.handles.get(id).cloned()).collect()
    }
}
