//! Commands that change containers, or ask little of them.

use api_client::{Client, Request, segment};
use api_types::IdResponse;
use api_types::container::{ContainerTop, Resources, RestartPolicy};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::follow;
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::tabwriter;

/// Containers that are stopped at once; each may take its whole grace period.
const PARALLEL: usize = 50;

fn post(name: &str, verb: &str) -> Request {
    Request::post(format!("/containers/{}/{verb}", segment(name)))
}

/// Sends one request per container, many at a time, and prints the names of those that worked.
async fn for_all(client: &Client, names: &[String], request: impl Fn(&str) -> Request) -> Result<(), Fail> {
    let mut failed = Vec::new();
    for names in names.chunks(PARALLEL) {
        let results = join_all(names.iter().map(|name| client.done(request(name)))).await;
        for (name, result) in names.iter().zip(results) {
            match result {
                Ok(()) => out(&format!("{name}\n")),
                Err(error) => failed.push(Fail::from(error)),
            }
        }
    }
    collected(failed)
}

/// One failure out of several, a line each.
fn collected(failed: Vec<Fail>) -> Result<(), Fail> {
    let mut failed = failed.into_iter();
    let Some(mut first) = failed.next() else { return Ok(()) };
    for fail in failed {
        first.text = format!("{}\n{}", first.text, fail.text);
    }
    Err(first)
}

/// Seconds of grace: the new spelling of the flag wins over the old one.
fn timeout(request: Request, matches: &Matches) -> Request {
    match matches.int("timeout").or_else(|| matches.int("time")) {
        Some(seconds) => request.query("t", seconds.to_string()),
        None => request,
    }
}

fn signal(request: Request, matches: &Matches) -> Request {
    if matches.has("signal") { request.query("signal", matches.str("signal")) } else { request }
}

pub async fn stop(app: &App, matches: &Matches) -> Result<(), Fail> {
    warn_of_old_spelling(matches);
    if matches.has("time") && matches.has("timeout") {
        return Err(Fail::text("conflicting options: cannot specify both --timeout and --time"));
    }
    let client = app.client().await?;
    for_all(client, &matches.args, |name| signal(timeout(post(name, "stop"), matches), matches)).await
}

/// `--time` was renamed.
fn warn_of_old_spelling(matches: &Matches) {
    if matches.has("time") {
        eprintln!("Flag --time has been deprecated, use --timeout instead");
    }
}

pub async fn restart(app: &App, matches: &Matches) -> Result<(), Fail> {
    warn_of_old_spelling(matches);
    if matches.has("time") && matches.has("timeout") {
        return Err(Fail::text("conflicting options: cannot specify both --timeout and --time"));
    }
    let client = app.client().await?;
    for_all(client, &matches.args, |name| signal(timeout(post(name, "restart"), matches), matches)).await
}

pub async fn kill(app: &App, matches: &Matches) -> Result<(), Fail> {
    let client = app.client().await?;
    for_all(client, &matches.args, |name| signal(post(name, "kill"), matches)).await
}

pub async fn pause(app: &App, matches: &Matches) -> Result<(), Fail> {
    for_all(app.client().await?, &matches.args, |name| post(name, "pause")).await
}

pub async fn unpause(app: &App, matches: &Matches) -> Result<(), Fail> {
    for_all(app.client().await?, &matches.args, |name| post(name, "unpause")).await
}

pub async fn rm(app: &App, matches: &Matches) -> Result<(), Fail> {
    let client = app.client().await?;
    let force = matches.bool("force");
    let mut failed = Vec::new();
    for names in matches.args.chunks(PARALLEL) {
        let results = join_all(names.iter().map(|name| async move {
            let trimmed = name.trim_matches('/');
            if trimmed.is_empty() {
                return Err(Fail::text("container name cannot be empty"));
            }
            let request = Request::delete(format!("/containers/{}", segment(trimmed)))
                .flag("v", matches.bool("volumes"))
                .flag("link", matches.bool("link"))
                .flag("force", force);
            Ok(client.done(request).await?)
        }))
        .await;
        for (name, result) in names.iter().zip(results) {
            match result {
                Ok(()) => out(&format!("{name}\n")),
                // What is not there needs no force to be gone.
                Err(fail) if force && fail.status == Some(404) => eprintln!("{}", fail.text),
                Err(fail) => failed.push(fail),
            }
        }
    }
    collected(failed)
}

pub async fn rename(app: &App, matches: &Matches) -> Result<(), Fail> {
    let (old, new) = (matches.args[0].trim(), matches.args[1].trim());
    if old.is_empty() || new.is_empty() {
        return Err(Fail::text("Error: Neither old nor new names may be empty"));
    }
    Ok(app.client().await?.done(post(old, "rename").query("name", new)).await?)
}

