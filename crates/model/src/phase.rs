//! A container's life: one enum, from which the API's booleans are derived.

use api_types::container::ContainerState;
use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::time::{UnixNanos, rfc3339_nano};
use crate::units::human_duration;
use crate::{Kind, Refusal};

/// How a task ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Exit status, or 128 plus the signal.
    pub code: i32,
    pub oom_killed: bool,
    /// Why it could not be started; empty if it ran.
    pub error: String,
    pub started_at: UnixNanos,
    pub finished_at: UnixNanos,
}

// Created -- start --> Running -- exit --> Exited -- start --> Running
// Running -- pause --> Running { frozen } -- unpause --> Running
// any but Running -- remove --> Removing
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Never ran; a failed start leaves its code and error here.
    Created {
        failure: Option<Ending>,
    },
    Running {
        pid: i32,
        started_at: UnixNanos,
        frozen: bool,
    },
    /// Exited, and waits until `until` to be started again by its restart policy.
    Restarting {
        last: Ending,
        until: UnixNanos,
    },
    Exited(Ending),
    Removing {
        last: Ending,
    },
}

impl Phase {
    /// The word that list and inspect show, and that the `status` filter takes.
    pub fn status(&self) -> &'static str {
        match self {
            Phase::Created { .. } => "created",
            Phase::Running { frozen: false, .. } => "running",
            Phase::Running { frozen: true, .. } => "paused",
            Phase::Restarting { .. } => "restarting",
            Phase::Exited(_) => "exited",
            Phase::Removing { .. } => "removing",
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self, Phase::Running { .. })
    }

    pub fn pid(&self) -> Option<i32> {
        match self {
            Phase::Running { pid, .. } => Some(*pid),
            _ => None,
        }
    }

    /// The last ending; all zero if there was none.
    pub fn ending(&self) -> Ending {
        match self {
            Phase::Created { failure } => failure.clone().unwrap_or_default(),
            Phase::Running { started_at, .. } => Ending { started_at: *started_at, ..Ending::default() },
            Phase::Restarting { last, .. } | Phase::Exited(last) | Phase::Removing { last } => last.clone(),
        }
    }

    /// Whether a start may be tried.
    pub fn may_start(&self) -> Result<(), Refusal> {
        match self {
            Phase::Created { .. } | Phase::Exited(_) | Phase::Restarting { .. } => Ok(()),
            Phase::Running { frozen: false, .. } => {
                Err(Refusal::new(Kind::NotModified, "container is already running"))
            }
            Phase::Running { frozen: true, .. } => {
                Err(Refusal::conflict("cannot start a paused container, try unpause instead"))
            }
            Phase::Removing { .. } => {
                Err(Refusal::conflict("container is marked for removal and cannot be started"))
            }
        }
    }

    /// Whether another process may be started in it. `id` names it in the answer.
    pub fn may_exec(&self, id: &str) -> Result<(), Refusal> {
        match self {
            Phase::Running { frozen: false, .. } => Ok(()),
            Phase::Running { frozen: true, .. } => {
                Err(Refusal::conflict(format!("Container {id} is paused, unpause the container before exec")))
            }
            Phase::Restarting { .. } => Err(Refusal::conflict(format!(
                "Container {id} is restarting, wait until the container is running"
            ))),
            Phase::Created { .. } | Phase::Exited(_) | Phase::Removing { .. } => {
                Err(Refusal::conflict(format!("container {id} is not running")))
            }
        }
    }

    /// Whether it may be removed without being killed first. `name` names it in the answer.
    pub fn may_remove(&self, name: &str) -> Result<(), Refusal> {
        let why = match self {
            Phase::Created { .. } | Phase::Exited(_) => return Ok(()),
            Phase::Running { frozen: true, .. } => "container is paused and must be unpaused first",
            Phase::Running { .. } => {
                "container is running: stop the container before removing or force remove"
            }
            Phase::Restarting { .. } => {
                "container is restarting: stop the container before removing or force remove"
            }
            Phase::Removing { .. } => {
                return Err(Refusal::conflict(format!("removal of container {name} is already in progress")));
            }
        };
        Err(Refusal::conflict(format!("cannot remove container \"/{name}\": {why}")))
    }

    /// The `State` member of inspect.
    pub fn state(&self) -> ContainerState {
        let ending = self.ending();
        ContainerState {
            status: self.status().into(),
            running: matches!(self, Phase::Running { .. } | Phase::Restarting { .. }),
            paused: matches!(self, Phase::Running { frozen: true, .. }),
            restarting: matches!(self, Phase::Restarting { .. }),
            oom_killed: ending.oom_killed,
            dead: false,
            pid: self.pid().unwrap_or(0).into(),
            exit_code: ending.code.into(),
            error: ending.error,
            started_at: rfc3339_nano(ending.started_at),
            finished_at: rfc3339_nano(ending.finished_at),
            health: None,
        }
    }

    /// The `Status` words of a list.
    pub fn words(&self, now: UnixNanos, health: Option<&Health>) -> String {
        match self {
            Phase::Created { .. } => "Created".into(),
            Phase::Running { started_at, frozen, .. } => {
                let up = human_duration(now - started_at);
                match (frozen, health) {
                    (true, _) => format!("Up {up} (Paused)"),
                    (false, Some(health)) => format!("Up {up} ({})", health.words()),
                    (false, None) => format!("Up {up}"),
                }
            }
            Phase::Restarting { last, .. } => {
                format!("Restarting ({}) {} ago", last.code, human_duration(now - last.finished_at))
            }
            Phase::Exited(last) => {
                format!("Exited ({}) {} ago", last.code, human_duration(now - last.finished_at))
            }
            Phase::Removing { .. } => "Removal In Progress".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases() -> [Phase; 6] {
        [
            Phase::Created { failure: None },
            Phase::Running { pid: 7, started_at: 1, frozen: false },
            Phase::Running { pid: 7, started_at: 1, frozen: true },
            Phase::Restarting { last: Ending::default(), until: 0 },
            Phase::Exited(Ending::default()),
            Phase::Removing { last: Ending::default() },
        ]
    }

    #[test]
    fn what_each_phase_allows() {
        let table = phases().map(|phase| {
            (
                phase.status(),
                phase.may_start().is_ok(),
                phase.may_exec("c").is_ok(),
                phase.may_remove("c").is_ok(),
            )
        });
        assert_eq!(
            table,
            [
                ("created", true, false, true),
                ("running", false, true, false),
                ("paused", false, false, false),
                ("restarting", true, false, false),
                ("exited", true, false, true),
                ("removing", false, false, false),
            ]
        );
    }

    #[test]
    fn the_booleans_follow_the_phase() {
        let flags = phases().map(|phase| {
            let state = phase.state();
            (state.running, state.paused, state.restarting, state.pid)
        });
        assert_eq!(
            flags,
            [
                (false, false, false, 0),
                (true, false, false, 7),
                (true, true, false, 7),
                (true, false, true, 0),
                (false, false, false, 0),
                (false, false, false, 0),
            ]
        );
    }
}
