//! A private host: namespaces that die with the test.
//!
//! The first process of the namespaces is a shell that reaps orphans and ends when the test's end of a pipe
//! closes. The kernel then kills everything else in there and takes the mounts, links and firewall tables down,
//! also after a `SIGKILL` of the test. Control groups are the machine's own: they stand below a folder named
//! after the test's process and are removed with the host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Deadline, Ran, run};

/// Temporary folders of private hosts are named by this, the test's process and something random, so that the
/// final look for leaks finds them and knows whose they are.
pub const FOLDER_PREFIX: &str = "ct-";
/// Control groups of private hosts likewise.
pub const CGROUP_PREFIX: &str = "corten-test-";

// Process 1: make the place, say so, then reap until the pipe closes. `/run` is the host's own, so that what is
// left in it can be seen.
const INIT: &str = r#"
trap 'exit 0' TERM
exec 3<&0
set -e
if [ -n "$PEERS" ]; then
    mount -t overlay overlay -o "lowerdir=$PEERS/usr:/usr" /usr
    mount -t overlay overlay -o "lowerdir=$PEERS/etc:/etc,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" /etc 2>/dev/null ||
        mount -t overlay overlay -o "lowerdir=$PEERS/etc:/etc" /etc
    # crun of that age refuses hybrid control groups.
    umount /sys/fs/cgroup/unified 2>/dev/null || true
fi
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
ip link set lo up
hostname private-host
set +e
{ cat <&3 >/dev/null; kill -TERM $$; } &
echo ready
while :; do wait; done
"#;

/// A private host. Dropping it ends everything in it.
pub struct Host {
    folder: TempDir,
    launcher: Child,
    alive: Option<ChildStdin>,
    init: u32,
    cgroup: String,
}

impl Host {
    /// # Panics
    /// When namespaces cannot be made (not root).
    pub fn new() -> Self {
        Self::with_peers(None)
    }

    /// A host that has the programs of other engines laid over its `/usr` and `/etc`.
    pub fn with_peers(peers: Option<&Path>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Short: a socket's path has at most 107 bytes.
        let folder = tempfile::Builder::new()
            .prefix(&format!("{FOLDER_PREFIX}{}-", std::process::id()))
            .tempdir_in(std::env::var_os("CORTEN_TEST_FOLDER").map_or("/tmp".into(), PathBuf::from))
            .expect("a temporary folder");
        for name in ["scratch/upper", "scratch/work"] {
            fs::create_dir_all(folder.path().join(name)).expect("scratch folder");
        }
        let mut launcher = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-c", INIT])
            .env("PEERS", peers.map_or(Path::new(""), |path| path))
            .env("SCRATCH", folder.path().join("scratch"))
            .env("PATH", search_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) starts");
        let alive = launcher.stdin.take();
        let mut said = String::new();
        let stdout = launcher.stdout.take().expect("piped");
        let _ = BufReader::new(stdout).read_line(&mut said);
        assert_eq!(said, "ready\n", "the private host did not come up (tests need root)");
        let init = only_child(launcher.id()).expect("unshare has one child");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("/{CGROUP_PREFIX}{}-{number}", std::process::id());
        Self { folder, launcher, alive, init, cgroup }
    }

    /// Everything the host keeps on disk is in here.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The control group, from the root of each hierarchy, that everything of this host stands below.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Process 1 of the host, as the machine counts.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-n", "-m", "-u", "-p", "--"]).arg(program);
        command.env("PATH", search_path());
        command
    }

    /// Runs a shell script inside.
    #[track_caller]
    pub fn shell(&self, script: &str) -> Ran {
        run(self.command("sh").args(["-c", script]))
    }

    /// The machine's number of a process that [`Host::command`] started: `nsenter` waits for it as its parent.
    pub fn inner(&self, outer: &Child) -> Option<u32> {
        Deadline::after(Duration::from_secs(5)).poll(|| only_child(outer.id()))
    }

    /// Does something within the host's network: a socket stays in the network that it was made in.
    ///
    /// # Panics
    /// When the network cannot be entered, or `work` panics.
    pub fn in_network<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.init)).expect("a network namespace");
        // A thread of its own: the namespace is the thread's.
        let within = std::thread::spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(network.as_fd(), Some(kind)).expect("setns");
            work()
        });
        within.join().expect("work in the host's network")
    }

    /// The processes inside, those of containers too, but the host's own: number (as the machine counts) and
    /// command line.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let Ok(ours) = fs::read_link(format!("/proc/{}/ns/pid", self.init)) else { return Vec::new() };
        let parents: BTreeMap<u32, u32> =
            numeric_entries("/proc").filter_map(|pid| Some((pid, parent(pid)?))).collect();
        let direct =
            |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|theirs| theirs == ours);
        // A container has a process namespace of its own, and parents that lead here.
        let inside = |pid: u32| {
            std::iter::successors(Some(pid), |pid| parents.get(pid).copied())
                .take(100)
                .any(|pid| pid != 0 && direct(pid))
        };
        parents
            .keys()
            .copied()
            .filter(|pid| *pid != self.init && *pid != self.launcher.id() && inside(*pid))
            .map(|pid| (pid, command_line(pid)))
            .filter(|(_, line)| line != "cat" && !line.starts_with("sh -c \ntrap"))
            .collect()
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A frozen process of a v1 group cannot even be killed.
        thaw(&self.cgroup);
        // The end of the pipe ends process 1, and with it all others.
        drop(self.alive.take());
        if !crate::process::wait_for(&mut self.launcher, Duration::from_secs(10)) {
            let _ = self.launcher.kill();
        }
        let _ = self.launcher.wait();
        remove_cgroups(&self.cgroup);
    }
}

/// `PATH`, with the folders that a user's own may lack.
fn search_path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Folders of the control groups named `name` (from the root of a hierarchy) in all hierarchies.
pub fn cgroup_folders(name: &str) -> Vec<PathBuf> {
    let name = name.trim_start_matches('/');
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path()));
    roots.into_iter().map(|root| root.join(name)).filter(|path| path.is_dir()).collect()
}

/// All control groups below `folder`, deepest first.
pub fn cgroups_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(cgroups_below(&entry.path()));
            found.push(entry.path());
        }
    }
    found
}

fn thaw(name: &str) {
    for folder in cgroup_folders(name) {
        for inner in cgroups_below(&folder) {
            for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                let path = inner.join(file);
                if path.exists() {
                    let _ = fs::write(path, value);
                }
            }
        }
    }
}

fn remove_cgroups(name: &str) {
    for folder in cgroup_folders(name) {
        // Killed processes leave their groups a moment after they are gone.
        Deadline::after(Duration::from_secs(5)).poll(|| {
            for inner in cgroups_below(&folder) {
                let _ = fs::remove_dir(inner);
            }
            (fs::remove_dir(&folder).is_ok() || !folder.exists()).then_some(())
        });
    }
}

/// The number of a process's parent, as the machine counts.
fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn only_child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The entries of a folder that are numbers.
pub fn numeric_entries(path: &str) -> impl Iterator<Item = u32> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process's command line with blanks between the words; empty for a zombie or a kernel thread.
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ")
}

/// The name of the program file that a process runs; empty for a zombie or a kernel thread.
///
/// The command line may say anything, and a sealed copy has no name on disk: then it is the name it was made with.
pub fn program_name(pid: u32) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.trim_start_matches("memfd:").trim_end_matches(" (deleted)").to_owned()
}

/// Says something on standard error in one piece, so that lines of tests side by side do not mix.
pub fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
