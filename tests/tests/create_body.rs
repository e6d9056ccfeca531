//! The body of `create`, field by field: what has the wrong type is refused, what has the right one is decided on.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::{Value, json};
use testkit::http::API;
use testkit::{Bed, Http, Response};
use tests::is_corten;

/// Fields of the container's config and their types, as the API's description has them. `!` marks those where Docker
/// takes more than it describes: one string for a list.
const CONFIG: &str = "Hostname string, Domainname string, User string, AttachStdin bool, AttachStdout bool, \
    AttachStderr bool, ExposedPorts map, Tty bool, OpenStdin bool, StdinOnce bool, Env strings, Cmd strings!, \
    Healthcheck object, ArgsEscaped bool, Image string, Volumes map, WorkingDir string, Entrypoint strings!, \
    NetworkDisabled bool, OnBuild strings, Labels texts, StopSignal string, StopTimeout int, Shell strings, \
    HostConfig object, NetworkingConfig object";

const HOST: &str = "CpuShares int, Memory int, CgroupParent string, BlkioWeight small, BlkioWeightDevice objects, \
    BlkioDeviceReadBps objects, BlkioDeviceWriteBps objects, BlkioDeviceReadIOps objects, BlkioDeviceWriteIOps objects, \
    CpuPeriod int, CpuQuota int, CpuRealtimePeriod int, CpuRealtimeRuntime int, CpusetCpus string, CpusetMems string, \
    Devices objects, DeviceCgroupRules strings, DeviceRequests objects, MemoryReservation int, MemorySwap int, \
    MemorySwappiness int, NanoCpus int, OomKillDisable bool, Init bool, PidsLimit int, Ulimits objects, CpuCount int, \
    CpuPercent int, IOMaximumIOps int, IOMaximumBandwidth int, Binds strings, ContainerIDFile string, LogConfig object, \
    NetworkMode string, PortBindings map, RestartPolicy object, AutoRemove bool, VolumeDriver string, \
    VolumesFrom strings, Mounts objects, Annotations texts, CapAdd strings, CapDrop strings, CgroupnsMode string, \
    Dns strings, DnsOptions strings, DnsSearch strings, ExtraHosts strings, GroupAdd strings, IpcMode string, \
    Cgroup string, Links strings, OomScoreAdj int, PidMode string, Privileged bool, PublishAllPorts bool, \
    ReadonlyRootfs bool, SecurityOpt strings, StorageOpt texts, Tmpfs texts, UTSMode string, UsernsMode string, \
    ShmSize int, Sysctls texts, Runtime string, Isolation string, MaskedPaths strings, ReadonlyPaths strings";

fn fields(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.split(',').map(|field| field.trim().split_once(' ').expect("a name and a type"))
}

/// Values that a type does not have.
fn wrong(kind: &str) -> Vec<Value> {
    let text = json!("text");
    let number = json!(7);
    let (list, object) = (json!([]), json!({}));
    match kind {
        "string" => vec![number, json!(true), list, object],
        "bool" => vec![text, json!("true"), json!(1), list, object],
        "int" => vec![json!("7"), json!(1.5), json!(true), json!(1e300), list, object, json!(u64::MAX)],
        "small" => vec![json!("7"), json!(1.5), json!(-1), json!(65_536), list],
        "strings" => vec![text, number, object, json!([7]), json!([["x"]]), json!([{}])],
        "strings!" => vec![number, object, json!([7]), json!([["x"]])],
        "objects" => vec![text, number, object, json!(["x"]), json!([7]), json!([["x"]]), json!([[]])],
        "map" | "object" => vec![text, number, json!(true), json!([1])],
        "texts" => vec![text, number, list, json!({"k": 7}), json!({"k": {}})],
        other => panic!("no type {other}"),
    }
}

/// Values that a type has, and that nobody should choke on.
fn odd(kind: &str) -> Vec<Value> {
    let long = "x".repeat(70_000);
    let texts =
        ["", " ", "\u{0}", "../..", "/", "a:b:c:d", "%s%n", "\u{202e}", "-1", "sha256:", "container:", &long];
    match kind {
        "string" => texts.iter().map(|text| json!(text)).collect(),
        "bool" => vec![json!(true), json!(false)],
        "int" => [i64::MIN, -2, -1, 0, 1, 1 << 31, i64::MAX].iter().map(|number| json!(number)).collect(),
        "small" => vec![json!(0), json!(9), json!(65_535)],
        "strings" | "strings!" => {
            let singles = texts.iter().map(|text| json!([text]));
            singles.chain([json!([]), json!(["a", "a"])]).collect()
        }
        "objects" => vec![json!([{}]), json!([{"odd": 1}, {}]), json!([null])],
        "map" => texts.iter().map(|text| json!({*text: {}})).chain([json!({})]).collect(),
        "texts" => texts.iter().map(|text| json!({*text: text})).chain([json!({})]).collect(),
        "object" => vec![json!({}), json!({"odd": 1})],
        other => panic!("no type {other}"),
    }
}

