//! Attaching by websocket, and attaching to what was logged before.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;
use testkit::Bed;
use testkit::process::eventually;
use tests::has;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

type Socket = WebSocket<UnixStream>;

fn connect(bed: &Bed, path: &str) -> Socket {
    let stream = UnixStream::connect(bed.socket()).expect("the daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let (socket, answer) = tungstenite::client(format!("ws://test{path}"), stream).expect("a websocket");
    assert_eq!(answer.status().as_u16(), 101);
    socket
}

/// Everything until the daemon closes, and with which code it does.
fn rest(socket: &mut Socket) -> (String, Option<CloseCode>) {
    let mut all = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => {
                return (String::from_utf8_lossy(&all).into_owned(), frame.map(|frame| frame.code));
            }
            Ok(message) => all.extend_from_slice(&message.into_data()),
            Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&all)),
        }
    }
}

fn until(socket: &mut Socket, end: &str) -> Vec<Message> {
    let (mut all, mut messages) = (String::new(), Vec::new());
    while !all.contains(end) {
        let message = socket.read().expect("more");
        all.push_str(&String::from_utf8_lossy(&message.clone().into_data()));
        messages.push(message);
    }
    messages
}

#[test]
fn input_goes_in_and_output_comes_out_unframed() {
    let bed = Bed::new();
    let script = "read line; echo got $line; echo oops >&2; exit 3";
    bed.run(&["create", "-i", "--name", "web", "busybox", "sh", "-c", script]).ok();
    let mut socket = connect(&bed, "/v1.44/containers/web/attach/ws?stream=1&stdin=1&stdout=1&stderr=1");
    bed.http().act("/containers/web/start").expect(204);
    socket.send(Message::text("hal")).expect("sent");
    socket.send(Message::binary(b"lo\n".to_vec())).expect("sent");
    let (said, code) = rest(&mut socket);
    assert!(said == "got hallo\noops\n" || said == "oops\ngot hallo\n", "{said:?}");
    assert_eq!(code, Some(CloseCode::Normal));
    assert_eq!(bed.run(&["wait", "web"]).ok(), "3");
}

#[test]
fn old_versions_want_all_streams_and_text() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "-i", "--name", "cat", "busybox", "cat"]).ok();
    let mut old = connect(&bed, "/v1.27/containers/cat/attach/ws?stream=1");
    old.send(Message::text("grüße\n")).expect("sent");
    assert!(until(&mut old, "grüße\n").iter().all(Message::is_text));
    let mut newer = connect(&bed, "/v1.41/containers/cat/attach/ws?stream=1");
    newer.send(Message::text("again\n")).expect("sent");
    assert!(until(&mut newer, "again\n").iter().all(Message::is_binary));
    // Since 1.42 nothing is attached that was not asked for: this one hears nothing, but still of the end.
    let mut deaf = connect(&bed, "/v1.42/containers/cat/attach/ws?stream=1&stdin=1");
    deaf.send(Message::text("third\n")).expect("sent");
    until(&mut newer, "third\n");
    newer.send(Message::Ping(b"there?".to_vec().into())).expect("sent");
    assert_eq!(newer.read().expect("an answer"), Message::Pong(b"there?".to_vec().into()));
    // A client that closes leaves the others and the container alone.
    newer.close(None).expect("closed");
    assert!(matches!(newer.read(), Ok(Message::Close(_)) | Err(_)));
    old.send(Message::text("fourth\n")).expect("sent");
    until(&mut old, "fourth\n");
    bed.run(&["stop", "-t", "0", "cat"]).ok();
    assert_eq!(rest(&mut deaf), (String::new(), Some(CloseCode::Normal)));
}

#[test]
fn detach_keys_close_it() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "-it", "--name", "cat", "busybox", "cat"]).ok();
    let path = "/v1.44/containers/cat/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,y";
    let mut socket = connect(&bed, path);
    socket.send(Message::text("hi\n")).expect("sent");
    until(&mut socket, "hi\r\nhi\r\n");
    socket.send(Message::text("\x18")).expect("sent");
    socket.send(Message::text("y")).expect("sent");
    assert_eq!(rest(&mut socket).1, Some(CloseCode::Normal));
    assert_eq!(bed.inspect("cat")["State"]["Running"], json!(true));
    let gone = bed.http().get("/containers/cat/attach/ws?detachKeys=odd-key").refused(400);
    has(&gone, &["Invalid detach keys (odd-key) provided"]);
}

