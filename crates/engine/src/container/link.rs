//! The container's side of its shim: which one it has, and what that one says.

use model::Refusal;
use tokio::sync::mpsc;

use crate::shim::{self, Event, Events, Shim};

/// A container's shim, one after the other.
pub struct Link {
    /// While the container runs.
    pub shim: Option<Shim>,
    /// Nothing of the last task is left: no process and no mount.
    pub settled: bool,
    /// Counts the shims that there were.
    number: u64,
    events: shim::Channel,
}

impl Default for Link {
    fn default() -> Link {
        Link { shim: None, settled: true, number: 0, events: mpsc::unbounded_channel() }
    }
}

impl Link {
    /// Where the events of the next shim go; those of earlier ones are not heard any more.
    pub fn next(&mut self) -> Events {
        self.number += 1;
        Events { number: self.number, inbox: self.events.0.clone() }
    }

    /// Waits for the shim to say something.
    pub async fn hear(&mut self) -> Option<Event> {
        loop {
            let (number, event) = self.events.1.recv().await?;
            if number == self.number {
                return Some(event);
            }
        }
    }

    /// What the shim has said by now.
    pub fn heard(&mut self) -> Option<Event> {
        loop {
            let (number, event) = self.events.1.try_recv().ok()?;
            if number == self.number {
                return Some(event);
            }
        }
    }

    /// The shim that answers for a running container.
    pub fn answering(&self) -> Result<Shim, Refusal> {
        self.shim.clone().ok_or_else(|| Refusal::system("the container's shim is gone"))
    }
}
