//! Kernel parameters: only those of a namespace that the container has for itself, and only through a procfs that
//! was mounted by this process.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use oci::runtime::LinuxNamespaceKind as Kind;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Error, describe};

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses parameters that are the machine's own. `has` tells which namespaces are the container's.
pub(crate) fn check<'a>(
    keys: impl Iterator<Item = &'a String>,
    has: impl Fn(Kind) -> bool,
) -> Result<(), Error> {
    for key in keys {
        let dotted = dotted(key);
        let (namespace, whose) = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            (Kind::Ipc, "ipc")
        } else if dotted.starts_with("net.") {
            (Kind::Network, "network")
        } else if dotted == "kernel.hostname" {
            return Err(Error::invalid(format!(
                "sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field"
            )));
        } else if dotted == "kernel.domainname" {
            (Kind::Uts, "uts")
        } else if dotted.starts_with("user.") {
            (Kind::User, "user")
        } else {
            return Err(Error::invalid(format!("sysctl {key:?} is not in a separate kernel namespace")));
        };
        if !has(namespace) {
            return Err(Error::invalid(format!("sysctl {key:?} not allowed in host {whose} namespace")));
        }
    }
    Ok(())
}

/// Writes a parameter; `proc` is the root of a procfs.
pub(crate) fn write(proc: BorrowedFd<'_>, key: &str, value: &str) -> Result<(), Error> {
    // Dots separate, and slashes stand for dots inside a name; or the other way round.
    let swapped: String = dotted(key)
        .chars()
        .map(|letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    let path = PathBuf::from(format!("sys/{swapped}"));
    let failed = |error: rustix::io::Errno| {
        Error::invalid(format!("write sysctl {key} = {value}: {}", describe(error.raw_os_error())))
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(proc, &path, flags, Mode::empty(), resolve).map_err(failed)?;
    rustix::io::write(&file, value.as_bytes()).map_err(failed)?;
    Ok(())
}

/// The spelling in which dots separate.
fn dotted(key: &str) -> String {
    let slashes_separate = key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'/');
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    if slashes_separate { key.chars().map(swap).collect() } else { key.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaced_parameters_are_taken() {
        let keys = |list: &[&str]| list.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let good = keys(&[
            "net.ipv4.ip_forward",
            "kernel.shmmax",
            "net/ipv4/conf/eth0.1/arp_ignore",
            "fs.mqueue.msg_max",
        ]);
        assert!(check(good.iter(), |_| true).is_ok());
        let without_network = check(good.iter(), |kind| kind != Kind::Network).unwrap_err().to_string();
        assert_eq!(without_network, "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace");
        for bad in ["kernel.panic", "kernel.hostname", "vm.swappiness", "kernel/panic", "nets.x", ""] {
            assert!(check(keys(&[bad]).iter(), |_| true).is_err(), "{bad}");
        }
        assert_eq!(dotted("net/ipv4/conf/eth0.1/arp_ignore"), "net.ipv4.conf.eth0/1.arp_ignore");
        assert_eq!(dotted("net.ipv4.conf.eth0/1.arp_ignore"), "net.ipv4.conf.eth0/1.arp_ignore");
    }
}
