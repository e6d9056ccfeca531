//! `stats`: what containers use, once or live.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use api_client::{Client, Request, segment};
use api_types::container::ContainerSummary;
use api_types::stats::{ContainerStats, CpuStats};
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::Notify;

use super::filters;
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::table::{List, Row, short_id};
use crate::units::{binary_size, human_size};

const LIST: List = List {
    default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    headings: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    type_name: "*container.statsContext",
};

/// Between two drawings.
const REDRAW: Duration = Duration::from_millis(500);
/// Numbers older than this are no longer shown.
const STALE: Duration = Duration::from_secs(3);
/// To the upper left corner.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// A container's line.
#[derive(Debug, Default)]
struct Line {
    /// As it was asked for.
    container: String,
    /// None while nothing is known, or nothing any more.
    usage: Option<Usage>,
    id: String,
    name: String,
    /// Its stream has begun or has failed.
    begun: bool,
    failed: Option<Fail>,
}

#[derive(Debug, Default, PartialEq)]
struct Usage {
    cpu_percent: f64,
    memory: f64,
    memory_limit: f64,
    received: f64,
    sent: f64,
    read: f64,
    written: f64,
    processes: u64,
}

/// All lines, shared with those who fill them.
#[derive(Debug, Default)]
struct Board {
    lines: RefCell<Vec<Line>>,
    /// A stream has begun, or has failed to.
    begun: Notify,
}

impl Board {
    /// Changes a line; none if it has gone.
    fn change(&self, container: &str, change: impl FnOnce(&mut Line)) -> Option<()> {
        let mut lines = self.lines.borrow_mut();
        let line = lines.iter_mut().find(|line| line.container == container)?;
        change(line);
        if !std::mem::replace(&mut line.begun, true) {
            self.begun.notify_one();
        }
        Some(())
    }

    fn has_begun(&self) -> bool {
        self.lines.borrow().iter().all(|line| line.begun)
    }
}

type Lines = Rc<Board>;
type Follower<'a> = LocalBoxFuture<'a, ()>;

pub async fn stats(app: &App, matches: &Matches) -> Result<(), Fail> {
    let format = match matches.str("format") {
        "" => app.config().text("statsFormat"),
        format => format,
    };
    let shown = Shown { format, truncate: !matches.bool("no-trunc"), live: !matches.bool("no-stream") };
    LIST.render(format, &[])?;
    let (client, named) = (app.client().await?, !matches.args.is_empty());
    let lines = Lines::default();
    let mut followers = FuturesUnordered::new();
    // Before the list, so that no container falls between the two.
    let mut events = match named || !shown.live {
        true => None,
        false => Some(client.send(events_request()).await?.lines()),
    };
    let names = if named { matches.args.clone() } else { running(client, matches.bool("all")).await? };
    for name in names {
        follow(client, &lines, &mut followers, name, shown.live);
    }
    while !lines.has_begun() {
        tokio::select! {
            Some(()) = followers.next() => {}
            () = lines.begun.notified() => {}
        }
    }
    if named {
        fail_if_any_failed(&lines)?;
    }
    if !shown.live {
        return shown.draw(&lines);
    }
    let mut redraw = tokio::time::interval(REDRAW);
    redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = async {
            match &mut events {
                Some(events) => events.next::<Value>().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = redraw.tick() => {
                shown.draw(&lines)?;
                if named && lines.lines.borrow().iter().all(|line| line.failed.is_some()) {
                    return fail_if_any_failed(&lines);
                }
            }
            event = event => match event? {
                Some(event) => {
                    if let Some(id) = apply(&event, &lines, matches.bool("all")) {
                        follow(client, &lines, &mut followers, id, true);
                    }
                }
                None => return Err(Fail::text("the daemon went away")),
            },
            Some(()) = followers.next(), if !followers.is_empty() => {}
        }
    }
}

fn fail_if_any_failed(lines: &Lines) -> Result<(), Fail> {
    let mut failed = lines
        .lines
        .borrow_mut()
        .iter_mut()
        .filter_map(|line| line.failed.take())
        .collect::<Vec<_>>()
        .into_iter();
    let Some(mut first) = failed.next() else { return Ok(()) };
    for fail in failed {
        first.text = format!("{}\n{}", first.text, fail.text);
    }
    Err(first)
}

fn events_request() -> Request {
    let wanted =
        ["type=container", "event=create", "event=start", "event=die", "event=destroy"].map(String::from);
    Request::get("/events").query("filters", filters(&wanted).unwrap_or_default())
}

async fn running(client: &Client, all: bool) -> Result<Vec<String>, Fail> {
    let found: Vec<ContainerSummary> = client.json(Request::get("/containers/json").flag("all", all)).await?;
    Ok(found.into_iter().map(|one| one.id).collect())
}

