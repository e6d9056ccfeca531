//! `attach`: the streams of a running container.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use testkit::http::{API, demultiplex};
use testkit::process::{PATIENCE, eventually, run_with};
use testkit::{Bed, Client};
use tests::{each_client, has};

const ALL: &str = "stream=1&stdin=1&stdout=1&stderr=1";

fn started(bed: &Bed, flags: &[&str], script: &str) {
    let mut words = vec!["run", "-d", "-i", "--name", "shell"];
    words.extend(flags);
    words.extend(["busybox", "sh", "-c", script]);
    bed.run(&words).ok();
}

/// Creates a container whose input ends with that of the first who attaches, as `run -i` does.
fn once(bed: &Bed, name: &str, script: &str) {
    let body =
        json!({ "Image": "busybox", "Cmd": ["sh", "-c", script], "OpenStdin": true, "StdinOnce": true });
    bed.http().post(&format!("/containers/create?name={name}"), &body).expect(201);
}

#[test]
fn the_connection_is_taken_over() {
    let bed = Bed::new();
    once(&bed, "shell", "cat; echo ended >&2");
    let mut stream = bed.http().hijack(&format!("/containers/shell/attach?{ALL}"), None).expect("attach");
    assert_eq!(stream.status, 101);
    has(&format!("{:?}", stream.headers), &[r#"("upgrade", "tcp")"#, "application/vnd.docker.raw-stream"]);
    bed.http().act("/containers/shell/start").expect(204);
    stream.write(b"to and fro\n");
    assert_eq!(stream.bytes(19).expect("frame"), b"\x01\0\0\0\0\0\0\x0bto and fro\n");
    stream.close_input();
    assert_eq!(
        stream.frames(),
        (String::new(), "ended\n".to_owned()),
        "output goes on after the input's end"
    );
    eventually("it has ended", || bed.inspect("shell")["State"]["ExitCode"] == json!(0));
}

/// Sends a request, and gives its connection and the answer's head.
fn asked(bed: &Bed, path: &str, headers: &str, body: &[u8]) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(bed.socket()).expect("a daemon");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!("POST {API}{path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).expect("a request");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the head of an answer");
        answer.push(byte[0]);
    }
    (stream, String::from_utf8(answer).expect("text"))
}

