//! Health checks: what they say, when they are made, and that they outlive the daemon.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::{Value, json};
use testkit::http::Stream;
use testkit::process::eventually;
use testkit::{Bed, BedOptions, Engine, Response, image};
use tests::{each_client, has};

/// A probe that succeeds while this file is there.
const PROBE: &str = "--health-cmd=test -e /ok && echo fine";

fn health(bed: &Bed, name: &str) -> Value {
    bed.inspect(name)["State"]["Health"].clone()
}

fn status(bed: &Bed, name: &str) -> String {
    health(bed, name)["Status"].as_str().unwrap_or_default().to_owned()
}

/// Asks by a version of the API.
fn ask(bed: &Bed, version: &str, method: &str, path: &str, body: &Value) -> Response {
    let path = format!("/v{version}{path}");
    let body = body.to_string();
    bed.http()
        .exchange(method, &path, "Content-Type: application/json\r\n", body.as_bytes())
        .expect("an answer")
}

/// Events of the container `web` until one begins so; each as its action, without an exec's ID.
fn until(stream: &mut Stream, start: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let event = stream.json();
        let action = event["Action"].as_str().unwrap_or_default().to_owned();
        if event["Actor"]["Attributes"]["name"] == json!("web") {
            seen.push(action.clone());
        }
        if action.starts_with(start) {
            return seen;
        }
    }
}