#[test]
fn what_is_no_websocket_is_refused() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]).ok();
    let mut http = bed.http();
    assert_eq!(http.get("/containers/idle/attach/ws").refused(400), "not websocket protocol");
    assert_eq!(http.get("/containers/gone/attach/ws").refused(404), "No such container: gone");
    bed.run(&["pause", "idle"]).ok();
    has(
        &http.get("/containers/idle/attach/ws").refused(409),
        &["is paused, unpause the container before attach"],
    );
    let odd = http
        .exchange("GET", "/v1.44/containers/idle/attach/ws", "Connection: Upgrade\r\nUpgrade: tcp\r\n", b"")
        .expect("an answer");
    assert!(matches!(odd.status, 400 | 409), "{odd:?}");
}

/// What the script below prints.
fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}{}", if number % 3 == 0 { "\n" } else { " " })).collect()
}

#[test]
fn the_log_goes_over_into_what_comes() {
    let bed = Bed::new();
    // Lines that grow piece by piece, on a log that is rotated all the while, and more than sockets hold: it ends only
    // when everybody reads.
    let script = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); if [ $((i%3)) = 0 ]; then echo $i; else echo -n \"$i \"; fi; done";
    for (name, tty) in [("framed", false), ("raw", true)] {
        let body = json!({ "Image": "busybox", "Cmd": ["sh", "-c", script], "Tty": tty,
            "HostConfig": { "LogConfig": { "Type": "json-file", "Config": { "max-size": "1m", "max-file": "20" } } } });
        bed.http().post(&format!("/containers/create?name={name}"), &body).expect(201);
        bed.http().act(&format!("/containers/{name}/start")).expect(204);
        let expected = if tty { numbers(60000).replace('\n', "\r\n") } else { numbers(60000) };
        let path = format!("/containers/{name}/attach?logs=1&stream=1&stdout=1&stderr=1");
        let check = |said: String| {
            assert!(said == expected, "{name}: {} bytes instead of {}", said.len(), expected.len());
        };
        // Several at once, each with a seam of its own; all must read, or none gets more.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                std::thread::sleep(Duration::from_millis(15));
                let stream = bed.http().hijack(&path, None).expect("attach");
                scope.spawn(|| check(if tty { stream.raw() } else { stream.frames().0 }));
            }
            let path = format!("/v1.44/containers/{name}/attach/ws?logs=1&stream=1&stdout=1");
            let mut websocket = connect(&bed, &path);
            scope.spawn(move || check(rest(&mut websocket).0));
        });
    }
}

#[test]
fn the_log_of_one_that_has_ended() {
    let bed = Bed::new();
    let body = json!({ "Image": "busybox", "Cmd": ["echo", "run"] });
    bed.http().post("/containers/create?name=twice", &body).expect(201);
    bed.http().act("/containers/twice/start").expect(204);
    eventually("it has ended", || bed.inspect("twice")["State"]["Status"] == json!("exited"));
    let path = "/containers/twice/attach?logs=1&stdout=1";
    assert_eq!(bed.http().hijack(path, None).expect("attach").frames().0, "run\n");
    // Without a log there is nothing to begin with.
    bed.run(&["create", "--name", "mute", "--log-driver", "none", "busybox", "true"]).ok();
    let refused = bed.http().hijack("/containers/mute/attach?logs=1&stdout=1", None).expect("an answer");
    has(&String::from_utf8_lossy(&refused.refusal), &["configured logging driver does not support reading"]);
}

#[test]
fn a_held_client_is_let_go_when_the_daemon_dies() {
    let mut bed = Bed::new();
    bed.run(&["run", "-d", "-i", "--name", "cat", "busybox", "cat"]).ok();
    for round in 0..10 {
        let attached = bed.http().hijack("/containers/cat/attach?logs=1&stream=1&stdout=1", None);
        bed.kill();
        bed.start();
        drop(attached);
        // If the output were still held for somebody, nothing would come.
        let mut stream =
            bed.http().hijack("/containers/cat/attach?stream=1&stdin=1&stdout=1", None).expect("attach");
        stream.write(format!("round {round}\n").as_bytes());
        assert_eq!(
            stream.bytes(16).expect("output"),
            format!("\x01\0\0\0\0\0\0\x08round {round}\n").as_bytes()
        );
    }
}
