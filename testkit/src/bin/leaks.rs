//! The last thing of `make test`: says what the tests left on the machine, and fails if there is anything.

use std::process::ExitCode;
use std::time::Duration;

use testkit::{Deadline, leaks};

fn main() -> ExitCode {
    // The kernel takes the namespaces of a killed test down a moment after its last process.
    let clean = Deadline::after(Duration::from_secs(5)).poll(|| leaks::on_machine().is_empty().then_some(()));
    if clean.is_some() {
        println!("no leaks: no mounts, links, tables, control groups, processes or folders left");
        return ExitCode::SUCCESS;
    }
    for leak in leaks::on_machine() {
        eprintln!("left behind: {leak}");
    }
    ExitCode::FAILURE
}
