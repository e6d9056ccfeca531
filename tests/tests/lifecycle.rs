//! A container's life: create, start, stop, kill, pause, rename, wait, remove, list, update; and each verb that
//! its state forbids.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::time::Instant;

use serde_json::{Value, json};
use testkit::Bed;
use testkit::process::eventually;
use tests::{each_client, has, is_corten, is_peer, not_yet};

fn create(bed: &Bed, name: &str, body: Value) -> String {
    let answer = bed.http().post(&format!("/containers/create?name={name}"), &body).expect(201).json();
    answer["Id"].as_str().expect("id").to_owned()
}

fn sleeper() -> Value {
    json!({ "Image": "busybox", "Cmd": ["sleep", "1000"] })
}

fn status(bed: &Bed, name: &str) -> String {
    bed.inspect(name)["State"]["Status"].as_str().expect("status").to_owned()
}

#[test]
fn from_birth_to_death() {
    let bed = Bed::new();
    let mut http = bed.http();
    let id = create(&bed, "web", sleeper());
    let found = bed.inspect("web");
    assert_eq!(found["State"]["Status"], json!("created"));
    assert_eq!(found["State"]["StartedAt"], json!("0001-01-01T00:00:00Z"));
    assert_eq!(
        (&found["Id"], &found["Name"], &found["RestartCount"]),
        (&json!(id), &json!("/web"), &json!(0))
    );
    http.act("/containers/web/start").expect(204);
    let state = &bed.inspect("web")["State"];
    assert_eq!(
        (&state["Status"], &state["Running"], &state["Paused"]),
        (&json!("running"), &json!(true), &json!(false))
    );
    assert!(state["Pid"].as_u64().is_some_and(|pid| pid > 0));
    http.act("/containers/web/start").expect(304);
    http.act("/containers/web/pause").expect(204);
    assert_eq!(status(&bed, "web"), "paused");
    http.act("/containers/web/unpause").expect(204);
    http.act("/containers/web/kill?signal=SIGKILL").expect(204);
    eventually("it has ended", || status(&bed, "web") == "exited");
    let state = &bed.inspect("web")["State"];
    assert_eq!(
        (&state["ExitCode"], &state["Pid"], &state["Running"]),
        (&json!(137), &json!(0), &json!(false))
    );
    http.act("/containers/web/stop").expect(304);
    http.act("/containers/web/start").expect(204);
    http.act("/containers/web/restart?t=0").expect(204);
    assert_eq!(status(&bed, "web"), "running");
    http.delete("/containers/web?force=1").expect(204);
    assert_eq!(http.get("/containers/web/json").refused(404), "No such container: web");
}

#[test]
fn stopping_asks_first() {
    let bed = Bed::new();
    let script = "trap 'echo asked; exit 5' USR1; echo up; while :; do sleep 0.05; done";
    create(
        &bed,
        "polite",
        json!({ "Image": "busybox", "Cmd": ["sh", "-c", script], "StopSignal": "SIGUSR1" }),
    );
    let mut http = bed.http();
    http.act("/containers/polite/start").expect(204);
    eventually("it is up", || bed.run(&["logs", "polite"]).stdout == "up\n");
    http.act("/containers/polite/stop").expect(204);
    assert_eq!(bed.inspect("polite")["State"]["ExitCode"], json!(5));
    assert_eq!(bed.run(&["logs", "polite"]).stdout, "up\nasked\n");
}