/// What an event does to the lines: one goes, or (the result) one is to come.
fn apply(event: &Value, lines: &Lines, all: bool) -> Option<String> {
    let id = event.pointer("/Actor/ID").and_then(Value::as_str)?;
    let mut lines = lines.lines.borrow_mut();
    match event.get("Action").and_then(Value::as_str)? {
        "create" if !all => None,
        "create" | "start" => {
            let known = lines.iter().any(|line| line.container == id && line.failed.is_none());
            lines.retain(|line| line.container != id || line.failed.is_none());
            (!known).then(|| id.to_owned())
        }
        "die" if all => None,
        _ => {
            lines.retain(|line| line.container != id);
            None
        }
    }
}

/// Adds a line, and what keeps it up to date.
fn follow<'a>(
    client: &'a Client,
    lines: &Lines,
    followers: &mut FuturesUnordered<Follower<'a>>,
    container: String,
    live: bool,
) {
    lines.lines.borrow_mut().push(Line { container: container.clone(), ..Line::default() });
    let lines = lines.clone();
    followers.push(Box::pin(async move {
        let failed = keep_up(client, &container, live, &lines).await.err();
        // The line may have gone meanwhile: then nobody is told.
        lines.change(&container, |line| {
            line.failed = failed;
            if live {
                line.usage = None;
                line.failed.get_or_insert_with(|| Fail::text("EOF"));
            }
        });
    }));
}

async fn keep_up(client: &Client, container: &str, live: bool, lines: &Board) -> Result<(), Fail> {
    let request = Request::get(format!("/containers/{}/stats", segment(container)))
        .query("stream", if live { "1" } else { "0" });
    let mut answers = client.send(request).await?.lines();
    loop {
        let Ok(answer) = tokio::time::timeout(STALE, answers.next::<ContainerStats>()).await else {
            lines.change(container, |line| line.usage = None);
            continue;
        };
        let Some(answer) = answer? else { return Ok(()) };
        let shown = lines.change(container, |line| {
            line.usage = Some(usage(&answer));
            (line.id, line.name) = (answer.id, answer.name);
        });
        if shown.is_none() {
            return Ok(());
        }
    }
}

/// How the lines are shown.
struct Shown<'a> {
    format: &'a str,
    truncate: bool,
    live: bool,
}

impl Shown<'_> {
    fn draw(&self, lines: &Lines) -> Result<(), Fail> {
        let rows: Vec<Row> = lines.lines.borrow().iter().map(|line| row(line, self.truncate)).collect();
        let text = LIST.render(self.format, &rows)?;
        if !self.live {
            out(&text);
            return Ok(());
        }
        let mut screen = String::from(HOME);
        for line in text.lines() {
            screen.push_str(line);
            screen.push_str(CLEAR_LINE);
            screen.push('\n');
        }
        screen.push_str(CLEAR_BELOW);
        out(&screen);
        Ok(())
    }
}

fn row(line: &Line, truncate: bool) -> Row {
    let none = "--".to_owned();
    let id = if truncate { short_id(&line.id) } else { line.id.clone() };
    let name = match line.name.strip_prefix('/') {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => none.clone(),
    };
    let of = |text: fn(&Usage) -> String| line.usage.as_ref().map_or(none.clone(), text);
    Row::new([
        ("Container", line.container.clone()),
        ("ID", id),
        ("Name", name),
        ("CPUPerc", of(|usage| format!("{:.2}%", usage.cpu_percent))),
        (
            "MemUsage",
            line.usage.as_ref().map_or("-- / --".into(), |usage| {
                format!("{} / {}", binary_size(usage.memory), binary_size(usage.memory_limit))
            }),
        ),
        ("MemPerc", of(|usage| format!("{:.2}%", percent(usage.memory, usage.memory_limit)))),
        ("NetIO", of(|usage| format!("{} / {}", human_size(usage.received, 3), human_size(usage.sent, 3)))),
        ("BlockIO", of(|usage| format!("{} / {}", human_size(usage.read, 3), human_size(usage.written, 3)))),
        ("PIDs", of(|usage| usage.processes.to_string())),
    ])
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole * 100.0 } else { 0.0 }
}

