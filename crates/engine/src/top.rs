//! `top`: the host's `ps`, told apart by the container's processes.

use std::collections::BTreeSet;

use api_types::container::ContainerTop;
use model::{Phase, Refusal};

use crate::{Containers, blocking};

impl Containers {
    /// `arguments` are those of ps(1).
    pub async fn top(&self, name: &str, arguments: &str) -> Result<ContainerTop, Refusal> {
        let view = self.0.find(name)?.view();
        let pid = match view.phase {
            Phase::Running { pid, .. } => pid,
            Phase::Restarting { .. } => {
                return Err(Refusal::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    view.id()
                )));
            }
            _ => return Err(Refusal::conflict(format!("container {} is not running", view.id()))),
        };
        let arguments = if arguments.trim().is_empty() { "-ef" } else { arguments };
        let arguments: Vec<String> = arguments.split_ascii_whitespace().map(String::from).collect();
        blocking(move || {
            let pids = processes(pid)?;
            select(&ps(&arguments)?, &pids)
        })
        .await
    }
}

/// The processes that share a cgroup with the container's first one, or lie below it.
fn processes(pid: i32) -> Result<BTreeSet<i32>, Refusal> {
    let failed = |error: std::io::Error| Refusal::from_error("cannot list the container's processes", &error);
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(failed)?;
    let wanted = own_group(&groups).unwrap_or_default().to_string();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").map_err(failed)?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(groups) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { continue };
        let group = own_group(&groups).unwrap_or_default();
        if group == wanted || group.strip_prefix(&wanted).is_some_and(|rest| rest.starts_with('/')) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// The cgroup in the hierarchy that tells containers apart: pids of v1 if it is there, else the unified one.
fn own_group(text: &str) -> Option<&str> {
    let lines = || text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let named =
        |name: &str| lines().find(|(all, _)| all.split(',').any(|one| one == name)).map(|(_, path)| path);
    named("pids").or_else(|| named("memory")).or_else(|| named(""))
}

#[expect(clippy::disallowed_methods, reason = "its output and its options are what people ask for")]
fn ps(arguments: &[String]) -> Result<String, Refusal> {
    let output = std::process::Command::new("ps").args(arguments).output().map_err(|error| {
        Refusal::from_error("error running ps", &error).hint("install the host's procps package")
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Refusal::system(format!("error running ps: {}", text.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Picks the lines of the container's processes.
fn select(output: &str, pids: &BTreeSet<i32>) -> Result<ContainerTop, Refusal> {
    let mut lines = output.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_ascii_whitespace().map(String::from).collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Refusal::system("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let pid = fields.get(column).and_then(|field| field.parse().ok());
        if !pid.is_some_and(|pid| pids.contains(&pid)) {
            continue;
        }
        // The last column is the command, which has blanks of its own.
        let mut row: Vec<String> =
            fields.iter().take(titles.len() - 1).map(|field| field.to_string()).collect();
        row.push(fields.get(titles.len() - 1..).unwrap_or_default().join(" "));
        processes.push(row);
    }
    Ok(ContainerTop { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_container() {
        let output = "UID   PID CMD\nroot    1 init x\nroot   22 sh -c a b\n";
        let top = select(output, &BTreeSet::from([22])).unwrap();
        assert_eq!(top.titles, ["UID", "PID", "CMD"]);
        assert_eq!(top.processes, [["root", "22", "sh -c a b"]]);
        assert!(select("A B\n", &BTreeSet::new()).is_err());
    }

    #[test]
    fn the_group_that_tells_apart() {
        assert_eq!(own_group("3:cpu:/\n2:pids:/corten/x\n0::/y\n"), Some("/corten/x"));
        assert_eq!(own_group("0::/corten/x\n"), Some("/corten/x"));
    }
}
