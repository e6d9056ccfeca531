//! Starting a container: each step hands back its undo, and a failure anywhere undoes what was done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::create::NetworkChoice;
use model::phase::Ending;
use model::spec::{Place, StartFacts};
use model::{Phase, Refusal};
use shim_protocol::{Command as ToShim, Create, LogDriver, LogTarget, Reply, Runtime, StdinMode};

use super::StartedBy;
use super::exec::exit_code_of;
use super::files::Files;
use super::joins;
use super::task::Task;
use crate::net::Endpoint;
use crate::paths::ENDPOINT_NAME;
use crate::shim::Shim;
use crate::{blocking, failpoint, host, selinux};

/// How long the end of an earlier shim may take.
const SETTLING: std::time::Duration = std::time::Duration::from_secs(10);
/// How long those who still copy its files may take.
const COPYING: std::time::Duration = std::time::Duration::from_secs(30);

impl Task {
    pub(super) async fn start(&mut self, by: StartedBy) -> Result<(), Refusal> {
        self.phase.may_start()?;
        if by != StartedBy::Policy {
            self.stopped_by_hand = false;
            self.restart_count = 0;
            self.backoff = Default::default();
        }
        self.settle().await;
        if !self.leases.returned(COPYING).await {
            let name = &self.record.name;
            let why = format!("cannot start container {name}: its files are still being copied");
            return Err(Refusal::conflict(why).hint("wait until the copy has ended, or end it"));
        }
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
        self.take_name();
        let endpoint = self.allocate_network().await?;
        let result = self.start_with(endpoint.as_ref()).await;
        match result {
            Ok((shim, pid, started_at)) => {
                (self.shim, self.settled) = (Some(shim), false);
                self.endpoint = endpoint;
                self.phase = Phase::Running { pid, started_at, frozen: false };
                self.begin_health(started_at);
                self.emit_network("connect");
                self.emit("start", &[]);
                self.publish();
                if !self.record.host_config.auto_remove {
                    self.remember();
                }
                Ok(())
            }
            Err(refusal) => {
                self.engine.shipping().ended(&self.record.id);
                self.release_network(endpoint).await;
                self.engine.discard_task_directory(&self.record.id);
                Err(refusal)
            }
        }
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

    /// An address and host ports; bookkeeping only.
    async fn allocate_network(&mut self) -> Result<Option<Arc<Endpoint>>, Refusal> {
        let NetworkChoice::Bridge(settings) = &self.record.network else { return Ok(None) };
        failpoint::hit("start.ports")?;
        let (engine, record, settings) = (self.engine.clone(), self.record.clone(), settings.clone());
        let endpoint = blocking(move || engine.network().allocate(&record, &settings)).await?;
        Ok(Some(Arc::new(endpoint)))
    }

    async fn start_with(&mut self, endpoint: Option<&Arc<Endpoint>>) -> Result<(Shim, i32, i64), Refusal> {
        if let Some(spool) = self.engine.log_spool(&self.record)? {
            self.engine.shipping().begin(&self.record, spool).await?;
        }
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
        if let Err(error) = std::fs::create_dir(&run_directory) {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                // What an earlier end left there must not be taken for this one's.
                self.engine.discard_task_directory(&record.id);
            }
            std::fs::create_dir_all(&run_directory).map_err(io)?;
        }
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
        let host_facts = self.engine.facts();
        let remap = model::remap::of(&record.host_config, host_facts.remap.as_ref());
        let (init, init_path) = self.init();
        let ipc_of = match record.host_config.ipc_mode.strip_prefix("container:") {
            Some(other) => Some(joins::ipc(&self.engine, other)?),
            None => None,
        };
        let facts = StartFacts {
            cgroup_path: match systemd_cgroup {
                true => format!("{cgroup_parent}:corten:{}", record.id),
                false => format!("{}/{}", cgroup_parent.trim_end_matches('/'), record.id),
            },
            cgroup_v2: self.engine.facts().cgroup_v2,
            join_network: match &record.network {
                NetworkChoice::Container(other) => {
                    Some(namespace(joins::network(&self.engine, other)?, "net"))
                }
                _ => None,
            },
            join_pid: match record.host_config.pid_mode.strip_prefix("container:") {
                Some(other) => Some(namespace(joins::pids(&self.engine, other)?, "pid")),
                None => None,
            },
            join_ipc: ipc_of.map(|pid| namespace(pid, "ipc")),
            init_path,
            resolv_conf: Some(&files.resolv_conf),
            hostname: Some(&files.hostname),
            hosts: Some(&files.hosts),
            device: &host::device,
            device_nodes: &host::device_nodes,
            all_devices: &host::all_devices,
            places,
            time_namespace: false,
            remap,
            join_user: if remap.is_some() { self.shared_users(ipc_of)? } else { None },
            data_root: &paths.data,
        };
        let mut spec = model::spec::runtime_spec(record, &facts)?;
        let requests = record.host_config.resources.device_requests.as_deref();
        self.engine.devices().inject(requests.unwrap_or_default(), &mut spec)?;
        selinux::relabel_binds(record)?;
        let runtime = self.other_runtime(&mut spec, init || ipc_of.is_some())?;
        Ok(Create {
            id: record.id.clone(),
            run_directory,
            spec,
            rootfs: self.engine.rootfs(&record.id, record.host_config.auto_remove)?,
            map_root: remap.is_some(),
            runtime,
            stdin: match (record.config.open_stdin, record.config.stdin_once) {
                (false, _) => StdinMode::Null,
                (true, false) => StdinMode::Open,
                (true, true) => StdinMode::Once,
            },
            log: log_target(self)?,
            attach: Vec::new(),
            netlink: endpoint.is_some(),
            systemd_cgroup,
            init,
            shared_memory_of: ipc_of,
        })
    }

