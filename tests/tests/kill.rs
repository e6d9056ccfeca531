//! The daemon is killed in the middle of whatever it does, again and again, and must come back knowing all that it
//! ever acknowledged.
//!
//! Workers create, start, exec, stop, pause, rename, update, copy into, commit, prune and remove containers and their
//! volumes, let some end that a policy starts again, have their health checked, and write down what was acknowledged.
//! Every so often the daemon gets a `SIGKILL` and is started again; then the workers rest while everything they wrote down is held
//! against what the new daemon says and against the processes that really run.
//! `CORTEN_TEST_SEED` repeats a run (as far as time allows), `CORTEN_TEST_SECONDS` makes it longer.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::host::program_name;
use testkit::http::API;
use testkit::process::slowness;
use testkit::{Bed, BedOptions, Deadline, Engine, Http, image};
use tests::is_corten;

const WORKERS: usize = 4;
/// Containers that a worker keeps at most.
const EACH_MAX: usize = 5;
/// What containers run; found by this among the host's processes.
const COMMAND: [&str; 2] = ["sleep", "777777"];

/// What is known of a container. Names in *-ing: the verb was sent and no answer came (yet).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Creating,
    Created,
    Starting,
    Running,
    Pausing,
    Paused,
    Unpausing,
    /// Its process is told to end, and a policy to start it again.
    Ending,
    Stopping,
    Stopped,
    Renaming,
    Removing,
    /// Half removed: the daemon says so, and another removal must end it.
    Dead,
    Gone,
}

impl Fact {
    /// Whether the daemon may say this of it; none: that it does not know it.
    fn allows(self, status: Option<&str>) -> bool {
        match self {
            Self::Creating => matches!(status, None | Some("created")),
            Self::Created => status == Some("created"),
            // A start that was cut short may be undone, finished, or seen as an end.
            Self::Starting => matches!(status, Some("created" | "running" | "exited")),
            Self::Running | Self::Ending => status == Some("running"),
            Self::Pausing | Self::Unpausing => matches!(status, Some("running" | "paused")),
            Self::Paused => status == Some("paused"),
            Self::Stopping => matches!(status, Some("running" | "paused" | "exited")),
            Self::Stopped => status == Some("exited"),
            Self::Renaming => status.is_some(),
            Self::Removing => true,
            Self::Dead => matches!(status, None | Some("removing" | "dead" | "exited")),
            Self::Gone => status.is_none(),
        }
    }

    /// Whether it is known how the last verb ended.
    fn is_settled(self) -> bool {
        matches!(self, Self::Created | Self::Running | Self::Paused | Self::Stopped | Self::Dead | Self::Gone)
    }

    /// Whether it has a process.
    fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// What it is from now on, as the daemon said so.
    fn settled(status: Option<&str>) -> Self {
        match status {
            None => Self::Gone,
            Some("created") => Self::Created,
            Some("running") => Self::Running,
            Some("paused") => Self::Paused,
            Some("exited") => Self::Stopped,
            Some(_) => Self::Dead,
        }
    }
}

type Facts = Mutex<BTreeMap<String, Fact>>;
/// By container: the limit of processes that was acknowledged last, and those that were asked for since.
type Limits = Mutex<BTreeMap<String, Vec<u64>>>;

/// What was put into containers and made of them.
#[derive(Debug, Default)]
struct Files {
    /// Numbers that were copied into a container: the last that was acknowledged, and the last that was sent.
    copies: BTreeMap<String, (usize, usize)>,
    /// Images that were acknowledged.
    images: BTreeSet<String>,
}

/// The names that a container may have: the one that was acknowledged last, and those that were asked for since.
type Names = Mutex<BTreeMap<String, Vec<String>>>;

/// A small generator of numbers that look random (an LCG with the constants of Numerical Recipes).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 16) % sides
    }
}

struct Worker<'a> {
    number: usize,
    socket: PathBuf,
    dice: Dice,
    facts: &'a Facts,
    files: &'a Mutex<Files>,
    limits: &'a Limits,
    names: &'a Names,
    /// Volumes of pruned containers may have been left.
    pruned: &'a AtomicBool,
    /// Of volumes that have a name.
    volumes: &'a Facts,
    /// Held while a verb is on its way; taken whole for a check.
    gate: &'a RwLock<()>,
    ended: &'a AtomicBool,
    made: usize,
}

