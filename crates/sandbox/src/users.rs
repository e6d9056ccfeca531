//! Users and groups, looked up in the container's own files.
//!
//! The files are written by strangers: they are read through the root, to a bound, and lines that make no sense are
//! passed over, as every C library does. Nothing is guessed: a name that is not there is an error.

use std::io;
use std::path::Path;

use sys::Root;

use crate::Error;

/// Largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const FILE_LIMIT: usize = 16 << 20;
/// Most supplementary groups that the kernel takes.
const GROUPS_MAX: usize = 65536;

/// Who a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Looks up a user as Docker writes it (`name|uid[:group|gid]`, empty is 0) in `/etc/passwd` and `/etc/group` of
/// `root`, with `extra_groups` by name or number.
///
/// A number without an entry stands for itself. A name is in the groups that list it, unless a group was named.
pub fn lookup(root: &Root, user: &str, extra_groups: &[String]) -> Result<Identity, Error> {
    let passwd = read(root, "/etc/passwd")?;
    let mut group = None;
    find(user, extra_groups, &passwd, || match &mut group {
        Some(text) => Ok(String::clone(text)),
        empty => Ok(empty.insert(read(root, "/etc/group")?).clone()),
    })
}

/// The home directory of a user by number; `/` if there is no entry.
pub fn home(root: &Root, uid: u32) -> Result<String, Error> {
    let passwd = read(root, "/etc/passwd")?;
    let entry = users(&passwd).find(|entry| entry.uid == uid);
    Ok(entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned())
}

/// Puts numbers in the place of the names of a process's user and groups, and sets `HOME` if it is not set.
pub fn resolve(root: &Root, process: &mut oci::runtime::Process) -> Result<(), Error> {
    let identity = crate::process::identity(root, process)?;
    let user = &mut process.user;
    (user.uid, user.gid, user.additional_gids) = (identity.uid, identity.gid, identity.groups);
    user.username = String::new();
    user.additional_groups = Vec::new();
    if !process.env.iter().any(|entry| entry.starts_with("HOME=")) {
        process.env.push(format!("HOME={}", identity.home));
    }
    Ok(())
}

fn find(
    user: &str,
    extra_groups: &[String],
    passwd: &str,
    mut group_file: impl FnMut() -> Result<String, Error>,
) -> Result<Identity, Error> {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    let number = number(if user.is_empty() { "0" } else { user });
    let entry = users(passwd).find(|entry| match number {
        Some(uid) => u64::from(entry.uid) == uid,
        None => entry.name == user,
    });
    let mut identity = Identity { home: "/".into(), ..Identity::default() };
    match (&entry, number) {
        (Some(entry), _) => {
            identity.uid = entry.uid;
            identity.gid = entry.gid;
            if !entry.home.is_empty() {
                identity.home = entry.home.to_owned();
            }
        }
        (None, Some(uid)) => identity.uid = in_range(uid)?,
        (None, None) => {
            let message = format!("unable to find user {user}: no matching entries in passwd file");
            return Err(Error::Invalid(message));
        }
    }
    if !group.is_empty() {
        identity.gid = find_group(group, &group_file()?)?;
    } else if let Some(entry) = entry {
        let text = group_file()?;
        let of_user = groups(&text).filter(|group| group.members.split(',').any(|name| name == entry.name));
        identity.groups = of_user.map(|group| group.gid).take(GROUPS_MAX).collect();
    }
    for extra in extra_groups {
        let gid = match self::number(extra) {
            Some(gid) => in_range(gid)?,
            None => find_group(extra, &group_file()?)?,
        };
        identity.groups.push(gid);
    }
    Ok(identity)
}

fn find_group(wanted: &str, text: &str) -> Result<u32, Error> {
    let number = number(wanted);
    let entry = groups(text).find(|group| match number {
        Some(gid) => u64::from(group.gid) == gid,
        None => group.name == wanted,
    });
    match (entry, number) {
        (Some(group), _) => Ok(group.gid),
        (None, Some(gid)) => in_range(gid),
        (None, None) => {
            let message = format!("unable to find group {wanted}: no matching entries in group file");
            Err(Error::Invalid(message))
        }
    }
}

/// A decimal number; one too large for anything is still a number, and out of range.
fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if text.starts_with('-') { Some(u64::MAX) } else { Some(digits.parse().unwrap_or(u64::MAX)) }
}

