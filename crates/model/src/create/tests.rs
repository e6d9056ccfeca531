//! Create requests that are refused, and what an accepted one becomes.

use api_types::container::{Resources, RestartPolicy};
use proptest::prelude::*;

use super::*;

pub(crate) fn everything() -> limits::Controllers {
    limits::Controllers {
        memory: true,
        memory_reservation: true,
        swap: true,
        swappiness: true,
        oom_kill_disable: true,
        pids: true,
        cpu_shares: true,
        cpu_quota: true,
        cpu_realtime: false,
        cpuset: true,
        cpus: "0-1".into(),
        mems: "0".into(),
        block_io_weight: true,
        block_io_weight_device: true,
        block_io_throttle: true,
        cgroup_namespace: true,
    }
}

pub(crate) fn facts() -> HostFacts {
    HostFacts {
        cpus: 2,
        cgroup_v2: false,
        cgroup_systemd: false,
        controllers: everything(),
        memory: 8 << 30,
        log: LogConfig { driver: "json-file".into(), config: Default::default() },
        shm_size: 64 << 20,
        cgroup_parent: "/corten".into(),
        stop_timeout: 10,
        runtimes: vec!["corten".into(), "runc".into()],
        ..HostFacts::default()
    }
}

fn image() -> ImageFacts {
    let config = ContainerConfig {
        env: Some(vec!["PATH=/bin".into(), "A=image".into()]),
        cmd: Some(vec!["sh".into()]),
        labels: Some([("from".to_string(), "image".to_string())].into()),
        ..ContainerConfig::default()
    };
    ImageFacts { id: "sha256:1".into(), manifest: None, config }
}

fn decide(request: ContainerCreate) -> Result<(Record, Vec<String>), Refusal> {
    create(
        request,
        Given {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            now: 5,
            image: &image(),
            host: &facts(),
            mounts: mounts::Outside {
                exists: &|_| false,
                volume_name: &|| "0".repeat(64),
                mounts_of: &|_| Ok(Vec::new()),
                image: &|name| Ok(name.into()),
            },
            container: &|name| match name {
                "db" => Ok("dbdb".into()),
                _ => Err(Refusal::not_found(format!("No such container: {name}"))),
            },
            link_target: &|name| match name {
                "db" => Ok(LinkTarget { id: "dbdb".into(), name: "db".into(), network: NetworkChoice::None }),
                "side" => Ok(LinkTarget {
                    id: "side".into(),
                    name: "side".into(),
                    network: NetworkChoice::Container("db".into()),
                }),
                "bare" => {
                    Ok(LinkTarget { id: "bare".into(), name: "bare".into(), network: NetworkChoice::Host })
                }
                _ => Err(Refusal::not_found(format!("No such container: {name}"))),
            },
            others: security::Others { has_level: &|_| false, process: &|_| None },
        },
    )
}

fn request(body: &str) -> ContainerCreate {
    api_types::from_json(body.as_bytes()).unwrap()
}

fn refused(body: &str) -> String {
    decide(request(body)).unwrap_err().message
}

