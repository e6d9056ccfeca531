//! Taking a container away: the record first, durably; what it held after that.

use std::sync::Arc;

use model::{Phase, Refusal};

use super::task::Task;
use crate::shipping::LAST_RECORDS;

/// How long those who still copy its files may keep them from being removed.
const COPYING: std::time::Duration = std::time::Duration::from_secs(10);

impl Task {
    /// Removes a container that is not running; `volumes`: with those that nobody named.
    pub(super) async fn take_away(&mut self, volumes: bool) -> Result<(), Refusal> {
        let last = self.phase.ending();
        let before = std::mem::replace(&mut self.phase, Phase::Removing { last });
        self.publish();
        if let Err(refusal) = self.engine.delete_record(&self.record, volumes).await {
            self.phase = before;
            self.publish();
            return Err(refusal);
        }
        let (engine, record) = (self.engine.clone(), Arc::clone(&self.record));
        // Their clients still ask how they ended.
        for (id, exec) in &self.execs {
            engine.forget_exec(id, Some((record.id.clone(), exec.view())));
        }
        engine.forget(&record);
        self.emit("destroy", &[]);
        self.early.clear();
        self.publish_removed();
        // The answer does not wait for this: names and ports are free already. A crash before it is done leaves
        // what the next daemon sweeps.
        let leases = std::mem::take(&mut self.leases);
        engine.in_background(move |engine| {
            leases.returned_blocking(COPYING);
            if let Ok(Some(spool)) = engine.log_spool(&record) {
                tokio::runtime::Handle::current().block_on(engine.shipping().forget(&record.id, spool));
            }
            engine.discard_container(&record);
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
