//! One container: the task that owns it, the commands that it takes, and the view that readers see.

mod cleanup;
mod ending;
mod exec;
mod files;
mod health;
mod joins;
mod lease;
mod link;
pub(crate) mod links;
mod network;
mod plan;
mod reach;
mod restart;
mod running;
mod start;
mod task;
mod update;
mod volumes;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use api_types::StringMap;
use model::create::Record;
use model::phase::Ending;
use model::{Kind, Phase, Refusal};
use serde::{Deserialize, Serialize};
use shim_protocol::{Attach, Attached};
use tokio::sync::{mpsc, oneshot, watch};

pub use exec::{ExecPhase, ExecView};
pub(crate) use files::Files as GivenFiles;
pub use lease::Lease;
pub use reach::Reached;
pub use task::Task;

use crate::net::Endpoint;

/// How long a client's stream may take to be handed over after its request was answered.
const TAKEOVER: std::time::Duration = std::time::Duration::from_secs(5);
/// Commands that may wait for one container.
const INBOX: usize = 64;

/// What readers see: published whole after each change, never waited for.
#[derive(Debug, Clone)]
pub struct View {
    pub record: Arc<Record>,
    pub phase: Phase,
    /// While it runs on the bridge.
    pub endpoint: Option<Arc<Endpoint>>,
    pub execs: Arc<BTreeMap<String, ExecView>>,
    /// None if it was never checked.
    pub health: Option<model::health::Health>,
    pub restart_count: u32,
    /// Times that its task has ended.
    pub exits: u64,
    pub removed: bool,
    /// Nothing of its last task is left: no process and no mount.
    pub settled: bool,
}

impl View {
    pub fn id(&self) -> &str {
        &self.record.id
    }

    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// What events say of it.
    pub fn attributes(&self) -> StringMap {
        let mut all = self.record.config.labels.clone().unwrap_or_default();
        all.insert("image".into(), self.record.config.image.clone());
        all.insert("name".into(), self.record.name.clone());
        all
    }
}

/// State that is worth keeping over a reboot, written after the fact and not waited for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Remembered {
    pub ending: Option<Ending>,
    pub running: bool,
    /// Stopped by a person: `unless-stopped` does not start it with the daemon.
    pub stopped_by_hand: bool,
    pub restart_count: u32,
    /// It waited to be started again by its policy.
    #[serde(default)]
    pub restarting: bool,
    #[serde(default)]
    pub health: Option<model::health::Health>,
}

pub type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// A client's stream, and the bytes that it sent before the stream was taken over.
pub type Stream = (OwnedFd, Vec<u8>);

/// What a client wants to see, and its stream, which comes when its request has been answered.
#[derive(Debug)]
pub struct Client {
    pub attach: Attach,
    pub stream: oneshot::Receiver<Stream>,
    /// Takes what has to be sent before the client is released, of a client whose output is held.
    pub held: Option<oneshot::Sender<Held>>,
    /// It is for the run that so many have ended before, and no later one.
    pub run: Option<u64>,
}

/// A client that a shim holds back until it has got what came before.
pub struct Held {
    shim: crate::shim::Hold,
    pub begins: Attached,
}

impl Held {
    /// Lets it go on.
    pub async fn release(self) {
        let client = self.begins.client;
        // If the shim is gone, so is the client.
        let _ = self.shim.shim().call(shim_protocol::Command::Release { client }, &[], Vec::new()).await;
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.begins.fmt(out)
    }
}

impl Client {
    /// Waits for the stream; none if the client went away.
    pub(crate) async fn ready(self) -> Option<(Attach, OwnedFd)> {
        let (stream, early_input) = tokio::time::timeout(TAKEOVER, self.stream).await.ok()?.ok()?;
        Some((Attach { early_input, ..self.attach }, stream))
    }
}

