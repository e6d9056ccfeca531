//! Taking a container away: the record first, durably; what it held after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metadata::Batch;
use model::create::Record;
use model::{Phase, Refusal};
use shim_protocol::Command as ToShim;

use super::task::Task;
use crate::paths::remove_tree;
use crate::shipping::LAST_RECORDS;
use crate::{Engine, blocking, failpoint};

/// How long those who still copy its files may keep them from being removed.
const COPYING: std::time::Duration = std::time::Duration::from_secs(10);
/// After how many removals the allocator gives back what it has no use for.
const TRIM_AFTER: usize = 100;

impl Task {
    pub(super) async fn remove(&mut self, force: bool, volumes: bool) -> Result<(), Refusal> {
        if force && (self.phase.is_running() || matches!(self.phase, Phase::Restarting { .. })) {
            self.kill_for_removal().await?;
        }
        self.phase.may_remove(&self.record.name)?;
        self.take_away(volumes).await
    }

    async fn kill_for_removal(&mut self) -> Result<(), Refusal> {
        self.mark_stopped();
        // Its exit would remove it a second time.
        let record = Arc::make_mut(&mut self.record);
        let auto_remove = std::mem::take(&mut record.host_config.auto_remove);
        if self.phase.is_running() {
            if let Phase::Running { frozen: true, .. } = self.phase {
                self.freeze(ToShim::Freeze(false), false).await?;
            }
            let killed = self.signal(model::signal::KILL).await;
            let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
            while self.phase.is_running() {
                let event = tokio::time::timeout_at(deadline, self.link.hear()).await;
                match event {
                    Ok(Some(event)) => self.shim_event(event).await,
                    _ => {
                        Arc::make_mut(&mut self.record).host_config.auto_remove = auto_remove;
                        killed?;
                        return Err(Refusal::system(format!(
                            "cannot remove container \"/{}\": could not kill: it did not end within 10 seconds",
                            self.record.name
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes a container that is not running; `volumes`: with those that nobody named.
    async fn take_away(&mut self, volumes: bool) -> Result<(), Refusal> {
        let last = self.phase.ending();
        let code = last.code;
        let before = std::mem::replace(&mut self.phase, Phase::Removing { last });
        self.publish();
        if let Err(refusal) = delete_record(&self.engine, &self.record, volumes).await {
            self.phase = before;
            self.publish();
            return Err(refusal);
        }
        let (engine, record) = (self.engine.clone(), Arc::clone(&self.record));
        // Their clients still ask how they ended.
        for (id, exec) in self.execs.views() {
            engine.known_execs().forget(&id, Some((record.id.clone(), exec)));
        }
        // A client that starts a container and then waits for it may come when it has ended and gone already.
        engine.registry().remove(&record, record.host_config.auto_remove.then_some(code));
        self.emit("destroy", &[]);
        self.early.clear();
        self.publish_removed();
        // The answer does not wait for this: names and ports are free already. A crash before it is done leaves
        // what the next daemon sweeps.
        let leases = std::mem::take(&mut self.leases);
        engine.in_background(move |engine| {
            leases.returned_blocking(COPYING);
            if let Ok(Some(spool)) = engine.logs().spool(&record) {
                tokio::runtime::Handle::current().block_on(engine.shipping().forget(&record.id, spool));
            }
            discard(engine, &record);
        });
        Ok(())
    }

    /// `--rm`.
    pub(super) async fn remove_after_exit(&mut self) {
        // While there is a record, a next daemon would go on with it.
        self.engine.shipping().finish(&self.record.id, LAST_RECORDS).await;
        if let Err(error) = self.take_away(true).await {
            tracing::error!(container = %self.record.id, %error, "cannot remove the container after its exit");
        }
    }
}

/// Deletes a container's record, and with it those of the volumes that go with the container: `anonymous`, those that
/// nobody named and nobody else has.
async fn delete_record(engine: &Engine, record: &Arc<Record>, anonymous: bool) -> Result<(), Refusal> {
    failpoint::hit("remove.record")?;
    let (engine, record) = (engine.clone(), record.clone());
    blocking(move || {
        let going = engine.volume_keeper().going(&record, anonymous)?;
        engine.records().delete_with(&record.id, going.records(Batch::default()))?;
        let gone = going.done();
        engine.volume_keeper().release(&record);
        gone.keys().for_each(|name| engine.volumes().emit("destroy", name, &[]));
        if !gone.is_empty() {
            engine.in_background(move |_| drop(gone));
        }
        Ok(())
    })
    .await
}

/// Removes what a removed container leaves on disk; blocks.
fn discard(engine: &Engine, record: &Record) {
    engine.paths().discard_task(&record.id);
    // With it go layers of an image that was removed while this container used it.
    if let Err(error) = engine.images().release(&record.id) {
        tracing::warn!(container = %record.id, %error, "cannot remove the container's layer");
    }
    remove_tree(&engine.paths().container(&record.id));
    // What containers had in memory lies scattered over the heap, which would only shrink from its end.
    static REMOVED: AtomicUsize = AtomicUsize::new(0);
    if (REMOVED.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(TRIM_AFTER) {
        sys::memory::trim();
    }
}
