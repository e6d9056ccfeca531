//! The task that owns one container: it alone changes the container's phase.

use std::path::PathBuf;
use std::sync::Arc;

use model::create::Record;
use model::phase::Ending;
use model::{Phase, Refusal};
use shim_protocol::{Command as ToShim, Notice};
use tokio::sync::{mpsc, oneshot, watch};

use super::exec::Execs;
use super::health::Care;
use super::link::Link;
use super::restart::Comeback;
use super::{Client, Command, Handle, INBOX, Remembered, View};
use crate::Engine;
use crate::net::Endpoint;
use crate::shim::{Event, Shim};

pub struct Task {
    pub(super) engine: Engine,
    pub(super) record: Arc<Record>,
    pub(super) phase: Phase,
    pub(crate) link: Link,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    pub(super) execs: Execs,
    /// Clients that attached before the start.
    pub(super) early: Vec<Client>,
    /// Ends when the client that attached last to a running container has its stream, or has gone.
    pub(super) last_attached: Option<oneshot::Receiver<()>>,
    pub(super) comeback: Comeback,
    pub(super) care: Care,
    pub(super) exits: u64,
    removed: bool,
    pub(super) leases: super::lease::Leases,
    inbox: mpsc::Receiver<Command>,
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
            link: Link::default(),
            endpoint: None,
            execs: Execs::default(),
            early: Vec::new(),
            last_attached: None,
            comeback: Comeback::new(remembered),
            care: Care::new(remembered.health.clone()),
            exits: 0,
            removed: false,
            leases: super::lease::Leases::default(),
            inbox,
            view,
        };
        (task, Handle { inbox: send, view: seen })
    }

    /// Takes commands until the container is removed or the daemon ends. Most containers wait here most of the time: what
    /// it takes to do something is only there while it is done.
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
                Some(event) = self.link.hear() => Box::pin(self.shim_event(event)).await,
                () = super::restart::sleep_until(restart_at), if restart_at.is_some() => Box::pin(self.restart_now()).await,
                () = super::health::sleep_until(probe_at), if probe_at.is_some() => Box::pin(self.probe()).await,
                command = self.inbox.recv() => match command {
                    Some(Command::Forget { done }) => {
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => Box::pin(self.command(command)).await,
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
                let _ = answer.send(self.attach(*client).await);
            }
            Command::Resize { rows, columns, answer } => {
                let _ = answer.send(self.resize(None, rows, columns).await);
            }
            Command::ExecCreate { id, request, answer } => {
                let _ = answer.send(self.exec_create(id, *request));
            }
            Command::ExecStart { id, client, console, answer } => {
                let _ = answer.send(self.exec_start(&id, client.map(|client| *client), console).await);
            }
            Command::ExecResize { id, rows, columns, answer } => {
                let _ = answer.send(self.exec_resize(&id, rows, columns).await);
            }
            Command::LinkMoved { child, address } => self.link_moved(&child, address).await,
            Command::Unlink { alias, answer } => {
                let _ = answer.send(self.unlink(&alias).await);
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
                if let Some(shim) = self.link.shim.clone() {
                    // Its answer comes after all that it said before, on the same connection.
                    let _ = shim.call(ToShim::State, &[], Vec::new()).await;
                    while let Some(event) = self.link.heard() {
                        self.shim_event(event).await;
                    }
                }
                let _ = answer.send(Ok(()));
            }
            Command::Remembered if !self.phase.is_running() => {
                self.engine.paths().discard_task(&self.record.id);
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
            execs: Arc::new(self.execs.views()),
            health: self.care.health.clone(),
            restart_count: self.comeback.count,
            exits: self.exits,
            removed: self.removed,
            settled: self.link.settled,
        };
        self.view.send_replace(Arc::new(view));
    }

    pub(super) fn publish_removed(&mut self) {
        self.removed = true;
        self.publish();
    }

    /// The shim of a container that runs.
    pub(super) fn running_shim(&self) -> Option<Shim> {
        self.link.shim.clone().filter(|_| self.phase.is_running())
    }

    pub(super) fn run_directory(&self) -> PathBuf {
        self.engine.paths().task(&self.record.id)
    }

    pub(super) fn emit(&self, action: &str, more: &[(&str, String)]) {
        self.engine.events().container(&self.record, action, more);
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
        self.engine.records().note(
            &self.record.id,
            Remembered {
                ending,
                running: self.phase.is_running(),
                stopped_by_hand: self.comeback.stopped_by_hand,
                restart_count: self.comeback.count,
                restarting: matches!(self.phase, Phase::Restarting { .. }),
                health: self.care.health.clone(),
            },
        );
    }

    pub(super) async fn shim_event(&mut self, event: Event) {
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

    async fn rename(&mut self, name: String) -> Result<(), Refusal> {
        let mut record = (*self.record).clone();
        let old = std::mem::replace(&mut record.name, name);
        self.engine.records().put(&record).await?;
        self.record = Arc::new(record);
        self.publish();
        self.emit("rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }
}