/// As dockerode does unless it is told otherwise: options as JSON, then input on the same connection.
#[test]
fn who_does_not_ask_for_the_connection_gets_it_all_the_same() {
    let bed = Bed::new();
    once(&bed, "shell", "cat; echo ended >&2");
    let headers = "Content-Type: application/json\r\nContent-Length: 14\r\n";
    let path = format!("/containers/shell/attach?{ALL}");
    let (mut stream, head) = asked(&bed, &path, headers, br#"{"stdin":true}"#);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("chunked"), "{head}");
    has(&head, &["content-type: application/vnd.docker.raw-stream\r\n", "api-version: "]);
    bed.http().act("/containers/shell/start").expect(204);
    stream.write_all(b"to and fro\n").expect("input");
    stream.shutdown(Shutdown::Write).expect("its end");
    let mut output = Vec::new();
    stream.read_to_end(&mut output).expect("output to its end");
    assert_eq!(demultiplex(&output), ("to and fro\n".to_owned(), "ended\n".to_owned()));
    // An exec likewise.
    bed.run(&["run", "-d", "--name", "other", "busybox", "sleep", "60"]).ok();
    let exec = json!({ "Cmd": ["wc", "-c"], "AttachStdin": true, "AttachStdout": true });
    let id = bed.http().post("/containers/other/exec", &exec).expect(201).json();
    let path = format!("/exec/{}/start", id["Id"].as_str().expect("an ID"));
    let headers = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    let (mut stream, _) = asked(&bed, &path, headers, b"{}");
    stream.write_all(&[b'x'; 100_000]).expect("input");
    stream.shutdown(Shutdown::Write).expect("its end");
    let mut output = Vec::new();
    stream.read_to_end(&mut output).expect("output to its end");
    assert_eq!(demultiplex(&output).0, "100000\n");
}

#[test]
fn a_body_that_comes_in_chunks_is_the_input() {
    let bed = Bed::new();
    once(&bed, "shell", "wc -c; echo ended >&2");
    bed.http().act("/containers/shell/start").expect(204);
    let path = format!("/containers/shell/attach?{ALL}");
    let (mut stream, head) =
        asked(&bed, &path, "Transfer-Encoding: chunked\r\nConnection: close\r\n", b"3\r\none\r\n");
    has(&head, &["transfer-encoding: chunked\r\n"]);
    stream.write_all(b"4\r\nfour\r\n0\r\n\r\n").expect("input");
    let mut output = Vec::new();
    stream.read_to_end(&mut output).expect("output to its end");
    has(&String::from_utf8_lossy(&output), &["7\n", "ended\n"]);
}

#[test]
fn a_daemon_that_dies_takes_only_the_exit_code_with_it() {
    let mut bed = Bed::new();
    for client in bed.clients() {
        let words = ["run", "--name", "web", "busybox", "sh", "-c", "echo one; sleep 4; echo two"];
        let mut command = bed.command(client);
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut run = command.spawn().expect("a client");
        let mut output = BufReader::new(run.stdout.take().expect("piped"));
        let mut said = String::new();
        output.read_line(&mut said).expect("a line");
        // The output may come before the client has heard that the container is started, and waits for its end.
        eventually("it runs", || bed.inspect("web")["State"]["Running"] == json!(true));
        std::thread::sleep(Duration::from_secs(1));
        bed.kill();
        output.read_to_string(&mut said).expect("the rest");
        let ended = run.wait_with_output().expect("the end");
        assert_eq!(ended.status.code(), Some(125), "{client:?}");
        // Docker's client does not wait for the rest of the output once it has lost the daemon.
        let whole = if client == Client::Own { said == "one\ntwo\n" } else { said.starts_with("one\n") };
        assert!(whole, "{client:?}: {said:?}");
        has(&String::from_utf8_lossy(&ended.stderr), &["error waiting for container: unexpected EOF"]);
        bed.start();
        bed.run(&["rm", "-f", "web"]).ok();
    }
}

#[test]
fn everyone_attached_sees_everything() {
    let bed = Bed::new();
    started(&bed, &[], "read line; echo $line; echo twice");
    let watcher = bed.http().hijack("/containers/shell/attach?stream=1&stdout=1", None).expect("attach");
    let mut speaker = bed.http().hijack(&format!("/containers/shell/attach?{ALL}"), None).expect("attach");
    speaker.write(b"hello\n");
    assert_eq!(watcher.frames().0, "hello\ntwice\n");
    assert_eq!(speaker.frames().0, "hello\ntwice\n");
}

#[test]
fn what_was_said_before_comes_on_request() {
    let bed = Bed::new();
    started(&bed, &[], "echo before; read line; echo after");
    eventually("it spoke", || bed.run(&["logs", "shell"]).stdout == "before\n");
    let path = format!("/containers/shell/attach?logs=1&{ALL}");
    let mut stream = bed.http().hijack(&path, None).expect("attach");
    stream.write(b"\n");
    assert_eq!(stream.frames().0, "before\nafter\n");
}

#[test]
fn going_away_leaves_the_process() {
    let bed = Bed::new();
    started(&bed, &[], "while read line; do echo $line; done; echo over");
    drop(bed.http().hijack(&format!("/containers/shell/attach?{ALL}"), None).expect("attach"));
    let mut stream = bed.http().hijack(&format!("/containers/shell/attach?{ALL}"), None).expect("attach");
    stream.write(b"still here\n");
    assert_eq!(stream.bytes(19).expect("frame"), b"\x01\0\0\0\0\0\0\x0bstill here\n");
}

#[test]
fn the_detach_keys_leave_a_terminal() {
    let bed = Bed::new();
    started(&bed, &["-t"], "cat");
    let path = format!("/containers/shell/attach?{ALL}&detachKeys=ctrl-a,b");
    let mut stream = bed.http().hijack(&path, None).expect("attach");
    has(&format!("{:?}", stream.headers), &["application/vnd.docker.raw-stream"]);
    stream.write(b"\x01b");
    let rest = stream.raw();
    assert!(rest.is_empty() || rest.contains("read escape sequence"), "{rest:?}");
    assert_eq!(bed.inspect("shell")["State"]["Running"], json!(true));
}

#[test]
fn a_terminal_takes_its_size() {
    let bed = Bed::new();
    started(&bed, &["-t"], "trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done");
    eventually("it is up", || bed.run(&["logs", "shell"]).stdout == "up\r\n");
    let mut stream = bed.http().hijack(&format!("/containers/shell/attach?{ALL}"), None).expect("attach");
    // The terminal's echo tells that this stream is joined.
    stream.write(b"x");
    assert_eq!(stream.bytes(1).expect("echo"), b"x");
    bed.http().act("/containers/shell/resize?h=33&w=99").expect(200);
    assert_eq!(stream.bytes(7).expect("output"), b"33 99\r\n");
}

#[test]
fn the_client_attaches_and_gives_the_exit_code() {
    let bed = Bed::new();
    each_client(&bed, |client, name| {
        once(&bed, name, "read code; echo going; exit $code");
        bed.http().act(&format!("/containers/{name}/start")).expect(204);
        let ran = run_with(bed.command(client).args(["attach", name]), b"4\n", PATIENCE);
        assert_eq!((ran.code, ran.stdout.as_str()), (4, "going\n"), "{ran:?}");
        let ran = bed.cli(client, &["attach", name]);
        has(ran.fails(1), &["cannot attach to a stopped container"]);
    });
}

#[test]
fn start_attached() {
    let bed = Bed::new();
    bed.run(&["create", "--name", "later", "busybox", "sh", "-c", "echo hi; exit 3"]).ok();
    for client in bed.clients() {
        let ran = bed.cli(client, &["start", "-a", "later"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (3, "hi\n"), "{ran:?}");
    }
}

#[test]
fn the_log_and_what_comes_after_it_miss_nothing_of_a_start_at_once() {
    let bed = Bed::new();
    let body = json!({ "Image": "busybox", "Cmd": ["echo", "said"] });
    bed.http().post("/containers/create?name=quick", &body).expect(201);
    let mut all = String::new();
    for turn in 0..20 {
        let path = "/containers/quick/attach?logs=1&stream=1&stdout=1&stderr=1";
        let stream = bed.http().hijack(path, None).expect("attach");
        assert_eq!(stream.status, 101);
        bed.http().act("/containers/quick/start").expect(204);
        all.push_str("said\n");
        // The end of the stream is that of the run.
        assert_eq!(stream.frames(), (all.clone(), String::new()), "turn {turn}");
        eventually("it has ended", || bed.inspect("quick")["State"]["Running"] == json!(false));
    }
}

#[test]
fn a_terminal_has_its_size_from_the_first_moment() {
    let bed = Bed::new();
    let host = json!({ "ConsoleSize": [33, 99] });
    let body = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", "stty size; read line; stty size"], "Tty": true, "OpenStdin": true,
        "HostConfig": host,
    });
    let made = bed.http().post("/containers/create?name=sized", &body).expect(201).json();
    let id = made["Id"].as_str().expect("an ID");
    // As with Docker, whose client asks again after the start.
    let answer = bed.http().act("/containers/sized/resize?h=40&w=120");
    assert_eq!(answer.refused(409), format!("container {id} is not running"));
    let mut stream = bed.http().hijack(&format!("/containers/sized/attach?{ALL}"), None).expect("attach");
    bed.http().act("/containers/sized/start").expect(204);
    assert_eq!(stream.bytes(7).expect("output"), b"33 99\r\n");
    bed.http().act("/containers/sized/resize?h=40&w=120").expect(200);
    stream.write(b"\n");
    assert_eq!(stream.raw(), "\r\n40 120\r\n");
}