#[test]
fn it_follows_the_probes() {
    let bed = Bed::new();
    let mut events = bed.http().stream("GET", "/events").expect("events");
    let every = ["--health-interval=100ms", "--health-retries=2", "--health-timeout=20s"];
    bed.run(&[&["run", "-d", "--name", "web", PROBE][..], &every, &["busybox", "sleep", "1000"]].concat())
        .ok();
    let seen = until(&mut events, "health_status");
    assert_eq!(
        seen,
        [
            "create",
            "start",
            "exec_create: /bin/sh -c test -e /ok && echo fine",
            "exec_start: /bin/sh -c test -e /ok && echo fine",
            "exec_die",
            "exec_create: /bin/sh -c test -e /ok && echo fine",
            "exec_start: /bin/sh -c test -e /ok && echo fine",
            "exec_die",
            "health_status: unhealthy"
        ]
    );
    let found = health(&bed, "web");
    assert!(found["FailingStreak"].as_i64().is_some_and(|streak| streak >= 2), "{found}");
    assert_eq!(found["Log"][0]["ExitCode"], json!(1));
    bed.run(&["exec", "web", "touch", "/ok"]).ok();
    until(&mut events, "health_status: healthy");
    eventually("five results are kept, of success", || {
        let found = health(&bed, "web");
        found["Log"].as_array().is_some_and(|log| {
            log.len() == 5
                && log.iter().all(|one| (&one["ExitCode"], &one["Output"]) == (&json!(0), &json!("fine\n")))
        })
    });
    assert_eq!(health(&bed, "web")["FailingStreak"], json!(0));
    each_client(&bed, |client, _| {
        let shown =
            bed.cli(client, &["ps", "--filter", "health=healthy", "--format", "{{.Names}} {{.Status}}"]);
        has(shown.ok(), &["web Up", "(healthy)"]);
        assert_eq!(bed.cli(client, &["ps", "-q", "--filter", "health=none"]).ok(), "");
    });
    let list = |version| ask(&bed, version, "GET", "/containers/json", &Value::Null).expect(200).json();
    assert_eq!(list("1.52")[0]["Health"], json!({ "Status": "healthy", "FailingStreak": 0 }));
    assert_eq!(list("1.51")[0]["Health"], Value::Null);
    // Nobody looks while it is paused; that counts as unhealthy, and needs a success to change.
    bed.run(&["pause", "web"]).ok();
    assert_eq!(status(&bed, "web"), "unhealthy");
    bed.run(&["unpause", "web"]).ok();
    eventually("it is healthy again", || status(&bed, "web") == "healthy");
    bed.run(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(status(&bed, "web"), "unhealthy");
    bed.run(&["start", "web"]).ok();
    eventually("it starts over", || status(&bed, "web") == "healthy");
}

/// As from Docker: a first process that gets a killed child of another for its own may take it for a crash.
#[test]
fn what_a_slow_probe_has_started_lives_on() {
    let bed = Bed::new();
    let probe = "(sleep 1; touch /lived) & wait";
    let flags = ["--health-cmd", probe, "--health-interval=50ms", "--health-timeout=300ms"];
    bed.run(&[&["run", "-d", "--name", "web"], &flags[..], &["busybox", "sleep", "999"]].concat()).ok();
    eventually("a probe was too slow", || health(&bed, "web")["Log"][0]["ExitCode"] == json!(-1));
    eventually("its child went on", || bed.run(&["exec", "web", "test", "-e", "/lived"]).code == 0);
}

#[test]
fn a_probe_is_bounded_in_time_and_output() {
    let bed = Bed::new();
    let slow = "echo so far; sleep 1000";
    bed.run(&[
        "run",
        "-d",
        "--name",
        "slow",
        "--health-cmd",
        slow,
        "--health-interval=50ms",
        "--health-timeout=300ms",
        "--health-retries=1",
        "busybox",
        "sleep",
        "999",
    ])
    .ok();
    let loud = "yes | head -c 100000; exit 3";
    bed.run(&[
        "run",
        "-d",
        "--name",
        "loud",
        "--health-cmd",
        loud,
        "--health-interval=50ms",
        "busybox",
        "sleep",
        "999",
    ])
    .ok();
    bed.run(&["run", "-d", "--name", "missing", "--health-interval=50ms", "busybox", "sleep", "999"]).ok();
    let body = json!({ "Image": "busybox", "Cmd": ["sleep", "999"],
        "Healthcheck": { "Test": ["CMD", "no-such-program"], "Interval": 50_000_000 } });
    bed.http().post("/containers/create?name=odd", &body).expect(201);
    bed.http().act("/containers/odd/start").expect(204);
    eventually("the slow one is unhealthy", || status(&bed, "slow") == "unhealthy");
    let result = &health(&bed, "slow")["Log"][0];
    assert_eq!(
        (&result["ExitCode"], &result["Output"]),
        (&json!(-1), &json!("Health check exceeded timeout (300ms): so far\n"))
    );
    let sleepers = || bed.host().processes().iter().filter(|(_, line)| line.contains("sleep 1000")).count();
    eventually("what hung does not pile up", || sleepers() <= 1);
    eventually("the loud one has said something", || health(&bed, "loud")["Log"][0]["ExitCode"] == json!(3));
    let said = health(&bed, "loud")["Log"][0]["Output"].as_str().expect("text").to_owned();
    assert_eq!((said.len(), &said[4090..]), (4099, "y\ny\ny\n..."));
    eventually("the odd one failed", || health(&bed, "odd")["Log"][0]["ExitCode"] == json!(-1));
    has(
        health(&bed, "odd")["Log"][0]["Output"].as_str().expect("text"),
        &["executable file not found in $PATH"],
    );
    // Times alone check nothing.
    assert_eq!(health(&bed, "missing"), Value::Null);
}

#[test]
fn an_image_s_check_is_used_changed_and_turned_off() {
    let bed = Bed::empty();
    let check = json!({ "Test": ["CMD", "true"], "Interval": 60_000_000_000_i64, "Retries": 7 });
    bed.load(&image::busybox().with("Healthcheck", check));
    bed.run(&["run", "-d", "--name", "plain", "busybox", "sleep", "1000"]).ok();
    bed.run(&["run", "-d", "--name", "fast", "--health-interval=50ms", "busybox", "sleep", "1000"]).ok();
    bed.run(&["run", "-d", "--name", "off", "--no-healthcheck", "busybox", "sleep", "1000"]).ok();
    assert_eq!(status(&bed, "plain"), "starting");
    has(bed.run(&["ps"]).ok(), &["(health: starting)"]);
    eventually("the changed one is made", || status(&bed, "fast") == "healthy");
    let config = &bed.inspect("fast")["Config"]["Healthcheck"];
    assert_eq!((&config["Test"], &config["Retries"]), (&json!(["CMD", "true"]), &json!(7)));
    assert_eq!(health(&bed, "off"), Value::Null);
    assert_eq!(bed.run(&["ps", "-q", "--filter", "health=none"]).ok().lines().count(), 1);
}

#[test]
fn the_start_period_forgives() {
    let bed = Bed::new();
    let body = json!({ "Image": "busybox", "Cmd": ["sleep", "1000"], "Healthcheck": {
        "Test": ["CMD-SHELL", "test -e /ok"], "Interval": 3_600_000_000_000_i64, "StartPeriod": 3_600_000_000_000_i64,
        "StartInterval": 50_000_000, "Retries": 1 } });
    ask(&bed, "1.44", "POST", "/containers/create?name=web", &body).expect(201);
    bed.http().act("/containers/web/start").expect(204);
    eventually("it has failed often", || {
        health(&bed, "web")["Log"].as_array().is_some_and(|log| log.len() == 5)
    });
    assert_eq!(
        (&health(&bed, "web")["Status"], &health(&bed, "web")["FailingStreak"]),
        (&json!("starting"), &json!(0))
    );
    bed.run(&["exec", "web", "touch", "/ok"]).ok();
    eventually("one success is enough", || status(&bed, "web") == "healthy");
    // Before 1.44 there was no start interval to ask for.
    ask(&bed, "1.43", "POST", "/containers/create?name=old", &body).expect(201);
    assert_eq!(bed.inspect("old")["Config"]["Healthcheck"]["StartInterval"], Value::Null);
}

#[test]
fn the_next_daemon_goes_on() {
    let engine = Engine::from_environment();
    let flags = if engine == Engine::Docker { vec!["--live-restore".to_owned()] } else { Vec::new() };
    let mut bed = Bed::with(BedOptions { engine, flags, ..BedOptions::default() });
    bed.load(&image::busybox());
    let often = ["--health-interval=100ms", "--health-retries=1"];
    bed.run(&[&["run", "-d", "--name", "web", PROBE][..], &often, &["busybox", "sleep", "1000"]].concat())
        .ok();
    eventually("it is unhealthy", || status(&bed, "web") == "unhealthy");
    bed.kill();
    bed.start();
    // Known at once, not found out anew.
    assert_eq!(status(&bed, "web"), "unhealthy");
    bed.run(&["exec", "web", "touch", "/ok"]).ok();
    eventually("it is looked at again", || status(&bed, "web") == "healthy");
    bed.run(&["stop", "-t", "0", "web"]).ok();
    bed.kill();
    bed.start();
    assert_eq!(status(&bed, "web"), "unhealthy");
}
