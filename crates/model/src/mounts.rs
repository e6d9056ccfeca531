//! Binds, volumes, tmpfs and `Mounts` of the create body, checked and put into one shape.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use api_types::container::{ContainerConfig, HostConfig, Mount, MountPoint};
use serde::{Deserialize, Serialize};

use crate::Refusal;
use crate::volumes::{LOCAL, parse_name, parse_subpath};

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
    Volume {
        name: String,
        driver: String,
        /// Fill an empty volume with what the image has at the destination.
        copy: bool,
        /// The directory of the volume that is mounted; empty: all of it.
        subpath: String,
        /// Nobody named it: it may go with the container.
        anonymous: bool,
    },
    /// What an image holds, to be read.
    Image {
        /// As it was asked for.
        image: String,
        /// `sha256:…`
        id: String,
        subpath: String,
    },
}

impl ContainerMount {
    /// The volume that is mounted.
    pub fn volume(&self) -> Option<&str> {
        match &self.source {
            Source::Volume { name, .. } => Some(name),
            _ => None,
        }
    }
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
pub fn on_host(mounts: &[ContainerMount], volume: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<HostMount> {
    let mut all: Vec<HostMount> = mounts
        .iter()
        .filter_map(|mount| {
            let (source, subpath) = match &mount.source {
                Source::Bind { path, .. } => (path.clone(), PathBuf::new()),
                Source::Volume { name, subpath, .. } => (volume(name)?, subpath.into()),
                Source::Tmpfs { .. } | Source::Image { .. } => return None,
            };
            Some(HostMount { source, subpath, target: mount.destination.clone(), read_only: mount.read_only })
        })
        .collect();
    all.sort_by_key(|mount| mount.target.components().count());
    all
}

/// What comes from outside the request.
pub struct Outside<'a> {
    /// Whether a path is there on the host.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// A name for a volume that has none.
    pub volume_name: &'a dyn Fn() -> String,
    /// The mounts of another container, by its name or ID.
    pub mounts_of: &'a dyn Fn(&str) -> Result<Vec<ContainerMount>, Refusal>,
    /// The ID of an image.
    pub image: &'a dyn Fn(&str) -> Result<String, Refusal>,
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// All mounts of a container. What comes later in Docker's order wins over what other containers lend: those, `Binds`,
/// `Mounts`, then the volumes of the configuration, which only fill what is free.
pub fn resolve(
    host: &HostConfig,
    config: &ContainerConfig,
    outside: &Outside<'_>,
) -> Result<Vec<ContainerMount>, Refusal> {
    let mut own = Vec::new();
    for text in host.binds.iter().flatten() {
        own.push(parse_bind(text, host, outside)?);
    }
    for mount in host.mounts.iter().flatten() {
        own.push(from_mount(mount, host, outside)?);
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        let destination = destination(target, target)?;
        let options: Vec<String> =
            options.split(',').filter(|option| !option.is_empty()).map(String::from).collect();
        if let Some(odd) = options.iter().find(|option| !is_tmpfs_option(option)) {
            return Err(Refusal::invalid(format!("invalid tmpfs option [{odd:?}]")));
        }
        own.push(ContainerMount {
            destination,
            source: Source::Tmpfs { options },
            read_only: false,
            mode: String::new(),
        });
    }
    let mut seen = BTreeSet::new();
    for mount in &own {
        if !seen.insert(mount.destination.clone()) {
            return Err(Refusal::invalid(format!("Duplicate mount point: {}", mount.destination.display())));
        }
    }
    let mut all = own;
    // The last lender of a place wins.
    for text in host.volumes_from.iter().flatten().rev() {
        for mount in lent(text, outside)? {
            if seen.insert(mount.destination.clone()) {
                all.push(mount);
            }
        }
    }
    for target in config.volumes.iter().flatten().map(|(target, _)| target) {
        let destination = volume_destination(target)?;
        if seen.insert(destination.clone()) {
            all.push(anonymous_volume(destination, outside, true));
        }
    }
    Ok(all)
}

/// The mounts of another container: `NAME[:MODE]`.
fn lent(text: &str, outside: &Outside<'_>) -> Result<Vec<ContainerMount>, Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid("volumes-from specification cannot be an empty string"));
    }
    let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
    let words: Vec<&str> = mode.split(',').collect();
    let known = |word: &&str| matches!(*word, "ro" | "rw" | "z" | "Z");
    let writes = words.iter().filter(|word| matches!(**word, "ro" | "rw")).count();
    if !words.iter().all(known) || writes > 1 {
        return Err(Refusal::invalid(format!("invalid mode: {mode}")));
    }
    // Not "not found": clients would take the image for missing.
    let mut mounts = (outside.mounts_of)(name).map_err(|refusal| Refusal::invalid(refusal.message))?;
    for mount in &mut mounts {
        mount.read_only |= words.contains(&"ro");
        if let Source::Volume { copy, .. } = &mut mount.source {
            // The lender's first use has filled it.
            *copy = false;
        }
    }
    Ok(mounts)
}

fn volume_destination(target: &str) -> Result<PathBuf, Refusal> {
    let invalid = |what: &str| Refusal::invalid(format!("invalid mount config for type \"volume\": {what}"));
    if !target.starts_with('/') {
        return Err(invalid(&format!("invalid mount path: '{target}' mount path must be absolute")));
    }
    let clean = clean(target);
    if clean == Path::new("/") {
        return Err(invalid("invalid specification: destination can't be '/'"));
    }
    Ok(clean)
}

fn anonymous_volume(destination: PathBuf, outside: &Outside<'_>, copy: bool) -> ContainerMount {
    let name = (outside.volume_name)();
    let source = Source::Volume { name, driver: LOCAL.into(), copy, subpath: String::new(), anonymous: true };
    ContainerMount { destination, source, read_only: false, mode: String::new() }
}

/// The driver that a container's volumes are of, where a mount names none.
fn driver(given: &str, host: &HostConfig) -> String {
    let names = [given, host.volume_driver.as_str(), LOCAL];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or(LOCAL).into()
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

/// `source:destination[:options]`, or a destination alone.
fn parse_bind(text: &str, host: &HostConfig, outside: &Outside<'_>) -> Result<ContainerMount, Refusal> {
    let invalid = || Refusal::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        [target] => return Ok(anonymous_volume(destination(target, text)?, outside, true)),
        _ => return Err(invalid()),
    };
    if source.is_empty() || target.is_empty() {
        return Err(invalid());
    }
    let destination = destination(target, text)?;
    let mode_of = Mode::parse(mode)?;
    if !source.starts_with('/') {
        if mode_of.propagation.is_some() {
            return Err(Refusal::invalid(format!("invalid mode: {mode}")));
        }
        let driver = driver("", host);
        if driver == LOCAL {
            parse_name(source)?;
        }
        let source = Source::Volume {
            name: source.into(),
            driver,
            copy: !mode_of.no_copy,
            subpath: String::new(),
            anonymous: false,
        };
        // As Docker shows it.
        let mode = if mode.is_empty() { "z" } else { mode }.into();
        return Ok(ContainerMount { destination, source, read_only: mode_of.read_only, mode });
    }
    Ok(ContainerMount {
        destination,
        source: Source::Bind {
            path: clean(source),
            propagation: mode_of.propagation.unwrap_or("rprivate").into(),
            recursive: true,
            read_only_recursive: true,
            create: true,
        },
        read_only: mode_of.read_only,
        mode: mode.into(),
    })
}

/// The options of `-v`.
struct Mode<'a> {
    read_only: bool,
    propagation: Option<&'a str>,
    no_copy: bool,
}

