//! The measurements, and the order they are taken in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testkit::image::{Entry, Image};
use testkit::{Bed, BedOptions, Client, Engine, Http, image};

use crate::floor::Floor;
use crate::memory;
use crate::samples::{Kind, Samples, Who};
use crate::{Part, Plan};

/// Size of the file that a container copies to its log, in bytes.
pub const LINES_FILE_BYTES: usize = 64 << 20;
/// Containers that have ended, beside which is listed and started.
pub const STOPPED: usize = 2000;
/// Size of the file that is copied, in bytes.
const LARGE_BYTES: u64 = 200 << 20;
/// Small files that are copied.
const SMALL_FILES: usize = 10_000;
const LINE: &str =
    "a line of a log, as long as many a line is: some words, a number or two (1234), and a path /a/b/c\n";

const NETWORKS: [(&str, Kind, Kind); 3] = [
    ("bridge", Kind::ApiBridge, Kind::CliBridge),
    ("none", Kind::ApiNone, Kind::CliNone),
    ("host", Kind::ApiHost, Kind::CliHost),
];

/// One engine under measurement.
pub struct Subject {
    pub who: Who,
    pub bed: Bed,
    pub http: Http,
}

pub fn everything(plan: &Plan) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    let floor = Floor::new(plan.floor.clone())?;
    let mut subjects = Vec::new();
    for engine in &plan.engines {
        say(&format!("starting {}", engine.name()));
        subjects.push(Subject::new(*engine));
    }
    for subject in &mut subjects {
        samples.versions.insert(subject.who, subject.version());
    }
    let wanted = |part| plan.parts.contains(&part);
    // First: filesystems remember for minutes what was removed, and make new files slowly meanwhile.
    if wanted(Part::Images) {
        crate::images::measure(&mut subjects, &mut samples)?;
    }
    for round in 0..if wanted(Part::Short) { plan.rounds } else { 0 } {
        say(&format!("short measurements, round {} of {}", round + 1, plan.rounds));
        short(plan, &floor, &mut subjects, &mut samples)?;
    }
    let repeats = |part| if wanted(part) { plan.repeats } else { 0 };
    for repeat in 0..repeats(Part::Many) {
        // Once for the peers: a pass with hundreds of containers takes them minutes.
        let turns = subjects.iter_mut().filter(|subject| repeat == 0 || subject.who == Who::Corten);
        for subject in turns {
            say(&format!("many containers, {} of {}: {}", repeat + 1, plan.repeats, subject.who.name()));
            subject.many(plan, &floor, &mut samples)?;
        }
    }
    for repeat in 0..repeats(Part::Logs) {
        for subject in &mut subjects {
            say(&format!("logs, {} of {}: {}", repeat + 1, plan.repeats, subject.who.name()));
            subject.logs(plan, &mut samples)?;
        }
    }
    for repeat in 0..repeats(Part::Copies) {
        for subject in &mut subjects {
            say(&format!("copies, {} of {}: {}", repeat + 1, plan.repeats, subject.who.name()));
            subject.copies(&mut samples)?;
        }
    }
    Ok(samples)
}

fn short(plan: &Plan, floor: &Floor, subjects: &mut [Subject], samples: &mut Samples) -> anyhow::Result<()> {
    for (network, api, cli) in NETWORKS {
        // In turns, so that a busy moment of the machine meets everyone; the first of each pair fills caches that
        // the others emptied.
        for _ in 0..plan.samples {
            samples.add(api, Who::Floor, floor.samples(network, 2)?[1]);
            for subject in &mut *subjects {
                subject.cycle(network)?;
                samples.add(api, subject.who, subject.cycle(network)?);
                subject.cli_run(network)?;
                samples.add(cli, subject.who, subject.cli_run(network)?);
            }
        }
    }
    for subject in &mut *subjects {
        subject.execs(plan.samples, samples)?;
    }
    Ok(())
}

impl Subject {
    /// A daemon without images.
    pub fn empty(engine: Engine) -> Self {
        let bed = Bed::with(BedOptions { engine, ..BedOptions::default() });
        let http = bed.http().with_timeout(Duration::from_secs(300));
        Self { who: engine.into(), bed, http }
    }

    fn new(engine: Engine) -> Self {
        let subject = Self::empty(engine);
        subject.bed.load(&image::busybox());
        let lines = LINE.repeat(LINES_FILE_BYTES / LINE.len());
        let busybox = &image::busybox_program().0;
        let entries = [
            Entry::folder("bin", 0o755),
            Entry::file("bin/cat", 0o755, busybox.clone()),
            Entry::file("lines", 0o644, lines),
        ];
        subject.bed.load(&Image::new("lines:latest", &entries));
        subject
    }

