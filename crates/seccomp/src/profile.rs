//! Docker's profile format, and its resolution for one container on one host.

use std::path::PathBuf;

use oci::runtime::{self, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFlag, LinuxSyscall};
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Arch;

/// A profile file. Fields that are absent or `null` are empty; unknown fields are ignored, as Docker does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    /// None only in a profile that asks for no filter.
    pub default_action: Option<LinuxSeccompAction>,
    pub default_errno_ret: Option<u32>,
    /// Fixed list of architectures; not together with `arch_map`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<runtime::Arch>,
    #[serde(deserialize_with = "null_is_default")]
    pub arch_map: Vec<ArchMap>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<LinuxSeccompFlag>,
    pub listener_path: Option<PathBuf>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
    #[serde(deserialize_with = "null_is_default")]
    pub syscalls: Vec<Rule>,
}

/// Which further architectures a native one brings along.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArchMap {
    pub architecture: String,
    #[serde(deserialize_with = "null_is_default")]
    pub sub_architectures: Vec<String>,
}

impl ArchMap {
    pub(crate) fn new(architecture: &str, sub_architectures: &[&str]) -> ArchMap {
        let sub_architectures = sub_architectures.iter().map(|&name| name.into()).collect();
        ArchMap { architecture: architecture.into(), sub_architectures }
    }
}

/// One action for some system calls, perhaps only under conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The form of old profiles; not together with `names`.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub names: Vec<String>,
    pub action: LinuxSeccompAction,
    #[serde(default)]
    pub errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub args: Vec<LinuxSeccompArg>,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub includes: Conditions,
    #[serde(default, deserialize_with = "null_is_default")]
    pub excludes: Conditions,
}

impl Rule {
    pub(crate) fn new(action: LinuxSeccompAction, names: Vec<String>) -> Rule {
        Rule {
            name: String::new(),
            names,
            action,
            errno_ret: None,
            args: Vec::new(),
            comment: String::new(),
            includes: Conditions::default(),
            excludes: Conditions::default(),
        }
    }
}

/// When a rule applies (`includes`) or does not (`excludes`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conditions {
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<String>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub arches: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_kernel: Option<String>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A kernel's version, as far as profiles care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel {
    pub major: u32,
    pub minor: u32,
}

impl Kernel {
    /// Reads `major.minor` off the front of a release such as `6.18.3-generic`.
    pub fn parse(release: &str) -> Option<Kernel> {
        let (major, rest) = release.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Kernel { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    // The text up to the colon is Docker's, which clients match on.
    #[error("Decoding seccomp profile failed: {0}")]
    Json(#[from] serde_json::Error),
    #[error(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, \
         use either 'architectures' or 'archMap'"
    )]
    Architectures,
    #[error("both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'")]
    Names,
    #[error("the seccomp profile has rules, but no defaultAction")]
    DefaultAction,
    #[error("seccomp architecture {0:?} is not known")]
    Architecture(String),
    #[error("invalid kernel version {0:?} in the seccomp profile, use the form \"4.8\"")]
    Kernel(String),
}

impl Profile {
    /// Reads a profile from JSON.
    pub fn parse(json: &str) -> Result<Profile, ProfileError> {
        Ok(serde_json::from_str(json)?)
    }

    /// The section of the runtime spec for a container with this bounding set (`CAP_…` names), or none if the
    /// profile is empty and so asks for no filter at all.
    pub fn resolve<S: AsRef<str>>(
        &self,
        capabilities: &[S],
        arch: Arch,
        kernel: Kernel,
    ) -> Result<Option<LinuxSeccomp>, ProfileError> {
        let default_action = match self.default_action {
            None if self.syscalls.is_empty() => return Ok(None),
            None => return Err(ProfileError::DefaultAction),
            Some(action) => action,
        };
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(ProfileError::Architectures);
        }
        let mut architectures = self.architectures.clone();
        if let Some(map) = self.arch_map.iter().find(|map| map.architecture == arch.spec_name()) {
            for name in std::iter::once(&map.architecture).chain(&map.sub_architectures) {
                architectures.push(architecture(name)?);
            }
        }
        let host = Host { capabilities, arch, kernel };
        let mut syscalls = Vec::with_capacity(self.syscalls.len());
        for rule in &self.syscalls {
            if !rule.name.is_empty() && !rule.names.is_empty() {
                return Err(ProfileError::Names);
            }
            if host.applies(rule)? {
                syscalls.push(rule.resolved());
            }
        }
        Ok(Some(LinuxSeccomp {
            default_action,
            default_errno_ret: self.default_errno_ret,
            architectures,
            flags: self.flags.clone(),
            listener_path: self.listener_path.clone(),
            listener_metadata: self.listener_metadata.clone(),
            syscalls,
        }))
    }
}

impl Rule {
    fn resolved(&self) -> LinuxSyscall {
        LinuxSyscall {
            names: if self.name.is_empty() { self.names.clone() } else { vec![self.name.clone()] },
            action: self.action,
            errno_ret: self.errno_ret,
            args: self.args.clone(),
        }
    }
}

