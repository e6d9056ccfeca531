//! Who has hold of a container's files: they must be out of them before its root is mounted anew or removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether the last one has let go; nobody waits but who finds somebody there.
const LOOK: Duration = Duration::from_millis(10);

/// Counts the leases of one container.
#[derive(Debug, Default)]
pub struct Leases(Arc<()>);

/// The right to read and write a container's files; let go of by being dropped.
#[derive(Debug)]
pub struct Lease {
    _held: Arc<()>,
}

impl Leases {
    pub fn lend(&self) -> Lease {
        Lease { _held: self.0.clone() }
    }

    fn are_out(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Waits until all are back; false if that takes longer than `patience`.
    pub async fn returned(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.are_out() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// The same where it may block; when patience ends, so does the waiting.
    pub fn returned_blocking(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.are_out() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lease_is_waited_for() {
        let leases = Leases::default();
        assert!(leases.returned(Duration::ZERO).await);
        let lease = leases.lend();
        assert!(!leases.returned(Duration::from_millis(1)).await);
        std::thread::scope(|scope| {
            scope.spawn(|| leases.returned_blocking(Duration::from_secs(60)));
            drop(lease);
        });
        assert!(leases.returned(Duration::from_secs(60)).await);
    }
}
