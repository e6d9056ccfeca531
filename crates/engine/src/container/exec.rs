//! Other processes in a running container.

use api_types::exec::ExecCreate;
use model::Refusal;
use shim_protocol::{Command as ToShim, Reply};

use super::Client;
use super::task::Task;

/// Ended execs that are remembered for each container; the oldest go first.
const ENDED_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecPhase {
    Created,
    Running { pid: i32 },
    Ended { code: i32 },
}

#[derive(Debug)]
pub struct Exec {
    pub request: std::sync::Arc<ExecCreate>,
    pub phase: ExecPhase,
    /// Order of making.
    pub number: u64,
}

/// What readers see of an exec.
#[derive(Debug, Clone)]
pub struct ExecView {
    pub request: std::sync::Arc<ExecCreate>,
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
    pub fn view(&self) -> ExecView {
        ExecView { request: self.request.clone(), phase: self.phase }
    }

    pub fn running(&self) -> bool {
        matches!(self.phase, ExecPhase::Running { .. })
    }
}

impl Task {
    pub(super) fn exec_create(&mut self, id: String, request: ExecCreate) -> Result<(), Refusal> {
        self.phase.may_exec(&self.record.id)?;
        if request.cmd.is_empty() {
            return Err(Refusal::invalid("No exec command specified"));
        }
        let ended = self.execs.iter().filter(|(_, exec)| !exec.running());
        if ended.clone().count() >= ENDED_MAX
            && let Some(oldest) = ended.min_by_key(|(_, exec)| exec.number).map(|(id, _)| id.clone())
        {
            self.execs.remove(&oldest);
            self.engine.forget_exec(&oldest, None);
        }
        let number = self.execs.values().map(|exec| exec.number + 1).max().unwrap_or(0);
        let command = request.cmd.join(" ");
        self.emit(&format!("exec_create: {command}"), &[("execID", id.clone())]);
        let exec = Exec { request: std::sync::Arc::new(request), phase: ExecPhase::Created, number };
        self.execs.insert(id, exec);
        self.publish();
        Ok(())
    }

    pub(super) async fn exec_start(
        &mut self,
        id: &str,
        client: Option<Client>,
        console: Option<[u32; 2]>,
    ) -> Result<(), Refusal> {
        let exec =
            self.execs.get(id).ok_or_else(|| Refusal::not_found(format!("No such exec instance: {id}")))?;
        match exec.phase {
            ExecPhase::Created => {}
            ExecPhase::Running { .. } => {
                return Err(Refusal::conflict(format!("exec command {id} is already running")));
            }
            ExecPhase::Ended { .. } => {
                return Err(Refusal::conflict(format!("exec command {id} has already run")));
            }
        }
        self.phase.may_exec(&self.record.id)?;
        let shim = self.shim.clone().ok_or_else(|| Refusal::system("the container's shim is gone"))?;
        let mut request = (*exec.request).clone();
        request.console_size = console.or(request.console_size);
        let process = model::spec::exec_process(&self.record, &request)?;
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
                self.end_exec(id, exit_code_of(&refusal));
                self.publish();
                return Err(exec_failed(refusal));
            }
        };
        // It may have ended already; the notice then waits behind this command.
        if let Some(exec) = self.execs.get_mut(id) {
            exec.phase = ExecPhase::Running { pid };
        }
        self.publish();
        let command = request.cmd.join(" ");
        self.emit(&format!("exec_start: {command}"), &[("execID", id.into())]);
        Ok(())
    }

    fn end_exec(&mut self, id: &str, code: i32) {
        if let Some(exec) = self.execs.get_mut(id) {
            exec.phase = ExecPhase::Ended { code };
        }
    }

    /// The container's end was the end of its execs as well: the kernel killed what was left.
    pub(super) fn end_execs(&mut self) {
        for exec in self.execs.values_mut().filter(|exec| exec.running()) {
            exec.phase = ExecPhase::Ended { code: 128 + model::signal::KILL };
        }
    }

    pub(super) fn exec_exited(&mut self, id: &str, code: i32) {
        self.end_exec(id, code);
        self.emit("exec_die", &[("execID", id.into()), ("exitCode", code.to_string())]);
        self.publish();
    }

    pub(super) async fn exec_resize(&mut self, id: &str, rows: u16, columns: u16) -> Result<(), Refusal> {
        let exec =
            self.execs.get(id).ok_or_else(|| Refusal::not_found(format!("No such exec instance: {id}")))?;
        if !exec.running() {
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
