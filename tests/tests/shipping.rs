//! Logs that are sent elsewhere: what receivers hear, and what happens when they are away.
#![allow(clippy::disallowed_methods)] // Tests start programs.

mod receivers;

use std::io::Read;

use receivers::{Receiver, Value, acknowledge, fluentd_lines, unpack_all};
use serde_json::{Value as Json, json};
use testkit::process::eventually;
use testkit::{Bed, BedOptions};
use tests::{each_client, has};

/// Runs a container with these log options to its end.
fn ran(bed: &Bed, name: &str, driver: &str, options: &[&str], script: &str) -> String {
    started(bed, name, driver, options, script);
    assert_eq!(bed.run(&["wait", name]).ok(), "0");
    bed.inspect(name)["Id"].as_str().expect("id").to_owned()
}

fn started(bed: &Bed, name: &str, driver: &str, options: &[&str], script: &str) {
    let mut arguments = vec!["run", "-d", "--name", name, "--log-driver", driver];
    options.iter().for_each(|option| arguments.extend(["--log-opt", option]));
    arguments.extend(["busybox", "sh", "-c", script]);
    bed.run(&arguments).ok();
}

fn numbers(upto: u32) -> Vec<String> {
    (1..=upto).map(|number| number.to_string()).collect()
}

/// Repetitions left out: at least once is promised, and order.
fn first_seen(lines: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    lines.into_iter().filter(|line| seen.insert(line.clone())).collect()
}

#[test]
fn syslog_by_every_way() {
    let bed = Bed::new();
    let (udp, tcp) = (Receiver::udp(&bed, 5140), Receiver::tcp(&bed, 5141));
    let folder = bed.folder("sockets");
    let stream = Receiver::unix(&folder.join("stream"), |_, _| {});
    let datagrams = Receiver::unix_datagram(&folder.join("datagrams"));
    let script = "echo one; echo two >&2";
    let address = |option: &str| format!("syslog-address={option}");
    let own = |name: &str| {
        format!("{}://{}", if name == "stream" { "unix" } else { "unixgram" }, folder.join(name).display())
    };

    let way = address("udp://127.0.0.1:5140");
    ran(&bed, "aa", "syslog", &[&way, "syslog-format=rfc3164", "tag={{.Name}}/{{.ImageName}}"], script);
    udp.hears("two");
    let texts = udp.texts();
    assert!(texts.iter().any(|text| text.starts_with("<30>") && text.ends_with(": one\n")), "{texts:?}");
    assert!(
        texts.iter().any(|text| text.starts_with("<27>") && text.contains(" private-host aa/busybox[")),
        "{texts:?}"
    );

    let way = address("tcp://127.0.0.1:5141");
    let id =
        ran(&bed, "bb", "syslog", &[&way, "syslog-format=rfc5424micro", "syslog-facility=local3"], script);
    tcp.hears("two");
    let text = tcp.hears("one");
    let short = &id[..12];
    let first = text.lines().find(|line| line.ends_with("one")).expect("a line").to_owned();
    assert!(first.starts_with("<158>1 20") && first.contains(&format!(" private-host {short} ")), "{first}");
    has(&first, &[&format!(" {short} - one")]);

    ran(&bed, "cc", "syslog", &[&address(&own("stream"))], script);
    stream.hears("]: two\n");
    ran(&bed, "dd", "syslog", &[&address(&own("datagrams"))], script);
    datagrams.hears("]: two\n");
    for name in ["aa", "bb", "cc", "dd"] {
        let logs = bed.run(&["logs", name]);
        assert_eq!(
            (logs.stdout.as_str(), logs.stderr.as_str()),
            ("one\n", "two\n"),
            "{name} keeps its log here too"
        );
    }
}

