//! `logs`: what a container printed, afterwards and while it prints.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;
use testkit::http::demultiplex;
use testkit::process::eventually;
use testkit::{Bed, Client};
use tests::{each_client, has};

fn ended(bed: &Bed, name: &str, script: &str) {
    bed.run(&["run", "-d", "--name", name, "busybox", "sh", "-c", script]).ok();
    assert_eq!(bed.run(&["wait", name]).ok(), "0");
}

#[test]
fn both_streams_are_kept_apart() {
    let bed = Bed::new();
    ended(&bed, "speaker", "echo one; echo two >&2; printf three");
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["logs", "speaker"]);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("one\nthree", "two\n"));
    });
    let answer = bed.http().get("/containers/speaker/logs?stderr=1").expect(200);
    assert_eq!(demultiplex(&answer.body), (String::new(), "two\n".to_owned()));
    let refusal = bed.http().get("/containers/speaker/logs").refused(400);
    has(&refusal, &["at least one"]);
}

#[test]
fn tail_since_and_until() {
    let bed = Bed::new();
    ended(&bed, "counter", "for i in 1 2 3 4 5; do echo $i; sleep 0.3; done");
    let tail = |count: &str| bed.run(&["logs", "--tail", count, "counter"]).ok().replace('\n', " ");
    assert_eq!(tail("2"), "4 5");
    assert_eq!(tail("0"), "");
    assert_eq!(tail("all"), "1 2 3 4 5");
    assert_eq!(tail("99"), "1 2 3 4 5");
    let stamped = bed.run(&["logs", "-t", "counter"]);
    let third = stamped.ok().lines().nth(2).expect("five lines").split(' ').next().expect("time");
    assert!(third.len() == 30 && third.ends_with('Z'), "nanoseconds, padded: {third}");
    assert_eq!(bed.run(&["logs", "--since", third, "counter"]).ok(), "3\n4\n5");
    assert_eq!(bed.run(&["logs", "--until", third, "counter"]).ok().lines().next(), Some("1"));
    assert_eq!(bed.run(&["logs", "--since", "1h", "counter"]).ok().lines().count(), 5);
}

#[test]
fn following_shows_lines_when_they_come_and_ends_with_the_container() {
    let bed = Bed::new();
    each_client(&bed, |client, name| {
        let script = "echo early; read line; echo $line; exit 0";
        bed.run(&["run", "-d", "-i", "--name", name, "busybox", "sh", "-c", script]).ok();
        let mut child =
            bed.command(client).args(["logs", "-f", name]).stdout(Stdio::piped()).spawn().expect("client");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("line");
        assert_eq!(line, "early\n");
        let mut attached =
            bed.http().hijack(&format!("/containers/{name}/attach?stream=1&stdin=1"), None).expect("attach");
        attached.write(b"late\n");
        line.clear();
        output.read_line(&mut line).expect("line");
        assert_eq!(line, "late\n");
        line.clear();
        assert_eq!(output.read_line(&mut line).expect("end"), 0, "{line}");
        assert_eq!(child.wait().expect("child").code(), Some(0));
    });
}

#[test]
fn the_log_goes_on_over_a_restart() {
    let bed = Bed::new();
    ended(&bed, "again", "echo line");
    bed.run(&["start", "again"]).ok();
    assert_eq!(bed.run(&["wait", "again"]).ok(), "0");
    assert_eq!(bed.run(&["logs", "again"]).ok(), "line\nline");
}

#[test]
fn long_lines_and_odd_bytes_survive() {
    let bed = Bed::new();
    // 100 kB without an end, then bytes that are no UTF-8, quotes and control characters.
    ended(
        &bed,
        "odd",
        r#"head -c 100000 /dev/zero | tr '\0' x; echo; printf '\377\376"\\\t\001\n'; printf '\303\244\n'"#,
    );
    let answer = bed.http().get("/containers/odd/logs?stdout=1").expect(200);
    let mut bytes = Vec::new();
    let mut rest = answer.body.as_slice();
    while rest.len() >= 8 {
        let length = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        bytes.extend_from_slice(&rest[8..8 + length]);
        rest = &rest[8 + length..];
    }
    assert_eq!(bytes.iter().filter(|byte| **byte == b'x').count(), 100_000);
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 3, "no line was broken");
    has(&String::from_utf8_lossy(&bytes[100_001..]), &["\"\\\t\u{1}\n", "ä\n"]);
}

#[test]
fn many_lines_come_in_order() {
    let bed = Bed::new();
    ended(&bed, "many", "seq 1 100000");
    let ran = bed.run(&["logs", "many"]);
    let wanted: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(ran.stdout == wanted, "{} bytes of {}", ran.stdout.len(), wanted.len());
    assert_eq!(bed.run(&["logs", "--tail", "3", "many"]).ok(), "99998\n99999\n100000");
}

#[test]
fn files_are_rotated() {
    let bed = Bed::new();
    bed.run(&[
        "run",
        "-d",
        "--name",
        "turning",
        "--log-opt",
        "max-size=10k",
        "--log-opt",
        "max-file=3",
        "busybox",
        "seq",
        "1",
        "5000",
    ])
    .ok();
    bed.run(&["wait", "turning"]).ok();
    let ran = bed.run(&["logs", "turning"]);
    let lines: Vec<u32> = ran.ok().lines().map(|line| line.parse().expect("number")).collect();
    assert_eq!(lines.last(), Some(&5000));
    assert!(lines[0] > 1 && lines.windows(2).all(|pair| pair[0] + 1 == pair[1]), "from {} on", lines[0]);
}

#[test]
fn a_terminal_has_one_raw_stream() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "-t", "--name", "terminal", "busybox", "sh", "-c", "echo out; echo err >&2"]).ok();
    bed.run(&["wait", "terminal"]).ok();
    let answer = bed.http().get("/containers/terminal/logs?stdout=1&stderr=1").expect(200);
    assert_eq!(answer.text(), "out\r\nerr\r\n");
    each_client(&bed, |client, _| {
        assert_eq!(bed.cli(client, &["logs", "terminal"]).stdout, "out\r\nerr\r\n")
    });
}

#[test]
fn unread_drivers_say_so() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "--name", "silent", "--log-driver", "none", "busybox", "echo", "x"]).ok();
    eventually("it has ended", || bed.inspect("silent")["State"]["Running"] == json!(false));
    has(
        &bed.cli(Client::Own, &["logs", "silent"]).said(),
        &["configured logging driver does not support reading"],
    );
    has(bed.run(&["logs", "nosuch"]).fails(1), &["No such container: nosuch"]);
}
