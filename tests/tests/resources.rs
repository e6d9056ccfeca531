//! What containers may use and do use: limits, their changes, statistics, and what happens at the limit.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::process::eventually;
use testkit::{Bed, BedOptions, Client, Engine, image};
use tests::{each_client, has, is_corten};

fn create(bed: &Bed, name: &str, command: &[&str], host: Value) -> Value {
    let body = json!({ "Image": "busybox", "Cmd": command, "HostConfig": host });
    bed.http().post(&format!("/containers/create?name={name}"), &body).expect(201).json()
}

fn start(bed: &Bed, name: &str, host: Value) {
    create(bed, name, &["sleep", "1000"], host);
    bed.http().act(&format!("/containers/{name}/start")).expect(204);
}

/// A file of the container's cgroup, by its names on both versions.
fn limit(bed: &Bed, name: &str, controller: &str, v1: &str, v2: &str) -> String {
    let pid = bed.inspect(name)["State"]["Pid"].as_u64().expect("it runs");
    let groups = bed.host().shell(&format!("cat /proc/{pid}/cgroup")).ok().to_owned();
    let fields = || groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    let own = fields().find(|fields| fields[1].split(',').any(|one| one == controller));
    let (root, file) = match own {
        Some(_) => (format!("/sys/fs/cgroup/{controller}"), v1),
        None => ("/sys/fs/cgroup".to_owned(), v2),
    };
    let path = own.or_else(|| fields().find(|fields| fields[0] == "0")).expect("a cgroup")[2].to_owned();
    let file = format!("{root}{path}/{file}");
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
}

fn memory(bed: &Bed, name: &str) -> String {
    limit(bed, name, "memory", "memory.limit_in_bytes", "memory.max")
}

const MIB: u64 = 1 << 20;

