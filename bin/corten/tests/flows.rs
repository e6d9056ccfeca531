//! What a user sees, and what the daemon is asked, for whole commands.

mod fake;
mod program;

use fake::{Answer, Daemon, Request};

const CREATED: &str = r#"{"Id":"abcdef","Warnings":[]}"#;

/// A daemon whose container says `frames` and ends with `status`.
fn container(frames: Vec<(u8, &'static str)>, status: &'static str) -> Daemon {
    Daemon::start(move |request| match route(request).as_str() {
        "POST /containers/create" => Answer::Json(201, CREATED),
        "POST /containers/abcdef/attach" => Answer::Stream { frames: frames.clone(), echo: false },
        "POST /containers/abcdef/wait" => Answer::Json(200, status),
        "POST /containers/abcdef/start" => Answer::Json(204, ""),
        other => panic!("nobody should ask for {other}"),
    })
}

fn route(request: &Request) -> String {
    format!("{} {}", request.method, request.path.split('?').next().unwrap_or_default())
}

#[test]
fn run_shows_both_streams_and_ends_with_the_containers_code() {
    let daemon = container(vec![(1, "out\n"), (2, "err\n"), (1, "more\n")], r#"{"StatusCode":3}"#);
    let output = daemon.run(&["run", "--rm", "busybox", "true"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code), ("out\nmore\n", "err\n", 3));
}

#[test]
fn run_needs_four_requests_and_starts_last() {
    let daemon = container(vec![], r#"{"StatusCode":0}"#);
    assert_eq!(daemon.run(&["run", "busybox"]).code, 0);
    let mut paths = daemon.paths();
    assert_eq!(paths.first().map(String::as_str), Some("POST /containers/create"));
    assert_eq!(paths.last().map(String::as_str), Some("POST /containers/abcdef/start"));
    paths.sort();
    assert_eq!(
        paths,
        [
            "POST /containers/abcdef/attach",
            "POST /containers/abcdef/start",
            "POST /containers/abcdef/wait",
            "POST /containers/create",
        ]
    );
}

#[test]
fn run_detached_prints_the_id() {
    let daemon = container(vec![], "{}");
    let output = daemon.run(&["run", "-d", "busybox", "sleep", "1"]);
    assert_eq!((output.stdout.as_str(), output.code), ("abcdef\n", 0));
    assert_eq!(daemon.paths(), ["POST /containers/create", "POST /containers/abcdef/start"]);
}

#[test]
fn run_passes_standard_input_and_its_end() {
    let daemon = Daemon::start(|request| match route(request).as_str() {
        "POST /containers/create" => Answer::Json(201, CREATED),
        "POST /containers/abcdef/attach" => Answer::Stream { frames: vec![], echo: true },
        "POST /containers/abcdef/wait" => Answer::Json(200, r#"{"StatusCode":0}"#),
        _ => Answer::Json(204, ""),
    });
    let output = daemon.run_as("docker", &["run", "-i", "busybox", "cat"], "hello\n");
    assert_eq!((output.stdout.as_str(), output.code), ("hello\n", 0));
}

#[test]
fn run_pulls_an_image_that_is_missing() {
    let created = std::sync::atomic::AtomicU32::new(0);
    let daemon = Daemon::start(move |request| match route(request).as_str() {
        "POST /containers/create" => match created.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Answer::Json(404, r#"{"message":"No such image: nope:latest"}"#),
            _ => Answer::Json(201, CREATED),
        },
        "POST /images/create" => {
            Answer::Json(200, "{\"status\":\"Pulling from library/nope\",\"id\":\"latest\"}\n")
        }
        "POST /containers/abcdef/start" => Answer::Json(204, ""),
        other => panic!("nobody should ask for {other}"),
    });
    let output = daemon.run(&["run", "-d", "nope"]);
    let expected = "Unable to find image 'nope:latest' locally\nlatest: Pulling from library/nope\n";
    assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code), ("abcdef\n", expected, 0));
}

#[test]
fn a_start_that_fails_tells_why_in_its_code() {
    for (message, code) in [
        (r#"{"message":"exec: \"x\": executable file not found in $PATH"}"#, 127),
        (r#"{"message":"exec: \"/etc\": permission denied"}"#, 126),
        (r#"{"message":"driver failed","hint":"try again"}"#, 125),
    ] {
        let daemon = Daemon::start(move |request| match route(request).as_str() {
            "POST /containers/create" => Answer::Json(201, CREATED),
            "POST /containers/abcdef/start" => Answer::Json(400, message),
            "POST /containers/abcdef/attach" => Answer::Stream { frames: vec![], echo: false },
            _ => Answer::Json(200, r#"{"StatusCode":0}"#),
        });
        let output = daemon.run(&["run", "busybox", "x"]);
        assert_eq!(output.code, code, "{}", output.stderr);
        assert!(output.stderr.starts_with("docker: Error response from daemon: "), "{}", output.stderr);
        assert!(
            output.stderr.ends_with("\n\nRun 'docker run --help' for more information\n"),
            "{}",
            output.stderr
        );
        let hinted = daemon.run_as("corten", &["run", "busybox", "x"], "");
        assert_eq!(hinted.stderr.contains("hint: try again"), code == 125, "{}", hinted.stderr);
    }
}

#[test]
fn exec_ends_with_the_commands_code() {
    let daemon = Daemon::start(|request| match route(request).as_str() {
        "POST /containers/web/exec" => Answer::Json(201, r#"{"Id":"e1"}"#),
        "POST /exec/e1/start" => Answer::Stream { frames: vec![(1, "in\n")], echo: false },
        "GET /exec/e1/json" => Answer::Json(200, r#"{"ID":"e1","Running":false,"ExitCode":7}"#),
        other => panic!("nobody should ask for {other}"),
    });
    let output = daemon.run(&["exec", "-e", "A=b", "-u", "me", "web", "ls", "-l"]);
    assert_eq!((output.stdout.as_str(), output.code), ("in\n", 7));
    let body: serde_json::Value = serde_json::from_str(&daemon.requests()[0].body).expect("json");
    assert_eq!(body["Cmd"], serde_json::json!(["ls", "-l"]));
    assert_eq!((body["User"].as_str(), body["Env"][0].as_str()), (Some("me"), Some("A=b")));
}

#[test]
fn an_older_daemon_is_spoken_to_in_its_version() {
    let daemon = Daemon::start(|request| match request.version.as_str() {
        "1.43" => Answer::Json(200, "[]"),
        _ => Answer::Json(
            400,
            r#"{"message":"client version 1.50 is too new. Maximum supported API version is 1.43"}"#,
        ),
    });
    let output = daemon.run(&["ps", "-q"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let versions: Vec<String> = daemon.requests().into_iter().map(|request| request.version).collect();
    assert_eq!(versions, ["1.50", "1.43"]);
}

const CONTAINERS: &str = r#"[{"Id":"0123456789abcdef","Names":["/web"],"Image":"busybox","ImageID":"sha256:ff",
    "Command":"sh -c 'a long command line'","Created":0,"Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,
    "Type":"tcp"},{"PrivatePort":443,"Type":"tcp"}],"Labels":{"a":"b"},"State":"running","Status":"Up 3 minutes",
    "NetworkSettings":{"Networks":{"bridge":{}}},"Mounts":null}]"#;

#[test]
fn ps_has_the_known_columns() {
    let daemon = Daemon::start(|_| Answer::Json(200, CONTAINERS));
    let output =
        daemon.run(&["ps", "--format", "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.Ports}}\t{{.Names}}"]);
    let expected = "\
CONTAINER ID   IMAGE     COMMAND                  PORTS                           NAMES
0123456789ab   busybox   \"sh -c 'a long comma…\"   443/tcp, 0.0.0.0:8080->80/tcp   web
";
    assert_eq!(output.stdout, expected);
    let json = daemon.run(&["ps", "--format", "json"]).stdout;
    assert!(json.contains(r#""Names":"web","Networks":"bridge","Platform":null,"Ports":"443/tcp, 0.0.0.0:8080-\u003e80/tcp""#), "{json}");
    assert_eq!(daemon.run(&["ps", "-aq"]).stdout, "0123456789ab\n");
    // Only where nothing of it shows, details are left out.
    assert!(daemon.requests()[1].path.ends_with("/containers/json"));
    assert!(daemon.requests()[2].path.ends_with("/containers/json?all=1&brief=1"));
}

#[test]
fn several_names_print_what_worked_and_fail_for_the_rest() {
    let daemon = Daemon::start(|request| match request.path.contains("/bad/") {
        true => Answer::Json(404, r#"{"message":"No such container: bad"}"#),
        false => Answer::Json(204, ""),
    });
    let output = daemon.run(&["stop", "one", "bad", "two"]);
    assert_eq!((output.stdout.as_str(), output.code), ("one\ntwo\n", 1));
    assert_eq!(output.stderr, "Error response from daemon: No such container: bad\n");
}

#[test]
fn inspect_prints_what_it_found_and_names_what_it_did_not() {
    let daemon = Daemon::start(|request| match route(request).as_str() {
        "GET /containers/web/json" => Answer::Json(200, r#"{"Id":"1","Name":"/web"}"#),
        _ => Answer::Json(404, r#"{"message":"no"}"#),
    });
    let output = daemon.run(&["inspect", "web", "nope"]);
    let expected = "[\n    {\n        \"Id\": \"1\",\n        \"Name\": \"/web\"\n    }\n]\n";
    assert_eq!((output.stdout.as_str(), output.code), (expected, 1));
    assert_eq!(output.stderr, "Error: No such object: nope\n");
}

#[test]
fn build_sends_the_context_and_shows_the_stream() {
    let daemon = Daemon::start(|request| match route(request).as_str() {
        "HEAD /_ping" => Answer::Json(200, ""),
        "POST /build" => {
            Answer::Json(200, "{\"stream\":\"Step 1/1 : FROM x\\n\"}\n{\"aux\":{\"ID\":\"sha256:1\"}}\n")
        }
        other => panic!("nobody should ask for {other}"),
    });
    let context = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| std::fs::write(context.path().join(name), text).expect("a file");
    file("Dockerfile", "FROM x\n");
    file(".dockerignore", "secret\n");
    file("secret", "s3cr3t");
    file("shown", "visible");
    let path = context.path().display().to_string();
    let output = daemon.run(&["build", "-t", "x:1", "--build-arg", "A=b", &path]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.ends_with("Step 1/1 : FROM x\n"), "{}", output.stdout);
    let request = daemon.requests().pop().expect("a request");
    assert!(request.body.contains("visible") && !request.body.contains("s3cr3t"));
    assert!(request.path.contains("t=x%3A1") && request.path.contains("buildargs=%7B%22A%22%3A%22b%22%7D"));
}

#[test]
fn nobody_at_home() {
    let output = program::run("docker", &["ps"], "", Some("unix:///nonexistent/sock"));
    let expected =
        "Cannot connect to the Docker daemon at unix:///nonexistent/sock. Is the docker daemon running?\n";
    assert_eq!((output.stderr.as_str(), output.code), (expected, 1));
}
