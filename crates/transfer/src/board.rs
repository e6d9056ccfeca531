//! What is told while a transfer goes on.
//!
//! A board takes events from any thread without waiting. Progress that nobody has read yet is replaced by newer
//! progress, so a slow reader bounds neither the transfer nor the memory.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Notify;

/// Progress of one thing is told at most this often.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A step, of something or of the whole.
    Message { id: Option<String>, text: String },
    /// How far something is, in bytes.
    Progress { id: String, action: &'static str, current: u64, total: u64 },
    /// A result for programs.
    Aux(Value),
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Event>,
    /// What was told last of each, and when.
    told: HashMap<String, (&'static str, Instant)>,
    closed: bool,
}

/// Clones are the same board.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
    cancelled: AtomicBool,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a step of the whole.
    pub fn say(&self, text: impl Into<String>) {
        self.put(Event::Message { id: None, text: text.into() });
    }

    /// Tells a step of one thing.
    pub fn step(&self, id: &str, text: impl Into<String>) {
        self.lock().told.remove(id);
        self.put(Event::Message { id: Some(id.to_owned()), text: text.into() });
    }

    pub fn aux(&self, value: Value) {
        self.put(Event::Aux(value));
    }

    fn put(&self, event: Event) {
        self.lock().waiting.push_back(event);
        self.0.changed.notify_one();
    }

    /// Tells how far something is, unless that was told a moment ago.
    pub fn progress(&self, id: &str, action: &'static str, current: u64, total: u64) {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some((last, at)) = state.told.get(id)
            && *last == action
            && now.duration_since(*at) < PROGRESS_PAUSE
            && current < total
        {
            return;
        }
        state.told.insert(id.to_owned(), (action, now));
        let event = Event::Progress { id: id.to_owned(), action, current, total };
        let unread = state.waiting.iter_mut().rev().find(|one| match one {
            Event::Progress { id: other, .. } => other == id,
            Event::Message { id: other, .. } => other.as_deref() == Some(id),
            Event::Aux(_) => false,
        });
        match unread {
            Some(Event::Progress { action: same, current: read, .. }) if *same == action => *read = current,
            _ => state.waiting.push_back(event),
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// Nothing comes any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_one();
    }

    /// The next event; none when the board is closed and read. For one reader.
    pub async fn next(&self) -> Option<Event> {
        loop {
            {
                let mut state = self.lock();
                if let Some(event) = state.waiting.pop_front() {
                    return Some(event);
                }
                if state.closed {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }

    /// Nobody wants the result any more.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unread_progress_is_replaced_and_steps_are_not() {
        let board = Board::default();
        board.step("a", "Pulling fs layer");
        board.progress("a", "Downloading", 1, 10);
        board.progress("a", "Downloading", 2, 10);
        board.progress("a", "Downloading", 10, 10);
        board.step("a", "Download complete");
        board.progress("a", "Extracting", 1, 10);
        board.close();
        let mut seen = Vec::new();
        while let Some(event) = board.next().await {
            seen.push(match event {
                Event::Message { text, .. } => text,
                Event::Progress { action, current, .. } => format!("{action} {current}"),
                Event::Aux(_) => unreachable!(),
            });
        }
        assert_eq!(seen, ["Pulling fs layer", "Downloading 10", "Download complete", "Extracting 1"]);
    }
}
