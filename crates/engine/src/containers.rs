//! The verbs of containers, as the API's edge calls them.

use std::path::Path;
use std::sync::Arc;

use api_types::container::{ContainerCreate, ContainerUpdate, ContainerWait};
use metadata::Batch;
use model::create::{Given, LinkTarget, Record};
use model::restart::{Ended, with_daemon};
use model::{Kind, Phase, Refusal, name, signal};

use crate::autostart::Due;
use crate::container::{Command, Handle, Remembered, StartedBy, Task, View};
use crate::metrics::Action;
use crate::{Engine, blocking, bootstrap, clock, failpoint, image, records};

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    NotRunning,
    NextExit,
    Removed,
}

impl WaitCondition {
    pub fn parse(text: &str) -> Result<WaitCondition, Refusal> {
        match text {
            "" | "not-running" => Ok(WaitCondition::NotRunning),
            "next-exit" => Ok(WaitCondition::NextExit),
            "removed" => Ok(WaitCondition::Removed),
            other => Err(Refusal::invalid(format!("invalid condition: \"{other}\""))),
        }
    }
}

/// The use cases of containers.
#[derive(Clone)]
pub struct Containers(pub(crate) Engine);

impl Containers {
    /// Creates a container; returns its ID and warnings. `wanted` is the name asked for, or empty.
    pub async fn create(
        &self,
        wanted: &str,
        request: ContainerCreate,
    ) -> Result<(String, Vec<String>), Refusal> {
        let containers = self.clone();
        let wanted = match wanted {
            "" => None,
            given => Some(name::parse(given)?.to_string()),
        };
        let made = blocking(move || containers.create_blocking(wanted, request));
        self.0.metrics().timed(Action::Create, made).await
    }

    fn create_blocking(
        &self,
        wanted: Option<String>,
        request: ContainerCreate,
    ) -> Result<(String, Vec<String>), Refusal> {
        let id = clock::new_id();
        let name = self.reserve_name(wanted, &id)?;
        let made = self.create_reserved(id.clone(), name.clone(), request);
        if made.is_err() {
            self.0.registry().release(&name, &id);
        }
        made
    }

    fn reserve_name(&self, wanted: Option<String>, id: &str) -> Result<String, Refusal> {
        if let Some(name) = wanted {
            return self.0.registry().reserve(&name, id).map(|()| name);
        }
        for attempt in 0..8 {
            let name = name::generate(clock::random_number(), attempt);
            if self.0.registry().reserve(&name, id).is_ok() {
                return Ok(name);
            }
        }
        let name = id[..12].to_string();
        self.0.registry().reserve(&name, id).map(|()| name)
    }

    fn create_reserved(
        &self,
        id: String,
        name: String,
        request: ContainerCreate,
    ) -> Result<(String, Vec<String>), Refusal> {
        let (image, top) = image::facts(self.0.images(), &request.config.image, &request.platform)?;
        let given = Given {
            id: id.clone(),
            name,
            now: clock::now(),
            image: &image,
            host: &self.0.facts(),
            container: &|name: &str| Ok(self.0.find(name)?.view().id().to_string()),
            link_target: &|name: &str| {
                let view = self.0.find(name)?.view();
                let (id, name) = (view.id().to_string(), view.name().to_string());
                Ok(LinkTarget { id, name, network: view.record.network.clone() })
            },
            others: model::security::Others {
                has_level: &|level: &str| self.0.registry().has_level(level),
                process: &|name: &str| {
                    let label = self.0.find(name).ok()?.view().record.labels.process.clone();
                    (!label.is_empty()).then_some(label)
                },
            },
            mounts: model::mounts::Outside {
                exists: &|path: &Path| path.exists(),
                volume_name: &clock::new_id,
                mounts_of: &|name: &str| Ok(self.0.find(name)?.view().record.mounts.clone()),
                image: &|name: &str| {
                    let image = self.0.images().resolve(name).map_err(|error| {
                        // Not "not found": clients would pull the container's own image and ask again.
                        Refusal::invalid(format!("invalid mount config for type \"image\": {error}"))
                            .hint(format!("get it first: docker pull {name}"))
                    })?;
                    Ok(image.id.to_string())
                },
            },
        };
        let (record, warnings) = model::create::create(request, given)?;
        // A custom seccomp profile that cannot be read is refused now, not at the start.
        self.0.seccomp(&record)?;
        self.make(record, top.as_ref())?;
        Ok((id, warnings))
    }

