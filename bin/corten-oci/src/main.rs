//! Corten's runtime as an OCI command line: what containerd, Podman and the specification's own suite start.
//!
//! One call does one thing and ends. What must be known later is a directory for each container (see [`state`]).

mod arguments;
mod console;
mod create;
mod exec;
mod features;
mod inspect;
mod log;
mod manage;
mod state;
mod template;

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use arguments::{Arguments, Global};

/// What stops a command: a text for the user.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// Says what was being done when it failed.
pub trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{}: {error}", what())))
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_environment();
    let global = match Global::parse(&mut arguments) {
        Ok(global) => global,
        Err(failure) => {
            eprintln!("corten-oci: {}", failure.0);
            return ExitCode::FAILURE;
        }
    };
    match run(&global, arguments) {
        Ok(code) => code,
        Err(failure) => {
            log::error(&global, &failure.0);
            ExitCode::FAILURE
        }
    }
}

fn run(global: &Global, mut arguments: Arguments) -> Result<ExitCode, Failure> {
    let Some(command) = arguments.next_word() else {
        print!("{}", arguments::HELP);
        return Ok(ExitCode::SUCCESS);
    };
    if matches!(command.as_str(), "create" | "run" | "exec") {
        leave_the_disk()?;
    }
    let done = |()| ExitCode::SUCCESS;
    match command.as_str() {
        "create" => create::create(global, arguments).map(done),
        "start" => create::start(global, arguments).map(done),
        "run" => create::run(global, arguments),
        "exec" => exec::exec(global, arguments),
        "state" => inspect::state(global, arguments).map(done),
        "list" => inspect::list(global, arguments).map(done),
        "ps" => inspect::ps(global, arguments).map(done),
        "events" => inspect::events(global, arguments).map(done),
        "kill" => manage::kill(global, arguments).map(done),
        "delete" => manage::delete(global, arguments).map(done),
        "pause" => manage::freeze(global, arguments, true).map(done),
        "resume" => manage::freeze(global, arguments, false).map(done),
        "update" => manage::update(global, arguments).map(done),
        "features" => features::features(arguments).map(done),
        "spec" => template::spec(arguments).map(done),
        "checkpoint" | "restore" => Err(Failure(format!("{command} is not supported"))),
        "help" => {
            print!("{}", arguments::HELP);
            Ok(ExitCode::SUCCESS)
        }
        other => Err(Failure(format!("no command {other:?}: see corten-oci --help"))),
    }
}

/// Goes on from a sealed copy in memory. A process of a container can find its way to the file that the runtime
/// was started from (through `/proc/PID/exe`); there must be nothing to write to.
fn leave_the_disk() -> Result<(), Failure> {
    use rustix::fs::{Mode, OFlags, SealFlags};
    let what = || "copy the runtime into memory".to_owned();
    let own =
        rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(what)?;
    let sealed = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
    if rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(sealed)) {
        let _ = rustix::thread::set_name(c"corten-oci");
        return Ok(());
    }
    let copy = sys::security::sealed_copy(own.as_fd(), c"corten-oci").context(what)?;
    let string = |text: std::ffi::OsString| CString::new(text.into_vec()).unwrap_or_default();
    let mut arguments = sys::process::Strings::default();
    std::env::args_os().for_each(|argument| arguments.push(string(argument)));
    let mut environment = sys::process::Strings::default();
    for (mut name, value) in std::env::vars_os() {
        name.push("=");
        name.push(value);
        environment.push(string(name));
    }
    Err(sys::process::execute_descriptor(copy.as_fd(), &mut arguments, &mut environment)).context(what)
}