fn architecture(name: &str) -> Result<runtime::Arch, ProfileError> {
    let name_only = StrDeserializer::<serde::de::value::Error>::new(name);
    runtime::Arch::deserialize(name_only).map_err(|_| ProfileError::Architecture(name.into()))
}

/// What rules are conditioned on.
struct Host<'a, S> {
    capabilities: &'a [S],
    arch: Arch,
    kernel: Kernel,
}

impl<S: AsRef<str>> Host<'_, S> {
    /// One match excludes a rule, while every kind of inclusion must hold, and all of its capabilities.
    fn applies(&self, rule: &Rule) -> Result<bool, ProfileError> {
        let Conditions { caps, arches, min_kernel } = &rule.excludes;
        if arches.iter().any(|arch| arch == self.arch.profile_name())
            || caps.iter().any(|capability| self.holds(capability))
            || min_kernel.as_deref().map(|version| self.is_at_least(version)).transpose()? == Some(true)
        {
            return Ok(false);
        }
        let Conditions { caps, arches, min_kernel } = &rule.includes;
        Ok((arches.is_empty() || arches.iter().any(|arch| arch == self.arch.profile_name()))
            && caps.iter().all(|capability| self.holds(capability))
            && min_kernel.as_deref().map(|version| self.is_at_least(version)).transpose()? != Some(false))
    }

    fn holds(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|held| held.as_ref() == capability)
    }

    fn is_at_least(&self, version: &str) -> Result<bool, ProfileError> {
        let parsed = Kernel::parse(version).ok_or_else(|| ProfileError::Kernel(version.into()))?;
        Ok(self.kernel >= parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Kernel = Kernel { major: 6, minor: 18 };

    fn names_allowed(json: &str, capabilities: &[&str], kernel: Kernel) -> Vec<String> {
        let profile = Profile::parse(json).unwrap();
        let resolved = profile.resolve(capabilities, Arch::X86_64, kernel).unwrap().unwrap();
        resolved.syscalls.into_iter().flat_map(|rule| rule.names).collect()
    }

    #[test]
    fn conditions_choose_the_rules() {
        let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": {}, "excludes": {}},
            {"name": "write", "action": "SCMP_ACT_ALLOW"},
            {"names": ["both"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_A", "CAP_B"]}},
            {"names": ["without"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_A", "CAP_B"]}},
            {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["old"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
            {"names": ["here"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
            {"names": ["there"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64", "s390"]}},
            {"names": ["not here"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}}
        ]}"#;
        assert_eq!(names_allowed(json, &[], KERNEL), ["read", "write", "without", "new", "here"]);
        assert_eq!(names_allowed(json, &["CAP_A"], KERNEL), ["read", "write", "new", "here"]);
        let old = Kernel { major: 4, minor: 7 };
        assert_eq!(names_allowed(json, &["CAP_A", "CAP_B"], old), ["read", "write", "both", "old", "here"]);
    }

    #[test]
    fn the_arch_map_becomes_architectures() {
        let profile = crate::default_profile();
        let of = |arch| profile.resolve::<&str>(&[], arch, KERNEL).unwrap().unwrap().architectures;
        assert_eq!(of(Arch::X86_64), [runtime::Arch::X86_64, runtime::Arch::X86, runtime::Arch::X32]);
        assert_eq!(of(Arch::Aarch64), [runtime::Arch::Aarch64, runtime::Arch::Arm]);
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |json| {
            Profile::parse(json).unwrap().resolve::<&str>(&[], Arch::X86_64, KERNEL).unwrap_err().to_string()
        };
        let both = r#"{"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}],
            "defaultAction": "SCMP_ACT_ALLOW"}"#;
        assert!(refused(both).contains("'architectures' or 'archMap'"));
        let both = r#"{"defaultAction": "SCMP_ACT_KILL",
            "syscalls": [{"name": "read", "names": ["write"], "action": "SCMP_ACT_ALLOW"}]}"#;
        assert!(refused(both).contains("'name' or 'names'"));
        let version = r#"{"defaultAction": "SCMP_ACT_KILL",
            "syscalls": [{"name": "read", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}]}"#;
        assert!(refused(version).contains("\"new\""));
    }

    #[test]
    fn an_empty_profile_asks_for_no_filter() {
        let profile = Profile::parse("{}").unwrap();
        assert_eq!(profile.resolve::<&str>(&[], Arch::X86_64, KERNEL).unwrap(), None);
    }

    #[test]
    fn a_profile_survives_its_own_json() {
        let profile = crate::default_profile();
        assert_eq!(Profile::parse(&serde_json::to_string(&profile).unwrap()).unwrap(), profile);
    }

    #[test]
    fn kernel_releases() {
        assert_eq!(Kernel::parse("6.18.3-generic"), Some(KERNEL));
        assert_eq!(Kernel::parse("4.8"), Some(Kernel { major: 4, minor: 8 }));
        assert_eq!(Kernel::parse("4"), None);
        assert_eq!(Kernel::parse("4.x"), None);
    }
}
