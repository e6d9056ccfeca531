//! Restart policies: Docker's back-off of 100 ms, doubled up to a minute, and back after ten good seconds.

use std::time::Duration;

use model::phase::Ending;
use model::time::{NANOS, UnixNanos};

use super::StartedBy;
use super::task::Task;
use crate::clock;

pub const DELAY_FIRST: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(60);
/// A run this long counts as a good one.
const GOOD_RUN: i64 = 10 * NANOS;

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
    /// When the policy starts it again after this ending, if at all.
    pub(super) fn next_restart(&mut self, ending: &Ending) -> Option<UnixNanos> {
        if self.stopped_by_hand {
            return None;
        }
        let policy = &self.record.host_config.restart_policy;
        let wanted = match policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => {
                let most = policy.maximum_retry_count;
                ending.code != 0 && (most == 0 || i64::from(self.restart_count) < most)
            }
            _ => false,
        };
        if !wanted {
            return None;
        }
        if ending.finished_at - ending.started_at >= GOOD_RUN {
            self.restart_delay = DELAY_FIRST;
        }
        let delay = self.restart_delay;
        self.restart_delay = (delay * 2).min(DELAY_MAX);
        Some(clock::now() + delay.as_nanos() as i64)
    }

    pub(super) async fn restart_now(&mut self) {
        self.restart_count += 1;
        if let Err(error) = self.start(StartedBy::Policy).await {
            tracing::warn!(container = %self.record.id, %error, "could not be started by its restart policy");
        }
    }
}
