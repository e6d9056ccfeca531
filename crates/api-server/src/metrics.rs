//! `/metrics`: what the daemon counts, as Prometheus reads it. The names are Docker's where Docker has them.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use engine::metrics::{Action, BOUNDS, Counted};
use engine::stats::Sample;
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::Refusal;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::respond::{Answer, empty, full};
use crate::{App, connection};

/// Serves the metrics, and nothing else, until `stopping` says true.
pub async fn serve(listener: TcpListener, app: App, mut stopping: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(connection::BREATH).await;
            continue;
        };
        let app = app.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let app = app.clone();
                async move { Ok::<_, std::convert::Infallible>(answer(&app, &request).await) }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(connection::HEAD_TIME)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(app: &App, request: &Request<Incoming>) -> Answer {
    if request.uri().path() != "/metrics" {
        return empty(StatusCode::NOT_FOUND);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Ok(text) = exposition(app).await else { return empty(StatusCode::INTERNAL_SERVER_ERROR) };
    let mut answer = empty(StatusCode::OK);
    *answer.body_mut() = full(text);
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    answer
}

/// The whole text.
async fn exposition(app: &App) -> Result<String, Refusal> {
    let engine = app.engine.clone();
    let facts = tokio::task::spawn_blocking(move || engine.system().facts())
        .await
        .map_err(|error| Refusal::from_error("internal error", &error))?;
    let mut out = Exposition::default();
    let metrics = app.engine.metrics();
    let counted: Vec<_> =
        Action::ALL.iter().map(|action| (action.name(), metrics.action(*action).read())).collect();
    let actions: Vec<_> = counted.iter().map(|(name, counted)| ([("action", *name)], counted)).collect();
    out.histogram(
        "engine_daemon_container_actions_seconds",
        "The number of seconds it takes to process each container action",
        actions.iter().map(|(labels, counted)| (&labels[..], *counted)),
    );
    out.family(
        "engine_daemon_container_states_containers",
        "gauge",
        "The count of containers in various states",
    );
    for (state, count) in [("paused", facts.paused), ("running", facts.running), ("stopped", facts.stopped)] {
        out.sample("engine_daemon_container_states_containers", &[("state", state)], count);
    }
    out.one(
        "engine_daemon_engine_cpus_cpus",
        "gauge",
        "The number of cpus that the host system of the engine has",
        facts.cpus,
    );
    out.family(
        "engine_daemon_engine_info",
        "gauge",
        "The information related to the engine and the OS it is running on",
    );
    out.sample(
        "engine_daemon_engine_info",
        &[
            ("architecture", &facts.architecture),
            ("commit", &app.about.commit),
            ("daemon_id", &facts.id),
            ("graphdriver", &facts.driver),
            ("kernel", &facts.kernel),
            ("os", &facts.operating_system),
            ("os_type", "linux"),
            ("os_version", &facts.os_version),
            ("version", &app.about.version),
        ],
        1,
    );
    out.one(
        "engine_daemon_engine_memory_bytes",
        "gauge",
        "The number of bytes of memory that the host system of the engine has",
        facts.memory,
    );
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    out.one(
        "engine_daemon_events_subscribers_total",
        "gauge",
        "The number of current subscribers to events",
        facts.listeners,
    );
    out.one("engine_daemon_events_total", "counter", "The number of events logged", facts.events);
    out.histogram(
        "engine_daemon_host_info_functions_seconds",
        "The number of seconds it takes to call functions gathering info about the host",
        [(&[("function", "system_info")][..], &metrics.system_info.read())].into_iter(),
    );
    out.one(
        "builder_builds_triggered_total",
        "counter",
        "Number of triggered image builds",
        count(&metrics.builds),
    );
    out.one(
        "builder_builds_failed_total",
        "counter",
        "Number of failed image builds",
        count(&metrics.builds_failed),
    );
    containers(app, &mut out).await?;
    process(&mut out, facts.descriptors);
    Ok(out.0)
}

/// One of the numbers of a container: name, kind, help, and where it stands.
type Number = (&'static str, &'static str, &'static str, fn(&Sample) -> f64);

const NUMBERS: [Number; 9] = [
    ("corten_container_cpu_seconds_total", "counter", "CPU time that the container has used", |sample| {
        sample.stats.cpu.usage_nanoseconds as f64 / 1e9
    }),
    (
        "corten_container_cpu_throttled_seconds_total",
        "counter",
        "Time for which the container was held back by its CPU limit",
        |sample| sample.stats.cpu.throttled_nanoseconds as f64 / 1e9,
    ),
    ("corten_container_memory_bytes", "gauge", "Memory that the container uses", |sample| {
        sample.stats.memory.usage as f64
    }),
    ("corten_container_pids", "gauge", "Processes and threads of the container", |sample| {
        sample.stats.pids.current as f64
    }),
    (
        "corten_container_network_receive_bytes_total",
        "counter",
        "Bytes that the container has received",
        |sample| sample.networks.iter().map(|network| network.received.bytes as f64).sum(),
    ),
    (
        "corten_container_network_transmit_bytes_total",
        "counter",
        "Bytes that the container has sent",
        |sample| sample.networks.iter().map(|network| network.sent.bytes as f64).sum(),
    ),
    (
        "corten_container_network_dropped_packets_total",
        "counter",
        "Packets of the container that were dropped, in both directions",
        |sample| sample.networks.iter().map(|one| (one.received.dropped + one.sent.dropped) as f64).sum(),
    ),
    (
        "corten_container_block_read_bytes_total",
        "counter",
        "Bytes that the container has read from block devices",
        |sample| block_bytes(sample, "read"),
    ),
    (
        "corten_container_block_write_bytes_total",
        "counter",
        "Bytes that the container has written to block devices",
        |sample| block_bytes(sample, "write"),
    ),
];

fn block_bytes(sample: &Sample, operation: &str) -> f64 {
    let entries = sample.stats.block_io.service_bytes.iter();
    entries
        .filter(|entry| entry.operation.eq_ignore_ascii_case(operation))
        .map(|entry| entry.value as f64)
        .sum()
}

/// What each running container uses, and how each has fared.
async fn containers(app: &App, out: &mut Exposition) -> Result<(), Refusal> {
    let engine = app.engine.clone();
    let samples = tokio::task::spawn_blocking(move || engine.stats().all())
        .await
        .map_err(|error| Refusal::from_error("internal error", &error))?;
    for (name, kind, help, number) in NUMBERS {
        out.family(name, kind, help);
        for (view, sample) in &samples {
            let image = view.record.config.image.as_str();
            let labels = [("id", view.id()), ("name", view.name()), ("image", image)];
            out.sample(name, &labels, number(sample));
        }
    }
    Ok(())
}

/// The daemon itself, from proc(5).
fn process(out: &mut Exposition, descriptors: i64) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let page = rustix::param::page_size() as u64;
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    let stat = read("/proc/self/stat");
    let fields: Vec<u64> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').map(|field| field.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let memory: Vec<u64> =
        read("/proc/self/statm").split(' ').map(|pages| pages.parse().unwrap_or(0)).collect();
    let pages = |at: usize| memory.get(at).copied().unwrap_or(0) * page;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let boot = read("/proc/stat");
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok()).unwrap_or(0.0);
    out.one(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        (field(14) + field(15)) as f64 / ticks,
    );
    if let Some(most) = limit.current {
        out.one("process_max_fds", "gauge", "Maximum number of open file descriptors.", most);
    }
    out.one("process_open_fds", "gauge", "Number of open file descriptors.", descriptors);
    out.one("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", pages(1));
    out.one(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        boot + field(22) as f64 / ticks,
    );
    out.one("process_threads", "gauge", "Number of threads of the process.", field(20));
    out.one("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", pages(0));
}