#[test]
fn syslog_over_tls_checks_who_listens() {
    let bed = Bed::new();
    let folder = bed.folder("tls");
    let at = |name: &str| folder.join(name).display().to_string();
    let make = |name: &str| {
        let (certificate, key) = (at(&format!("{name}.pem")), at(&format!("{name}.key")));
        let mut command = std::process::Command::new("openssl");
        command.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]);
        command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]);
        testkit::process::run(command.args(["-out", &certificate, "-keyout", &key])).ok();
        (certificate, key)
    };
    let ((certificate, key), (stranger, _)) = (make("server"), make("stranger"));
    let heard = std::fs::File::create(folder.join("heard")).expect("file");
    let mut server = bed.host().command("openssl");
    server.args(["s_server", "-accept", "0.0.0.0:6514", "-cert", &certificate, "-key", &key, "-quiet"]);
    let mut server = server.stdin(std::process::Stdio::piped()).stdout(heard).spawn().expect("openssl");
    let text = || std::fs::read_to_string(folder.join("heard")).unwrap_or_default();
    let listening = || bed.host().in_network(|| std::net::TcpStream::connect("127.0.0.1:6514").is_ok());
    eventually("it listens", listening);
    let address = "syslog-address=tcp+tls://127.0.0.1:6514";
    let format = "syslog-format=rfc5424";
    let authority = format!("syslog-tls-ca-cert={certificate}");
    ran(&bed, "known", "syslog", &[address, format, &authority], "echo trusted");
    eventually("it is heard", || text().contains(" - trusted\n"));
    let length: usize = text().split(' ').next().expect("length").parse().expect("number");
    assert_eq!(length + 1 + length.to_string().len(), text().len(), "{}", text());
    let wrong = format!("syslog-tls-ca-cert={stranger}");
    let options = ["--log-opt", address, "--log-opt", &wrong];
    let refused = bed.run(&[&["run", "--log-driver", "syslog"][..], &options, &["busybox", "true"]].concat());
    has(&refused.stderr, &["failed to initialize logging driver: tls: ", "certificate"]);
    // Its names are checked as well.
    let (elsewhere, named) = ("syslog-address=tcp+tls://127.0.0.2:6514", ["--log-opt", &authority]);
    let options =
        [&["run", "--log-driver", "syslog", "--log-opt", elsewhere], &named[..], &["busybox", "true"]]
            .concat();
    has(&bed.run(&options).stderr, &["not valid for name"]);
    ran(&bed, "lax", "syslog", &[address, &wrong, "syslog-tls-skip-verify=true"], "echo unchecked");
    eventually("it is heard", || text().contains("]: unchecked\n"));
    let inner = bed.host().inner(&server).and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    let _ = rustix::process::kill_process(inner.expect("openssl runs"), rustix::process::Signal::KILL);
    let _ = server.wait();
}

#[test]
fn the_daemons_driver_is_everybodys() {
    let flags = [
        "--log-driver=syslog",
        "--log-opt",
        "syslog-address=udp://127.0.0.1:5140",
        "--log-opt=tag=of-the-daemon",
    ];
    let bed = Bed::with(BedOptions { flags: flags.map(String::from).into(), ..BedOptions::default() });
    bed.load(&testkit::image::busybox());
    let receiver = Receiver::udp(&bed, 5140);
    bed.run(&["run", "-d", "busybox", "echo", "first"]).ok();
    receiver.hears("of-the-daemon");
    bed.run(&["run", "-d", "--log-driver", "syslog", "--log-opt", "tag=own", "busybox", "echo", "second"])
        .ok();
    receiver.hears(" own[");
    has(&bed.http().get("/info").expect(200).text(), &["\"LoggingDriver\":\"syslog\""]);
    // Files of this host have attributes of their own.
    let options = [
        "--label",
        "team=blue",
        "--log-opt",
        "labels-regex=^te",
        "--log-opt",
        "tag={{.Name}}",
        "--log-opt",
        "env=HOME",
    ];
    for driver in ["local", "json-file"] {
        let arguments = ["run", "-d", "-e", "HOME=/x", "--name", driver, "--log-driver", driver];
        bed.run(&[&arguments[..], &options, &["busybox", "echo", "said"]].concat()).ok();
        bed.run(&["wait", driver]).ok();
        let wanted = format!("HOME=%2Fx,tag={driver},team=blue said");
        assert_eq!(bed.run(&["logs", "--details", driver]).ok(), wanted);
    }
}

