//! The messages between daemon and shim.
//!
//! Pure: types and framing of bytes; sockets belong to the two ends.
//!
//! The two talk over one `AF_UNIX` stream: at first the socket pair that the shim is started with (its
//! descriptor 0), later whatever connects to `shim.sock` in the container's run directory. A frame is two
//! little-endian `u32` lengths, then a JSON document, then a binary payload (the seccomp filter of a
//! [`Create`], else empty). Descriptors ride with a frame's first byte as `SCM_RIGHTS`.
//!
//! A start, followed:
//! 1. The daemon spawns the shim and sends [`Command::Create`]; streams of clients that attached before the
//!    start go with it.
//! 2. The shim clones the container's first process, which builds its root while the shim already answers
//!    [`Reply::Created`] with a netlink socket from inside the new network namespace.
//! 3. The daemon configures the network through that socket and sends [`Command::Start`].
//! 4. The first process executes its program; the shim answers [`Reply::Started`], or [`Reply::Failed`].
//! 5. On exit the shim writes [`Exit`] to `exit.json`, then says [`Notice::Exited`], and goes when its log is
//!    flushed and its last exec has ended.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

/// The shim's socket below the run directory.
pub const SOCKET_NAME: &str = "shim.sock";
/// Where the shim leaves an [`Exit`] below the run directory.
pub const EXIT_NAME: &str = "exit.json";
/// Largest JSON document or payload of one frame, in bytes. A spec with a full argument and environment block
/// (`ARG_MAX` is 2 MiB by default, and JSON may escape each byte) stays below it.
pub const FRAME_LIMIT: usize = 16 << 20;
/// Most descriptors that one frame carries (the kernel's `SCM_MAX_FD` is 253).
pub const DESCRIPTORS_MAX: usize = 64;

/// Daemon to shim.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Echoed in the answer's [`Answer::reply_to`].
    pub seq: u64,
    pub command: Command,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Command {
    /// The first command on a fresh shim, and never again. Descriptors: one stream for each of
    /// [`Create::attach`], in order. Payload: the seccomp filter as an array of `struct sock_filter`, or empty
    /// for none. Answer: [`Reply::Created`].
    Create(Box<Create>),
    /// Lets the created process execute its program. Answer: [`Reply::Started`].
    Start,
    /// Gives up a container that was created and not started: kills it, releases everything, and the shim ends.
    Discard,
    /// Descriptor: the client's stream. Answer: [`Reply::Attached`].
    Attach(Attach),
    /// Lets a client that attached with [`Attach::held`] have its output.
    Release { client: u64 },
    /// Starts another process in the container. Descriptor: the client's stream, if [`Exec::attach`] is set.
    /// Payload: the seccomp filter as in [`Command::Create`]. Answer: [`Reply::ExecStarted`].
    Exec(Box<Exec>),
    /// Sets the size of the terminal of the container, or of the named exec.
    Resize { exec: Option<String>, rows: u16, columns: u16 },
    /// Sends a signal to the first process (`all` false), or to every process of the container's cgroup.
    Signal { signal: i32, all: bool },
    /// Freezes (`true`) or thaws the container's cgroup.
    Freeze(bool),
    /// Freezes the container's cgroup until a `Freeze(false)` comes, or this connection ends: who only wants it to hold
    /// still for a moment cannot leave it frozen by dying.
    Hold,
    /// Asks for a handle (`O_PATH`) of the root directory as the first process sees it, with all that is mounted below.
    /// Answer: [`Reply::Root`].
    OpenRoot,
    /// Asks for [`Reply::State`].
    State,
}

