//! What was sent and may still be lost on its way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Batches that were written to a connection, until it is sure enough that the receiver has them.
///
/// A connection tells how many bytes the other side has not taken. What was taken may still lie unread in the other
/// side's kernel; if the receiver dies then, the connection is reset a moment later. So it counts only after a
/// grace, or when the receiver closes the connection in order.
#[derive(Debug)]
pub struct Unconfirmed {
    batches: VecDeque<Batch>,
    /// Bytes written so far.
    written: u64,
    grace: Duration,
    /// The bytes that are not taken can be counted; else there is only some and none.
    exact: bool,
}

#[derive(Debug)]
struct Batch {
    /// Of its last record.
    number: u64,
    end: u64,
    taken: Option<Instant>,
}

impl Unconfirmed {
    pub fn new(exact: bool, grace: Duration) -> Unconfirmed {
        Unconfirmed { batches: VecDeque::new(), written: 0, grace, exact }
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub fn sent(&mut self, number: u64, bytes: usize) {
        self.written += bytes as u64;
        self.batches.push_back(Batch { number, end: self.written, taken: None });
    }

    /// Tells up to which record all is sure, if that is new. `untaken`: bytes that the other side has not taken.
    pub fn look(&mut self, untaken: usize, now: Instant) -> Option<u64> {
        self.take(untaken, now);
        let sure = |batch: &Batch| batch.taken.is_some_and(|taken| now >= taken + self.grace);
        let count = self.batches.iter().take_while(|batch| sure(batch)).count();
        self.batches.drain(..count).next_back().map(|batch| batch.number)
    }

    /// The receiver closed the connection in order: it has read what its side took.
    pub fn closed(&mut self, untaken: usize, now: Instant) -> Option<u64> {
        self.take(untaken, now);
        let count = self.batches.iter().take_while(|batch| batch.taken.is_some()).count();
        self.batches.drain(..count).next_back().map(|batch| batch.number)
    }

    fn take(&mut self, untaken: usize, now: Instant) {
        let taken = match (self.exact, untaken) {
            (_, 0) => self.written,
            (true, untaken) => self.written.saturating_sub(untaken as u64),
            (false, _) => 0,
        };
        for batch in self.batches.iter_mut().filter(|batch| batch.end <= taken) {
            batch.taken.get_or_insert(now);
        }
    }

    /// How long until something may have become sure; none if nothing is open.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let first = self.batches.front()?;
        Some(match first.taken {
            Some(taken) => (taken + self.grace).saturating_duration_since(now).max(Duration::from_millis(1)),
            None => Duration::from_millis(20),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_bytes_are_sure_after_the_grace() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut open = Unconfirmed::new(true, second);
        open.sent(5, 100);
        open.sent(9, 50);
        assert_eq!(open.look(60, start), None);
        assert_eq!(open.look(50, start), None);
        assert_eq!(open.wait(start), Some(second));
        assert_eq!(open.look(50, start + second), Some(5));
        assert_eq!(open.look(0, start + second), None);
        assert!(!open.is_empty());
        assert_eq!(open.closed(0, start + second), Some(9));
        assert!(open.is_empty() && open.wait(start).is_none());
    }

    #[test]
    fn inexact_counts_tell_all_or_nothing() {
        let now = Instant::now();
        let mut open = Unconfirmed::new(false, Duration::ZERO);
        open.sent(1, 10);
        open.sent(2, 10);
        assert_eq!(open.look(1, now), None);
        assert_eq!(open.closed(1, now), None);
        assert_eq!(open.look(0, now), Some(2));
    }
}