    /// Volumes, layer, directory, record; a failure undoes what was made.
    fn make(&self, record: Record, top: Option<&oci::Digest>) -> Result<(), Refusal> {
        let volumes = self.0.volume_keeper().reserve(&record)?;
        self.0.volumes().fill(&record, &volumes, top)?;
        let directory = self.0.paths().container(&record.id);
        failpoint::hit("create.rootfs")?;
        self.0
            .snapshots()
            .create(&record.id, top)
            .map_err(|error| Refusal::from_error("cannot make the container's layer", &error))?;
        let made = std::fs::create_dir(&directory)
            .map_err(|error| Refusal::from_error("cannot make the container's directory", &error))
            .and_then(|()| self.limit_layer(&record))
            .and_then(|()| failpoint::hit("create.record"))
            .and_then(|()| self.0.records().put_with(&record, volumes.records(Batch::default())?));
        if let Err(refusal) = made {
            let _ = std::fs::remove_dir_all(&directory);
            let _ = self.0.images().release(&record.id);
            return Err(refusal);
        }
        let made = volumes.keep();
        made.iter().for_each(|name| self.0.volumes().emit("create", name, &[]));
        let handle = self.launch(record, Phase::Created { failure: None }, &Remembered::default());
        let view = handle.view();
        self.0.events().container(&view.record, "create", &[]);
        Ok(())
    }

    /// `--storage-opt size=…`; the model has refused it where nothing can hold to it.
    fn limit_layer(&self, record: &Record) -> Result<(), Refusal> {
        let options = record.host_config.storage_opt.iter().flatten();
        let mut sizes = options.filter(|(key, _)| *key == "size");
        let Some(bytes) = sizes.find_map(|(_, size)| model::create::parse_size(size)) else { return Ok(()) };
        let limited = self.0.snapshots().limit(&record.id, bytes);
        limited.map_err(|error| Refusal::from_error("cannot limit the container's layer", &error))
    }

    /// Gives a container its task.
    fn launch(&self, record: Record, phase: Phase, remembered: &Remembered) -> Handle {
        let id = record.id.clone();
        let (task, handle) = Task::new(self.0.clone(), record, phase, remembered);
        self.0.registry().insert(&id, handle.clone());
        tokio::runtime::Handle::current().spawn(task.run());
        handle
    }

    pub async fn start(&self, name: &str) -> Result<(), Refusal> {
        let handle = self.0.find(name)?;
        let started = handle.ask(|answer| Command::Start { by: StartedBy::Person, answer });
        self.0.metrics().timed(Action::Start, started).await
    }

    /// `signal`: a name or number, or empty. `grace` in seconds; -1 waits for ever.
    pub async fn stop(&self, name: &str, signal: &str, grace: Option<i64>) -> Result<(), Refusal> {
        let handle = self.0.find(name)?;
        let (signal, grace) = self.stop_parameters(&handle, signal, grace)?;
        handle.stop(signal, grace).await?;
        let view = handle.view();
        self.0.events().container(&view.record, "stop", &[]);
        if !view.removed {
            // That a person stopped it decides whether a next daemon starts it.
            records::write_now(&self.0).await;
        }
        Ok(())
    }

    fn stop_parameters(
        &self,
        handle: &Handle,
        name: &str,
        grace: Option<i64>,
    ) -> Result<(Option<i32>, Option<u64>), Refusal> {
        let signal = match name {
            "" => None,
            name => {
                Some(signal::parse(name).ok_or_else(|| Refusal::invalid(format!("Invalid signal: {name}")))?)
            }
        };
        let own = handle.view().record.config.stop_timeout;
        let grace = grace.or(own).unwrap_or(self.0.facts().stop_timeout);
        Ok((signal, u64::try_from(grace).ok()))
    }

    pub async fn restart(&self, name: &str, signal: &str, grace: Option<i64>) -> Result<(), Refusal> {
        let handle = self.0.find(name)?;
        let (signal, grace) = self.stop_parameters(&handle, signal, grace)?;
        match handle.stop(signal, grace).await {
            Ok(()) => {
                let view = handle.view();
                self.0.events().container(&view.record, "stop", &[]);
            }
            Err(refusal) if refusal.kind == Kind::NotModified => {}
            Err(refusal) => return Err(refusal),
        }
        handle.ask(|answer| Command::Start { by: StartedBy::Person, answer }).await?;
        let view = handle.view();
        self.0.events().container(&view.record, "restart", &[]);
        Ok(())
    }

