//! Volumes: there are none yet, and that is what the lists say.

use api_types::volume::VolumeList;
use model::Refusal;

use crate::respond::{Outcome, json};

pub fn list() -> Outcome {
    json(&VolumeList::default())
}

pub fn inspect(name: &str) -> Outcome {
    Err(Refusal::not_found(format!("get {name}: no such volume")))
}
