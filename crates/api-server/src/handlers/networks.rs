//! Networks.

use crate::App;
use crate::request::Request;
use crate::respond::{Outcome, json, no_content};

pub fn list(app: &App, request: &Request) -> Outcome {
    json(&app.engine.networks().list(request.query.text("filters"))?)
}

pub fn prune(app: &App, request: &Request) -> Outcome {
    let deleted = app.engine.networks().prune(request.query.text("filters"))?;
    json(&serde_json::json!({ "NetworksDeleted": Some(deleted).filter(|deleted| !deleted.is_empty()) }))
}

pub fn inspect(app: &App, name: &str) -> Outcome {
    json(&app.engine.networks().inspect(name)?)
}

pub fn remove(app: &App, name: &str) -> Outcome {
    app.engine.networks().remove(name)?;
    no_content()
}