pub async fn wait(app: &App, matches: &Matches) -> Result<(), Fail> {
    let client = app.client().await?;
    let mut failed = Vec::new();
    for name in &matches.args {
        let code = async { follow::exit_code(client.send(follow::wait_request(name, "")).await?).await };
        match code.await {
            Ok(code) => out(&format!("{code}\n")),
            Err(fail) => failed.push(fail),
        }
    }
    collected(failed)
}

pub async fn top(app: &App, matches: &Matches) -> Result<(), Fail> {
    let (name, words) = matches.args.split_first().ok_or_else(|| Fail::text("a container is needed"))?;
    let mut request = Request::get(format!("/containers/{}/top", segment(name)));
    if !words.is_empty() {
        request = request.query("ps_args", words.join(" "));
    }
    let processes: ContainerTop = app.client().await?.json(request).await?;
    let mut text = processes.titles.join("\t") + "\n";
    for row in &processes.processes {
        text += &(row.join("\t") + "\n");
    }
    out(&tabwriter::align_with(&text, 20, 3));
    Ok(())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Update {
    #[serde(flatten)]
    resources: Resources,
    restart_policy: RestartPolicy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UpdateAnswer {
    warnings: Vec<String>,
}

pub async fn update(app: &App, matches: &Matches) -> Result<(), Fail> {
    if !matches.has_flags() {
        return Err(Fail::text("you must provide one or more flags when using this command"));
    }
    let number = |name: &str| matches.int(name).unwrap_or(0);
    let bytes = |name: &str| matches.bytes(name).unwrap_or(0);
    let restart = match matches.str("restart") {
        "" => RestartPolicy::default(),
        policy => crate::opts::container::restart_policy(policy)?,
    };
    let cpus = matches.list("cpus").last().map(|value| crate::units::parse_cpus(value)).transpose()?;
    let resources = Resources {
        blkio_weight: matches.uint("blkio-weight").unwrap_or(0) as u16,
        cpuset_cpus: matches.str("cpuset-cpus").to_owned(),
        cpuset_mems: matches.str("cpuset-mems").to_owned(),
        cpu_shares: number("cpu-shares"),
        memory: bytes("memory"),
        memory_reservation: bytes("memory-reservation"),
        memory_swap: bytes("memory-swap"),
        cpu_period: number("cpu-period"),
        cpu_quota: number("cpu-quota"),
        cpu_realtime_period: number("cpu-rt-period"),
        cpu_realtime_runtime: number("cpu-rt-runtime"),
        nano_cpus: cpus.unwrap_or(0),
        pids_limit: matches.int("pids-limit"),
        ..Resources::default()
    };
    let body = Update { resources, restart_policy: restart };
    let client = app.client().await?;
    let mut failed = Vec::new();
    for name in &matches.args {
        match client.json::<UpdateAnswer>(post(name, "update").json(&body)?).await {
            Ok(answer) => {
                out(&format!("{name}\n"));
                for warning in answer.warnings.iter().filter(|warning| !warning.is_empty()) {
                    eprintln!("{warning}");
                }
            }
            Err(error) => failed.push(error.into()),
        }
    }
    collected(failed)
}

pub async fn commit(app: &App, matches: &Matches) -> Result<(), Fail> {
    let reference = matches.args.get(1).map_or("", String::as_str);
    let (repository, tag, _) = crate::opts::reference::split(reference);
    let pause = matches.bool_or_true("pause") && !matches.bool("no-pause");
    let mut request = Request::post("/commit").query("container", matches.args[0].as_str());
    for (key, value) in [
        ("repo", repository),
        ("tag", tag.unwrap_or_default()),
        ("comment", matches.str("message")),
        ("author", matches.str("author")),
    ] {
        if !value.is_empty() {
            request = request.query(key, value);
        }
    }
    for change in matches.list("change") {
        request = request.query("changes", change.as_str());
    }
    if !pause {
        request = request.query("pause", "0");
    }
    let made: IdResponse = app.client().await?.json(request).await?;
    out(&format!("{}\n", made.id));
    Ok(())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Change {
    kind: u8,
    path: String,
}

pub async fn diff(app: &App, matches: &Matches) -> Result<(), Fail> {
    let request = Request::get(format!("/containers/{}/changes", segment(&matches.args[0])));
    let changes: Option<Vec<Change>> = app.client().await?.json(request).await?;
    let lines: String = changes
        .unwrap_or_default()
        .iter()
        .map(|change| {
            let kind = match change.kind {
                0 => 'C',
                1 => 'A',
                _ => 'D',
            };
            format!("{kind} {}\n", change.path)
        })
        .collect();
    out(&lines);
    Ok(())
}
