//! Networks.

use crate::App;
use crate::request::Request;
use crate::respond::{Outcome, json, no_content};

pub fn list(app: &App, request: &Request) -> Outcome {
    json(&app.engine.network_list(request.query.text("filters"))?)
}

pub fn inspect(app: &App, name: &str) -> Outcome {
    json(&app.engine.network_inspect(name)?)
}

pub fn remove(app: &App, name: &str) -> Outcome {
    app.engine.network_remove(name)?;
    no_content()
}