#[test]
fn stopping_kills_after_the_grace() {
    let bed = Bed::new();
    create(
        &bed,
        "deaf",
        json!({ "Image": "busybox", "Cmd": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"] }),
    );
    let mut http = bed.http();
    http.act("/containers/deaf/start").expect(204);
    let start = Instant::now();
    http.act("/containers/deaf/stop?t=1").expect(204);
    assert!(start.elapsed().as_millis() >= 1000, "not before the grace is over");
    assert_eq!(bed.inspect("deaf")["State"]["ExitCode"], json!(137));
    each_client(&bed, |client, _| {
        bed.cli(client, &["start", "deaf"]).ok();
        assert_eq!(bed.cli(client, &["stop", "-t", "0", "deaf"]).ok(), "deaf");
        assert_eq!(status(&bed, "deaf"), "exited");
    });
}

#[test]
fn what_each_state_forbids() {
    let bed = Bed::new();
    let mut http = bed.http();
    let id = create(&bed, "web", sleeper());
    // Created.
    for verb in ["pause", "kill"] {
        let text = http.act(&format!("/containers/web/{verb}")).refused(409);
        has(&text.to_lowercase(), &["is not running"]);
    }
    let text = http.act("/containers/web/unpause").refused(if is_corten(&bed) { 409 } else { 500 });
    has(&text.to_lowercase(), &["is not"]);
    has(&http.get("/containers/web/top").refused(409).to_lowercase(), &["is not running"]);
    has(
        &http.post("/containers/web/exec", &json!({ "Cmd": ["true"] })).refused(409).to_lowercase(),
        &["is not running"],
    );
    // Running.
    http.act("/containers/web/start").expect(204);
    let text = http.act("/containers/web/unpause").refused(if is_corten(&bed) { 409 } else { 500 });
    has(&text, &[&format!("Container {id} is not paused")]);
    let text = http.delete("/containers/web").refused(409);
    has(
        &text,
        &[if is_corten(&bed) {
            "cannot remove container \"/web\": container is running: stop the container before removing or force remove"
        } else {
            "Stop the container before attempting removal or force remove"
        }],
    );
    has(&http.act("/containers/web/kill?signal=NOSUCH").refused(400), &["Invalid signal: NOSUCH"]);
    // Paused.
    http.act("/containers/web/pause").expect(204);
    has(&http.act("/containers/web/pause").refused(409), &["already paused"]);
    has(
        &http.act("/containers/web/start").refused(409),
        &["cannot start a paused container, try unpause instead"],
    );
    has(&http.delete("/containers/web").refused(409), &["aused"]);
    http.act("/containers/web/unpause").expect(204);
    // Gone.
    http.delete("/containers/web?force=1").expect(204);
    for verb in ["start", "stop", "restart", "kill", "pause", "unpause", "wait"] {
        let text = http.act(&format!("/containers/web/{verb}")).refused(404);
        has(&text, &["No such container: web"]);
    }
}

#[test]
fn a_paused_container_stands_still() {
    let bed = Bed::new();
    bed.run(&[
        "run",
        "-d",
        "--name",
        "ticker",
        "busybox",
        "sh",
        "-c",
        "while :; do echo tick; sleep 0.02; done",
    ])
    .ok();
    let ticks = || bed.run(&["logs", "ticker"]).stdout.lines().count();
    eventually("it ticks", || ticks() > 3);
    each_client(&bed, |client, _| {
        bed.cli(client, &["pause", "ticker"]).ok();
        let ps = bed.cli(client, &["ps", "--format", "{{.Status}}"]);
        has(ps.ok(), &["(Paused)"]);
        let before = ticks();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(ticks() <= before + 1, "a line may have been on its way");
        bed.cli(client, &["unpause", "ticker"]).ok();
        eventually("it ticks again", || ticks() > before + 2);
    });
    bed.run(&["pause", "ticker"]).ok();
    bed.run(&["rm", "-f", "ticker"]).ok();
}

#[test]
fn names() {
    let bed = Bed::new();
    let mut http = bed.http();
    let id = create(&bed, "first", sleeper());
    let text = http.post("/containers/create?name=first", &sleeper()).refused(409);
    assert_eq!(
        text,
        format!(
            "Conflict. The container name \"/first\" is already in use by container \"{id}\". You have to remove (or \
             rename) that container to be able to reuse that name."
        )
    );
    let text = http.post("/containers/create?name=no/slash", &sleeper()).refused(400);
    assert_eq!(text, "Invalid container name (no/slash), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    http.act("/containers/first/rename?name=second").expect(204);
    assert_eq!(bed.inspect("second")["Id"], json!(id));
    assert_eq!(http.get("/containers/first/json").refused(404), "No such container: first");
    let other = create(&bed, "first", sleeper());
    has(
        &http.act("/containers/second/rename?name=first").refused(409),
        &["already in use by container", &other],
    );
    has(
        &http.act("/containers/second/rename?name=").refused(400),
        &["Neither old nor new names may be empty"],
    );
    let generated = http.post("/containers/create", &sleeper()).expect(201).json();
    let name = bed.inspect(generated["Id"].as_str().expect("id"))["Name"].as_str().expect("name").to_owned();
    assert!(name.contains('_'), "two words: {name}");
    assert_eq!(http.get(&format!("/containers/{}/json", &id[..5])).expect(200).json()["Id"], json!(id));
}

#[test]
fn waiting() {
    let bed = Bed::new();
    create(&bed, "short", json!({ "Image": "busybox", "Cmd": ["sh", "-c", "exit 6"] }));
    let mut early = bed
        .http()
        .stream("POST", "/containers/short/wait?condition=next-exit")
        .expect("the header comes at once");
    assert_eq!(early.status, 200);
    bed.http().act("/containers/short/start").expect(204);
    assert_eq!(early.json()["StatusCode"], json!(6));
    assert_eq!(
        bed.http().act("/containers/short/wait").expect(200).json()["StatusCode"],
        json!(6),
        "it has ended before"
    );
    let mut removed = bed.http().stream("POST", "/containers/short/wait?condition=removed").expect("header");
    bed.run(&["rm", "short"]).ok();
    assert!(removed.json()["StatusCode"].is_number());
    each_client(&bed, |client, name| {
        bed.cli(client, &["run", "-d", "--name", name, "busybox", "sh", "-c", "exit 9"]).ok();
        assert_eq!(bed.cli(client, &["wait", name]).ok(), "9");
    });
}

#[test]
fn who_comes_too_late_to_wait_is_told_how_it_ended() {
    if is_peer() {
        return;
    }
    let bed = Bed::new();
    let body = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", "exit 6"], "HostConfig": { "AutoRemove": true },
    });
    let id = create(&bed, "brief", body);
    bed.http().act(&format!("/containers/{id}/start")).expect(204);
    eventually("it goes by itself", || bed.http().get(&format!("/containers/{id}/json")).status == 404);
    let wait = |id: &str, condition: &str| bed.http().act(&format!("/containers/{id}/wait{condition}"));
    for condition in ["", "?condition=not-running", "?condition=removed"] {
        assert_eq!(wait(&id, condition).expect(200).json(), json!({ "StatusCode": 6 }));
    }
    // There is no next exit, and nobody else is meant by its name or a part of its ID.
    has(&wait(&id, "?condition=next-exit").refused(404), &["No such container"]);
    has(&wait("brief", "").refused(404), &["No such container"]);
    has(&wait(&id[..12], "").refused(404), &["No such container"]);
    // Who removes a container knows that it is gone.
    let id = create(&bed, "kept", json!({ "Image": "busybox", "Cmd": ["true"] }));
    bed.run(&["rm", "kept"]).ok();
    has(&wait(&id, "").refused(404), &["No such container"]);
}

#[test]
fn lists_and_filters() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "--name", "one", "-l", "role=a", "busybox", "sleep", "1000"]).ok();
    bed.run(&["run", "-d", "--name", "two", "-l", "role=b", "busybox", "sh", "-c", "exit 3"]).ok();
    bed.run(&["wait", "two"]).ok();
    bed.run(&["create", "--name", "three", "busybox", "true"]).ok();
    each_client(&bed, |client, _| {
        let names = |flags: &[&str]| {
            let mut words = vec!["ps", "--format", "{{.Names}}"];
            words.extend(flags);
            bed.cli(client, &words).ok().replace('\n', " ")
        };
        assert_eq!(names(&[]), "one");
        assert_eq!(names(&["-a"]), "three two one", "the youngest first");
        assert_eq!(names(&["-n", "2"]), "three two");
        assert_eq!(names(&["-l"]), "three");
        assert_eq!(names(&["-a", "--filter", "label=role=b"]), "two");
        assert_eq!(names(&["-a", "--filter", "label=role"]), "two one");
        assert_eq!(names(&["-a", "--filter", "status=exited"]), "two");
        assert_eq!(names(&["-a", "--filter", "exited=3"]), "two");
        assert_eq!(names(&["-a", "--filter", "name=t"]), "three two");
        assert_eq!(names(&["-a", "--filter", "before=two"]), "one");
        assert_eq!(names(&["-a", "--filter", "since=two"]), "three");
        assert_eq!(names(&["-a", "--filter", "ancestor=busybox"]), "three two one");
        let table = bed.cli(client, &["ps", "-a"]);
        has(
            table.ok().lines().next().unwrap_or_default(),
            &["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"],
        );
        has(table.ok(), &["\"sleep 1000\"", "Exited (3) ", "Up ", "Created"]);
    });
    let text = bed.http().get("/containers/json?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D").refused(400);
    has(&text.to_lowercase(), &["invalid filter", "nosuch"]);
    let sized = bed.http().get("/containers/json?all=1&size=1").json();
    assert!(sized[0]["SizeRootFs"].as_u64().is_some_and(|size| size > 100_000), "{}", sized[0]);
}