    fn version(&mut self) -> String {
        let version = self.http.get("/version").json();
        version["Version"].as_str().unwrap_or("?").to_owned()
    }

    fn body(&self, image: &str, command: &[&str], network: &str) -> Value {
        json!({
            "Image": image,
            "Cmd": command,
            "HostConfig": { "NetworkMode": network, "CgroupParent": self.bed.host().cgroup() },
        })
    }

    fn create(&mut self, body: &Value) -> anyhow::Result<String> {
        let answer = self.http.ask("POST", "/containers/create", Some(body))?;
        ensure!(answer.status == 201, "{answer:?}");
        Ok(answer.json()["Id"].as_str().context("no id")?.to_owned())
    }

    fn act(&mut self, method: &str, path: &str) -> anyhow::Result<()> {
        let answer = self.http.ask(method, path, None)?;
        ensure!(answer.status < 300, "{answer:?}");
        Ok(())
    }

    /// Create, start, wait, remove over a connection that stays open: milliseconds.
    fn cycle(&mut self, network: &str) -> anyhow::Result<f64> {
        let body = self.body("busybox", &["true"], network);
        let start = Instant::now();
        let id = self.create(&body)?;
        self.act("POST", &format!("/containers/{id}/start"))?;
        self.act("POST", &format!("/containers/{id}/wait"))?;
        self.act("DELETE", &format!("/containers/{id}"))?;
        Ok(milliseconds(start))
    }

    /// `run --rm busybox true` on the command line: milliseconds.
    fn cli_run(&self, network: &str) -> anyhow::Result<f64> {
        let mut arguments = vec!["run", "--rm", "--network", network];
        if self.who == Who::Podman {
            // Its own default stands outside of the test's folder.
            arguments.extend(["--cgroup-parent", self.bed.host().cgroup()]);
        }
        arguments.extend(["busybox", "true"]);
        self.cli(&arguments)
    }

    pub fn cli(&self, arguments: &[&str]) -> anyhow::Result<f64> {
        let mut command = self.bed.command(Client::Own);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        let took = milliseconds(start);
        ensure!(status.success(), "{arguments:?}: {status}");
        Ok(took)
    }

    /// Starts a sleeping container through the API; milliseconds and its ID.
    fn start_sleeper(&mut self) -> anyhow::Result<(f64, String)> {
        let body = self.body("busybox", &["sleep", "100000"], "bridge");
        let start = Instant::now();
        let id = self.create(&body)?;
        self.act("POST", &format!("/containers/{id}/start"))?;
        Ok((milliseconds(start), id))
    }

    fn execs(&mut self, count: usize, samples: &mut Samples) -> anyhow::Result<()> {
        let (_, id) = self.start_sleeper()?;
        for turn in 0..=count {
            let start = Instant::now();
            let body = json!({ "Cmd": ["true"], "AttachStdout": true, "AttachStderr": true });
            let made = self.http.ask("POST", &format!("/containers/{id}/exec"), Some(&body))?;
            let exec = made.json()["Id"].as_str().context("no exec")?.to_owned();
            let stream =
                self.bed.http().hijack(&format!("/exec/{exec}/start"), Some(&json!({ "Detach": false })))?;
            stream.frames();
            let api = milliseconds(start);
            let cli = self.cli(&["exec", &id, "true"])?;
            if turn > 0 {
                samples.add(Kind::ExecApi, self.who, api);
                samples.add(Kind::ExecCli, self.who, cli);
            }
        }
        self.act("DELETE", &format!("/containers/{id}?force=1"))
    }

