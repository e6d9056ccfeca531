//! An OCI runtime spec to an isolated process.
//!
//! It knows the kernel and the OCI runtime spec; it knows no daemon, image or network. Callers are single-threaded.
//!
//! [`create`] clones a container's first process, which builds its own surroundings (see the module `first`);
//! [`Created::start`] lets it run its program. [`exec`] adds a process to a running container.

pub mod cgroup;
mod copy_up;
mod devices;
mod error;
mod exec;
mod first;
pub mod hooks;
mod launch;
mod namespaces;
mod options;
mod plan;
mod process;
mod report;
mod rootfs;
mod sources;
mod sysctl;
pub mod users;

pub use cgroup::Cgroup;
pub use error::Error;
pub use exec::exec;
pub use launch::create;
pub use plan::{Created, ExecPlan, Executed, Gate, Init, Plan, RootfsSource, Running, Stdio};
pub use sources::{borrow_mount, mount_root};
