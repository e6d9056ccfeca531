//! Creating a container: the request, checked, completed from the image and the host, as a record.

pub mod limits;

use std::path::Path;

use api_types::container::{
    ContainerConfig, ContainerCreate, HostConfig, LogConfig, Resources, RestartPolicy, Ulimit,
};
use api_types::network::EndpointSettings;
use oci::Descriptor;
use serde::{Deserialize, Serialize};

use crate::links::Link;
use crate::logging::{self, Address, Logging, Receiver};
use crate::mounts::{self, ContainerMount};
use crate::remap::{self, Remap};
use crate::security::{self, Labels, SecurityFacts};
use crate::time::UnixNanos;
use crate::{Refusal, capabilities, health, links, ports, signal};

/// What the host has and the daemon was told; found out once at start.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    pub cpus: u32,
    pub cgroup_v2: bool,
    /// Cgroups are made by systemd: parents are slices.
    pub cgroup_systemd: bool,
    pub controllers: limits::Controllers,
    /// Bytes of memory.
    pub memory: u64,
    pub log: LogConfig,
    /// Bytes.
    pub shm_size: i64,
    pub cgroup_parent: String,
    /// Seconds.
    pub stop_timeout: i64,
    pub security: SecurityFacts,
    /// Containers run in a user namespace of their own unless they opt out.
    pub remap: Option<Remap>,
    /// Quotas of projects limit what a writable layer holds.
    pub layer_quota: bool,
    /// For containers that do not set them.
    pub ulimits: Vec<Ulimit>,
    /// Of containers that name none; empty: `private`.
    pub ipc_mode: String,
    /// Of containers that name none; empty: what fits the version of the cgroups.
    pub cgroupns_mode: String,
    pub no_new_privileges: bool,
    /// An init for containers that say nothing of it.
    pub init: bool,
    /// The names by which a runtime can be asked for; the first is the default.
    pub runtimes: Vec<String>,
}

/// The image that a container is made of.
#[derive(Debug, Clone, Default)]
pub struct ImageFacts {
    /// `sha256:…`
    pub id: String,
    /// Its manifest, with the platform that it is for.
    pub manifest: Option<Descriptor>,
    pub config: ContainerConfig,
}

/// A container as it is stored: everything that is not its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    pub created: UnixNanos,
    pub image_id: String,
    /// The manifest by which the image was found, with its platform: another may name the same image later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_manifest: Option<Descriptor>,
    pub config: ContainerConfig,
    pub host_config: HostConfig,
    pub mounts: Vec<ContainerMount>,
    pub network: NetworkChoice,
    /// Containers that it is linked to; the host part has none of them left.
    #[serde(default)]
    pub links: Vec<Link>,
    #[serde(default)]
    pub labels: Labels,
    /// What the daemon was told when the container was created, for containers that say nothing of it.
    #[serde(default)]
    pub no_new_privileges: bool,
}

/// Where a container's network comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NetworkChoice {
    /// Shares the host's.
    Host,
    /// Only a loopback device.
    None,
    /// The default bridge, with what was asked of the endpoint.
    Bridge(Box<EndpointSettings>),
    /// Shares that of another container, named by its ID.
    Container(String),
}

impl Record {
    /// Program and arguments.
    pub fn command(&self) -> Vec<String> {
        let parts = [&self.config.entrypoint, &self.config.cmd];
        parts.into_iter().flatten().flatten().cloned().collect()
    }

    /// Names or IDs of the containers whose namespaces it joins, or that it is linked to.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        let network = match &self.network {
            NetworkChoice::Container(other) => Some(other.as_str()),
            _ => None,
        };
        let modes = [&self.host_config.pid_mode, &self.host_config.ipc_mode];
        let joined = modes.into_iter().filter_map(|mode| mode.strip_prefix("container:"));
        network.into_iter().chain(joined).chain(self.links.iter().map(|link| link.container.as_str()))
    }

    /// The signal that asks it to end.
    pub fn stop_signal(&self) -> i32 {
        self.config.stop_signal.as_deref().and_then(signal::parse).unwrap_or(signal::TERM)
    }
}

/// What comes from outside the request.
pub struct Given<'a> {
    pub id: String,
    /// The checked name.
    pub name: String,
    pub now: UnixNanos,
    pub image: &'a ImageFacts,
    pub host: &'a HostFacts,
    /// Finds the full ID of a container by name or ID.
    pub container: &'a dyn Fn(&str) -> Result<String, Refusal>,
    /// Name, ID and network of a container that is found by name or ID.
    pub link_target: &'a dyn Fn(&str) -> Result<LinkTarget, Refusal>,
    pub others: security::Others<'a>,
    /// What mounts refer to.
    pub mounts: mounts::Outside<'a>,
}

