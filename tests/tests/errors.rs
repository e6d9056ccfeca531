//! Bad input: every mistake has its own answer, and leaves nothing.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::{Value, json};
use testkit::http::API;
use testkit::{Bed, Response};
use tests::{each_client, has, is_corten};

fn raw(bed: &Bed, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
    bed.http().exchange(method, &format!("{API}{path}"), headers, body).expect("an answer")
}

/// `create` with something added to a good body.
#[track_caller]
fn create(bed: &Bed, config: Value, host: Value) -> Response {
    let mut body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": host });
    for (key, value) in config.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    bed.http().post("/containers/create", &body)
}

/// What `create` says when it refuses.
#[track_caller]
fn refuse(bed: &Bed, config: Value, host: Value) -> String {
    create(bed, config, host).refused(400)
}

#[test]
fn bodies_that_are_none() {
    let bed = Bed::new();
    let kind = "Content-Type: application/json\r\n";
    for (body, part) in [
        (&b"{"[..], "EOF"),
        (b"{\"Image\":}", "invalid"),
        (b"[1]", ""),
        (b"{\"Cmd\": 7}", ""),
        (b"{} {}", ""),
    ] {
        let answer = raw(&bed, "POST", "/containers/create", kind, body);
        // Docker of old takes some of these, or blames itself.
        if is_corten(&bed) {
            has(&answer.refused(400), &[part]);
        }
    }
    let answer = raw(&bed, "POST", "/containers/create", "Content-Type: text/plain\r\n", b"{}");
    if is_corten(&bed) {
        has(&answer.refused(400), &["unsupported Content-Type header", "application/json"]);
        let answer = raw(&bed, "POST", "/containers/create", kind, b"{}{}");
        has(&answer.refused(400), &["unexpected content after JSON"]);
        let answer = raw(&bed, "POST", "/containers/create", kind, b"");
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    assert_eq!(bed.http().get("/containers/json?all=1").json(), json!([]));
}

#[test]
fn paths_that_are_none() {
    let bed = Bed::empty();
    for (method, path) in
        [("GET", "/nosuch"), ("DELETE", "/containers"), ("GET", "/containers/x/start"), ("PATCH", "/info")]
    {
        assert_eq!(raw(&bed, method, path, "", b"").refused(404), "page not found", "{method} {path}");
    }
    let exchange = |path: &str| bed.http().exchange("GET", path, "", b"").expect("answer");
    if !is_corten(&bed) {
        return;
    }
    has(
        &exchange("/v1.20/info").refused(400),
        &["client version 1.20 is too old. Minimum supported API version is "],
    );
    has(
        &exchange("/v1.99/info").refused(400),
        &["client version 1.99 is too new. Maximum supported API version is "],
    );
    assert_eq!(exchange("/info").status, 200, "without a version it is the newest");
}

#[test]
fn every_answer_carries_the_engine() {
    let bed = Bed::empty();
    for path in ["/_ping", "/nosuch", "/v1.41/containers/nosuch/json"] {
        let answer = bed.http().exchange("GET", path, "", b"").expect("answer");
        if path != "/nosuch" {
            assert!(answer.header("api-version").is_some(), "{:?}", answer.headers);
            assert_eq!(answer.header("ostype"), Some("linux"));
        }
    }
    let ping = bed.http().exchange("HEAD", "/_ping", "", b"").expect("answer");
    assert_eq!(
        (ping.status, ping.header("cache-control")),
        (200, Some("no-cache, no-store, must-revalidate"))
    );
    assert_eq!(bed.http().get("/_ping").text(), "OK");
}

/// A client sends the credentials of all its registries with a build.
#[test]
fn long_heads_are_read() {
    let bed = Bed::empty();
    let header = format!("X-Registry-Config: {}\r\n", "a".repeat(400 << 10));
    raw(&bed, "GET", "/_ping", &header, b"").expect(200);
}

#[test]
fn the_protocol_itself() {
    use std::io::{Read, Write};
    let bed = Bed::empty();
    for bytes in [
        &b"GARBAGE\r\n\r\n"[..],
        b"GET /_ping HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\0\0\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(bed.socket()).expect("connect");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("timeout");
        stream.write_all(bytes).expect("write");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    let long = "x".repeat(2 << 20);
    let answer = bed.http().exchange("GET", "/_ping", &format!("X-Long: {long}\r\n"), b"");
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 400), "a header of 2 MiB");
    assert_eq!(bed.http().get("/_ping").text(), "OK");
}