impl Mode<'_> {
    fn parse(mode: &str) -> Result<Mode<'_>, Refusal> {
        let (mut propagation, mut read_only, mut no_copy) = (None, None, false);
        for option in mode.split(',').filter(|option| !option.is_empty()) {
            let twice = match option {
                "ro" => read_only.replace(true).is_some(),
                "rw" => read_only.replace(false).is_some(),
                "nocopy" | "volume-nocopy" => std::mem::replace(&mut no_copy, true),
                "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => false,
                _ if PROPAGATIONS.contains(&option) => propagation.replace(option).is_some(),
                _ => return Err(Refusal::invalid(format!("invalid mode: {mode}"))),
            };
            if twice {
                return Err(Refusal::invalid(format!("invalid mode: {mode}")));
            }
        }
        Ok(Mode { read_only: read_only.unwrap_or(false), propagation, no_copy })
    }
}

fn from_mount(mount: &Mount, host: &HostConfig, outside: &Outside<'_>) -> Result<ContainerMount, Refusal> {
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
    let mut mode = String::new();
    let source = match kind {
        "bind" => bind_source(mount, outside.exists, &invalid)?,
        "tmpfs" if !mount.source.is_empty() => return Err(invalid("field Source must not be specified")),
        "tmpfs" => Source::Tmpfs { options: tmpfs_options(mount, &invalid)? },
        "volume" => {
            mode = "z".into();
            volume_source(mount, host, outside, &invalid)?
        }
        "image" => image_source(mount, outside, &invalid)?,
        "npipe" | "cluster" => {
            return Err(Refusal::not_implemented(&format!("a mount of type \"{kind}\"")));
        }
        _ => return Err(invalid("mount type unknown")),
    };
    let read_only = mount.read_only || kind == "image";
    Ok(ContainerMount { destination, source, read_only, mode })
}

