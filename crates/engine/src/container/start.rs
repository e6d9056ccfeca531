//! Starting a container: each step hands back its undo, and a failure anywhere undoes what was done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::create::{LogSettings, NetworkChoice};
use model::phase::Ending;
use model::spec::{Place, StartFacts};
use model::{Phase, Refusal};
use shim_protocol::{Command as ToShim, Create, LogDriver, LogTarget, Reply, StdinMode};

use super::StartedBy;
use super::exec::exit_code_of;
use super::files::Files;
use super::task::Task;
use crate::net::Endpoint;
use crate::paths::ENDPOINT_NAME;
use crate::shim::Shim;
use crate::{blocking, failpoint, host};

/// How long the end of an earlier shim may take.
const SETTLING: std::time::Duration = std::time::Duration::from_secs(10);

impl Task {
    pub(super) async fn start(&mut self, by: StartedBy) -> Result<(), Refusal> {
        self.phase.may_start()?;
        if by == StartedBy::Person {
            self.stopped_by_hand = false;
            self.restart_delay = super::restart::DELAY_FIRST;
        }
        self.settle().await;
        match self.start_steps().await {
            Ok(()) => Ok(()),
            Err(refusal) => {
                self.start_failed(&refusal);
                Err(refusal)
            }
        }
    }

    /// Waits until the last shim is gone: it still takes down the cgroup that the next one will make.
    async fn settle(&mut self) {
        let deadline = tokio::time::Instant::now() + SETTLING;
        while !self.settled {
            match tokio::time::timeout_at(deadline, self.next_shim_event()).await {
                Ok(Some((number, event))) => self.shim_event(number, event).await,
                // Its leavings may be in the way, and are then told by the step that finds them.
                _ => return,
            }
        }
    }

    fn start_failed(&mut self, refusal: &Refusal) {
        // Clients that waited for the start learn of it by the end of their streams.
        self.early.clear();
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

    async fn start_steps(&mut self) -> Result<(), Refusal> {
        let endpoint = self.allocate_network().await?;
        let result = self.start_with(endpoint.as_ref()).await;
        match result {
            Ok((shim, pid, started_at)) => {
                (self.shim, self.settled) = (Some(shim), false);
                self.endpoint = endpoint;
                self.phase = Phase::Running { pid, started_at, frozen: false };
                self.emit_network("connect");
                self.emit("start", &[]);
                self.publish();
                if !self.record.host_config.auto_remove {
                    self.remember();
                }
                Ok(())
            }
            Err(refusal) => {
                self.release_network(endpoint).await;
                self.engine.discard_task_directory(&self.record.id);
                Err(refusal)
            }
        }
    }

    /// An address and host ports; bookkeeping only.
    async fn allocate_network(&mut self) -> Result<Option<Arc<Endpoint>>, Refusal> {
        let NetworkChoice::Bridge(settings) = &self.record.network else { return Ok(None) };
        failpoint::hit("start.ports")?;
        let (engine, record, settings) = (self.engine.clone(), self.record.clone(), settings.clone());
        let endpoint = blocking(move || engine.network().allocate(&record, &settings)).await?;
        Ok(Some(Arc::new(endpoint)))
    }

    async fn start_with(&mut self, endpoint: Option<&Arc<Endpoint>>) -> Result<(Shim, i32, i64), Refusal> {
        let places = self.attach_volumes().await?;
        let started = self.start_on(endpoint, &places).await;
        if started.is_err() {
            self.release_volumes().await;
        }
        started
    }

    async fn start_on(
        &mut self,
        endpoint: Option<&Arc<Endpoint>>,
        places: &BTreeMap<PathBuf, Place>,
    ) -> Result<(Shim, i32, i64), Refusal> {
        let create = self.plan(endpoint, places)?;
        let filter = self.engine.seccomp(&self.record)?;
        failpoint::hit("start.shim")?;
        let events = self.next_shim();
        let shim = Shim::start(self.engine.launcher(), events)
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
            let connected = blocking(move || engine.network().connect(&endpoint, inside, pid)).await;
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

    /// Everything that the shim is told, and the files that it will bind.
    fn plan(
        &self,
        endpoint: Option<&Arc<Endpoint>>,
        places: &BTreeMap<PathBuf, Place>,
    ) -> Result<Create, Refusal> {
        let (record, paths) = (&self.record, self.engine.paths());
        let run_directory = paths.task(&record.id);
        let io = |error: std::io::Error| {
            Refusal::from_error("cannot prepare the container's run directory", &error)
        };
        // What an earlier end left there must not be taken for this one's.
        self.engine.discard_task_directory(&record.id);
        std::fs::create_dir_all(&run_directory).map_err(io)?;
        if let Some(endpoint) = endpoint {
            // Before anything of it exists in the kernel, so that a next daemon can find and undo it.
            let text = serde_json::to_vec(&**endpoint).map_err(|error| io(error.into()))?;
            std::fs::write(run_directory.join(ENDPOINT_NAME), text).map_err(io)?;
        }
        let files = Files::of(paths, record);
        files.write(record, endpoint.map(|endpoint| &**endpoint), &self.engine.options().network.names)?;
        self.make_bind_sources()?;
        let cgroup_parent = match record.host_config.resources.cgroup_parent.as_str() {
            "" => self.engine.options().cgroup_parent.as_str(),
            own => own,
        };
        let systemd_cgroup = self.engine.options().cgroup_driver == crate::CgroupDriver::Systemd;
        let facts = StartFacts {
            cgroup_path: match systemd_cgroup {
                true => format!("{cgroup_parent}:corten:{}", record.id),
                false => format!("{}/{}", cgroup_parent.trim_end_matches('/'), record.id),
            },
            cgroup_v2: self.engine.facts().cgroup_v2,
            join_network: match &record.network {
                NetworkChoice::Container(other) => Some(self.namespace_of(other, "net")?),
                _ => None,
            },
            join_pid: match record.host_config.pid_mode.strip_prefix("container:") {
                Some(other) => Some(self.namespace_of(other, "pid")?),
                None => None,
            },
            resolv_conf: Some(&files.resolv_conf),
            hostname: Some(&files.hostname),
            hosts: Some(&files.hosts),
            device: &host::device,
            all_devices: &host::all_devices,
            places,
            time_namespace: false,
        };
        let spec = model::spec::runtime_spec(record, &facts)?;
        Ok(Create {
            id: record.id.clone(),
            run_directory,
            spec,
            rootfs: self.engine.rootfs(&record.id, record.host_config.auto_remove)?,
            stdin: match (record.config.open_stdin, record.config.stdin_once) {
                (false, _) => StdinMode::Null,
                (true, false) => StdinMode::Open,
                (true, true) => StdinMode::Once,
            },
            log: log_target(self)?,
            attach: Vec::new(),
            netlink: endpoint.is_some(),
            systemd_cgroup,
        })
    }

    fn namespace_of(&self, name: &str, kind: &str) -> Result<PathBuf, Refusal> {
        let other = self.engine.find(name)?.view();
        let pid = other.phase.pid().ok_or_else(|| {
            Refusal::conflict(format!(
                "cannot join the {kind} namespace of a non running container: {}",
                other.id()
            ))
        })?;
        Ok(PathBuf::from(format!("/proc/{pid}/ns/{kind}")))
    }

    /// Binds by `-v` make the missing directory on the host, as Docker does.
    fn make_bind_sources(&self) -> Result<(), Refusal> {
        for mount in &self.record.mounts {
            let model::mounts::Source::Bind { path, create, .. } = &mount.source else { continue };
            match std::fs::symlink_metadata(path) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && *create => {
                    std::fs::create_dir_all(path).map_err(|error| {
                        let what = format!("error while creating mount source path '{}'", path.display());
                        Refusal::from_error(&what, &error)
                    })?;
                }
                Err(error) => {
                    let what = format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {}",
                        path.display()
                    );
                    return Err(Refusal::invalid(what).hint(format!("the host said: {error}")));
                }
            }
        }
        Ok(())
    }

