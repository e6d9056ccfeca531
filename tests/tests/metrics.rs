//! What an operator measures and looks into: `/metrics` and `/debug`.

use testkit::{Bed, BedOptions, Engine, image};
use tests::has;

#[test]
fn what_happens_is_counted() {
    if Engine::from_environment() != Engine::Corten {
        return;
    }
    let flags = vec!["--metrics-addr=127.0.0.1:9323".to_owned(), "--debug".to_owned()];
    let bed = Bed::with(BedOptions { flags, ..BedOptions::default() });
    bed.load(&image::busybox());
    let fetch = |path: &str| {
        let ran = bed.host().shell(&format!("busybox wget -qO- http://127.0.0.1:9323{path} 2>&1"));
        ran.said()
    };
    let value = |name: &str| -> f64 {
        let text = fetch("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in:\n{text}")).trim().parse().expect("a number")
    };
    let events = value("engine_daemon_events_total");
    bed.run(&["run", "-d", "--name", "web", "busybox", "sleep", "600"]).ok();
    assert_eq!(value("engine_daemon_container_states_containers{state=\"running\"}"), 1.0);
    assert_eq!(value("engine_daemon_container_actions_seconds_count{action=\"create\"}"), 1.0);
    assert_eq!(value("engine_daemon_container_actions_seconds_bucket{action=\"start\",le=\"+Inf\"}"), 1.0);
    bed.run(&["rm", "-f", "web"]).ok();
    assert_eq!(value("engine_daemon_container_actions_seconds_count{action=\"delete\"}"), 1.0);
    assert!(value("engine_daemon_events_total") >= events + 4.0, "create, start, die, destroy");
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_start_time_seconds") > 1.7e9);
    for line in fetch("/metrics").lines() {
        let comment = line.starts_with("# HELP ") || line.starts_with("# TYPE ");
        let sample = line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok());
        assert!(comment || sample, "{line}");
    }
    has(&fetch("/containers/json"), &["404"]);

    let mut http = bed.http();
    assert!(http.get("/debug/vars").expect(200).json()["tasks"].as_u64().is_some_and(|tasks| tasks > 0));
    has(&http.get("/debug/pprof/cmdline").expect(200).text(), &["cortend\0-H\0"]);
    has(&http.get("/debug/pprof/heap").refused(501), &["the profile heap"]);
    http.get("/debug/pprof/odd").refused(404);
}

#[test]
fn nothing_is_shown_that_was_not_asked_for() {
    if Engine::from_environment() != Engine::Corten {
        return;
    }
    let bed = Bed::empty();
    bed.http().get("/debug/vars").refused(404);
    bed.http().get("/metrics").refused(404);
}