    /// Everything that needs many containers at once.
    fn many(&mut self, plan: &Plan, floor: &Floor, samples: &mut Samples) -> anyhow::Result<()> {
        let who = self.who;
        let start = Instant::now();
        for _ in 0..plan.many {
            self.start_sleeper()?;
        }
        samples.add(Kind::OneByOne, who, milliseconds(start) / plan.many as f64);
        let memory = memory::look(self.bed.host());
        if who != Who::Podman {
            samples.add(Kind::DaemonMemory, who, memory.daemon);
        }
        samples.add(Kind::ShimMemory, who, memory.shim);
        samples.add(Kind::ShimShare, who, memory.shim_share);
        for _ in 0..plan.samples {
            let start = Instant::now();
            let list = self.http.ask("GET", "/containers/json", None)?.json();
            samples.add(Kind::ApiList, who, milliseconds(start));
            ensure!(list.as_array().map(Vec::len) == Some(plan.many), "not all of them run");
            samples.add(Kind::CliList, who, self.cli(&["ps"])?);
        }

        if who != Who::Podman {
            self.statistics(plan, samples)?;
        }

        self.start_in_parallel(plan.crowd.saturating_sub(plan.many))?;
        self.beside(plan, floor, samples)?;
        self.remove_all()?;

        let start = Instant::now();
        self.start_in_parallel(plan.many)?;
        samples.add(Kind::EightAtATime, who, milliseconds(start) / plan.many as f64);
        if who != Who::Podman {
            self.restart_beside_stopped(samples)?;
        }
        if who == Who::Corten {
            self.crowd_of_stopped(plan, samples)?;
        }
        self.remove_all()
    }

    /// What it costs the daemon to tell of every container, each by a stream of its own, what it uses.
    fn statistics(&mut self, plan: &Plan, samples: &mut Samples) -> anyhow::Result<()> {
        const MEASURED: Duration = Duration::from_secs(10);
        let list = self.http.ask("GET", "/containers/json", None)?.json();
        let ids = list.as_array().into_iter().flatten().filter_map(|one| one["Id"].as_str());
        let mut streams = Vec::new();
        for id in ids {
            let mut http = self.bed.http().with_timeout(Duration::from_secs(60));
            streams.push(http.stream("GET", &format!("/containers/{id}/stats"))?);
        }
        ensure!(streams.len() == plan.many, "not all of them run");
        let ended = std::sync::atomic::AtomicBool::new(false);
        let used = std::thread::scope(|scope| {
            for part in streams.chunks_mut(50) {
                scope.spawn(|| {
                    while !ended.load(Ordering::Relaxed) {
                        for stream in &mut *part {
                            if stream.line().is_err() {
                                return;
                            }
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_secs(3));
            let (before, start) = (memory::daemon_processor_seconds(self.bed.host()), Instant::now());
            std::thread::sleep(MEASURED);
            let used = memory::daemon_processor_seconds(self.bed.host()) - before;
            let share = used / start.elapsed().as_secs_f64();
            ended.store(true, Ordering::Relaxed);
            share
        });
        samples.add(Kind::StatsLoad, self.who, used * 100.0);
        Ok(())
    }

    /// One more container beside those that run, and beside ten in another host, in turns; and the kernel's price
    /// for one in the same places.
    fn beside(&mut self, plan: &Plan, floor: &Floor, samples: &mut Samples) -> anyhow::Result<()> {
        let mut few = Self::empty(self.bed.engine());
        few.bed.load(&image::busybox());
        for _ in 0..10 {
            few.start_sleeper()?;
        }
        for _ in 0..4 * plan.samples {
            samples.add(Kind::BesideFew, self.who, few.cycle("bridge")?);
            samples.add(Kind::BesideMany, self.who, self.cycle("bridge")?);
            if self.who == Who::Corten {
                samples.add(Kind::BesideFew, Who::Floor, floor.samples_in(few.bed.host(), "bridge", 2)?[1]);
                samples.add(Kind::BesideMany, Who::Floor, floor.samples_in(self.bed.host(), "bridge", 2)?[1]);
            }
        }
        for host in [few.bed.host(), self.bed.host()] {
            host.shell("ip link del floor0");
        }
        few.remove_all()
    }

    /// How long the daemon takes to answer after it was started, when all containers are stopped.
    fn restart_beside_stopped(&mut self, samples: &mut Samples) -> anyhow::Result<()> {
        self.in_parallel("POST", |id| format!("/containers/{id}/kill"))?;
        testkit::process::eventually("all have stopped", || {
            self.bed.http().get("/containers/json").json().as_array().is_some_and(Vec::is_empty)
        });
        self.bed.stop();
        let start = Instant::now();
        self.bed.start();
        samples.add(Kind::Restart, self.who, milliseconds(start));
        self.http = self.bed.http().with_timeout(Duration::from_secs(300));
        Ok(())
    }

    /// Lists, and starts the daemon, beside more than anybody should keep. The peers would take long to get there.
    fn crowd_of_stopped(&mut self, plan: &Plan, samples: &mut Samples) -> anyhow::Result<()> {
        self.run_in_parallel(STOPPED.saturating_sub(plan.many), &["true"])?;
        testkit::process::eventually("all have stopped", || {
            self.bed.http().get("/containers/json").json().as_array().is_some_and(Vec::is_empty)
        });
        for _ in 0..plan.samples {
            samples.add(Kind::ListStopped, self.who, self.cli(&["ps", "-a"])?);
        }
        for _ in 0..3 {
            self.bed.stop();
            let start = Instant::now();
            self.bed.start();
            samples.add(Kind::RestartStopped, self.who, milliseconds(start));
        }
        self.http = self.bed.http().with_timeout(Duration::from_secs(300));
        Ok(())
    }

    fn start_in_parallel(&self, count: usize) -> anyhow::Result<()> {
        self.run_in_parallel(count, &["sleep", "100000"])
    }

    fn run_in_parallel(&self, count: usize, command: &[&str]) -> anyhow::Result<()> {
        let left = AtomicUsize::new(count);
        let body = self.body("busybox", command, "bridge");
        let work = || -> anyhow::Result<()> {
            let mut http = self.bed.http();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                let made = http.ask("POST", "/containers/create", Some(&body))?;
                let id = made.json()["Id"].as_str().with_context(|| format!("{made:?}"))?.to_owned();
                let started = http.ask("POST", &format!("/containers/{id}/start"), None)?;
                ensure!(started.status == 204, "{started:?}");
            }
            Ok(())
        };
        eight_times(&work)
    }

    /// Asks something of every container, eight at a time.
    fn in_parallel(&self, method: &str, path: impl Fn(&str) -> String + Sync) -> anyhow::Result<()> {
        let list = self.bed.http().ask("GET", "/containers/json?all=1", None)?.json();
        let ids: Vec<_> = list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry["Id"].as_str()?.to_owned()))
            .collect();
        let next = AtomicUsize::new(0);
        let work = || -> anyhow::Result<()> {
            let mut http = self.bed.http().with_timeout(Duration::from_secs(300));
            while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = http.ask(method, &path(id), None)?;
                ensure!(answer.status < 300, "{answer:?}");
            }
            Ok(())
        };
        eight_times(&work)
    }