    /// The program that makes the container in Corten's stead, if one was asked for. `odd`: the shim is to have a part
    /// in what the container's processes see.
    fn other_runtime(&self, spec: &mut oci::runtime::Spec, odd: bool) -> Result<Option<Runtime>, Refusal> {
        let (record, name) = (&self.record, &self.record.host_config.runtime);
        let Some((program, arguments)) = self.engine.settings().runtimes.find(name)? else { return Ok(None) };
        let remapped = spec.linux.as_ref().is_some_and(|linux| !linux.uid_mappings.is_empty());
        for (what, asked) in [("--userns-remap", remapped), ("--init or --ipc container:", odd)] {
            if asked {
                return Err(Refusal::not_implemented(&format!("{what} together with the runtime {name}"))
                    .hint("use Corten's own runtime, or leave the option out (--userns=host for a remap)"));
            }
        }
        // It makes the filter itself.
        if let Some(linux) = &mut spec.linux {
            linux.seccomp = self.engine.seccomp_section(record)?;
        }
        Ok(Some(Runtime { program, arguments }))
    }

    /// The user namespace of the container that this one shares another namespace with: the two belong together.
    fn shared_users(&self, ipc_of: Option<i32>) -> Result<Option<PathBuf>, Refusal> {
        let pid = match (&self.record.network, self.record.host_config.pid_mode.strip_prefix("container:")) {
            (NetworkChoice::Container(other), _) => Some(joins::network(&self.engine, other)?),
            (_, Some(other)) => Some(joins::pids(&self.engine, other)?),
            (_, None) => ipc_of,
        };
        Ok(pid.map(|pid| namespace(pid, "user")))
    }

    /// Whether an init of Corten's own stands before the program, or which of the host's. In a PID namespace that is
    /// somebody else's, there is one already.
    fn init(&self) -> (bool, Option<&Path>) {
        let host = &self.record.host_config;
        match &self.engine.options().init_path {
            _ if host.resources.init != Some(true) || !matches!(host.pid_mode.as_str(), "" | "private") => {
                (false, None)
            }
            Some(path) => (false, Some(path)),
            None => (true, None),
        }
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

fn namespace(pid: i32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
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
    let Some(files) = task.engine.log_files(&task.record)? else { return Ok(LogTarget::default()) };
    crate::shipping::make_folder(&files.path)?;
    Ok(LogTarget {
        driver: match files.driver {
            logs::Driver::JsonFile => LogDriver::JsonFile,
            logs::Driver::Local => LogDriver::Local,
        },
        path: files.path,
        size_max: files.size_max,
        files_max: files.files_max,
        compress: files.compress,
        numbered: files.numbered,
        attributes: files.attributes,
    })
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
