//! Starting a daemon when none answers on the default socket.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::fail::Fail;

/// The first word of the call that becomes the daemon's session leader.
pub const DETACH: &str = "__start-daemon";
/// How long a daemon may take to answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// When to say that it takes long.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much of the daemon's log is shown when it does not come up.
const TAIL_LINES: usize = 5;

/// Whether a daemon may be started: not turned off, and we are root.
pub fn allowed(no_autostart: bool) -> bool {
    let off = std::env::var_os("CORTEN_NO_AUTOSTART").is_some_and(|value| !value.is_empty() && value != "0");
    !no_autostart && !off && rustix::process::geteuid().is_root()
}

/// The daemon's program: beside our own, or on the path.
fn program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("cortend")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join("cortend")))
        .find(|candidate| candidate.is_file())
}

fn log_path() -> PathBuf {
    let state = Path::new("/var/lib/corten");
    if Path::new("/var/log").is_dir() { "/var/log/corten.log".into() } else { state.join("daemon.log") }
}

/// Starts the daemon and waits until its socket answers; returns the path of the socket.
///
/// Nothing is done if there is no daemon to start: then the caller's own error says enough.
pub async fn start(sockets: &[&str]) -> Result<Option<String>, Fail> {
    let (Some(daemon), Ok(own)) = (program(), std::env::current_exe()) else { return Ok(None) };
    let log = log_path();
    let log_start = std::fs::metadata(&log).map_or(0, |meta| meta.len());
    #[expect(
        clippy::disallowed_methods,
        reason = "the one program that the command line starts is its daemon"
    )]
    let mut child = Command::new(own)
        .arg(DETACH)
        .arg(&daemon)
        .arg(&log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
        .map_err(|error| Fail::text(format!("cannot start {}: {error}", daemon.display())))?;
    let started = Instant::now();
    let mut told = false;
    loop {
        for socket in sockets {
            if tokio::net::UnixStream::connect(socket).await.is_ok() {
                return Ok(Some((*socket).to_owned()));
            }
        }
        let ended = child.try_wait().ok().flatten();
        if ended.is_some() || started.elapsed() > DEADLINE {
            let why = if ended.is_some() { "it ended at once" } else { "it did not answer in time" };
            let tail = tail(&log, log_start);
            return Err(Fail::text(format!("cannot start the daemon {}: {why}{tail}", daemon.display())));
        }
        if !told && started.elapsed() > PATIENCE {
            told = true;
            eprintln!("waiting for {} to start (log: {})", daemon.display(), log.display());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The last lines that the daemon wrote since it was started, each on a line of its own.
fn tail(log: &Path, from: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let new = bytes.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
    let text = String::from_utf8_lossy(new);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| format!("\n  {line}")).collect()
}

/// Becomes the daemon, in a session of its own with its output in a log. Only returns if that fails.
pub fn detach(words: &[String]) -> ExitCode {
    let [daemon, log] = words else { return ExitCode::FAILURE };
    // A session of its own: closing the terminal must not end the daemon.
    let _ = rustix::process::setsid();
    let file = std::fs::OpenOptions::new().create(true).append(true).open(log);
    #[expect(
        clippy::disallowed_methods,
        reason = "the one program that the command line starts is its daemon"
    )]
    let mut command = Command::new(daemon);
    if let Ok(file) = file {
        if let Ok(copy) = file.try_clone() {
            command.stdout(copy);
        }
        command.stderr(file);
    }
    let error = command.exec();
    eprintln!("cannot run {daemon}: {error}");
    ExitCode::FAILURE
}