/// Prometheus' text format, version 0.0.4.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        all: impl Iterator<Item = (&'a [(&'a str, &'a str)], &'a Counted)>,
    ) {
        self.family(name, "histogram", help);
        for (labels, counted) in all {
            let bounds = BOUNDS.iter().map(|bound| (*bound as f64 / 1000.0).to_string());
            for (bound, count) in bounds.chain(["+Inf".to_string()]).zip(counted.up_to) {
                let labels = [labels, &[("le", bound.as_str())]].concat();
                self.sample(&format!("{name}_bucket"), &labels, count);
            }
            self.sample(&format!("{name}_sum"), labels, counted.total.as_secs_f64());
            self.sample(&format!("{name}_count"), labels, counted.up_to[BOUNDS.len()]);
        }
    }
}

/// A label's value, as it may stand between quotes.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use engine::metrics::Histogram;

    use super::*;

    #[test]
    fn the_format() {
        let mut out = Exposition::default();
        out.family("a", "gauge", "What a is");
        out.sample("a", &[("x", "1\"\\\n")], 5);
        let histogram = Histogram::default();
        histogram.observe(std::time::Duration::from_millis(30));
        out.histogram("h", "How long", [(&[("action", "start")][..], &histogram.read())].into_iter());
        assert!(out.0.starts_with("# HELP a What a is\n# TYPE a gauge\na{x=\"1\\\"\\\\\\n\"} 5\n# HELP h"));
        for line in [
            "h_bucket{action=\"start\",le=\"0.025\"} 0",
            "h_bucket{action=\"start\",le=\"0.05\"} 1",
            "h_bucket{action=\"start\",le=\"10\"} 1",
            "h_bucket{action=\"start\",le=\"+Inf\"} 1",
            "h_sum{action=\"start\"} 0.03",
            "h_count{action=\"start\"} 1",
        ] {
            assert!(out.0.lines().any(|one| one == line), "{line} is not in:\n{}", out.0);
        }
    }
}
