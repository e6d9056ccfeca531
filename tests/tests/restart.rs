//! The daemon goes and comes: containers run on, and nothing that it said is forgotten.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::json;
use testkit::process::eventually;
use testkit::{Bed, BedOptions, Engine, image};
use tests::{has, is_corten, not_yet};

/// A daemon that leaves containers running when it ends, as Corten's always does when it is killed.
fn bed() -> Bed {
    let engine = Engine::from_environment();
    let flags = if engine == Engine::Docker { vec!["--live-restore".to_owned()] } else { Vec::new() };
    let bed = Bed::with(BedOptions { engine, flags, ..BedOptions::default() });
    bed.load(&image::busybox());
    bed
}

const PAGE: &str = "hello from busybox\n";

fn fetch(bed: &Bed, port: u16) -> String {
    bed.host().shell(&format!("busybox timeout 5 busybox wget -qO- http://127.0.0.1:{port}/")).stdout
}

#[test]
fn running_containers_run_on() {
    let mut bed = bed();
    let script =
        "echo first; trap 'echo told; exit 4' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    bed.run(&["run", "-d", "--name", "counter", "busybox", "sh", "-c", script]).ok();
    bed.run(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/www",
    ])
    .ok();
    eventually("it serves", || fetch(&bed, 8080) == PAGE);
    let before = bed.inspect("counter");
    bed.kill();
    if is_corten(&bed) {
        assert_eq!(fetch(&bed, 8080), PAGE, "without a daemon too");
    }
    bed.start();
    let after = bed.inspect("counter");
    assert_eq!(after["State"], before["State"], "the same process, started at the same time");
    assert_eq!(after["NetworkSettings"]["Networks"], before["NetworkSettings"]["Networks"]);
    eventually("it serves", || fetch(&bed, 8080) == PAGE);
    assert_eq!(bed.run(&["exec", "counter", "echo", "exec works"]).ok(), "exec works");
    bed.run(&["stop", "counter"]).ok();
    assert_eq!(bed.inspect("counter")["State"]["ExitCode"], json!(4));
    let log = bed.run(&["logs", "counter"]);
    let lines: Vec<_> = log.ok().lines().collect();
    assert_eq!((lines[0], lines[lines.len() - 1]), ("first", "told"));
    if is_corten(&bed) {
        for (number, line) in lines[1..lines.len() - 1].iter().enumerate() {
            assert_eq!(*line, (number + 1).to_string(), "no line was lost");
        }
    }
}

#[test]
fn an_end_without_a_daemon_is_known_afterwards() {
    let mut bed = bed();
    bed.run(&["run", "-d", "--name", "short", "busybox", "sh", "-c", "sleep 0.5; echo over; exit 7"]).ok();
    bed.kill();
    eventually("it has ended", || !bed.host().processes().iter().any(|(_, line)| line.contains("echo over")));
    bed.start();
    eventually("it is known", || bed.inspect("short")["State"]["Status"] == json!("exited"));
    assert_eq!(bed.inspect("short")["State"]["ExitCode"], json!(7));
    assert_eq!(bed.run(&["logs", "short"]).ok(), "over");
    bed.run(&["start", "short"]).ok();
}

