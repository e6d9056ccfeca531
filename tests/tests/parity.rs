//! `docs/parity.md` says what is so: every endpoint and every command in it is tried.
//!
//! A try tells only whether there is an answer; whether the answer is right is for the other tests and for the reader,
//! who writes `works` or `partly: …`. `CORTEN_PARITY=write` puts what was found into the page: rows that began or
//! ceased to answer.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fmt::Write;
use std::time::Duration;

use serde_json::json;
use testkit::http::API;
use testkit::{Bed, BedOptions, Deadline, bed::source, engine, image, run};
use tests::is_corten;

/// What a try finds.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Answers,
    /// Refused as not implemented, by name.
    Unimplemented,
    /// Refused because there is no swarm.
    Swarmless,
    Nothing,
}

impl Found {
    fn agrees(&self, state: &str) -> bool {
        match self {
            Self::Answers => state == "works" || state.starts_with("partly: "),
            Self::Unimplemented => state == "501",
            Self::Nothing => state == "not yet",
            Self::Swarmless => state.starts_with("partly: 503") || state == "501",
        }
    }

    fn state(&self) -> &'static str {
        match self {
            Self::Answers => "works",
            Self::Unimplemented => "501",
            Self::Nothing => "not yet",
            Self::Swarmless => "partly: 503, as of a node without a swarm",
        }
    }
}

/// Asks an endpoint about things that exist.
fn endpoint(bed: &Bed, method: &str, path: &str) -> Found {
    let body = json!({ "Image": "busybox", "Cmd": ["sleep", "1000"] });
    bed.http().post("/containers/create?name=web", &body);
    bed.http().act("/containers/web/start");
    let path = path
        .replace("/containers/{id}", "/containers/web")
        .replace("/containers/{name}", "/containers/web")
        .replace("/images/{name}", "/images/busybox")
        .replace("/networks/{id}", "/networks/bridge");
    let path: String = path
        .split(['{', '}'])
        .enumerate()
        .map(|(at, part)| if at % 2 == 1 { "nosuch" } else { part })
        .collect();
    let answer = bed.http().with_timeout(Duration::from_secs(2)).stream(method, &path);
    // No answer in time is work being done: a stop that waits for its grace, a stream without news.
    let Ok(mut answer) = answer else { return Found::Answers };
    match answer.status {
        501 => Found::Unimplemented,
        503 => Found::Swarmless,
        404 if method == "HEAD" => Found::Answers,
        404 => {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut answer, &mut text);
            if text.contains("page not found") { Found::Nothing } else { Found::Answers }
        }
        _ => Found::Answers,
    }
}

/// Whether the command line knows a command by one of its names. What the daemon makes of it is the endpoints' row.
fn knows(names: &[&str]) -> bool {
    names.iter().any(|words| {
        let mut command = std::process::Command::new(engine::program("corten"));
        let said = run(command.arg("--no-autostart").args(words.split(' ')).arg("--help"));
        said.code == 0 && said.stdout.contains("Usage:")
    })
}

#[test]
fn the_page_is_true() {
    let bed = Bed::with(BedOptions { flags: vec!["--debug".to_owned()], ..BedOptions::default() });
    if !is_corten(&bed) {
        return;
    }
    bed.load(&image::busybox());
    let page = std::fs::read_to_string(source("docs/parity.md")).expect("docs/parity.md");
    let (mut wrong, mut written) = (Vec::new(), String::new());
    for line in page.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let disagreement = match cells.as_slice() {
            ["", method, path, state, ""] if path.starts_with("`/") && *state != "as above" => {
                let path = path.trim_matches('`').split('?').next().unwrap_or_default();
                let found = endpoint(&bed, method, path);
                (!found.agrees(state)).then(|| found.state())
            }
            ["", words, also, state, ""] if words.starts_with('`') => {
                let names: Vec<_> =
                    [*words].into_iter().chain(also.split(", ")).map(|name| name.trim_matches('`')).collect();
                let names: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
                match (knows(&names), *state) {
                    (false, state) if state != "not yet" => Some("not yet"),
                    // The page may know better: the daemon's half can be missing.
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some(state) = disagreement {
            wrong.push(format!("{} {}: the page says {}, found: {state}", cells[1], cells[2], cells[3]));
            let start = line.rfind(cells[3]).expect("the state's cell");
            let _ = writeln!(written, "{}{state} |", &line[..start]);
        } else {
            written.extend([line, "\n"]);
        }
    }
    // Images that a try removed or renamed are not needed any more; stops may still be on their way.
    Deadline::after(Duration::from_secs(15)).poll(|| bed.http().get("/_ping").status.eq(&200).then_some(()));
    if std::env::var_os("CORTEN_PARITY").is_some_and(|value| value == "write") {
        std::fs::write(source("docs/parity.md"), written).expect("docs/parity.md");
        return;
    }
    assert!(wrong.is_empty(), "docs/parity.md ({API}):\n{}", wrong.join("\n"));
}
