//! A private host with one daemon in it.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::engine::{self, Engine};
use crate::host::{self, Host};
use crate::http::Http;
use crate::image::{self, Image};
use crate::leaks::Snapshot;
use crate::process::{Deadline, PATIENCE, Ran, run, run_with, wait_for};

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct BedOptions {
    pub engine: Engine,
    /// Added to the daemon's command line; `$FOLDER` in them is the host's folder.
    pub flags: Vec<String>,
    /// Added to the daemon's environment.
    pub environment: Vec<(String, String)>,
    /// A shell script that runs on the host before the first daemon starts; `$FOLDER` is the host's folder, and the
    /// daemon's data root is `data` in it.
    pub setup: String,
    /// The daemon's data root is a disk of its own with so many bytes, which only the host sees.
    pub disk_bytes: Option<u64>,
}

impl Default for BedOptions {
    fn default() -> Self {
        Self {
            engine: Engine::from_environment(),
            flags: Vec::new(),
            environment: Vec::new(),
            setup: String::new(),
            disk_bytes: None,
        }
    }
}

/// A command line client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The engine's own.
    Own,
    /// The official one, if this machine has it.
    Docker,
}

/// A private host with one daemon in it, for one test.
///
/// When it is dropped and the test has not failed, everything that the test made is removed through the API, and
/// the host must look then as it did before; a test that leaks fails. When the test has failed, the daemon's log
/// is printed.
pub struct Bed {
    daemon: Option<Child>,
    pid: Option<u32>,
    before: Option<Snapshot>,
    options: BedOptions,
    host: Host,
}

impl Bed {
    /// A running daemon that has `busybox:latest`.
    #[track_caller]
    pub fn new() -> Self {
        let bed = Self::empty();
        bed.load(&image::busybox());
        bed
    }

    /// A running daemon without an image.
    #[track_caller]
    pub fn empty() -> Self {
        Self::with(BedOptions::default())
    }

    /// A running daemon with flags or an environment of its own.
    #[track_caller]
    pub fn with(options: BedOptions) -> Self {
        let host = options.engine.host();
        if !options.setup.is_empty() {
            host.shell(&format!("FOLDER='{}'\n{}", host.folder().display(), options.setup)).ok();
        }
        if let Some(bytes) = options.disk_bytes {
            let data = host.folder().join("data");
            fs::create_dir_all(&data).expect("the data root");
            host.shell(&format!("mount -t tmpfs -o size={bytes},mode=710 tmpfs {}", data.display())).ok();
        }
        let mut bed = Self { daemon: None, pid: None, before: None, options, host };
        bed.start();
        bed.before = Some(Snapshot::of(&bed.host));
        bed
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn engine(&self) -> Engine {
        self.options.engine
    }

    pub fn socket(&self) -> PathBuf {
        self.host.folder().join("d.sock")
    }

    /// A folder for the test's own files; it goes with the host.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.host.folder().join("test").join(name);
        fs::create_dir_all(&path).expect("a test's folder");
        path
    }

    /// The daemon's process, as the machine counts.
    pub fn pid(&self) -> u32 {
        self.pid.expect("the daemon runs")
    }

    /// Changes the flags of daemons started from now on.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.options.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Changes the environment of daemons started from now on.
    pub fn set_environment(&mut self, name: &str, value: Option<&str>) {
        self.options.environment.retain(|(known, _)| known != name);
        self.options.environment.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("daemon's log");
        let mut command = self.options.engine.daemon(&self.host, &self.socket());
        let folder = self.host.folder().display().to_string();
        command.args(self.options.flags.iter().map(|flag| flag.replace("$FOLDER", &folder)));
        for (name, value) in &self.options.environment {
            command.env(name, value);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        let mut daemon = command.spawn().expect("nsenter (util-linux) starts");
        let pid = self.host.inner(&daemon);
        let answers =
            || Http::new(&self.socket()).ask("GET", "/_ping", None).is_ok_and(|pong| pong.status == 200);
        let up = Deadline::after(PATIENCE).poll(|| {
            let gone = daemon.try_wait().is_ok_and(|status| status.is_some());
            (gone || answers()).then_some(!gone)
        });
        if up != Some(true) {
            let _ = daemon.kill();
            let _ = daemon.wait();
            panic!("the daemon did not come up; its log:\n{}", self.log());
        }
        self.daemon = Some(daemon);
        self.pid = pid;
    }

    /// Ends the daemon at once, in the middle of whatever it does (`SIGKILL`).
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Asks the daemon to end (`SIGTERM`) and waits until it has.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        self.end(Signal::TERM)
    }

