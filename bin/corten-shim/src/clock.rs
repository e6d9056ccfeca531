//! The time of day.

use rustix::time::{ClockId, clock_gettime};

/// Unix time in nanoseconds.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
