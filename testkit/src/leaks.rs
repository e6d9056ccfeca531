//! What is left when nothing should be: in a private host, and on the machine after all tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::host::{self, CGROUP_PREFIX, FOLDER_PREFIX, Host};
use crate::process::run;

/// Everything of a private host that containers may leave behind, each thing as a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    pub fn of(host: &Host) -> Self {
        let mut found = BTreeSet::new();
        found.extend(mounts(&format!("/proc/{}/mountinfo", host.init())));
        found.extend(lines("link", host.command("ip").args(["-o", "link", "show"]), link_name));
        // Stateless: counters move by themselves.
        found.extend(lines("nftables", host.command("nft").args(["-s", "list", "ruleset"]), |line| {
            Some(line.trim().to_owned())
        }));
        found.extend(lines("network namespace", host.command("ip").args(["netns", "list"]), first_word));
        for root in host::cgroup_folders(host.cgroup()) {
            found.extend(host::cgroups_below(&root).iter().map(|path| format!("cgroup {}", path.display())));
        }
        // By command line and not by number: the daemon may have been started again.
        found.extend(host.processes().into_iter().map(|(_, line)| format!("process {line}")));
        for folder in ["exec", "data/containers"] {
            let folder = host.folder().join(folder);
            found.extend(entries(&folder, 2).into_iter().map(|path| format!("file {path}")));
        }
        let run = format!("/proc/{}/root/run", host.init());
        found.extend(entries(Path::new(&run), 2).into_iter().map(|path| format!("file {path}")));
        Self(found)
    }

    /// What stands here and did not stand in `before`.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }

    /// The lines about one kind of thing: `mount`, `link`, `nftables`, `network namespace`, `cgroup`, `process`,
    /// `file`.
    pub fn of_kind(&self, kind: &str) -> Vec<String> {
        let start = format!("{kind} ");
        self.0.iter().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }
}

/// What tests that have ended left on the machine itself: a line for each.
pub fn on_machine() -> Vec<String> {
    let mut found = Vec::new();
    let ended = |name: &str, prefix: &str| {
        let pid = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    for entry in fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ended(&name, FOLDER_PREFIX) {
            found.push(format!("folder /tmp/{name}"));
        }
    }
    for root in host::cgroup_folders("").into_iter().collect::<BTreeSet<_>>() {
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if ended(&name, CGROUP_PREFIX) || ended(&name, "corten-hello-") {
                found.push(format!("cgroup {}", entry.path().display()));
            }
        }
    }
    // A path or a name below a folder of a test that has ended.
    let stray = |text: &str| {
        text.split(['/', ' ', '=', ':', ','])
            .any(|word| ended(word, FOLDER_PREFIX) || ended(word, CGROUP_PREFIX))
    };
    found.extend(
        mounts("/proc/self/mountinfo").into_iter().filter(|line| stray(line) || line.contains("corten")),
    );
    for pid in host::numeric_entries("/proc") {
        let line = host::command_line(pid);
        if stray(&line) {
            found.push(format!("process {pid} {line}"));
        }
    }
    found.extend(
        lines("link", Command::new("ip").args(["-o", "link", "show"]), link_name)
            .into_iter()
            .filter(|line| line.contains("corten")),
    );
    let tables =
        lines("nftables", Command::new("nft").args(["list", "tables"]), |line| Some(line.to_owned()));
    found.extend(tables.into_iter().filter(|line| line.contains("corten")));
    found
}

fn mounts(mountinfo: &str) -> Vec<String> {
    let text = fs::read_to_string(mountinfo).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            // "id parent major:minor root target options ... - type source options", see proc_pid_mountinfo(5).
            let (front, back) = line.split_once(" - ")?;
            let target = front.split(' ').nth(4)?;
            let kind = back.split(' ').next()?;
            Some(format!("mount {target} ({kind})"))
        })
        .collect()
}

fn lines(kind: &str, command: &mut Command, pick: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let ran = run(command);
    ran.stdout.lines().filter_map(pick).map(|line| format!("{kind} {line}")).collect()
}

/// `7: veth1@if6: <…` names veth1.
fn link_name(line: &str) -> Option<String> {
    let name = line.split(": ").nth(1)?;
    Some(name.split('@').next().unwrap_or(name).to_owned())
}

fn first_word(line: &str) -> Option<String> {
    line.split_whitespace().next().map(str::to_owned)
}

fn entries(folder: &Path, depth: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(entries(&entry.path(), depth - 1));
        }
    }
    found
}