#[test]
fn the_journal_hears_every_field() {
    let bed = Bed::new();
    let path = format!("/proc/{}/root/run/systemd/journal/socket", bed.host().init());
    let refused = bed.run(&["run", "--log-driver", "journald", "busybox", "true"]);
    has(&refused.stderr, &["failed to initialize logging driver: journald is not enabled on this host"]);
    let journal = Receiver::unix_datagram(path.as_ref());
    let large = "x".repeat(300_000);
    let body = json!({
        "Image": "busybox",
        "Cmd": ["sh", "-c", "echo said; head -c 20000 /dev/zero | tr '\\0' y; echo"],
        "Env": ["SHOWN=1", "HIDDEN=2"],
        "Labels": { "large": large },
        "HostConfig": { "LogConfig": { "Type": "journald", "Config": { "env": "SHOWN", "tag": "t-{{.Name}}" } } },
    });
    let create = |name: &str, body: &Json| {
        let path = format!("/containers/create?name={name}");
        let id = bed.http().post(&path, body).expect(201).json()["Id"].as_str().expect("id").to_owned();
        bed.http().post(&format!("/containers/{name}/start"), &json!({})).expect(204);
        id
    };
    let id = create("small", &body);
    journal.hears("CONTAINER_PARTIAL_LAST=true");
    let texts = journal.texts();
    has(
        &texts[0],
        &[
            "PRIORITY=6\nMESSAGE=said\n",
            &format!("\nCONTAINER_ID={}\nCONTAINER_ID_FULL={id}\n", &id[..12]),
            "\nCONTAINER_NAME=small\n",
            "\nCONTAINER_TAG=t-small\n",
            "\nIMAGE_NAME=busybox\n",
            "\nSYSLOG_IDENTIFIER=t-small\n",
            "\nSHOWN=1\n",
        ],
    );
    assert!(!texts[0].contains("HIDDEN") && !texts[0].contains("PARTIAL"), "{}", texts[0]);
    has(&texts[1], &["CONTAINER_PARTIAL_MESSAGE=true\n", "CONTAINER_PARTIAL_ORDINAL=1\n"]);
    let mut body = body;
    body["HostConfig"]["LogConfig"]["Config"]["labels"] = "large".into();
    create("large", &body);
    let heard = || {
        journal.texts().into_iter().find(|text| text.starts_with("FILE\n") && text.contains("MESSAGE=said"))
    };
    eventually("an entry in a file", || heard().is_some());
    has(&heard().expect("entry"), &[&format!("LARGE={large}\n"), "\nCONTAINER_NAME=large\n"]);
    drop(journal);
    bed.host().shell("rm -r /run/systemd").ok();
}

#[test]
fn gelf_by_udp_and_tcp() {
    let bed = Bed::new();
    let (udp, tcp) = (Receiver::udp(&bed, 12201), Receiver::tcp(&bed, 12202));
    let script = "echo short; head -c 16000 /dev/urandom | base64 -w 0; echo";
    let read = |bytes: &[u8]| -> Json { serde_json::from_slice(bytes).expect("JSON") };
    for (name, kind) in [("gg", "gzip"), ("zz", "zlib"), ("nn", "none")] {
        let kind = format!("gelf-compression-type={kind}");
        ran(&bed, name, "gelf", &["gelf-address=udp://127.0.0.1:12201", &kind, "labels=x", "tag=t"], script);
    }
    // Three containers, each with one datagram and two parts of a long line in chunks.
    let messages = || whole_messages(&udp.all_datagrams());
    eventually("nine messages", || messages().len() >= 9);
    let all: Vec<Json> = messages().iter().map(|bytes| read(&unpacked(bytes))).collect();
    for name in ["gg", "zz", "nn"] {
        let mine: Vec<&Json> = all.iter().filter(|message| message["_container_name"] == name).collect();
        assert_eq!(mine.len(), 3);
        let short = mine.iter().find(|message| message["short_message"] == "short").expect("the short one");
        assert_eq!(
            (&short["version"], &short["level"], &short["_tag"]),
            (&"1.1".into(), &6.into(), &"t".into())
        );
        assert_eq!(short["host"], "private-host");
        assert!(short["timestamp"].as_f64().expect("number") > 1.6e9);
        has(short["_command"].as_str().expect("command"), &["sh -c echo short"]);
    }
    ran(&bed, "tt", "gelf", &["gelf-address=tcp://127.0.0.1:12202"], "echo one; echo; echo two >&2");
    tcp.hears("two");
    eventually("both", || tcp.bytes().iter().filter(|byte| **byte == 0).count() == 2);
    let bytes = tcp.bytes();
    let all: Vec<Json> = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty()).map(read).collect();
    let said = |level: i32| {
        all.iter().find(|message| message["level"] == level).expect("level")["short_message"].clone()
    };
    assert_eq!((said(6), said(3)), ("one".into(), "two".into()));
}

