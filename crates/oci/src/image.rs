//! Image documents: index, manifest, descriptor and the configuration with Docker's additions.
//!
//! Reading is tolerant: `null` stands for "absent" everywhere, as in the files that Go programs write. Writing leaves
//! out what is empty.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::media_type;
use crate::platform::Platform;

/// Largest manifest or index that is read into memory, in bytes (the limit of the distribution specification).
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Largest image configuration that is read into memory, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// Most values that a document from outside may list, all its lists and objects together.
pub const VALUES_MAX: usize = 100_000;

/// Reads an index, a manifest or a configuration that somebody else wrote. What it lists is counted first: few bytes of
/// text (`{},`) can stand for hundreds in memory.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    if commas(bytes) > VALUES_MAX {
        return Err(serde::de::Error::custom(format_args!("it lists more than {VALUES_MAX} values")));
    }
    serde_json::from_slice(bytes)
}

/// Commas of a JSON text that are not within strings.
fn commas(bytes: &[u8]) -> usize {
    let (mut count, mut within, mut at) = (0, false, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if within => at += 1,
            b'"' => within = !within,
            b',' if !within => count += 1,
            _ => {}
        }
        at += 1;
    }
    count
}

/// `null` and a missing member both give the default.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Sets that JSON writes as objects with empty values: `{"80/tcp": {}}`.
mod keys {
    use super::{BTreeMap, BTreeSet};
    use serde::de::IgnoredAny;
    use serde::ser::SerializeMap;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(set: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(set.len()))?;
        for key in set {
            map.serialize_entry(key, &BTreeMap::<(), ()>::new())?;
        }
        map.end()
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, IgnoredAny>>::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

/// What a blob is, how it is called and how long it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default, deserialize_with = "or_default")]
    pub media_type: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: String::new(),
        }
    }
}

/// A list of manifests, one per platform (OCI image index, Docker manifest list).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for Index {
    fn default() -> Index {
        Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }
}

/// One image: its configuration and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An OCI manifest for a runnable image.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            artifact_type: String::new(),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// The image configuration document; its digest is the image ID.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// RFC 3339, kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(deserialize_with = "or_default")]
    pub os: String,
    #[serde(
        rename = "os.version",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    #[serde(rename = "os.features", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub config: Config,
    #[serde(deserialize_with = "or_default")]
    pub rootfs: RootFs,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Docker: free text of who made the image.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Docker: version of the engine that made it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    /// Docker: ID of the container that the image was committed from.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// Docker: that container's configuration, in the shape of the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_config: Option<serde_json::Value>,
}

impl Image {
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
    }
}

/// How to run the image: the OCI members and those that only Docker knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(with = "keys", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `None` and the empty list are different: the empty list clears what a parent had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The command line is escaped already (only ever true on Windows, and in the shell form there).
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub args_escaped: bool,
    #[serde(with = "keys", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// How to find out whether the container is well. Durations are nanoseconds; 0 means "inherit".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `[]` inherits, `["NONE"]` turns off, `["CMD", …]` runs, `["CMD-SHELL", line]` runs in the shell.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub interval: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub timeout: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub start_period: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub start_interval: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub retries: i64,
}

/// The layers by the digests of their uncompressed archives, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: String,
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One step of how the image was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The step changed only the configuration.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub empty_layer: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_lists_too_much_is_not_read() {
        let with = |count: usize| format!(r#"{{"history":[{}]}}"#, vec!["{}"; count].join(","));
        assert_eq!(read::<Image>(with(VALUES_MAX + 1).as_bytes()).unwrap().history.len(), VALUES_MAX + 1);
        let error = read::<Image>(with(VALUES_MAX + 2).as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "it lists more than 100000 values");
        let text = format!(r#"{{"author":"\"{}\\"}}"#, ",".repeat(VALUES_MAX + 9));
        assert_eq!(read::<Image>(text.as_bytes()).unwrap().author.len(), VALUES_MAX + 11);
    }

    #[test]
    fn nulls_are_absent() {
        let text = r#"{"created":null,"architecture":"amd64","os":"linux","author":null,
            "config":{"Hostname":"","User":null,"Env":null,"Cmd":["sh"],"Entrypoint":null,"Volumes":null,
                "ExposedPorts":{"80/tcp":{}},"Labels":null,"OnBuild":null,"Healthcheck":{"Test":["NONE"],"Retries":null},
                "AttachStdin":false,"Image":"x"},
            "container_config":{"Tty":true},"history":[{"created_by":"x","empty_layer":null}],
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let image: Image = serde_json::from_str(text).unwrap();
        assert_eq!(image.config.cmd, Some(vec!["sh".to_owned()]));
        assert_eq!(image.config.entrypoint, None);
        assert!(image.config.exposed_ports.contains("80/tcp"));
        assert!(image.rootfs.diff_ids.is_empty());
        let written = serde_json::to_string(&image).unwrap();
        assert_eq!(
            written,
            r#"{"architecture":"amd64","os":"linux","config":{"ExposedPorts":{"80/tcp":{}},"Cmd":["sh"],"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x"}],"container_config":{"Tty":true}}"#
        );
        let again: Image = serde_json::from_str(&written).unwrap();
        assert_eq!(again, image);
        serde_json::from_str::<Image>(r#"{"config":null,"rootfs":null}"#).unwrap();
    }

    #[test]
    fn a_lying_digest_is_refused() {
        let text = r#"{"schemaVersion":2,"config":{"digest":"sha256:../../etc","size":1},"layers":[]}"#;
        assert!(serde_json::from_str::<Manifest>(text).is_err());
        let negative = format!(r#"{{"digest":"{}","size":-1}}"#, Digest::of(b""));
        assert!(serde_json::from_str::<Descriptor>(&negative).is_err());
    }

    proptest! {
        #[test]
        fn configurations_survive_a_round_trip(
            env in proptest::collection::vec("[A-Z]{1,3}=\\PC{0,8}", 0..4),
            cmd in proptest::option::of(proptest::collection::vec("\\PC{0,8}", 0..3)),
            labels in proptest::collection::btree_map("[a-z.]{1,6}", "\\PC{0,8}", 0..3),
            ports in proptest::collection::btree_set("[0-9]{1,5}/tcp", 0..3),
        ) {
            let config = Config { env, cmd, labels, exposed_ports: ports, ..Config::default() };
            let text = serde_json::to_string(&config).unwrap();
            prop_assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
        }

        #[test]
        fn documents_never_panic(text in "\\PC{0,80}") {
            let _ = serde_json::from_str::<Image>(&text);
            let _ = serde_json::from_str::<Index>(&text);
        }
    }
}
