//! Starting a container: each step hands back its undo, and a failure anywhere undoes what was done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::create::{NetworkChoice, Record};
use model::links::Linked;
use model::phase::Ending;
use model::spec::Place;
use model::{Phase, Refusal};
use shim_protocol::{Command as ToShim, Create, Reply};

use super::exec::exit_code_of;
use super::link::Link;
use super::plan::Plan;
use super::restart::Comeback;
use super::task::Task;
use super::{Client, StartedBy, links, network, volumes};
use crate::net::Endpoint;
use crate::shim::Shim;
use crate::{Engine, blocking, failpoint, host};

/// How long the end of an earlier shim may take.
const SETTLING: std::time::Duration = std::time::Duration::from_secs(10);
/// How long those who still copy its files may take.
const COPYING: std::time::Duration = std::time::Duration::from_secs(30);

impl Task {
    pub(super) async fn start(&mut self, by: StartedBy) -> Result<(), Refusal> {
        self.phase.may_start()?;
        if by != StartedBy::Policy {
            self.comeback = Comeback::default();
        }
        self.settle().await;
        if !self.leases.returned(COPYING).await {
            let name = &self.record.name;
            let why = format!("cannot start container {name}: its files are still being copied");
            return Err(Refusal::conflict(why).hint("wait until the copy has ended, or end it"));
        }
        self.take_name();
        let start = Start {
            engine: &self.engine,
            record: &self.record,
            link: &mut self.link,
            // If it fails, these clients learn of it by the end of their streams.
            early: std::mem::take(&mut self.early),
        };
        match start.run().await {
            Ok(started) => {
                self.started(started);
                Ok(())
            }
            Err(refusal) => {
                self.start_failed(&refusal);
                Err(refusal)
            }
        }
    }

    /// Waits until the last shim is gone: it still takes down the cgroup that the next one will make.
    async fn settle(&mut self) {
        let deadline = tokio::time::Instant::now() + SETTLING;
        while !self.link.settled {
            match tokio::time::timeout_at(deadline, self.link.hear()).await {
                Ok(Some(event)) => self.shim_event(event).await,
                // Its leavings may be in the way, and are then told by the step that finds them.
                _ => return,
            }
        }
    }

    fn started(&mut self, started: Started) {
        let Started { shim, pid, started_at, endpoint } = started;
        (self.link.shim, self.link.settled) = (Some(shim), false);
        self.endpoint = endpoint;
        self.phase = Phase::Running { pid, started_at, frozen: false };
        self.care.begin(&self.record.config, started_at);
        network::emit(&self.engine, &self.record, "connect");
        self.emit("start", &[]);
        self.publish();
        if let Some(endpoint) = &self.endpoint {
            links::tell_parents(&self.engine, &self.record, endpoint.0.ip.into());
        }
        if !self.record.host_config.auto_remove {
            self.remember();
        }
    }

    fn start_failed(&mut self, refusal: &Refusal) {
        let failure =
            Ending { code: exit_code_of(refusal), error: refusal.message.clone(), ..self.phase.ending() };
        self.phase = match &self.phase {
            Phase::Exited(_) | Phase::Restarting { .. } => Phase::Exited(failure),
            _ => Phase::Created { failure: Some(failure) },
        };
        self.emit("die", &[("exitCode", self.phase.ending().code.to_string())]);
        self.publish();
        self.remember();
    }

    /// Who shares a network has the host name that goes with it.
    fn take_name(&mut self) {
        let config = &self.record.config;
        let (host, domain) = match &self.record.network {
            NetworkChoice::Host if config.hostname.is_empty() => {
                (crate::net::host_name(), config.domainname.clone())
            }
            NetworkChoice::Container(other) => match self.engine.find(other) {
                Ok(other) => {
                    let config = &other.view().record.config;
                    (config.hostname.clone(), config.domainname.clone())
                }
                Err(_) => return,
            },
            _ => return,
        };
        let config = &mut Arc::make_mut(&mut self.record).config;
        (config.hostname, config.domainname) = (host, domain);
    }
}

/// A start under way.
struct Start<'a> {
    engine: &'a Engine,
    record: &'a Arc<Record>,
    link: &'a mut Link,
    /// Clients that attached before.
    early: Vec<Client>,
}

struct Started {
    shim: Shim,
    pid: i32,
    started_at: i64,
    endpoint: Option<Arc<Endpoint>>,
}

