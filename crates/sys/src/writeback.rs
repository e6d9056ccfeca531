//! Writing to disk before anybody waits for it.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes after which writing begins in files that come little by little.
const STEP_BYTES: u64 = 8 << 20;

/// Has the kernel begin to write what it holds of a file in this range, so that whoever syncs the file later waits less
/// (`sync_file_range(2)`). A wish and no promise: a filesystem that cannot is no error.
pub fn begin_writeback(file: impl AsFd, range: Range<u64>) {
    let (Ok(offset), Ok(length)) = (i64::try_from(range.start), i64::try_from(range.end - range.start))
    else {
        return;
    };
    // SAFETY: takes numbers and a descriptor that is open during the call.
    unsafe {
        libc::sync_file_range(file.as_fd().as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
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
}
