//! Changing limits and restart policy, also of a running container.

use std::sync::Arc;

use api_types::container::ContainerUpdate;
use model::create::Record;
use model::update::Update;
use model::{Phase, Refusal};
use oci::runtime::LinuxResources;
use sandbox::Cgroup;

use super::task::Task;
use crate::{blocking, failpoint, host};

impl Task {
    /// Changes the kernel's limits first and the record then: what is acknowledged holds for both. If either fails, the
    /// kernel is told to take the changes back. Returns warnings.
    pub(super) async fn update(&mut self, request: ContainerUpdate) -> Result<Vec<String>, Refusal> {
        let cannot = |refusal: Refusal| Refusal {
            message: format!("Cannot update container {}: {}", self.record.id, refusal.message),
            ..refusal
        };
        if let Phase::Removing { .. } = self.phase {
            return Err(cannot(Refusal::conflict(
                "container is marked for removal and cannot be \"update\"",
            )));
        }
        let update = model::update::update(&self.record, request, &self.engine.facts())?;
        let running = match self.phase {
            Phase::Running { pid, .. } if update.has_changes() => Some(pid),
            _ => None,
        };
        if let Some(pid) = running {
            let (before, update) = (self.record.clone(), update.clone());
            blocking(move || apply(pid, &before, &update)).await.map_err(cannot)?;
        }
        let stored = match failpoint::hit("update.record") {
            Ok(()) => self.engine.records().put(&update.record).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = stored {
            if let Some(pid) = running {
                let before = self.record.clone();
                let _ = blocking(move || take_back(pid, &before, &update)).await;
            }
            return Err(refusal);
        }
        self.record = Arc::new(update.record);
        self.publish();
        self.emit("update", &[]);
        Ok(update.warnings)
    }
}

fn apply(pid: i32, before: &Record, update: &Update) -> Result<(), Refusal> {
    failpoint::hit("update.limits")?;
    let wanted = update.resources(&host::device)?;
    if let Err(refusal) = set(pid, before, &wanted) {
        let _ = take_back(pid, before, update);
        return Err(refusal);
    }
    Ok(())
}

fn take_back(pid: i32, before: &Record, update: &Update) -> Result<(), Refusal> {
    set(pid, before, &update.undo(before, &host::device)?)
}

fn set(pid: i32, record: &Record, limits: &LinuxResources) -> Result<(), Refusal> {
    let failed = |error: sandbox::Error| {
        Refusal::system(error.to_string()).hint("the container's limits are as they were before")
    };
    Cgroup::of_process(pid, &record.id).and_then(|cgroup| cgroup.update(limits)).map_err(failed)
}
