//! Restart policies at work: waiting for the next start, and being started.

use std::time::Duration;

use model::phase::Ending;
use model::restart::{Ended, after_exit};
use model::time::UnixNanos;

use super::StartedBy;
use super::task::Task;
use crate::clock;

/// Sleeps until an instant of the wall clock; for ever if there is none.
pub async fn sleep_until(at: Option<UnixNanos>) {
    match at {
        Some(at) => {
            let left = u64::try_from(at - clock::now()).unwrap_or(0);
            tokio::time::sleep(Duration::from_nanos(left)).await;
        }
        None => std::future::pending().await,
    }
}

impl Task {
    /// When the policy starts it again after this ending, if at all. Counts the restart, as Docker does, from here on.
    pub(super) fn next_restart(&mut self, ending: &Ending) -> Option<UnixNanos> {
        let ended = Ended { code: ending.code, by_hand: self.stopped_by_hand, count: self.restart_count };
        if !after_exit(&self.record.host_config.restart_policy, ended) {
            return None;
        }
        self.restart_count += 1;
        Some(clock::now() + self.backoff.next(ending))
    }

    pub(super) async fn restart_now(&mut self) {
        if let Err(error) = self.start(StartedBy::Policy).await {
            tracing::warn!(container = %self.record.id, %error, "could not be started by its restart policy");
        }
    }
}