fn create(http: &mut Http, path: [&str; 2], value: &Value) -> Response {
    let mut body = json!({"Image": "busybox", "Cmd": ["true"]});
    match path {
        ["", field] => body[field] = value.clone(),
        [part, field] => body[part] = json!({ field: value }),
    }
    let bytes = body.to_string().into_bytes();
    http.exchange("POST", &format!("{API}/containers/create"), "Content-Type: application/json\r\n", &bytes)
        .unwrap_or_else(|error| panic!("{path:?}: {value}: no answer: {error}"))
}

fn remove(http: &mut Http, answer: &Response) {
    if answer.status == 201 {
        let id = answer.json()["Id"].as_str().expect("an ID").to_owned();
        http.delete(&format!("/containers/{id}?force=1&v=1")).expect(204);
    }
}

fn every_field() -> impl Iterator<Item = ([&'static str; 2], &'static str)> {
    let config = fields(CONFIG).map(|(name, kind)| (["", name], kind));
    config.chain(fields(HOST).map(|(name, kind)| (["HostConfig", name], kind)))
}

#[test]
fn what_has_the_wrong_type_is_refused() {
    let bed = Bed::new();
    let mut http = bed.http();
    let mut taken = Vec::new();
    for (path, kind) in every_field() {
        for value in wrong(kind) {
            let answer = create(&mut http, path, &value);
            if answer.status != 400 {
                taken.push(format!("{} {value}: {}", path.join("."), answer.status));
            }
            remove(&mut http, &answer);
        }
        // Nothing is the same as not there, as for every Go program.
        let answer = create(&mut http, path, &Value::Null);
        let expected = if path[1] == "Image" { 400..=404 } else { 201..=201 };
        if !expected.contains(&answer.status) {
            taken.push(format!("{} null: {} {}", path.join("."), answer.status, answer.text()));
        }
        remove(&mut http, &answer);
    }
    if is_corten(&bed) {
        assert!(taken.is_empty(), "answered otherwise than expected:\n{}", taken.join("\n"));
    }
}

#[test]
fn what_has_the_right_type_is_decided_on() {
    let bed = Bed::new();
    let mut http = bed.http();
    let mut broken = Vec::new();
    for (path, kind) in every_field() {
        for value in odd(kind) {
            let answer = create(&mut http, path, &value);
            let mut shown = value.to_string();
            shown.truncate(shown.floor_char_boundary(60));
            match answer.status {
                201 | 400 | 404 | 409 | 501 => {}
                // What the host's devices are is found out at the start.
                status => broken.push(format!("{} {shown}: {status} {}", path.join("."), answer.text())),
            }
            let text = if answer.status == 201 { String::new() } else { answer.refused(answer.status) };
            if answer.status != 201 && text.trim().is_empty() {
                broken.push(format!("{} {shown}: refused without a word", path.join(".")));
            }
            remove(&mut http, &answer);
        }
    }
    assert!(broken.is_empty(), "neither made nor refused for a reason:\n{}", broken.join("\n"));
    assert!(!bed.log().contains("panicked"), "{}", bed.log());
}

#[test]
fn bodies_at_the_edge() {
    let bed = Bed::new();
    let mut http = bed.http();
    let mut send = |headers: &str, body: &[u8]| {
        http.exchange("POST", &format!("{API}/containers/create"), headers, body).expect("an answer")
    };
    let kind = "Content-Type: application/json\r\n";
    let answer = send(kind, br#"{"image":"busybox","CMD":["true"],"hostCONFIG":{"MEMORY":8388608}}"#);
    let id = answer.expect(201).json()["Id"].as_str().expect("an ID").to_owned();
    let deep = format!("{{\"Image\":\"busybox\",\"Labels\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(send(kind, deep.as_bytes()).status, 400);
    let wide = vec![b'x'; 20 << 20];
    assert_eq!(send(kind, &wide).status, 400);
    assert_eq!(send("", br#"{"Image":"busybox"}"#).status, 400, "no content type");
    assert_eq!(send("Content-Type: text/plain\r\n", br#"{"Image":"busybox"}"#).status, 400);
    assert_eq!(send(kind, b"").status, 400);
    assert_eq!(bed.inspect(&id)["HostConfig"]["Memory"], json!(8_388_608));
    for (method, path, status) in [
        ("HEAD", "/_ping", 200),
        ("OPTIONS", "/v1.41/containers/json", 200),
        ("GET", "/v1.23/info", 400),
        ("GET", "/v9.99/info", 400),
        ("GET", "/vx/info", 404),
        ("PATCH", "/v1.41/info", 404),
        ("GET", "/v1.41/containers/%2e%2e%2f/json", 404),
        ("GET", "//", 404),
    ] {
        let answer = bed.http().exchange(method, path, "", b"").expect("an answer");
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

#[test]
fn many_clients_and_slow_ones_hold_nobody_up() {
    use std::io::{Read, Write};
    let bed = Bed::new();
    let connect = || std::os::unix::net::UnixStream::connect(bed.socket()).expect("a connection");
    // Half a request each, and then silence.
    let slow: Vec<_> = (0..500)
        .map(|_| {
            let mut stream = connect();
            stream
                .write_all(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
                .expect("sent");
            stream
        })
        .collect();
    let mut idle: Vec<_> = (0..500).map(|_| connect()).collect();
    bed.http().get("/_ping").expect(200);
    bed.run(&["run", "--rm", "busybox", "true"]).ok();
    let mut last = idle.pop().expect("a connection");
    last.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    last.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    drop((slow, idle));
    testkit::process::eventually("their descriptors are free again", || {
        bed.http().get("/info").json()["NFd"].as_i64().is_some_and(|count| count < 200)
    });
}

/// Objects within the body: where they are, and the fields that they have. `X` stands for the field under test.
const NESTED: [(&str, &str); 15] = [
    (
        r#"{"Healthcheck": X}"#,
        "Test strings, Interval int, Timeout int, Retries int, StartPeriod int, StartInterval int",
    ),
    (r#"{"HostConfig": {"LogConfig": X}}"#, "Type string, Config texts"),
    (r#"{"HostConfig": {"RestartPolicy": X}}"#, "Name string, MaximumRetryCount int"),
    (r#"{"HostConfig": {"PortBindings": {"80/tcp": [X]}}}"#, "HostIp string, HostPort string"),
    (
        r#"{"HostConfig": {"Devices": [X]}}"#,
        "PathOnHost string, PathInContainer string, CgroupPermissions string",
    ),
    (
        r#"{"HostConfig": {"DeviceRequests": [X]}}"#,
        "Driver string, Count int, DeviceIDs strings, Capabilities lists, Options texts",
    ),
    (r#"{"HostConfig": {"Ulimits": [X]}}"#, "Name string, Soft int, Hard int"),
    (r#"{"HostConfig": {"BlkioWeightDevice": [X]}}"#, "Path string, Weight small"),
    (r#"{"HostConfig": {"BlkioDeviceReadBps": [X]}}"#, "Path string, Rate count"),
    (
        r#"{"HostConfig": {"Mounts": [X]}}"#,
        "Type string, Source string, Target string, ReadOnly bool, Consistency string, BindOptions object, \
         VolumeOptions object, ImageOptions object, TmpfsOptions object",
    ),
    (
        r#"{"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/tmp", "Target": "/x", "BindOptions": X}]}}"#,
        "Propagation string, NonRecursive bool, CreateMountpoint bool, ReadOnlyNonRecursive bool, \
         ReadOnlyForceRecursive bool",
    ),
    (
        r#"{"HostConfig": {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": X}]}}"#,
        "NoCopy bool, Labels texts, DriverConfig object, Subpath string",
    ),
    (
        r#"{"HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": X}]}}"#,
        "SizeBytes int, Mode count, Options lists",
    ),
    (
        r#"{"NetworkingConfig": {"EndpointsConfig": {"bridge": X}}}"#,
        "IPAMConfig object, Links strings, MacAddress string, Aliases strings, DriverOpts texts, GwPriority int",
    ),
    (
        r#"{"NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": X}}}}"#,
        "IPv4Address string, IPv6Address string, LinkLocalIPs strings",
    ),
];

fn create_nested(http: &mut Http, place: &str, field: &str, value: &Value) -> Response {
    let inner = json!({ field: value }).to_string();
    let mut body: Value = serde_json::from_str(&place.replace('X', &inner)).expect("a body");
    (body["Image"], body["Cmd"]) = (json!("busybox"), json!(["true"]));
    let bytes = body.to_string().into_bytes();
    http.exchange("POST", &format!("{API}/containers/create"), "Content-Type: application/json\r\n", &bytes)
        .unwrap_or_else(|error| panic!("{body}: no answer: {error}"))
}

fn every_nested_field() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    NESTED.iter().flat_map(|(place, table)| fields(table).map(|(field, kind)| (*place, field, kind)))
}

#[test]
fn what_has_the_wrong_type_is_refused_at_every_depth() {
    let bed = Bed::new();
    let mut http = bed.http();
    let mut taken = Vec::new();
    for (place, field, kind) in every_nested_field() {
        let values = match kind {
            "lists" => vec![json!("x"), json!(7), json!({}), json!(["x"]), json!([7]), json!([["x", 7]])],
            "count" => vec![json!("7"), json!(1.5), json!(-1), json!(true), json!([])],
            kind => wrong(kind),
        };
        for value in values {
            let answer = create_nested(&mut http, place, field, &value);
            if answer.status != 400 {
                taken.push(format!("{place} {field} {value}: {} {}", answer.status, answer.text()));
            }
            remove(&mut http, &answer);
        }
    }
    if is_corten(&bed) {
        assert!(taken.is_empty(), "answered otherwise than expected:\n{}", taken.join("\n"));
    }
}

#[test]
fn what_has_the_right_type_is_decided_on_at_every_depth() {
    let bed = Bed::new();
    let mut http = bed.http();
    let mut broken = Vec::new();
    for (place, field, kind) in every_nested_field() {
        let values = match kind {
            "lists" => {
                vec![json!([]), json!([[]]), json!([[""], ["a", "b", "c"]]), json!([["size", "\u{0}"]])]
            }
            "count" => vec![json!(0), json!(1), json!(u32::MAX), json!(i64::MAX)],
            kind => odd(kind),
        };
        for value in values {
            let answer = create_nested(&mut http, place, field, &value);
            let mut shown = value.to_string();
            shown.truncate(shown.floor_char_boundary(60));
            let text = answer.text();
            if !matches!(answer.status, 201 | 400 | 404 | 409 | 501) || text.trim().is_empty() {
                broken.push(format!("{place} {field} {shown}: {} {text}", answer.status));
            }
            remove(&mut http, &answer);
        }
    }
    assert!(broken.is_empty(), "neither made nor refused for a reason:\n{}", broken.join("\n"));
    assert!(!bed.log().contains("panicked"), "{}", bed.log());
    assert_eq!(bed.http().get("/containers/json?all=1").json(), json!([]), "something was left");
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    let bed = Bed::new();
    let mut http = bed.http();
    if !is_corten(&bed) {
        return;
    }
    for (place, field, value, status, said) in [
        (
            r#"{"NetworkingConfig": {"EndpointsConfig": {"bridge": X}}}"#,
            "DriverOpts",
            json!({"com.docker.network.endpoint.ifname": "wan0"}),
            501,
            "options of a network's driver (DriverOpts)",
        ),
        (
            r#"{"NetworkingConfig": {"EndpointsConfig": {"bridge": X}}}"#,
            "Links",
            json!(["other:alias"]),
            400,
            "links are only supported for user-defined networks",
        ),
        (
            r#"{"NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": X}}}}"#,
            "LinkLocalIPs",
            json!(["169.254.1.2"]),
            501,
            "link-local addresses",
        ),
        (r#"{"HostConfig": X}"#, "Cgroup", json!("container:other"), 501, "Cgroup"),
    ] {
        let answer = create_nested(&mut http, place, field, &value);
        let text = answer.refused(status);
        assert!(text.contains(said), "{field}: {text}");
    }
    for (field, said) in
        [("CpuCount", "does not support CPU count"), ("CpuPercent", "does not support CPU percent")]
    {
        let made = create_nested(&mut http, r#"{"HostConfig": X}"#, field, &json!(2)).expect(201);
        assert!(made.json()["Warnings"].to_string().contains(said), "{}", made.text());
    }
}
