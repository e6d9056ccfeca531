//! The end of a container's process, seen or told later, and taking up one that runs on from an earlier daemon.

use std::sync::Arc;

use model::phase::Ending;
use model::{Phase, Refusal};
use shim_protocol::{Command as ToShim, Exit, Reply};

use super::task::Task;
use super::{network, volumes};
use crate::net::Endpoint;
use crate::shim::Shim;

impl Task {
    /// The shim went. After an exit that is as it should be; before, the exit file tells what happened.
    pub(super) async fn shim_gone(&mut self) {
        self.link.settled = true;
        if !self.phase.is_running() {
            self.publish();
            return;
        }
        let exit = self.engine.paths().read_exit(&self.record.id).unwrap_or_else(|| Exit {
            code: 255,
            signal: None,
            oom_killed: false,
            started_at_nanoseconds: 0,
            at_nanoseconds: crate::clock::now().unsigned_abs(),
        });
        self.exited(exit).await;
    }

    pub(super) async fn exited(&mut self, exit: Exit) {
        let Phase::Running { started_at, .. } = self.phase else { return };
        let finished_at = i64::try_from(exit.at_nanoseconds).unwrap_or(i64::MAX);
        let ending = Ending {
            code: exit.code,
            oom_killed: exit.oom_killed,
            error: String::new(),
            started_at,
            finished_at,
        };
        if let Some(shim) = self.link.shim.take() {
            shim.close();
        }
        self.engine.shipping().ended(&self.record.id);
        self.execs.end_all();
        self.care.stop();
        let mut endpoint = self.endpoint.take();
        if endpoint.as_ref().is_some_and(|endpoint| endpoint.publishes()) {
            // Before anybody is told: they may publish the ports anew at once.
            network::release(&self.engine, endpoint.take()).await;
        }
        self.exits += 1;
        let auto_remove = self.record.host_config.auto_remove;
        let policy = &self.record.host_config.restart_policy;
        let restart = if auto_remove { None } else { self.comeback.after(policy, &ending) };
        self.phase = match restart {
            Some(until) => Phase::Restarting { last: ending.clone(), until },
            None => Phase::Exited(ending.clone()),
        };
        let seconds = (finished_at - started_at).max(0) / model::time::NANOS;
        self.emit("die", &[("execDuration", seconds.to_string()), ("exitCode", exit.code.to_string())]);
        network::emit(&self.engine, &self.record, "disconnect");
        volumes::release(&self.engine, &self.record).await;
        self.publish();
        if auto_remove {
            self.remove_after_exit().await;
        } else {
            self.remember();
        }
        network::release(&self.engine, endpoint).await;
    }

    /// It ended while no daemon was there.
    pub fn ended_unseen(&mut self, exit: Exit) {
        let started_at = i64::try_from(exit.started_at_nanoseconds).unwrap_or(0);
        let finished_at = i64::try_from(exit.at_nanoseconds).unwrap_or(i64::MAX);
        self.phase = Phase::Exited(Ending {
            code: exit.code,
            oom_killed: exit.oom_killed,
            error: String::new(),
            started_at,
            finished_at,
        });
        self.exits += 1;
        self.publish();
        self.remember();
    }

    /// Takes up a container that an earlier daemon started.
    pub async fn adopt(&mut self, shim: Shim, endpoint: Option<Endpoint>) -> Result<(), Refusal> {
        let (reply, _) = shim.call(ToShim::State, &[], Vec::new()).await?;
        let Reply::State(state) = reply else { return Err(Refusal::system("the shim gave an odd answer")) };
        let Some(started_at) = state.started_at_nanoseconds else {
            // The daemon that made it went before it was started: nobody was promised anything.
            let _ = shim.call(ToShim::Discard, &[], Vec::new()).await;
            return Err(Refusal::system("was not started"));
        };
        self.endpoint = endpoint.map(Arc::new);
        (self.link.shim, self.link.settled) = (Some(shim), false);
        let started_at = i64::try_from(started_at).unwrap_or(i64::MAX);
        self.phase = Phase::Running { pid: state.pid, started_at, frozen: state.frozen };
        self.care.adopt(&self.record.config, &self.run_directory(), started_at, state.frozen);
        if let Some(exit) = state.exit {
            self.exited(exit).await;
        }
        self.publish();
        Ok(())
    }
}
