//! Restart policies at work: waiting for the next start, and being started.

use std::time::Duration;

use api_types::container::RestartPolicy;
use model::phase::Ending;
use model::restart::{Backoff, Ended, after_exit};
use model::time::UnixNanos;

use super::task::Task;
use super::{Remembered, StartedBy};
use crate::clock;

/// What decides whether a container comes back after its end, and when.
#[derive(Debug, Default)]
pub struct Comeback {
    /// Stopped by a person: no policy starts it again.
    pub stopped_by_hand: bool,
    pub count: u32,
    backoff: Backoff,
}

impl Comeback {
    pub fn new(remembered: &Remembered) -> Comeback {
        Comeback {
            stopped_by_hand: remembered.stopped_by_hand,
            count: remembered.restart_count,
            backoff: Backoff::default(),
        }
    }

    /// When the policy starts it again after this ending, if at all. Counts the restart, as Docker does, from here on.
    pub fn after(&mut self, policy: &RestartPolicy, ending: &Ending) -> Option<UnixNanos> {
        let ended = Ended { code: ending.code, by_hand: self.stopped_by_hand, count: self.count };
        if !after_exit(policy, ended) {
            return None;
        }
        self.count += 1;
        Some(clock::now() + self.backoff.next(ending))
    }
}

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
    pub(super) async fn restart_now(&mut self) {
        if let Err(error) = self.start(StartedBy::Policy).await {
            tracing::warn!(container = %self.record.id, %error, "could not be started by its restart policy");
        }
    }
}
