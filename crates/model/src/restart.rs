//! Restart policies: whether an ended container is started again, and when.

use api_types::container::RestartPolicy;

use crate::phase::Ending;
use crate::time::NANOS;

/// Nanoseconds.
const DELAY_FIRST: i64 = NANOS / 10;
const DELAY_MAX: i64 = 60 * NANOS;
/// A run this long counts as a good one.
const GOOD_RUN: i64 = 10 * NANOS;

/// How long to wait before the next start: 100 ms, doubled each time up to a minute, and back after a run of ten
/// seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    /// Nanoseconds; 0 before the first.
    last: i64,
}

impl Backoff {
    /// The wait after this ending, in nanoseconds.
    pub fn next(&mut self, ending: &Ending) -> i64 {
        if ending.finished_at - ending.started_at >= GOOD_RUN {
            self.last = 0;
        }
        self.last = if self.last == 0 { DELAY_FIRST } else { (self.last * 2).min(DELAY_MAX) };
        self.last
    }
}

/// What decides on a restart, besides the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    /// A person stopped it.
    pub by_hand: bool,
    /// Starts by the policy since a person started it.
    pub count: u32,
}

/// Whether a container that has just ended is to be started again.
pub fn after_exit(policy: &RestartPolicy, ended: Ended) -> bool {
    !ended.by_hand && with_daemon(policy, ended)
}

/// Whether a container that does not run is to be started when the daemon starts. What a person stopped comes back by
/// `always` only.
pub fn with_daemon(policy: &RestartPolicy, ended: Ended) -> bool {
    let most = policy.maximum_retry_count;
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !ended.by_hand,
        "on-failure" => !ended.by_hand && ended.code != 0 && (most == 0 || i64::from(ended.count) < most),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_a_good_run_resets_it() {
        let mut backoff = Backoff::default();
        let short = Ending { started_at: 0, finished_at: 9 * NANOS, ..Ending::default() };
        let waits: Vec<i64> = (0..12).map(|_| backoff.next(&short) / 1_000_000).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        let good = Ending { finished_at: 10 * NANOS, ..short };
        assert_eq!(backoff.next(&good) / 1_000_000, 100);
    }

    #[test]
    fn who_comes_back() {
        let policy = |name: &str, most| RestartPolicy { name: name.into(), maximum_retry_count: most };
        let decide = |name: &str, most, code, by_hand, count| {
            let (policy, ended) = (policy(name, most), Ended { code, by_hand, count });
            (after_exit(&policy, ended), with_daemon(&policy, ended))
        };
        for (name, code, by_hand, expected) in [
            ("no", 1, false, (false, false)),
            ("", 1, false, (false, false)),
            ("always", 0, false, (true, true)),
            ("always", 0, true, (false, true)),
            ("unless-stopped", 0, false, (true, true)),
            ("unless-stopped", 0, true, (false, false)),
            ("on-failure", 0, false, (false, false)),
            ("on-failure", 1, false, (true, true)),
            ("on-failure", 137, true, (false, false)),
        ] {
            assert_eq!(decide(name, 0, code, by_hand, 7), expected, "{name} {code} {by_hand}");
        }
        assert_eq!(decide("on-failure", 2, 1, false, 1), (true, true));
        assert_eq!(decide("on-failure", 2, 1, false, 2), (false, false));
    }
}
