//! User namespaces: which users of the host stand for a container's.

use api_types::container::HostConfig;
use oci::runtime::LinuxIdMapping;

use crate::Refusal;

/// The mappings of all containers that do not opt out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remap {
    pub uids: Vec<LinuxIdMapping>,
    pub gids: Vec<LinuxIdMapping>,
}

impl Remap {
    /// The user and group of the host that a container's root is.
    pub fn root(&self) -> (u32, u32) {
        let host = |mappings: &[LinuxIdMapping]| {
            mappings.iter().find(|mapping| mapping.container_id == 0).map_or(0, |mapping| mapping.host_id)
        };
        (host(&self.uids), host(&self.gids))
    }

    /// The highest group that a container knows.
    pub fn last_gid(&self) -> u32 {
        let ends = self.gids.iter().map(|mapping| mapping.container_id.saturating_add(mapping.size));
        ends.max().unwrap_or(1).saturating_sub(1)
    }
}

/// The mapping of a container: none if it shares the host's users.
pub fn of<'a>(host: &HostConfig, remap: Option<&'a Remap>) -> Option<&'a Remap> {
    remap.filter(|_| host.userns_mode != "host")
}

/// Refuses what a container in a user namespace cannot have.
pub fn check(host: &HostConfig, remap: Option<&Remap>) -> Result<(), Refusal> {
    if of(host, remap).is_none() {
        return Ok(());
    }
    let refuse =
        |text: &str| Err(Refusal::invalid(text).hint("add --userns=host to run it with the host's users"));
    if host.privileged {
        return refuse(
            "privileged mode is incompatible with user namespaces. You must run the container in the host namespace \
             when running privileged mode",
        );
    }
    if host.network_mode == "host" {
        return refuse("cannot share the host's network namespace when user namespaces are enabled");
    }
    if host.pid_mode == "host" {
        return refuse("cannot share the host PID namespace when user namespaces are enabled");
    }
    Ok(())
}

/// Reads the ranges that `/etc/subuid` or `/etc/subgid` gives a user: `name-or-number:first:count` a line. The
/// container's numbers start at 0 and go on from range to range.
pub fn ranges(text: &str, name: &str, number: u32) -> Vec<LinuxIdMapping> {
    let mut next: u32 = 0;
    let mut all = Vec::new();
    for line in text.lines().take(RANGES_MAX) {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [owner, first, count] = fields[..] else { continue };
        if owner != name && owner.parse() != Ok(number) {
            continue;
        }
        let (Ok(first), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else { continue };
        let Some(end) = next.checked_add(count) else { break };
        if count == 0 || first.checked_add(count).is_none() {
            continue;
        }
        all.push(LinuxIdMapping { container_id: next, host_id: first, size: count });
        next = end;
        // As many lines as the kernel takes for a mapping.
        if all.len() == 340 {
            break;
        }
    }
    all
}

/// Lines of the file that are looked at.
const RANGES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_follow_each_other() {
        let text = "other:1:2\ndockremap:100000:65536\n# no\n1001:300000:10\ndockremap:x:1\n";
        let mapping = |container_id, host_id, size| LinuxIdMapping { container_id, host_id, size };
        assert_eq!(
            ranges(text, "dockremap", 1001),
            [mapping(0, 100_000, 65536), mapping(65536, 300_000, 10)]
        );
        assert!(ranges(text, "nobody", 7).is_empty());
        let remap = Remap { uids: ranges(text, "dockremap", 1001), gids: ranges(text, "other", 9) };
        assert_eq!((remap.root(), remap.last_gid()), ((100_000, 1), 1));
    }

    #[test]
    fn conflicts_have_docker_s_texts() {
        let remap = Remap::default();
        let host = HostConfig { privileged: true, ..HostConfig::default() };
        assert!(
            check(&host, Some(&remap)).unwrap_err().message.starts_with("privileged mode is incompatible")
        );
        assert!(check(&host, None).is_ok());
        let own = HostConfig { userns_mode: "host".into(), ..host };
        assert!(check(&own, Some(&remap)).is_ok());
        let host = HostConfig { pid_mode: "host".into(), ..HostConfig::default() };
        assert!(check(&host, Some(&remap)).unwrap_err().message.contains("host PID namespace"));
    }

    proptest! {
        #[test]
        fn ranges_never_overlap(text in "([a-c0-9]{1,2}:[0-9]{1,11}:[0-9]{1,11}\n){0,8}|\\PC{0,40}") {
            let found = ranges(&text, "a", 1);
            let mut next = 0_u64;
            for mapping in found {
                prop_assert_eq!(u64::from(mapping.container_id), next);
                next += u64::from(mapping.size);
            }
        }
    }
}
