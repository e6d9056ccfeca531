//! Authorization plugins: they see every request and every answer, and what they refuse does not happen.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::http::API;
use testkit::process::eventually;
use testkit::{Bed, BedOptions, Engine, Response, image};
use tests::has;

type Rule = dyn Fn(&str, &Value) -> Value + Send + Sync;

/// A plugin that remembers what it was shown.
#[derive(Clone, Default)]
struct Plugin(Arc<Mutex<Vec<(String, Value)>>>);

impl Plugin {
    /// Answers on a socket by a rule, from a thread of its own.
    fn serve(listener: UnixListener, rule: Box<Rule>) -> Plugin {
        let plugin = Plugin::default();
        let seen = plugin.clone();
        std::thread::spawn(move || {
            let rule: Arc<Rule> = rule.into();
            for stream in listener.incoming().flatten() {
                let (seen, rule) = (seen.clone(), rule.clone());
                std::thread::spawn(move || seen.answer(stream, &*rule));
            }
        });
        plugin
    }

    fn answer(&self, stream: UnixStream, rule: &Rule) {
        let mut reader = BufReader::new(stream);
        let (mut verb, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                break;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(path) = line.strip_prefix("POST /") {
                verb = path.split(' ').next().unwrap_or_default().to_owned();
            } else if let Some(number) = lower.strip_prefix("content-length:") {
                length = number.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let shown: Value = serde_json::from_slice(&body).unwrap_or_default();
        let answer = match verb.as_str() {
            "Plugin.Activate" => json!({"Implements": ["authz"]}),
            verb => {
                let answer = rule(verb, &shown);
                self.0.lock().expect("no panic").push((verb.to_owned(), shown));
                answer
            }
        };
        let text = answer.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
        let _ = reader.get_mut().write_all(format!("{head}{text}").as_bytes());
    }

    /// What was shown since the last look, as `verb method path status`.
    fn seen(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.0.lock().expect("no panic"));
        seen.iter()
            .map(|(verb, shown)| {
                let status =
                    shown["ResponseStatusCode"].as_u64().map_or(String::new(), |code| format!(" {code}"));
                let (method, uri) = (&shown["RequestMethod"], &shown["RequestUri"]);
                let verb = verb.trim_start_matches("AuthZPlugin.AuthZ");
                format!("{verb} {} {}{status}", method.as_str().unwrap_or(""), uri.as_str().unwrap_or(""))
            })
            .collect()
    }
}

fn decode(text: &Value) -> String {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a' + 26),
        b'0'..=b'9' => u32::from(byte - b'0' + 52),
        b'+' => 62,
        _ => 63,
    };
    let text = text.as_str().unwrap_or_default().trim_end_matches('=').as_bytes();
    let bytes: Vec<u8> = text
        .chunks(4)
        .flat_map(|four| {
            let group = (0..4).fold(0, |sum, at| sum << 6 | four.get(at).map_or(0, |byte| digit(*byte)));
            group.to_be_bytes()[1..four.len()].to_vec()
        })
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A bed whose daemon asks a plugin.
struct Guarded {
    bed: Bed,
    plugin: Plugin,
    file: PathBuf,
}

impl Guarded {
    fn configure(&self, settings: &Value) {
        fs::write(&self.file, settings.to_string()).expect("daemon.json");
        kill_process(Pid::from_raw(self.bed.pid().cast_signed()).expect("a PID"), Signal::HUP)
            .expect("it runs");
    }

    fn is_asked(&self) -> bool {
        self.plugin.seen();
        self.bed.http().get("/_ping");
        !self.plugin.seen().is_empty()
    }