/// A container that a link is to lead to.
pub struct LinkTarget {
    pub id: String,
    pub name: String,
    pub network: NetworkChoice,
}

/// Decides on a create request: the record to store, and warnings for the client.
pub fn create(request: ContainerCreate, given: Given<'_>) -> Result<(Record, Vec<String>), Refusal> {
    let mut warnings = Vec::new();
    let mut config = request.config;
    let mut host = request.host_config.unwrap_or_default();
    check_shared_network(&config, &host)?;
    inherit(&mut config, &given.image.config);
    if request.no_image_volumes {
        config.volumes = None;
    }
    if config.cmd.iter().flatten().chain(config.entrypoint.iter().flatten()).next().is_none() {
        return Err(Refusal::invalid("no command specified"));
    }
    let network = network(&mut config, &mut host, request.networking_config, &given)?;
    let links = links(host.links.take(), &given)?;
    check_config(&mut config, &given.id, &network, &host)?;
    check_modes(&mut host, given.host)?;
    inherit_limits(&mut host.resources, given.host);
    limits::check(&mut host.resources, given.host, limits::Purpose::Create, &mut warnings)?;
    check_cgroup(&mut host, given.host, &mut warnings)?;
    if matches!(network, NetworkChoice::Host) && host.port_bindings.iter().flatten().next().is_some() {
        warnings.push("Published ports are discarded when using host network mode".into());
    }
    let mounts = mounts::resolve(&host, &config, &given.mounts)?;
    let (facts, cgroup_v2) = (&given.host.security, given.host.cgroup_v2);
    security::complete(&mut host)?;
    let labels = security::labels(&host, facts, cgroup_v2, &given.id, given.others, &mut warnings)?;
    let record = Record {
        id: given.id,
        name: given.name,
        created: given.now,
        image_id: given.image.id.clone(),
        image_manifest: given.image.manifest.clone(),
        config,
        host_config: host,
        mounts,
        network,
        links,
        labels,
        no_new_privileges: given.host.no_new_privileges,
    };
    check_log(&record, given.mounts.exists)?;
    Ok((record, warnings))
}

/// Completes a request by what the daemon was told.
fn inherit_limits(limits: &mut Resources, facts: &HostFacts) {
    for limit in &facts.ulimits {
        let own = limits.ulimits.get_or_insert_default();
        if !own.iter().any(|one| one.name == limit.name) {
            own.push(limit.clone());
        }
    }
    if facts.init && limits.init.is_none() {
        limits.init = Some(true);
    }
}

