//! Standard output. A reader that went away ends the program without a word, as it ends others.

use std::io::{ErrorKind, Write as _};

/// What a shell shows for a program that a closed pipe ended.
const SIGPIPE_CODE: i32 = 128 + 13;

/// Writes text to standard output at once.
pub fn out(text: &str) {
    out_bytes(text.as_bytes());
}

pub fn out_bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    settle(stdout.write_all(bytes).and_then(|()| stdout.flush()));
}

pub fn flush() {
    settle(std::io::stdout().lock().flush());
}

/// Writes to standard error; nobody can be told if that fails.
pub fn err_bytes(bytes: &[u8]) {
    let _ = std::io::stderr().lock().write_all(bytes);
}

fn settle(result: std::io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(SIGPIPE_CODE),
        Err(error) => {
            eprintln!("write /dev/stdout: {}", crate::opts::kv::describe(&error));
            std::process::exit(1);
        }
    }
}

/// Which of our two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Stdout,
    Stderr,
}

/// The most that is certain to fit into a pipe that says it takes more.
const PIPE_CHUNK: usize = 4096;

/// Writes what a container says, without stopping everything else while the reader is slow.
///
/// Our outputs are shared with other programs, so they must stay blocking: before each piece the kernel is asked whether
/// it would block, and if so a thread waits.
pub async fn write_slowly(which: Which, bytes: &[u8]) -> std::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        if !ready(which, false)? {
            let _ = tokio::task::spawn_blocking(move || ready(which, true)).await;
            continue;
        }
        let piece = &rest[..rest.len().min(PIPE_CHUNK)];
        let count = match which {
            Which::Stdout => rustix::io::write(std::io::stdout(), piece),
            Which::Stderr => rustix::io::write(std::io::stderr(), piece),
        };
        match count {
            Ok(count) => rest = &rest[count..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn ready(which: Which, wait: bool) -> std::io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let mut fds = match which {
        Which::Stdout => [PollFd::new(&stdout, PollFlags::OUT)],
        Which::Stderr => [PollFd::new(&stderr, PollFlags::OUT)],
    };
    let timeout = if wait { None } else { Some(Timespec { tv_sec: 0, tv_nsec: 0 }) };
    Ok(poll(&mut fds, timeout.as_ref())? > 0)
}

/// The same, ending the program quietly when the reader is gone.
pub async fn write_or_end(which: Which, bytes: &[u8]) -> Result<(), crate::fail::Fail> {
    match write_slowly(which, bytes).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(crate::fail::Fail::quiet(SIGPIPE_CODE)),
        Err(error) => Err(error.into()),
    }
}
