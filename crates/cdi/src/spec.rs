//! One file: a kind of devices, its devices, and what each does to a container.

use std::path::PathBuf;

use serde::Deserialize;

/// Largest file that is read, in bytes.
pub const FILE_LIMIT: usize = 4 << 20;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("unresolvable CDI devices {0}")]
    Unresolvable(String),
    #[error("it is larger than {FILE_LIMIT} bytes")]
    TooLarge,
    #[error("{0}")]
    Syntax(String),
    #[error("its version {0:?} is not known")]
    Version(String),
    #[error("{0:?} is not a valid kind of devices (vendor/class)")]
    Kind(String),
    #[error("{0:?} is not a valid name of a device")]
    Name(String),
    #[error("it has no devices")]
    Empty,
    #[error("device {0:?} is there twice")]
    Twice(String),
    #[error("{0}")]
    Edit(String),
}

/// In which of its two forms a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    #[serde(rename = "cdiVersion")]
    pub version: String,
    /// `vendor.com/class`
    pub kind: String,
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
    pub devices: Vec<Device>,
    /// For each of the devices.
    #[serde(default, rename = "containerEdits")]
    pub edits: ContainerEdits,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    pub name: String,
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
    #[serde(rename = "containerEdits")]
    pub edits: ContainerEdits,
}

/// Null is the same as absent, as in every file that a Go program writes.
fn list<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerEdits {
    /// `NAME=value`
    #[serde(deserialize_with = "list")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub device_nodes: Vec<DeviceNode>,
    #[serde(deserialize_with = "list")]
    pub mounts: Vec<Mount>,
    #[serde(deserialize_with = "list")]
    pub hooks: Vec<Hook>,
    #[serde(rename = "additionalGIDs", alias = "additionalGids", deserialize_with = "list")]
    pub additional_gids: Vec<u32>,
    pub intel_rdt: Option<serde_json::Value>,
    #[serde(deserialize_with = "list")]
    pub net_devices: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceNode {
    pub path: PathBuf,
    /// Where it is on the host; empty: at the same path.
    pub host_path: PathBuf,
    /// `b`, `c`, `u` or `p`; empty: the host's.
    #[serde(rename = "type")]
    pub kind: String,
    pub major: i64,
    pub minor: i64,
    pub file_mode: Option<u32>,
    /// Of `r`, `w` and `m`; empty: all of them. `none` grants nothing.
    pub permissions: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    #[serde(deserialize_with = "list")]
    pub options: Vec<String>,
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    pub hook_name: String,
    pub path: PathBuf,
    #[serde(deserialize_with = "list")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<u64>,
}

const VERSIONS: [&str; 9] = ["0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

impl Spec {
    /// Reads and checks a file.
    pub fn parse(text: &str, format: Format) -> Result<Spec, Error> {
        if text.len() > FILE_LIMIT {
            return Err(Error::TooLarge);
        }
        let syntax = |error: serde_json::Error| Error::Syntax(error.to_string());
        let spec: Spec = match format {
            Format::Json => serde_json::from_str(text).map_err(syntax)?,
            Format::Yaml => serde_json::from_value(crate::yaml::parse(text)?).map_err(syntax)?,
        };
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), Error> {
        let version = self.version.trim_start_matches('v');
        if !VERSIONS.contains(&version) {
            return Err(Error::Version(self.version.clone()));
        }
        if !is_kind(&self.kind) {
            return Err(Error::Kind(self.kind.clone()));
        }
        if self.devices.is_empty() {
            return Err(Error::Empty);
        }
        let mut seen = std::collections::BTreeSet::new();
        for device in &self.devices {
            if !is_device(&device.name) {
                return Err(Error::Name(device.name.clone()));
            }
            if !seen.insert(&device.name) {
                return Err(Error::Twice(device.name.clone()));
            }
            device.edits.check()?;
        }
        self.edits.check()
    }
}

impl ContainerEdits {
    fn check(&self) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::Edit(what));
        if let Some(entry) =
            self.env.iter().find(|entry| entry.split_once('=').is_none_or(|(name, _)| name.is_empty()))
        {
            return refuse(format!("invalid environment variable {entry:?}"));
        }
        for node in &self.device_nodes {
            if !node.path.is_absolute() {
                return refuse(format!("invalid path of a device node {:?}", node.path));
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                return refuse(format!("device {}: invalid type {:?}", node.path.display(), node.kind));
            }
            if node.permissions != "none" && !node.permissions.bytes().all(|one| b"rwm".contains(&one)) {
                return refuse(format!(
                    "device {}: invalid permissions {:?}",
                    node.path.display(),
                    node.permissions
                ));
            }
        }
        if let Some(mount) = self
            .mounts
            .iter()
            .find(|mount| mount.host_path.as_os_str().is_empty() || !mount.container_path.is_absolute())
        {
            return refuse(format!("invalid mount of {:?} at {:?}", mount.host_path, mount.container_path));
        }
        let known =
            ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
        for hook in &self.hooks {
            if !known.contains(&hook.hook_name.as_str()) || !hook.path.is_absolute() {
                return refuse(format!("invalid hook {:?} ({})", hook.hook_name, hook.path.display()));
            }
        }
        Ok(())
    }
}

/// `vendor/class`: both of letters, digits, `_`, `-` and `.`, the vendor's first and last no sign.
pub fn is_kind(text: &str) -> bool {
    let Some((vendor, class)) = text.split_once('/') else { return false };
    let fits = |text: &str, signs: &[u8]| {
        let bytes = text.as_bytes();
        bytes.first().is_some_and(u8::is_ascii_alphabetic)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || signs.contains(byte))
    };
    fits(vendor, b"_-.") && fits(class, b"_-.")
}

/// A device's name: letters, digits and `_-.:`, the first and last no sign.
pub fn is_device(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte))
}
