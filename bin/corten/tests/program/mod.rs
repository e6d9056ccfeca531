//! The command line, run as a user runs it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

pub struct Output {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

/// Runs the command line with nothing of the environment but a path, a home that is empty, and a host.
#[expect(clippy::disallowed_methods, reason = "the program under test has to be started")]
pub fn run(program: &str, line: &[&str], input: &str, host: Option<&str>) -> Output {
    let home = tempfile::tempdir().expect("a home");
    let mut command = Command::new(env!("CARGO_BIN_EXE_corten"));
    command
        .arg0(program)
        .args(line)
        .env_clear()
        .env("HOME", home.path())
        .env("CORTEN_NO_AUTOSTART", "1")
        .env("TZ", "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(host) = host {
        command.env("DOCKER_HOST", host);
    }
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that does not read its input closes it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    Output {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}