    #[track_caller]
    fn end(&mut self, signal: Signal) -> i32 {
        let Some(mut daemon) = self.daemon.take() else { return 0 };
        if let Some(pid) = self.pid.take().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, signal);
        }
        let ended = wait_for(&mut daemon, PATIENCE);
        if !ended {
            let _ = daemon.kill();
        }
        let status = daemon.wait().expect("the daemon is a child");
        assert!(ended, "the daemon did not end on {signal:?}; its log:\n{}", self.log());
        crate::process::code_of(status)
    }

    fn log_path(&self) -> PathBuf {
        self.host.folder().join("daemon.log")
    }

    /// What the daemon has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A connection to the daemon.
    pub fn http(&self) -> Http {
        Http::new(&self.socket())
    }

    /// The clients that can be tried here.
    pub fn clients(&self) -> Vec<Client> {
        match engine::docker_client() {
            Some(_) => vec![Client::Own, Client::Docker],
            None => vec![Client::Own],
        }
    }

    /// A client's command, ready for arguments.
    ///
    /// # Panics
    /// When the official client is asked for and is not there.
    pub fn command(&self, client: Client) -> Command {
        let mut own = self.options.engine.client(&self.host, &self.socket());
        if client == Client::Own {
            return own;
        }
        let mut command = Command::new(engine::docker_client().expect("the official client"));
        for (name, value) in own.env_remove("PATH").get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command
    }

    /// Runs a client to its end.
    #[track_caller]
    pub fn cli(&self, client: Client, arguments: &[&str]) -> Ran {
        run(self.command(client).args(arguments))
    }

    /// Runs the engine's own client to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.cli(Client::Own, arguments)
    }

    /// The same, with something on its standard input.
    #[track_caller]
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        run_with(self.command(Client::Own).args(arguments), input, PATIENCE)
    }

    /// Loads an image through the API.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn load(&self, image: &Image) {
        let answer = self.load_archive(&image.archive());
        let text = answer.clone().expect(200).text();
        assert!(!text.contains("error"), "{answer:?}");
    }

    /// Sends bytes to `POST /images/load`.
    #[track_caller]
    pub fn load_archive(&self, archive: &[u8]) -> crate::Response {
        let path = format!("{}/images/load?quiet=1", crate::http::API);
        self.http()
            .exchange("POST", &path, "Content-Type: application/x-tar\r\n", archive)
            .unwrap_or_else(|error| panic!("load: {error}\ndaemon's log:\n{}", self.log()))
    }

    /// `inspect` of a container.
    #[track_caller]
    pub fn inspect(&self, container: &str) -> Value {
        self.http().get(&format!("/containers/{container}/json")).expect(200).json()
    }

    /// What stands here now and did not when the daemon had just started. Things that the daemon takes down off
    /// the hot path are waited for.
    pub fn leaks(&self) -> Vec<String> {
        let Some(before) = &self.before else { return Vec::new() };
        // The daemon may have other flags by now.
        let own = self.pid.map(|pid| format!("process {}", host::command_line(pid)));
        let look = || {
            let mut found = Snapshot::of(&self.host).beyond(before);
            found.retain(|line| Some(line) != own.as_ref());
            found
        };
        Deadline::after(Duration::from_secs(10))
            .poll(|| look().is_empty().then(Vec::new))
            .unwrap_or_else(look)
    }

    /// Removes every container, network and volume that the test made.
    #[track_caller]
    pub fn remove_all(&self) {
        let mut http = self.http();
        for container in http.get("/containers/json?all=1").json().as_array().into_iter().flatten() {
            let id = container["Id"].as_str().unwrap_or_default();
            let answer = http.delete(&format!("/containers/{id}?force=1&v=1"));
            assert!(matches!(answer.status, 204 | 404 | 409), "{answer:?}");
        }
        for network in http.get("/networks").json().as_array().into_iter().flatten() {
            let name = network["Name"].as_str().unwrap_or_default();
            if !matches!(name, "bridge" | "host" | "none" | "podman") {
                http.delete(&format!("/networks/{name}")).expect(204);
            }
        }
        for volume in http.get("/volumes").json()["Volumes"].as_array().into_iter().flatten() {
            let name = volume["Name"].as_str().unwrap_or_default();
            http.delete(&format!("/volumes/{name}?force=1"));
        }
    }

    fn check_clean(&mut self) {
        if self.daemon.is_none() {
            return;
        }
        self.remove_all();
        // Peers do leave things; it is not for these tests to say so.
        if self.options.engine != Engine::Corten {
            return;
        }
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "left behind after everything was removed:\n{}", leaks.join("\n"));
        self.stop();
        // What the daemon did not wait for is on its way out.
        let gone =
            Deadline::after(Duration::from_secs(5)).poll(|| self.host.processes().is_empty().then_some(()));
        assert!(gone.is_some(), "left behind after the daemon ended: {:?}", self.host.processes());
    }
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            host::say(&format!("--- the daemon's log\n{}---\n", tail(&self.log(), 200)));
            return;
        }
        // A leak fails the test: a panic here is the test's own.
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.check_clean()));
        if let Err(panic) = checked {
            host::say(&format!("--- the daemon's log\n{}---\n", tail(&self.log(), 200)));
            std::panic::resume_unwind(panic);
        }
    }
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().flat_map(|line| [*line, "\n"]).collect()
}

/// Where a file of the source tree is.
pub fn source(path: &str) -> PathBuf {
    engine::source_tree().join(Path::new(path))
}
