//! What happens with the daemon's start: containers come back, many at once but not all, and each after those whose
//! namespaces it joins.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::Engine;
use crate::container::{Command, Handle, StartedBy};

/// Starts under way at once, for each CPU.
const AT_ONCE_PER_CPU: usize = 8;

/// What a restored container waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// Its policy wants it to run.
    Start,
    /// `--rm`: it ended while no daemon was there to remove it.
    Removal,
}

/// Starts and removes what is due, in the background.
pub fn catch_up(engine: &Engine, due: Vec<(Handle, Due)>) {
    let cpus = engine.facts().cpus.max(1) as usize;
    let turns = Arc::new(Semaphore::new(AT_ONCE_PER_CPU * cpus));
    // Each tells when its start was tried, by dropping its end.
    let mut tried: HashMap<String, watch::Receiver<()>> = HashMap::new();
    let mut jobs = Vec::new();
    for (handle, due) in due.into_iter().filter(|(_, due)| *due != Due::Nothing) {
        let (done, seen) = watch::channel(());
        tried.insert(handle.view().id().to_string(), seen);
        jobs.push((handle, due, done));
    }
    for (handle, due, done) in jobs {
        let needs = awaited(engine, &handle, &tried);
        let turns = turns.clone();
        tokio::spawn(async move {
            for mut need in needs {
                while need.changed().await.is_ok() {}
            }
            let _turn = turns.acquire().await;
            let what = match due {
                Due::Removal => {
                    handle.ask(|answer| Command::Remove { force: false, volumes: true, answer }).await
                }
                _ => handle.ask(|answer| Command::Start { by: StartedBy::Daemon, answer }).await,
            };
            if let Err(error) = what {
                let id = handle.view().id().to_string();
                tracing::warn!(container = %id, %error, "cannot be started or removed with the daemon's start");
            }
            drop(done);
        });
    }
}

/// The starts that one has to wait for. Only a container that is older can be needed, so nobody waits in a circle.
fn awaited(
    engine: &Engine,
    handle: &Handle,
    tried: &HashMap<String, watch::Receiver<()>>,
) -> Vec<watch::Receiver<()>> {
    let view = handle.view();
    let older = view.record.needs().filter_map(|name| engine.find(name).ok()).filter(|other| {
        let other = other.view();
        (other.record.created, other.id()) < (view.record.created, view.id())
    });
    older.filter_map(|other| tried.get(other.view().id()).cloned()).collect()
}
