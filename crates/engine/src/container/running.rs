//! What is done to a container's running process: signals, freezing, attaching, resizing.

use model::{Phase, Refusal};
use shim_protocol::{Command as ToShim, FailureKind, Reply};
use tokio::sync::oneshot;

use super::task::Task;
use super::{Client, Held};
use crate::shim::CallError;

impl Task {
    pub(super) async fn signal(&mut self, signal: i32) -> Result<(), Refusal> {
        let (id, name) = (&self.record.id, &self.record.name);
        let not_running =
            || Refusal::conflict(format!("cannot kill container: {name}: container {id} is not running"));
        let shim = self.running_shim().ok_or_else(not_running)?;
        match shim.call(ToShim::Signal { signal, all: false }, &[], Vec::new()).await {
            // It has just ended, and the news is on its way.
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotRunning => {
                return Err(not_running());
            }
            other => other?,
        };
        self.emit("kill", &[("signal", signal.to_string())]);
        Ok(())
    }

    pub(super) fn mark_stopped(&mut self) {
        self.comeback.stopped_by_hand = true;
        if let Phase::Restarting { last, .. } = &self.phase {
            self.phase = Phase::Exited(last.clone());
            self.publish();
        }
        if !self.record.host_config.auto_remove {
            self.remember();
        }
    }

    pub(super) async fn freeze(&mut self, how: ToShim, frozen: bool) -> Result<(), Refusal> {
        let id = &self.record.id;
        let was = match &self.phase {
            Phase::Running { frozen, .. } => *frozen,
            Phase::Restarting { .. } => {
                return Err(Refusal::conflict(format!(
                    "Container {id} is restarting, wait until the container is running"
                )));
            }
            _ => return Err(Refusal::conflict(format!("Container {id} is not running"))),
        };
        match (was, frozen) {
            (true, true) => return Err(Refusal::conflict(format!("Container {id} is already paused"))),
            (false, false) => return Err(Refusal::conflict(format!("Container {id} is not paused"))),
            _ => {}
        }
        let shim = self.link.answering()?;
        match shim.call(how, &[], Vec::new()).await {
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotRunning => {
                return Err(Refusal::conflict(format!("Container {id} is not running")));
            }
            other => other?,
        };
        if let Phase::Running { frozen: place, .. } = &mut self.phase {
            *place = frozen;
        }
        if frozen {
            self.care.stop();
            self.care.keep(self.run_directory()).await;
        } else if let Phase::Running { started_at, .. } = self.phase {
            self.care.resume(&self.record.config, started_at);
        }
        self.emit(if frozen { "pause" } else { "unpause" }, &[]);
        self.publish();
        Ok(())
    }

    pub(super) async fn attach(&mut self, mut client: Client) -> Result<bool, Refusal> {
        if client.run.is_some_and(|run| run != self.exits) {
            return Err(Refusal::conflict(format!("container {} has ended", self.record.id)));
        }
        match &self.phase {
            Phase::Created { .. } | Phase::Exited(_) => {
                // Nothing runs that would have to wait for what came before.
                client.attach.held = false;
                self.early.push(client);
                self.emit("attach", &[]);
                return Ok(false);
            }
            Phase::Running { frozen: true, .. } => {
                return Err(Refusal::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    self.record.id
                )));
            }
            Phase::Restarting { .. } => {
                return Err(Refusal::conflict(format!(
                    "container {} is restarting, wait until the container is running",
                    self.record.id
                )));
            }
            Phase::Running { .. } => {}
            Phase::Removing { .. } => {
                return Err(Refusal::conflict(format!("container {} is being removed", self.record.id)));
            }
        }
        let shim = self.link.answering()?;
        self.emit("attach", &[]);
        // Until the client is let go, the container may end.
        let shim = shim.hold();
        let (done, turn) = oneshot::channel::<()>();
        let before = self.last_attached.replace(turn);
        // The stream comes after this command has been answered.
        tokio::spawn(async move {
            let held = client.held.take();
            let ready = client.ready().await;
            // Who was answered first sees what those who came later bring about.
            if let Some(before) = before {
                let _ = before.await;
            }
            let Some((attach, stream)) = ready else { return };
            let attached = shim.shim().call(ToShim::Attach(attach), &[], vec![stream]).await;
            drop(done);
            if let (Some(held), Ok((Reply::Attached(begins), _))) = (held, attached) {
                let _ = held.send(Held { shim, begins });
            }
        });
        Ok(true)
    }

    pub(super) async fn resize(
        &mut self,
        exec: Option<String>,
        rows: u16,
        columns: u16,
    ) -> Result<(), Refusal> {
        let Some(shim) = self.running_shim() else {
            return Err(Refusal::conflict(format!("container {} is not running", self.record.id)));
        };
        let is_exec = exec.is_some();
        shim.call(ToShim::Resize { exec, rows, columns }, &[], Vec::new()).await?;
        if !is_exec {
            self.emit("resize", &[("height", rows.to_string()), ("width", columns.to_string())]);
        }
        Ok(())
    }
}
