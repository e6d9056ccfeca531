//! Binds, tmpfs and `Mounts` of the create body, checked and put into one shape.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use api_types::container::{HostConfig, Mount, MountPoint};
use serde::{Deserialize, Serialize};

use crate::Refusal;

/// A mount of a container, as it is stored and started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMount {
    /// Absolute, cleaned, never `/`.
    pub destination: PathBuf,
    pub source: Source,
    pub read_only: bool,
    /// The options as they were written in a bind (`ro,z`), for inspect.
    pub mode: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    Bind {
        path: PathBuf,
        /// `rprivate`, `shared`, …
        propagation: String,
        recursive: bool,
        /// Read-only for the mounts below as well.
        read_only_recursive: bool,
        /// Make a directory on the host if nothing is there.
        create: bool,
    },
    Tmpfs {
        /// As mount(8) takes them.
        options: Vec<String>,
    },
}

/// A mount of a container that shows a place of the host, for who reaches into it from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMount {
    pub source: PathBuf,
    /// Below `source`, in which any name may be a link: to be looked up by descriptor only. Empty: `source` itself.
    pub subpath: PathBuf,
    /// In the container: absolute and cleaned.
    pub target: PathBuf,
    pub read_only: bool,
}

/// The mounts of a container that show places of the host, in the order in which they are mounted: a later one hides an
/// earlier one that it covers. `volume` finds where a volume's content is.
pub fn on_host(mounts: &[ContainerMount], _volume: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<HostMount> {
    let mut all: Vec<HostMount> = mounts
        .iter()
        .filter_map(|mount| {
            let (source, subpath) = match &mount.source {
                Source::Bind { path, .. } => (path.clone(), PathBuf::new()),
                Source::Tmpfs { .. } => return None,
            };
            Some(HostMount { source, subpath, target: mount.destination.clone(), read_only: mount.read_only })
        })
        .collect();
    all.sort_by_key(|mount| mount.target.components().count());
    all
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// All mounts of a container. `exists` tells whether a path is there on the host.
pub fn resolve(host: &HostConfig, exists: &dyn Fn(&Path) -> bool) -> Result<Vec<ContainerMount>, Refusal> {
    let mut all = Vec::new();
    for text in host.binds.iter().flatten() {
        all.push(parse_bind(text)?);
    }
    for mount in host.mounts.iter().flatten() {
        all.push(from_mount(mount, exists)?);
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        let destination = destination(target, target)?;
        let options = options.split(',').filter(|option| !option.is_empty()).map(String::from).collect();
        all.push(ContainerMount {
            destination,
            source: Source::Tmpfs { options },
            read_only: false,
            mode: String::new(),
        });
    }
    let mut seen = BTreeSet::new();
    for mount in &all {
        if !seen.insert(&mount.destination) {
            return Err(Refusal::invalid(format!("Duplicate mount point: {}", mount.destination.display())));
        }
    }
    Ok(all)
}

fn destination(target: &str, whole: &str) -> Result<PathBuf, Refusal> {
    let specification =
        |what: &str| Refusal::invalid(format!("invalid volume specification: '{whole}': {what}"));
    if !target.starts_with('/') {
        return Err(specification(&format!("invalid mount path: '{target}' mount path must be absolute")));
    }
    let clean = clean(target);
    if clean == Path::new("/") {
        return Err(specification("invalid specification: destination can't be '/'"));
    }
    Ok(clean)
}

/// Resolves `.` and `..` by name, as Go's `path.Clean`: what the names lead to is found out when mounting.
pub fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// `source:destination[:options]`.
fn parse_bind(text: &str) -> Result<ContainerMount, Refusal> {
    let invalid = || Refusal::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        [_] => return Err(Refusal::not_implemented("an anonymous volume")),
        _ => return Err(invalid()),
    };
    if source.is_empty() || target.is_empty() {
        return Err(invalid());
    }
    let destination = destination(target, text)?;
    if !source.starts_with('/') {
        return Err(named_volume(source));
    }
    let mut propagation = None;
    let mut read_only = None;
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        let twice = match option {
            "ro" => read_only.replace(true).is_some(),
            "rw" => read_only.replace(false).is_some(),
            "z" | "Z" | "nocopy" | "volume-nocopy" | "consistent" | "cached" | "delegated" | "default" => {
                false
            }
            _ if PROPAGATIONS.contains(&option) => propagation.replace(option).is_some(),
            _ => return Err(Refusal::invalid(format!("invalid mode: {mode}"))),
        };
        if twice {
            return Err(Refusal::invalid(format!("invalid mode: {mode}")));
        }
    }
    Ok(ContainerMount {
        destination,
        source: Source::Bind {
            path: clean(source),
            propagation: propagation.unwrap_or("rprivate").into(),
            recursive: true,
            read_only_recursive: true,
            create: true,
        },
        read_only: read_only.unwrap_or(false),
        mode: mode.into(),
    })
}

