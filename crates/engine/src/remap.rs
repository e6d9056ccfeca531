//! `--userns-remap`: who stands for a container's users, read from the host's files.

use model::Refusal;
use model::remap::{Remap, ranges};

/// The user that `default` means.
const DEFAULT_USER: &str = "dockremap";

/// Reads `default`, `user`, `user:group`, `uid` or `uid:gid`.
pub fn read(text: &str) -> Result<Remap, Refusal> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let (user, group_given) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None if text == "default" => (DEFAULT_USER, None),
        None => (text, None),
    };
    let invalid = |what: String| Refusal::invalid(format!("invalid --userns-remap \"{text}\": {what}"));
    let hint = "make the user (useradd -r dockremap) and give it ranges in /etc/subuid and /etc/subgid";
    let (user_name, uid) =
        find(&passwd, user).ok_or_else(|| invalid(format!("unable to find user {user}")).hint(hint))?;
    let wanted_group = group_given.unwrap_or(&user_name);
    let (group_name, gid) = find(&group, wanted_group)
        .ok_or_else(|| invalid(format!("unable to find group {wanted_group}")).hint(hint))?;
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let remap = Remap {
        uids: ranges(&file("/etc/subuid"), &user_name, uid),
        gids: ranges(&file("/etc/subgid"), &group_name, gid),
    };
    for (empty, what, path) in [
        (remap.uids.is_empty(), &user_name, "/etc/subuid"),
        (remap.gids.is_empty(), &group_name, "/etc/subgid"),
    ] {
        if empty {
            return Err(invalid(format!("no subordinate range found for {what:?} in {path}")).hint(hint));
        }
    }
    Ok(remap)
}

/// Name and number of an entry of `/etc/passwd` or `/etc/group`, found by either.
fn find(file: &str, wanted: &str) -> Option<(String, u32)> {
    let entries = file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        Some((name, number.parse::<u32>().ok()?))
    });
    let number = wanted.parse::<u32>().ok();
    let mut fitting = entries.filter(|(name, id)| *name == wanted || Some(*id) == number);
    fitting.next().map(|(name, id)| (name.to_string(), id))
}

/// Whether the kernel can show layers with other owners than they have on disk, as containers in a user namespace
/// need it.
pub fn check_kernel() -> Result<(), Refusal> {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let known = seccomp::Kernel::parse(&release);
    match known.is_none_or(|kernel| (kernel.major, kernel.minor) >= (5, 19)) {
        true => Ok(()),
        false => Err(Refusal::invalid(format!(
            "--userns-remap needs overlays with mapped owners, which Linux has since 5.19; this is {release}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_name_or_number() {
        let file = "root:x:0:0:root:/root:/bin/sh\ndockremap:x:999:998::/:\n";
        assert_eq!(find(file, "dockremap"), Some(("dockremap".into(), 999)));
        assert_eq!(find(file, "999"), Some(("dockremap".into(), 999)));
        assert_eq!(find(file, "nobody"), None);
    }
}
