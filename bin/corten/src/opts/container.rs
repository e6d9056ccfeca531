//! The flags of `run` and `create` into the body of `POST /containers/create`.

use api_types::StringMap;
use api_types::container::{
    ContainerConfig, ContainerCreate, HealthConfig, HostConfig, LogConfig, Resources, RestartPolicy,
};
use api_types::network::NetworkingConfig;
use api_types::{Empty, ObjectSet};

use super::{endpoints, kv, limits, mount, network, ports, security};
use crate::args::Matches;

/// Which streams are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attach {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Attach {
    fn of(matches: &Matches) -> Self {
        let given =
            |stream: &str| matches.list("attach").iter().any(|value| value.eq_ignore_ascii_case(stream));
        let all = !matches.has("attach") && !matches.bool("detach");
        Self {
            stdin: given("stdin") || (matches.bool("interactive") && !matches.bool("detach")),
            stdout: given("stdout") || all,
            stderr: given("stderr") || all,
        }
    }
}

fn optional(values: &[String]) -> Option<Vec<String>> {
    (!values.is_empty()).then(|| values.to_vec())
}

fn text(matches: &Matches, name: &str) -> String {
    matches.str(name).to_owned()
}

/// The body for the words of one command line: the image first, then the command.
pub fn create(matches: &Matches) -> Result<ContainerCreate, String> {
    if !matches.str("mac-address").is_empty() {
        network::mac_address(matches.str("mac-address"))?;
    }
    let attach = Attach::of(matches);
    if let Some(swappiness) = matches.int("memory-swappiness")
        && swappiness != -1
        && !(0..=100).contains(&swappiness)
    {
        return Err(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100"));
    }
    let (binds, volumes) = volumes(matches.list("volume"))?;
    let (image, command) = matches.args.split_first().ok_or("an image is needed")?;
    let (mut exposed, bindings) = ports::parse_publish(matches.list("publish"))?;
    ports::add_exposed(matches.list("expose"), &mut exposed)?;
    let resources = resources(matches)?;
    let env = kv::environment(matches.list("env-file"), matches.list("env"))?;
    let labels = kv::labels(matches.list("label-file"), matches.list("label"))?;
    modes(matches)?;
    let restart = restart_policy(matches.str("restart"))?;
    let logging = logging(matches)?;
    let security = security::parse(matches.list("security-opt"))?;
    let storage = storage(matches.list("storage-opt"))?;
    let healthcheck = healthcheck(matches)?;
    if matches.bool("rm") && !matches!(restart.name.as_str(), "" | "no") {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
    }
    let (mode, endpoints) = endpoints::endpoints(matches)?;
    let interactive = matches.bool("interactive");
    let config = ContainerConfig {
        hostname: text(matches, "hostname"),
        domainname: text(matches, "domainname"),
        user: text(matches, "user"),
        attach_stdin: attach.stdin,
        attach_stdout: attach.stdout,
        attach_stderr: attach.stderr,
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        tty: matches.bool("tty"),
        open_stdin: interactive,
        stdin_once: interactive && attach.stdin,
        env: (!env.is_empty()).then_some(env),
        cmd: optional(command),
        healthcheck,
        image: image.clone(),
        volumes: Some(volumes),
        working_dir: text(matches, "workdir"),
        entrypoint: matches.has("entrypoint").then(|| vec![text(matches, "entrypoint")]),
        labels: Some(labels),
        stop_signal: matches.has("stop-signal").then(|| text(matches, "stop-signal")),
        stop_timeout: matches.int("stop-timeout"),
        ..ContainerConfig::default()
    };
    let host = HostConfig {
        binds: optional(&binds),
        container_id_file: text(matches, "cidfile"),
        log_config: logging,
        network_mode: mode,
        port_bindings: Some(bindings),
        restart_policy: restart,
        auto_remove: matches.bool("rm"),
        volume_driver: text(matches, "volume-driver"),
        volumes_from: optional(matches.list("volumes-from")),
        annotations: matches.has("annotation").then(|| kv::map(matches.list("annotation"))),
        mounts: mounts(matches)?,
        cap_add: optional(matches.list("cap-add")),
        cap_drop: optional(matches.list("cap-drop")),
        cgroupns_mode: text(matches, "cgroupns"),
        dns: Some(matches.list("dns").to_vec()),
        dns_options: Some([matches.list("dns-option"), matches.list("dns-opt")].concat()),
        dns_search: Some(matches.list("dns-search").to_vec()),
        extra_hosts: optional(&extra_hosts(matches.list("add-host"))),
        group_add: optional(matches.list("group-add")),
        ipc_mode: text(matches, "ipc"),
        links: optional(matches.list("link")),
        oom_score_adj: matches.int("oom-score-adj").unwrap_or(0),
        pid_mode: text(matches, "pid"),
        privileged: matches.bool("privileged"),
        publish_all_ports: matches.bool("publish-all"),
        readonly_rootfs: matches.bool("read-only"),
        security_opt: optional(&security.options),
        storage_opt: storage,
        tmpfs: tmpfs(matches.list("tmpfs")),
        uts_mode: text(matches, "uts"),
        userns_mode: text(matches, "userns"),
        shm_size: matches.bytes("shm-size").unwrap_or(0),
        sysctls: matches.has("sysctl").then(|| kv::map(matches.list("sysctl"))),
        runtime: text(matches, "runtime"),
        isolation: text(matches, "isolation"),
        resources,
        masked_paths: security.paths.clone(),
        readonly_paths: security.paths,
        ..HostConfig::default()
    };
    Ok(ContainerCreate {
        config,
        host_config: Some(host),
        networking_config: Some(NetworkingConfig { endpoints_config: endpoints }),
    })
}

/// Binds, and anonymous volumes.
fn volumes(values: &[String]) -> Result<(Vec<String>, ObjectSet), String> {
    let (mut binds, mut anonymous) = (Vec::new(), ObjectSet::new());
    for value in values {
        if value.is_empty() {
            return Err("invalid empty volume spec".to_owned());
        }
        match value.split_once(':') {
            None => {
                anonymous.insert(value.clone(), Empty {});
            }
            Some(_) if value.len() <= 2 => {
                anonymous.insert(value.clone(), Empty {});
            }
            Some(("", _)) | Some((_, "")) => {
                return Err(format!("invalid spec: {value}: empty section between colons"));
            }
            Some((source, rest)) if source.starts_with('.') => {
                binds.push(format!("{}:{rest}", mount::absolute(source)));
            }
            Some(_) => binds.push(value.clone()),
        }
    }
    Ok((binds, anonymous))
}

fn mounts(matches: &Matches) -> Result<Option<Vec<api_types::container::Mount>>, String> {
    if !matches.has("mount") {
        return Ok(None);
    }
    matches.list("mount").iter().map(|value| mount::parse(value)).collect::<Result<_, _>>().map(Some)
}

fn tmpfs(values: &[String]) -> Option<StringMap> {
    (!values.is_empty()).then(|| {
        values
            .iter()
            .map(|value| {
                let (path, options) = value.split_once(':').unwrap_or((value, ""));
                (path.to_owned(), options.to_owned())
            })
            .collect()
    })
}

/// The API has a colon between name and address.
pub fn extra_hosts(values: &[String]) -> Vec<String> {
    values
        .iter()
        .map(|value| {
            let Some((name, address)) = value.split_once('=').or_else(|| value.split_once(':')) else {
                return value.clone();
            };
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            format!("{name}:{bare}")
        })
        .collect()
}

fn modes(matches: &Matches) -> Result<(), String> {
    let container = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    let pid = matches.str("pid");
    if !(matches!(pid, "" | "host" | "private") || container(pid)) {
        return Err("--pid: invalid PID mode".to_owned());
    }
    if !matches!(matches.str("uts"), "" | "host") {
        return Err("--uts: invalid UTS mode".to_owned());
    }
    if !matches!(matches.str("userns"), "" | "host") {
        return Err("--userns: invalid USER mode".to_owned());
    }
    if !matches!(matches.str("cgroupns"), "" | "host" | "private") {
        return Err("--cgroupns: invalid CGROUP mode".to_owned());
    }
    Ok(())
}

/// `no`, `always`, `unless-stopped`, `on-failure[:n]`; the daemon checks the name.
pub fn restart_policy(value: &str) -> Result<RestartPolicy, String> {
    let (name, count) = match value.split_once(':') {
        Some(("", _)) => {
            return Err("invalid restart policy format: no policy provided before colon".to_owned());
        }
        Some((name, count)) => (name, Some(count)),
        // The default is shown as `no` and sent as such.
        None if value.is_empty() => ("no", None),
        None => (value, None),
    };
    let maximum_retry_count = match count {
        Some(count) => count.parse().map_err(|_| {
            "invalid restart policy format: maximum retry count must be an integer".to_owned()
        })?,
        None => 0,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

fn logging(matches: &Matches) -> Result<LogConfig, String> {
    let driver = text(matches, "log-driver");
    let config = kv::map(matches.list("log-opt"));
    if driver == "none" && !config.is_empty() {
        return Err("invalid logging opts for driver none".to_owned());
    }
    Ok(LogConfig { driver, config })
}

fn storage(values: &[String]) -> Result<Option<StringMap>, String> {
    if values.iter().any(|value| !value.contains('=')) {
        return Err("invalid storage option".to_owned());
    }
    Ok((!values.is_empty()).then(|| kv::map(values)))
}

fn healthcheck(matches: &Matches) -> Result<Option<HealthConfig>, String> {
    let command = matches.str("health-cmd");
    let duration = |name: &str| matches.duration(name).unwrap_or(0);
    let config = HealthConfig {
        test: (!command.is_empty()).then(|| vec!["CMD-SHELL".to_owned(), command.to_owned()]),
        interval: duration("health-interval"),
        timeout: duration("health-timeout"),
        start_period: duration("health-start-period"),
        start_interval: duration("health-start-interval"),
        retries: matches.int("health-retries").unwrap_or(0),
    };
    let any = config != HealthConfig::default();
    if matches.bool("no-healthcheck") {
        if any {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }));
    }
    for (name, value) in [
        ("health-interval", config.interval),
        ("health-timeout", config.timeout),
        ("health-retries", config.retries),
        ("health-start-period", config.start_period),
        ("health-start-interval", config.start_interval),
    ] {
        if value < 0 {
            return Err(format!("--{name} cannot be negative"));
        }
    }
    Ok(any.then_some(config))
}

fn list<T>(values: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    values.iter().map(|value| parse(value)).collect()
}

/// Limits and devices.
fn resources(matches: &Matches) -> Result<Resources, String> {
    let mut devices = Vec::new();
    let mut requests = list(matches.list("gpus"), limits::parse_gpus)?;
    let mut cdi = Vec::new();
    for value in matches.list("device") {
        match limits::is_cdi(value) {
            true => cdi.push(value.clone()),
            false => devices.push(limits::parse_device(value)?),
        }
    }
    if !cdi.is_empty() {
        requests.push(api_types::container::DeviceRequest {
            driver: "cdi".to_owned(),
            device_ids: Some(cdi),
            ..Default::default()
        });
    }
    let number = |name: &str| matches.int(name).unwrap_or(0);
    let bytes = |name: &str| matches.bytes(name).unwrap_or(0);
    Ok(Resources {
        cgroup_parent: text(matches, "cgroup-parent"),
        memory: bytes("memory"),
        memory_reservation: bytes("memory-reservation"),
        memory_swap: bytes("memory-swap"),
        memory_swappiness: Some(number("memory-swappiness")).filter(|_| matches.has("memory-swappiness")),
        oom_kill_disable: Some(matches.bool("oom-kill-disable")),
        nano_cpus: matches
            .list("cpus")
            .last()
            .map(|value| crate::units::parse_cpus(value))
            .transpose()?
            .unwrap_or(0),
        cpu_count: number("cpu-count"),
        cpu_percent: number("cpu-percent"),
        cpu_shares: number("cpu-shares"),
        cpu_period: number("cpu-period"),
        cpuset_cpus: text(matches, "cpuset-cpus"),
        cpuset_mems: text(matches, "cpuset-mems"),
        cpu_quota: number("cpu-quota"),
        cpu_realtime_period: number("cpu-rt-period"),
        cpu_realtime_runtime: number("cpu-rt-runtime"),
        pids_limit: Some(number("pids-limit")),
        blkio_weight: matches.uint("blkio-weight").unwrap_or(0) as u16,
        blkio_weight_device: Some(list(matches.list("blkio-weight-device"), limits::parse_weight_device)?),
        blkio_device_read_bps: Some(list(matches.list("device-read-bps"), |v| limits::parse_rate(v, true))?),
        blkio_device_write_bps: Some(list(matches.list("device-write-bps"), |v| {
            limits::parse_rate(v, true)
        })?),
        blkio_device_read_iops: Some(list(matches.list("device-read-iops"), |v| {
            limits::parse_rate(v, false)
        })?),
        blkio_device_write_iops: Some(list(matches.list("device-write-iops"), |v| {
            limits::parse_rate(v, false)
        })?),
        io_maximum_iops: matches.uint("io-maxiops").unwrap_or(0),
        io_maximum_bandwidth: bytes("io-maxbandwidth").unsigned_abs(),
        ulimits: Some(list(matches.list("ulimit"), limits::parse_ulimit)?),
        device_cgroup_rules: optional(matches.list("device-cgroup-rule")),
        devices: Some(devices),
        device_requests: (!requests.is_empty()).then_some(requests),
        init: matches.has("init").then(|| matches.bool("init")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pairs: &[(&'static str, &str)], args: &[&str]) -> Result<ContainerCreate, String> {
        create(&Matches::from_pairs(pairs, args))
    }

    #[test]
    fn a_plain_run_attaches_output() {
        let body = body(&[], &["busybox", "true"]).expect("valid");
        assert_eq!(body.config.cmd, Some(vec!["true".to_owned()]));
        assert_eq!((body.config.attach_stdin, body.config.attach_stdout), (false, true));
        assert_eq!(body.host_config.map(|host| host.network_mode), Some("default".to_owned()));
    }

    #[test]
    fn detached_and_interactive() {
        let detached = body(&[("detach", "true"), ("interactive", "true")], &["x"]).expect("valid").config;
        assert_eq!((detached.attach_stdout, detached.open_stdin, detached.stdin_once), (false, true, false));
        let attached = body(&[("interactive", "true")], &["x"]).expect("valid").config;
        assert_eq!((attached.attach_stdin, attached.stdin_once), (true, true));
    }

    #[test]
    fn volumes_and_binds() {
        let body = body(&[("volume", "/a:/b:ro"), ("volume", "/data")], &["x"]).expect("valid");
        assert_eq!(body.host_config.and_then(|host| host.binds), Some(vec!["/a:/b:ro".to_owned()]));
        assert_eq!(body.config.volumes.map(|set| set.into_keys().collect()), Some(vec!["/data".to_owned()]));
    }

    #[test]
    fn refusals() {
        for (pairs, text) in [
            (&[("volume", "")][..], "invalid empty volume spec"),
            (&[("pid", "foo")][..], "--pid: invalid PID mode"),
            (
                &[("memory-swappiness", "200")][..],
                "invalid value: 200. Valid memory swappiness range is 0-100",
            ),
            (
                &[("rm", "true"), ("restart", "always")][..],
                "conflicting options: cannot specify both --restart and --rm",
            ),
            (
                &[("health-cmd", "x"), ("no-healthcheck", "true")][..],
                "--no-healthcheck conflicts with --health-* options",
            ),
            (&[("health-retries", "-1")][..], "--health-retries cannot be negative"),
            (&[("storage-opt", "foo")][..], "invalid storage option"),
        ] {
            assert_eq!(body(pairs, &["x"]).map(drop), Err(text.to_owned()));
        }
    }

    #[test]
    fn restart_policies() {
        let policy = |value| restart_policy(value).map(|policy| (policy.name, policy.maximum_retry_count));
        assert_eq!(policy("on-failure:3"), Ok(("on-failure".to_owned(), 3)));
        assert_eq!(policy("always"), Ok(("always".to_owned(), 0)));
        assert!(policy("on-failure:x").is_err());
        assert!(policy(":3").is_err());
    }
}
