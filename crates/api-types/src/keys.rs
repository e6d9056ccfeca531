//! Names of members in request bodies, found whatever their letters' case.
//!
//! Go's decoder, which Docker's daemon reads bodies with, takes `hostconfig` for `HostConfig`, and so do clients that were
//! written against it. The names that clients choose themselves (labels, ports, options) are left as they are.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value};

/// Every name of a member that a request body can have.
const NAMES: &str = "\
    Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce \
    Env Cmd Healthcheck ArgsEscaped Image Volumes WorkingDir Entrypoint NetworkDisabled MacAddress \
    OnBuild Labels StopSignal StopTimeout Shell Test Interval Timeout StartPeriod StartInterval Retries \
    HostConfig NetworkingConfig Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy \
    AutoRemove VolumeDriver VolumesFrom ConsoleSize Annotations Mounts CapAdd CapDrop CgroupnsMode Dns \
    DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links OomScoreAdj PidMode Privileged \
    PublishAllPorts ReadonlyRootfs SecurityOpt StorageOpt Tmpfs UTSMode UsernsMode ShmSize Sysctls \
    Runtime Isolation MaskedPaths ReadonlyPaths CpuShares Memory NanoCpus CgroupParent BlkioWeight \
    BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps \
    CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices \
    DeviceCgroupRules DeviceRequests MemoryReservation MemorySwap MemorySwappiness OomKillDisable \
    PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth Init Path Weight Rate \
    PathOnHost PathInContainer CgroupPermissions Driver Count DeviceIDs Capabilities Options Name Hard \
    Soft Type Config MaximumRetryCount HostIp HostPort Source Target ReadOnly Consistency BindOptions \
    VolumeOptions ImageOptions TmpfsOptions ClusterOptions Propagation NonRecursive CreateMountpoint \
    ReadOnlyNonRecursive ReadOnlyForceRecursive NoCopy Subpath DriverConfig SizeBytes Mode Detach \
    DetachKeys EndpointsConfig IPAMConfig Aliases DriverOpts GwPriority NetworkID EndpointID Gateway \
    IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames IPv4Address \
    IPv6Address LinkLocalIPs CheckDuplicate Scope EnableIPv4 EnableIPv6 IPAM Internal Attachable Ingress \
    ConfigOnly ConfigFrom Network Subnet IPRange AuxiliaryAddresses Container EndpointConfig Force \
    ClusterVolumeSpec Description Value username password email serveraddress identitytoken \
    registrytoken auth \
";

/// Members whose own members have names that the client chose.
const CHOSEN: &[&str] = &[
    "Annotations",
    "AuxiliaryAddresses",
    "Config",
    "DriverOpts",
    "EndpointsConfig",
    "ExposedPorts",
    "Labels",
    "Options",
    "PortBindings",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// Members that are objects; a list in their place would be taken for their members in order.
const OBJECTS: &[&str] = &[
    "BindOptions",
    "ConfigFrom",
    "DriverConfig",
    "EndpointConfig",
    "Healthcheck",
    "HostConfig",
    "IPAM",
    "IPAMConfig",
    "ImageOptions",
    "LogConfig",
    "NetworkingConfig",
    "RestartPolicy",
    "TmpfsOptions",
    "VolumeOptions",
];

/// Members that are lists of objects, or objects of them.
const OBJECTS_IN: &[&str] = &[
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "DeviceRequests",
    "Devices",
    "EndpointsConfig",
    "Mounts",
    "Ulimits",
];

/// Finds a list where an object must stand; its name. To be called with names as the types know them.
pub(crate) fn misplaced_list(value: &Value) -> Option<&str> {
    match value {
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let wrong = (OBJECTS.contains(&name.as_str()) && member.is_array())
                || (OBJECTS_IN.contains(&name.as_str())
                    && match member {
                        Value::Array(list) => list.iter().any(Value::is_array),
                        Value::Object(members) => members.values().any(Value::is_array),
                        _ => false,
                    });
            if wrong { Some(name.as_str()) } else { misplaced_list(member) }
        }),
        Value::Array(list) => list.iter().find_map(misplaced_list),
        _ => None,
    }
}

fn canonical(name: &str) -> Option<&'static str> {
    static NAMES_BY_LOWER: OnceLock<HashMap<String, &'static str>> = OnceLock::new();
    let table = NAMES_BY_LOWER
        .get_or_init(|| NAMES.split_whitespace().map(|name| (name.to_ascii_lowercase(), name)).collect());
    table.get(&name.to_ascii_lowercase()).copied()
}

