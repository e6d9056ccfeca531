//! The task that owns one container: it alone changes the container's phase.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::StringMap;
use model::create::{NetworkChoice, Record};
use model::phase::Ending;
use model::{Phase, Refusal};
use shim_protocol::{Command as ToShim, Exit, Notice, Reply};
use tokio::sync::{mpsc, watch};

use super::exec::Exec;
use super::health::Care;
use super::{Client, Command, Handle, Held, INBOX, Remembered, View};
use crate::Engine;
use crate::net::Endpoint;
use crate::shim::{self, Event, Events, Shim};

pub struct Task {
    pub(super) engine: Engine,
    pub(super) record: Arc<Record>,
    pub(super) phase: Phase,
    pub(super) shim: Option<Shim>,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    pub(super) execs: BTreeMap<String, Exec>,
    /// Clients that attached before the start.
    pub(super) early: Vec<Client>,
    pub(super) stopped_by_hand: bool,
    pub(super) restart_count: u32,
    pub(super) backoff: model::restart::Backoff,
    pub(super) care: Care,
    exits: u64,
    removed: bool,
    pub(super) settled: bool,
    pub(super) leases: super::lease::Leases,
    inbox: mpsc::Receiver<Command>,
    /// Counts the shims that it has had.
    shim_number: u64,
    shim_events: shim::Channel,
    view: watch::Sender<Arc<View>>,
}

impl Task {
    /// Makes the task of a container, which does nothing yet, and the handle to it.
    pub fn new(engine: Engine, record: Record, phase: Phase, remembered: &Remembered) -> (Task, Handle) {
        let (send, inbox) = mpsc::channel(INBOX);
        let record = Arc::new(record);
        let first = View {
            record: record.clone(),
            phase: phase.clone(),
            endpoint: None,
            execs: Arc::default(),
            health: remembered.health.clone(),
            restart_count: remembered.restart_count,
            exits: 0,
            removed: false,
            settled: true,
        };
        let (view, seen) = watch::channel(Arc::new(first));
        let task = Task {
            engine,
            record,
            phase,
            shim: None,
            endpoint: None,
            execs: BTreeMap::new(),
            early: Vec::new(),
            stopped_by_hand: remembered.stopped_by_hand,
            restart_count: remembered.restart_count,
            backoff: Default::default(),
            care: Care::new(remembered.health.clone()),
            exits: 0,
            removed: false,
            settled: true,
            leases: super::lease::Leases::default(),
            inbox,
            shim_number: 0,
            shim_events: mpsc::unbounded_channel(),
            view,
        };
        (task, Handle { inbox: send, view: seen })
    }

