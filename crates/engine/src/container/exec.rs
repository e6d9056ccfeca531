//! Other processes in a running container.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::exec::ExecCreate;
use model::Refusal;
use shim_protocol::{Command as ToShim, Reply};

use super::task::Task;
use super::{Client, links};

/// Ended execs that are remembered for each container; the oldest go first.
const ENDED_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecPhase {
    Created,
    Running { pid: i32 },
    Ended { code: i32 },
}

#[derive(Debug)]
struct Exec {
    request: Arc<ExecCreate>,
    phase: ExecPhase,
    /// Order of making.
    number: u64,
}

/// What readers see of an exec.
#[derive(Debug, Clone)]
pub struct ExecView {
    pub request: Arc<ExecCreate>,
    phase: ExecPhase,
}

impl ExecView {
    pub fn running(&self) -> bool {
        matches!(self.phase, ExecPhase::Running { .. })
    }

    pub fn phase(&self) -> ExecPhase {
        self.phase
    }
}

impl Exec {
    fn running(&self) -> bool {
        matches!(self.phase, ExecPhase::Running { .. })
    }
}

/// The execs of one container, by ID.
#[derive(Debug, Default)]
pub struct Execs(BTreeMap<String, Exec>);

impl Execs {
    /// Takes a new one in; returns the one that is forgotten for it, if there are too many.
    fn add(&mut self, id: String, request: ExecCreate) -> Option<String> {
        let ended = self.0.iter().filter(|(_, exec)| !exec.running());
        let full = ended.clone().count() >= ENDED_MAX;
        let oldest = ended.filter(|_| full).min_by_key(|(_, exec)| exec.number).map(|(id, _)| id.clone());
        if let Some(oldest) = &oldest {
            self.0.remove(oldest);
        }
        let number = self.0.values().map(|exec| exec.number + 1).max().unwrap_or(0);
        self.0.insert(id, Exec { request: Arc::new(request), phase: ExecPhase::Created, number });
        oldest
    }

    fn get(&self, id: &str) -> Result<&Exec, Refusal> {
        self.0.get(id).ok_or_else(|| Refusal::not_found(format!("No such exec instance: {id}")))
    }

    /// What is asked of one that was not started yet.
    fn startable(&self, id: &str) -> Result<Arc<ExecCreate>, Refusal> {
        let exec = self.get(id)?;
        match exec.phase {
            ExecPhase::Created => Ok(exec.request.clone()),
            ExecPhase::Running { .. } => {
                Err(Refusal::conflict(format!("exec command {id} is already running")))
            }
            ExecPhase::Ended { .. } => Err(Refusal::conflict(format!("exec command {id} has already run"))),
        }
    }

    fn set(&mut self, id: &str, phase: ExecPhase) {
        if let Some(exec) = self.0.get_mut(id) {
            exec.phase = phase;
        }
    }

    /// The container's end was the end of its execs as well: the kernel killed what was left.
    pub fn end_all(&mut self) {
        for exec in self.0.values_mut().filter(|exec| exec.running()) {
            exec.phase = ExecPhase::Ended { code: 128 + model::signal::KILL };
        }
    }

    pub fn views(&self) -> BTreeMap<String, ExecView> {
        let view = |exec: &Exec| ExecView { request: exec.request.clone(), phase: exec.phase };
        self.0.iter().map(|(id, exec)| (id.clone(), view(exec))).collect()
    }
}

impl Task {
    pub(super) fn exec_create(&mut self, id: String, request: ExecCreate) -> Result<(), Refusal> {
        self.phase.may_exec(&self.record.id)?;
        if request.cmd.is_empty() {
            return Err(Refusal::invalid("No exec command specified"));
        }
        let command = request.cmd.join(" ");
        self.emit(&format!("exec_create: {command}"), &[("execID", id.clone())]);
        if let Some(oldest) = self.execs.add(id, request) {
            self.engine.known_execs().forget(&oldest, None);
        }
        self.publish();
        Ok(())
    }

    pub(super) async fn exec_start(
        &mut self,
        id: &str,
        client: Option<Client>,
        console: Option<[u32; 2]>,
    ) -> Result<(), Refusal> {
        let mut request = (*self.execs.startable(id)?).clone();
        self.phase.may_exec(&self.record.id)?;
        let shim = self.link.answering()?;
        request.console_size = console.or(request.console_size);
        let process =
            model::spec::exec_process(&self.record, &request, &links::variables(&self.engine, &self.record))?;
        let filter = if request.privileged { None } else { self.engine.seccomp(&self.record)? };
        let (attach, streams) = match client {
            Some(client) => match client.ready().await {
                Some((attach, stream)) => (Some(attach), vec![stream]),
                None => return Err(Refusal::invalid("the client went away before its exec was started")),
            },
            None => (None, Vec::new()),
        };
        let command = shim_protocol::Exec {
            id: id.into(),
            process,
            attach,
            stdin_open: request.attach_stdin,
            capture: None,
        };
        let started =
            shim.call(ToShim::Exec(Box::new(command)), filter.as_deref().unwrap_or(&[]), streams).await;
        let pid = match started {
            Ok((Reply::ExecStarted { pid }, _)) => pid,
            Ok(_) => return Err(Refusal::system("the shim gave an odd answer")),
            Err(error) => {
                let refusal = Refusal::from(error);
                self.execs.set(id, ExecPhase::Ended { code: exit_code_of(&refusal) });
                self.publish();
                return Err(exec_failed(refusal));
            }
        };
        // It may have ended already; the notice then waits behind this command.
        self.execs.set(id, ExecPhase::Running { pid });
        self.publish();
        let command = request.cmd.join(" ");
        self.emit(&format!("exec_start: {command}"), &[("execID", id.into())]);
        Ok(())
    }

    pub(super) fn exec_exited(&mut self, id: &str, code: i32) {
        self.execs.set(id, ExecPhase::Ended { code });
        self.emit("exec_die", &[("execID", id.into()), ("exitCode", code.to_string())]);
        self.publish();
    }

    pub(super) async fn exec_resize(&mut self, id: &str, rows: u16, columns: u16) -> Result<(), Refusal> {
        if !self.execs.get(id)?.running() {
            return Err(Refusal::conflict(format!("exec command {id} is not running")));
        }
        self.resize(Some(id.into()), rows, columns).await
    }
}

/// Docker's words around what the runtime says, which clients look for.
pub(super) fn exec_failed(refusal: Refusal) -> Refusal {
    Refusal {
        message: format!(
            "OCI runtime exec failed: exec failed: unable to start container process: {}",
            refusal.message
        ),
        ..refusal
    }
}

/// The exit code that Docker gives a program that could not be started.
pub(super) fn exit_code_of(refusal: &Refusal) -> i32 {
    let text = &refusal.message;
    if text.contains("executable file not found") || text.contains("no such file or directory") {
        127
    } else if text.contains("permission denied") || text.contains("is a directory") {
        126
    } else {
        128
    }
}
