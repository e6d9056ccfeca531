//! Networks.

use crate::App;
use crate::request::Request;
use crate::respond::{Outcome, json, no_content};

pub fn list(app: &App, request: &Request) -> Outcome {
    json(&app.engine.network_list(request.query.text("filters"))?)
}

pub fn prune(app: &App, request: &Request) -> Outcome {
    let deleted = app.engine.network_prune(request.query.text("filters"))?;
    json(&serde_json::json!({ "NetworksDeleted": Some(deleted).filter(|deleted| !deleted.is_empty()) }))
}

pub fn inspect(app: &App, name: &str) -> Outcome {
    json(&app.engine.network_inspect(name)?)
}

pub fn remove(app: &App, name: &str) -> Outcome {
    app.engine.network_remove(name)?;
    no_content()
}
