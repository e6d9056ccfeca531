//! Containers whose namespaces another one joins: they must run, and some must allow it.

use model::{Phase, Refusal};

use crate::Engine;

/// The first process of a running container.
fn running(engine: &Engine, name: &str) -> Result<(i32, String), Refusal> {
    let view = engine.find(name).map_err(|refusal| Refusal::invalid(refusal.message))?.view();
    match &view.phase {
        Phase::Running { pid, .. } => Ok((*pid, view.record.host_config.ipc_mode.clone())),
        Phase::Restarting { .. } => Err(Refusal::conflict(format!(
            "Container {name} is restarting, wait until the container is running"
        ))),
        _ => {
            Err(Refusal::conflict(format!("container {name} is not running"))
                .hint(format!("start {name} first")))
        }
    }
}

pub fn pids(engine: &Engine, name: &str) -> Result<i32, Refusal> {
    let (pid, _) =
        running(engine, name).map_err(|refusal| within("failed to join PID namespace", refusal))?;
    Ok(pid)
}

/// Of the shared memory as well, which is why the other container must have been made to share it.
pub fn ipc(engine: &Engine, name: &str) -> Result<i32, Refusal> {
    let failed = |refusal| within("failed to join IPC namespace", refusal);
    let (pid, mode) = running(engine, name).map_err(failed)?;
    if !matches!(mode.as_str(), "shareable" | "host") && !mode.starts_with("container:") {
        return Err(failed(Refusal::invalid(format!(
            "container {name}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        ))));
    }
    Ok(pid)
}

pub fn network(engine: &Engine, name: &str) -> Result<i32, Refusal> {
    let view = engine
        .find(name)
        .map_err(|refusal| within("joining network namespace of container", refusal))?
        .view();
    match &view.phase {
        Phase::Running { pid, .. } => Ok(*pid),
        Phase::Restarting { .. } => Err(Refusal::conflict(format!(
            "cannot join network namespace of container: Container {} is restarting, wait until the container is running",
            view.id()
        ))),
        other => Err(Refusal::conflict(format!(
            "cannot join network namespace of a non running container: container {} is {}",
            view.name(),
            other.status()
        ))
        .hint(format!("start {} first", view.name()))),
    }
}

fn within(what: &str, refusal: Refusal) -> Refusal {
    Refusal { message: format!("{what}: {}", refusal.message), ..refusal }
}