impl Worker<'_> {
    fn run(mut self) {
        while !self.ended.load(Ordering::Relaxed) {
            let failed = {
                let _gate = self.gate.read().expect("no check panicked");
                self.step().is_err()
            };
            if failed {
                // No daemon; its successor is on the way.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// One verb; an error is the connection's.
    fn step(&mut self) -> std::io::Result<()> {
        if self.dice.roll(4) == 0 && self.volume()? {
            return Ok(());
        }
        let mine = self.mine();
        let start = format!("w{}-", self.number);
        let settled: Vec<_> = mine.iter().filter(|(_, fact)| fact.is_settled()).collect();
        if settled.is_empty() || mine.len() < EACH_MAX && self.dice.roll(3) == 0 {
            if mine.len() >= 2 * EACH_MAX {
                // All is uncertain until the next check.
                return Err(std::io::ErrorKind::NotConnected.into());
            }
            self.made += 1;
            return self.create(&format!("{start}{}", self.made));
        }
        let pick = usize::try_from(self.dice.roll(settled.len() as u64)).expect("small");
        let (name, fact) = settled[pick];
        match (fact, self.dice.roll(10)) {
            (Fact::Dead, _) => self.verb(name, "DELETE", "?force=1&v=1", Fact::Removing, Fact::Gone),
            (_, 4) => self.copy(name),
            (_, 5) => self.commit(name),
            (_, 6) => self.update(name),
            (_, 7) => self.rename(name),
            (Fact::Created | Fact::Stopped, 0..=2) => {
                self.verb(name, "POST", "/start", Fact::Starting, Fact::Running)
            }
            (Fact::Created | Fact::Stopped, 3) => self.prune(),
            (Fact::Running, 0 | 1) => self.exec(name),
            (Fact::Running, 2) => self.verb(name, "POST", "/pause", Fact::Pausing, Fact::Paused),
            (Fact::Running, 3) => self.end(name),
            (Fact::Paused, 0..=3) => self.verb(name, "POST", "/unpause", Fact::Unpausing, Fact::Running),
            (Fact::Running | Fact::Paused, 8) => {
                self.verb(name, "POST", "/stop?t=0", Fact::Stopping, Fact::Stopped)
            }
            // With the volumes that nobody named.
            _ => self.verb(name, "DELETE", "?force=1&v=1", Fact::Removing, Fact::Gone),
        }
    }

    fn mine(&self) -> Vec<(String, Fact)> {
        let start = format!("w{}-", self.number);
        let facts = self.facts.lock().expect("facts");
        let known = facts.iter().filter(|(name, fact)| name.starts_with(&start) && **fact != Fact::Gone);
        known.map(|(name, fact)| (name.clone(), *fact)).collect()
    }

    /// Removes the volume of a container that is gone, or makes one; whether there was something to do.
    fn volume(&mut self) -> std::io::Result<bool> {
        let start = format!("w{}-", self.number);
        let idle = {
            let (facts, volumes) = (self.facts.lock().expect("facts"), self.volumes.lock().expect("facts"));
            let idle = |name: &String| matches!(facts.get(name), None | Some(Fact::Gone));
            let there = |(name, fact): &(&String, &Fact)| {
                **fact == Fact::Created && name.starts_with(&start) && idle(name)
            };
            volumes.iter().find(there).map(|(name, _)| name.clone())
        };
        let mut http = Http::new(&self.socket);
        if let Some(name) = idle {
            self.note_volume(&name, Fact::Removing);
            let answer = http.ask("DELETE", &format!("/volumes/{name}"), None)?;
            assert_eq!(answer.status, 204, "{answer:?}");
            self.note_volume(&name, Fact::Gone);
            return Ok(true);
        }
        if self.dice.roll(3) > 0 {
            return Ok(false);
        }
        self.made += 1;
        let name = format!("{start}{}", self.made);
        self.note_volume(&name, Fact::Creating);
        let answer = http.ask("POST", "/volumes/create", Some(&json!({ "Name": name })))?;
        assert_eq!(answer.status, 201, "{answer:?}");
        self.note_volume(&name, Fact::Created);
        Ok(true)
    }

    fn note_volume(&self, name: &str, fact: Fact) {
        self.volumes.lock().expect("facts").insert(name.to_owned(), fact);
    }

    fn note(&self, name: &str, fact: Fact) {
        self.facts.lock().expect("facts").insert(name.to_owned(), fact);
    }

    fn create(&mut self, name: &str) -> std::io::Result<()> {
        let ports = match self.dice.roll(2) {
            0 => json!({ "80/tcp": [{ "HostPort": "" }] }),
            _ => json!({}),
        };
        // Filled from the image (`/home`), and one that nobody named.
        let binds = match self.dice.roll(2) {
            0 => json!([format!("{name}:/home")]),
            _ => json!([]),
        };
        let named = binds.as_array().is_some_and(|binds| !binds.is_empty());
        // Nanoseconds.
        let health = match self.dice.roll(2) {
            0 => json!({ "Test": ["CMD", "true"], "Interval": 200_000_000 }),
            _ => Value::Null,
        };
        let policy = if restarts(name) { "unless-stopped" } else { "no" };
        let body = json!({
            "Image": "busybox",
            "Cmd": COMMAND,
            "Volumes": { "/etc": {} },
            "Labels": { "key": name, "worker": self.number.to_string() },
            "Healthcheck": health,
            "HostConfig": {
                "PortBindings": ports,
                "Binds": binds,
                "RestartPolicy": { "Name": policy },
                // The program would not hear a signal as the first process.
                "Init": true,
            },
        });
        self.note(name, Fact::Creating);
        self.names.lock().expect("names").insert(name.to_owned(), vec![name.to_owned()]);
        if named {
            self.note_volume(name, Fact::Creating);
        }
        let answer =
            Http::new(&self.socket).ask("POST", &format!("/containers/create?name={name}"), Some(&body))?;
        assert_eq!(answer.status, 201, "{answer:?}");
        self.note(name, Fact::Created);
        if named {
            self.note_volume(name, Fact::Created);
        }
        Ok(())
    }

    fn verb(
        &mut self,
        name: &str,
        method: &str,
        path: &str,
        during: Fact,
        after: Fact,
    ) -> std::io::Result<()> {
        self.note(name, during);
        let answer =
            Http::new(&self.socket).ask(method, &format!("/containers/{}{path}", self.now(name)), None)?;
        assert!(matches!(answer.status, 204 | 304), "{answer:?}");
        self.note(name, after);
        Ok(())
    }

    /// The name that a container has now, if all is known of it.
    fn now(&self, name: &str) -> String {
        self.names.lock().expect("names")[name][0].clone()
    }

    fn rename(&mut self, name: &str) -> std::io::Result<()> {
        self.made += 1;
        let (old, new) = (self.now(name), format!("{name}-{}", self.made));
        let names = |change: &dyn Fn(&mut Vec<String>)| {
            change(self.names.lock().expect("names").entry(name.to_owned()).or_default());
        };
        names(&|names| names.push(new.clone()));
        // Until the answer is known, the next step must not count on a name.
        let before = self.facts.lock().expect("facts")[name];
        self.note(name, Fact::Renaming);
        let answer =
            Http::new(&self.socket).ask("POST", &format!("/containers/{old}/rename?name={new}"), None)?;
        assert_eq!(answer.status, 204, "{answer:?}");
        names(&|names| *names = vec![new.clone()]);
        self.note(name, before);
        Ok(())
    }

    /// Lets the process end by itself; a policy starts it again, or leaves it.
    fn end(&mut self, name: &str) -> std::io::Result<()> {
        let path = format!("/containers/{}", self.now(name));
        let mut http = Http::new(&self.socket);
        let state = |http: &mut Http| -> std::io::Result<Value> {
            Ok(http.ask("GET", &format!("{path}/json"), None)?.json()["State"].clone())
        };
        let before = state(&mut http)?;
        self.note(name, if restarts(name) { Fact::Ending } else { Fact::Stopping });
        let answer = http.ask("POST", &format!("{path}/kill?signal=USR1"), None)?;
        assert_eq!(answer.status, 204, "{answer:?}");
        let until = Deadline::after(Duration::from_secs(20));
        loop {
            let now = state(&mut http)?;
            if restarts(name) && now["Running"] == json!(true) && now["StartedAt"] != before["StartedAt"] {
                self.note(name, Fact::Running);
                return Ok(());
            }
            if !restarts(name) && now["Status"] == json!("exited") {
                self.note(name, Fact::Stopped);
                return Ok(());
            }
            assert!(!until.left().is_zero(), "{name} was to end, and is {now}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Prunes the worker's own containers: all that do not run, and no other.
    fn prune(&mut self) -> std::io::Result<()> {
        let mine = self.mine();
        // Those of which it is not known whether they run may go or stay.
        let may_go = mine.iter().filter(|(_, fact)| !fact.is_alive());
        may_go.for_each(|(name, _)| self.note(name, Fact::Removing));
        let idle = mine.iter().filter(|(_, fact)| matches!(fact, Fact::Created | Fact::Stopped));
        self.pruned.store(true, Ordering::Relaxed);
        let filter = format!("%7B%22label%22%3A%5B%22worker%3D{}%22%5D%7D", self.number);
        let answer =
            Http::new(&self.socket).ask("POST", &format!("/containers/prune?filters={filter}"), None)?;
        assert_eq!(answer.status, 200, "{answer:?}");
        idle.for_each(|(name, _)| self.note(name, Fact::Gone));
        Ok(())
    }

    fn copy(&mut self, name: &str) -> std::io::Result<()> {
        self.made += 1;
        let number = self.made;
        let note = |change: &dyn Fn(&mut (usize, usize))| {
            change(self.files.lock().expect("files").copies.entry(name.to_owned()).or_default());
        };
        note(&|copied| copied.1 = number);
        // Larger than what is written at once, so that a kill finds it half written.
        let content = format!("{number}\n").repeat(50_000);
        let archive = image::layer(&[image::Entry::file("copied", 0o644, content)]);
        let path = format!("{API}/containers/{}/archive?path=/etc", self.now(name));
        let answer = Http::new(&self.socket).exchange(
            "PUT",
            &path,
            "Content-Type: application/x-tar\r\n",
            &archive,
        )?;
        assert_eq!(answer.status, 200, "{answer:?}");
        note(&|copied| copied.0 = number);
        Ok(())
    }

    fn commit(&mut self, name: &str) -> std::io::Result<()> {
        self.made += 1;
        let image = format!("{name}-image:{}", self.made);
        let path = format!("/commit?container={}&repo={}", self.now(name), image.replace(':', "&tag="));
        let answer = Http::new(&self.socket).ask("POST", &path, None)?;
        assert_eq!(answer.status, 201, "{answer:?}");
        self.files.lock().expect("files").images.insert(image);
        Ok(())
    }

    fn update(&mut self, name: &str) -> std::io::Result<()> {
        let wanted = 10 + self.dice.roll(1000);
        let mut limits = self.limits.lock().expect("limits");
        limits.entry(name.to_owned()).or_insert_with(|| vec![0]).push(wanted);
        drop(limits);
        let body = json!({ "PidsLimit": wanted });
        let path = format!("/containers/{}/update", self.now(name));
        let answer = Http::new(&self.socket).ask("POST", &path, Some(&body))?;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.limits.lock().expect("limits").insert(name.to_owned(), vec![wanted]);
        Ok(())
    }

    fn exec(&mut self, name: &str) -> std::io::Result<()> {
        let mut http = Http::new(&self.socket);
        let body = json!({ "Cmd": ["echo", name], "AttachStdout": true });
        let made = http.ask("POST", &format!("/containers/{}/exec", self.now(name)), Some(&body))?;
        assert_eq!(made.status, 201, "{made:?}");
        let exec = made.json()["Id"].as_str().expect("id").to_owned();
        let stream = http.hijack(&format!("/exec/{exec}/start"), Some(&json!({})))?;
        assert_eq!(stream.status, 101);
        // The stream ends early when the daemon does.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stream.frames()));
        Ok(())
    }
}

/// Whether a policy starts the container again when it ends.
fn restarts(name: &str) -> bool {
    name.ends_with(['0', '3', '6', '9'])
}

/// All containers, once policies have done what they had to do.
fn settled_list(bed: &Bed, context: &str) -> Value {
    let list = || bed.http().get("/containers/json?all=1").expect(200).json();
    let states = |list: &Value| -> Vec<(Value, Value)> {
        list.as_array().expect("a list").iter().map(|one| (one["Id"].clone(), one["State"].clone())).collect()
    };
    let mut last = list();
    let still = Deadline::after(Duration::from_secs(30)).poll(|| {
        // A start must not take longer than this.
        std::thread::sleep(Duration::from_millis(100) * slowness());
        let now = list();
        let same = states(&now) == states(&last);
        let waits = states(&now).iter().any(|(_, state)| *state == json!("restarting"));
        last = now;
        (same && !waits).then_some(())
    });
    assert!(still.is_some(), "{context}: containers do not come to rest: {last}");
    last
}

/// Holds what was acknowledged against what is; then the unknown is settled.
fn check(
    bed: &Bed,
    facts: &Facts,
    volumes: &Facts,
    files: &Mutex<Files>,
    names: &Names,
    pruned: bool,
    context: &str,
) {
    if pruned {
        // As with Docker, pruned containers leave their volumes.
        // Older versions of the API would take those with names as well.
        let pruned = bed.http().exchange("POST", "/v1.50/volumes/prune", "", b"");
        pruned.expect("an answer").expect(200);
    }
    let list = settled_list(bed, context);
    let mut seen: BTreeMap<String, &Value> = BTreeMap::new();
    for container in list.as_array().expect("a list") {
        let key = container["Labels"]["key"].as_str().expect("a key").to_owned();
        let name = container["Names"][0].as_str().expect("a name").trim_start_matches('/').to_owned();
        let mut names = names.lock().expect("names");
        let possible = names.get_mut(&key).expect("a name");
        assert!(possible.contains(&name), "{context}: {key} is named {name}, not one of {possible:?}");
        *possible = vec![name];
        assert!(seen.insert(key.clone(), container).is_none(), "{context}: two containers {key}");
    }
    let mut facts = facts.lock().expect("facts");
    let mut wrong = Vec::new();
    for (name, fact) in facts.iter_mut() {
        let status = seen.get(name).map(|container| container["State"].as_str().expect("a state"));
        if !fact.allows(status) {
            wrong.push(format!("{name} was {fact:?} and is now {status:?}"));
        }
        *fact = Fact::settled(status);
    }
    wrong.extend(
        seen.keys().filter(|name| !facts.contains_key(*name)).map(|name| format!("nobody made {name}")),
    );
    assert!(wrong.is_empty(), "{context}: {wrong:#?}");
    let running = facts.values().filter(|fact| **fact == Fact::Running).count();
    let alive = facts.values().filter(|fact| fact.is_alive()).count();
    drop(facts);
    check_processes(bed, running, alive, context);
    check_addresses(seen.values().copied(), context);
    check_health(bed, &seen, context);
    let named = |key: &str| Some(seen.get(key)?["Id"].as_str()?.to_owned());
    check_files(bed, &mut files.lock().expect("files"), named, context);
    check_volumes(bed, volumes, &seen, context);
}

/// Checks of health go on, and none failed for the daemon's end.
fn check_health(bed: &Bed, containers: &BTreeMap<String, &Value>, context: &str) {
    for (name, container) in containers {
        let state = || bed.inspect(container["Id"].as_str().expect("an ID"))["State"].clone();
        let first = state();
        if first["Health"].is_null() || first["Status"] != json!("running") {
            continue;
        }
        // As with Docker, it counts as unhealthy while it is paused, and until it is looked at again.
        let healthy = || (state()["Health"]["Status"] == json!("healthy")).then_some(());
        let soon = Deadline::after(Duration::from_secs(10)).poll(healthy);
        assert!(soon.is_some(), "{context}: {name}: {}", state());
        let log = state()["Health"]["Log"].as_array().cloned().unwrap_or_default();
        assert!(log.iter().all(|one| one["ExitCode"] == json!(0)), "{context}: {name}: {}", state());
    }
}

/// What was copied in is there, and images are whole. They have served then.
fn check_files(bed: &Bed, files: &mut Files, find: impl Fn(&str) -> Option<String>, context: &str) {
    for (name, (acknowledged, sent)) in &mut files.copies {
        let Some(id) = find(name) else { continue };
        let answer = bed.http().get(&format!("/containers/{id}/archive?path=/etc/copied"));
        if *acknowledged == 0 {
            assert!(matches!(answer.status, 200 | 404), "{context}: {answer:?}");
            continue;
        }
        // One that was cut off replaced it, or took it away; then the next is to be counted on again.
        if sent != acknowledged {
            (*acknowledged, *sent) = (0, 0);
            continue;
        }
        let text = answer.expect(200).text();
        let lines =
            text.lines().filter(|line| line.trim_end_matches('\0').ends_with(&acknowledged.to_string()));
        assert!(lines.count() >= 50_000, "{context}: {name} lost what was copied into it");
    }
    for image in std::mem::take(&mut files.images) {
        let inspect = bed.http().get(&format!("/images/{image}/json")).expect(200).json();
        assert!(inspect["Id"].is_string(), "{context}: {inspect}");
        bed.http().post("/containers/create?name=probe", &json!({ "Image": image })).expect(201);
        bed.http().delete("/containers/probe?v=1").expect(204);
        // Whatever still runs on it keeps it; its name goes in any case.
        bed.http().delete(&format!("/images/{image}?force=1")).expect(200);
    }
}

/// No volume is lost or left, none is used that nobody has, and none counts as unused that somebody has.
fn check_volumes(bed: &Bed, facts: &Facts, containers: &BTreeMap<String, &Value>, context: &str) {
    let names = |path: &str| -> BTreeSet<String> {
        let list = bed.http().get(path).expect(200).json();
        let all = list["Volumes"].as_array().cloned().unwrap_or_default();
        all.iter().map(|volume| volume["Name"].as_str().expect("a name").to_owned()).collect()
    };
    let there = names("/volumes");
    let dangling = names("/volumes?filters=%7B%22dangling%22%3A%5B%22true%22%5D%7D");
    let mounts =
        containers.values().flat_map(|container| container["Mounts"].as_array().into_iter().flatten());
    let used: BTreeSet<String> =
        mounts.map(|mount| mount["Name"].as_str().expect("a volume").to_owned()).collect();
    assert_eq!(there.difference(&dangling).cloned().collect::<BTreeSet<_>>(), used, "{context}");
    let mut facts = facts.lock().expect("facts");
    let mut wrong = Vec::new();
    for (name, fact) in facts.iter_mut() {
        let status = there.contains(name).then_some("created");
        let fits = match *fact {
            Fact::Creating | Fact::Removing => true,
            fact => fact.allows(status),
        };
        if !fits {
            wrong.push(format!("volume {name} was {fact:?} and is now {status:?}"));
        }
        *fact = Fact::settled(status);
    }
    // The others have no name; they go with their containers.
    wrong.extend(
        there
            .iter()
            .filter(|name| !facts.contains_key(*name) && !used.contains(*name))
            .map(|name| format!("volume {name} is nobody's")),
    );
    assert!(wrong.is_empty(), "{context}: {wrong:#?}");
    // Those that the image filled are whole, and what is on disk is what is known.
    let root = bed.host().folder().join("data/volumes");
    let on_disk = || -> BTreeSet<String> {
        let entries = std::fs::read_dir(&root).expect("the volumes").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    if Deadline::after(Duration::from_secs(10)).poll(|| (on_disk() == there).then_some(())).is_none() {
        panic!("{context}: volumes {there:?}, directories {:?}", on_disk());
    }
    for container in containers.values() {
        for mount in container["Mounts"].as_array().into_iter().flatten() {
            let (name, target) = (mount["Name"].as_str().expect("a name"), mount["Destination"].as_str());
            let filled = if target == Some("/etc") { "passwd" } else { "user" };
            assert!(root.join(name).join("_data").join(filled).exists(), "{context}: {container}");
        }
    }
}

/// Updates that were acknowledged hold.
fn check_limits(bed: &Bed, facts: &Facts, limits: &Limits, names: &Names, context: &str) {
    let mut limits = limits.lock().expect("limits");
    limits.retain(|name, _| facts.lock().expect("facts").get(name).is_some_and(|fact| *fact != Fact::Gone));
    for (name, possible) in limits.iter_mut() {
        let found = bed.inspect(&names.lock().expect("names")[name][0])["HostConfig"]["PidsLimit"]
            .as_u64()
            .unwrap_or(0);
        assert!(
            possible.contains(&found),
            "{context}: {name} is limited to {found}, not one of {possible:?}"
        );
        *possible = vec![found];
    }
}

/// As many processes run as containers; each has one keeper, and the daemon may hold a few in reserve.
fn check_processes(bed: &Bed, running: usize, alive: usize, context: &str) {
    const RESERVE: usize = 8;
    let command = COMMAND.join(" ");
    let even = || {
        let processes = bed.host().processes();
        let sleepers = processes.iter().filter(|(_, line)| *line == command).count();
        // Inits are the same program.
        let is_shim = |(pid, line): &&(u32, String)| {
            program_name(*pid) == "corten-shim" && !line.starts_with("/sbin/docker-init")
        };
        let shims = processes.iter().filter(is_shim).count();
        let kept = !is_corten(bed) || (alive..=alive + RESERVE).contains(&shims);
        // One may be paused before its init has made it.
        ((running..=alive).contains(&sleepers) && kept).then_some(())
    };
    // Whatever was half made is being undone.
    if Deadline::after(Duration::from_secs(10)).poll(even).is_none() {
        let list = bed.http().get("/containers/json?all=1").expect(200).json();
        let now: Vec<_> =
            list.as_array().into_iter().flatten().map(|one| (&one["Id"], &one["State"])).collect();
        panic!(
            "{context}: {running} of {alive} containers run, but these processes: {:#?}; by now {now:#?}",
            bed.host().processes()
        );
    }
}

/// No address and no port is given twice.
fn check_addresses<'a>(containers: impl Iterator<Item = &'a Value>, context: &str) {
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for container in containers.filter(|container| container["State"] == json!("running")) {
        for network in
            container["NetworkSettings"]["Networks"].as_object().into_iter().flat_map(|map| map.values())
        {
            let address = network["IPAddress"].as_str().unwrap_or_default().to_owned();
            assert!(!address.is_empty() && addresses.insert(address), "{context}: {container}");
        }
        for port in container["Ports"].as_array().into_iter().flatten() {
            if let (Some(port), Some(ip)) = (port["PublicPort"].as_u64(), port["IP"].as_str()) {
                assert!(ports.insert((port, ip.to_owned())), "{context}: {container}");
            }
        }
    }
}

fn bed() -> Bed {
    let engine = Engine::from_environment();
    // A peer needs to be told to leave containers running.
    let flags = if engine == Engine::Docker { vec!["--live-restore".to_owned()] } else { Vec::new() };
    let bed = Bed::with(BedOptions { engine, flags, ..BedOptions::default() });
    bed.load(&image::busybox());
    bed
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_leaks() {
    let seed = number("CORTEN_TEST_SEED", 20_260_101);
    let until = Deadline::after(Duration::from_secs(number("CORTEN_TEST_SECONDS", 45)));
    println!("CORTEN_TEST_SEED={seed}");
    let mut bed = bed();
    let (facts, volumes, limits) = (Facts::default(), Facts::default(), Limits::default());
    let (names, pruned) = (Names::default(), AtomicBool::new(false));
    let files = Mutex::default();
    let (gate, ended) = (RwLock::new(()), AtomicBool::new(false));
    let mut dice = Dice(seed);
    let mut kills = 0;
    std::thread::scope(|scope| {
        // Also when a check fails: the workers must end, or the scope never does.
        let _end = EndOnDrop(&ended);
        for number in 0..WORKERS {
            let worker = Worker {
                number,
                socket: bed.socket(),
                dice: Dice(seed + number as u64 + 1),
                facts: &facts,
                files: &files,
                limits: &limits,
                names: &names,
                pruned: &pruned,
                volumes: &volumes,
                gate: &gate,
                ended: &ended,
                made: 0,
            };
            scope.spawn(move || worker.run());
        }
        while !until.left().is_zero() {
            std::thread::sleep(Duration::from_millis(20 + dice.roll(800)));
            bed.kill();
            kills += 1;
            bed.start();
            let _rest = gate.write().expect("no worker panicked");
            let context = format!("after kill {kills} (seed {seed})");
            let pruned = pruned.swap(false, Ordering::Relaxed);
            check(&bed, &facts, &volumes, &files, &names, pruned, &context);
            check_limits(&bed, &facts, &limits, &names, &context);
        }
    });
    let facts = facts.into_inner().expect("facts");
    println!(
        "{kills} kills, {} containers, {} of them left, {} named volumes",
        facts.len(),
        facts.values().filter(|fact| **fact != Fact::Gone).count(),
        volumes.lock().expect("facts").len()
    );
    // The rest (mounts, links, firewall, control groups, files) is looked at when the bed is dropped.
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