/// Gives members the names that the types know, at every depth. Of several that mean the same, the last counts.
pub(crate) fn normalize(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let known = |name: &String| canonical(name).is_none_or(|canonical| canonical == name);
            if !members.keys().all(known) {
                let renamed = std::mem::take(members)
                    .into_iter()
                    .map(|(name, member)| (canonical(&name).map_or(name, String::from), member));
                *members = renamed.collect::<Map<_, _>>();
            }
            for (name, member) in members {
                match member {
                    Value::Object(chosen) if CHOSEN.contains(&name.as_str()) => {
                        chosen.values_mut().for_each(normalize);
                    }
                    member => normalize(member),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(normalize),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::container::*;
    use crate::exec::{ExecCreate, ExecStart};
    use crate::network::*;

    #[test]
    fn names_in_any_case_are_found_and_chosen_ones_left() {
        let mut body = json!({
            "image": "busybox", "LABELS": {"Image": "x", "image": "y"}, "exposedports": {"80/TCP": {}},
            "hostconfig": {"memory": 5, "portbindings": {"80/tcp": [{"hostport": "1", "HOSTIP": "::"}]},
                "logconfig": {"type": "local", "config": {"MODE": "x"}}, "ulimits": [{"NAME": "nofile", "soft": 1}]},
            "networkingConfig": {"endpointsconfig": {"IPAM": {"ipamconfig": {"ipv4address": "10.0.0.1"}}}}
        });
        normalize(&mut body);
        assert_eq!(
            body,
            json!({
                "Image": "busybox", "Labels": {"Image": "x", "image": "y"}, "ExposedPorts": {"80/TCP": {}},
                "HostConfig": {"Memory": 5, "PortBindings": {"80/tcp": [{"HostPort": "1", "HostIp": "::"}]},
                    "LogConfig": {"Type": "local", "Config": {"MODE": "x"}}, "Ulimits": [{"Name": "nofile", "Soft": 1}]},
                "NetworkingConfig": {"EndpointsConfig": {"IPAM": {"IPAMConfig": {"IPv4Address": "10.0.0.1"}}}}
            })
        );
        let mut twice = json!({"Image": "a", "image": "b"});
        normalize(&mut twice);
        assert_eq!(twice, json!({"Image": "b"}), "the last counts, as in Go");
    }

    /// The names of the types themselves, as far as they are written out.
    #[test]
    fn the_types_own_names_stay() {
        fn names(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(members) => members.iter().for_each(|(name, member)| {
                    found.insert(name.clone());
                    names(member, found);
                }),
                Value::Array(list) => list.iter().for_each(|member| names(member, found)),
                _ => {}
            }
        }
        let mount = Mount {
            bind_options: Some(BindOptions::default()),
            volume_options: Some(VolumeOptions {
                driver_config: Some(DriverConfig::default()),
                ..Default::default()
            }),
            image_options: Some(ImageOptions::default()),
            tmpfs_options: Some(TmpfsOptions::default()),
            ..Mount::default()
        };
        let resources = Resources {
            devices: Some(vec![DeviceMapping::default()]),
            device_requests: Some(vec![DeviceRequest::default()]),
            ulimits: Some(vec![Ulimit::default()]),
            blkio_weight_device: Some(vec![WeightDevice::default()]),
            blkio_device_read_bps: Some(vec![ThrottleDevice::default()]),
            init: Some(true),
            ..Resources::default()
        };
        let host = HostConfig { resources, mounts: Some(vec![mount]), ..HostConfig::default() };
        let create = ContainerCreate {
            host_config: Some(host),
            networking_config: Some(NetworkingConfig::default()),
            ..ContainerCreate::default()
        };
        let endpoint =
            EndpointSettings { ipam_config: Some(EndpointIpamConfig::default()), ..Default::default() };
        let mut found = BTreeSet::new();
        for value in [
            serde_json::to_value(create),
            serde_json::to_value(endpoint),
            serde_json::to_value(PortBinding::default()),
            serde_json::to_value(HealthConfig { interval: 1, ..HealthConfig::default() }),
            serde_json::to_value(ExecCreate::default()),
            serde_json::to_value(ExecStart::default()),
            serde_json::to_value(Ipam { config: Some(vec![IpamConfig::default()]), ..Ipam::default() }),
        ] {
            names(&value.unwrap(), &mut found);
        }
        assert!(found.len() > 100);
        for name in found {
            assert_eq!(
                canonical(&name),
                Some(name.as_str()),
                "{name} is missing in NAMES, or differs in case only"
            );
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_the_same_in_any_case(flips in proptest::collection::vec(any::<bool>(), 64)) {
            let body = json!({"Image": "a", "Tty": true, "HostConfig": {"Memory": 7, "CapAdd": ["X"], "NanoCpus": 2,
                "RestartPolicy": {"Name": "always"}, "IOMaximumIOps": 3}});
            let mut at = 0;
            let text = body.to_string();
            // Values have no letters that could be taken for names here but in quotes after a colon.
            let mixed: String = text.split_inclusive(':').map(|part| match part.rfind('"') {
                Some(end) if part.ends_with("\":") => {
                    let start = part[..end].rfind('"').map_or(0, |start| start + 1);
                    let name: String = part[start..end].chars().map(|letter| {
                        at += 1;
                        if flips[at % flips.len()] { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
                    }).collect();
                    format!("{}{name}{}", &part[..start], &part[end..])
                }
                _ => part.to_owned(),
            }).collect();
            let read = |text: &str| crate::from_request::<ContainerCreate>(text.as_bytes()).unwrap();
            prop_assert_eq!(read(&mixed), read(&text));
        }
    }
}
