//! The last thing of `make test`: says what the tests left on the machine, and fails if there is anything.
//!
//! `leaks --before FILE` notes what tests that were killed left there earlier; `leaks FILE` looks for what was not there.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use testkit::{Deadline, leaks};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--before", file] => note(file),
        [file] => check(file),
        _ => {
            eprintln!("usage: leaks [--before] FILE");
            ExitCode::from(2)
        }
    }
}

fn note(file: &str) -> ExitCode {
    let earlier = leaks::on_machine();
    for leak in &earlier {
        eprintln!("from before these tests: {leak}");
    }
    match std::fs::write(file, earlier.join("\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &str) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{file}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let before: BTreeSet<&str> = text.lines().collect();
    let look = || {
        let mut found = leaks::on_machine();
        found.retain(|leak| !before.contains(leak.as_str()));
        found
    };
    // The kernel takes the namespaces of a killed test down a moment after its last process.
    let clean = Deadline::after(Duration::from_secs(5)).poll(|| look().is_empty().then_some(()));
    if clean.is_some() {
        println!("no leaks: no mounts, links, tables, control groups, processes or folders left");
        return ExitCode::SUCCESS;
    }
    for leak in look() {
        eprintln!("left behind: {leak}");
    }
    ExitCode::FAILURE
}