fn whole_messages(datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut whole = Vec::new();
    let mut chunked: std::collections::BTreeMap<&[u8], Vec<&[u8]>> = Default::default();
    for datagram in datagrams {
        match datagram.strip_prefix(&[0x1e, 0x0f]) {
            None => whole.push(datagram.clone()),
            Some(chunk) => {
                let parts = chunked.entry(&chunk[..8]).or_default();
                parts.push(chunk);
                if parts.len() == usize::from(chunk[9]) {
                    parts.sort_by_key(|part| part[8]);
                    whole.push(parts.iter().flat_map(|part| part[10..].to_vec()).collect());
                }
            }
        }
    }
    whole
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match bytes {
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).expect("gzip"),
        [0x78, ..] => flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut out).expect("zlib"),
        _ => return bytes.to_vec(),
    };
    out
}

#[test]
fn fluentd_hears_records_in_their_form() {
    let bed = Bed::new();
    let receiver = Receiver::tcp(&bed, 24224);
    let id =
        ran(&bed, "ff", "fluentd", &["tag=app.{{.Name}}", "fluentd-sub-second-precision=true"], "echo hello");
    eventually("a message", || !unpack_all(&receiver.bytes()).is_empty());
    let message = unpack_all(&receiver.bytes()).remove(0);
    let Value::List(parts) = &message else { panic!("{message:?}") };
    assert_eq!(parts[0], Value::Text("app.ff".into()));
    assert!(matches!(&parts[1], Value::Extension(time) if time.len() == 9), "{message:?}");
    let field = |name: &str| parts[2].get(name).unwrap_or_default().to_owned();
    assert_eq!((field("log"), field("source")), ("hello".into(), "stdout".into()));
    assert_eq!((field("container_id"), field("container_name")), (id, "/ff".into()));
}

#[test]
fn a_receiver_that_is_away_loses_nothing() {
    let mut bed = Bed::new();
    let receiver = Receiver::tcp_answering(&bed, 24224, acknowledge);
    // Rotated while it is shipped, and compressed.
    let options =
        ["fluentd-request-ack=true", "fluentd-retry-wait=50ms", "cache-max-size=20k", "cache-max-file=200"];
    let script =
        "read go; seq 1 3000; read go; seq 3001 6000; read go; seq 6001 9000; read go; seq 9001 12000";
    let mut arguments = vec!["run", "-d", "-i", "--name", "teller", "--log-driver", "fluentd"];
    options.iter().for_each(|option| arguments.extend(["--log-opt", option]));
    arguments.extend(["busybox", "sh", "-c", script]);
    bed.run(&arguments).ok();
    let go = |bed: &Bed| {
        let mut attached =
            bed.http().hijack("/containers/teller/attach?stream=1&stdin=1", None).expect("attach");
        attached.write(b"go\n");
        attached
    };
    let logged = |bed: &Bed, last: &str| bed.run(&["logs", "--tail", "1", "teller"]).stdout.trim() == last;
    let one = go(&bed);
    eventually("the first part", || {
        fluentd_lines(&receiver.bytes()).last().is_some_and(|line| line == "3000")
    });
    let mut heard = fluentd_lines(&receiver.bytes());
    // Away.
    drop(receiver);
    let two = go(&bed);
    eventually("it is logged here", || logged(&bed, "6000"));
    // Nobody to read the log.
    bed.kill();
    bed.start();
    let three = go(&bed);
    eventually("it is logged here", || logged(&bed, "9000"));
    let receiver = Receiver::tcp_answering(&bed, 24224, acknowledge);
    eventually("it starts to hear", || !fluentd_lines(&receiver.bytes()).is_empty());
    // In the middle of it.
    bed.kill();
    bed.start();
    let four = go(&bed);
    eventually("the end", || fluentd_lines(&receiver.bytes()).last().is_some_and(|line| line == "12000"));
    heard.extend(fluentd_lines(&receiver.bytes()));
    let heard = first_seen(heard);
    let wanted = numbers(12_000);
    assert!(
        heard == wanted,
        "{} lines, the first wrong one: {:?}",
        heard.len(),
        heard.iter().zip(&wanted).find(|(a, b)| a != b)
    );
    drop((one, two, three, four));
    assert!(!bed.log().contains("records were lost"), "nothing is missing");
}

