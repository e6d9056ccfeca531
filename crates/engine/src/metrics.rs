//! Counts and durations of what the engine does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the buckets in milliseconds, those that Prometheus' own libraries use.
pub const BOUNDS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last is for what took longer than every bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// A histogram as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Up to and including each bound, then all.
    pub up_to: [u64; BOUNDS.len() + 1],
    pub total: Duration,
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let bucket = BOUNDS.iter().position(|bound| took <= Duration::from_millis(*bound));
        self.buckets[bucket.unwrap_or(BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub fn read(&self) -> Counted {
        let mut sum = 0;
        let up_to = std::array::from_fn(|at| {
            sum += self.buckets[at].load(Ordering::Relaxed);
            sum
        });
        Counted { up_to, total: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)) }
    }
}

/// What is measured of containers, in the order of Docker's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Changes,
    Commit,
    Create,
    Delete,
    Start,
}

impl Action {
    pub const ALL: [Action; 5] =
        [Action::Changes, Action::Commit, Action::Create, Action::Delete, Action::Start];

    pub fn name(self) -> &'static str {
        match self {
            Action::Changes => "changes",
            Action::Commit => "commit",
            Action::Create => "create",
            Action::Delete => "delete",
            Action::Start => "start",
        }
    }
}

/// Everything that is counted since the daemon's start.
#[derive(Debug, Default)]
pub struct Metrics {
    actions: [Histogram; Action::ALL.len()],
    /// How long facts for `info` took.
    pub system_info: Histogram,
    pub builds: AtomicU64,
    pub builds_failed: AtomicU64,
}

impl Metrics {
    pub fn action(&self, action: Action) -> &Histogram {
        &self.actions[action as usize]
    }

    /// Does something and notes how long it took, if it worked.
    pub async fn timed<T, E>(
        &self,
        action: Action,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begin = Instant::now();
        let result = work.await;
        if result.is_ok() {
            self.action(action).observe(begin.elapsed());
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_upwards() {
        let histogram = Histogram::default();
        for milliseconds in [1, 5, 6, 20_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let counted = histogram.read();
        assert_eq!((counted.up_to[0], counted.up_to[1], counted.up_to[BOUNDS.len()]), (2, 3, 4));
        assert_eq!(counted.total, Duration::from_millis(20_012));
    }
}