fn named_volume(name: &str) -> Refusal {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if name.len() == 1 {
        return Refusal::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        );
    }
    if !first || !bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Refusal::invalid(format!(
            "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        ));
    }
    Refusal::not_implemented(&format!("a named volume (\"{name}\")"))
        .hint("bind a directory of the host instead: -v /path/on/host:/path/in/container")
}

fn from_mount(mount: &Mount, exists: &dyn Fn(&Path) -> bool) -> Result<ContainerMount, Refusal> {
    let kind = mount.kind.as_str();
    let invalid = |what: &str| Refusal::invalid(format!("invalid mount config for type \"{kind}\": {what}"));
    if mount.target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    if !mount.target.starts_with('/') {
        return Err(invalid(&format!("invalid mount path: '{}' mount path must be absolute", mount.target)));
    }
    let destination = clean(&mount.target);
    if destination == Path::new("/") {
        return Err(invalid("invalid specification: destination can't be '/'"));
    }
    let foreign = [
        ("BindOptions", mount.bind_options.is_some() && kind != "bind"),
        ("VolumeOptions", mount.volume_options.is_some() && kind != "volume"),
        ("TmpfsOptions", mount.tmpfs_options.is_some() && kind != "tmpfs"),
        ("ImageOptions", mount.image_options.is_some() && kind != "image"),
    ];
    if let Some((name, _)) = foreign.iter().find(|(_, given)| *given) {
        return Err(invalid(&format!("field {name} must not be specified")));
    }
    let source = match kind {
        "bind" => bind_source(mount, exists, &invalid)?,
        "tmpfs" if !mount.source.is_empty() => return Err(invalid("field Source must not be specified")),
        "tmpfs" => Source::Tmpfs { options: tmpfs_options(mount) },
        "volume" if mount.source.is_empty() => return Err(Refusal::not_implemented("an anonymous volume")),
        "volume" => return Err(named_volume(&mount.source)),
        "image" => return Err(Refusal::not_implemented("a mount of type \"image\"")),
        _ => return Err(invalid("mount type unknown")),
    };
    Ok(ContainerMount { destination, source, read_only: mount.read_only, mode: String::new() })
}

fn bind_source(
    mount: &Mount,
    exists: &dyn Fn(&Path) -> bool,
    invalid: &dyn Fn(&str) -> Refusal,
) -> Result<Source, Refusal> {
    let options = mount.bind_options.clone().unwrap_or_default();
    if mount.source.is_empty() {
        return Err(invalid("field Source must not be empty"));
    }
    if !mount.source.starts_with('/') {
        return Err(invalid(&format!("invalid mount path: '{}' mount path must be absolute", mount.source)));
    }
    if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
        return Err(invalid(&format!("invalid propagation mode: {}", options.propagation)));
    }
    let path = clean(&mount.source);
    if !options.create_mountpoint && !exists(&path) {
        return Err(invalid(&format!("bind source path does not exist: {}", path.display())));
    }
    Ok(Source::Bind {
        path,
        propagation: if options.propagation.is_empty() { "rprivate".into() } else { options.propagation },
        recursive: !options.non_recursive,
        read_only_recursive: !options.read_only_non_recursive,
        create: options.create_mountpoint,
    })
}