    /// Takes the plugin away again, as the place must be left as it was found.
    fn end(self) {
        self.configure(&json!({}));
        eventually("the plugin is not asked any more", || !self.is_asked());
        self.bed.host().shell("rm -r /run/docker").ok();
        let _ = fs::remove_dir_all(self.file.parent().expect("a folder"));
    }
}

/// None with a peer.
fn guarded(rule: Box<Rule>) -> Option<Guarded> {
    if Engine::from_environment() != Engine::Corten {
        return None;
    }
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("corten-test-authz-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("daemon.json");
    fs::write(&file, "{}").expect("daemon.json");
    let flags = vec!["--config-file".to_owned(), file.display().to_string()];
    let bed = Bed::with(BedOptions { flags, ..BedOptions::default() });
    bed.load(&image::busybox());
    let socket = bed.folder("plugin").join("rule.sock");
    let plugin = Plugin::serve(UnixListener::bind(&socket).expect("a socket"), rule);
    bed.host()
        .shell(&format!(
            "mkdir -p /run/docker/plugins && ln -s {} /run/docker/plugins/rule.sock",
            socket.display()
        ))
        .ok();
    let guarded = Guarded { bed, plugin, file };
    guarded.configure(&json!({"authorization-plugins": ["rule"]}));
    eventually("the plugin is asked", || guarded.is_asked());
    Some(guarded)
}

/// Nobody gets a privileged container.
fn no_privileges(verb: &str, shown: &Value) -> Value {
    let body = decode(&shown["RequestBody"]).to_ascii_lowercase();
    if verb.ends_with("Req") && body.contains("\"privileged\":true") {
        return json!({"Allow": false, "Msg": "no privileges"});
    }
    json!({"Allow": true})
}

fn raw(bed: &Bed, headers: &str, body: &[u8]) -> Response {
    let path = format!("{API}/containers/create?name=web");
    bed.http().exchange("POST", &path, headers, body).expect("an answer")
}

const PRIVILEGED: &str = r#"{"Image":"busybox","HostConfig":{"Privileged":true}}"#;
const KIND: &str = "Content-Type: application/json\r\n";

#[track_caller]
fn not_there(bed: &Bed) {
    bed.http().get("/containers/web/json").refused(404);
}

#[test]
fn what_a_plugin_refuses_does_not_happen() {
    let Some(guarded) = guarded(Box::new(no_privileges)) else { return };
    let (bed, plugin) = (&guarded.bed, &guarded.plugin);
    plugin.seen();
    assert_eq!(
        raw(bed, KIND, PRIVILEGED.as_bytes()).refused(403),
        "authorization denied by plugin rule: no privileges"
    );
    assert_eq!(plugin.seen(), ["Req POST /v1.41/containers/create?name=web"]);
    not_there(bed);
    plugin.seen();
    // Allowed, and the answer is shown too; attaching takes the connection over in between.
    assert_eq!(bed.run(&["run", "--rm", "-i", "busybox", "echo", "out"]).ok(), "out");
    let seen = plugin.seen().join("\n");
    has(&seen, &["Res POST", "/containers/create 201", "attach?", " 101", "/start 204"]);
    has(
        &bed.run(&["run", "--rm", "--privileged", "busybox", "true"]).stderr,
        &["authorization denied by plugin rule: no privileges"],
    );
    guarded.end();
}

#[test]
fn an_answer_can_be_withheld() {
    let rule = |verb: &str, shown: &Value| {
        let hijack = shown["ResponseStatusCode"] == json!(101);
        let names = verb.ends_with("Res") && decode(&shown["ResponseBody"]).contains("secret-name");
        json!({"Allow": !hijack && !names, "Msg": "not for you"})
    };
    let Some(guarded) = guarded(Box::new(rule)) else { return };
    let bed = &guarded.bed;
    bed.http().post("/containers/create?name=web", &json!({"Image": "busybox", "Cmd": ["true"]})).expect(201);
    bed.http().get("/containers/web/json").expect(200);
    let hijacked = bed.http().hijack("/containers/web/attach?stream=1&stdout=1", None).expect("an answer");
    assert_eq!(hijacked.status, 403);
    has(&String::from_utf8_lossy(&hijacked.refusal), &["authorization denied by plugin rule: not for you"]);
    bed.http().act("/containers/web/rename?name=secret-name").expect(204);
    bed.http().get("/containers/web/json").refused(404);
    bed.http().get("/containers/secret-name/json").refused(403);
    guarded.end();
}

#[test]
fn cve_2024_41110_every_body_is_shown_whatever_its_length_is_said_to_be() {
    let Some(guarded) = guarded(Box::new(no_privileges)) else { return };
    let (bed, plugin) = (&guarded.bed, &guarded.plugin);
    // Chunked: no length at all.
    let chunked = format!("{:x}\r\n{PRIVILEGED}\r\n0\r\n\r\n", PRIVILEGED.len());
    let mut stream = UnixStream::connect(bed.socket()).expect("a connection");
    let head = format!(
        "POST {API}/containers/create?name=web HTTP/1.1\r\nHost: x\r\n{KIND}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{chunked}").as_bytes()).expect("written");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    has(&answer, &["403 Forbidden", "no privileges"]);
    not_there(bed);
    // A length of nought means that there is no body: also for what creates.
    let mut stream = UnixStream::connect(bed.socket()).expect("a connection");
    let head = format!(
        "POST {API}/containers/create?name=web HTTP/1.1\r\nHost: x\r\n{KIND}Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{PRIVILEGED}").as_bytes()).expect("written");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    has(&answer, &["400 Bad Request", "config cannot be empty"]);
    not_there(bed);
    // Both headers contradict each other.
    let mut stream = UnixStream::connect(bed.socket()).expect("a connection");
    let head = format!(
        "POST {API}/containers/create?name=web HTTP/1.1\r\nHost: x\r\n{KIND}Content-Length: 0\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{chunked}").as_bytes()).expect("written");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.contains("403 Forbidden") || answer.contains("400 Bad Request"), "{answer}");
    not_there(bed);
    // Another type of content, or none, or names in other letters.
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/JSON; charset=utf-8\r\n"] {
        assert_eq!(raw(bed, kind, PRIVILEGED.as_bytes()).status, 403, "{kind}");
    }
    let other = PRIVILEGED.replace("HostConfig", "hostconfig").replace("Privileged", "PRIVILEGED");
    assert_eq!(raw(bed, KIND, other.as_bytes()).status, 403);
    not_there(bed);
    assert!(plugin.seen().len() >= 6);
    guarded.end();
}