    /// Frees address and ports, and in the background the link.
    pub(super) async fn release_network(&self, endpoint: Option<Arc<Endpoint>>) {
        let Some(endpoint) = endpoint else { return };
        let engine = self.engine.clone();
        let released = blocking(move || {
            engine.network().detach(&endpoint);
            Ok(())
        });
        let _ = released.await;
        self.engine.in_background(|engine| engine.network().reap());
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

fn log_target(task: &Task) -> Result<LogTarget, Refusal> {
    let (record, engine) = (&task.record, &task.engine);
    let config = &record.host_config.log_config;
    let settings = LogSettings::of(config)?;
    Ok(LogTarget {
        driver: match config.driver.as_str() {
            "none" => LogDriver::None,
            "local" => LogDriver::Local,
            _ => LogDriver::JsonFile,
        },
        path: engine.log_path(record),
        size_max: settings.size_max,
        files_max: settings.files_max,
        compress: settings.compress,
        attributes: log_attributes(task),
    })
}

/// What `labels`, `env` and `tag` add to each line.
fn log_attributes(task: &Task) -> std::collections::BTreeMap<String, String> {
    let record = &task.record;
    let options = &record.host_config.log_config.config;
    let mut all = std::collections::BTreeMap::new();
    for name in options.get("labels").into_iter().flat_map(|names| names.split(',')) {
        if let Some(value) =
            record.config.labels.iter().flatten().find(|(key, _)| *key == name).map(|(_, value)| value)
        {
            all.insert(name.to_string(), value.clone());
        }
    }
    for name in options.get("env").into_iter().flat_map(|names| names.split(',')) {
        let variables = record.config.env.iter().flatten();
        if let Some((_, value)) =
            variables.filter_map(|one| one.split_once('=')).find(|(key, _)| *key == name)
        {
            all.insert(name.to_string(), value.into());
        }
    }
    if let Some(tag) = options.get("tag") {
        let short: String = record.id.chars().take(12).collect();
        let tag = tag
            .replace("{{.ID}}", &short)
            .replace("{{.FullID}}", &record.id)
            .replace("{{.Name}}", &record.name);
        all.insert("tag".into(), tag);
    }
    all
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