fn tmpfs_options(mount: &Mount) -> Vec<String> {
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    let mut all = Vec::new();
    if options.size_bytes > 0 {
        all.push(format!("size={}", options.size_bytes));
    }
    if options.mode > 0 {
        all.push(format!("mode={:o}", options.mode));
    }
    all.extend(options.options.unwrap_or_default().into_iter().map(|pair| pair.join("=")));
    all
}

/// The `Mounts` member of inspect and list. Tmpfs of `HostConfig.Tmpfs` is not listed there by Docker.
pub fn points(mounts: &[ContainerMount]) -> Vec<MountPoint> {
    let point = |mount: &ContainerMount| {
        let (kind, source, propagation) = match &mount.source {
            Source::Bind { path, propagation, .. } => {
                ("bind", path.to_string_lossy().into_owned(), propagation.clone())
            }
            Source::Tmpfs { .. } => ("tmpfs", String::new(), String::new()),
        };
        MountPoint {
            kind: kind.into(),
            source,
            destination: mount.destination.to_string_lossy().into_owned(),
            mode: mount.mode.clone(),
            rw: !mount.read_only,
            propagation,
            ..MountPoint::default()
        }
    };
    mounts.iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bind: &str) -> Result<ContainerMount, String> {
        let host = HostConfig { binds: Some(vec![bind.into()]), ..HostConfig::default() };
        resolve(&host, &|_| true).map(|mut all| all.remove(0)).map_err(|refusal| refusal.message)
    }

    #[test]
    fn binds() {
        let mount = check("/a/../b:/c/./d:ro,rslave").unwrap();
        assert_eq!(mount.destination, Path::new("/c/d"));
        assert!(mount.read_only);
        let Source::Bind { path, propagation, .. } = mount.source else { panic!() };
        assert_eq!((path.as_path(), propagation.as_str()), (Path::new("/b"), "rslave"));
        assert_eq!(check("/a:/b:bogus").unwrap_err(), "invalid mode: bogus");
        assert_eq!(check("/a:/b:c:d").unwrap_err(), "invalid volume specification: '/a:/b:c:d'");
        assert!(check("/a:/").unwrap_err().contains("destination can't be '/'"));
        assert!(check("/a:b").unwrap_err().contains("mount path must be absolute"));
        assert!(check("x:/b").unwrap_err().contains("volume name is too short"));
        assert!(check("name:/b").unwrap_err().contains("named volume"));
    }

    #[test]
    fn the_same_target_twice() {
        let host = HostConfig {
            binds: Some(vec!["/a:/x".into()]),
            tmpfs: Some([("/x/".to_string(), String::new())].into()),
            ..HostConfig::default()
        };
        assert_eq!(resolve(&host, &|_| true).unwrap_err().message, "Duplicate mount point: /x");
    }

    #[test]
    fn mounts_with_docker_s_texts() {
        let check = |mount: Mount| {
            let host = HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() };
            resolve(&host, &|path| path == Path::new("/here")).map_err(|refusal| refusal.message)
        };
        let bind = |source: &str, target: &str| Mount {
            kind: "bind".into(),
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        };
        let prefix = "invalid mount config for type \"bind\": ";
        assert!(check(bind("/here", "/t")).is_ok());
        for (mount, text) in [
            (bind("/gone", "/t"), "bind source path does not exist: /gone"),
            (bind("", "/t"), "field Source must not be empty"),
            (bind("/here", ""), "field Target must not be empty"),
        ] {
            assert_eq!(check(mount).unwrap_err(), format!("{prefix}{text}"));
        }
        let odd = Mount { kind: "odd".into(), target: "/t".into(), ..Mount::default() };
        assert_eq!(check(odd).unwrap_err(), "invalid mount config for type \"odd\": mount type unknown");
    }
}
