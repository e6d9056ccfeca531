//! A root filesystem with busybox, and the spec that Docker would write for it.

#![allow(dead_code)]

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci::runtime::*;
use sandbox::{Created, Plan, RootfsSource, Running, Stdio};

/// Where static busybox is.
pub const BUSYBOX: &str = "/usr/bin/busybox";

/// A directory that goes away with everything in it.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("corten-sandbox-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Fills a directory with a small root filesystem.
pub fn fill_rootfs(root: &Path) {
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/web", "var/www"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "true", "false", "cat", "id", "ls", "mount", "echo", "sleep", "stat", "pwd", "env", "hostname",
        "tty", "readlink", "touch", "ip", "ps", "kill", "test", "dd", "mkdir", "head", "date", "umask",
        "stty", "wc",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:Web:/home/web:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nwww:x:34:\naudio:x:29:web\n").unwrap();
    fs::write(root.join("etc/plain"), "no program\n").unwrap();
    fs::write(root.join("bin/nointerpreter"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(root.join("bin/nointerpreter"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: Some(kind.into()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

/// Docker's default capabilities.
pub fn default_capabilities() -> CapabilitySet {
    use Capability::*;
    [
        Chown,
        DacOverride,
        Fsetid,
        Fowner,
        Mknod,
        NetRaw,
        Setgid,
        Setuid,
        Setfcap,
        Setpcap,
        NetBindService,
        SysChroot,
        Kill,
        AuditWrite,
    ]
    .into_iter()
    .collect()
}

/// The spec of `docker run IMAGE ARGS`.
pub fn spec(id: &str, args: &[&str]) -> Spec {
    let set = default_capabilities();
    let mut namespaces = {
        use LinuxNamespaceKind::*;
        [Mount, Network, Uts, Pid, Ipc, Time].map(|kind| LinuxNamespace { kind, path: None }).to_vec()
    };
    if unified() {
        namespaces.push(LinuxNamespace { kind: LinuxNamespaceKind::Cgroup, path: None });
    }
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
    let rule = |allow, kind, major, minor, access: &str| LinuxDeviceRule {
        allow,
        kind,
        major,
        minor,
        access: access.into(),
    };
    let (chars, blocks) = (LinuxDeviceKind::Char, LinuxDeviceKind::Block);
    let mut devices = vec![
        rule(false, LinuxDeviceKind::All, None, None, "rwm"),
        rule(true, chars, None, None, "m"),
        rule(true, blocks, None, None, "m"),
        rule(true, chars, Some(136), None, "rwm"),
        rule(true, chars, Some(5), Some(2), "rwm"),
    ];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1)] {
        devices.push(rule(true, chars, Some(major), Some(minor), "rwm"));
    }
    devices.push(rule(false, chars, Some(10), Some(229), "rwm"));
    Spec {
        oci_version: OCI_VERSION.into(),
        process: Some(Process {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec![
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
                format!("HOSTNAME={id}"),
            ],
            cwd: "/".into(),
            capabilities: Some(LinuxCapabilities {
                bounding: set,
                effective: set,
                permitted: set,
                ..LinuxCapabilities::default()
            }),
            oom_score_adj: Some(0),
            ..Process::default()
        }),
        root: Some(Root { path: "rootfs".into(), readonly: false }),
        hostname: id.into(),
        mounts: vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
        ],
        linux: Some(Linux {
            cgroups_path: format!("/corten-test-{}/{id}", std::process::id()),
            namespaces,
            resources: Some(LinuxResources { devices, ..LinuxResources::default() }),
            sysctl: [
                ("net.ipv4.ip_unprivileged_port_start", "0"),
                ("net.ipv4.ping_group_range", "0 2147483647"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            masked_paths: paths(&[
                "/proc/asound",
                "/proc/acpi",
                "/proc/interrupts",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/sys/firmware",
                "/sys/devices/virtual/powercap",
            ]),
            readonly_paths: paths(&[
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ]),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

/// Whether this machine has cgroup v2 only.
pub fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// An overlay of one layer in a scratch directory.
pub fn overlay(scratch: &Path, lower: &Path, name: &str) -> RootfsSource {
    let (upper, work) = (scratch.join(format!("{name}-upper")), scratch.join(format!("{name}-work")));
    for directory in [&upper, &work] {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).unwrap();
    }
    RootfsSource::Overlay { lower: vec![lower.to_owned()], upper, work, volatile: false }
}

pub fn null() -> OwnedFd {
    fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap().into()
}

/// What a container said and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub output: String,
    pub ended: sys::process::Ended,
}

/// Runs a container to its end and removes its cgroup.
pub fn run(plan: impl FnOnce(Stdio) -> Result<Created, sandbox::Error>) -> Result<Outcome, sandbox::Error> {
    let (mut output, input) = std::io::pipe().unwrap();
    let stdout: OwnedFd = input.into();
    let stderr = stdout.as_fd().try_clone_to_owned().unwrap();
    let created = plan(Stdio::Descriptors { stdin: null(), stdout, stderr })?;
    let running = created.start()?;
    Ok(finish(running, &mut output))
}

pub fn finish(running: Running, output: &mut impl Read) -> Outcome {
    let mut said = Vec::new();
    // A terminal ends with EIO.
    let mut buffer = [0; 4096];
    while let Ok(count) = output.read(&mut buffer) {
        if count == 0 {
            break;
        }
        said.extend_from_slice(&buffer[..count]);
    }
    let ended = sys::process::wait(running.pid).unwrap();
    drop(running.mounts);
    running.cgroup.delete().unwrap();
    Outcome { output: String::from_utf8_lossy(&said).into_owned(), ended }
}

/// A plan with the usual answers.
pub fn plan<'a>(id: &'a str, spec: &'a Spec, rootfs: RootfsSource, stdio: Stdio) -> Plan<'a> {
    Plan::new(id, spec, rootfs, stdio)
}

/// Removes the folder that the tests' cgroups were made in.
pub fn remove_parent_cgroups() {
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::remove_dir(controller.path().join(format!("corten-test-{}", std::process::id())));
    }
    let _ = fs::remove_dir(format!("/sys/fs/cgroup/corten-test-{}", std::process::id()));
}
