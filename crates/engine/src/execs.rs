//! The verbs of exec.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_types::exec::{ExecCreate, ExecInspect, ProcessConfig};
use model::Refusal;

use crate::container::{Client, Command, ExecPhase, ExecView, Handle, View};
use crate::{Engine, clock};

/// How long a change of size waits for the exec to start.
const RESIZE_PATIENCE: Duration = Duration::from_secs(10);
/// Ended execs of removed containers that are still answered for.
const ENDED_MAX: usize = 256;

/// Where execs are.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    /// Exec ID to container ID.
    live: HashMap<String, String>,
    /// Exec ID, then container ID and the exec; the oldest first.
    ended: VecDeque<(String, (String, ExecView))>,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops an exec; `ended` is how it is answered for a while yet, with its container.
    pub fn forget(&self, exec: &str, ended: Option<(String, ExecView)>) {
        let mut tables = self.lock();
        tables.live.remove(exec);
        if let Some(ended) = ended {
            if tables.ended.len() == ENDED_MAX {
                tables.ended.pop_front();
            }
            tables.ended.push_back((exec.into(), ended));
        }
    }
}

/// An exec, found.
pub struct FoundExec {
    pub container: Handle,
    pub exec: ExecView,
}

/// The use cases of execs.
#[derive(Clone)]
pub struct Execs(pub(crate) Engine);

impl Execs {
    pub async fn create(&self, name: &str, request: ExecCreate) -> Result<String, Refusal> {
        let handle = self.0.find(name)?;
        let id = clock::new_id();
        let request = Box::new(request);
        handle.ask(|answer| Command::ExecCreate { id: id.clone(), request, answer }).await?;
        let container = handle.view().id().to_string();
        self.0.known_execs().lock().live.insert(id.clone(), container);
        Ok(id)
    }

    pub fn find(&self, id: &str) -> Result<FoundExec, Refusal> {
        let missing = || Refusal::not_found(format!("No such exec instance: {id}"));
        let owner = self.0.known_execs().lock().live.get(id).cloned();
        let container = self.0.find(&owner.ok_or_else(missing)?).map_err(|_| missing())?;
        let exec = container.view().execs.get(id).cloned().ok_or_else(missing)?;
        Ok(FoundExec { container, exec })
    }

    /// Starts it; its output goes to `client`, if there is one.
    pub async fn start(
        &self,
        id: &str,
        client: Option<Client>,
        console: Option<[u32; 2]>,
    ) -> Result<(), Refusal> {
        let found = self.find(id)?;
        let (id, client) = (id.to_string(), client.map(Box::new));
        found.container.ask(|answer| Command::ExecStart { id, client, console, answer }).await
    }

    /// A client may ask for this before its start has come through: as with Docker, it waits for that.
    pub async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Refusal> {
        let found = self.find(id)?;
        let waits = |view: &View| view.execs.get(id).is_some_and(|exec| exec.phase() == ExecPhase::Created);
        let begun = found.container.until(|view| !waits(view) || !view.phase.is_running());
        let Ok(view) = tokio::time::timeout(RESIZE_PATIENCE, begun).await else {
            return Err(Refusal::system("timeout waiting for exec session ready"));
        };
        if waits(&view) {
            return Err(Refusal::invalid("exec process is not started"));
        }
        let id = id.to_string();
        found.container.ask(|answer| Command::ExecResize { id, rows, columns, answer }).await
    }

    pub async fn inspect(&self, id: &str) -> Result<ExecInspect, Refusal> {
        if let Ok(found) = self.find(id)
            && !matches!(found.exec.phase(), ExecPhase::Ended { .. })
        {
            // A client that saw its output end asks at once: its start, and what the shim said, must be known.
            let _ = found.container.ask(|answer| Command::CatchUp { answer }).await;
        }
        self.seen(id)
    }

    fn seen(&self, id: &str) -> Result<ExecInspect, Refusal> {
        let (container, exec) = match self.find(id) {
            Ok(found) => (found.container.view().id().to_string(), found.exec),
            Err(refusal) => {
                let execs = self.0.known_execs().lock();
                let ended = execs.ended.iter().find(|(ended, _)| ended == id);
                ended.map(|(_, ended)| ended.clone()).ok_or(refusal)?
            }
        };
        let request = &exec.request;
        let (running, exit_code, pid) = match exec.phase() {
            ExecPhase::Created => (false, None, 0),
            ExecPhase::Running { pid } => (true, None, pid),
            ExecPhase::Ended { code } => (false, Some(i64::from(code)), 0),
        };
        Ok(ExecInspect {
            id: id.into(),
            running,
            exit_code,
            process_config: ProcessConfig {
                tty: request.tty,
                entrypoint: request.cmd.first().cloned().unwrap_or_default(),
                arguments: request.cmd.iter().skip(1).cloned().collect(),
                privileged: request.privileged,
                user: request.user.clone(),
            },
            open_stdin: request.attach_stdin,
            open_stderr: request.attach_stderr,
            open_stdout: request.attach_stdout,
            can_remove: false,
            container_id: container,
            detach_keys: request.detach_keys.clone(),
            pid: pid.into(),
        })
    }
}