    pub async fn kill(&self, name: &str, text: &str) -> Result<(), Refusal> {
        let text = if text.is_empty() { "KILL" } else { text };
        let number =
            signal::parse(text).ok_or_else(|| Refusal::invalid(format!("Invalid signal: {text}")))?;
        let handle = self.0.find(name)?;
        let view = handle.view();
        let waits = matches!(view.phase, Phase::Restarting { .. });
        if !view.phase.is_running() && !waits {
            return Err(Refusal::conflict(format!(
                "cannot kill container: {name}: container {} is not running",
                view.id()
            )));
        }
        let stops = number == signal::KILL || number == view.record.stop_signal();
        if stops {
            handle.ask(|answer| Command::MarkStopped { answer }).await?;
            self.remember_stop(&view).await;
        }
        if waits {
            // Nothing runs that could get the signal; as with Docker, that is no failure.
            return Ok(());
        }
        if let Phase::Running { frozen: true, .. } = view.phase {
            handle.ask(|answer| Command::Freeze { frozen: false, answer }).await?;
        }
        handle.ask(|answer| Command::Signal { signal: number, answer }).await?;
        if number == signal::KILL {
            // As with Docker, the answer to SIGKILL comes when the container has ended.
            let exits = view.exits;
            let ended = handle.until(|view| view.exits > exits);
            let _ = tokio::time::timeout(std::time::Duration::from_secs(10), ended).await;
        }
        Ok(())
    }

    /// Makes it last that a person ended a container, if that decides whether a next daemon starts it.
    async fn remember_stop(&self, view: &View) {
        if !matches!(view.record.host_config.restart_policy.name.as_str(), "" | "no") {
            records::write_now(&self.0).await;
        }
    }

    pub async fn pause(&self, name: &str, frozen: bool) -> Result<(), Refusal> {
        self.0.find(name)?.ask(|answer| Command::Freeze { frozen, answer }).await
    }

    pub async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<(), Refusal> {
        self.0.find(name)?.ask(|answer| Command::Resize { rows, columns, answer }).await
    }

    pub async fn rename(&self, name: &str, wanted: &str) -> Result<(), Refusal> {
        let handle = self.0.find(name)?;
        if wanted.is_empty() || name.is_empty() {
            return Err(Refusal::invalid("Neither old nor new names may be empty"));
        }
        let wanted = name::parse(wanted)?.to_string();
        let view = handle.view();
        let (id, old) = (view.id(), view.name());
        if old == wanted {
            return Err(Refusal::invalid("Renaming a container with the same name as its current name"));
        }
        self.0.registry().reserve(&wanted, id)?;
        let renamed = handle.ask(|answer| Command::Rename { name: wanted.clone(), answer }).await;
        match renamed {
            Ok(()) => self.0.registry().release(old, id),
            Err(_) => self.0.registry().release(&wanted, id),
        }
        renamed
    }

    /// Changes limits and restart policy; returns warnings.
    pub async fn update(&self, name: &str, request: ContainerUpdate) -> Result<Vec<String>, Refusal> {
        self.0.find(name)?.ask(|answer| Command::Update { request: Box::new(request), answer }).await
    }

    /// `rm --link`: takes the name that a link gives a container away from it; the container stays.
    pub async fn unlink(&self, name: &str) -> Result<(), Refusal> {
        self.0.find(name)?;
        let bare = name.strip_prefix('/').unwrap_or(name);
        let Some((parent, alias)) = bare.split_once('/') else {
            let why = "Conflict, cannot remove the default link name of the container";
            return Err(Refusal::system(why).hint("name the link: rm --link CONTAINER/ALIAS"));
        };
        let alias = alias.to_string();
        self.0.find(parent)?.ask(|answer| Command::Unlink { alias, answer }).await
    }

    /// `volumes`: with those that nobody named.
    pub async fn remove(&self, name: &str, force: bool, volumes: bool) -> Result<(), Refusal> {
        let handle = self.0.find(name)?;
        let removed = handle.ask(|answer| Command::Remove { force, volumes, answer });
        self.0.metrics().timed(Action::Delete, removed).await
    }

