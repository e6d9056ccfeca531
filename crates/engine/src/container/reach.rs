//! Reaching into a container's files.

use std::os::fd::OwnedFd;

use model::{Phase, Refusal};
use shim_protocol::{Command as ToShim, FailureKind};

use super::lease::Lease;
use super::task::Task;
use crate::shim::CallError;

/// The way to a container's files.
#[derive(Debug)]
pub struct Reached {
    /// The root directory as its first process sees it, with everything that is mounted; none if it does not run.
    pub root: Option<OwnedFd>,
    pub lease: Lease,
}

impl Task {
    pub(super) async fn reach(&mut self) -> Result<Reached, Refusal> {
        if let Phase::Removing { .. } = self.phase {
            return Err(Refusal::conflict(format!("container {} is being removed", self.record.id)));
        }
        let lease = self.leases.lend();
        let Some(shim) = self.running_shim() else {
            return Ok(Reached { root: None, lease });
        };
        match shim.call(ToShim::OpenRoot, &[], Vec::new()).await {
            Ok((_, mut descriptors)) => Ok(Reached { root: descriptors.pop(), lease }),
            // It has just ended, and the news is on its way.
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotRunning => {
                Ok(Reached { root: None, lease })
            }
            Err(error) => Err(error.into()),
        }
    }
}
