//! Versions of the API, and what they answer differently.

mod images;
mod shims;

use std::fmt;

use model::Refusal;

pub use images::{
    archive_platforms, has_manifests, history_platform, image_summary, inspect_image, inspect_manifests,
    inspect_platform, json_platforms, list_identity, needs, push_platform, removed_platforms,
};
pub use shims::{
    attach_streams, container_create, container_mounts, container_summary, disk_usage, event,
    inspect_container, stats, update,
};

/// `1.55`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u16,
    pub minor: u16,
}

impl Version {
    pub const MAX: Version = Version::new(1, 55);
    /// Older clients than this are not served, whatever is configured.
    pub const FLOOR: Version = Version::new(1, 24);

    pub const fn new(major: u16, minor: u16) -> Version {
        Version { major, minor }
    }

    pub fn parse(text: &str) -> Option<Version> {
        let (major, minor) = text.split_once('.')?;
        let digits =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        Some(Version { major: digits(major)?, minor: digits(minor)? })
    }

    /// Refuses what the daemon does not speak, with the words that clients look for.
    pub fn check(self, min: Version) -> Result<(), Refusal> {
        if self < min {
            return Err(Refusal::invalid(format!(
                "client version {self} is too old. Minimum supported API version is {min}, please upgrade your client to \
                 a newer version"
            )));
        }
        if self > Version::MAX {
            return Err(Refusal::invalid(format!(
                "client version {self} is too new. Maximum supported API version is {}",
                Version::MAX
            )));
        }
        Ok(())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spoken() {
        let check = |text: &str| Version::parse(text).unwrap().check(Version::FLOOR);
        assert!(check("1.24").is_ok() && check("1.55").is_ok());
        assert!(
            check("1.23").unwrap_err().message.contains("is too old. Minimum supported API version is 1.24")
        );
        assert!(
            check("1.99").unwrap_err().message.contains("is too new. Maximum supported API version is 1.55")
        );
        for bad in ["", "1", "1.x", ".1", "1.", "1.2.3"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