fn usage(answer: &ContainerStats) -> Usage {
    let networks = answer.networks.iter().flat_map(|networks| networks.values());
    let (received, sent) =
        networks.fold((0.0, 0.0), |(rx, tx), one| (rx + one.rx_bytes as f64, tx + one.tx_bytes as f64));
    let (mut read, mut written) = (0, 0);
    for entry in answer.blkio_stats.io_service_bytes_recursive.iter().flatten() {
        match entry.op.bytes().next() {
            Some(b'r' | b'R') => read += entry.value,
            Some(b'w' | b'W') => written += entry.value,
            _ => {}
        }
    }
    Usage {
        cpu_percent: cpu_percent(&answer.precpu_stats, &answer.cpu_stats),
        memory: memory(answer),
        memory_limit: answer.memory_stats.limit as f64,
        received,
        sent,
        read: read as f64,
        written: written as f64,
        processes: answer.pids_stats.current,
    }
}

/// Of one CPU: two that are busy are 200%.
fn cpu_percent(before: &CpuStats, now: &CpuStats) -> f64 {
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let all = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let cpus = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.len() as f64,
        count => f64::from(count),
    };
    if used > 0.0 && all > 0.0 { used / all * cpus * 100.0 } else { 0.0 }
}

/// Without the cache that the kernel gives back when it is asked for memory.
fn memory(answer: &ContainerStats) -> f64 {
    let memory = &answer.memory_stats;
    let cache = memory.stats.get("total_inactive_file").or_else(|| memory.stats.get("inactive_file"));
    let without = cache.and_then(|cache| memory.usage.checked_sub(cache)).filter(|rest| *rest > 0);
    without.unwrap_or(memory.usage) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(json: &str) -> ContainerStats {
        serde_json::from_str(json).expect("an answer")
    }

    #[test]
    fn numbers_are_docker_s() {
        let cpu = |total: u64, system: u64| {
            serde_json::from_value::<CpuStats>(serde_json::json!({"cpu_usage": {"total_usage": total},
                "system_cpu_usage": system, "online_cpus": 4}))
            .expect("statistics")
        };
        assert_eq!(format!("{:.2}", cpu_percent(&cpu(100, 1000), &cpu(200, 1400))), "100.00");
        assert_eq!(cpu_percent(&cpu(100, 1000), &cpu(100, 1400)), 0.0);
        let version1 =
            r#"{"memory_stats":{"usage":100,"stats":{"total_inactive_file":30,"inactive_file":5}}}"#;
        let version2 = r#"{"memory_stats":{"usage":100,"stats":{"inactive_file":10}}}"#;
        let odd = r#"{"memory_stats":{"usage":100,"stats":{"inactive_file":1000}}}"#;
        assert_eq!([version1, version2, odd].map(|json| memory(&answer(json))), [70.0, 90.0, 100.0]);
    }

    #[test]
    fn a_line_of_a_running_and_of_a_vanished_container() {
        let known = answer(
            r#"{"id":"0123456789abcdef","name":"/web","memory_stats":{"usage":1048576,"limit":4194304},
            "networks":{"eth0":{"rx_bytes":1500,"tx_bytes":2}},"pids_stats":{"current":3},
            "blkio_stats":{"io_service_bytes_recursive":[{"major":8,"minor":0,"op":"Read","value":4096},
            {"major":8,"minor":0,"op":"write","value":8},{"major":8,"minor":0,"op":"Total","value":9}]}}"#,
        );
        let line = Line {
            id: known.id.clone(),
            name: known.name.clone(),
            usage: Some(usage(&known)),
            ..Line::default()
        };
        assert_eq!(
            LIST.render("", &[row(&line, true)]).expect("a table"),
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O      BLOCK I/O    PIDS\n\
             0123456789ab   web       0.00%     1MiB / 4MiB         25.00%    1.5kB / 2B   4.1kB / 8B   3\n"
        );
        let gone = Line { container: "web".into(), ..Line::default() };
        assert_eq!(
            LIST.render("{{.Container}} {{.Name}} {{.MemUsage}} {{.CPUPerc}}", &[row(&gone, true)])
                .expect("text"),
            "web -- -- / -- --\n"
        );
    }

    #[test]
    fn events_bring_and_take_lines() {
        let event = |action: &str| serde_json::json!({"Action": action, "Actor": {"ID": "a"}});
        let lines = Lines::default();
        assert_eq!(apply(&event("create"), &lines, false), None);
        assert_eq!(apply(&event("create"), &lines, true).as_deref(), Some("a"));
        assert_eq!(apply(&event("start"), &lines, false).as_deref(), Some("a"));
        lines.lines.borrow_mut().push(Line { container: "a".into(), ..Line::default() });
        assert_eq!(apply(&event("start"), &lines, false), None);
        apply(&event("die"), &lines, true);
        assert_eq!(lines.lines.borrow().len(), 1);
        apply(&event("die"), &lines, false);
        assert_eq!(lines.lines.borrow().len(), 0);
    }
}