    /// `cp` both ways, and beside it what the same costs without containers, in the same file system.
    fn copies(&mut self, samples: &mut Samples) -> anyhow::Result<()> {
        let folder = self.bed.folder("copies");
        let (large, small) = sources(&folder)?;
        let out = folder.join("out");
        let (_, id) = self.start_sleeper()?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let clean = format!("rm -rf {}", text(&out));
        for (source, kind_in, kind_out) in
            [(&large, Kind::CopyLargeIn, Kind::CopyLargeOut), (&small, Kind::CopySmallIn, Kind::CopySmallOut)]
        {
            let (from, to) = (text(source), text(&out));
            let floor = match kind_in {
                Kind::CopyLargeIn => format!("cp -a {from} {to}"),
                _ => format!("mkdir {to}; tar -C {from} -c . | tar -C {to} -x"),
            };
            let inside = format!("{id}:/copied");
            for turn in 0..3 {
                let floor = shell(&clean, &floor)?;
                shell(&clean, "true")?;
                let into = self.cli(&["cp", &from, &inside])?;
                let back = self.cli(&["cp", &inside, &to])?;
                self.cli(&["exec", &id, "rm", "-rf", "/copied"])?;
                if turn > 0 {
                    samples.add(kind_in, Who::Floor, floor);
                    samples.add(kind_out, Who::Floor, floor);
                    samples.add(kind_in, self.who, into);
                    samples.add(kind_out, self.who, back);
                }
            }
        }
        shell(&clean, "true")?;
        self.act("DELETE", &format!("/containers/{id}?force=1"))
    }

    fn remove_all(&self) -> anyhow::Result<()> {
        self.in_parallel("DELETE", |id| format!("/containers/{id}?force=1"))
    }

