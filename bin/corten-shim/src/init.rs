//! `--init`: the first process of a container that has a program beside it rather than being it.
//!
//! It is this program again, executed from its sealed copy under the name [`NAME`], so that no file of host or image is
//! needed. It passes signals on to the one child that it starts, reaps whatever else ends below it, and ends as that
//! child ends; the kernel then ends the rest.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;

use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;
use sys::process::Ended;

/// What it is called by, as Docker's is.
pub const NAME: &str = "/sbin/docker-init";

/// Signals that a program causes by itself.
const OWN: [i32; 7] =
    [libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];
/// The last signal there is.
const SIGNAL_MAX: i32 = 64;

/// Runs `--` and a command line to its end; the code to end with.
pub fn run(arguments: &[OsString]) -> io::Result<u8> {
    let command = match arguments {
        [dashes, command @ ..] if dashes == "--" => command,
        command => command,
    };
    let Some((program, rest)) = command.split_first() else {
        return Err(io::Error::other(format!("usage: {NAME} -- PROGRAM [ARGUMENT...]")));
    };
    let _ = rustix::thread::set_name(c"docker-init");
    // The C library keeps 32 and 33 to itself.
    let passed: Vec<i32> = (1..=SIGNAL_MAX)
        .filter(|signal| !OWN.contains(signal) && !matches!(signal, 9 | 19 | 32 | 33))
        .collect();
    let signals = sys::signal::watch(&passed)?;
    let child = sys::process::fork(|| become_program(program, rest))?;
    loop {
        let mut set = [PollFd::new(&signals, PollFlags::IN)];
        match rustix::event::poll(&mut set, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for signal in sys::signal::take(signals.as_fd()) {
            if signal != libc::SIGCHLD {
                // Gone already, perhaps; then its end is on its way.
                let _ = sys::process::kill(child, signal);
            }
        }
        while let Some((pid, ended)) = sys::signal::reap()? {
            if pid == child {
                return Ok(match ended {
                    Ended::Code(code) => code as u8,
                    Ended::Signal(signal) => (128 + signal) as u8,
                });
            }
        }
    }
}

/// In the child: a process group of its own, in the terminal's foreground if there is one, then the program.
fn become_program(program: &OsString, arguments: &[OsString]) -> i32 {
    let _ = rustix::process::setpgid(None, None);
    // From the background this is answered by a signal, which is still blocked.
    if let Some(own) = Pid::from_raw(std::process::id() as i32) {
        let _ = rustix::termios::tcsetpgrp(io::stdin(), own);
    }
    sys::process::reset_signals();
    #[expect(clippy::disallowed_methods, reason = "what init is for")]
    let error = std::process::Command::new(program).args(arguments).exec();
    eprintln!("exec {} failed: {error}", program.display());
    match error.kind() {
        io::ErrorKind::NotFound => 127,
        _ => 126,
    }
}