impl Start<'_> {
    async fn run(mut self) -> Result<Started, Refusal> {
        let (engine, record) = (self.engine, self.record);
        let linked = links::linked(engine, record)?;
        let endpoint = network::allocate(engine, record).await?;
        match self.with_endpoint(endpoint.as_ref(), linked).await {
            Ok((shim, pid, started_at)) => Ok(Started { shim, pid, started_at, endpoint }),
            Err(refusal) => {
                engine.shipping().ended(&record.id);
                network::release(engine, endpoint).await;
                engine.paths().discard_task(&record.id);
                Err(refusal)
            }
        }
    }

    async fn with_endpoint(
        &mut self,
        endpoint: Option<&Arc<Endpoint>>,
        linked: Vec<Linked>,
    ) -> Result<(Shim, i32, i64), Refusal> {
        if let Some(spool) = self.engine.logs().spool(self.record)? {
            self.engine.shipping().begin(self.record, spool).await?;
        }
        let places = volumes::attach(self.engine, self.record).await?;
        let started = self.with_places(endpoint, places, linked).await;
        if started.is_err() {
            volumes::release(self.engine, self.record).await;
        }
        started
    }

    async fn with_places(
        &mut self,
        endpoint: Option<&Arc<Endpoint>>,
        places: BTreeMap<PathBuf, Place>,
        linked: Vec<Linked>,
    ) -> Result<(Shim, i32, i64), Refusal> {
        let (engine, record, planned) = (self.engine.clone(), self.record.clone(), endpoint.cloned());
        let create = blocking(move || {
            Plan { engine: &engine, record: &record, linked }.create(planned.as_deref(), &places)
        });
        let create = create.await?;
        let filter = self.engine.seccomp(self.record)?;
        failpoint::hit("start.shim")?;
        let shim = Shim::start(self.engine.launcher(), self.link.next())
            .map_err(|error| Refusal::from_error("cannot start a shim", &error))?;
        let result = self.drive(&shim, create, filter.as_deref().unwrap_or(&[]), endpoint).await;
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || engine.launcher().refill());
        match result {
            Ok((pid, at)) => Ok((shim, pid, at)),
            Err(refusal) => {
                // Answered when everything of it is gone, or the shim itself is.
                let _ = shim.call(ToShim::Discard, &[], Vec::new()).await;
                shim.close();
                Err(refusal)
            }
        }
    }

    async fn drive(
        &mut self,
        shim: &Shim,
        mut create: Create,
        filter: &[u8],
        endpoint: Option<&Arc<Endpoint>>,
    ) -> Result<(i32, i64), Refusal> {
        let mut streams = Vec::new();
        for client in std::mem::take(&mut self.early) {
            if let Some((attach, stream)) = client.ready().await {
                create.attach.push(attach);
                streams.push(stream);
            }
        }
        failpoint::hit("start.create")?;
        let begin = std::time::Instant::now();
        let created = shim.call(ToShim::Create(Box::new(create)), filter, streams).await;
        let (reply, mut descriptors) = created.map_err(create_failed)?;
        let Reply::Created { pid } = reply else {
            return Err(Refusal::system("the shim gave an odd answer"));
        };
        let made = begin.elapsed();
        if let Some(endpoint) = endpoint {
            failpoint::hit("start.network")?;
            let inside =
                descriptors.pop().ok_or_else(|| Refusal::system("the shim sent no netlink socket"))?;
            let (engine, endpoint) = (self.engine.clone(), endpoint.clone());
            let record = self.record.clone();
            let connected = blocking(move || {
                engine.network().connect(&endpoint, inside, pid)?;
                links::permit(&engine, &record, &endpoint)
            });
            let connected = connected.await;
            if let Err(refusal) = connected {
                // A process that could not build its root takes its network away: then that is the cause to tell.
                if ends_soon(pid).await
                    && let Err(error) = shim.call(ToShim::Start, &[], Vec::new()).await
                {
                    return Err(create_failed(error));
                }
                return Err(refusal);
            }
        }
        let connected = begin.elapsed();
        failpoint::hit("start.go")?;
        let (reply, _) = shim.call(ToShim::Start, &[], Vec::new()).await.map_err(create_failed)?;
        let Reply::Started { at_nanoseconds } = reply else {
            return Err(Refusal::system("the shim gave an odd answer"));
        };
        let started = begin.elapsed();
        tracing::debug!(container = %self.record.id, ?made, ?connected, ?started, "start, by its steps");
        Ok((pid, i64::try_from(at_nanoseconds).unwrap_or(i64::MAX)))
    }
}

/// Whether a process has ended, or does within a moment: its namespaces go before it can be seen to have ended.
async fn ends_soon(pid: i32) -> bool {
    for _ in 0..50 {
        if host::has_ended(pid) {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    false
}

/// Docker's words around what the runtime says, which clients look for.
fn create_failed(error: crate::shim::CallError) -> Refusal {
    let refusal = Refusal::from(error);
    Refusal {
        message: format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: corten create \
             failed: unable to start container process: {}",
            refusal.message
        ),
        ..refusal
    }
}