#[test]
fn a_syslog_daemon_that_restarts_hears_all() {
    let bed = Bed::new();
    let receiver = Receiver::tcp(&bed, 5141);
    let options = ["syslog-address=tcp://127.0.0.1:5141"];
    started(&bed, "tt", "syslog", &options, "for i in $(seq 1 300); do echo line-$i; usleep 5000; done");
    receiver.hears("line-20");
    let mut text = receiver.end();
    eventually("it goes on", || bed.run(&["logs", "tt"]).stdout.contains("line-150"));
    let receiver = Receiver::tcp(&bed, 5141);
    receiver.hears("line-300");
    text.push_str(&receiver.text());
    for number in 1..=300 {
        assert!(text.contains(&format!("]: line-{number}\n")), "line-{number} is missing");
    }
}

#[test]
fn killed_daemons_lose_no_line() {
    let mut bed = Bed::new();
    let receiver = Receiver::tcp(&bed, 5141);
    let options = ["syslog-address=tcp://127.0.0.1:5141", "cache-max-size=50k", "cache-max-file=100"];
    let script = "for i in $(seq 1 200); do seq $((i * 20 - 19)) $((i * 20)) | sed 's/.*/line-&./'; usleep 10000; done";
    started(&bed, "teller", "syslog", &options, script);
    for round in 1..=6 {
        receiver.hears(&format!("]: line-{}.\n", round * 500));
        bed.kill();
        bed.start();
    }
    let text = receiver.hears("]: line-4000.\n");
    let lines = text.lines().map(|line| line.rsplit("]: ").next().unwrap_or_default().to_owned());
    let wanted: Vec<String> = (1..=4000).map(|number| format!("line-{number}.")).collect();
    assert!(first_seen(lines.collect()) == wanted, "each line, in order:\n{text}");
}

#[test]
fn nothing_is_said_twice_without_need() {
    let mut bed = Bed::new();
    let receiver = Receiver::tcp(&bed, 5141);
    started(&bed, "again", "syslog", &["syslog-address=tcp://127.0.0.1:5141"], "echo up; exec sleep 1000");
    // Starts in a row, each soon after the last record; then daemons.
    for _ in 1..=3 {
        bed.run(&["restart", "-t", "0", "again"]).ok();
    }
    let count = |words: &str| receiver.text().matches(words).count();
    eventually("four starts", || count("]: up\n") >= 4);
    bed.stop();
    bed.start();
    bed.run(&["restart", "-t", "0", "again"]).ok();
    eventually("five", || count("]: up\n") >= 5);
    bed.run(&["rm", "-f", "again"]).ok();
    assert_eq!(count("]: up\n"), 5, "{}", receiver.text());
}

