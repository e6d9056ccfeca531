//! `exec`: another process in a running container.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::json;
use testkit::process::eventually;
use testkit::{Bed, Client};
use tests::{each_client, has, is_corten};

fn sleeper() -> Bed {
    let bed = Bed::new();
    bed.run(&[
        "run",
        "-d",
        "--name",
        "sleeper",
        "-e",
        "FROM=container",
        "-w",
        "/www",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    bed
}

#[test]
fn output_and_exit_code_come_through() {
    let bed = sleeper();
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["exec", "sleeper", "sh", "-c", "echo out; echo err >&2; exit 9"]);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (9, "out\n", "err\n"));
        let ran = bed.cli(client, &["exec", "sleeper", "sh", "-c", "kill -TERM $$; sleep 10"]);
        assert_eq!(ran.code, 143);
    });
}

#[test]
fn it_stands_in_the_container() {
    let bed = sleeper();
    each_client(&bed, |client, _| {
        let ran = bed.cli(
            client,
            &[
                "exec",
                "sleeper",
                "sh",
                "-c",
                "pwd; echo $FROM; id -u; hostname; ls /proc/1/exe >/dev/null && echo same",
            ],
        );
        let hostname = bed.inspect("sleeper")["Config"]["Hostname"].as_str().expect("hostname").to_owned();
        assert_eq!(ran.ok(), format!("/www\ncontainer\n0\n{hostname}\nsame"));
        let ran = bed.cli(
            client,
            &[
                "exec",
                "-u",
                "user",
                "-w",
                "/tmp",
                "-e",
                "FROM=exec",
                "sleeper",
                "sh",
                "-c",
                "pwd; echo $FROM; id -u; echo $HOME",
            ],
        );
        assert_eq!(ran.ok(), "/tmp\nexec\n1000\n/home/user");
    });
    let status = "grep -E 'CapEff|Seccomp:' /proc/self/status | cut -f2";
    let inner = bed.run(&["exec", "sleeper", "sh", "-c", status]);
    assert_eq!(inner.ok(), "00000000a80425fb\n2", "an exec has the container's bounds");
    let groups = bed.run(&[
        "exec",
        "sleeper",
        "sh",
        "-c",
        "cat /proc/1/cgroup >/tmp/a; cat /proc/self/cgroup | cmp - /tmp/a",
    ]);
    groups.ok();
}

#[test]
fn input_is_read_to_its_end() {
    let bed = sleeper();
    let ran = bed.run_with_input(&["exec", "-i", "sleeper", "wc", "-c"], &vec![b'x'; 2_000_000]);
    assert_eq!(ran.ok(), "2000000");
    assert_eq!(bed.run_with_input(&["exec", "sleeper", "wc", "-c"], b"no").ok(), "0");
}

#[test]
fn a_terminal_is_one() {
    let bed = sleeper();
    let ran = bed.run(&["exec", "-t", "sleeper", "sh", "-c", "tty; test -t 0 && echo yes"]);
    assert_eq!(ran.stdout.lines().count(), 2, "{ran:?}");
    has(&ran.stdout, &["/dev/pts/", "yes\r\n"]);
}