#[test]
fn long_and_brief_lists_are_whole() {
    const MANY: usize = 300;
    let bed = Bed::new();
    let mut http = bed.http();
    for number in 0..MANY {
        let body = json!({ "Image": "busybox", "Cmd": ["true"], "Labels": { "number": number.to_string() } });
        http.post(&format!("/containers/create?name=many{number}"), &body).expect(201);
    }
    let listed = |query: &str| {
        let list = bed.http().get(&format!("/containers/json?all=1{query}")).expect(200).json();
        list.as_array().cloned().expect("a list")
    };
    let all = listed("");
    assert_eq!(all.len(), MANY);
    for (index, one) in all.iter().enumerate() {
        let number = MANY - 1 - index;
        assert_eq!(one["Names"], json!([format!("/many{number}")]), "the youngest first");
        assert_eq!(one["Labels"], json!({ "number": number.to_string() }));
    }
    // What a table shows is the same in both.
    if is_corten(&bed) {
        let brief = listed("&brief=1");
        let shown = ["Id", "Names", "Image", "ImageID", "Command", "Created", "Ports", "State", "Status"];
        for (one, all) in brief.iter().zip(&all) {
            shown.iter().for_each(|name| assert_eq!(one[name], all[name]));
            assert_eq!((&one["Labels"], &one["Mounts"]), (&json!({}), &json!([])));
            assert_eq!(one["NetworkSettings"], json!({ "Networks": {} }));
        }
        assert_eq!(brief.len(), MANY);
    }
    each_client(&bed, |client, _| {
        let lines = |words: &[&str]| bed.cli(client, words).ok().lines().count();
        assert_eq!(lines(&["ps", "-a"]), MANY + 1);
        assert_eq!(lines(&["ps", "-aq"]), MANY);
        assert_eq!(
            lines(&["ps", "-a", "-n", "250", "--format", "{{.Names}} {{.Labels}} {{.Networks}}"]),
            250
        );
    });
}