fn volume_source(
    mount: &Mount,
    host: &HostConfig,
    outside: &Outside<'_>,
    invalid: &dyn Fn(&str) -> Refusal,
) -> Result<Source, Refusal> {
    let options = mount.volume_options.clone().unwrap_or_default();
    let anonymous = mount.source.is_empty();
    if !options.subpath.is_empty() {
        if anonymous {
            return Err(invalid("must not set Subpath when using anonymous volumes"));
        }
        if parse_subpath(&options.subpath).is_none() {
            return Err(invalid("subpath must be a relative path within the volume"));
        }
    }
    if anonymous && mount.read_only {
        return Err(invalid("must not set ReadOnly mode when using anonymous volumes"));
    }
    let driver = driver(&options.driver_config.unwrap_or_default().name, host);
    if !anonymous && driver == LOCAL {
        parse_name(&mount.source)?;
    }
    let name = if anonymous { (outside.volume_name)() } else { mount.source.clone() };
    Ok(Source::Volume { name, driver, copy: !options.no_copy, subpath: options.subpath, anonymous })
}

fn image_source(
    mount: &Mount,
    outside: &Outside<'_>,
    invalid: &dyn Fn(&str) -> Refusal,
) -> Result<Source, Refusal> {
    if mount.source.is_empty() {
        return Err(invalid("field Source must not be empty"));
    }
    let subpath = mount.image_options.clone().unwrap_or_default().subpath;
    if parse_subpath(&subpath).is_none() {
        return Err(invalid("subpath must be a relative path within the image"));
    }
    Ok(Source::Image { image: mount.source.clone(), id: (outside.image)(&mount.source)?, subpath })
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

fn tmpfs_options(mount: &Mount, invalid: &dyn Fn(&str) -> Refusal) -> Result<Vec<String>, Refusal> {
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    let mut all = Vec::new();
    if options.size_bytes < 0 {
        return Err(invalid("size must be a positive number"));
    }
    if options.size_bytes > 0 {
        all.push(format!("size={}", options.size_bytes));
    }
    if options.mode > 0 {
        all.push(format!("mode={:o}", options.mode));
    }
    for pair in options.options.unwrap_or_default() {
        match &pair[..] {
            [flag] => all.push(flag.clone()),
            [key, value] => all.push(format!("{key}={value}")),
            _ => return Err(invalid("invalid option array length")),
        }
    }
    Ok(all)
}

/// Whether a tmpfs understands an option.
fn is_tmpfs_option(option: &str) -> bool {
    const KEYS: [&str; 8] = ["mode", "uid", "gid", "nr_inodes", "nr_blocks", "size", "mpol", "huge"];
    const FLAGS: [&str; 27] = [
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "remount",
        "mand",
        "nomand",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "defaults",
        "tmpcopyup",
        "notmpcopyup",
        "bind",
        "rbind",
    ];
    let (key, has_value) = option.split_once('=').map_or((option, false), |(key, _)| (key, true));
    let known: &[&str] = if has_value { &KEYS } else { &FLAGS };
    known.contains(&key) || PROPAGATIONS.contains(&option)
}

/// The `Mounts` member of inspect and list. `volume` finds where a volume's content is.
pub fn points(mounts: &[ContainerMount], volume: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<MountPoint> {
    let point = |mount: &ContainerMount| {
        let mut point = MountPoint {
            destination: mount.destination.to_string_lossy().into_owned(),
            mode: mount.mode.clone(),
            rw: !mount.read_only,
            ..MountPoint::default()
        };
        match &mount.source {
            Source::Bind { path, propagation, .. } => {
                point.kind = "bind".into();
                point.source = path.to_string_lossy().into_owned();
                point.propagation = propagation.clone();
            }
            Source::Tmpfs { .. } => point.kind = "tmpfs".into(),
            Source::Volume { name, driver, .. } => {
                point.kind = "volume".into();
                point.name = name.clone();
                point.driver = driver.clone();
                point.source =
                    volume(name).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
            }
            Source::Image { image, .. } => {
                point.kind = "image".into();
                point.source = image.clone();
            }
        }
        point
    };
    mounts.iter().map(point).collect()
}

/// Whether a container mounts something at this place, from this place of the host, or the volume of this name.
pub fn mentions(mounts: &[ContainerMount], wanted: &str) -> bool {
    mounts.iter().any(|mount| {
        mount.destination == Path::new(wanted)
            || mount.volume() == Some(wanted)
            || matches!(&mount.source, Source::Bind { path, .. } if path == Path::new(wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lender(name: &str) -> Result<Vec<ContainerMount>, Refusal> {
        if name != "other" {
            return Err(Refusal::not_found(format!("No such container: {name}")));
        }
        let host =
            HostConfig { binds: Some(vec!["data:/data".into(), "/h:/h:ro".into()]), ..HostConfig::default() };
        resolve_all(&host, &ContainerConfig::default())
    }

    fn resolve_all(host: &HostConfig, config: &ContainerConfig) -> Result<Vec<ContainerMount>, Refusal> {
        let outside = Outside {
            exists: &|path| path != Path::new("/gone"),
            volume_name: &|| "f00".into(),
            mounts_of: &lender,
            image: &|name| Ok(format!("sha256:{name}")),
        };
        resolve(host, config, &outside)
    }

    fn check(bind: &str) -> Result<ContainerMount, String> {
        let host = HostConfig { binds: Some(vec![bind.into()]), ..HostConfig::default() };
        let all = resolve_all(&host, &ContainerConfig::default());
        all.map(|mut all| all.remove(0)).map_err(|refusal| refusal.message)
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
        let volume = |name: &str, copy: bool, anonymous: bool| Source::Volume {
            name: name.into(),
            driver: "local".into(),
            copy,
            subpath: String::new(),
            anonymous,
        };
        let mount = check("name:/b:ro,nocopy").unwrap();
        assert_eq!(
            (mount.source, mount.read_only, &*mount.mode),
            (volume("name", false, false), true, "ro,nocopy")
        );
        let mount = check("name:/b").unwrap();
        assert_eq!((mount.source, mount.read_only, &*mount.mode), (volume("name", true, false), false, "z"));
        assert_eq!(check("/b").unwrap().source, volume("f00", true, true));
        assert_eq!(check("name:/b:rshared").unwrap_err(), "invalid mode: rshared");
        assert!(check("a b:/b").unwrap_err().starts_with("\"a b\" includes invalid characters"));
    }

    #[test]
    fn lent_mounts_yield_and_volumes_fill_what_is_free() {
        let host = HostConfig {
            binds: Some(vec!["own:/data".into()]),
            volumes_from: Some(vec!["other:ro".into()]),
            ..HostConfig::default()
        };
        let config = ContainerConfig {
            volumes: Some(["/h/", "/new"].map(|path| (path.to_string(), Default::default())).into()),
            ..ContainerConfig::default()
        };
        let all = resolve_all(&host, &config).unwrap();
        let seen: Vec<(&str, Option<&str>, bool)> = all
            .iter()
            .map(|mount| (mount.destination.to_str().unwrap(), mount.volume(), mount.read_only))
            .collect();
        assert_eq!(seen, [("/data", Some("own"), false), ("/h", None, true), ("/new", Some("f00"), false)]);
        for (bad, text) in [
            ("", "volumes-from specification cannot be an empty string"),
            ("other:up", "invalid mode: up"),
            ("nobody", "No such container: nobody"),
        ] {
            let host = HostConfig { volumes_from: Some(vec![bad.into()]), ..HostConfig::default() };
            assert_eq!(resolve_all(&host, &config).unwrap_err().message, text);
        }
        let places = on_host(&all, &|name| Some(Path::new("/v").join(name)));
        let places: Vec<(&Path, &Path)> = places.iter().map(|one| (&*one.source, &*one.target)).collect();
        let path = Path::new;
        assert_eq!(
            places,
            [(path("/v/own"), path("/data")), (path("/h"), path("/h")), (path("/v/f00"), path("/new"))]
        );
    }

    #[test]
    fn the_same_target_twice() {
        let host = HostConfig {
            binds: Some(vec!["/a:/x".into()]),
            tmpfs: Some([("/x/".to_string(), String::new())].into()),
            ..HostConfig::default()
        };
        let refused = resolve_all(&host, &ContainerConfig::default()).unwrap_err();
        assert_eq!(refused.message, "Duplicate mount point: /x");
    }

    #[test]
    fn mounts_with_docker_s_texts() {
        let check = |mount: Mount| {
            let host = HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() };
            resolve_all(&host, &ContainerConfig::default()).map_err(|refusal| refusal.message)
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
        let volume = |source: &str, subpath: &str| Mount {
            kind: "volume".into(),
            source: source.into(),
            target: "/t".into(),
            volume_options: Some(api_types::container::VolumeOptions {
                subpath: subpath.into(),
                ..Default::default()
            }),
            ..Mount::default()
        };
        let prefix = "invalid mount config for type \"volume\": ";
        for (mount, text) in [
            (volume("", "a"), "must not set Subpath when using anonymous volumes"),
            (volume("data", "../a"), "subpath must be a relative path within the volume"),
        ] {
            assert_eq!(check(mount).unwrap_err(), format!("{prefix}{text}"));
        }
        assert!(check(volume("data", "a/b")).is_ok());
        let odd = Mount { kind: "odd".into(), target: "/t".into(), ..Mount::default() };
        assert_eq!(check(odd).unwrap_err(), "invalid mount config for type \"odd\": mount type unknown");
    }
}