fn in_range(id: u64) -> Result<u32, Error> {
    match i32::try_from(id) {
        Ok(id) => Ok(id as u32),
        Err(_) => Err(Error::invalid("uids and gids must be in range 0-2147483647")),
    }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn users(text: &str) -> impl Iterator<Item = User<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group { name, gid, members: fields.next().unwrap_or("") })
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '+', '-']))
}

fn read(root: &Root, path: &str) -> Result<String, Error> {
    match root.read(Path::new(path), FILE_LIMIT) {
        Ok(content) => Ok(match String::from_utf8(content) {
            Ok(text) => text,
            Err(bytes) => String::from_utf8_lossy(bytes.as_bytes()).into_owned(),
        }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(String::new())
        }
        Err(error) => Err(Error::invalid(format!("read {path} of the container: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# no\nbroken:x:none:0::/:\n\nweb:x:33:33:Web:/var/www:/bin/false\n\
                          twice:x:5:6::/a:\ntwice:x:7:8::/b:\n12:x:99:99::/odd:\nnohome:x:3:3\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\naudio:x:29:web,root\nvideo:x:44:web\nbad:x::web\n";

    fn check(user: &str, extra: &[&str], expected: Result<(u32, u32, &[u32], &str), &str>) {
        let extra: Vec<String> = extra.iter().map(|group| (*group).to_owned()).collect();
        let found = find(user, &extra, PASSWD, || Ok(GROUP.into()));
        match (found, expected) {
            (Ok(found), Ok((uid, gid, groups, home))) => {
                assert_eq!(
                    (found.uid, found.gid, &found.groups[..], &found.home[..]),
                    (uid, gid, groups, home)
                );
            }
            (Err(error), Err(message)) => assert_eq!(error.to_string(), message),
            (found, expected) => panic!("{user}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        check("", &[], Ok((0, 0, &[29], "/root")));
        check("0", &[], Ok((0, 0, &[29], "/root")));
        check("web", &[], Ok((33, 33, &[29, 44], "/var/www")));
        check("33", &[], Ok((33, 33, &[29, 44], "/var/www")));
        check("web:audio", &[], Ok((33, 29, &[], "/var/www")));
        check("web:7", &["video", "9"], Ok((33, 7, &[44, 9], "/var/www")));
        check("1000", &[], Ok((1000, 0, &[], "/")));
        check("1000:1001", &[], Ok((1000, 1001, &[], "/")));
        check("twice", &[], Ok((5, 6, &[], "/a")));
        check("12", &[], Ok((12, 0, &[], "/")));
        check("nohome", &[], Ok((3, 3, &[], "/")));
        check(":audio", &[], Ok((0, 29, &[], "/root")));
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        check("foo", &[], Err("unable to find user foo: no matching entries in passwd file"));
        check("broken", &[], Err("unable to find user broken: no matching entries in passwd file"));
        check("web:foo", &[], Err("unable to find group foo: no matching entries in group file"));
        check("web", &["foo"], Err("unable to find group foo: no matching entries in group file"));
        check("4294967295", &[], Err("uids and gids must be in range 0-2147483647"));
        check("-1", &[], Err("uids and gids must be in range 0-2147483647"));
        check("99999999999999999999", &[], Err("uids and gids must be in range 0-2147483647"));
        check("0:2147483648", &[], Err("uids and gids must be in range 0-2147483647"));
    }

    proptest! {
        #[test]
        fn no_file_content_makes_it_panic(user in ".{0,20}", passwd in "[a-z0-9:\n#,+-]{0,200}", group in "\\PC{0,200}") {
            let _ = find(&user, &[], &passwd, || Ok(group.clone()));
        }

        #[test]
        fn a_user_that_is_listed_is_found(name in "[a-z_][a-z0-9_-]{0,30}", uid in 0u32..0x8000_0000, gid in 0u32..0x8000_0000) {
            let passwd = format!("{PASSWD}{name}-x:y:{uid}:{gid}:g:/h:/s\n");
            let found = find(&format!("{name}-x"), &[], &passwd, || Ok(String::new())).unwrap();
            prop_assert_eq!((found.uid, found.gid, &found.home[..]), (uid, gid, "/h"));
        }
    }
}
