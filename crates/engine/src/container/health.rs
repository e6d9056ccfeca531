//! Looking after a running container's health: probes as execs, one at a time, between which nothing runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api_types::container::ContainerConfig;
use model::health::{Check, Health, OUTPUT_MAX, Outcome, Status};
use model::time::UnixNanos;
use model::{Kind, Refusal};
use shim_protocol::{Capture, Captured, Command as ToShim, Reply};
use tokio::time::Instant;

use super::task::Task;
use crate::{blocking, clock};

/// The health of a container in its run directory, for the next daemon.
const HEALTH_NAME: &str = "health.json";

/// How long a probe is put off for a container that may just have ended.
const PUT_OFF: Duration = Duration::from_millis(100);

/// What a container's task knows of its health.
#[derive(Debug, Default)]
pub struct Care {
    /// The last known health, also of a container that has ended; none if it was never checked.
    pub health: Option<Health>,
    /// While it is looked at.
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Watch {
    check: Check,
    started_at: UnixNanos,
    next: Next,
}

#[derive(Debug)]
enum Next {
    /// A probe is due then.
    Probe(Instant),
    /// A probe runs; its exec's ID.
    Result { exec: String, began: UnixNanos },
}

impl Care {
    pub fn new(health: Option<Health>) -> Care {
        Care { health, watch: None }
    }

    /// When the next probe is due, if one is.
    pub fn due(&self) -> Option<Instant> {
        match self.watch.as_ref()?.next {
            Next::Probe(at) => Some(at),
            Next::Result { .. } => None,
        }
    }

    /// The container has started.
    pub fn begin(&mut self, config: &ContainerConfig, started_at: UnixNanos) {
        let Some(check) = Check::of(config) else { return };
        self.health = Some(Health::begin(self.health.as_ref()));
        self.watch(check, started_at, started_at);
    }

    /// The container ended, or is paused.
    pub fn stop(&mut self) {
        if self.watch.take().is_some()
            && let Some(health) = &mut self.health
        {
            health.stop();
        }
    }

    /// The container goes on after a pause.
    pub fn resume(&mut self, config: &ContainerConfig, started_at: UnixNanos) {
        if let Some(check) = Check::of(config) {
            self.watch(check, started_at, clock::now());
        }
    }

    /// Goes on where an earlier daemon left it, which has kept the health in the container's run directory.
    pub fn adopt(
        &mut self,
        config: &ContainerConfig,
        run_directory: &Path,
        started_at: UnixNanos,
        frozen: bool,
    ) {
        let Some(check) = Check::of(config) else { return };
        let kept = std::fs::read(run_directory.join(HEALTH_NAME)).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Health>(&bytes).ok());
        let health = kept.unwrap_or_else(|| Health::begin(self.health.as_ref()));
        let since = health.last_looked().unwrap_or(started_at).max(started_at);
        self.health = Some(health);
        self.watch(check, started_at, since);
        if frozen {
            self.stop();
        }
    }

    /// Leaves the health where the next daemon finds it; that is in memory, and nobody waits for it on a disk.
    pub async fn keep(&self, run_directory: PathBuf) {
        let Some(bytes) = self.health.as_ref().and_then(|health| serde_json::to_vec(health).ok()) else {
            return;
        };
        let path = run_directory.join(HEALTH_NAME);
        let kept = blocking(move || {
            crate::paths::replace(&path, &bytes)
                .map_err(|error| Refusal::from_error("cannot keep the container's health", &error))
        });
        if let Err(error) = kept.await {
            tracing::debug!(%error, "a container's health will be forgotten with this daemon");
        }
    }