#[test]
fn statistics_of_a_running_container() {
    let bed = Bed::new();
    start(&bed, "web", json!({ "Memory": 64 * MIB, "PidsLimit": 33 }));
    bed.run(&[
        "exec",
        "web",
        "sh",
        "-c",
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; ping -c 1 127.0.0.1",
    ])
    .ok();
    let id = bed.inspect("web")["Id"].clone();
    let found = bed.http().get("/containers/web/stats?stream=0").expect(200).json();
    assert_eq!((&found["id"], &found["name"], &found["os_type"]), (&id, &json!("/web"), &Value::Null));
    assert_eq!(
        (&found["memory_stats"]["limit"], &found["pids_stats"]["limit"]),
        (&json!(64 * MIB), &json!(33))
    );
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    for pointer in [
        "/memory_stats/usage",
        "/memory_stats/stats/pgfault",
        "/cpu_stats/cpu_usage/total_usage",
        "/cpu_stats/system_cpu_usage",
        "/cpu_stats/online_cpus",
        "/precpu_stats/cpu_usage/total_usage",
        "/precpu_stats/system_cpu_usage",
    ] {
        assert!(number(pointer) > 0, "{pointer} in {found:#}");
    }
    assert!(number("/cpu_stats/system_cpu_usage") > number("/precpu_stats/system_cpu_usage"), "{found:#}");
    assert!(found["read"].as_str() > found["preread"].as_str(), "{found:#}");
    let eth0 = &found["networks"]["eth0"];
    for counter in ["bytes", "packets", "errors", "dropped"] {
        assert!(
            eth0[format!("rx_{counter}")].is_u64() && eth0[format!("tx_{counter}")].is_u64(),
            "{found:#}"
        );
    }
    assert_eq!(
        found["networks"].as_object().map(serde_json::Map::len),
        Some(1),
        "the loopback device is not told"
    );
    assert!(found["blkio_stats"]["io_service_bytes_recursive"].is_array(), "{found:#}");
    assert_eq!(found["blkio_stats"]["io_queue_recursive"], Value::Null);
    let once = bed.http().get("/containers/web/stats?stream=0&one-shot=1").expect(200).json();
    assert_eq!(
        (&once["precpu_stats"]["cpu_usage"]["total_usage"], &once["os_type"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(once["preread"], json!("0001-01-01T00:00:00Z"));
    assert!(once["memory_stats"]["usage"].as_u64().is_some_and(|usage| usage > 0));
    let text = bed.http().get("/containers/web/stats?one-shot=1").refused(400);
    assert_eq!(text, "cannot have stream=true and one-shot=true");
    has(&bed.http().get("/containers/nosuch/stats").refused(404), &["No such container: nosuch"]);
}

#[test]
fn statistics_of_other_networks_and_of_stopped_containers() {
    let bed = Bed::new();
    start(&bed, "web", json!({}));
    start(&bed, "beside", json!({ "NetworkMode": "container:web" }));
    start(&bed, "host", json!({ "NetworkMode": "host" }));
    create(&bed, "idle", &["true"], json!({}));
    let now = |name: &str| {
        bed.http().get(&format!("/containers/{name}/stats?stream=0&one-shot=1")).expect(200).json()
    };
    assert!(now("beside")["networks"]["eth0"].is_object());
    assert_eq!(now("host")["networks"], Value::Null);
    let mut idle = bed.http().get("/containers/idle/stats?stream=0").expect(200).json();
    assert_eq!((&idle["name"], &idle["read"]), (&json!("/idle"), &json!("0001-01-01T00:00:00Z")));
    assert_eq!((&idle["memory_stats"], &idle["networks"]), (&json!({}), &Value::Null));
    assert_eq!(idle["cpu_stats"].take(), idle["precpu_stats"].take());
}

#[test]
fn a_stream_follows_a_container_through_its_life() {
    let bed = Bed::new();
    create(&bed, "web", &["sleep", "1000"], json!({}));
    let mut stream = bed.http().stream("GET", "/containers/web/stats").expect("a stream");
    assert_eq!(stream.json()["memory_stats"], json!({}));
    bed.http().act("/containers/web/start").expect(204);
    let running = |sample: &Value| sample["pids_stats"]["current"] == json!(1);
    let mut sample = stream.json();
    while !running(&sample) {
        sample = stream.json();
    }
    let next = stream.json();
    assert_eq!((&next["precpu_stats"], &next["preread"]), (&sample["cpu_stats"], &sample["read"]));
    bed.http().act("/containers/web/kill").expect(204);
    while running(&stream.json()) {}
    bed.http().delete("/containers/web").expect(204);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an end");
}

#[test]
fn the_table_of_statistics() {
    let bed = Bed::new();
    start(&bed, "web", json!({ "Memory": 64 * MIB }));
    create(&bed, "idle", &["true"], json!({}));
    each_client(&bed, |client, _| {
        let table = bed.cli(client, &["stats", "--no-stream"]);
        has(
            table.ok(),
            &[
                "CONTAINER ID   NAME",
                "CPU %",
                "MEM USAGE / LIMIT",
                "MEM %",
                "NET I/O",
                "BLOCK I/O",
                "PIDS",
                "web",
            ],
        );
        has(table.ok(), &[" / 64MiB "]);
        assert!(!table.ok().contains("idle"));
        let format = "{{.Container}} {{.Name}} {{.PIDs}}";
        let named = bed.cli(client, &["stats", "--no-stream", "--format", format, "web", "idle"]);
        assert_eq!(named.ok(), "web web 1\nidle idle 0");
        has(
            bed.cli(client, &["stats", "--no-stream", "--all", "--format", "{{.Name}}"]).ok(),
            &["web", "idle"],
        );
        let id = bed.inspect("web")["Id"].as_str().expect("id").to_owned();
        let whole = bed.cli(client, &["stats", "--no-stream", "--no-trunc", "--format", "{{.ID}}", "web"]);
        assert_eq!(whole.ok(), id);
        has(bed.cli(client, &["stats", "--no-stream", "nosuch"]).fails(1), &["No such container: nosuch"]);
    });
    has(bed.run(&["stats", "--no-stream", "--format", "{{.Odd}}"]).fails(1), &["can't evaluate field Odd"]);
}

#[test]
fn live_statistics_follow_who_comes_and_goes() {
    let bed = Bed::new();
    start(&bed, "first", json!({}));
    let mut command = bed.command(Client::Own);
    let mut child = command
        .args(["stats", "--format", "{{.Name}}={{.PIDs}}"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the client starts");
    let mut output = child.stdout.take().expect("piped");
    // A screen is all between two ways home.
    let mut seen = String::new();
    let mut until = |what: &dyn Fn(&str) -> bool| {
        let mut buffer = [0; 4096];
        loop {
            if let Some((screens, _)) = seen.rsplit_once("\u{1b}[J")
                && what(screens.rsplit("\u{1b}[H").next().unwrap_or_default())
            {
                seen.clear();
                return;
            }
            let count = output.read(&mut buffer).expect("output");
            assert!(count > 0, "it ended after {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    until(&|screen| screen.contains("first=1") && !screen.contains("second"));
    start(&bed, "second", json!({}));
    until(&|screen| screen.contains("first=1") && screen.contains("second=1"));
    bed.http().delete("/containers/first?force=1").expect(204);
    until(&|screen| !screen.contains("first") && screen.contains("second=1"));
    child.kill().expect("it runs");
    child.wait().expect("a child");
}

#[test]
fn updates_are_checked() {
    let bed = Bed::new();
    start(&bed, "web", json!({ "NanoCpus": 500_000_000 }));
    start(&bed, "once", json!({ "AutoRemove": true }));
    let id = bed.inspect("web")["Id"].as_str().expect("id").to_owned();
    let refused = |name: &str, body: Value, status: u16| {
        bed.http().post(&format!("/containers/{name}/update"), &body).refused(status)
    };
    assert_eq!(refused("web", json!({ "Memory": 5 }), 400), "Minimum memory limit allowed is 6MB");
    assert_eq!(refused("web", json!({ "CpusetCpus": "x" }), 400), "Invalid value x for cpuset cpus");
    has(
        &refused("web", json!({ "CpusetCpus": "4000" }), 400),
        &["Requested CPUs are not available - requested 4000"],
    );
    assert_eq!(
        refused("web", json!({ "RestartPolicy": { "Name": "odd" } }), 400),
        "invalid restart policy: unknown policy 'odd'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    );
    assert_eq!(
        refused("web", json!({ "CpuQuota": 50_000 }), 409),
        format!(
            "Cannot update container {id}: Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been \
             set"
        )
    );
    has(
        &refused("once", json!({ "RestartPolicy": { "Name": "always" } }), 409),
        &["Restart policy cannot be updated because AutoRemove is enabled for the container"],
    );
    has(
        &refused("web", json!({ "Memory": 64 * MIB }), 409),
        &[
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ],
    );
    has(&refused("nosuch", json!({ "Memory": 64 * MIB }), 404), &["No such container: nosuch"]);
    let answer = bed.http().post("/containers/web/update", &json!({ "CpuPercent": 5 })).expect(200).json();
    assert_eq!(answer, json!({ "Warnings": ["linux does not support CPU percent. Percent discarded."] }));
    each_client(&bed, |client, _| {
        has(
            bed.cli(client, &["update", "-m", "1m", "web"]).fails(1),
            &["Minimum memory limit allowed is 6MB"],
        );
        has(
            bed.cli(client, &["update", "--cpu-shares", "100", "web", "nosuch"]).fails(1),
            &["No such container: nosuch"],
        );
    });
    if bed.http().get("/info").json()["CgroupVersion"] == json!("1") {
        assert_eq!(
            limit(&bed, "web", "cpu", "cpu.shares", "cpu.weight"),
            "100",
            "the one that exists was changed"
        );
    }
}

#[test]
fn updates_last() {
    let mut bed = Bed::new();
    start(&bed, "web", json!({}));
    create(&bed, "idle", &["sleep", "1000"], json!({ "PidsLimit": 9 }));
    let change = json!({
        "Memory": 64 * MIB, "MemorySwap": 128 * MIB, "MemoryReservation": 32 * MIB, "CpuShares": 512,
        "NanoCpus": 250_000_000, "CpusetCpus": "0", "PidsLimit": 50,
        "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 3 },
    });
    for name in ["web", "idle"] {
        let answer = bed.http().post(&format!("/containers/{name}/update"), &change).expect(200).json();
        assert_eq!(answer, json!({ "Warnings": null }));
    }
    let holds = |bed: &Bed, name: &str| {
        assert_eq!(memory(bed, name), (64 * MIB).to_string());
        let swap = limit(bed, name, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
        assert!([128 * MIB, 64 * MIB].map(|bytes| bytes.to_string()).contains(&swap), "{swap}");
        assert_eq!(limit(bed, name, "pids", "pids.max", "pids.max"), "50");
        let cpu = limit(bed, name, "cpu", "cpu.cfs_quota_us", "cpu.max");
        assert_eq!(cpu.split(' ').next(), Some("25000"));
        let pid = bed.inspect(name)["State"]["Pid"].to_string();
        has(bed.host().shell(&format!("cat /proc/{pid}/status")).ok(), &["Cpus_allowed_list:\t0\n"]);
        let config = &bed.inspect(name)["HostConfig"];
        assert_eq!(config["RestartPolicy"], json!({ "Name": "on-failure", "MaximumRetryCount": 3 }));
        assert_eq!((&config["Memory"], &config["PidsLimit"]), (&json!(64 * MIB), &json!(50)));
    };
    holds(&bed, "web");
    // What joins the container later is held to the same.
    has(bed.run(&["exec", "web", "cat", "/proc/self/status"]).ok(), &["Cpus_allowed_list:\t0\n"]);
    bed.kill();
    bed.start();
    holds(&bed, "web");
    bed.http().act("/containers/idle/start").expect(204);
    holds(&bed, "idle");
    bed.http().act("/containers/web/restart?t=0").expect(204);
    holds(&bed, "web");
    let mut events =
        bed.http().stream("GET", "/events?filters=%7B%22event%22%3A%5B%22update%22%5D%7D").expect("a stream");
    // Back to no limit.
    bed.http().post("/containers/web/update", &json!({ "PidsLimit": -1, "MemorySwap": -1 })).expect(200);
    assert_eq!(limit(&bed, "web", "pids", "pids.max", "pids.max"), "max");
    assert_eq!(bed.inspect("web")["HostConfig"]["PidsLimit"], json!(0));
    assert_eq!(events.json()["Action"], json!("update"));
}

#[test]
fn an_update_that_cannot_be_recorded_is_taken_back() {
    if Engine::from_environment() != Engine::Corten {
        return;
    }
    for step in ["update.record", "update.limits"] {
        let environment = vec![("CORTEN_FAILPOINTS".to_owned(), format!("{step}=error"))];
        let bed = Bed::with(BedOptions { environment, ..BedOptions::default() });
        bed.load(&image::busybox());
        start(&bed, "web", json!({ "Memory": 64 * MIB }));
        let change = json!({ "Memory": 32 * MIB, "PidsLimit": 7, "CpuShares": 100 });
        has(&bed.http().post("/containers/web/update", &change).refused(500), &[step]);
        assert_eq!(memory(&bed, "web"), (64 * MIB).to_string());
        assert_eq!(limit(&bed, "web", "pids", "pids.max", "pids.max"), "max");
        assert_eq!(bed.inspect("web")["HostConfig"]["Memory"], json!(64 * MIB));
    }
}

#[test]
fn what_the_host_cannot_do_is_said() {
    let bed = Bed::new();
    let made = |name: &str, host: Value| create(&bed, name, &["true"], host)["Warnings"].clone();
    let v2 = bed.http().get("/info").json()["CgroupVersion"] == json!("2");
    assert_eq!(made("aa", json!({ "Memory": 64 * MIB, "CpuShares": 5, "OomScoreAdj": 5 })), json!([]));
    let oom = if v2 {
        "Your kernel does not support OomKillDisable. OomKillDisable discarded."
    } else {
        "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out \
         of resources."
    };
    assert_eq!(made("bb", json!({ "OomKillDisable": true })), json!([oom]));
    let swappiness = made("cc", json!({ "MemorySwappiness": 5 }));
    assert_eq!(swappiness.as_array().map(Vec::len), Some(usize::from(v2)), "{swappiness}");
    assert_eq!(made("dd", json!({ "MemorySwappiness": -1 })), json!([]));
    let text = bed.run(&["run", "--rm", "--ulimit", "nofile=9999999:9999999", "busybox", "true"]);
    has(text.fails(125), &["error setting rlimit", "NOFILE", "CAP_SYS_RESOURCE"]);
    has(
        bed.run(&["run", "--rm", "--sysctl", "kernel.panic=1", "busybox", "true"]).fails(125),
        &["kernel.panic"],
    );
    has(
        bed.run(&["run", "--rm", "--device-read-bps", "/dev/nosuch:1mb", "busybox", "true"]).fails(125),
        &["/dev/nosuch"],
    );
}

#[test]
fn every_limit_reaches_the_kernel() {
    let bed = Bed::new();
    if bed.http().get("/info").json()["CgroupVersion"] != json!("1") {
        return;
    }
    let parent = format!("{}/inner", bed.host().cgroup());
    let host = json!({
        "Memory": 64 * MIB, "MemorySwap": 80 * MIB, "MemoryReservation": 32 * MIB, "MemorySwappiness": 7,
        "OomKillDisable": true, "CpuShares": 300, "CpuPeriod": 50_000, "CpuQuota": 20_000, "CpusetCpus": "0",
        "CpusetMems": "0", "PidsLimit": 20, "OomScoreAdj": 300, "ShmSize": 8 * MIB, "CgroupParent": parent,
    });
    create(
        &bed,
        "web",
        &["sh", "-c", "cat /proc/self/oom_score_adj; df -k /dev/shm | tail -1; sleep 1000"],
        host,
    );
    bed.http().act("/containers/web/start").expect(204);
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", (64 * MIB).to_string()),
        ("memory", "memory.memsw.limit_in_bytes", (80 * MIB).to_string()),
        ("memory", "memory.soft_limit_in_bytes", (32 * MIB).to_string()),
        ("memory", "memory.swappiness", "7".into()),
        ("cpu", "cpu.shares", "300".into()),
        ("cpu", "cpu.cfs_period_us", "50000".into()),
        ("cpu", "cpu.cfs_quota_us", "20000".into()),
        ("cpuset", "cpuset.cpus", "0".into()),
        ("cpuset", "cpuset.mems", "0".into()),
        ("pids", "pids.max", "20".into()),
    ] {
        assert_eq!(limit(&bed, "web", controller, file, ""), value, "{file}");
    }
    has(&limit(&bed, "web", "memory", "memory.oom_control", ""), &["oom_kill_disable 1"]);
    let pid = bed.inspect("web")["State"]["Pid"].to_string();
    has(bed.host().shell(&format!("cat /proc/{pid}/cgroup")).ok(), &[&format!("{}/", parent)]);
    eventually("it has said so", || bed.run(&["logs", "web"]).stdout.lines().count() == 2);
    has(bed.run(&["logs", "web"]).ok(), &["300\n", "8192"]);
    let other = bed.run(&["run", "--rm", "--cgroupns", "private", "busybox", "cat", "/proc/self/cgroup"]);
    assert!(other.ok().lines().any(|line| line.ends_with("memory:/")), "{}", other.ok());
    bed.http().delete("/containers/web?force=1").expect(204);
    // The parent was asked for by name, so it stays, as it does with Docker.
    let folders = testkit::host::cgroup_folders(&parent);
    assert!(!folders.is_empty());
    for folder in folders {
        eventually("the container's cgroup goes", || fs::remove_dir(&folder).is_ok());
    }
}

#[test]
fn every_limit_reaches_the_kernel_where_there_is_one_hierarchy() {
    let bed = Bed::new();
    if bed.http().get("/info").json()["CgroupVersion"] != json!("2") {
        return;
    }
    let parent = format!("{}/inner", bed.host().cgroup());
    let host = json!({
        "Memory": 64 * MIB, "MemorySwap": 80 * MIB, "MemoryReservation": 32 * MIB, "CpuShares": 1024,
        "CpuPeriod": 50_000, "CpuQuota": 20_000, "CpusetCpus": "0", "CpusetMems": "0", "PidsLimit": 20,
        "CgroupParent": parent,
    });
    start(&bed, "web", host);
    for (file, value) in [
        ("memory.max", (64 * MIB).to_string()),
        ("memory.swap.max", (16 * MIB).to_string()),
        ("memory.low", (32 * MIB).to_string()),
        ("cpu.weight", "100".into()),
        ("cpu.max", "20000 50000".into()),
        ("cpuset.cpus", "0".into()),
        ("cpuset.mems", "0".into()),
        ("pids.max", "20".into()),
    ] {
        assert_eq!(limit(&bed, "web", "memory", "", file), value, "{file}");
    }
    let pid = bed.inspect("web")["State"]["Pid"].to_string();
    has(bed.host().shell(&format!("cat /proc/{pid}/cgroup")).ok(), &[&format!("0::{parent}/")]);
    // It sees its own group as the root, and cannot change it.
    assert_eq!(bed.run(&["exec", "web", "cat", "/proc/self/cgroup"]).ok(), "0::/");
    assert_eq!(bed.run(&["exec", "web", "cat", "/sys/fs/cgroup/pids.max"]).ok(), "20");
    let raise = bed.run(&["exec", "web", "sh", "-c", "echo max > /sys/fs/cgroup/pids.max"]);
    assert!(raise.code != 0 && raise.said().contains("Read-only file system"), "{raise:?}");
    bed.run(&["update", "--pids-limit", "30", "--memory", "70m", "--memory-swap", "70m", "web"]).ok();
    for (file, value) in
        [("pids.max", "30".into()), ("memory.max", (70 * MIB).to_string()), ("memory.swap.max", "0".into())]
    {
        assert_eq!(limit(&bed, "web", "memory", "", file), value, "{file}");
    }
    bed.http().delete("/containers/web?force=1").expect(204);
    // The parent was asked for by name, so it stays, as it does with Docker.
    let folder = std::path::PathBuf::from(format!("/sys/fs/cgroup{parent}"));
    assert!(folder.is_dir());
    eventually("the container's cgroup goes", || fs::remove_dir(&folder).is_ok());
}

#[test]
fn a_killed_child_is_told_and_the_container_lives() {
    let bed = Bed::new();
    let script = "tail /dev/zero; echo survived; sleep 1000";
    create(&bed, "web", &["sh", "-c", script], json!({ "Memory": 16 * MIB, "MemorySwap": 16 * MIB }));
    let mut events =
        bed.http().stream("GET", "/events?filters=%7B%22event%22%3A%5B%22oom%22%5D%7D").expect("a stream");
    bed.http().act("/containers/web/start").expect(204);
    let event = events.json();
    assert_eq!((&event["Action"], &event["Actor"]["Attributes"]["name"]), (&json!("oom"), &json!("web")));
    eventually("the shell goes on", || bed.run(&["logs", "web"]).stdout.contains("survived"));
    assert_eq!(bed.inspect("web")["State"]["Running"], json!(true));
    if is_corten(&bed) {
        let mut http = bed.http().with_timeout(Duration::from_secs(20));
        http.act("/containers/web/stop?t=0").expect(204);
    }
}
