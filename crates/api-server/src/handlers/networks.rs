//! Networks.

use serde_json::Value;

use crate::App;
use crate::request::Request;
use crate::respond::{Outcome, json, no_content};
use crate::versions;

pub fn list(app: &App, request: &Request) -> Outcome {
    let networks = app.engine.network_list(request.query.text("filters"))?;
    let answers: Vec<Value> = networks.iter().map(versions::network_list).collect();
    json(&answers)
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
