//! What is told of a file, in the shape of `X-Docker-Container-Path-Stat`.

use std::io;
use std::os::fd::OwnedFd;

use api_types::container::PathStat;
use model::time;
use rustix::fs::FileType;

/// Bits of Go's `FileMode`, which is what clients read.
const DIRECTORY: u32 = 1 << 31;
pub const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SET_USER: u32 = 1 << 23;
const SET_GROUP: u32 = 1 << 22;
const CHARACTER: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;

/// Tells of what `handle` is a handle of.
pub fn of(handle: &OwnedFd, name: &str) -> io::Result<PathStat> {
    let stat = rustix::fs::fstat(handle)?;
    let modified = stat.st_mtime.saturating_mul(time::NANOS).saturating_add(stat.st_mtime_nsec as i64);
    Ok(PathStat {
        name: name.into(),
        size: stat.st_size,
        mode: mode(stat.st_mode),
        mtime: time::rfc3339_nano(modified),
        link_target: String::new(),
    })
}

fn mode(raw: u32) -> u32 {
    let kind = match FileType::from_raw_mode(raw) {
        FileType::RegularFile => 0,
        FileType::Directory => DIRECTORY,
        FileType::Symlink => SYMLINK,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHARACTER,
        FileType::Fifo => FIFO,
        FileType::Socket => SOCKET,
        FileType::Unknown => IRREGULAR,
    };
    let bits = [(0o4000, SET_USER), (0o2000, SET_GROUP), (0o1000, STICKY)];
    bits.into_iter().fold(kind | raw & 0o777, |mode, (bit, go)| if raw & bit != 0 { mode | go } else { mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_go() {
        assert_eq!(mode(0o100_644), 0o644);
        assert_eq!(mode(0o041_777), DIRECTORY | STICKY | 0o777);
        assert_eq!(mode(0o104_755), SET_USER | 0o755);
        assert_eq!(mode(0o020_666), DEVICE | CHARACTER | 0o666);
        assert_eq!(mode(0o120_777), SYMLINK | 0o777);
    }
}