/// Completes a request by its image, as Docker merges the two.
fn inherit(config: &mut ContainerConfig, image: &ContainerConfig) {
    if config.user.is_empty() {
        config.user = image.user.clone();
    }
    if config.working_dir.is_empty() {
        config.working_dir = image.working_dir.clone();
    }
    if let Some(ports) = &image.exposed_ports {
        let own = config.exposed_ports.get_or_insert_default();
        ports.keys().for_each(|port| {
            own.entry(port.clone()).or_default();
        });
    }
    if let Some(volumes) = &image.volumes {
        let own = config.volumes.get_or_insert_default();
        own.extend(volumes.keys().map(|path| (path.clone(), Default::default())));
    }
    let own = config.env.get_or_insert_default();
    let inherited: Vec<String> = image
        .env
        .iter()
        .flatten()
        .filter(|variable| !own.iter().any(|one| variable_name(one) == variable_name(variable)))
        .cloned()
        .collect();
    own.extend(inherited);
    let labels = config.labels.get_or_insert_default();
    for (key, value) in image.labels.iter().flatten() {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    // An entrypoint of the request's own hides the image's command; an empty string in it resets the image's.
    match &config.entrypoint {
        None => {
            if config.cmd.as_ref().is_none_or(Vec::is_empty) {
                config.cmd = image.cmd.clone();
            }
            config.entrypoint = image.entrypoint.clone();
        }
        Some(entrypoint) if entrypoint.is_empty() || entrypoint == &[""] => config.entrypoint = None,
        Some(_) => {}
    }
    health::inherit(&mut config.healthcheck, image.healthcheck.as_ref());
    if config.stop_signal.is_none() {
        config.stop_signal = image.stop_signal.clone();
    }
    if config.shell.is_none() {
        config.shell = image.shell.clone();
    }
}

fn variable_name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// Refuses what a container cannot have for itself when it shares a network or a host name. The image has not been
/// looked at: what it exposes, say, is no conflict.
fn check_shared_network(config: &ContainerConfig, host: &HostConfig) -> Result<(), Refusal> {
    let links = host.links.iter().flatten().next().is_some();
    let conflicts = if let Some(other) = host.network_mode.strip_prefix("container:") {
        if other.is_empty() {
            return Err(Refusal::invalid(
                "invalid network mode: invalid container format container:<name|id>",
            ));
        }
        let publishes = host.port_bindings.iter().flatten().next().is_some() || host.publish_all_ports;
        vec![
            (!config.hostname.is_empty(), "hostname and the network mode"),
            (
                links,
                "container type network can't be used with links. This would result in undefined behavior",
            ),
            (host.dns.iter().flatten().next().is_some(), "dns and the network mode"),
            (
                host.extra_hosts.iter().flatten().next().is_some(),
                "custom host-to-IP mapping and the network mode",
            ),
            (
                config.mac_address.as_ref().is_some_and(|mac| !mac.is_empty()),
                "mac-address and the network mode",
            ),
            (publishes, "port publishing and the container type network mode"),
            (
                config.exposed_ports.iter().flatten().next().is_some(),
                "port exposing and the container type network mode",
            ),
        ]
    } else {
        vec![
            (host.uts_mode == "host" && !config.hostname.is_empty(), "hostname and the UTS mode"),
            (
                host.network_mode == "host" && links,
                "host type networking can't be used with links. This would result in undefined behavior",
            ),
        ]
    };
    match conflicts.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(Refusal::invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

fn network(
    config: &mut ContainerConfig,
    host: &mut HostConfig,
    networking: Option<api_types::network::NetworkingConfig>,
    given: &Given<'_>,
) -> Result<NetworkChoice, Refusal> {
    let mut endpoints = networking.unwrap_or_default().endpoints_config;
    if host.network_mode.is_empty() || host.network_mode == "default" {
        host.network_mode = "bridge".into();
    }
    let mode = host.network_mode.clone();
    if config.network_disabled {
        return Ok(NetworkChoice::None);
    }
    if let Some(other) = mode.strip_prefix("container:") {
        // Not "not found": clients would take the image for missing, pull it and ask again.
        let id = (given.container)(other).map_err(|refusal| Refusal::invalid(refusal.message))?;
        if id == given.id {
            return Err(Refusal::invalid("cannot join own network"));
        }
        host.network_mode = format!("container:{id}");
        return Ok(NetworkChoice::Container(id));
    }
    if let Some(other) = endpoints.keys().find(|name| **name != mode && *name != "default") {
        return Err(Refusal::not_implemented(&format!("connecting a container to the network {other}")));
    }
    let settings = endpoints.remove(&mode).or_else(|| endpoints.remove("default")).unwrap_or_default();
    match mode.as_str() {
        "host" => Ok(NetworkChoice::Host),
        "none" => Ok(NetworkChoice::None),
        "bridge" => {
            let invalid = |what: &str| Refusal::invalid(format!("invalid endpoint settings:\n{what}"));
            let ipam = settings.ipam_config.clone().unwrap_or_default();
            if !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty() {
                return Err(invalid("user-specified IP address is supported on user-defined networks only"));
            }
            if settings.aliases.iter().flatten().next().is_some() {
                return Err(invalid("network-scoped aliases are only supported for user-defined networks"));
            }
            let some = |list: &Option<Vec<String>>| list.iter().flatten().next().is_some();
            if some(&settings.links) {
                return Err(Refusal::invalid("links are only supported for user-defined networks"));
            }
            if some(&ipam.link_local_ips) {
                return Err(Refusal::not_implemented("link-local addresses (LinkLocalIPs)"));
            }
            if settings.driver_opts.iter().flatten().next().is_some() {
                return Err(Refusal::not_implemented("options of a network's driver (DriverOpts)"));
            }
            Ok(NetworkChoice::Bridge(Box::new(settings)))
        }
        // Again not "not found".
        other => Err(Refusal::invalid(format!("network {other} not found")).hint(
            "user-defined networks are not supported by Corten yet; use bridge, host, none or container:NAME",
        )),
    }
}

/// The containers that `--link` names. One that shares another's network stands for that one.
fn links(wanted: Option<Vec<String>>, given: &Given<'_>) -> Result<Vec<Link>, Refusal> {
    let mut links: Vec<Link> = Vec::new();
    for text in wanted.iter().flatten() {
        let (name, alias) = links::parse(text)?;
        let missing = |refusal: Refusal| {
            // Not "not found": clients would take the image for missing.
            Refusal::invalid(format!("could not get container for {name}: {}", refusal.message))
        };
        let mut target = (given.link_target)(name).map_err(missing)?;
        while let NetworkChoice::Container(other) = &target.network {
            target = (given.link_target)(other).map_err(missing)?;
        }
        if matches!(target.network, NetworkChoice::Host) {
            return Err(Refusal::invalid(
                "conflicting options: host type networking can't be used with links. This would result in undefined \
                 behavior",
            ));
        }
        // As with Docker, the first of an alias counts.
        if !links.iter().any(|link| link.alias == alias) {
            links.push(Link { container: target.id, name: target.name, alias: alias.into() });
        }
    }
    Ok(links)
}

fn check_config(
    config: &mut ContainerConfig,
    id: &str,
    network: &NetworkChoice,
    host: &HostConfig,
) -> Result<(), Refusal> {
    if !config.working_dir.is_empty() {
        if !config.working_dir.starts_with('/') {
            return Err(Refusal::invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        config.working_dir = mounts::clean(&config.working_dir).to_string_lossy().into_owned();
    }
    if config.hostname.len() > 63 {
        return Err(Refusal::invalid(format!(
            "hostname \"{}\" is too long (maximum 63 bytes)",
            config.hostname
        )));
    }
    let shares_name = matches!(network, NetworkChoice::Host | NetworkChoice::Container(_));
    if config.hostname.is_empty() && !shares_name {
        config.hostname = id.chars().take(12).collect();
    }
    for variable in config.env.iter().flatten() {
        if variable_name(variable).is_empty() || variable.contains('\0') {
            return Err(Refusal::invalid(format!("invalid environment variable: {variable}")));
        }
    }
    if let Some(text) = &config.stop_signal
        && signal::parse(text).is_none()
    {
        return Err(Refusal::invalid(format!("Invalid signal: {text}")));
    }
    host.extra_hosts.iter().flatten().try_for_each(|entry| check_extra_host(entry))?;
    ports::exposed(config.exposed_ports.as_ref().unwrap_or(&Default::default()))?;
    ports::publications(host.port_bindings.as_ref().unwrap_or(&Default::default()))?;
    config.healthcheck.as_ref().map_or(Ok(()), health::check)
}

/// `NAME:ADDRESS`; the address may be `host-gateway`.
fn check_extra_host(entry: &str) -> Result<(), Refusal> {
    let Some((name, address)) = entry.split_once(':').filter(|(name, _)| !name.is_empty()) else {
        return Err(Refusal::invalid(format!("bad format for add-host: \"{entry}\"")));
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if address != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(Refusal::invalid(format!("invalid IP address in add-host: \"{address}\""))
            .hint(format!("give an address that {name} is to have, or host-gateway")));
    }
    Ok(())
}

/// Restart policy, namespaces and everything else of the host part that is a word. Sets the defaults.
fn check_modes(host: &mut HostConfig, facts: &HostFacts) -> Result<(), Refusal> {
    check_restart(&host.restart_policy, host.auto_remove)?;
    if host.restart_policy.name.is_empty() {
        host.restart_policy.name = "no".into();
    }
    let bad = |what: &str, value: &str| Refusal::invalid(format!("invalid {what}: {value}"));
    match host.ipc_mode.as_str() {
        "" if !facts.ipc_mode.is_empty() => host.ipc_mode = facts.ipc_mode.clone(),
        "" => host.ipc_mode = "private".into(),
        "private" | "shareable" | "host" | "none" => {}
        mode if mode.len() > 10 && mode.starts_with("container:") => {}
        mode => return Err(bad("IPC mode", mode)),
    }
    match host.pid_mode.as_str() {
        "" | "private" | "host" => {}
        mode if mode.len() > 10 && mode.starts_with("container:") => {}
        mode => return Err(bad("PID mode", mode)),
    }
    if !matches!(host.uts_mode.as_str(), "" | "private" | "host") {
        return Err(bad("UTS mode", &host.uts_mode));
    }
    match host.cgroupns_mode.as_str() {
        "" => {
            let private = match facts.cgroupns_mode.as_str() {
                "" => facts.cgroup_v2,
                mode => mode == "private",
            };
            let private = private && (facts.cgroup_v2 || !host.privileged);
            host.cgroupns_mode = if private { "private" } else { "host" }.into();
        }
        "private" | "host" => {}
        mode => return Err(bad("cgroup namespace mode", mode)),
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return Err(Refusal::invalid(format!("invalid user namespace mode: {}", host.userns_mode)));
    }
    remap::check(host, facts.remap.as_ref())?;
    if !host.cgroup.is_empty() {
        return Err(Refusal::not_implemented("the cgroup of another container (Cgroup)"));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(Refusal::invalid(format!("invalid isolation '{}' on linux", host.isolation)));
    }
    if host.shm_size < 0 {
        return Err(Refusal::invalid("SHM size can not be less than 0"));
    }
    if host.shm_size == 0 {
        host.shm_size = facts.shm_size;
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Refusal::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return Err(Refusal::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    capabilities::granted(
        host.privileged,
        host.cap_add.as_deref().unwrap_or(&[]),
        host.cap_drop.as_deref().unwrap_or(&[]),
    )?;
    logging::complete(&mut host.log_config, &facts.log);
    check_runtime(host, facts)?;
    check_storage(host, facts)
}

/// A restart policy as it was given; none is an empty name.
pub(crate) fn check_restart(policy: &RestartPolicy, auto_remove: bool) -> Result<(), Refusal> {
    let count = policy.maximum_retry_count;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if count != 0 => {
            let tail = if count < 0 { " and cannot be negative" } else { "" };
            return Err(Refusal::invalid(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'{tail}"
            )));
        }
        "on-failure" if count < 0 => {
            return Err(Refusal::invalid("invalid restart policy: maximum retry count cannot be negative"));
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return Err(Refusal::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                 'unless-stopped'"
            )));
        }
    }
    if auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(Refusal::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(())
}

/// Where its cgroup is to be, and what it sees of the others.
fn check_cgroup(host: &mut HostConfig, facts: &HostFacts, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    let parent = host.resources.cgroup_parent.as_str();
    let is_slice =
        parent.strip_suffix(".slice").is_some_and(|name| !name.is_empty() && !parent.contains('/'));
    if facts.cgroup_systemd && !parent.is_empty() && !is_slice {
        return Err(Refusal::invalid(
            "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"",
        ));
    }
    if parent.split('/').any(|part| part == "..") || parent.contains(['\n', '\0']) {
        return Err(Refusal::invalid(format!(
            "invalid cgroup parent {parent:?}: it must be a path without \"..\""
        )));
    }
    if host.cgroupns_mode == "private" && !facts.controllers.cgroup_namespace {
        warnings.push(
            "Your kernel does not support cgroup namespaces.  Cgroup namespace setting discarded.".into(),
        );
        host.cgroupns_mode = "host".into();
    }
    Ok(())
}

fn check_log(record: &Record, exists: &dyn Fn(&Path) -> bool) -> Result<(), Refusal> {
    let logging = Logging::of(&record.host_config.log_config)?;
    if let Some(Receiver::Syslog(syslog)) = &logging.receiver
        && let Address::Unix(path) | Address::UnixDatagram(path) = &syslog.address
        && !exists(path)
    {
        return Err(Refusal::invalid(format!("stat {}: no such file or directory", path.display())));
    }
    logging::check(record)
}

/// A size with an optional unit, `10m`, `1.5GB`; units are binary.
pub fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().ok()?;
    let scale = match lower[digits..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let size = number * f64::from(1_u32 << (scale / 2)) * f64::from(1_u32 << (scale / 2));
    (size < u64::MAX as f64).then_some(size as u64)
}

/// Fills in the runtime, as inspect shows it.
fn check_runtime(host: &mut HostConfig, facts: &HostFacts) -> Result<(), Refusal> {
    if host.runtime.is_empty() {
        host.runtime = facts.runtimes.first().cloned().unwrap_or_default();
    }
    if !facts.runtimes.contains(&host.runtime) {
        return Err(Refusal::invalid(format!("unknown or invalid runtime name: {}", host.runtime))
            .hint("name it in the daemon's configuration (runtimes, or --add-runtime NAME=PATH)"));
    }
    Ok(())
}

fn check_storage(host: &HostConfig, facts: &HostFacts) -> Result<(), Refusal> {
    for (key, value) in host.storage_opt.iter().flatten() {
        if key != "size" {
            return Err(Refusal::invalid(format!("Unknown option {key}")));
        }
        if parse_size(value).is_none_or(|size| size == 0) {
            return Err(Refusal::invalid(format!("invalid size: '{value}'")));
        }
        if !facts.layer_quota {
            return Err(Refusal::invalid(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            )
            .hint("put the data root on a filesystem with project quotas, or leave the option out"));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