#[test]
fn limits_below_the_least() {
    let bed = Bed::new();
    assert_eq!(refuse(&bed, json!({}), json!({ "Memory": 1024 })), "Minimum memory limit allowed is 6MB");
    let text = refuse(&bed, json!({}), json!({ "Memory": 64 << 20, "MemorySwap": 32 << 20 }));
    assert_eq!(text, "Minimum memoryswap limit should be larger than memory limit, see usage");
    let text = refuse(&bed, json!({}), json!({ "MemorySwap": 64 << 20 }));
    assert_eq!(text, "You should always set the Memory limit when using Memoryswap limit, see usage");
    let text = refuse(&bed, json!({}), json!({ "NanoCpus": 1_000_000_000_u64, "CpuQuota": 50000 }));
    assert_eq!(text, "Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    has(
        &refuse(&bed, json!({}), json!({ "NanoCpus": 1_000_000_000_000_u64 })),
        &["ange of CPUs is from 0.01 to ", "as there are only "],
    );
    has(
        &refuse(&bed, json!({}), json!({ "CpuPeriod": 10 })),
        &["CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"],
    );
    has(
        &refuse(&bed, json!({}), json!({ "CpuQuota": 10 })),
        &["CPU cfs quota can not be less than 1ms (i.e. 1000)"],
    );
    has(&refuse(&bed, json!({}), json!({ "CpusetCpus": "x" })), &["Invalid value x for cpuset cpus"]);
    has(
        &refuse(&bed, json!({}), json!({ "CpusetCpus": "4000" })),
        &["Requested CPUs are not available - requested 4000, available: "],
    );
    has(
        &refuse(&bed, json!({}), json!({ "OomScoreAdj": 5000 })),
        &["Invalid value 5000, range for oom score adj is [-1000, 1000]"],
    );
    has(&refuse(&bed, json!({}), json!({ "ShmSize": -1 })), &["SHM size can not be less than 0"]);
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["run", "--rm", "-m", "1m", "busybox", "true"]);
        has(ran.fails(125), &["Minimum memory limit allowed is 6MB"]);
    });
    assert_eq!(bed.http().get("/containers/json?all=1").json(), json!([]), "nothing was made");
}

#[test]
fn contradictions() {
    let bed = Bed::new();
    let policy =
        |name: &str, count: i64| json!({ "RestartPolicy": { "Name": name, "MaximumRetryCount": count } });
    has(&refuse(&bed, json!({}), policy("sometimes", 0)), &["invalid restart policy"]);
    has(&refuse(&bed, json!({}), policy("always", 3)), &["maximum retry count"]);
    let mut both = policy("always", 0);
    both["AutoRemove"] = json!(true);
    has(&refuse(&bed, json!({}), both), &["an't create 'AutoRemove' container with restart policy"]);
    has(
        &refuse(&bed, json!({ "WorkingDir": "relative" }), json!({})),
        &["the working directory 'relative' is invalid, it needs to be an absolute path"],
    );
    has(
        &refuse(&bed, json!({ "Hostname": "h" }), json!({ "NetworkMode": "container:x" })),
        &["onflicting options: hostname and the network mode"],
    );
    has(&refuse(&bed, json!({}), json!({ "CapAdd": ["NO_SUCH"] })), &["CapAdd", "NO_SUCH"]);
    // Docker of old takes these, and fails at the start.
    if is_corten(&bed) {
        assert_eq!(refuse(&bed, json!({}), json!({ "IpcMode": "odd" })), "invalid IPC mode: odd");
        assert_eq!(refuse(&bed, json!({}), json!({ "PidMode": "odd" })), "invalid PID mode: odd");
    }
    let health = json!({ "Healthcheck": { "Test": ["CMD", "true"], "Interval": 100 } });
    has(&refuse(&bed, health, json!({})), &["Interval in Healthcheck cannot be less than"]);
    let health = json!({ "Healthcheck": { "Test": ["CMD", "true"], "Retries": -1 } });
    has(&refuse(&bed, health, json!({})), &["Retries in Healthcheck cannot be negative"]);
    if is_corten(&bed) {
        let long = "h".repeat(64);
        let text = refuse(&bed, json!({ "Hostname": long }), json!({}));
        assert_eq!(text, format!("hostname \"{long}\" is too long (maximum 63 bytes)"));
    }
}

