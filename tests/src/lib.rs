//! End to end: what a user can do, one file of tests for each thing, against the built programs.
//!
//! Each test has a private host and a daemon of its own ([`testkit::Bed`]) and fails also when something is left
//! behind. They need root and `dist/` (`make build`). `CORTEN_TEST_ENGINE=docker` runs them against Debian's
//! `docker.io` instead (after `packaging/fetch-peers target/peers`), to see whether they expect what Docker does.
//! `CORTEN_TEST_SLOW=6` makes every wait six times as long, for an emulated host.

use testkit::{Bed, Client, Engine};

/// Whether the tests run against Corten (and not against a peer that they are checked with).
pub fn is_corten(bed: &Bed) -> bool {
    bed.engine() == Engine::Corten
}

/// The same, before there is a bed.
pub fn is_peer() -> bool {
    Engine::from_environment() != Engine::Corten
}

/// Does the same with every client that is here; `name` differs between them, for containers' names.
pub fn each_client(bed: &Bed, mut check: impl FnMut(Client, &str)) {
    for client in bed.clients() {
        check(client, if client == Client::Own { "own" } else { "docker" });
    }
}

/// Asserts that a text has all the parts.
///
/// # Panics
/// When one is missing; the whole text is shown.
#[track_caller]
pub fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// Packs bytes as layers are packed.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

/// The text between two marks, or all that follows the first.
///
/// # Panics
/// When the first is missing.
#[track_caller]
pub fn after<'text>(text: &'text str, mark: &str) -> &'text str {
    text.split_once(mark).unwrap_or_else(|| panic!("{mark:?} is not in:\n{text}")).1
}

/// Whether an endpoint is one that the daemon says it does not have yet. A test that needs it has nothing to test
/// then (a container named `probe` is there for the question); `docs/parity.md` counts such endpoints, and its own test holds that page to what the daemon says.
pub fn not_yet(bed: &Bed, method: &str, path: &str) -> bool {
    let probe = serde_json::json!({ "Image": "busybox", "Cmd": ["true"] });
    bed.http().post("/containers/create?name=probe", &probe);
    let answer = bed.http().ask(method, path, Some(&serde_json::json!({})));
    bed.http().delete("/containers/probe?force=1");
    let missing = answer.is_ok_and(|answer| answer.status == 501);
    if missing {
        println!("not yet: {method} {path}");
    }
    missing
}
