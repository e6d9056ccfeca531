//! Volumes: their names, options and records, and what a container wants of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api_types::StringMap;
use serde::{Deserialize, Serialize};

use crate::create::Record;
use crate::filter::Filters;
use crate::mounts::{Source, clean};
use crate::time::UnixNanos;
use crate::{Kind, Refusal};

/// The one driver so far.
pub const LOCAL: &str = "local";
/// Put on volumes that nobody named.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A volume as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    pub name: String,
    pub created: UnixNanos,
    pub labels: StringMap,
    /// `type`, `o`, `device`; empty for a plain directory.
    pub options: StringMap,
}

impl VolumeRecord {
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS_LABEL)
    }

    pub fn backing(&self) -> Backing {
        Backing::of(&self.options)
    }
}

/// What a volume's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// The volume's own directory.
    Directory,
    /// A directory of the host, shown instead of the volume's own; no mount of the host is needed for that.
    Bind { path: PathBuf, recursive: bool, read_only: bool },
    /// A filesystem that is mounted over the volume's directory while it is used.
    Filesystem { kind: String, device: String, options: String },
}

impl Backing {
    /// Reads checked options.
    pub fn of(options: &BTreeMap<String, String>) -> Backing {
        let text = |key: &str| options.get(key).cloned().unwrap_or_default();
        let (kind, device, words) = (text("type"), text("device"), text("o"));
        if kind.is_empty() && device.is_empty() {
            return Backing::Directory;
        }
        let has = |word: &str| words.split(',').any(|one| one == word);
        if has("bind") || has("rbind") {
            return Backing::Bind { path: clean(&device), recursive: has("rbind"), read_only: has("ro") };
        }
        Backing::Filesystem { kind, device, options: words }
    }
}

/// The name of a volume, checked.
pub fn parse_name(name: &str) -> Result<&str, Refusal> {
    if name.len() == 1 {
        return Err(Refusal::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !first || !bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Err(Refusal::invalid(format!(
            "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    if name.len() > 200 {
        // With what is put in front of it while it is made or removed, a directory's name has 255 bytes.
        return Err(Refusal::invalid("volume name is too long, names should be at most 200 characters"));
    }
    Ok(name)
}

/// The words that Docker puts in front of what is wrong with a create.
fn creating(name: &str, refusal: Refusal) -> Refusal {
    Refusal { message: format!("create {name}: {}", refusal.message), ..refusal }
}

/// What a create asks for, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVolume {
    pub name: String,
    /// As it was asked for; empty is the local one.
    pub driver: String,
    pub labels: StringMap,
    pub options: StringMap,
}

impl NewVolume {
    /// A volume that nobody named.
    pub fn anonymous(name: String) -> NewVolume {
        let labels = [(ANONYMOUS_LABEL.to_string(), String::new())].into();
        NewVolume { name, labels, ..NewVolume::default() }
    }

    /// Refuses what cannot be made. Asked only if there is no volume of that name.
    pub fn check(&self) -> Result<(), Refusal> {
        self.check_driver()?;
        let checked = parse_name(&self.name).and_then(|_| check_options(&self.options));
        checked.map_err(|refusal| creating(&self.name, refusal))
    }

    fn check_driver(&self) -> Result<(), Refusal> {
        if matches!(self.driver.as_str(), "" | LOCAL) {
            return Ok(());
        }
        let text = format!("error looking up volume plugin {0}: plugin \"{0}\" not found", self.driver);
        Err(creating(&self.name, Refusal::not_found(text))
            .hint("volume plugins are not supported by Corten yet"))
    }

    /// Whether the volume that is there already will do.
    pub fn fits(&self, there: &VolumeRecord) -> Result<(), Refusal> {
        if matches!(self.driver.as_str(), "" | LOCAL) {
            return Ok(());
        }
        Err(creating(&there.name, Refusal::conflict("conflict: volume name must be unique"))
            .hint(format!("volume {} is there already, of the driver {LOCAL}", there.name)))
    }

    pub fn record(self, now: UnixNanos) -> VolumeRecord {
        VolumeRecord { name: self.name, created: now, labels: self.labels, options: self.options }
    }
}

fn check_options(options: &StringMap) -> Result<(), Refusal> {
    let known = ["type", "o", "device", "size"];
    if let Some(odd) = options.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Refusal::invalid(format!("invalid option: \"{odd}\"")));
    }
    if options.contains_key("size") {
        return Err(Refusal::invalid("quota size requested but no quota support")
            .hint("a volume of type tmpfs takes its size in o, as in o=size=100m"));
    }
    for (key, needed) in [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")] {
        if options.contains_key(key) && !options.contains_key(needed) {
            return Err(Refusal::invalid(format!("missing required option: \"{needed}\"")));
        }
    }
    if let Some((key, _)) = options.iter().find(|(_, value)| value.contains('\0')) {
        return Err(Refusal::invalid(format!("invalid option: \"{key}\"")));
    }
    if let Backing::Bind { .. } = Backing::of(options)
        && !options.get("device").is_some_and(|device| device.starts_with('/'))
    {
        return Err(Refusal::invalid("the device of a bind must be an absolute path"));
    }
    Ok(())
}

/// The volumes that a container mounts, each once, as they are to be made where they are missing.
pub fn wanted(record: &Record) -> Vec<NewVolume> {
    let mut all: BTreeMap<&str, NewVolume> = BTreeMap::new();
    for mount in &record.mounts {
        let Source::Volume { name, driver, anonymous, .. } = &mount.source else { continue };
        let volume = all.entry(name).or_insert_with(|| {
            let plain = NewVolume { name: name.clone(), ..NewVolume::default() };
            if *anonymous { NewVolume::anonymous(name.clone()) } else { plain }
        });
        volume.driver = driver.clone();
        let given = record.host_config.mounts.iter().flatten();
        let options = given
            .filter(|given| given.kind == "volume" && clean(&given.target) == mount.destination)
            .find_map(|given| given.volume_options.as_ref());
        if let Some(options) = options {
            volume.labels.extend(options.labels.clone().unwrap_or_default());
            let config = options.driver_config.clone().unwrap_or_default();
            volume.options.extend(config.options.unwrap_or_default());
        }
    }
    all.into_values().collect()
}

/// Names of the volumes that a container mounts, each once.
pub fn names(record: &Record) -> Vec<String> {
    let mut all: Vec<String> =
        record.mounts.iter().filter_map(|mount| mount.volume().map(String::from)).collect();
    all.sort();
    all.dedup();
    all
}

/// Names of the volumes that nobody named, and that go with the container if that is asked for.
pub fn anonymous(record: &Record) -> Vec<String> {
    let names = record.mounts.iter().filter_map(|mount| match &mount.source {
        Source::Volume { name, anonymous: true, .. } => Some(name.clone()),
        _ => None,
    });
    let mut all: Vec<String> = names.collect();
    all.sort();
    all.dedup();
    all
}

pub const LIST_KEYS: [&str; 4] = ["dangling", "driver", "label", "name"];
pub const PRUNE_KEYS: [&str; 3] = ["all", "label", "label!"];

/// Whether a volume passes a list's filters. `used`: a container has it. `matches`: a name and a pattern.
pub fn passes(
    volume: &VolumeRecord,
    used: bool,
    filters: &Filters,
    matches: &dyn Fn(&str, &str) -> bool,
) -> Result<bool, Refusal> {
    let dangling = filters.flag("dangling")?;
    Ok(dangling.is_none_or(|dangling| dangling != used)
        && filters.any("driver", |driver| driver == LOCAL)
        && filters.any("name", |pattern| matches(&volume.name, pattern))
        && filters.labels(&volume.labels))
}

/// Refusals of a volume's verbs, with Docker's words.
pub fn not_found(name: &str) -> Refusal {
    Refusal::not_found(format!("get {name}: no such volume"))
}

pub fn in_use<'a>(name: &str, users: impl Iterator<Item = &'a str>) -> Refusal {
    let users: Vec<&str> = users.collect();
    Refusal::new(Kind::Conflict, format!("remove {name}: volume is in use - [{}]", users.join(", ")))
        .hint("remove the containers that use it first")
}