#[test]
fn what_the_log_cannot_hold_is_counted() {
    let bed = Bed::new();
    let options = [
        "fluentd-async=true",
        "fluentd-retry-wait=50ms",
        "cache-max-size=10k",
        "cache-max-file=2",
        "cache-compress=false",
    ];
    ran(&bed, "loud", "fluentd", &options, "seq 1 5000");
    let receiver = Receiver::tcp(&bed, 24224);
    eventually("the end", || fluentd_lines(&receiver.bytes()).last().is_some_and(|line| line == "5000"));
    let heard = fluentd_lines(&receiver.bytes());
    let first: usize = heard[0].parse().expect("number");
    assert!(first > 1 && heard == numbers(5000)[first - 1..], "the newest are kept, in order");
    eventually("it is said", || bed.log().contains(&format!("records={}", first - 1)));
    has(&bed.log(), &["log records were lost before they could be shipped"]);
}

#[test]
fn containers_that_are_removed_at_once_are_heard() {
    let bed = Bed::new();
    let receiver = Receiver::tcp(&bed, 5141);
    let options = ["--log-driver", "syslog", "--log-opt", "syslog-address=tcp://127.0.0.1:5141"];
    each_client(&bed, |client, name| {
        let arguments = [&["run", "--rm"][..], &options, &["busybox", "echo", name]].concat();
        assert_eq!(bed.cli(client, &arguments).ok(), name);
        receiver.hears(&format!("]: {name}\n"));
    });
}

#[test]
fn a_start_without_a_receiver_is_refused() {
    let bed = Bed::new();
    for (driver, option, words) in [
        ("syslog", "syslog-address=tcp://127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("fluentd", "fluentd-address=127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: connection refused"),
        (
            "fluentd",
            "fluentd-address=unix:///nowhere",
            "dial unix /nowhere: connect: no such file or directory",
        ),
        (
            "gelf",
            "gelf-address=tcp://127.0.0.1:1",
            "gelf: cannot connect to GELF endpoint: 127.0.0.1:1 dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        ("syslog", "tag=x", "Unix syslog delivery error"),
    ] {
        each_client(&bed, |client, _| {
            let ran =
                bed.cli(client, &["run", "--log-driver", driver, "--log-opt", option, "busybox", "true"]);
            assert_ne!(ran.code, 0);
            has(&ran.stderr, &["failed to initialize logging driver: ", words]);
        });
    }
    // Nobody listens, and nobody minds.
    ran(&bed, "async", "fluentd", &["fluentd-async=true"], "echo said");
    ran(&bed, "udp", "syslog", &["syslog-address=udp://127.0.0.1:1"], "echo said");
    assert_eq!(bed.run(&["logs", "async"]).ok(), "said");
}

#[test]
fn options_are_checked_when_a_container_is_made() {
    let bed = Bed::new();
    for (driver, option, words) in [
        ("syslog", "odd=1", "unknown log opt 'odd' for syslog log driver"),
        ("gelf", "odd=1", "unknown log opt \"odd\" for gelf log driver"),
        ("syslog", "syslog-address=unix:///nowhere", "stat /nowhere: no such file or directory"),
        ("awslogs", "odd=1", "the log driver awslogs is not supported"),
        ("some/plugin:1", "odd=1", "logger: no log driver named 'some/plugin:1' is registered"),
        ("json-file", "tag={{.Nothing}}", "can't evaluate field Nothing in type *logger.Info"),
    ] {
        each_client(&bed, |client, _| {
            let ran = bed.cli(client, &["create", "--log-driver", driver, "--log-opt", option, "busybox"]);
            assert_ne!(ran.code, 0);
            has(&ran.stderr, &[words]);
        });
    }
    let none = bed.run(&["run", "--log-driver", "none", "--name", "quiet", "busybox", "echo", "seen"]);
    assert_eq!(none.ok(), "seen");
    has(&bed.run(&["logs", "quiet"]).stderr, &["configured logging driver does not support reading"]);
    let receiver = Receiver::udp(&bed, 5140);
    ran(
        &bed,
        "unread",
        "syslog",
        &["syslog-address=udp://127.0.0.1:5140", "cache-disabled=true"],
        "echo said",
    );
    receiver.hears("said");
    has(&bed.run(&["logs", "unread"]).stderr, &["configured logging driver does not support reading"]);
}
