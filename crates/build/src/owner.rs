//! `--chown`: names looked up in the files of the image that is copied into.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use archive::Root;
use rustix::fs::{Mode, OFlags};

/// Largest `/etc/passwd` or `/etc/group`, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The owner that `user[:group]` means. A name alone stands for the group of the same name.
pub fn parse(text: &str, root: &Root) -> Result<(u32, u32), String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) if !group.contains(':') => (user, group),
        None => (text, text),
        Some(_) => return Err(format!("invalid chown string format: {text}")),
    };
    if user.is_empty() || group.is_empty() {
        return Err(format!("invalid chown string format: {text}"));
    }
    let uid = id(user, root, "/etc/passwd")
        .ok_or_else(|| format!("unable to convert uid/gid chown string to host mapping: can't find uid for user {user}: no such user: {user}"))?;
    let gid = id(group, root, "/etc/group")
        .ok_or_else(|| format!("unable to convert uid/gid chown string to host mapping: can't find gid for group {group}: no such group: {group}"))?;
    Ok((uid, gid))
}

/// A number, or the third field of the line that begins with the name.
fn id(name: &str, root: &Root, path: &str) -> Option<u32> {
    if let Ok(id) = name.parse::<u32>() {
        return (id != u32::MAX).then_some(id);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = root.open(Path::new(path), flags, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    File::from(file).take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    bytes.split(|&b| b == b'\n').find_map(|line| {
        let mut fields = line.split(|&b| b == b':');
        (fields.next()? == name.as_bytes()).then_some(())?;
        std::str::from_utf8(fields.nth(1)?).ok()?.trim().parse().ok()
    })
}
