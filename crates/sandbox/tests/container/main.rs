//! Runs real containers from busybox and looks at them from inside. Needs root.

#[path = "../common/mod.rs"]
mod common;
mod mounts;
mod privileges;
mod programs;
mod spaces;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::*;
use oci::runtime::*;
use sandbox::{Cgroup, Error, ExecPlan, Plan, RootfsSource, Running, Stdio};
use sys::process::Ended;

struct Host {
    scratch: Scratch,
}

impl Host {
    fn lower(&self) -> std::path::PathBuf {
        self.scratch.0.join("lower")
    }

    /// Runs a container whose spec was changed, and expects that it could be started.
    fn run(&self, args: &[&str], change: impl FnOnce(&mut Spec)) -> Outcome {
        self.try_run(args, change).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    fn try_run(&self, args: &[&str], change: impl FnOnce(&mut Spec)) -> Result<Outcome, Error> {
        let mut spec = spec("box", args);
        change(&mut spec);
        let rootfs = overlay(&self.scratch.0, &self.lower(), "box");
        run(|stdio| sandbox::create(Plan::new("box", &spec, rootfs, stdio)))
    }

    fn shell(&self, script: &str, change: impl FnOnce(&mut Spec)) -> String {
        let outcome = self.run(&["sh", "-c", script], change);
        assert_eq!(outcome.ended, Ended::Code(0), "{script}: {}", outcome.output);
        outcome.output
    }

    fn error(&self, args: &[&str], change: impl FnOnce(&mut Spec)) -> Error {
        self.try_run(args, change).map(|outcome| panic!("{args:?} ran: {outcome:?}")).unwrap_err()
    }

    /// A container that sleeps, and its spec.
    fn sleeper(&self, change: impl FnOnce(&mut Spec)) -> (Spec, Running) {
        let mut spec = spec("box", &["sleep", "60"]);
        change(&mut spec);
        let rootfs = overlay(&self.scratch.0, &self.lower(), "box");
        let stdio = Stdio::Descriptors { stdin: null(), stdout: null(), stderr: null() };
        let running = sandbox::create(Plan::new("box", &spec, rootfs, stdio)).unwrap().start().unwrap();
        (spec, running)
    }
}

fn process(spec: &mut Spec) -> &mut Process {
    spec.process.as_mut().unwrap()
}

fn linux(spec: &mut Spec) -> &mut Linux {
    spec.linux.as_mut().unwrap()
}

fn no_change(_: &mut Spec) {}

fn with_cgroup_namespace(spec: &mut Spec) {
    let namespaces = &mut linux(spec).namespaces;
    namespaces.retain(|namespace| namespace.kind != LinuxNamespaceKind::Cgroup);
    namespaces.push(LinuxNamespace { kind: LinuxNamespaceKind::Cgroup, path: None });
}

fn kill(running: Running) {
    running.cgroup.kill_all(libc::SIGKILL).unwrap();
    assert_eq!(sys::process::wait(running.pid).unwrap(), Ended::Signal(libc::SIGKILL));
    drop(running.mounts);
    running.cgroup.delete().unwrap();
}

fn execute(
    spec: &Spec,
    running: &Running,
    args: &[&str],
    change: impl FnOnce(&mut Process),
) -> Result<Outcome, Error> {
    let mut process = spec.process.clone().unwrap();
    process.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    change(&mut process);
    let (mut output, input) = std::io::pipe().unwrap();
    let stdout: OwnedFd = input.into();
    let stdio = Stdio::Descriptors { stdin: null(), stderr: stdout.try_clone().unwrap(), stdout };
    let executed = sandbox::exec(ExecPlan {
        target_pid: running.pid,
        process: &process,
        spec,
        stdio,
        seccomp: None,
        cgroup: &running.cgroup,
        preserved_descriptors: 0,
    })?;
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    Ok(Outcome { output: said, ended: sys::process::wait(executed.pid).unwrap() })
}

type Test = (&'static str, fn(&Host));

const TESTS: &[Test] = &[
    ("exit_codes_and_signals", spaces::exit_codes_and_signals),
    ("namespaces_are_its_own", spaces::namespaces_are_its_own),
    ("the_cgroup_namespace_starts_at_the_container", spaces::the_cgroup_namespace_starts_at_the_container),
    (
        "the_loopback_is_up_and_the_netlink_socket_inside",
        spaces::the_loopback_is_up_and_the_netlink_socket_inside,
    ),
    ("capabilities_are_what_was_asked_for", privileges::capabilities_are_what_was_asked_for),
    ("no_new_privileges_and_filters", privileges::no_new_privileges_and_filters),
    ("paths_are_masked_and_read_only", privileges::paths_are_masked_and_read_only),
    ("devices_are_there", privileges::devices_are_there),
    ("programs_that_cannot_run", programs::programs_that_cannot_run),
    ("users_come_from_the_containers_files", programs::users_come_from_the_containers_files),
    ("directories_to_start_in", programs::directories_to_start_in),
    ("sysctls_are_written", privileges::sysctls_are_written),
    ("limits_hold", privileges::limits_hold),
    ("out_of_memory_is_counted", privileges::out_of_memory_is_counted),
    ("freezing_statistics_and_updates", privileges::freezing_statistics_and_updates),
    ("another_process_joins", programs::another_process_joins),
    ("terminals", programs::terminals),
    ("mounts_of_all_kinds", mounts::mounts_of_all_kinds),
    ("owners_are_mapped_by_mounts", mounts::owners_are_mapped_by_mounts),
    ("mounts_spread_as_they_are_told", mounts::mounts_spread_as_they_are_told),
    ("links_in_the_image_lead_nowhere_else", mounts::links_in_the_image_lead_nowhere_else),
    ("a_plain_directory_is_a_root_as_well", mounts::a_plain_directory_is_a_root_as_well),
    ("user_namespaces_map_owners", spaces::user_namespaces_map_owners),
    ("user_namespaces_are_joined", spaces::user_namespaces_are_joined),
    ("time_offsets", spaces::time_offsets),
    ("joining_the_namespaces_of_another", spaces::joining_the_namespaces_of_another),
    ("hooks_run_where_they_should", spaces::hooks_run_where_they_should),
    ("keyrings_sessions_and_signals", privileges::keyrings_sessions_and_signals),
    ("nothing_is_left_after_a_discard", spaces::nothing_is_left_after_a_discard),
];

/// What must be the same after each test as before it.
fn traces() -> (usize, String, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let hierarchy = if unified() { "" } else { "memory/" };
    let cgroup = format!("/sys/fs/cgroup/{hierarchy}corten-test-{}", std::process::id());
    let cgroups = fs::read_dir(cgroup)
        .map_or(0, |entries| entries.flatten().filter(|entry| entry.path().is_dir()).count());
    (descriptors, mounts, cgroups)
}

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("containers need root: {} tests did not run", TESTS.len());
        std::process::exit(1);
    }
    // What test runners say to the usual harness: `--list`, and `--exact NAME` for one test.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    if flag("--list") {
        // No test is ignored.
        TESTS.iter().filter(|_| !flag("--ignored")).for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let exact = flag("--exact");
    let mut wanted: Vec<&String> = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--test-threads" | "--format" | "--color" => drop(rest.next()),
            name if !name.starts_with('-') => wanted.push(argument),
            _ => {}
        }
    }
    let host = Host { scratch: Scratch::new("tests") };
    fill_rootfs(&host.lower());
    fs::write(host.lower().join("bin/noformat"), [0x7f, 0, 1, 2]).unwrap();
    fs::set_permissions(
        host.lower().join("bin/noformat"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let mut failed = 0;
    let begin = Instant::now();
    for (name, test) in TESTS {
        let hit = |wanted: &str| if exact { *name == wanted } else { name.contains(wanted) };
        if !wanted.is_empty() && !wanted.iter().any(|wanted| hit(wanted)) {
            continue;
        }
        let before = traces();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            test(&host);
            let deadline = Instant::now() + Duration::from_secs(5);
            while traces() != before && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(traces(), before, "something is left behind");
        }));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed += i32::from(result.is_err());
    }
    remove_parent_cgroups();
    drop(host);
    println!("{failed} failed, in {:?}", begin.elapsed());
    std::process::exit(i32::from(failed > 0));
}
