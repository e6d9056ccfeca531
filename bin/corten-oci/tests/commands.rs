//! The command line as engines use it, with real containers. Needs root and static busybox.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use oci::runtime::{LinuxNamespaceKind, Spec};
use serde_json::Value;

struct Host {
    directory: tempfile::TempDir,
    cgroup: String,
}

impl Host {
    /// A root directory for the runtime and a bundle whose spec is the runtime's own example.
    fn new() -> Host {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_string_lossy().replace('.', "");
        let host = Host { cgroup: format!("corten-test-{}-{name}", std::process::id()), directory };
        let rootfs = host.path("bundle/rootfs");
        for folder in ["bin", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(rootfs.join(folder)).unwrap();
        }
        fs::copy("/usr/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for name in ["sh", "sleep", "echo", "cat", "true", "tty", "ls", "env"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        host.expect(&["spec", "--bundle", host.path("bundle").to_str().unwrap()]);
        host.change(|spec| {
            spec.process.as_mut().unwrap().terminal = false;
            spec.process.as_mut().unwrap().rlimits.clear();
            spec.linux.as_mut().unwrap().cgroups_path = format!("/{}/box", host.cgroup);
        });
        host
    }

    fn path(&self, below: &str) -> std::path::PathBuf {
        self.directory.path().join(below)
    }

    fn change(&self, change: impl FnOnce(&mut Spec)) {
        let path = self.path("bundle/config.json");
        let mut spec: Spec = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut spec);
        fs::write(&path, serde_json::to_vec(&spec).unwrap()).unwrap();
    }

    fn program(&self, args: &[&str]) {
        self.change(|spec| {
            spec.process.as_mut().unwrap().args = args.iter().map(|arg| (*arg).to_owned()).collect();
        });
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corten-oci"));
        command.arg("--root").arg(self.path("root")).args(args).current_dir(self.path("bundle"));
        command.stdin(Stdio::null());
        command
    }

    fn call(&self, args: &[&str]) -> Output {
        fs::create_dir_all(self.path("bundle")).unwrap();
        self.command(args).output().unwrap()
    }

    /// Calls, expects success, returns what was printed.
    fn expect(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Calls, expects failure, returns the complaint.
    fn refuse(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8(output.stderr).unwrap().trim().to_owned()
    }

    /// Creates without waiting for who holds the container's streams.
    fn create(&self, args: &[&str]) {
        let mut command = self.command(&[&["create"], args].concat());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "create {args:?}");
    }

    fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.expect(&["state", "box"])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    fn wait_for(&self, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.status() != status {
            assert!(Instant::now() < deadline, "not {status} but {}", self.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.call(&["delete", "--force", "box"]);
        let roots = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        for root in roots.chain([Path::new("/sys/fs/cgroup").to_owned()]) {
            let _ = fs::remove_dir(root.join(&self.cgroup));
        }
    }
}

#[test]
fn a_life_in_single_steps() {
    let host = Host::new();
    host.program(&["sleep", "60"]);
    let pid_file = host.path("pid");
    host.create(&["--pid-file", pid_file.to_str().unwrap(), "box"]);
    assert_eq!(host.status(), "created");
    assert!(host.refuse(&["create", "box"]).contains("container with given ID already exists"));
    host.expect(&["start", "box"]);
    host.wait_for("running");
    let state: Value = serde_json::from_str(&host.expect(&["state", "box"])).unwrap();
    assert_eq!(state["pid"].to_string(), fs::read_to_string(pid_file).unwrap());
    assert!(host.refuse(&["start", "box"]).contains("already running"));
    assert_eq!(host.expect(&["list", "-q"]), "box\n");
    assert!(host.expect(&["list"]).contains("running"));
    assert_eq!(host.expect(&["ps", "--format", "json", "box"]).trim(), format!("[{}]", state["pid"]));
    let stats: Value = serde_json::from_str(&host.expect(&["events", "--stats", "box"])).unwrap();
    assert_eq!(stats["data"]["pids"]["current"], 1);

    assert_eq!(host.expect(&["exec", "box", "echo", "-n", "said"]), "said");
    assert_eq!(host.call(&["exec", "box", "sh", "-c", "exit 9"]).status.code(), Some(9));
    assert!(host.expect(&["exec", "-e", "A=b", "--cwd", "/tmp", "box", "env"]).contains("A=b\n"));
    assert!(host.refuse(&["exec", "box", "nothing"]).contains("executable file not found in $PATH"));

    host.expect(&["pause", "box"]);
    assert_eq!(host.status(), "paused");
    assert!(host.refuse(&["exec", "box", "true"]).contains("paused"));
    host.expect(&["resume", "box"]);
    host.expect(&["update", "--memory", "64m", "--pids-limit", "50", "box"]);
    let stats: Value = serde_json::from_str(&host.expect(&["events", "--stats", "box"])).unwrap();
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!(stats["data"]["pids"]["limit"], 50);

    assert!(host.refuse(&["delete", "box"]).contains("not stopped"));
    host.expect(&["kill", "box", "KILL"]);
    host.wait_for("stopped");
    assert!(host.refuse(&["kill", "box"]).contains("container not running"));
    host.expect(&["delete", "box"]);
    assert!(host.refuse(&["state", "box"]).contains("does not exist"));
    host.expect(&["delete", "--force", "box"]);
    assert_eq!(fs::read_dir(host.path("root")).unwrap().count(), 0);
}

#[test]
fn run_ends_as_its_program_does() {
    let host = Host::new();
    host.program(&["sh", "-c", "echo out; echo err >&2; exit 5"]);
    let output = host.call(&["run", "box"]);
    assert_eq!(
        (output.status.code(), &output.stdout[..], &output.stderr[..]),
        (Some(5), &b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(host.expect(&["list", "-q"]), "");
    host.program(&["nothing"]);
    let log = host.path("log");
    let log_flag = format!("--log={}", log.display());
    let complaint = host.refuse(&[&log_flag, "--log-format=json", "run", "box"]);
    assert_eq!(complaint, "corten-oci: exec: \"nothing\": executable file not found in $PATH");
    let line: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!(line["msg"], "exec: \"nothing\": executable file not found in $PATH");
    assert_eq!(line["level"], "error");
    assert_eq!(fs::read_dir(host.path("root")).unwrap().count(), 0);
}

#[test]
fn what_stands_still_in_anothers_freezer_can_be_deleted() {
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    if !freezer.join("cgroup.procs").exists() {
        eprintln!("what_stands_still_in_anothers_freezer_can_be_deleted: no freezer of version 1 here");
        return;
    }
    let host = Host::new();
    host.program(&["sleep", "60"]);
    host.create(&["box"]);
    host.expect(&["start", "box"]);
    host.wait_for("running");
    let state: Value = serde_json::from_str(&host.expect(&["state", "box"])).unwrap();
    let foreign = freezer.join(format!("{}-foreign", host.cgroup));
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("cgroup.procs"), state["pid"].to_string()).unwrap();
    fs::write(foreign.join("freezer.state"), "FROZEN").unwrap();
    let deleted = host.call(&["delete", "--force", "box"]);
    fs::write(foreign.join("freezer.state"), "THAWED").unwrap();
    let left = fs::read_to_string(foreign.join("cgroup.procs")).unwrap();
    fs::remove_dir(&foreign).unwrap();
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    assert_eq!(left, "");
    assert_eq!(fs::read_dir(host.path("root")).unwrap().count(), 0);
}

#[test]
fn a_parent_whose_cpuset_is_empty_is_no_hindrance() {
    let cpuset = Path::new("/sys/fs/cgroup/cpuset");
    if !cpuset.join("cgroup.procs").exists() {
        eprintln!("a_parent_whose_cpuset_is_empty_is_no_hindrance: no cpuset of version 1 here");
        return;
    }
    let host = Host::new();
    fs::create_dir(cpuset.join(&host.cgroup)).unwrap();
    host.program(&["true"]);
    host.change(|spec| {
        let resources = spec.linux.as_mut().unwrap().resources.get_or_insert_default();
        resources.cpu.get_or_insert_default().cpus = "0".into();
    });
    host.expect(&["run", "box"]);
}

#[test]
fn a_created_container_can_be_given_up() {
    let host = Host::new();
    host.program(&["sleep", "60"]);
    host.create(&["box"]);
    host.expect(&["delete", "box"]);
    assert_eq!(fs::read_dir(host.path("root")).unwrap().count(), 0);
}

#[test]
fn the_terminal_goes_to_the_console_socket() {
    let host = Host::new();
    host.program(&["tty"]);
    host.change(|spec| spec.process.as_mut().unwrap().terminal = true);
    let complaint = host.refuse(&["create", "box"]);
    assert!(complaint.contains("console socket"), "{complaint}");
    let path = host.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    host.create(&["--console-socket", path.to_str().unwrap(), "box"]);
    let (connection, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(&connection, &mut [IoSliceMut::new(&mut name)], &mut ancillary, flags).unwrap();
    let descriptor = ancillary.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut passed) => passed.next(),
        _ => None,
    });
    host.expect(&["start", "box"]);
    let mut said = Vec::new();
    // A terminal whose other side has gone ends with an error.
    let _ = fs::File::from(descriptor.unwrap()).read_to_end(&mut said);
    assert_eq!(String::from_utf8(said).unwrap(), "/dev/pts/0\r\n");
}

#[test]
fn descriptors_are_inherited_only_if_asked_for() {
    let host = Host::new();
    host.program(&["ls", "/proc/self/fd"]);
    let run = |flags: &str| {
        let mut command = Command::new("/bin/sh");
        let line = format!("exec 3</dev/null 4</dev/null; exec \"$0\" --root \"$1\" run {flags} box");
        command.args(["-c", &line, env!("CARGO_BIN_EXE_corten-oci")]).arg(host.path("root"));
        let output = command.current_dir(host.path("bundle")).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().split_whitespace().count()
    };
    // The last one is what `ls` reads.
    assert_eq!(run(""), 4);
    assert_eq!(run("--preserve-fds 2"), 6);
}

#[test]
fn the_runtime_is_out_of_a_containers_reach() {
    let host = Host::new();
    // Shares the machine's PIDs, so that its keeper is in sight.
    host.change(|spec| {
        let namespaces = &mut spec.linux.as_mut().unwrap().namespaces;
        namespaces.retain(|namespace| namespace.kind != LinuxNamespaceKind::Pid);
    });
    host.program(&["sleep", "60"]);
    host.create(&["box"]);
    let state: Value = serde_json::from_str(&host.expect(&["state", "box"])).unwrap();
    let program = fs::read_link(format!("/proc/{}/exe", state["pid"])).unwrap();
    assert!(program.to_string_lossy().contains("memfd:corten-oci"), "{program:?}");
    let opened = fs::OpenOptions::new().write(true).open(format!("/proc/{}/exe", state["pid"]));
    if let Ok(mut file) = opened {
        assert!(std::io::Write::write_all(&mut file, b"x").is_err());
    }
    host.expect(&["delete", "--force", "box"]);
}

#[test]
fn what_it_says_of_itself() {
    let host = Host::new();
    let version = host.expect(&["--version"]);
    assert!(version.starts_with("corten-oci version ") && version.contains("\nspec: 1."), "{version}");
    let features: Value = serde_json::from_str(&host.expect(&["features"])).unwrap();
    assert_eq!(features["linux"]["capabilities"].as_array().unwrap().len(), 41);
    assert!(host.refuse(&["checkpoint", "box"]).contains("checkpoint is not supported"));
    assert!(host.refuse(&["nonsense"]).contains("nonsense"));
    assert!(host.refuse(&["state", "../etc"]).contains("invalid container ID format"));
    assert!(host.refuse(&["--nonsense", "list"]).contains("not defined"));
}
