//! The crates depend on each other in one direction only.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// The layers from the lowest up. A crate may use crates of lower layers, and of its own layer where the layer says
/// so; nothing else of the workspace.
const LAYERS: [(&str, bool, &[&str]); 7] = [
    (
        "pure",
        true,
        &[
            "calendar",
            "oci",
            "api-types",
            "model",
            "seccomp",
            "dockerfile",
            "template",
            "shim-protocol",
            "cdi",
        ],
    ),
    ("kernel", true, &["sys", "sandbox"]),
    ("shared by parts", false, &["tls"]),
    (
        "parts",
        false,
        &["content", "snapshots", "archive", "metadata", "network", "logs", "registry", "volumes"],
    ),
    ("use cases", true, &["engine", "images", "build", "transfer"]),
    ("edges", false, &["api-server", "api-client"]),
    ("programs", false, &["corten", "cortend", "corten-shim", "corten-oci"]),
];

/// Not a part of what is shipped: held to no layer, and used by no layer.
const OUTSIDE: [&str; 4] = ["testkit", "tests", "bench", "hello"];

/// What the pure crates may not reach for: clocks, randomness, I/O and async live above them.
const IMPURE: [&str; 8] = ["tokio", "rustix", "libc", "hyper", "tracing", "rand", "getrandom", "tempfile"];

/// Every crate of the workspace with its dependencies (of the programs, not of their tests).
fn workspace() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let used = package["dependencies"].as_array().expect("dependencies").iter();
            let used = used.filter(|dependency| dependency["kind"].as_str() != Some("dev"));
            (text(&package["name"]), used.map(|dependency| text(&dependency["name"])).collect())
        })
        .collect()
}

fn layer_of(name: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, _, crates)| crates.contains(&name))
}

#[test]
fn every_crate_has_its_layer() {
    let strangers: Vec<_> = workspace()
        .into_keys()
        .filter(|name| layer_of(name).is_none() && !OUTSIDE.contains(&name.as_str()))
        .collect();
    assert!(strangers.is_empty(), "crates without a layer: {strangers:?}");
}

#[test]
fn arrows_point_down() {
    let crates = workspace();
    let mut wrong = Vec::new();
    for (name, used) in &crates {
        let Some(layer) = layer_of(name) else { continue };
        for other in used.iter().filter(|other| crates.contains_key(*other)) {
            let allowed = match layer_of(other) {
                None => false,
                Some(theirs) if theirs == layer => LAYERS[layer].1,
                Some(theirs) => theirs < layer,
            };
            if !allowed {
                wrong.push(format!("{name} ({}) uses {other}", LAYERS[layer].0));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_crates_do_no_io() {
    let crates = workspace();
    let wrong: Vec<_> = LAYERS[0]
        .2
        .iter()
        .flat_map(|name| crates.get(*name).into_iter().flatten().map(move |used| (name, used)))
        .filter(|(_, used)| IMPURE.contains(&used.as_str()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_client_knows_nothing_of_the_daemon() {
    let crates = workspace();
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut todo = vec!["corten"];
    while let Some(name) = todo.pop() {
        if let Some(used) = crates.get(name)
            && reached.insert(name)
        {
            todo.extend(used.iter().map(String::as_str));
        }
    }
    for daemon in
        ["engine", "images", "build", "transfer", "network", "metadata", "snapshots", "sandbox", "api-server"]
    {
        assert!(!reached.contains(daemon), "corten reaches {daemon}");
    }
}
