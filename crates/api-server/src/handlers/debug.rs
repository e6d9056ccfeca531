//! What an operator looks at when debugging is on: `/debug/vars`, and what there is of `/debug/pprof`.

use http::{HeaderValue, StatusCode, header};
use model::Refusal;
use serde_json::json;

use crate::App;
use crate::respond::{Outcome, empty, full, json, not_found};

/// Profiles of Go's runtime, which this program does not have.
const PROFILES: [&str; 9] =
    ["allocs", "block", "goroutine", "heap", "mutex", "profile", "symbol", "threadcreate", "trace"];

pub fn debug(app: &App, parts: &[&str]) -> Outcome {
    if !app.engine.settings().debug {
        return Err(not_found());
    }
    match parts {
        ["vars"] => variables(),
        ["pprof"] | ["pprof", "" | "index"] => text("/debug/pprof/\n\nProfiles:\n  cmdline\n".into()),
        ["pprof", "cmdline"] => text(std::env::args().collect::<Vec<_>>().join("\0")),
        ["pprof", name] if PROFILES.contains(name) => {
            Err(Refusal::not_implemented(&format!("the profile {name} of /debug/pprof"))
                .hint("use perf(1) on the daemon's process"))
        }
        _ => Err(not_found()),
    }
}

fn text(text: String) -> Outcome {
    let mut answer = empty(StatusCode::OK);
    *answer.body_mut() = full(text);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(answer)
}

/// What Go's `expvar` shows, as far as it means something here.
fn variables() -> Outcome {
    let memory = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let page = rustix::param::page_size() as u64;
    let pages: Vec<u64> = memory.split(' ').map(|pages| pages.parse().unwrap_or(0)).collect();
    let bytes = |at: usize| pages.get(at).copied().unwrap_or(0) * page;
    let runtime = tokio::runtime::Handle::current().metrics();
    json(&json!({
        "cmdline": std::env::args().collect::<Vec<_>>(),
        "memstats": {"Sys": bytes(0), "HeapInuse": bytes(1)},
        "tasks": runtime.num_alive_tasks(),
        "threads": runtime.num_workers(),
    }))
}