    /// Takes commands until the container is removed or the daemon ends.
    pub async fn run(mut self) {
        while !self.removed {
            let restart_at = match &self.phase {
                Phase::Restarting { until, .. } => Some(*until),
                _ => None,
            };
            let probe_at = self.care.due();
            tokio::select! {
                // What the shim says comes first: a command must see the state that already holds.
                biased;
                Some((number, event)) = self.shim_events.1.recv() => self.shim_event(number, event).await,
                () = super::restart::sleep_until(restart_at), if restart_at.is_some() => self.restart_now().await,
                () = super::health::sleep_until(probe_at), if probe_at.is_some() => self.probe().await,
                command = self.inbox.recv() => match command {
                    Some(Command::Forget { done }) => {
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.command(command).await,
                    None => return,
                },
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Start { by, answer } => {
                let result = self.start(by).await;
                let failed = result.is_err();
                let _ = answer.send(result);
                if failed
                    && self.record.host_config.auto_remove
                    && matches!(self.phase, Phase::Created { .. })
                {
                    self.remove_after_exit().await;
                }
            }
            Command::Signal { signal, answer } => {
                let _ = answer.send(self.signal(signal).await);
            }
            Command::MarkStopped { answer } => {
                self.mark_stopped();
                let _ = answer.send(Ok(self.phase.clone()));
            }
            Command::Freeze { frozen, answer } => {
                let _ = answer.send(self.freeze(ToShim::Freeze(frozen), frozen).await);
            }
            Command::Hold { answer } => {
                let _ = answer.send(self.freeze(ToShim::Hold, true).await);
            }
            Command::Reach { answer } => {
                let _ = answer.send(self.reach().await);
            }
            Command::Attach { client, answer } => {
                let _ = answer.send(self.attach(client).await);
            }
            Command::Resize { rows, columns, answer } => {
                let _ = answer.send(self.resize(None, rows, columns).await);
            }
            Command::ExecCreate { id, request, answer } => {
                let _ = answer.send(self.exec_create(id, *request));
            }
            Command::ExecStart { id, client, console, answer } => {
                let _ = answer.send(self.exec_start(&id, client, console).await);
            }
            Command::ExecResize { id, rows, columns, answer } => {
                let _ = answer.send(self.exec_resize(&id, rows, columns).await);
            }
            Command::Rename { name, answer } => {
                let _ = answer.send(self.rename(name).await);
            }
            Command::Update { request, answer } => {
                let _ = answer.send(self.update(*request).await);
            }
            Command::Remove { force, volumes, answer } => {
                let _ = answer.send(self.remove(force, volumes).await);
            }
            Command::CatchUp { answer } => {
                if let Some(shim) = self.shim.clone() {
                    // Its answer comes after all that it said before, on the same connection.
                    let _ = shim.call(ToShim::State, &[], Vec::new()).await;
                    while let Ok((number, event)) = self.shim_events.1.try_recv() {
                        self.shim_event(number, event).await;
                    }
                }
                let _ = answer.send(Ok(()));
            }
            Command::Remembered if !self.phase.is_running() => {
                self.engine.discard_task_directory(&self.record.id);
            }
            Command::Remembered | Command::Forget { .. } => {}
        }
    }

    /// Shows readers what holds now.
    pub(super) fn publish(&mut self) {
        let view = View {
            record: self.record.clone(),
            phase: self.phase.clone(),
            endpoint: self.endpoint.clone(),
            execs: Arc::new(self.execs.iter().map(|(id, exec)| (id.clone(), exec.view())).collect()),
            health: self.care.health.clone(),
            restart_count: self.restart_count,
            exits: self.exits,
            removed: self.removed,
            settled: self.settled,
        };
        self.view.send_replace(Arc::new(view));
    }

    pub(super) fn publish_removed(&mut self) {
        self.removed = true;
        self.publish();
    }

    pub(super) fn emit(&self, action: &str, more: &[(&str, String)]) {
        let mut attributes: StringMap = self.view.borrow().attributes();
        attributes.insert("name".into(), self.record.name.clone());
        attributes.extend(more.iter().map(|(key, value)| (key.to_string(), value.clone())));
        self.engine.events().emit("container", action, &self.record.id, attributes);
    }

    pub(super) fn remember(&self) {
        let ending = match &self.phase {
            Phase::Exited(ending) | Phase::Restarting { last: ending, .. } => Some(ending.clone()),
            Phase::Created { failure } => failure.clone(),
            Phase::Running { started_at, .. } => {
                Some(Ending { started_at: *started_at, ..Ending::default() })
            }
            Phase::Removing { .. } => return,
        };
        self.engine.remember(
            &self.record.id,
            Remembered {
                ending,
                running: self.phase.is_running(),
                stopped_by_hand: self.stopped_by_hand,
                restart_count: self.restart_count,
                restarting: matches!(self.phase, Phase::Restarting { .. }),
                health: self.care.health.clone(),
            },
        );
    }

    /// Where the events of the next shim go.
    pub(crate) fn next_shim(&mut self) -> Events {
        self.shim_number += 1;
        Events { number: self.shim_number, inbox: self.shim_events.0.clone() }
    }

    pub(super) async fn next_shim_event(&mut self) -> Option<(u64, Event)> {
        self.shim_events.1.recv().await
    }

    pub(super) async fn shim_event(&mut self, number: u64, event: Event) {
        if number != self.shim_number {
            return;
        }
        match event {
            Event::Notice(Notice::Exited(exit)) => self.exited(exit).await,
            Event::Notice(Notice::ExecExited { exec, code, captured }) => {
                self.exec_exited(&exec, code);
                self.probe_ended(&exec, code, captured).await;
            }
            Event::Notice(Notice::Detached { exec: None }) => self.emit("detach", &[]),
            Event::Notice(Notice::Detached { exec: Some(exec) }) => {
                self.emit("exec_detach", &[("execID", exec)]);
            }
            Event::Notice(Notice::OutOfMemory) => self.emit("oom", &[]),
            Event::Gone => self.shim_gone().await,
        }
    }

    /// The shim went. After an exit that is as it should be; before, the exit file tells what happened.
    async fn shim_gone(&mut self) {
        self.settled = true;
        if !self.phase.is_running() {
            self.publish();
            return;
        }
        let exit = self.engine.read_exit(&self.record.id).unwrap_or_else(|| Exit {
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
        if let Some(shim) = self.shim.take() {
            shim.close();
        }
        self.engine.shipping().ended(&self.record.id);
        self.end_execs();
        self.stop_health();
        let mut endpoint = self.endpoint.take();
        if endpoint.as_ref().is_some_and(|endpoint| endpoint.publishes()) {
            // Before anybody is told: they may publish the ports anew at once.
            self.release_network(endpoint.take()).await;
        }
        self.exits += 1;
        let auto_remove = self.record.host_config.auto_remove;
        let restart = if auto_remove { None } else { self.next_restart(&ending) };
        self.phase = match restart {
            Some(until) => Phase::Restarting { last: ending.clone(), until },
            None => Phase::Exited(ending.clone()),
        };
        let seconds = (finished_at - started_at).max(0) / model::time::NANOS;
        self.emit("die", &[("execDuration", seconds.to_string()), ("exitCode", exit.code.to_string())]);
        self.emit_network("disconnect");
        self.release_volumes().await;
        self.publish();
        if auto_remove {
            self.remove_after_exit().await;
        } else {
            self.remember();
        }
        self.release_network(endpoint).await;
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

    pub(super) fn emit_network(&self, action: &str) {
        if let NetworkChoice::Bridge(_) = self.record.network {
            self.engine.emit_bridge(action, &self.record.id);
        }
    }

    async fn signal(&mut self, signal: i32) -> Result<(), Refusal> {
        let id = self.record.id.clone();
        let Some(shim) = self.shim.clone().filter(|_| self.phase.is_running()) else {
            return Err(Refusal::conflict(format!(
                "cannot kill container: {}: container {id} is not running",
                self.record.name
            )));
        };
        shim.call(ToShim::Signal { signal, all: false }, &[], Vec::new()).await?;
        self.emit("kill", &[("signal", signal.to_string())]);
        Ok(())
    }

    fn mark_stopped(&mut self) {
        self.stopped_by_hand = true;
        if let Phase::Restarting { last, .. } = &self.phase {
            self.phase = Phase::Exited(last.clone());
            self.publish();
        }
        if !self.record.host_config.auto_remove {
            self.remember();
        }
    }

    async fn freeze(&mut self, how: ToShim, frozen: bool) -> Result<(), Refusal> {
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
        let shim =
            self.shim.clone().ok_or_else(|| Refusal::conflict(format!("Container {id} is not running")))?;
        shim.call(how, &[], Vec::new()).await?;
        if let Phase::Running { frozen: place, .. } = &mut self.phase {
            *place = frozen;
        }
        if frozen {
            self.stop_health();
            self.keep_health().await;
        } else {
            self.resume_health();
        }
        self.emit(if frozen { "pause" } else { "unpause" }, &[]);
        self.publish();
        Ok(())
    }

    async fn attach(&mut self, mut client: Client) -> Result<bool, Refusal> {
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
        let shim = self.shim.clone().ok_or_else(|| Refusal::system("the container's shim is gone"))?;
        self.emit("attach", &[]);
        // Until the client is let go, the container may end.
        let shim = shim.hold();
        // The stream comes after this command has been answered.
        tokio::spawn(async move {
            let held = client.held.take();
            let Some((attach, stream)) = client.ready().await else { return };
            let attached = shim.shim().call(ToShim::Attach(attach), &[], vec![stream]).await;
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
        let running = self.shim.clone().filter(|_| self.phase.is_running());
        let Some(shim) = running else {
            return Err(Refusal::conflict(format!("cannot resize a stopped container: {}", self.record.id)));
        };
        let attributes = [("height", rows.to_string()), ("width", columns.to_string())];
        if exec.is_none() {
            self.emit("resize", &attributes);
        }
        shim.call(ToShim::Resize { exec, rows, columns }, &[], Vec::new()).await?;
        Ok(())
    }

    async fn rename(&mut self, name: String) -> Result<(), Refusal> {
        let mut record = (*self.record).clone();
        let old = std::mem::replace(&mut record.name, name);
        self.engine.store_record(&record).await?;
        self.record = Arc::new(record);
        self.publish();
        self.emit("rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    async fn remove(&mut self, force: bool, volumes: bool) -> Result<(), Refusal> {
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
                let event = tokio::time::timeout_at(deadline, self.shim_events.1.recv()).await;
                match event {
                    Ok(Some((number, event))) => self.shim_event(number, event).await,
                    _ => {
                        Arc::make_mut(&mut self.record).host_config.auto_remove = auto_remove;
                        killed?;
                        return Err(Refusal::system(format!(
                            "cannot remove container \"{}\": could not kill: it did not end within 10 seconds",
                            self.record.name
                        )));
                    }
                }
            }
        }
        Ok(())
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
        (self.shim, self.settled) = (Some(shim), false);
        let started_at = i64::try_from(started_at).unwrap_or(i64::MAX);
        self.phase = Phase::Running { pid: state.pid, started_at, frozen: state.frozen };
        self.adopt_health();
        if let Some(exit) = state.exit {
            self.exited(exit).await;
        }
        self.publish();
        Ok(())
    }
}
