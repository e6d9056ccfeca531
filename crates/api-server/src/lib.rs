//! The Engine API over HTTP: routes, streams and hijacking, version shims, error to status.
//!
//! A request's way: [`connection`] reads it, [`route`] splits path and version and picks a handler, the handler
//! parses once and calls a use case, [`respond`] makes the answer. Differences between versions of the API are
//! applied to finished answers, in [`versions`] alone.

mod authorization;
mod connection;
mod handlers;
mod handover;
mod hijack;
mod metrics;
mod query;
mod request;
mod respond;
mod route;
mod stream;
mod versions;
mod websocket;

use std::sync::Arc;

use build::{Builder, Executor};
use engine::Engine;
use transfer::Transfers;

pub use authorization::{Authorization, find as find_plugin};
pub use connection::{Listener, serve};
pub use handlers::build::BuildSetting;
pub use handlers::images::timestamp;
pub use metrics::serve as serve_metrics;
pub use versions::Version;

/// What the daemon says of itself.
#[derive(Debug, Clone)]
pub struct About {
    pub version: String,
    pub commit: String,
    /// RFC 3339.
    pub built: String,
    pub min_version: Version,
}

/// Everything that handlers need; clones share it.
#[derive(Clone)]
pub struct App {
    pub engine: Engine,
    pub builder: Arc<Builder>,
    /// Makes what runs the commands of a build, in containers of this kind.
    pub executor: Arc<dyn Fn(BuildSetting) -> Box<dyn Executor> + Send + Sync>,
    pub about: Arc<About>,
    pub transfers: Transfers,
    /// Where images are searched for.
    pub search_index: Arc<str>,
    pub authorization: Arc<Authorization>,
}
