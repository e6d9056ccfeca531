//! Each step of create and start is broken in turn: what was done before it is undone, the error names the step, and
//! the next try works.
//!
//! The daemon reads `CORTEN_FAILPOINTS=STEP=error` at its start.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::json;
use testkit::{Bed, BedOptions, Engine, image};
use tests::has;

/// A daemon that fails at the step, with an image.
fn failing_at(step: &str) -> Option<Bed> {
    if Engine::from_environment() != Engine::Corten {
        return None;
    }
    let environment = vec![("CORTEN_FAILPOINTS".to_owned(), format!("{step}=error"))];
    let bed = Bed::with(BedOptions { environment, ..BedOptions::default() });
    bed.load(&image::busybox());
    Some(bed)
}

fn mend(bed: &mut Bed) {
    bed.stop();
    bed.set_environment("CORTEN_FAILPOINTS", None);
    bed.start();
}

/// A create that fails leaves no container, and its name is free.
fn create_fails_at(step: &str) {
    let Some(mut bed) = failing_at(step) else { return };
    let body = json!({ "Image": "busybox", "Cmd": ["true"] });
    let text = bed.http().post("/containers/create?name=web", &body).refused(500);
    has(&text, &[step]);
    assert_eq!(bed.http().get("/containers/json?all=1").json(), json!([]));
    assert_eq!(bed.leaks(), Vec::<String>::new());
    mend(&mut bed);
    assert_eq!(bed.run(&["run", "--name", "web", "busybox", "echo", "well"]).ok(), "well");
}

/// A start that fails leaves a created container and nothing of the start, and the next start works.
fn start_fails_at(step: &str) {
    let Some(mut bed) = failing_at(step) else { return };
    let body = json!({
        "Image": "busybox",
        "Cmd": ["httpd", "-f", "-p", "80", "-h", "/www"],
        "HostConfig": { "PortBindings": { "80/tcp": [{ "HostPort": "8080" }] } },
    });
    let mut http = bed.http();
    let id = http.post("/containers/create?name=web", &body).expect(201).json()["Id"]
        .as_str()
        .expect("id")
        .to_owned();
    // What a created container itself keeps is no leak: it is measured against. Its own files (`hosts`, the log)
    // may stay as well.
    let own = format!("data/containers/{id}");
    let before = testkit::leaks::Snapshot::of(bed.host());
    for _ in 0..2 {
        let text = http.act("/containers/web/start").refused(500);
        has(&text, &[step]);
        let found = bed.inspect("web");
        assert_eq!((&found["State"]["Running"], &found["State"]["Pid"]), (&json!(false), &json!(0)));
        let left = || {
            let now = testkit::leaks::Snapshot::of(bed.host()).beyond(&before);
            now.into_iter().filter(|line| !line.contains(&own)).collect::<Vec<_>>()
        };
        let clean = testkit::Deadline::after(std::time::Duration::from_secs(10))
            .poll(|| left().is_empty().then_some(()));
        assert!(clean.is_some(), "left behind by a start that failed at {step}: {:#?}", left());
    }
    mend(&mut bed);
    bed.run(&["start", "web"]).ok();
    testkit::process::eventually("it serves", || {
        bed.host()
            .shell("busybox timeout 5 busybox wget -qO- http://127.0.0.1:8080/")
            .stdout
            .contains("hello")
    });
}

#[test]
fn create_record() {
    create_fails_at("create.record");
}

#[test]
fn create_rootfs() {
    create_fails_at("create.rootfs");
}

#[test]
fn start_shim() {
    start_fails_at("start.shim");
}

#[test]
fn start_create() {
    start_fails_at("start.create");
}

#[test]
fn start_network() {
    start_fails_at("start.network");
}

#[test]
fn start_ports() {
    start_fails_at("start.ports");
}

#[test]
fn start_go() {
    start_fails_at("start.go");
}
