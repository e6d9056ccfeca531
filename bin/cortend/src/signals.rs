//! Signals: what an operator or a service manager asks of the daemon.

use std::io;

use engine::Engine;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
pub enum Wanted {
    End,
    Reload,
    Report,
}

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
    user: Signal,
}

impl Signals {
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    pub async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::End,
            _ = self.interrupt.recv() => Wanted::End,
            _ = self.quit.recv() => Wanted::End,
            _ = self.hang_up.recv() => Wanted::Reload,
            _ = self.user.recv() => Wanted::Report,
        }
    }

    /// Ends when the daemon was told to end twice more.
    pub async fn insist(&mut self) {
        for _ in 0..2 {
            while !matches!(self.next().await, Wanted::End) {}
        }
    }
}

/// Writes into the log what the daemon is busy with.
pub fn report(engine: &Engine) {
    let facts = engine.system().facts();
    let metrics = tokio::runtime::Handle::current().metrics();
    tracing::info!(
        containers = engine.system().container_count(),
        running = facts.running,
        paused = facts.paused,
        listeners = facts.listeners,
        descriptors = facts.descriptors,
        tasks = metrics.num_alive_tasks(),
        workers = metrics.num_workers(),
        queue = metrics.global_queue_depth(),
        "what the daemon is busy with"
    );
}