/// What a container's first start needs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Create {
    pub id: String,
    /// Holds [`SOCKET_NAME`] and [`EXIT_NAME`]; exists, mode 0700.
    pub run_directory: PathBuf,
    pub spec: Spec,
    pub rootfs: Rootfs,
    /// The root's owners are those of the container's user namespace, and stay on disk as the container sees them.
    #[serde(default)]
    pub map_root: bool,
    pub stdin: StdinMode,
    pub log: LogTarget,
    /// Clients that attached before the start.
    pub attach: Vec<Attach>,
    /// The daemon wants a netlink socket from inside the network namespace with [`Reply::Created`].
    pub netlink: bool,
    /// Cgroups are made by systemd; the spec's path is `slice:prefix:name`.
    #[serde(default)]
    pub systemd_cgroup: bool,
    /// The first process is an init, which the shim has, with the spec's process below it.
    #[serde(default)]
    pub init: bool,
    /// The first process of the container whose `/dev/shm` this one shares: the spec's mount there stands for it.
    #[serde(default)]
    pub shared_memory_of: Option<i32>,
    /// The program that makes the container in the shim's stead; none: the shim does.
    #[serde(default)]
    pub runtime: Option<Runtime>,
}

/// A program with runc's command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    pub program: PathBuf,
    /// Given before the command.
    pub arguments: Vec<String>,
}

/// How the root filesystem is put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// An existing directory.
    Directory(PathBuf),
    /// An overlay; `lower` has the topmost layer first.
    Overlay {
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        /// Skip all syncing: the writable layer is thrown away when the container ends.
        volatile: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdinMode {
    /// `/dev/null`.
    Null,
    /// Stays open when clients come and go.
    Open,
    /// Closed when the first attached client closes its side.
    Once,
}

/// Where the container's output is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTarget {
    pub driver: LogDriver,
    /// The log file; rotated files stand beside it with `.1`, `.2`, … appended.
    pub path: PathBuf,
    /// Rotate when the file would grow beyond this many bytes; none: never.
    pub size_max: Option<u64>,
    /// Files kept, the current one included; at least 1.
    pub files_max: u32,
    /// Compress rotated files with gzip.
    pub compress: bool,
    /// Count the records (local driver only): they are shipped elsewhere from there.
    #[serde(default)]
    pub numbered: bool,
    /// Extra attributes written with each line (`labels`, `env`, `tag` options).
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogDriver {
    #[default]
    None,
    JsonFile,
    Local,
}

/// A client's wish to see and feed a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attach {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Frame the output with Docker's 8-byte headers; false writes it raw (terminals).
    pub multiplexed: bool,
    /// Bytes that, typed in a row, detach the client; empty: none.
    pub detach_keys: Vec<u8>,
    /// Bytes that the client sent before its stream was handed over.
    pub early_input: Vec<u8>,
    /// Send nothing before [`Command::Release`], or the end of the daemon that is to say it: the client gets what
    /// is in the log first. Output waits meanwhile.
    #[serde(default)]
    pub held: bool,
}

/// Another process in a running container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// Names the exec in later commands and notices.
    pub id: String,
    pub process: Process,
    pub attach: Option<Attach>,
    /// Standard input is a pipe or terminal even if nobody is attached to it.
    pub stdin_open: bool,
    /// Keep its output for [`Notice::ExecExited`], and end it when it takes too long: a health check.
    #[serde(default)]
    pub capture: Option<Capture>,
}

/// The bounds of an exec that nobody watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Output kept, in bytes; the rest is read and thrown away.
    pub bytes_max: usize,
    /// After this it is killed; what it has started is not.
    pub timeout_nanoseconds: u64,
}

/// What an exec with a [`Capture`] left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// What is no UTF-8 in it is replaced.
    pub output: String,
    /// There was more output.
    pub truncated: bool,
    pub timed_out: bool,
}

/// Shim to daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Reply { reply_to: u64, reply: Reply },
    Notice(Notice),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Descriptor: the netlink socket (`NETLINK_ROUTE`), if it was asked for.
    Created {
        pid: i32,
    },
    Started {
        at_nanoseconds: u64,
    },
    ExecStarted {
        pid: i32,
    },
    Attached(Attached),
    State(State),
    /// Descriptor: the root directory.
    Root,
    Done,
    Failed(Failure),
}

