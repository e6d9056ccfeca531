//! What a device does to a container's runtime spec.

use std::path::Path;

use oci::runtime::{Hook, Hooks, LinuxDevice, LinuxDeviceKind, LinuxDeviceRule, Mount, Spec as Container};

use crate::spec::{ContainerEdits, DeviceNode, Error};

/// A device file of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostDevice {
    pub kind: LinuxDeviceKind,
    pub major: i64,
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

pub fn apply(
    edits: &ContainerEdits,
    container: &mut Container,
    host: &dyn Fn(&Path) -> Option<HostDevice>,
) -> Result<(), Error> {
    if edits.intel_rdt.is_some() {
        return Err(Error::Edit("intelRdt is not supported by Corten yet".into()));
    }
    if !edits.net_devices.is_empty() {
        return Err(Error::Edit("netDevices is not supported by Corten yet".into()));
    }
    let process = container.process.get_or_insert_default();
    for entry in &edits.env {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        process.env.retain(|one| one.split_once('=').is_none_or(|(other, _)| other != name));
        process.env.push(entry.clone());
    }
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        if !process.user.additional_gids.contains(gid) {
            process.user.additional_gids.push(*gid);
        }
    }
    for node in &edits.device_nodes {
        add_node(node, container, host)?;
    }
    for mount in &edits.mounts {
        container.mounts.retain(|one| one.destination != mount.container_path);
        let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
        container.mounts.push(Mount {
            destination: mount.container_path.clone(),
            kind: kind.into(),
            source: Some(mount.host_path.clone()),
            options: mount.options.clone(),
            ..Mount::default()
        });
    }
    if !edits.mounts.is_empty() {
        // What lies deeper comes later, or it would be hidden.
        container.mounts.sort_by_key(|mount| mount.destination.components().count());
    }
    for hook in &edits.hooks {
        let made = Hook {
            path: hook.path.clone(),
            args: hook.args.clone(),
            env: hook.env.clone(),
            timeout: hook.timeout,
        };
        let hooks = container.hooks.get_or_insert_with(Hooks::default);
        match hook.hook_name.as_str() {
            "prestart" => hooks.prestart.push(made),
            "createRuntime" => hooks.create_runtime.push(made),
            "createContainer" => hooks.create_container.push(made),
            "startContainer" => hooks.start_container.push(made),
            "poststart" => hooks.poststart.push(made),
            _ => hooks.poststop.push(made),
        }
    }
    Ok(())
}

fn add_node(
    node: &DeviceNode,
    container: &mut Container,
    host: &dyn Fn(&Path) -> Option<HostDevice>,
) -> Result<(), Error> {
    let source = if node.host_path.as_os_str().is_empty() { &node.path } else { &node.host_path };
    let found = host(source);
    let given = match node.kind.as_str() {
        "b" => Some(LinuxDeviceKind::Block),
        "c" | "u" => Some(LinuxDeviceKind::Char),
        "p" => Some(LinuxDeviceKind::Fifo),
        _ => None,
    };
    let absent =
        || Error::Edit(format!("failed to stat CDI host device {:?}: no such device", source.display()));
    let (kind, major, minor) = match (given, found) {
        (Some(kind), _) if node.major != 0 || node.minor != 0 || kind == LinuxDeviceKind::Fifo => {
            (kind, node.major, node.minor)
        }
        (None, Some(found)) => (found.kind, found.major, found.minor),
        (Some(kind), Some(found)) if kind == found.kind => (kind, found.major, found.minor),
        (Some(_), Some(_)) => {
            return Err(Error::Edit(format!("CDI device {:?}: host type mismatch", source.display())));
        }
        (_, None) => return Err(absent()),
    };
    let own_user = container.process.as_ref().map(|process| (process.user.uid, process.user.gid));
    let linux = container.linux.get_or_insert_default();
    linux.devices.retain(|one| one.path != node.path);
    linux.devices.push(LinuxDevice {
        path: node.path.clone(),
        kind,
        major,
        minor,
        file_mode: node.file_mode.map(|mode| mode & 0o7777).or(found.map(|found| found.mode)),
        uid: node.uid.or(own_user.map(|(uid, _)| uid).filter(|uid| *uid > 0)),
        gid: node.gid.or(own_user.map(|(_, gid)| gid).filter(|gid| *gid > 0)),
    });
    if kind != LinuxDeviceKind::Fifo && node.permissions != "none" {
        let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
        linux.resources.get_or_insert_default().devices.push(LinuxDeviceRule {
            allow: true,
            kind,
            major: Some(major),
            minor: Some(minor),
            access: access.into(),
        });
    }
    Ok(())
}