#[test]
fn commands_that_cannot_run() {
    let bed = sleeper();
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["exec", "sleeper", "no-such-program"]);
        has(&ran.said(), &[r#"exec: "no-such-program": executable file not found in $PATH"#]);
        // Docker of old says 126 here too.
        assert_eq!(ran.code, if is_corten(&bed) { 127 } else { 126 }, "{ran:?}");
        let ran = bed.cli(client, &["exec", "sleeper", "/etc/plain"]);
        has(&ran.said(), &[r#"exec: "/etc/plain": permission denied"#]);
        assert_eq!(ran.code, 126, "{ran:?}");
        let ran = bed.cli(client, &["exec", "-u", "nosuch", "sleeper", "true"]);
        has(&ran.said(), &["unable to find user nosuch: no matching entries in passwd file"]);
        assert_ne!(ran.code, 0, "{ran:?}");
    });
}

#[test]
fn only_running_containers_take_one() {
    let bed = sleeper();
    let id = bed.inspect("sleeper")["Id"].as_str().expect("id").to_owned();
    let body = json!({ "Cmd": ["true"] });
    let mut http = bed.http();
    bed.run(&["pause", "sleeper"]).ok();
    let text = http.post("/containers/sleeper/exec", &body).refused(409);
    has(&text, &["is paused, unpause the container before exec"]);
    bed.run(&["unpause", "sleeper"]).ok();
    bed.run(&["kill", "sleeper"]).ok();
    eventually("it has ended", || bed.inspect("sleeper")["State"]["Running"] == json!(false));
    let text = http.post("/containers/sleeper/exec", &body).refused(409);
    assert_eq!(text.to_lowercase(), format!("container {id} is not running"));
    assert_eq!(http.post("/containers/nosuch/exec", &body).refused(404), "No such container: nosuch");
    assert_eq!(http.post("/exec/nosuch/start", &json!({})).refused(404), "No such exec instance: nosuch");
    assert_eq!(http.get("/exec/nosuch/json").refused(404), "No such exec instance: nosuch");
    let text = http.post("/containers/sleeper/exec", &json!({ "Cmd": [] }));
    assert!(matches!(text.status, 400 | 409), "{text:?}");
}

#[test]
fn the_api_tells_how_it_ended() {
    let bed = sleeper();
    let mut http = bed.http();
    let made = http.post(
        "/containers/sleeper/exec",
        &json!({ "Cmd": ["sh", "-c", "echo o; echo e >&2; exit 5"], "AttachStdout": true, "AttachStderr": true }),
    );
    let exec = made.expect(201).json()["Id"].as_str().expect("id").to_owned();
    let before = http.get(&format!("/exec/{exec}/json")).expect(200).json();
    assert_eq!((&before["Running"], &before["ExitCode"]), (&json!(false), &json!(null)));
    let start = format!("/exec/{exec}/start");
    let stream = bed.http().hijack(&start, Some(&json!({ "Detach": false, "Tty": false }))).expect("hijack");
    assert_eq!(stream.status, 101);
    assert_eq!(stream.frames(), ("o\n".to_owned(), "e\n".to_owned()));
    let after = http.get(&format!("/exec/{exec}/json")).expect(200).json();
    assert_eq!((&after["Running"], &after["ExitCode"]), (&json!(false), &json!(5)));
    assert_eq!(after["ProcessConfig"]["entrypoint"], json!("sh"));
    // An attached second start is refused in the stream, a detached one by its status.
    let again = bed.http().hijack(&start, Some(&json!({}))).expect("answer");
    let refusal = String::from_utf8_lossy(&again.refusal).into_owned();
    let said = refusal + &again.raw();
    has(&said.to_lowercase(), &["exec command", "has already run"]);
    has(
        &http.post(&start, &json!({ "Detach": true })).refused(409).to_lowercase(),
        &["exec command", "has already run"],
    );
    has(&bed.http().get("/containers/sleeper/json").text(), &["\"Running\":true"]);
}

#[test]
fn detached_ones_go_on_by_themselves() {
    let bed = sleeper();
    let ran = bed.cli(Client::Own, &["exec", "-d", "sleeper", "sh", "-c", "echo done >/tmp/detached"]);
    assert_eq!(ran.ok(), "");
    eventually("the file is there", || {
        bed.run(&["exec", "sleeper", "cat", "/tmp/detached"]).stdout == "done\n"
    });
}

#[test]
fn they_end_with_the_container() {
    let bed = sleeper();
    let mut command = bed.command(Client::Own);
    command.args(["exec", "sleeper", "sh", "-c", "echo up; exec sleep 1000"]);
    command.stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("client starts");
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut output, &mut line).expect("output");
    assert_eq!(line, "up\n");
    bed.run(&["rm", "-f", "sleeper"]).ok();
    assert!(testkit::process::wait_for(&mut child, testkit::process::PATIENCE), "the client ends too");
    assert_eq!(child.wait().expect("child").code(), Some(137));
}

#[test]
fn many_at_once() {
    let bed = sleeper();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..12)
            .map(|number| {
                let bed = &bed;
                scope.spawn(move || {
                    let text = format!("number {number}");
                    assert_eq!(bed.run(&["exec", "sleeper", "echo", &text]).ok(), text);
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("worker");
        }
    });
}