/// What is asked of a container's task. Small: every container has room for some, whether anybody asks or not.
#[derive(Debug)]
pub enum Command {
    Start {
        by: StartedBy,
        answer: Answer<()>,
    },
    Signal {
        signal: i32,
        answer: Answer<()>,
    },
    /// The next exit is wanted: no restart policy acts on it. Answered with what it does then.
    MarkStopped {
        answer: Answer<Phase>,
    },
    Freeze {
        frozen: bool,
        answer: Answer<()>,
    },
    /// Freezes it until it is thawed, or the daemon ends.
    Hold {
        answer: Answer<()>,
    },
    /// Lends its files.
    Reach {
        answer: Answer<Reached>,
    },
    /// Answered with whether it runs; if it does not, the client waits for its start.
    Attach {
        client: Box<Client>,
        answer: Answer<bool>,
    },
    Resize {
        rows: u16,
        columns: u16,
        answer: Answer<()>,
    },
    ExecCreate {
        id: String,
        request: Box<api_types::exec::ExecCreate>,
        answer: Answer<()>,
    },
    ExecStart {
        id: String,
        client: Option<Box<Client>>,
        console: Option<[u32; 2]>,
        answer: Answer<()>,
    },
    ExecResize {
        id: String,
        rows: u16,
        columns: u16,
        answer: Answer<()>,
    },
    /// A container that this one is linked to has started.
    LinkMoved {
        child: String,
        address: std::net::IpAddr,
    },
    Unlink {
        alias: String,
        answer: Answer<()>,
    },
    Rename {
        name: String,
        answer: Answer<()>,
    },
    /// Answered with warnings.
    Update {
        request: Box<api_types::container::ContainerUpdate>,
        answer: Answer<Vec<String>>,
    },
    Remove {
        force: bool,
        /// With the volumes that nobody named and nobody else has.
        volumes: bool,
        answer: Answer<()>,
    },
    /// Answered when everything that the shim has said by now is known.
    CatchUp {
        answer: Answer<()>,
    },
    /// The state of the last end is on disk: its exit file has served.
    Remembered,
    /// The daemon ends; the container runs on.
    Forget {
        done: oneshot::Sender<()>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartedBy {
    Person,
    Policy,
    /// With the daemon's own start.
    Daemon,
}

/// The way to a container's task.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
}

impl Handle {
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// A receiver that sees every later view.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Sends a command and waits for its answer.
    pub async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let gone = || Refusal::not_found(format!("No such container: {}", self.view().id()));
        self.inbox.send(command(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Sends a command that may be lost if the inbox is full.
    pub fn mention(&self, command: Command) {
        let _ = self.inbox.try_send(command);
    }

    pub async fn tell(&self, command: Command) {
        let _ = self.inbox.send(command).await;
    }

    /// Waits until `holds`, or the container is removed.
    pub async fn until(&self, mut holds: impl FnMut(&View) -> bool) -> Arc<View> {
        let mut view = self.watch();
        loop {
            let now = view.borrow_and_update().clone();
            if now.removed || holds(&now) || view.changed().await.is_err() {
                return now;
            }
        }
    }

    /// Asks it to end: its stop signal, then after `grace` seconds (none: forever) SIGKILL.
    pub async fn stop(&self, signal: Option<i32>, grace: Option<u64>) -> Result<(), Refusal> {
        let view = self.view();
        match view.phase {
            Phase::Running { .. } | Phase::Restarting { .. } => {}
            _ => return Err(Refusal::new(Kind::NotModified, "container is already stopped")),
        }
        // It may have ended since, or have been started again.
        let Phase::Running { frozen, .. } = self.ask(|answer| Command::MarkStopped { answer }).await? else {
            return Ok(());
        };
        let view = self.view();
        let signal = signal.unwrap_or_else(|| view.record.stop_signal());
        let exits = view.exits;
        let ended = |view: &View| view.exits > exits || !matches!(view.phase, Phase::Running { .. });
        if frozen {
            // A frozen process sees no signal but SIGKILL.
            self.ask(|answer| Command::Freeze { frozen: false, answer }).await?;
        }
        if self.ask(|answer| Command::Signal { signal, answer }).await.is_err() && ended(&self.view()) {
            return Ok(());
        }
        if let Some(seconds) = grace {
            let grace = std::time::Duration::from_secs(seconds);
            if tokio::time::timeout(grace, self.until(ended)).await.is_ok() {
                return Ok(());
            }
            let killed = self.ask(|answer| Command::Signal { signal: model::signal::KILL, answer }).await;
            match killed {
                // Who has no process any more has ended; the news of it may still be on its way.
                Err(refusal) if refusal.kind != Kind::Conflict && !ended(&self.view()) => {
                    return Err(refusal);
                }
                _ => {}
            }
        }
        self.until(ended).await;
        Ok(())
    }
}
