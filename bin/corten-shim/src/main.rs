//! The parent of one container.
//!
//! One thread, one loop ([`shim::Shim::run`]). It clones the container's first process, keeps its terminal and
//! pipes, writes its log, serves attached clients on their own sockets, starts execs, reaps everything, and
//! answers the daemon. It outlives the daemon: a new one connects to `shim.sock` in the run directory.
//!
//! Started with descriptor 0 connected to the daemon (see `shim-protocol`), and without arguments. The shim ends
//! when its container has ended and nobody asks for it any more, or when its daemon goes before a container was
//! started. It has two other uses: `corten-shim compress TARGET` compresses rotated logs beside a shim, and under the
//! name of an init it is the first process of a container ([`init`]).

mod client;
mod clock;
mod commands;
mod connection;
mod container;
mod external;
mod init;
mod keys;
mod log;
mod oom;
mod shim;
mod streams;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};

fn main() -> ExitCode {
    sys::memory::keep_little();
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<_> = arguments.collect();
    if name == init::NAME {
        return init::run(&arguments).map_or_else(failed, ExitCode::from);
    }
    let result = match arguments.as_slice() {
        [] => serve(),
        [verb, target] if verb == log::COMPRESS => compress(Path::new(target)),
        _ => Err(io::Error::other("usage: corten-shim, with a daemon's socket as descriptor 0")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error),
    }
}

fn failed(error: io::Error) -> ExitCode {
    eprintln!("corten-shim: {error}");
    ExitCode::FAILURE
}

fn compress(target: &Path) -> io::Result<()> {
    let source = io::stdin().as_fd().try_clone_to_owned()?;
    log::compress(source.into(), target).map_err(io::Error::other)
}

fn serve() -> io::Result<()> {
    let daemon = take_daemon()?;
    let score = prepare();
    let signals = sys::signal::watch(&[
        libc::SIGCHLD,
        // Whoever ends the daemon's group or session does not mean the containers.
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGPIPE,
    ])?;
    shim::Shim::new(daemon, signals, score).run()
}

/// Moves the daemon's socket away from descriptor 0, which belongs to `/dev/null` like 1 and 2.
fn take_daemon() -> io::Result<OwnedFd> {
    let daemon = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    rustix::net::sockopt::socket_type(&daemon)?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    sys::process::duplicate_to(null.as_fd(), 0)?;
    sys::process::close_on_exec_from(3)?;
    Ok(daemon)
}

/// Sets up the process. What the kernel does not allow here is done without: the container runs all the same.
/// Tells the OOM score adjustment that containers get unless their spec says otherwise.
fn prepare() -> i32 {
    let _ = rustix::process::setsid();
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let _ = rustix::thread::set_name(c"corten-shim");
    let _ = rustix::process::chdir(c"/");
    let score = fs::read_to_string("/proc/self/oom_score_adj").ok();
    let score = score.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    // The one process that can tell how the container ended should be the last to go.
    let _ = fs::write("/proc/self/oom_score_adj", "-999");
    // After the score: its file is root's only while the process is dumpable.
    let _ = sys::security::set_dumpable(false);
    score
}
