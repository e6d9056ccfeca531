//! A daemon for one shim: starts it, talks to it, and looks at what it leaves.

#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use oci::runtime::Spec;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use shim_protocol::{
    Answer, Attach, Command, Create, Exec, Exit, Failure, LogDriver, LogTarget, Notice, Reply, Request,
    Rootfs, State, StdinMode,
};
use tempfile::TempDir;

/// Nothing here takes longer unless it hangs.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Programs that busybox plays.
const PROGRAMS: &[&str] = &[
    "cat", "chroot", "dd", "echo", "false", "grep", "head", "kill", "ls", "mkfifo", "ps", "seq", "sh",
    "sleep", "stty", "true", "tr", "tty", "wc", "yes",
];

/// A container to be.
pub struct Bed {
    pub directory: TempDir,
    pub name: String,
    pub stdin: StdinMode,
    pub log: LogTarget,
    /// The seccomp filter.
    pub filter: Vec<u8>,
    /// Ask for a socket from inside the network namespace.
    pub netlink: bool,
    spec: serde_json::Value,
}

impl Bed {
    pub fn new(name: &str, arguments: &[&str]) -> Bed {
        let directory = TempDir::with_prefix("corten-shim-").unwrap();
        let root = directory.path().join("root");
        for folder in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::create_dir(directory.path().join("run")).unwrap();
        fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
        for program in PROGRAMS {
            symlink("busybox", root.join("bin").join(program)).unwrap();
        }
        let spec = serde_json::json!({
            "ociVersion": "1.2.0",
            "process": {
                "args": arguments,
                "cwd": "/",
                "env": ["PATH=/bin", "TERM=xterm"],
                "user": { "uid": 0, "gid": 0 },
            },
            "root": { "path": root },
            "hostname": name,
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                {
                    "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
                },
            ],
            "linux": {
                "cgroupsPath": format!("/corten-test-{}/{name}", std::process::id()),
                "namespaces": [
                    { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
                    { "type": "network" },
                ],
            },
        });
        let log = LogTarget {
            driver: LogDriver::JsonFile,
            path: directory.path().join("log"),
            size_max: None,
            files_max: 1,
            compress: false,
            numbered: false,
            attributes: BTreeMap::new(),
        };
        Bed {
            name: name.into(),
            stdin: StdinMode::Null,
            log,
            filter: Vec::new(),
            netlink: false,
            spec,
            directory,
        }
    }

    pub fn terminal(mut self) -> Bed {
        self.spec["process"]["terminal"] = true.into();
        self
    }

    pub fn stdin(mut self, mode: StdinMode) -> Bed {
        self.stdin = mode;
        self
    }

    /// Runs as this user.
    pub fn user(mut self, uid: u32) -> Bed {
        self.spec["process"]["user"] = serde_json::json!({ "uid": uid, "gid": uid });
        self
    }

    /// Limits memory to so many bytes.
    pub fn memory(mut self, bytes: u64) -> Bed {
        self.spec["linux"]["resources"] = serde_json::json!({ "memory": { "limit": bytes, "swap": bytes } });
        self
    }

    /// Shares the host's PID namespace.
    pub fn host_pids(mut self) -> Bed {
        let namespaces = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        self
    }

    pub fn run_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    pub fn process(&self, arguments: &[&str]) -> oci::runtime::Process {
        let mut process = self.spec["process"].clone();
        process["args"] = arguments.into();
        process["terminal"] = false.into();
        serde_json::from_value(process).unwrap()
    }

    fn create(&self, attach: Vec<Attach>) -> Create {
        let spec: Spec = serde_json::from_value(self.spec.clone()).unwrap();
        Create {
            id: self.name.clone(),
            run_directory: self.run_directory(),
            spec,
            rootfs: Rootfs::Directory(self.directory.path().join("root")),
            map_root: false,
            runtime: None,
            stdin: self.stdin,
            log: self.log.clone(),
            attach,
            init: false,
            shared_memory_of: None,
            netlink: self.netlink,
            systemd_cgroup: false,
        }
    }

    /// Starts a shim and its container, with clients.
    pub fn start(&self, attach: Vec<(Attach, UnixStream)>) -> Daemon {
        let mut daemon = Daemon::spawn();
        daemon.create(self, attach).unwrap();
        match daemon.call(Command::Start, &[]) {
            Reply::Started { .. } => daemon,
            other => panic!("{other:?}"),
        }
    }

    /// Connects as another daemon.
    pub fn connect(&self) -> Daemon {
        let socket = UnixStream::connect(self.run_directory().join("shim.sock")).unwrap();
        Daemon::on(socket, None)
    }

    pub fn exit_file(&self) -> Option<Exit> {
        let bytes = fs::read(self.run_directory().join("exit.json")).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    /// Waits until the log has this and no more.
    pub fn wait_for_log(&self, text: &str) {
        let until = Instant::now() + DEADLINE;
        while self.logged() != text {
            assert!(Instant::now() < until, "{}", self.logged());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the log has, both streams.
    pub fn logged(&self) -> String {
        let options =
            logs::Options { files_max: self.log.files_max, ..logs::Options::json_file(&self.log.path) };
        let mut reader = logs::Reader::open(&options, &logs::Query::default()).unwrap();
        let mut text = String::new();
        while let Some(record) = reader.next().unwrap() {
            text.push_str(std::str::from_utf8(record.line).unwrap());
        }
        text
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // The folder above the container's cgroups, in every hierarchy; the last test removes it.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(format!("corten-test-{}", std::process::id())));
        }
    }
}

/// An attach of everything, in Docker's frames.
pub fn attach() -> Attach {
    Attach {
        stdin: true,
        stdout: true,
        stderr: true,
        multiplexed: true,
        detach_keys: Vec::new(),
        early_input: Vec::new(),
        held: false,
    }
}

/// An attach to a terminal.
pub fn attach_raw() -> Attach {
    Attach { multiplexed: false, detach_keys: vec![0x10, 0x11], ..attach() }
}

/// A client's two ends: its own, and the one that the shim gets.
pub fn client() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(DEADLINE)).unwrap();
    (ours, theirs)
}

