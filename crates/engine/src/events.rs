//! The event stream: a short memory, and everybody who listens.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use api_types::StringMap;
use api_types::events::{Actor, EventMessage};
use model::create::Record;
use tokio::sync::broadcast;

use crate::clock;

/// Past events that `since` can ask for, as many as Docker keeps.
const REMEMBERED: usize = 256;
/// Events that a listener may be behind before it loses some.
const BEHIND_MAX: usize = 1024;

#[derive(Debug)]
pub struct Events {
    past: Mutex<VecDeque<Arc<EventMessage>>>,
    live: broadcast::Sender<Arc<EventMessage>>,
    emitted: AtomicU64,
}

/// Past events and those to come.
#[derive(Debug)]
pub struct Subscription {
    pub past: Vec<Arc<EventMessage>>,
    pub live: broadcast::Receiver<Arc<EventMessage>>,
}

impl Default for Events {
    fn default() -> Self {
        Events { past: Mutex::default(), live: broadcast::channel(BEHIND_MAX).0, emitted: AtomicU64::new(0) }
    }
}

impl Events {
    pub fn emit(&self, kind: &str, action: impl Into<String>, id: &str, attributes: StringMap) {
        let now = clock::now();
        self.emitted.fetch_add(1, Ordering::Relaxed);
        let event = Arc::new(EventMessage {
            kind: kind.into(),
            action: action.into(),
            actor: Actor { id: id.into(), attributes },
            scope: "local".into(),
            time: now / model::time::NANOS,
            time_nano: now,
            ..EventMessage::default()
        });
        // The lock orders the two: who subscribes sees each event in exactly one of past and live.
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(event.clone());
        let _ = self.live.send(event);
    }

    /// Says what happened to a container.
    pub fn container(&self, record: &Record, action: &str, more: &[(&str, String)]) {
        let mut attributes = record.config.labels.clone().unwrap_or_default();
        attributes.insert("image".into(), record.config.image.clone());
        attributes.insert("name".into(), record.name.clone());
        attributes.extend(more.iter().map(|(key, value)| (key.to_string(), value.clone())));
        self.emit("container", action, &record.id, attributes);
    }

    pub fn subscribe(&self) -> Subscription {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        Subscription { past: past.iter().cloned().collect(), live: self.live.subscribe() }
    }

    /// How many there were since the daemon's start.
    pub fn emitted(&self) -> u64 {
        self.emitted.load(Ordering::Relaxed)
    }

    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }
}
