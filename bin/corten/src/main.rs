//! `corten`: the command line. Called as `docker` it is `docker`: the same tree, texts and exit codes.
//!
//! 1. [`args`] turns words into a command with its flags, from one table.
//! 2. [`app`] finds the daemon (and starts one if none answers, see [`autostart`]).
//! 3. [`commands`] has one module per group; [`opts`] turns flag values into bodies of requests.
//! 4. [`table`], [`units`] and [`time`] print what came back.
//!
//! One thread, one runtime; nothing is read that the command does not need, as `run` is measured in milliseconds.

mod app;
mod args;
mod autostart;
mod commands;
mod config;
mod credentials;
mod fail;
mod opts;
mod output;
mod progress;
mod streams;
mod table;
mod tabwriter;
mod term;
mod time;
mod units;

use std::process::ExitCode;

use args::help::{Setting, render};
use args::parse::Parsed;
use fail::Fail;

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    let program = if called.rsplit('/').next() == Some("docker") { "docker" } else { "corten" };
    let words: Vec<String> = words.collect();
    if words.first().is_some_and(|word| word == autostart::DETACH) {
        return autostart::detach(&words[1..]);
    }
    if let Some("__complete") = words.first().map(String::as_str) {
        return exit(run(|| commands::completion::complete(program, &words[1..])), program);
    }
    match args::parse::parse(program, &args::tree::ROOT, &words) {
        Err(mistake) => {
            eprintln!("{}", mistake.text);
            code(mistake.code)
        }
        Ok(Parsed::Version) => {
            output::out(&format!("{}\n", commands::system::version_line(program)));
            ExitCode::SUCCESS
        }
        Ok(Parsed::Unsupported(name)) => {
            eprintln!("corten: '{name}' is not supported yet");
            ExitCode::FAILURE
        }
        Ok(Parsed::Help { command, path, asked, deprecated_h }) => {
            if deprecated_h {
                eprintln!("Flag shorthand -h has been deprecated, use --help");
            }
            let config = config::folder();
            let setting = Setting { program, columns: term::columns().unwrap_or(80), config: &config };
            let text = render(&setting, command, &path);
            if asked {
                output::out(&text)
            } else {
                eprint!("{text}")
            }
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run { global, command, path, matches }) => {
            let level = global.str("log-level");
            if global.has("log-level")
                && !matches!(
                    level,
                    "trace" | "debug" | "info" | "warn" | "warning" | "error" | "fatal" | "panic"
                )
            {
                eprintln!("Unable to parse logging level: {level}");
                return ExitCode::FAILURE;
            }
            let app = app::App::new(program, global, path);
            exit(run(|| commands::run(app, command, matches)), program)
        }
    }
}

fn run<F: Future<Output = Result<i32, Fail>>>(command: impl FnOnce() -> F) -> Result<i32, Fail> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fail::text(format!("cannot start: {error}")))?;
    let result = runtime.block_on(command());
    // A thread may still wait for our standard input; nobody waits for it.
    runtime.shutdown_background();
    result
}

fn exit(result: Result<i32, Fail>, program: &str) -> ExitCode {
    let status = match result {
        Ok(status) => status,
        Err(fail) => {
            fail.print(program);
            fail.code
        }
    };
    output::flush();
    // Threads that still read are not worth waiting for.
    std::process::exit(status);
}

fn code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status.clamp(0, 255)).unwrap_or(1))
}