/// The daemon's end of the connection.
pub struct Daemon {
    pub socket: UnixStream,
    pub shim: Option<Child>,
    sequence: u64,
    inbound: Vec<u8>,
    /// That came with answers.
    pub descriptors: Vec<OwnedFd>,
    notices: VecDeque<Notice>,
}

impl Daemon {
    #[allow(clippy::disallowed_methods)]
    pub fn spawn() -> Daemon {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // Measurements want the program as it is shipped.
        let program = std::env::var("CORTEN_SHIM").unwrap_or(env!("CARGO_BIN_EXE_corten-shim").into());
        let shim = Program::new(program)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Daemon::on(ours, Some(shim))
    }

    fn on(socket: UnixStream, shim: Option<Child>) -> Daemon {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Daemon {
            socket,
            shim,
            sequence: 0,
            inbound: Vec::new(),
            descriptors: Vec::new(),
            notices: VecDeque::new(),
        }
    }

    pub fn create(&mut self, bed: &Bed, clients: Vec<(Attach, UnixStream)>) -> Result<i32, Failure> {
        let (attach, sockets): (Vec<Attach>, Vec<UnixStream>) = clients.into_iter().unzip();
        match self.call_with(Command::Create(Box::new(bed.create(attach))), &bed.filter, &sockets) {
            Reply::Created { pid } => Ok(pid),
            Reply::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    /// Sends a command and waits for its answer.
    pub fn call(&mut self, command: Command, sockets: &[UnixStream]) -> Reply {
        self.call_with(command, &[], sockets)
    }

    pub fn call_with(&mut self, command: Command, payload: &[u8], sockets: &[UnixStream]) -> Reply {
        self.sequence += 1;
        let frame = shim_protocol::encode(&Request { seq: self.sequence, command }, payload).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        if !sockets.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sockets)));
        }
        let sent =
            rustix::net::sendmsg(&self.socket, &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL)
                .unwrap();
        assert_eq!(sent, frame.len());
        loop {
            match self.receive().expect("an answer") {
                Answer::Reply { reply_to, reply } if reply_to == self.sequence => return reply,
                Answer::Reply { reply_to, reply } => panic!("answer to {reply_to}: {reply:?}"),
                Answer::Notice(notice) => self.notices.push_back(notice),
            }
        }
    }

    /// The next message; none at the end of the connection.
    fn receive(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, _)) = shim_protocol::decode(&mut self.inbound).unwrap() {
                return Some(answer);
            }
            let mut buffer = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received =
                rustix::net::recvmsg(&self.socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
            let count = received.expect("the shim answers in time").bytes;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    self.descriptors.extend(passed);
                }
            }
            if count == 0 {
                return None;
            }
            self.inbound.extend_from_slice(&buffer[..count]);
        }
    }

    pub fn notice(&mut self) -> Notice {
        if let Some(notice) = self.notices.pop_front() {
            return notice;
        }
        match self.receive().expect("a notice") {
            Answer::Notice(notice) => notice,
            Answer::Reply { reply, .. } => panic!("{reply:?}"),
        }
    }

    pub fn exited(&mut self) -> Exit {
        match self.notice() {
            Notice::Exited(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    pub fn exec_exited(&mut self) -> (String, i32) {
        match self.notice() {
            Notice::ExecExited { exec, code, .. } => (exec, code),
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&mut self) -> State {
        match self.call(Command::State, &[]) {
            Reply::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    pub fn done(&mut self, command: Command) {
        match self.call(command, &[]) {
            Reply::Done => {}
            other => panic!("{other:?}"),
        }
    }

    pub fn failed(&mut self, command: Command) -> Failure {
        match self.call(command, &[]) {
            Reply::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    pub fn exec(
        &mut self,
        id: &str,
        process: oci::runtime::Process,
        client: Option<(Attach, UnixStream)>,
    ) -> i32 {
        let (attach, sockets): (Option<Attach>, Vec<UnixStream>) = match client {
            Some((attach, socket)) => (Some(attach), vec![socket]),
            None => (None, Vec::new()),
        };
        let exec = Exec { id: id.into(), process, attach, stdin_open: false, capture: None };
        match self.call(Command::Exec(Box::new(exec)), &sockets) {
            Reply::ExecStarted { pid } => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Closes the connection and waits until the shim has gone.
    pub fn leave(mut self) {
        let shim = self.shim.take().unwrap();
        drop(self);
        gone(shim);
    }
}

/// Waits until the shim has ended by itself, and well.
pub fn gone(mut shim: Child) {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = shim.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        assert!(Instant::now() < until, "the shim stays");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(shim) = &mut self.shim
            && std::thread::panicking()
        {
            // Its end takes the container down with it, if not the cgroup.
            let _ = shim.kill();
            let _ = shim.wait();
        }
    }
}

/// Everything a client gets until the end of its stream, by stream.
pub fn read_frames(client: &mut UnixStream) -> [Vec<u8>; 2] {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    frames(&bytes)
}

pub fn frames(mut bytes: &[u8]) -> [Vec<u8>; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        streams[usize::from(header[0]) - 1].extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    streams
}

/// Reads until what came ends with `end`, and returns all of it.
pub fn read_until(client: &mut UnixStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) {
        let count = client.read(&mut byte).expect("output in time");
        assert_eq!(count, 1, "the end came after {:?}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
