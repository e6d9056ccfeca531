//! The verbs of volumes, as the API's edge calls them.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::volume::{Volume, VolumeCreate, VolumeList, VolumesPrune};
use metadata::Batch;
use model::Refusal;
use model::filter::Filters;
use model::time::rfc3339;
use model::volumes::{self as rules, NewVolume, VolumeRecord};

use super::{Entry, Keeper, Step, TABLE, Volumes, encode, refusal};
use crate::{blocking, clock, failpoint};

impl Keeper {
    /// Makes a volume; the flag tells whether it was not there before.
    fn create(&self, wanted: NewVolume) -> Result<(Arc<VolumeRecord>, bool), Refusal> {
        let record = {
            let mut table = self.lock();
            loop {
                match table.get(&wanted.name) {
                    None => break,
                    Some(entry) if matches!(entry.step, Step::Ready | Step::Busy) => {
                        wanted.fits(&entry.record)?;
                        return Ok((entry.record.clone(), false));
                    }
                    Some(_) => table = self.wait(table),
                }
            }
            wanted.check()?;
            let record = self.adopting(wanted);
            table.insert(record.name.clone(), Entry::new(record.clone(), Step::Making));
            record
        };
        match self.make(&record) {
            Ok(()) => {
                self.give_back(&record.name);
                Ok((Arc::new(record), true))
            }
            Err(refusal) => {
                self.forget(&record.name);
                Err(refusal)
            }
        }
    }

    /// The record of a new volume; a directory that is there already brings its options.
    pub(super) fn adopting(&self, wanted: NewVolume) -> VolumeRecord {
        let mut record = wanted.record(clock::now());
        if record.options.is_empty() {
            record.options = self.local.read_options(&record.name);
        }
        record
    }

    fn make(&self, record: &VolumeRecord) -> Result<(), Refusal> {
        let doing = format!("create {}", record.name);
        let staged =
            self.local.stage(&record.name, &record.options).map_err(|error| refusal(&doing, &error))?;
        failpoint::hit("volume.record")?;
        self.store
            .commit(Batch::default().put(TABLE, &record.name, encode(record)?))
            .map_err(|error| Refusal::from_error("cannot store the volume", &error))?;
        let named = failpoint::hit("volume.name")
            .and_then(|()| staged.publish().map_err(|error| refusal(&doing, &error)));
        if named.is_err() {
            let _ = self.store.commit(Batch::default().delete(TABLE, &record.name));
        }
        named
    }

    /// Removes a volume that nobody uses; none if it was not there and that is fine. What comes back is to be dropped
    /// where nobody waits.
    fn remove(&self, name: &str, force: bool) -> Result<Option<volumes::Gone>, Refusal> {
        {
            let mut table = self.lock();
            loop {
                match table.get_mut(name) {
                    None if force => return Ok(None),
                    None => return Err(rules::not_found(name)),
                    Some(entry) if !entry.users.is_empty() => {
                        return Err(rules::in_use(name, entry.users.iter().map(String::as_str)));
                    }
                    Some(entry) if entry.step == Step::Ready => {
                        entry.step = Step::Removing;
                        break;
                    }
                    Some(_) => table = self.wait(table),
                }
            }
        }
        let removed = self.remove_taken(name);
        match &removed {
            Ok(_) => self.forget(name),
            Err(_) => self.give_back(name),
        }
        removed.map(Some)
    }

    fn remove_taken(&self, name: &str) -> Result<volumes::Gone, Refusal> {
        let gone = self.local.retire(name).map_err(|error| refusal(&format!("remove {name}"), &error))?;
        let deleted = failpoint::hit("volume.remove").and_then(|()| {
            self.store.commit(Batch::default().delete(TABLE, name)).map_err(|error| {
                Refusal::from_error(&format!("remove {name}: cannot delete its record"), &error)
            })
        });
        if let Err(refused) = deleted {
            if let Err(error) = gone.undo() {
                tracing::error!(volume = %name, %error, "cannot bring the volume's directory back");
            }
            return Err(refused);
        }
        Ok(gone)
    }

    /// Every volume, with the number of containers that have it.
    pub(crate) fn all(&self) -> Vec<(Arc<VolumeRecord>, usize)> {
        let table = self.lock();
        let there = table.values().filter(|entry| entry.step != Step::Making);
        there.map(|entry| (entry.record.clone(), entry.users.len())).collect()
    }

