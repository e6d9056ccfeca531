//! A container's volumes, while it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::Refusal;
use model::create::Record;
use model::mounts::Source;
use model::spec::Place;

use crate::{Engine, blocking, failpoint};

fn has_places(record: &Record) -> bool {
    record.mounts.iter().any(|mount| matches!(mount.source, Source::Volume { .. } | Source::Image { .. }))
}

/// Finds the volumes and images that it mounts; volumes of a filesystem are mounted.
pub async fn attach(engine: &Engine, record: &Arc<Record>) -> Result<BTreeMap<PathBuf, Place>, Refusal> {
    if !has_places(record) {
        return Ok(BTreeMap::new());
    }
    failpoint::hit("start.volumes")?;
    let (volumes, attached) = (engine.volumes(), record.clone());
    let places = blocking(move || volumes.attach(&attached)).await?;
    engine.volumes().emit_mounts(record, true);
    Ok(places)
}

/// Unmounts what no other container runs with. Waited for, so that a next start does not run into it.
pub async fn release(engine: &Engine, record: &Arc<Record>) {
    if !has_places(record) {
        return;
    }
    if engine.volume_keeper().has_mounted(record) {
        let (releasing, record) = (engine.clone(), record.clone());
        let done = blocking(move || {
            releasing.volume_keeper().detach(&record);
            Ok(())
        });
        let _ = done.await;
    }
    engine.volumes().emit_mounts(record, false);
}
