//! Writing to disk before anybody waits for it.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes after which writing begins in files that come little by little, and after which it is waited for in trees.
const STEP_BYTES: u64 = 8 << 20;

/// Has the kernel begin to write what it holds of a file in this range, so that whoever syncs the file later waits less
/// (`sync_file_range(2)`). A wish and no promise: a filesystem that cannot is no error.
pub fn begin_writeback(file: impl AsFd, range: Range<u64>) {
    let (Ok(offset), Ok(length)) = (i64::try_from(range.start), i64::try_from(range.end - range.start))
    else {
        return;
    };
    sync_range(file, offset, length, libc::SYNC_FILE_RANGE_WRITE);
}

fn sync_range(file: impl AsFd, offset: i64, length: i64, flags: libc::c_uint) {
    // SAFETY: takes numbers and a descriptor that is open during the call.
    unsafe {
        libc::sync_file_range(file.as_fd().as_raw_fd(), offset, length, flags);
    }
}

/// Has the kernel write what it holds of all regular files below a directory, never much at once, so that others get
/// their turn on the disk, and a sync of the filesystem is short afterwards. Links are not followed. What cannot be read
/// is left to that sync. Blocks; gives the bytes that the files have.
pub fn write_tree_back(directory: &Path) -> u64 {
    let (mut total, mut begun) = (0, 0);
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                directories.push(entry.path());
            }
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let opened = || OpenOptions::new().read(true).custom_flags(flags).open(entry.path());
            let Some(file) = kind.is_file().then(opened).and_then(Result::ok) else { continue };
            let bytes = file.metadata().map_or(0, |found| found.len());
            total += bytes;
            begun += bytes;
            write_back(&file, begun >= STEP_BYTES);
            if begun >= STEP_BYTES {
                begun = 0;
            }
        }
    }
    total
}

/// Begins to write a whole file, and waits for the end if it is told to.
fn write_back(file: &File, wait: bool) {
    let flags = if wait { libc::SYNC_FILE_RANGE_WAIT_AFTER } else { 0 };
    sync_range(file, 0, 0, libc::SYNC_FILE_RANGE_WRITE | flags);
}

/// The steps that a write of these bytes completes in a file that is written from its beginning on: what to hand to
/// [`begin_writeback`] after it. Empty if it completes none.
pub fn completed_steps(written: Range<u64>) -> Range<u64> {
    let step = |at: u64| at / STEP_BYTES * STEP_BYTES;
    step(written.start)..step(written.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_handed_out_once() {
        let mut next = 0;
        for at in (0..40 << 20).step_by(3 << 20) {
            let steps = completed_steps(at..at + (3 << 20));
            if !steps.is_empty() {
                assert_eq!(steps.start, next);
                assert!(steps.end <= at + (3 << 20));
                next = steps.end;
            }
        }
        assert_eq!(next, 40 << 20);
    }

    #[test]
    fn any_descriptor_will_do() {
        let file = std::fs::File::open("/dev/null").unwrap();
        begin_writeback(&file, 0..u64::MAX);
        begin_writeback(&file, 0..4096);
    }

    #[test]
    fn only_the_files_of_a_tree_are_written() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        std::fs::create_dir_all(tree.join("deep/er")).unwrap();
        std::fs::write(scratch.path().join("outside"), [0; 1000]).unwrap();
        std::fs::write(tree.join("large"), vec![1; 9 << 20]).unwrap();
        std::fs::write(tree.join("deep/er/small"), [2; 10]).unwrap();
        std::os::unix::fs::symlink("../outside", tree.join("link")).unwrap();
        std::os::unix::fs::symlink("..", tree.join("deep/loop")).unwrap();
        // Opening it for reading would wait for a writer.
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, tree.join("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(write_tree_back(&tree), (9 << 20) + 10);
        assert_eq!(write_tree_back(&scratch.path().join("absent")), 0);
    }
}
