//! Programs with a deadline, and everything they printed.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// How many times longer than usual everything may take here: `CORTEN_TEST_SLOW`, a whole number, for emulated hosts.
///
/// # Panics
/// When it is something else.
pub fn slowness() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| match std::env::var("CORTEN_TEST_SLOW") {
        Ok(text) => text.parse().expect("CORTEN_TEST_SLOW is a whole number"),
        Err(_) => 1,
    })
}

/// How long anything in a test may take before the test gives up on it, times [`slowness`].
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A point in time that a wait ends at.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// On a slow host, that many times later.
    pub fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait * slowness())
    }

    /// What is left; zero when it has passed.
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Asks `probe` again and again until it has an answer or time is up.
    pub fn poll<T>(&self, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = probe() {
                return Some(found);
            }
            if self.left().is_zero() {
                return None;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Waits until `probe` is true.
///
/// # Panics
/// When it stays false for as long as a test waits ([`PATIENCE`]); `what` is named.
#[track_caller]
pub fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    if Deadline::after(PATIENCE).poll(|| probe().then_some(())).is_none() {
        panic!("never came true: {what}");
    }
}

/// What a program printed and how it ended.
#[derive(Clone)]
pub struct Ran {
    /// As the shell would say: 128 + n for signal n.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// The command line, for messages.
    pub command: String,
}

impl Ran {
    /// The output without its last newline.
    ///
    /// # Panics
    /// When the program failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout.trim_end_matches('\n')
    }

    /// What it said when failing.
    ///
    /// # Panics
    /// When the program ended with any other code.
    #[track_caller]
    pub fn fails(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        self.stderr.trim_end_matches('\n')
    }

    /// Standard output and error together: tools differ in which they say a thing on.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl fmt::Debug for Ran {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "`{}` ended with {}", self.command, self.code)?;
        writeln!(out, "--- stdout\n{}\n--- stderr\n{}", self.stdout.trim_end(), self.stderr.trim_end())
    }
}

/// Runs a command to its end, with `input` on its standard input.
///
/// # Panics
/// When it cannot be started, or takes longer than `wait` (it is killed then).
#[track_caller]
pub fn run_with(command: &mut Command, input: &[u8], wait: Duration) -> Ran {
    let line = line_of(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // The program may end without reading all of it.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let ended = wait_for(&mut child, wait);
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().unwrap_or_else(|error| panic!("cannot wait for `{line}`: {error}"));
    let _ = writer.join();
    // A killed program's children may still hold the pipes: the readers are not waited for then.
    let (stdout, stderr) = if ended {
        (stdout.join().expect("reader"), stderr.join().expect("reader"))
    } else {
        (String::new(), String::new())
    };
    let ran = Ran { code: code_of(status), stdout, stderr, command: line };
    assert!(ended, "took longer than {wait:?}: {ran:?}");
    ran
}

/// Runs a command without input, for at most [`PATIENCE`].
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    run_with(command, b"", PATIENCE)
}

/// The exit code as a shell gives it.
pub fn code_of(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Waits for a child at most `wait`; false when it still runs.
pub fn wait_for(child: &mut Child, wait: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let Ok(Some(_)) = child.try_wait().map(|status| status.is_none().then_some(())) else { return true };
    let Some(pid) = Pid::from_raw(child.id().cast_signed()) else { return true };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let deadline = Deadline::after(wait);
    loop {
        let left = deadline.left();
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn line_of(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