    /// Starts to wait; the future that it hands back ends with the exit. How a container ended that was to go afterwards is
    /// told for a while yet.
    pub fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = ContainerWait> + Send + use<>, Refusal> {
        let found = match self.0.find(name) {
            Ok(handle) => Ok((handle.view().exits, handle)),
            Err(refusal) => match self.0.registry().ended(name) {
                Some(code) if condition != WaitCondition::NextExit => Err(code),
                _ => return Err(refusal),
            },
        };
        Ok(async move {
            let (exits, handle) = match found {
                Ok(found) => found,
                Err(code) => return ContainerWait { status_code: code.into(), error: None },
            };
            let view = handle
                .until(|view| match condition {
                    // An end is an end for those who wait, also if the restart policy has another start in mind.
                    WaitCondition::NotRunning => {
                        view.exits > exits
                            || !matches!(view.phase, Phase::Running { .. } | Phase::Restarting { .. })
                    }
                    WaitCondition::NextExit => view.exits > exits,
                    WaitCondition::Removed => view.removed,
                })
                .await;
            answer(&view)
        })
    }

    /// Waits until nothing of a container's last task is left, so that its layer is still.
    pub async fn settled(&self, name: &str) -> Result<(), Refusal> {
        self.0.find(name)?.until(|view| view.settled).await;
        Ok(())
    }

    /// Brings a container of the store back, with its task if that runs. Tells what is to be done about it.
    pub(crate) async fn restore(
        &self,
        record: Record,
        remembered: Remembered,
        has_task: bool,
    ) -> (Handle, Due) {
        let phase = restored_phase(&remembered);
        self.0.volume_keeper().restore(&record);
        let id = record.id.clone();
        if self.0.registry().reserve(&record.name, &id).is_err() {
            tracing::error!(container = %id, name = %record.name, "its name is taken by another container");
        }
        let (mut task, handle) = Task::new(self.0.clone(), record, phase, &remembered);
        self.0.registry().insert(&id, handle.clone());
        if has_task {
            bootstrap::adopt(&self.0, &mut task, &id).await;
        }
        let view = handle.view();
        if view.phase.is_running() {
            // Before its end can be heard of.
            self.0.volume_keeper().adopt_running(&view.record);
        }
        tokio::spawn(task.run());
        let view = handle.view();
        if let Ok(Some(spool)) = self.0.logs().spool(&view.record) {
            self.0.shipping().resume(&view.record, spool, view.phase.is_running()).await;
        }
        let due = match view.phase {
            Phase::Exited(_) if view.record.host_config.auto_remove => Due::Removal,
            Phase::Exited(_) if wants_start_with_daemon(&view, &remembered) => Due::Start,
            _ => Due::Nothing,
        };
        (handle, due)
    }
}

fn answer(view: &Arc<View>) -> ContainerWait {
    let ending = view.phase.ending();
    // As with Docker, a container that is gone has no error left to tell.
    let error = (!ending.error.is_empty() && !view.removed)
        .then(|| api_types::container::WaitError { message: ending.error.clone() });
    ContainerWait { status_code: ending.code.into(), error }
}

/// What is known without the kernel's help. A container that ran when the machine went down has ended.
fn restored_phase(remembered: &Remembered) -> Phase {
    match (&remembered.ending, remembered.running) {
        (None, _) => Phase::Created { failure: None },
        (Some(ending), false) if ending.started_at == 0 => Phase::Created { failure: Some(ending.clone()) },
        (Some(ending), false) => Phase::Exited(ending.clone()),
        (Some(ending), true) => {
            let mut ending = ending.clone();
            (ending.code, ending.finished_at) = (255, clock::now());
            Phase::Exited(ending)
        }
    }
}

fn wants_start_with_daemon(view: &View, remembered: &Remembered) -> bool {
    let ending = view.phase.ending();
    let is_known = remembered.ending.as_ref().is_some_and(|known| known.started_at == ending.started_at);
    // While it waited for a start, that start was counted already.
    let count = remembered.restart_count - u32::from(remembered.restarting && remembered.restart_count > 0);
    let ended = Ended { code: ending.code, by_hand: remembered.stopped_by_hand && is_known, count };
    with_daemon(&view.record.host_config.restart_policy, ended)
}
