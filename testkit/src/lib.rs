//! What tests and measurements stand on.
//!
//! - [`Host`]: a private host: network, mount, host name and process namespaces of its own. What runs in it
//!   dies with it, so that a failed test leaves nothing on the machine.
//! - [`Bed`]: a private host with one daemon in it; clients run against its socket.
//! - [`http`]: a small HTTP client over a Unix socket, with streams and hijacked connections.
//! - [`image`]: images made from the machine's own busybox, without a network.
//! - [`registry`]: a registry that answers as a test wants.
//! - [`leaks`]: what is left of a container when nothing should be.
//!
//! Nothing here links against the engine: tests see what a user sees.
#![allow(clippy::disallowed_methods)] // Starting programs is what this crate is for.

pub mod bed;
pub mod engine;
pub mod host;
pub mod http;
pub mod image;
pub mod leaks;
pub mod process;
pub mod registry;

pub use bed::{Bed, BedOptions, Client};
pub use engine::Engine;
pub use host::Host;
pub use http::{Http, Response};
pub use process::{Deadline, Ran, run};