#[test]
fn a_size_may_come_before_the_exec_that_it_is_for() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    let exec = || {
        let body = json!({ "Cmd": ["sh", "-c", "read line; stty size"], "Tty": true, "AttachStdout": true, "AttachStdin": true });
        let made = bed.http().post("/containers/one/exec", &body).expect(201).json();
        made["Id"].as_str().expect("an ID").to_owned()
    };
    let early = exec();
    std::thread::scope(|scope| {
        let resized = scope.spawn(|| bed.http().act(&format!("/exec/{early}/resize?h=40&w=120")));
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!resized.is_finished(), "it was answered before there was a terminal");
        let body = json!({ "Tty": true, "ConsoleSize": [33, 99] });
        let mut stream = bed.http().hijack(&format!("/exec/{early}/start"), Some(&body)).expect("started");
        resized.join().expect("an answer").expect(200);
        stream.write(b"\n");
        assert_eq!(stream.raw(), "\r\n40 120\r\n");
    });
    // One whose container ends has nothing to wait for.
    let never = exec();
    std::thread::scope(|scope| {
        let resized = scope.spawn(|| bed.http().act(&format!("/exec/{never}/resize?h=40&w=120")));
        std::thread::sleep(std::time::Duration::from_millis(200));
        bed.run(&["kill", "one"]).ok();
        assert_eq!(resized.join().expect("an answer").refused(400), "exec process is not started");
    });
    assert_eq!(bed.http().act("/exec/gone/resize?h=1&w=1").status, 404);
}
