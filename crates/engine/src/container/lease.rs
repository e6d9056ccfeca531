//! Who has hold of a container's files: they must be out of them before its root is mounted anew or removed.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How often it is looked whether the last one has let go; nobody waits but who finds somebody there.
const LOOK: Duration = Duration::from_millis(10);

/// Counts the leases of one container.
#[derive(Debug, Default)]
pub struct Leases(Arc<Slot>);

/// What those share who have hold of the files of one container.
#[derive(Debug, Default)]
struct Slot {
    /// The root of a container that does not run, while anybody has it open.
    root: Mutex<Weak<OwnedFd>>,
}

/// The right to read and write a container's files; let go of by being dropped.
#[derive(Debug)]
pub struct Lease {
    slot: Arc<Slot>,
}

impl Lease {
    /// The root that all share: opened by the first, and kept until the last has dropped it. Two mounts of the same
    /// layer would get in each other's way. Blocks as long as `open` does.
    pub fn share_root<E>(&self, open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Arc<OwnedFd>, E> {
        let mut shared = self.slot.root.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = shared.upgrade() {
            return Ok(root);
        }
        let root = Arc::new(open()?);
        *shared = Arc::downgrade(&root);
        Ok(root)
    }
}

impl Leases {
    pub fn lend(&self) -> Lease {
        Lease { slot: self.0.clone() }
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

    #[test]
    fn a_root_is_opened_once_for_all() {
        let open = || std::fs::File::open("/").map(OwnedFd::from);
        let leases = Leases::default();
        let (one, two) = (leases.lend(), leases.lend());
        let root = one.share_root(open).unwrap();
        assert!(Arc::ptr_eq(&root, &two.share_root(open).unwrap()));
        drop(root);
        assert!(two.share_root(|| Err::<OwnedFd, _>("opened anew")).is_err());
    }
}
