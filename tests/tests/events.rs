//! `events`: what happened, in order.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::{Value, json};
use testkit::Bed;
use testkit::http::Stream;
use tests::{each_client, has};

/// Reads events until one has the action.
fn until(stream: &mut Stream, action: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    loop {
        let event = stream.json();
        let done = event["Action"].as_str() == Some(action);
        seen.push(event);
        if done {
            return seen;
        }
    }
}

fn actions(events: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| format!("{} {}", text(&event["Type"]), text(&event["Action"]))).collect()
}

/// The current time as the API takes it, in seconds with a fraction.
fn present() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

#[test]
fn a_short_life_in_events() {
    let bed = Bed::new();
    let mut stream = bed.http().stream("GET", "/events").expect("the header comes at once");
    assert_eq!(stream.status, 200);
    bed.run(&["run", "--name", "web", "-l", "role=test", "busybox", "sh", "-c", "exit 3"]).fails(3);
    bed.run(&["rm", "web"]).ok();
    let seen = until(&mut stream, "destroy");
    let names: Vec<_> = actions(&seen);
    assert_eq!(
        names,
        [
            "container create",
            "container attach",
            "network connect",
            "container start",
            "container die",
            "network disconnect",
            "container destroy"
        ]
    );
    let create = &seen[0];
    let id = create["Actor"]["ID"].as_str().expect("id");
    assert_eq!(id.len(), 64);
    assert_eq!(create["Actor"]["Attributes"], json!({ "image": "busybox", "name": "web", "role": "test" }));
    assert_eq!(
        (&create["status"], &create["id"], &create["from"]),
        (&json!("create"), &json!(id), &json!("busybox"))
    );
    assert_eq!(create["scope"], json!("local"));
    assert!(
        create["timeNano"]
            .as_u64()
            .is_some_and(|nano| nano / 1_000_000_000 == create["time"].as_u64().unwrap_or(0))
    );
    assert_eq!(seen[2]["Actor"]["Attributes"]["container"], json!(id));
    assert_eq!(seen[2]["Actor"]["Attributes"]["name"], json!("bridge"));
    assert_eq!(seen[4]["Actor"]["Attributes"]["exitCode"], json!("3"));
}

#[test]
fn all_verbs_are_told() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).ok();
    let mut stream =
        bed.http().stream("GET", "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D").expect("events");
    for words in [
        &["pause", "web"][..],
        &["unpause", "web"],
        &["rename", "web", "site"],
        &["exec", "site", "true"],
        &["restart", "-t", "0", "site"],
        &["kill", "site"],
    ] {
        bed.run(words).ok();
    }
    bed.run(&["wait", "site"]).ok();
    bed.run(&["rm", "site"]).ok();
    let names = actions(&until(&mut stream, "destroy"));
    let names: Vec<_> = names.iter().map(|name| name.trim_start_matches("container ")).collect();
    assert_eq!(names[..3], ["pause", "unpause", "rename"]);
    let execs: Vec<_> = names[3..6].iter().map(|name| name.trim_end()).collect();
    assert_eq!(execs, ["exec_create: true", "exec_start: true", "exec_die"]);
    // A stop is a kill by a signal, and another one when the grace is over.
    let rest: Vec<_> = names[6..].iter().filter(|name| **name != "kill").collect();
    assert_eq!(rest, [&"die", &"stop", &"start", &"restart", &"die", &"destroy"]);
}

#[test]
fn the_past_can_be_asked_for() {
    let bed = Bed::new();
    bed.run(&["run", "--rm", "--name", "early", "busybox", "true"]).ok();
    let now = present();
    each_client(&bed, |client, _| {
        let ran = bed.cli(
            client,
            &[
                "events",
                "--since",
                "1h",
                "--until",
                &now,
                "--filter",
                "container=early",
                "--format",
                "{{.Status}}",
            ],
        );
        let seen: Vec<_> = ran.ok().lines().collect();
        assert_eq!((seen.first(), seen.last()), (Some(&"create"), Some(&"destroy")), "{ran:?}");
        let ran = bed.cli(client, &["events", "--since", "1h", "--until", &now, "--filter", "event=start"]);
        assert_eq!(ran.ok().lines().count(), 1);
        has(ran.ok(), &[" container start ", "image=busybox", "name=early"]);
        let ran = bed.cli(
            client,
            &["events", "--since", "1h", "--until", &now, "--filter", "type=image", "--format", "{{json .}}"],
        );
        has(ran.ok(), &["\"Action\":\"load\""]);
    });
}

#[test]
fn many_listeners_and_slow_ones() {
    let bed = Bed::new();
    // This one never reads.
    let _silent = bed.http().stream("GET", "/events").expect("events");
    let mut streams: Vec<_> = (0..10).map(|_| bed.http().stream("GET", "/events").expect("events")).collect();
    for number in 0..40 {
        bed.http()
            .post(&format!("/containers/create?name=c{number}"), &json!({ "Image": "busybox" }))
            .expect(201);
    }
    bed.http().delete("/containers/c39").expect(204);
    for stream in &mut streams {
        let created =
            until(stream, "destroy").iter().filter(|event| event["Action"] == json!("create")).count();
        assert_eq!(created, 40);
    }
}