#[test]
fn cve_2026_34040_a_body_too_long_to_be_shown_is_refused() {
    let Some(guarded) = guarded(Box::new(no_privileges)) else { return };
    let (bed, plugin) = (&guarded.bed, &guarded.plugin);
    plugin.seen();
    let padding = "x".repeat(1 << 20);
    let body = PRIVILEGED.replace("{\"Image\"", &format!("{{\"Labels\":{{\"a\":\"{padding}\"}},\"Image\""));
    has(&raw(bed, KIND, body.as_bytes()).refused(403), &["the request body cannot be shown to plugins"]);
    assert_eq!(plugin.seen(), Vec::<String>::new(), "not even a part of it");
    not_there(bed);
    // Just short enough is shown whole.
    let padding = "x".repeat((1 << 20) - 200);
    let body = PRIVILEGED.replace("{\"Image\"", &format!("{{\"Labels\":{{\"a\":\"{padding}\"}},\"Image\""));
    has(&raw(bed, KIND, body.as_bytes()).refused(403), &["no privileges"]);
    // Archives are longer, and go by unseen: their handlers do nothing else with them.
    bed.load(&image::busybox());
    guarded.end();
}

#[test]
fn a_plugin_that_fails_lets_nothing_through() {
    let rule = |_: &str, shown: &Value| match shown["RequestUri"].as_str() {
        Some(uri) if uri.ends_with("/info") => json!({"Err": "out of order"}),
        Some(uri) if uri.ends_with("/version") => json!("odd"),
        _ => json!({"Allow": true}),
    };
    let Some(guarded) = guarded(Box::new(rule)) else { return };
    let bed = &guarded.bed;
    has(
        &bed.http().get("/info").refused(500),
        &["plugin rule failed with error: AuthZPlugin.AuthZReq: out of order"],
    );
    has(&bed.http().get("/version").refused(500), &["its answer cannot be read"]);
    bed.host().shell("mv /run/docker/plugins/rule.sock /run/docker/plugins/gone.sock").ok();
    has(&bed.http().get("/info").refused(500), &["plugin \"rule\" not found"]);
    bed.host().shell("mv /run/docker/plugins/gone.sock /run/docker/plugins/rule.sock").ok();
    bed.http().get("/_ping").expect(200);
    guarded.end();
}

/// Whoever has a file's descriptor may do more with it than a plugin let through.
#[test]
fn a_copy_under_a_plugin_is_an_archive_that_it_decides_on() {
    let rule = |verb: &str, shown: &Value| {
        let uri = shown["RequestUri"].as_str().unwrap_or_default();
        let refused = verb == "AuthZPlugin.AuthZReq" && uri.contains("archive") && uri.contains("secret");
        json!({"Allow": !refused, "Msg": "no secrets"})
    };
    let Some(guarded) = guarded(Box::new(rule)) else { return };
    let (bed, plugin) = (&guarded.bed, &guarded.plugin);
    bed.run(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    let script = "dd if=/dev/zero of=/secret bs=1M count=1 && truncate -s 8M /open";
    bed.run(&["exec", "one", "sh", "-c", script]).ok();
    let out = bed.folder("out");
    plugin.seen();
    bed.run(&["cp", "one:/open", out.to_str().expect("UTF-8")]).ok();
    has(&plugin.seen().join("\n"), &["Req GET /v1.50/containers/one/archive?path=%2Fopen", " 200"]);
    // A hole came as zeros: the file's descriptor did not come.
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(out.join("open")).expect("there"));
    assert!(blocks >= 16_000, "{blocks} blocks");
    let refused = bed.run(&["cp", "one:/secret", out.to_str().expect("UTF-8")]);
    has(refused.fails(1), &["authorization denied by plugin rule: no secrets"]);
    assert!(!out.join("secret").exists());
    guarded.end();
}