/// What happened without being asked for. Lost when no daemon is connected; [`Command::State`] tells it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Notice {
    Exited(Exit),
    ExecExited {
        exec: String,
        code: i32,
        captured: Option<Captured>,
    },
    /// A client left by its detach keys.
    Detached {
        exec: Option<String>,
    },
    /// A process of the container was killed for want of memory; the container may run on.
    OutOfMemory,
}

/// Where a client's view of the output begins: after all that the log has by now, and what waits to get there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub client: u64,
    /// The log's last record is of this time (Unix nanoseconds); later ones are not written yet.
    pub log_until: i64,
    /// The beginnings of lines that have no end yet, of standard output and standard error.
    pub unfinished: [Vec<u8>; 2],
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    pub pid: i32,
    pub started_at_nanoseconds: Option<u64>,
    pub frozen: bool,
    /// Running execs: id to PID.
    pub execs: BTreeMap<String, i32>,
    /// Ended execs that no daemon has asked for since: id to exit code.
    pub ended_execs: BTreeMap<String, i32>,
    pub exit: Option<Exit>,
}

/// How the first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit status, or 128 plus the signal.
    pub code: i32,
    pub signal: Option<i32>,
    /// The kernel's OOM killer ended a process of this container.
    pub oom_killed: bool,
    /// When its program was executed, in Unix time; 0 if it never was.
    pub started_at_nanoseconds: u64,
    /// Unix time.
    pub at_nanoseconds: u64,
}

/// Why a command could not be carried out.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program is not in the root filesystem (exit code 127 by convention).
    ProgramNotFound,
    /// The program cannot be executed (126).
    ProgramNotExecutable,
    /// The spec asks for what cannot be: an unknown user, a missing mount source, a bad sysctl.
    Invalid,
    /// No such exec, or the process has ended.
    NotRunning,
    /// The kernel or the filesystem refused.
    System,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {0} bytes is larger than the limit")]
    TooLarge(usize),
    #[error("frame is not valid JSON")]
    Json(#[from] serde_json::Error),
}

/// Makes the bytes of one frame.
pub fn encode<T: Serialize>(message: &T, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 8];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 8;
    if length.max(payload.len()) > FRAME_LIMIT {
        return Err(FrameError::TooLarge(length.max(payload.len())));
    }
    frame[0..4].copy_from_slice(&(length as u32).to_le_bytes());
    frame[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// Takes one frame off the front of `buffer`, or `None` if it is not all there yet.
pub fn decode<T: for<'a> Deserialize<'a>>(buffer: &mut Vec<u8>) -> Result<Option<(T, Vec<u8>)>, FrameError> {
    let Some(header) = buffer.first_chunk::<8>() else { return Ok(None) };
    let [a, b, c, d, e, f, g, h] = *header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let payload = u32::from_le_bytes([e, f, g, h]) as usize;
    if length.max(payload) > FRAME_LIMIT {
        return Err(FrameError::TooLarge(length.max(payload)));
    }
    if buffer.len() < 8 + length + payload {
        return Ok(None);
    }
    let rest = buffer.split_off(8 + length + payload);
    let frame = std::mem::replace(buffer, rest);
    Ok(Some((serde_json::from_slice(&frame[8..8 + length])?, frame[8 + length..].to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let frame = encode(&Request { seq: 7, command: Command::Freeze(true) }, b"filter").unwrap();
        for cut in 0..frame.len() {
            let mut buffer = frame[..cut].to_vec();
            assert!(decode::<Request>(&mut buffer).unwrap().is_none());
            buffer.extend_from_slice(&frame[cut..]);
            buffer.extend_from_slice(&frame);
            let (request, payload) = decode::<Request>(&mut buffer).unwrap().unwrap();
            assert_eq!((request.seq, payload.as_slice()), (7, b"filter".as_slice()));
            assert_eq!(buffer, frame);
        }
    }

    #[test]
    fn oversized_frames_are_refused_before_they_are_read() {
        let mut buffer = vec![0xff; 8];
        assert!(matches!(decode::<Request>(&mut buffer), Err(FrameError::TooLarge(_))));
    }
}
