//! Restart policies: back-off and counts, what may be done to a container that waits for its next start, and what comes
//! back with the daemon and with the machine.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::time::Instant;

use serde_json::json;
use testkit::Bed;
use testkit::process::eventually;
use tests::{each_client, has};

fn status(bed: &Bed, name: &str) -> String {
    bed.inspect(name)["State"]["Status"].as_str().unwrap_or_default().to_owned()
}

fn restarts(bed: &Bed, name: &str) -> i64 {
    bed.inspect(name)["RestartCount"].as_i64().expect("a number")
}

/// A container that ends at once and is started again after ever longer waits; comes back when it waits long enough to
/// be acted upon.
/// Starts containers that end at once, and waits until each of them waits for more than six seconds.
fn waiting(bed: &Bed, names: &[&str]) {
    for name in names {
        bed.run(&["run", "-d", "--name", name, "--restart", "always", "busybox", "sh", "-c", "exit 7"]).ok();
    }
    for name in names {
        eventually("it waits for long", || restarts(bed, name) >= 6 && status(bed, name) == "restarting");
    }
}

#[test]
fn on_failure_gives_up_after_so_many() {
    let bed = Bed::new();
    let began = Instant::now();
    bed.run(&[
        "run",
        "-d",
        "--name",
        "bad",
        "--restart",
        "on-failure:3",
        "busybox",
        "sh",
        "-c",
        "echo x; exit 4",
    ])
    .ok();
    // Whoever waits hears of the first end.
    eventually("it has given up", || status(&bed, "bad") == "exited" && restarts(&bed, "bad") == 3);
    // 100, 200 and 400 ms.
    assert!(began.elapsed().as_millis() >= 700);
    assert_eq!(bed.run(&["logs", "bad"]).stdout, "x\nx\nx\nx\n");
    assert_eq!(bed.inspect("bad")["State"]["ExitCode"], json!(4));
    bed.run(&["run", "-d", "--name", "good", "--restart", "on-failure", "busybox", "true"]).ok();
    assert_eq!(bed.run(&["wait", "good"]).ok(), "0");
    assert_eq!(restarts(&bed, "good"), 0);
    // A person's start counts anew.
    bed.run(&["start", "bad"]).ok();
    eventually("it has given up again", || status(&bed, "bad") == "exited" && restarts(&bed, "bad") == 3);
    assert_eq!(bed.run(&["logs", "bad"]).stdout.lines().count(), 8);
}

#[test]
fn an_end_is_an_end_for_those_who_wait() {
    let bed = Bed::new();
    each_client(&bed, |client, name| {
        bed.cli(
            client,
            &["run", "-d", "--name", name, "--restart", "always", "busybox", "sh", "-c", "sleep 0.3; exit 3"],
        )
        .ok();
        assert_eq!(bed.cli(client, &["wait", name]).ok(), "3");
        let attached = bed.cli(client, &["attach", "--no-stdin", name]);
        assert!(matches!(attached.code, 1 | 3), "{attached:?}");
    });
}

#[test]
fn what_may_be_done_while_it_waits() {
    let bed = Bed::new();
    waiting(&bed, &["stopped", "killed", "removed", "restarted"]);
    let found = &bed.inspect("stopped")["State"];
    assert_eq!(
        (&found["Running"], &found["Restarting"], &found["Pid"], &found["ExitCode"]),
        (&json!(true), &json!(true), &json!(0), &json!(7))
    );
    has(bed.run(&["ps"]).ok(), &["Restarting (7)"]);
    let mut http = bed.http();
    has(
        &http.delete("/containers/removed").refused(409),
        &[
            "cannot remove container \"/removed\": container is restarting: stop the container before removing or force remove",
        ],
    );
    has(
        &http.act("/containers/stopped/pause").refused(409),
        &["is restarting, wait until the container is running"],
    );
    let exec = http.post("/containers/stopped/exec", &json!({ "Cmd": ["true"] }));
    has(&exec.refused(409), &["is restarting, wait until the container is running"]);
    http.act("/containers/stopped/stop").expect(204);
    assert_eq!(status(&bed, "stopped"), "exited");
    http.act("/containers/stopped/stop").expect(304);
    http.act("/containers/killed/kill").expect(204);
    assert_eq!(status(&bed, "killed"), "exited");
    http.act("/containers/restarted/restart?t=0").expect(204);
    eventually("it counts anew", || (0..5).contains(&restarts(&bed, "restarted")));
    bed.run(&["rm", "-f", "removed", "restarted"]).ok();
    let count = restarts(&bed, "stopped");
    eventually("the others are gone", || bed.run(&["ps", "-aq"]).ok().lines().count() == 2);
    assert_eq!((status(&bed, "stopped").as_str(), restarts(&bed, "stopped")), ("exited", count));
}

#[test]
fn a_daemon_s_start_counts_as_a_person_s() {
    let mut bed = Bed::new();
    waiting(&bed, &["waits"]);
    bed.run(&[
        "run",
        "-d",
        "--name",
        "fails",
        "--restart",
        "on-failure",
        "busybox",
        "sh",
        "-c",
        "sleep 1000",
    ])
    .ok();
    bed.run(&["run", "-d", "--name", "by-hand", "--restart", "on-failure", "busybox", "sleep", "1000"]).ok();
    bed.run(&["kill", "by-hand"]).ok();
    bed.kill();
    for (pid, line) in bed.host().processes() {
        if line.contains("sleep 1000") {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    bed.start();
    eventually("what failed unseen is back", || status(&bed, "fails") == "running");
    assert_eq!(restarts(&bed, "fails"), 0);
    eventually("what waited was started at once", || (0..5).contains(&restarts(&bed, "waits")));
    assert_eq!(status(&bed, "by-hand"), "exited");
    bed.run(&["rm", "-f", "waits"]).ok();
}

#[test]
fn all_come_back_after_a_reboot_each_after_those_it_needs() {
    let mut bed = Bed::new();
    bed.run(&[
        "run",
        "-d",
        "--name",
        "base",
        "--restart",
        "always",
        "--ipc",
        "shareable",
        "-p",
        "8080:80",
        "busybox",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/www",
    ])
    .ok();
    for number in 0..8 {
        let name = format!("on{number}");
        let join = ["--network=container:base", "--pid=container:base", "--ipc=container:base"];
        bed.run(
            &[
                &["run", "-d", "--name", &name, "--restart", "unless-stopped"][..],
                &join,
                &["busybox", "sleep", "1000"],
            ]
            .concat(),
        )
        .ok();
    }
    bed.stop();
    // A machine that goes down takes the processes and what is in memory with it.
    for (pid, line) in bed.host().processes() {
        if line.contains("httpd") || line.contains("sleep 1000") || line.contains("corten-shim") {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    eventually("all are dead", || {
        bed.host().processes().iter().all(|(_, line)| !line.contains("sleep 1000"))
    });
    std::fs::remove_dir_all(bed.host().folder().join("exec")).expect("the run root goes");
    bed.start();
    eventually("all are back", || {
        bed.run(&["ps", "-q", "--filter", "status=running"]).ok().lines().count() == 9
    });
    let page = bed.host().shell("busybox timeout 5 busybox wget -qO- http://127.0.0.1:8080/").stdout;
    assert_eq!(page, "hello from busybox\n");
    assert_eq!(
        bed.run(&["exec", "on3", "busybox", "wget", "-qO-", "http://127.0.0.1/"]).ok(),
        "hello from busybox"
    );
}