    fn logs(&mut self, plan: &Plan, samples: &mut Samples) -> anyhow::Result<()> {
        let mut command = vec!["/bin/cat"];
        command.extend(std::iter::repeat_n("/lines", plan.log_files));
        let body = self.body("lines", &command, "none");
        let bytes = LINES_FILE_BYTES / LINE.len() * LINE.len() * plan.log_files;
        let id = self.create(&body)?;
        memory::touch();
        let start = Instant::now();
        self.act("POST", &format!("/containers/{id}/start"))?;
        self.act("POST", &format!("/containers/{id}/wait"))?;
        samples.add(Kind::LogWrite, self.who, bytes as f64 / 1e3 / milliseconds(start));
        let start = Instant::now();
        let path = format!("/containers/{id}/logs?stdout=1");
        let mut stream = self.bed.http().with_timeout(Duration::from_secs(300)).stream("GET", &path)?;
        let read = payload(&mut stream)?;
        samples.add(Kind::LogRead, self.who, bytes as f64 / 1e3 / milliseconds(start));
        ensure!(read == bytes, "{read} bytes of {bytes} came back");
        self.act("DELETE", &format!("/containers/{id}"))?;
        // Podman has no driver that sends to a socket.
        if self.who == Who::Podman { Ok(()) } else { self.shipped(samples) }
    }

    fn shipped(&mut self, samples: &mut Samples) -> anyhow::Result<()> {
        let lines = LINES_FILE_BYTES / LINE.len();
        let listener = self.bed.host().in_network(|| std::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = format!("tcp://{}", listener.local_addr()?);
        let heard = thread::spawn(move || count_lines(&listener, lines));
        let mut body = self.body("lines", &["/bin/cat", "/lines"], "none");
        body["HostConfig"]["LogConfig"] =
            json!({ "Type": "syslog", "Config": { "syslog-address": address } });
        let id = self.create(&body)?;
        let start = Instant::now();
        self.act("POST", &format!("/containers/{id}/start"))?;
        heard.join().expect("the receiver does not panic")?;
        samples.add(Kind::LogShipped, self.who, lines as f64 * 1e3 / milliseconds(start));
        self.act("POST", &format!("/containers/{id}/wait"))?;
        self.act("DELETE", &format!("/containers/{id}"))
    }
}

/// Makes what is copied: one large file of noise, and many small ones.
fn sources(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (large, small) = (folder.join("large"), folder.join("small"));
    if !large.exists() {
        std::fs::create_dir_all(&large)?;
        let noise = std::fs::File::open("/dev/urandom")?;
        let mut file = std::fs::File::create(large.join("file"))?;
        std::io::copy(&mut std::io::Read::take(noise, LARGE_BYTES), &mut file)?;
        for directory in 0..SMALL_FILES / 100 {
            let directory = small.join(directory.to_string());
            std::fs::create_dir_all(&directory)?;
            for file in 0..100 {
                std::fs::write(directory.join(file.to_string()), [b'x'; 2000])?;
            }
        }
    }
    Ok((large, small))
}

/// A shell command's time in milliseconds; `before` is not measured.
pub fn shell(before: &str, script: &str) -> anyhow::Result<f64> {
    let run = |script: &str| Command::new("sh").args(["-ec", script]).status();
    ensure!(run(before)?.success(), "{before}");
    let start = Instant::now();
    let status = run(script)?;
    let took = milliseconds(start);
    ensure!(status.success(), "{script}: {status}");
    Ok(took)
}

/// Takes one connection, and so many lines of it.
fn count_lines(listener: &std::net::TcpListener, lines: usize) -> anyhow::Result<()> {
    use std::io::Read;
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    let (mut buffer, mut seen) = (vec![0; 1 << 18], 0);
    while seen < lines {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the connection ended after {seen} lines of {lines}");
        seen += buffer[..count].iter().filter(|byte| **byte == b'\n').count();
    }
    Ok(())
}

/// Bytes of output in a multiplexed stream. Frames are counted where they lie: it is not this client that is measured.
fn payload(stream: &mut impl std::io::BufRead) -> anyhow::Result<usize> {
    let (mut total, mut left) = (0, 0);
    let (mut head, mut have) = ([0; 8], 0);
    loop {
        let piece = stream.fill_buf()?;
        let count = piece.len();
        if count == 0 {
            ensure!((left, have) == (0, 0), "half a frame");
            return Ok(total);
        }
        let mut rest = piece;
        while !rest.is_empty() {
            let step = rest.len().min(left);
            (left, rest) = (left - step, &rest[step..]);
            if left > 0 {
                break;
            }
            let step = rest.len().min(head.len() - have);
            head[have..have + step].copy_from_slice(&rest[..step]);
            (have, rest) = (have + step, &rest[step..]);
            if have == head.len() {
                left = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
                (total, have) = (total + left, 0);
            }
        }
        stream.consume(count);
    }
}

fn eight_times(work: &(impl Fn() -> anyhow::Result<()> + Sync)) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}

pub fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

pub fn say(text: &str) {
    println!("{text}");
}