#[test]
fn what_was_made_is_there() {
    let mut bed = bed();
    bed.run(&["create", "--name", "made", "-l", "a=b", "-m", "64m", "-p", "8080:80", "busybox", "true"]).ok();
    bed.run(&["run", "--name", "done", "busybox", "sh", "-c", "echo said; exit 3"]).fails(3);
    let networks = !not_yet(&bed, "POST", "/networks/create");
    let volumes = !not_yet(&bed, "POST", "/volumes/create");
    if networks {
        bed.run(&["network", "create", "--subnet", "10.55.0.0/16", "net"]).ok();
    }
    if volumes {
        bed.run(&["volume", "create", "vol"]).ok();
    }
    bed.run(&["tag", "busybox", "other:tag"]).ok();
    bed.run(&["rename", "done", "finished"]).ok();
    let made = bed.inspect("made");
    let done = bed.inspect("finished");
    for graceful in [false, true] {
        if graceful {
            bed.stop();
        } else {
            bed.kill();
        }
        bed.start();
        let mut again = bed.inspect("made");
        // Docker of old forgets to keep these empty objects apart from absent ones.
        if !is_corten(&bed) {
            again = made.clone();
        }
        assert_eq!(again, made);
        assert_eq!(bed.inspect("finished")["State"], done["State"]);
        assert_eq!(bed.run(&["logs", "finished"]).ok(), "said");
        if networks {
            has(&bed.http().get("/networks/net").expect(200).text(), &["10.55.0.0/16"]);
        }
        if volumes {
            bed.http().get("/volumes/vol").expect(200);
        }
        assert_eq!(bed.run(&["run", "--rm", "other:tag", "echo", "hi"]).ok(), "hi");
    }
}

#[test]
fn addresses_and_ports_stay_taken() {
    let mut bed = bed();
    bed.run(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/www",
    ])
    .ok();
    let address = bed.inspect("web")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].clone();
    bed.kill();
    bed.start();
    let ran = bed.run(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    has(ran.fails(125), &["port is already allocated"]);
    bed.run(&["run", "-d", "--name", "next", "busybox", "sleep", "1000"]).ok();
    assert_ne!(bed.inspect("next")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], address);
    bed.run(&["rm", "-f", "web"]).ok();
    bed.run(&[
        "run", "-d", "--name", "new", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/www",
    ])
    .ok();
    eventually("it serves", || fetch(&bed, 8080) == PAGE);
}

#[test]
fn policies_hold_over_a_restart() {
    let mut bed = Bed::new();
    for (name, policy) in
        [("always", "always"), ("unless", "unless-stopped"), ("stopped", "unless-stopped"), ("no", "no")]
    {
        bed.run(&["run", "-d", "--name", name, "--restart", policy, "busybox", "sleep", "1000"]).ok();
    }
    bed.run(&["stop", "-t", "0", "stopped"]).ok();
    bed.stop();
    // As if the machine had restarted: nothing of it runs.
    for (pid, line) in bed.host().processes() {
        if line.contains("sleep 1000") {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    bed.start();
    let status = |name: &str| bed.inspect(name)["State"]["Status"].as_str().unwrap_or_default().to_owned();
    eventually("they are back", || status("always") == "running" && status("unless") == "running");
    assert_eq!((status("stopped").as_str(), status("no").as_str()), ("exited", "exited"));
}

#[test]
fn those_who_attach_later_get_on_with_it() {
    let mut bed = bed();
    bed.run(&["run", "-d", "-i", "--name", "cat", "busybox", "cat"]).ok();
    bed.kill();
    bed.start();
    let mut stream =
        bed.http().hijack("/containers/cat/attach?stream=1&stdin=1&stdout=1", None).expect("attach");
    stream.write(b"still\n");
    assert_eq!(stream.bytes(14).expect("frame"), b"\x01\0\0\0\0\0\0\x06still\n");
}

#[test]
fn a_paused_one_stays_paused() {
    let mut bed = bed();
    bed.run(&["run", "-d", "--name", "frozen", "busybox", "sleep", "1000"]).ok();
    bed.run(&["pause", "frozen"]).ok();
    bed.kill();
    bed.start();
    assert_eq!(bed.inspect("frozen")["State"]["Status"], json!("paused"));
    bed.run(&["unpause", "frozen"]).ok();
    assert_eq!(bed.run(&["exec", "frozen", "echo", "awake"]).ok(), "awake");
}

#[test]
fn a_removed_container_stays_removed() {
    let mut bed = bed();
    for round in 0..5 {
        let name = format!("c{round}");
        bed.run(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"]).ok();
        bed.run(&["rm", "-f", &name]).ok();
        bed.kill();
        bed.start();
        assert_eq!(bed.http().get("/containers/json?all=1").json(), json!([]));
    }
}
