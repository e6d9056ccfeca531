//! Programs that the spec wants to be run at points of a container's life.

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use oci::runtime::{Hook, OCI_VERSION, Spec, State, Status};

use crate::Error;
use crate::error::describe;

/// The state that hooks are told on their standard input.
pub fn state(id: &str, spec: &Spec, bundle: &std::path::Path, status: Status, pid: i32) -> State {
    State {
        oci_version: if spec.oci_version.is_empty() { OCI_VERSION.into() } else { spec.oci_version.clone() },
        id: id.into(),
        status,
        pid: pid.max(0) as u32,
        bundle: bundle.into(),
        annotations: spec.annotations.clone(),
    }
}

/// Runs hooks in order. The first one that fails ends it.
pub fn run(name: &str, hooks: &[Hook], state: &State) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serde_json::to_vec(state)
        .map_err(|error| Error::invalid(format!("write the state for {name} hooks: {error}")))?;
    for (index, hook) in hooks.iter().enumerate() {
        let failed = |what: String| Error::invalid(format!("error running {name} hook #{index}: {what}"));
        let mut child = start(hook).map_err(|error| {
            failed(format!("{}: {}", hook.path.display(), describe(error.raw_os_error().unwrap_or(0))))
        })?;
        if let Some(mut input) = child.stdin.take() {
            // A hook need not read it.
            let _ = input.write_all(&state);
        }
        wait(&mut child, hook.timeout.map(Duration::from_secs)).map_err(failed)?;
    }
    Ok(())
}

// Starting a program is what the spec asks for here, and only if it names one.
#[allow(clippy::disallowed_methods)]
fn start(hook: &Hook) -> std::io::Result<Child> {
    let mut command = std::process::Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    // Who says nothing about the environment gets the runtime's.
    if !hook.env.is_empty() {
        command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command.spawn()
}

fn wait(child: &mut Child, timeout: Option<Duration>) -> Result<(), String> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut pause = Duration::from_micros(100);
    let status = loop {
        let ended = match deadline {
            None => child.wait().map(Some),
            Some(_) => child.try_wait(),
        };
        match ended.map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if deadline.is_some_and(|deadline| Instant::now() > deadline) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("timed out".into());
            }
            None => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
        }
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("exit status {code}")),
        (None, signal) => Err(format!("signal {}", signal.unwrap_or(0))),
    }
}
