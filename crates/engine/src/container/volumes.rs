//! A container's volumes, while it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::Refusal;
use model::mounts::Source;
use model::spec::Place;

use super::task::Task;
use crate::{blocking, failpoint};

impl Task {
    fn has_places(&self) -> bool {
        let mounts = &self.record.mounts;
        mounts.iter().any(|mount| matches!(mount.source, Source::Volume { .. } | Source::Image { .. }))
    }

    /// Finds the volumes and images that it mounts; volumes of a filesystem are mounted.
    pub(super) async fn attach_volumes(&self) -> Result<BTreeMap<PathBuf, Place>, Refusal> {
        if !self.has_places() {
            return Ok(BTreeMap::new());
        }
        failpoint::hit("start.volumes")?;
        let (engine, record) = (self.engine.clone(), self.record.clone());
        let places = blocking(move || engine.attach_volumes(&record)).await?;
        self.engine.emit_mounts(&self.record, true);
        Ok(places)
    }

    /// Unmounts what no other container runs with. Waited for, so that a next start does not run into it.
    pub(super) async fn release_volumes(&self) {
        if !self.has_places() {
            return;
        }
        if self.engine.volumes().has_mounted(&self.record) {
            let (engine, record) = (self.engine.clone(), self.record.clone());
            let done = blocking(move || {
                engine.volumes().detach(&record);
                Ok(())
            });
            let _ = done.await;
        }
        self.engine.emit_mounts(&self.record, false);
    }
}