/// Checks a path below a volume or an image: relative, and not leading out by name.
pub fn parse_subpath(text: &str) -> Option<&Path> {
    let path = Path::new(text);
    let stays = path
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    (stays && !text.contains('\0')).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn names_and_options_with_docker_s_texts() {
        let check = |name: &str, driver: &str, pairs: &[(&str, &str)]| {
            let volume = NewVolume {
                name: name.into(),
                driver: driver.into(),
                options: options(pairs),
                ..NewVolume::default()
            };
            volume.check().map_err(|refusal| (refusal.kind, refusal.message))
        };
        assert_eq!(check("web-data_1.x", "local", &[]), Ok(()));
        assert_eq!(check("web", "", &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]), Ok(()));
        let invalid = |text: &str| Err((Kind::Invalid, text.to_string()));
        assert_eq!(
            check("x", "", &[]),
            invalid(
                "create x: volume name is too short, names should be at least two alphanumeric characters"
            )
        );
        let bad = check("a/b", "", &[]).unwrap_err().1;
        assert!(
            bad.starts_with("create a/b: \"a/b\" includes invalid characters for a local volume name"),
            "{bad}"
        );
        assert_eq!(check("web", "", &[("color", "red")]), invalid("create web: invalid option: \"color\""));
        assert_eq!(
            check("web", "", &[("device", "/x")]),
            invalid("create web: missing required option: \"type\"")
        );
        assert_eq!(
            check("web", "", &[("type", "none")]),
            invalid("create web: missing required option: \"device\"")
        );
        let quota = invalid("create web: quota size requested but no quota support");
        assert_eq!(check("web", "", &[("size", "1g")]), quota);
        assert_eq!(
            check("web", "nfs", &[]),
            Err((
                Kind::NotFound,
                "create web: error looking up volume plugin nfs: plugin \"nfs\" not found".into()
            ))
        );
    }

    #[test]
    fn backings() {
        assert_eq!(Backing::of(&options(&[])), Backing::Directory);
        assert_eq!(
            Backing::of(&options(&[("type", "none"), ("device", "/a/../b"), ("o", "rbind,ro")])),
            Backing::Bind { path: "/b".into(), recursive: true, read_only: true }
        );
        assert_eq!(
            Backing::of(&options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")])),
            Backing::Filesystem { kind: "tmpfs".into(), device: "tmpfs".into(), options: "size=1m".into() }
        );
    }

    #[test]
    fn subpaths_stay_inside() {
        assert!(parse_subpath("a/b").is_some() && parse_subpath("./a").is_some());
        for bad in ["/a", "../a", "a/../../b", "a\0"] {
            assert!(parse_subpath(bad).is_none(), "{bad}");
        }
    }
}