#[test]
fn defaults_come_from_image_and_host() {
    let (record, warnings) =
        decide(request(r#"{"Image":"busybox","Env":["A=own","B=1"],"Labels":{"x":"y"}}"#)).unwrap();
    assert_eq!(record.command(), ["sh"]);
    assert_eq!(record.config.env.unwrap(), ["A=own", "B=1", "PATH=/bin"]);
    assert_eq!(record.config.hostname, "0123456789ab");
    assert_eq!(record.config.labels.unwrap().len(), 2);
    assert_eq!(record.host_config.network_mode, "bridge");
    assert_eq!(record.host_config.shm_size, 64 << 20);
    assert_eq!(record.host_config.ipc_mode, "private");
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn an_entrypoint_hides_the_image_s_command() {
    let (record, _) = decide(request(r#"{"Entrypoint":["/bin/echo"]}"#)).unwrap();
    assert_eq!(record.command(), ["/bin/echo"]);
}

#[test]
fn texts_that_clients_match() {
    for (host, text) in [
        (r#""Memory":1"#, "Minimum memory limit allowed is 6MB"),
        (
            r#""Memory":10000000,"MemorySwap":9000000"#,
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            r#""MemorySwap":9000000"#,
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            r#""NanoCpus":5000000000"#,
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (r#""CpusetCpus":"0-9""#, "Requested CPUs are not available - requested 0-9, available: 0-1"),
        (r#""CpusetCpus":"x""#, "Invalid value x for cpuset cpus"),
        (r#""BlkioWeight":5"#, "Range of blkio weight is from 10 to 1000"),
        (r#""IpcMode":"odd""#, "invalid IPC mode: odd"),
        (r#""PidMode":"container:""#, "invalid PID mode: container:"),
        (r#""OomScoreAdj":2000"#, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        (
            r#""AutoRemove":true,"RestartPolicy":{"Name":"always"}"#,
            "can't create 'AutoRemove' container with restart policy",
        ),
        (r#""NetworkMode":"container:gone""#, "No such container: gone"),
        (r#""Runtime":"odd""#, "unknown or invalid runtime name: odd"),
        (
            r#""StorageOpt":{"size":"1g"}"#,
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ),
        (r#""SecurityOpt":["odd=1"]"#, "invalid --security-opt 2: \"odd=1\""),
        (r#""NetworkMode":"mine""#, "network mine not found"),
        (r#""LogConfig":{"Type":"odd"}"#, "logger: no log driver named 'odd' is registered"),
        (r#""CapAdd":["odd"]"#, "invalid CapAdd: unknown capability: \"CAP_ODD\""),
    ] {
        assert_eq!(refused(&format!(r#"{{"HostConfig":{{{host}}}}}"#)), text);
    }
    assert_eq!(
        refused(r#"{"WorkingDir":"here"}"#),
        "the working directory 'here' is invalid, it needs to be an absolute path"
    );
    assert_eq!(
        refused(r#"{"Hostname":"h","HostConfig":{"NetworkMode":"container:db"}}"#),
        "conflicting options: hostname and the network mode"
    );
}

#[test]
fn what_the_host_lacks_is_left_out_with_a_warning() {
    let host = HostFacts { controllers: limits::Controllers::default(), ..facts() };
    let mut asked: Resources = serde_json::from_str(
        r#"{"Memory":10000000,"MemoryReservation":9000000,"MemorySwappiness":5,"OomKillDisable":true,"PidsLimit":5,
        "CpuShares":5,"CpuQuota":5000,"CpuPercent":5,"CpusetCpus":"7","BlkioWeight":100,
        "BlkioWeightDevice":[{"Path":"/dev/sda","Weight":100}],"BlkioDeviceReadBps":[{"Path":"/dev/sda","Rate":1}],
        "BlkioDeviceWriteBps":[{"Path":"/dev/sda","Rate":1}],"BlkioDeviceReadIOps":[{"Path":"/dev/sda","Rate":1}],
        "BlkioDeviceWriteIOps":[{"Path":"/dev/sda","Rate":1}]}"#,
    )
    .unwrap();
    let mut warnings = Vec::new();
    limits::check(&mut asked, &host, limits::Purpose::Create, &mut warnings).unwrap();
    let lacks = |what: &str| format!("Your kernel does not support {what}");
    let not_mounted =
        |what: &str, discarded: &str| lacks(&format!("{what} or the cgroup is not mounted. {discarded}"));
    assert_eq!(
        warnings,
        [
            not_mounted("memory limit capabilities", "Limitation discarded."),
            not_mounted("memory swappiness capabilities", "Memory swappiness discarded."),
            not_mounted("memory soft limit capabilities", "Limitation discarded."),
            lacks("OomKillDisable. OomKillDisable discarded."),
            not_mounted("PIDs limit capabilities", "PIDs limit discarded."),
            not_mounted("CPU shares", "Shares discarded."),
            lacks("CPU CFS scheduler. CPU period/quota discarded."),
            "linux does not support CPU percent. Percent discarded.".into(),
            not_mounted("cpuset", "Cpuset discarded."),
            not_mounted("Block I/O weight", "Weight discarded."),
            not_mounted("Block I/O weight_device", "Weight-device discarded."),
            not_mounted("BPS Block I/O read limit", "Block I/O BPS read limit discarded."),
            not_mounted("BPS Block I/O write limit", "Block I/O BPS write limit discarded."),
            not_mounted("IOPS Block read limit", "Block I/O IOPS read limit discarded."),
            not_mounted("IOPS Block write limit", "Block I/O IOPS write limit discarded."),
        ]
    );
    assert_eq!(asked, Resources { memory_swap: -1, ..Resources::default() });
    let mut asked = Resources { memory: 10_000_000, ..Resources::default() };
    warnings.clear();
    let host = HostFacts { controllers: limits::Controllers { swap: false, ..everything() }, ..facts() };
    limits::check(&mut asked, &host, limits::Purpose::Create, &mut warnings).unwrap();
    assert_eq!(warnings, [not_mounted("swap limit capabilities", "Memory limited without swap.")]);
}

#[test]
fn parents_of_cgroups() {
    let decide = |parent: &str, cgroup_systemd: bool| {
        let mut host = HostConfig::default();
        host.resources.cgroup_parent = parent.into();
        check_cgroup(&mut host, &HostFacts { cgroup_systemd, ..facts() }, &mut Vec::new())
            .map_err(|refusal| refusal.message)
    };
    let slice = "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"";
    assert_eq!(
        (decide("/a/b", false), decide("", true), decide("a-b.slice", true)),
        (Ok(()), Ok(()), Ok(()))
    );
    for bad in ["/a", ".slice", "a/b.slice"] {
        assert_eq!(decide(bad, true), Err(slice.into()), "{bad}");
    }
    assert!(decide("/a/../b", false).is_err());
}

#[test]
fn sharing_a_network_names_the_other_by_its_id() {
    let (record, _) = decide(request(r#"{"HostConfig":{"NetworkMode":"container:db"}}"#)).unwrap();
    assert_eq!(record.network, NetworkChoice::Container("dbdb".into()));
    assert_eq!(record.host_config.network_mode, "container:dbdb");
}

#[test]
fn restart_policies() {
    let decide = |name: &str, count: i64| {
        let mut request = request("{}");
        let host = request.host_config.get_or_insert_default();
        host.restart_policy = RestartPolicy { name: name.into(), maximum_retry_count: count };
        decide(request)
            .map(|(record, _)| record.host_config.restart_policy.name)
            .map_err(|refusal| refusal.message)
    };
    assert_eq!(decide("", 0).unwrap(), "no");
    assert_eq!(decide("on-failure", 3).unwrap(), "on-failure");
    assert!(decide("always", 3).unwrap_err().contains("can only be used with 'on-failure'"));
    assert!(decide("sometimes", 0).unwrap_err().contains("unknown policy 'sometimes'"));
}

#[test]
fn sizes() {
    for (text, size) in
        [("10", Some(10)), ("10m", Some(10 << 20)), ("1.5GB", Some(3 << 29)), ("x", None), ("1x", None)]
    {
        assert_eq!(parse_size(text), size, "{text}");
    }
}

proptest! {
    /// Whatever text stands in a field, it is decided on, without a panic.
    #[test]
    fn any_text_is_decided(text in "\\PC{0,20}", number in any::<i64>()) {
        for field in ["IpcMode", "PidMode", "NetworkMode", "CpusetCpus", "Runtime", "UsernsMode", "CgroupnsMode"] {
            let body = serde_json::json!({"HostConfig": {field: text}});
            let _ = decide(request(&body.to_string()));
        }
        for field in ["Memory", "MemorySwap", "NanoCpus", "CpuPeriod", "CpuQuota", "ShmSize", "OomScoreAdj", "PidsLimit"] {
            let body = serde_json::json!({"HostConfig": {field: number}});
            let _ = decide(request(&body.to_string()));
        }
        for field in ["Binds", "SecurityOpt", "CapAdd", "DeviceCgroupRules"] {
            let body = serde_json::json!({"HostConfig": {field: [text]}});
            let _ = decide(request(&body.to_string()));
        }
        let body = serde_json::json!({"ExposedPorts": {&text: {}}, "HostConfig": {"PortBindings": {&text: [{"HostPort": text}]}}});
        let _ = decide(request(&body.to_string()));
    }
}