    /// Tries again a moment later.
    fn put_off(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.next = Next::Probe(Instant::now() + PUT_OFF);
        }
    }

    /// The running probe's outcome, if it was that exec which ended.
    fn outcome(&self, exec: &str, code: i32, captured: Option<&Captured>) -> Option<Outcome> {
        let Watch { next: Next::Result { exec: probe, began }, check, .. } = self.watch.as_ref()? else {
            return None;
        };
        if probe != exec {
            return None;
        }
        let (began, now) = (*began, clock::now());
        let (output, truncated, timed_out) = match captured {
            Some(captured) => (captured.output.as_str(), captured.truncated, captured.timed_out),
            None => ("", false, false),
        };
        Some(match timed_out {
            true => Outcome::timed_out(began, now, check.timeout, output, truncated),
            false => Outcome::exited(began, now, code, output, truncated),
        })
    }

    /// Takes a probe's outcome, and plans the next; the new status if it has changed. None if nothing is watched.
    fn take(&mut self, outcome: Outcome) -> Option<Option<Status>> {
        let (health, watch) = (self.health.as_mut()?, self.watch.as_mut()?);
        let changed = health.take(&watch.check, watch.started_at, outcome);
        let pause = health.pause(&watch.check, watch.started_at, clock::now());
        watch.next = Next::Probe(Instant::now() + Duration::from_nanos(u64::try_from(pause).unwrap_or(0)));
        Some(changed)
    }

    /// Watches on, with the next probe a pause after `since`.
    fn watch(&mut self, check: Check, started_at: UnixNanos, since: UnixNanos) {
        let Some(health) = &self.health else { return };
        let now = clock::now();
        let pause = health.pause(&check, started_at, now) - (now - since);
        let at = Instant::now() + Duration::from_nanos(u64::try_from(pause).unwrap_or(0));
        self.watch = Some(Watch { check, started_at, next: Next::Probe(at) });
    }
}

/// Waits until then; for ever if there is no then.
pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Task {
    /// A probe is due.
    pub(super) async fn probe(&mut self) {
        let Some(watch) = &self.care.watch else { return };
        let (command, timeout) = (watch.check.command.clone(), watch.check.timeout);
        let (exec, began) = (clock::new_id(), clock::now());
        self.emit_exec("exec_create", &command, &exec);
        match self.start_probe(&exec, &command, timeout).await {
            Ok(()) => {}
            // It has just ended, and the news is on its way: that says nothing of its health.
            Err(refusal) if refusal.kind == Kind::Conflict => return self.care.put_off(),
            Err(refusal) => {
                return self.looked(Outcome::failed(began, clock::now(), &refusal.message)).await;
            }
        }
        self.emit_exec("exec_start", &command, &exec);
        if let Some(watch) = &mut self.care.watch {
            watch.next = Next::Result { exec, began };
        }
    }

    fn emit_exec(&self, action: &str, command: &[String], exec: &str) {
        self.emit(&format!("{action}: {}", command.join(" ")), &[("execID", exec.into())]);
    }

    async fn start_probe(&mut self, exec: &str, command: &[String], timeout: i64) -> Result<(), Refusal> {
        if command.is_empty() {
            return Err(Refusal::invalid("No exec command specified"));
        }
        let shim = self.link.answering()?;
        let request =
            api_types::exec::ExecCreate { cmd: command.to_vec(), ..api_types::exec::ExecCreate::default() };
        let process = model::spec::exec_process(
            &self.record,
            &request,
            &super::links::variables(&self.engine, &self.record),
        )?;
        let filter = self.engine.seccomp(&self.record)?;
        let capture =
            Capture { bytes_max: OUTPUT_MAX, timeout_nanoseconds: u64::try_from(timeout).unwrap_or(0) };
        let command = shim_protocol::Exec {
            id: exec.into(),
            process,
            attach: None,
            stdin_open: false,
            capture: Some(capture),
        };
        let started =
            shim.call(ToShim::Exec(Box::new(command)), filter.as_deref().unwrap_or(&[]), Vec::new()).await;
        match started {
            Ok((Reply::ExecStarted { .. }, _)) => Ok(()),
            Ok(_) => Err(Refusal::system("the shim gave an odd answer")),
            Err(error) => Err(super::exec::exec_failed(error.into())),
        }
    }

    /// An exec has ended: takes its result if it was the probe.
    pub(super) async fn probe_ended(&mut self, exec: &str, code: i32, captured: Option<Captured>) {
        if let Some(outcome) = self.care.outcome(exec, code, captured.as_ref()) {
            self.looked(outcome).await;
        }
    }

    async fn looked(&mut self, outcome: Outcome) {
        let Some(changed) = self.care.take(outcome) else { return };
        if let Some(status) = changed {
            self.emit(&format!("health_status: {}", status.word()), &[]);
        }
        self.publish();
        self.care.keep(self.run_directory()).await;
    }
}