#[test]
fn limits_change_while_it_runs() {
    let bed = Bed::new();
    if not_yet(&bed, "POST", "/containers/probe/update") {
        return;
    }
    bed.run(&["run", "-d", "--name", "web", "-m", "64m", "--memory-swap", "64m", "busybox", "sleep", "1000"])
        .ok();
    each_client(&bed, |client, _| {
        bed.cli(
            client,
            &["update", "-m", "128m", "--memory-swap", "128m", "--restart", "on-failure:3", "web"],
        )
        .ok();
        let found = bed.inspect("web");
        assert_eq!(found["HostConfig"]["Memory"], json!(128 << 20));
        assert_eq!(
            found["HostConfig"]["RestartPolicy"],
            json!({ "Name": "on-failure", "MaximumRetryCount": 3 })
        );
        bed.cli(client, &["update", "-m", "64m", "--memory-swap", "64m", "--restart", "no", "web"]).ok();
    });
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null";
    assert_eq!(bed.run(&["exec", "web", "sh", "-c", script]).stdout.trim(), (64 << 20).to_string());
}

#[test]
fn failing_containers_are_started_again() {
    let bed = Bed::new();
    bed.run(&[
        "run",
        "-d",
        "--name",
        "faulty",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "echo try; exit 1",
    ])
    .ok();
    eventually("it gave up", || {
        let found = bed.inspect("faulty");
        found["RestartCount"] == json!(2) && found["State"]["Status"] == json!("exited")
    });
    assert_eq!(bed.run(&["logs", "faulty"]).ok(), "try\ntry\ntry");
    bed.run(&["run", "-d", "--name", "always", "--restart", "always", "busybox", "sh", "-c", "sleep 0.2"])
        .ok();
    eventually("it comes back", || {
        bed.inspect("always")["RestartCount"].as_u64().is_some_and(|count| count >= 2)
    });
    bed.run(&["stop", "-t", "0", "always"]).ok();
    assert_eq!(status(&bed, "always"), "exited", "who was stopped stays so");
    let count = bed.inspect("always")["RestartCount"].clone();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(bed.inspect("always")["RestartCount"], count);
}