#[test]
fn mounts_that_cannot_be() {
    let bed = Bed::new();
    let mount = |mount: Value| create(&bed, json!({}), json!({ "Mounts": [mount] })).refused(400);
    let text = mount(json!({ "Type": "bind", "Source": "/no/such/source", "Target": "/x" }));
    assert_eq!(
        text,
        "invalid mount config for type \"bind\": bind source path does not exist: /no/such/source"
    );
    let text = mount(json!({ "Type": "bind", "Source": "/tmp", "Target": "" }));
    assert_eq!(text, "invalid mount config for type \"bind\": field Target must not be empty");
    let text = mount(json!({ "Type": "bind", "Source": "", "Target": "/x" }));
    assert_eq!(text, "invalid mount config for type \"bind\": field Source must not be empty");
    has(
        &mount(json!({ "Type": "bind", "Source": "/tmp", "Target": "relative" })),
        &["invalid mount path: 'relative' mount path must be absolute"],
    );
    has(&mount(json!({ "Type": "nosuch", "Target": "/x" })), &["mount type unknown"]);
    has(&mount(json!({ "Type": "bind", "Source": "/tmp", "Target": "/" })), &["destination can't be '/'"]);
    let two = json!([{ "Type": "tmpfs", "Target": "/x" }, { "Type": "tmpfs", "Target": "/x" }]);
    has(&create(&bed, json!({}), json!({ "Mounts": two })).refused(400), &["Duplicate mount point: /x"]);
    let bind = |text: &str| refuse(&bed, json!({}), json!({ "Binds": [text] }));
    has(&create(&bed, json!({}), json!({ "Binds": ["/tmp:/x:odd"] })).text(), &["invalid mode: odd"]);
    has(
        &create(&bed, json!({}), json!({ "Binds": ["a:b"] })).text(),
        &["invalid volume specification: 'a:b'"],
    );
    has(&bind("n:/x"), &["volume name is too short, names should be at least two alphanumeric characters"]);
    has(&bind("bad*name:/x"), &["\"bad*name\" includes invalid characters for a local volume name"]);
    each_client(&bed, |client, _| {
        let ran =
            bed.cli(client, &["run", "--rm", "--mount", "type=bind,src=/no/such,dst=/x", "busybox", "true"]);
        has(ran.fails(125), &["bind source path does not exist: /no/such"]);
    });
}

#[test]
fn what_else_is_missing_is_not_taken_for_the_image() {
    let bed = Bed::new();
    for (host, part) in [
        (json!({ "NetworkMode": "nosuch" }), "network nosuch not found"),
        (json!({ "NetworkMode": "container:nosuch" }), "No such container: nosuch"),
        (json!({ "VolumesFrom": ["nosuch"] }), "No such container: nosuch"),
    ] {
        has(&refuse(&bed, json!({}), host), &[part]);
    }
    // A 404 would make the client pull.
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["run", "--rm", "--network", "nosuch", "busybox", "true"]);
        assert!(!ran.fails(125).contains("Unable to find image"), "{ran:?}");
    });
}

#[test]
fn command_lines_that_make_no_sense() {
    let bed = Bed::new();
    each_client(&bed, |client, _| {
        let fails = |words: &[&str], part: &str| {
            let ran = bed.cli(client, words);
            assert_ne!(ran.code, 0, "{ran:?}");
            has(&ran.stderr, &[part]);
        };
        fails(&["run", "--no-such-flag", "busybox"], "unknown flag: --no-such-flag");
        fails(&["run"], "requires at least 1 argument");
        fails(&["import"], "requires at least 1 argument");
        // A command with two forms shows both.
        fails(&["cp", "one"], "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t");
        fails(&["cp", "one"], " cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH\n\nRun");
        fails(&["nosuchcommand"], "nosuchcommand");
        fails(&["run", "-m", "xyz", "busybox", "true"], "invalid size: 'xyz'");
        fails(&["run", "-p", "http:80", "busybox", "true"], "nvalid");
        fails(&["run", "-v", "/a:/b:/c:/d", "busybox", "true"], "invalid");
        fails(&["inspect", "nosuch"], "No such object: nosuch");
        fails(&["rm", "nosuch"], "No such container: nosuch");
        fails(&["start", "nosuch"], "No such container: nosuch");
        fails(&["logs", "nosuch"], "No such container: nosuch");
        fails(&["rmi", "nosuch"], "No such image: nosuch");
        fails(&["network", "rm", "nosuch"], "nosuch");
        fails(&["volume", "inspect", "nosuch"], "nosuch");
    });
    for (words, code) in [
        (&["run", "--no-such-flag", "busybox"][..], 125),
        (&["ps", "--no-such-flag"], 125),
        (&["ps", "extra"], 1),
    ] {
        let ran = bed.run(words);
        if is_corten(&bed) {
            assert_eq!(ran.code, code, "{ran:?}");
        }
    }
}

#[test]
fn many_clients_that_go_away() {
    use std::io::Write;
    let bed = Bed::new();
    bed.run(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).ok();
    for path in ["/events", "/containers/web/logs?follow=1&stdout=1", "/containers/web/stats"] {
        for _ in 0..20 {
            let mut stream = std::os::unix::net::UnixStream::connect(bed.socket()).expect("connect");
            let head = format!("GET {API}{path} HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("write");
        }
    }
    for _ in 0..20 {
        drop(bed.http().hijack("/containers/web/attach?stream=1&stdout=1", None).expect("attach"));
        drop(bed.http().stream("POST", "/containers/web/wait"));
    }
    assert_eq!(bed.run(&["exec", "web", "echo", "well"]).ok(), "well");
}