    /// Bytes of a volume's own directory, or of what is mounted on it; blocks. Another directory of the host that it
    /// shows is not measured: that is not the volume's.
    pub(crate) fn usage(&self, name: &str) -> Option<u64> {
        self.local.usage(name).ok()
    }

    pub(crate) fn answer(&self, record: &VolumeRecord) -> Volume {
        let some = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
        Volume {
            created_at: rfc3339(record.created),
            driver: rules::LOCAL.into(),
            labels: some(&record.labels),
            mountpoint: self.mountpoint(&record.name).to_string_lossy().into_owned(),
            name: record.name.clone(),
            options: some(&record.options),
            scope: "local".into(),
            ..Volume::default()
        }
    }
}

/// Names are matched by regular expression, or as a part of the name if the pattern is none.
fn matches(name: &str, pattern: &str) -> bool {
    name.contains(pattern) || regex_lite::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(name))
}

impl Volumes {
    pub async fn create(&self, request: VolumeCreate) -> Result<Volume, Refusal> {
        let volumes = self.clone();
        blocking(move || {
            let mut wanted = match request.name.as_str() {
                "" => NewVolume::anonymous(clock::new_id()),
                name => NewVolume { name: name.into(), ..NewVolume::default() },
            };
            wanted.driver = request.driver;
            wanted.labels.extend(request.labels.unwrap_or_default());
            wanted.options = request.driver_opts.unwrap_or_default();
            let (record, made) = volumes.keeper().create(wanted)?;
            if made {
                volumes.emit("create", &record.name, &[]);
            }
            Ok(volumes.keeper().answer(&record))
        })
        .await
    }

    pub fn list(&self, filters: &str) -> Result<VolumeList, Refusal> {
        let filters = Filters::parse(filters, &rules::LIST_KEYS)?;
        let mut volumes = Vec::new();
        for (record, users) in self.keeper().all() {
            if rules::passes(&record, users > 0, &filters, &matches)? {
                volumes.push(self.keeper().answer(&record));
            }
        }
        if volumes.is_empty() {
            // A bad value is told although there is nothing to try it on.
            filters.flag("dangling")?;
        }
        Ok(VolumeList { volumes, warnings: None })
    }

    pub fn inspect(&self, name: &str) -> Result<Volume, Refusal> {
        let record = self.keeper().get(name).ok_or_else(|| rules::not_found(name))?;
        Ok(self.keeper().answer(&record))
    }

    pub async fn remove(&self, name: &str, force: bool) -> Result<(), Refusal> {
        let (volumes, name) = (self.clone(), name.to_string());
        blocking(move || {
            if let Some(gone) = volumes.keeper().remove(&name, force)? {
                volumes.emit("destroy", &name, &[]);
                volumes.0.in_background(move |_| drop(gone));
            }
            Ok(())
        })
        .await
    }

    /// Removes volumes that no container has: those without a name, or `all`.
    pub async fn prune(&self, filters: &str, all_by_default: bool) -> Result<VolumesPrune, Refusal> {
        let filters = Filters::parse(filters, &rules::PRUNE_KEYS)?;
        let all = filters.flag("all")?.unwrap_or(all_by_default);
        let volumes = self.clone();
        blocking(move || {
            let (mut deleted, mut reclaimed) = (Vec::new(), 0);
            for (record, users) in volumes.keeper().all() {
                let wanted = (all || record.is_anonymous()) && filters.labels(&record.labels);
                if users > 0 || !wanted {
                    continue;
                }
                let size = volumes.keeper().usage(&record.name).unwrap_or(0);
                // One that came into use or went meanwhile is passed by.
                match volumes.keeper().remove(&record.name, false) {
                    Ok(Some(gone)) => {
                        volumes.emit("destroy", &record.name, &[]);
                        volumes.0.in_background(move |_| drop(gone));
                        deleted.push(record.name.clone());
                        reclaimed += size;
                    }
                    Ok(None) => {}
                    Err(error) if error.kind == model::Kind::System => {
                        tracing::warn!(volume = %record.name, %error, "cannot be pruned");
                    }
                    Err(_) => {}
                }
            }
            let attributes = [("reclaimed".to_string(), reclaimed.to_string())];
            volumes.0.events().emit("volume", "prune", "", attributes.into());
            Ok(VolumesPrune { volumes_deleted: Some(deleted), space_reclaimed: reclaimed })
        })
        .await
    }
}
