//! Platforms: `os/arch[/variant]`, the many spellings of architectures, and which image runs where.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::image::or_default;

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("\"{0}\": unknown operating system or architecture: invalid argument")]
    Unknown(String),
    #[error(
        "\"{component}\" is an invalid component of \"{text}\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Component { component: String, text: String },
    #[error("\"{0}\": cannot parse platform specifier: invalid argument")]
    Parts(String),
}

/// What an image was made for, or what is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
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
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x", "wasm",
];

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: &str) -> Platform {
        Platform {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.into(),
            ..Platform::default()
        }
        .normalised()
    }

    /// The platform this program was built for.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, "")
    }

    /// Reads `os`, `arch`, `os/arch` or `os/arch/variant`; what is missing comes from the host.
    pub fn parse(text: &str) -> Result<Platform, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        for part in &parts {
            let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
            if part.is_empty() || !part.bytes().all(valid) {
                return Err(Error::Component { component: (*part).into(), text: text.into() });
            }
        }
        match parts[..] {
            [one] => {
                let lower = one.to_ascii_lowercase();
                let as_system = if lower == "macos" { "darwin" } else { &lower };
                if SYSTEMS.contains(&as_system) {
                    let host = Platform::host();
                    return Ok(Platform { os: as_system.into(), ..host });
                }
                let platform = Platform::new("linux", one, "");
                if ARCHITECTURES.contains(&platform.architecture.as_str()) {
                    return Ok(platform);
                }
                Err(Error::Unknown(text.into()))
            }
            [os, architecture] => Ok(Platform::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, variant)),
            _ => Err(Error::Parts(text.into())),
        }
    }

    /// One spelling for every name of the same machine: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
    #[must_use]
    pub fn normalised(mut self) -> Platform {
        self.os = match self.os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".into(),
            other => other.into(),
        };
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "i686" | "x86", v) => ("386", v),
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64", v) => ("amd64", v),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0" | "") => ("arm64", ""),
            ("aarch64", v) => ("arm64", v),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("loongarch64", v) => ("loong64", v),
            ("powerpc64le", v) => ("ppc64le", v),
            (a, v) => (a, v),
        };
        (self.architecture, self.variant) = (architecture.to_owned(), variant.to_owned());
        self
    }

    /// How well an image for `self` serves who asks for `wanted`: `Some(0)` is exact, more is further off, `None` does
    /// not run. A 32-bit ARM machine runs every older variant of its architecture.
    pub fn distance(&self, wanted: &Platform) -> Option<u32> {
        let (have, wanted) = (self.clone().normalised(), wanted.clone().normalised());
        if have.os != wanted.os || have.architecture != wanted.architecture {
            return None;
        }
        if have.variant == wanted.variant {
            return Some(0);
        }
        let level = |variant: &str| variant.strip_prefix('v').unwrap_or("1").parse::<u32>().ok();
        match have.architecture.as_str() {
            // A baseline that nobody names is version 1.
            "arm" | "amd64" => {
                let base = |variant: &str| if variant.is_empty() { Some(1) } else { level(variant) };
                let (have, wanted) = (base(&have.variant)?, base(&wanted.variant)?);
                (have <= wanted).then(|| wanted - have)
            }
            _ if have.variant.is_empty() || wanted.variant.is_empty() => Some(1),
            _ => None,
        }
    }

    /// Of several images the one that serves best who asks for `self`: the first of the closest. One that does not tell its
    /// platform is taken if there is no other.
    pub fn closest<T>(&self, images: impl IntoIterator<Item = (Option<Platform>, T)>) -> Option<T> {
        let distance = |platform: &Option<Platform>| match platform {
            Some(platform) => platform.distance(self),
            None => Some(u32::MAX),
        };
        let serving = images.into_iter().filter_map(|(platform, image)| Some((distance(&platform)?, image)));
        serving.min_by_key(|(distance, _)| *distance).map(|(_, image)| image)
    }

    /// Whether an image for `self` runs where `wanted` is asked for.
    pub fn serves(&self, wanted: &Platform) -> bool {
        self.distance(wanted).is_some()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings() {
        for (text, printed) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("Linux/AMD64/v3", "linux/amd64/v3"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), printed, "{text}");
        }
        for text in ["", "linux/", "linux/amd64/v1/x", "nonsense", "linux/am d64"] {
            assert!(Platform::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn older_variants_serve() {
        let platform = |text| Platform::parse(text).unwrap();
        assert_eq!(platform("linux/arm/v6").distance(&platform("linux/arm/v7")), Some(1));
        assert_eq!(platform("linux/arm/v7").distance(&platform("linux/arm/v6")), None);
        assert_eq!(platform("linux/amd64").distance(&platform("linux/amd64/v3")), Some(2));
        assert_eq!(platform("linux/amd64").distance(&platform("linux/arm64")), None);
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "[a-z0-9_]{1,8}/[a-z0-9_]{1,8}(/[v0-9.]{1,3})?") {
            let once = Platform::parse(&text).unwrap();
            prop_assert_eq!(once.clone().normalised(), once);
        }
    }
}