#[test]
fn processes_and_statistics() {
    let bed = Bed::new();
    if not_yet(&bed, "GET", "/containers/probe/stats?stream=0") {
        return;
    }
    bed.run(&["run", "-d", "--name", "web", "busybox", "sh", "-c", "sleep 1234 & sleep 5678"]).ok();
    eventually("both run", || bed.run(&["top", "web"]).stdout.contains("sleep 1234"));
    let top = bed.http().get("/containers/web/top").expect(200).json();
    has(&top["Titles"].to_string(), &["PID", "CMD"]);
    assert_eq!(top["Processes"].as_array().map(Vec::len), Some(2));
    let stats = bed.http().get("/containers/web/stats?stream=0").expect(200).json();
    assert!(stats["memory_stats"]["usage"].as_u64().is_some_and(|usage| usage > 0), "{stats}");
    assert_eq!(stats["pids_stats"]["current"], json!(2));
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"]);
        assert_eq!(ran.ok(), "web 2");
    });
}

#[test]
fn files_in_and_out() {
    let bed = Bed::new();
    if not_yet(&bed, "GET", "/containers/probe/archive?path=/")
        || not_yet(&bed, "GET", "/containers/probe/changes")
    {
        return;
    }
    let folder = bed.folder("copy");
    std::fs::write(folder.join("in"), "from outside\n").expect("file");
    create(&bed, "web", sleeper());
    each_client(&bed, |client, name| {
        let source = folder.join("in");
        let target = folder.join(name);
        bed.cli(client, &["cp", source.to_str().expect("path"), &format!("web:/tmp/{name}")]).ok();
        bed.cli(client, &["cp", &format!("web:/tmp/{name}"), target.to_str().expect("path")]).ok();
        assert_eq!(std::fs::read_to_string(&target).ok().as_deref(), Some("from outside\n"));
    });
    bed.run(&["start", "web"]).ok();
    assert_eq!(bed.run(&["exec", "web", "cat", "/tmp/own"]).ok(), "from outside");
    let changes = bed.run(&["diff", "web"]);
    has(changes.ok(), &["C /tmp", "A /tmp/own"]);
    has(&bed.http().get("/containers/web/archive?path=/nosuch").refused(404), &["nosuch"]);
}

#[test]
fn stopped_ones_are_pruned() {
    let bed = Bed::new();
    bed.run(&["run", "--name", "done", "busybox", "true"]).ok();
    bed.run(&["run", "-d", "--name", "busy", "busybox", "sleep", "1000"]).ok();
    has(bed.run(&["container", "prune", "-f"]).ok(), &["Deleted Containers:", "Total reclaimed space:"]);
    assert_eq!(bed.run(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "busy");
}

#[test]
fn commit_and_export() {
    let bed = Bed::new();
    if not_yet(&bed, "POST", "/commit?container=x") || not_yet(&bed, "GET", "/containers/probe/export") {
        return;
    }
    bed.run(&["run", "--name", "base", "busybox", "sh", "-c", "echo made >/made; rm /www/index.html"]).ok();
    each_client(&bed, |client, name| {
        bed.cli(client, &["commit", "-c", "CMD [\"cat\", \"/made\"]", "base", name]).ok();
        assert_eq!(bed.cli(client, &["run", "--rm", name]).ok(), "made");
        bed.cli(client, &["run", "--rm", name, "ls", "/www/index.html"]).fails(1);
    });
    let tar = bed.http().get("/containers/base/export").expect(200).body;
    assert!(tar.len() > 500_000 && tar.windows(5).any(|window| window == b"made\n"), "{} bytes", tar.len());
}
