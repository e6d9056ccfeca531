//! Devices of vendors: the files that describe them, read when a container wants one or somebody asks what there is.

use std::io::Read;
use std::path::{Path, PathBuf};

use ::cdi::{FILE_LIMIT, Format, HostDevice, Registry, Spec};
use api_types::container::DeviceRequest;
use model::Refusal;

use crate::host;

/// Files read of one directory.
const FILES_MAX: usize = 1024;
/// The kinds that stand for `--gpus`, the first one that there is.
const GPUS: [(&str, &str); 2] = [("nvidia", "nvidia.com/gpu"), ("amd", "amd.com/gpu")];

/// The directories with descriptions; a later one wins over those before it.
#[derive(Debug, Clone)]
pub struct Devices {
    directories: Vec<PathBuf>,
}

impl Devices {
    pub fn new(directories: Vec<PathBuf>) -> Devices {
        Devices { directories }
    }

    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// The full names of all devices. Blocks.
    pub fn names(&self) -> Vec<String> {
        self.read().names()
    }

    fn read(&self) -> Registry {
        let mut registry = Registry::default();
        for (rank, directory) in self.directories.iter().enumerate() {
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            let mut paths: Vec<PathBuf> =
                entries.flatten().map(|entry| entry.path()).take(FILES_MAX).collect();
            paths.sort();
            for path in paths {
                match read_file(&path) {
                    Some(Ok(spec)) => registry.add(rank, spec),
                    Some(Err(why)) => {
                        tracing::warn!(path = %path.display(), %why, "not a description of devices")
                    }
                    None => {}
                }
            }
        }
        registry
    }

    /// Gives a container the devices that were asked for.
    pub fn inject(
        &self,
        requests: &[DeviceRequest],
        container: &mut oci::runtime::Spec,
    ) -> Result<(), Refusal> {
        if requests.is_empty() {
            return Ok(());
        }
        let registry = self.read();
        let available = registry.names();
        let mut names = Vec::new();
        for request in requests {
            names.extend(wanted(request, &available)?);
        }
        registry
            .inject(&names, container, &real)
            .map_err(|error| Refusal::system(format!("CDI device injection failed: {error}")))
    }
}

/// The devices that a request stands for.
fn wanted(request: &DeviceRequest, available: &[String]) -> Result<Vec<String>, Refusal> {
    let ids = request.device_ids.clone().unwrap_or_default();
    if request.driver == "cdi" {
        return Ok(ids);
    }
    let capabilities = request.capabilities.clone().unwrap_or_default();
    let kind = GPUS
        .iter()
        .filter(|(driver, _)| request.driver.is_empty() || request.driver == *driver)
        .map(|(_, kind)| *kind)
        .find(|kind| available.iter().any(|name| name.starts_with(&format!("{kind}="))));
    let is_gpu = capabilities.iter().any(|all| all.iter().any(|one| one == "gpu"));
    let Some(kind) = kind.filter(|_| is_gpu) else {
        let shown: Vec<String> = capabilities.iter().map(|all| format!("[{}]", all.join(" "))).collect();
        return Err(Refusal::system(format!(
            "could not select device driver \"{}\" with capabilities: [{}]",
            request.driver,
            shown.join(" ")
        ))
        .hint(
            "GPUs are given by CDI: put the vendor's description into /etc/cdi (nvidia-ctk cdi generate)",
        ));
    };
    let of_kind = |id: &str| format!("{kind}={id}");
    if !ids.is_empty() {
        return Ok(ids.iter().map(|id| of_kind(id)).collect());
    }
    if request.count >= 0 {
        return Ok((0..request.count).map(|number| of_kind(&number.to_string())).collect());
    }
    let all = of_kind("all");
    if available.contains(&all) {
        return Ok(vec![all]);
    }
    Ok(available.iter().filter(|name| name.starts_with(&of_kind(""))).cloned().collect())
}

fn real(path: &Path) -> Option<HostDevice> {
    let node = host::device_node(path).ok()?;
    Some(HostDevice {
        kind: node.kind,
        major: node.major,
        minor: node.minor,
        mode: node.file_mode.unwrap_or(0o666),
        uid: node.uid.unwrap_or(0),
        gid: node.gid.unwrap_or(0),
    })
}

/// Reads a description; none if the file is named like something else.
fn read_file(path: &Path) -> Option<Result<Spec, String>> {
    let format = match path.extension()?.to_str()? {
        "json" => Format::Json,
        "yaml" | "yml" => Format::Yaml,
        _ => return None,
    };
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_LIMIT as u64 + 1).read_to_string(&mut text))
        .map_err(|error| error.to_string());
    Some(read.and_then(|_| Spec::parse(&text, format).map_err(|error| error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_devices_of_their_kind() {
        let available: Vec<String> = ["amd.com/gpu=0", "amd.com/gpu=1"].map(String::from).to_vec();
        let request = |driver: &str, count, ids: &[&str]| DeviceRequest {
            driver: driver.into(),
            count,
            device_ids: Some(ids.iter().map(|id| id.to_string()).collect()),
            capabilities: Some(vec![vec!["gpu".into()]]),
            options: None,
        };
        assert_eq!(wanted(&request("", -1, &[]), &available).unwrap(), available);
        assert_eq!(wanted(&request("amd", 0, &["1"]), &available).unwrap(), ["amd.com/gpu=1"]);
        assert_eq!(wanted(&request("", 1, &[]), &available).unwrap(), ["amd.com/gpu=0"]);
        assert_eq!(
            wanted(&request("nvidia", -1, &[]), &available).unwrap_err().message,
            "could not select device driver \"nvidia\" with capabilities: [[gpu]]"
        );
        assert_eq!(wanted(&request("cdi", 0, &["a.b/c=d"]), &available).unwrap(), ["a.b/c=d"]);
    }
}
