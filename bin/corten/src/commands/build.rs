//! `build`, with the classic builder's flags.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use api_client::{Body, Request};
use api_types::StringMap;
use serde_json::Value;

use super::context::{self, Context, Upload};
use super::ignore::Rules;
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::opts::kv::{self, describe};
use crate::opts::limits;
use crate::output::{self, Which};
use crate::progress::{self, Show};
use crate::units::human_size;

/// The largest Dockerfile that is taken from outside of the context.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// Where the context comes from, and what the Dockerfile is called in it.
struct Source {
    upload: Option<Upload>,
    remote: Option<String>,
    dockerfile: String,
}

pub async fn build(app: &App, matches: &Matches) -> Result<(), Fail> {
    let quiet = matches.bool("quiet");
    let Source { upload, remote, dockerfile } = source(matches)?;
    let mut request = request(app, matches)?.query("dockerfile", dockerfile);
    let mut sent = None;
    if let Some(remote) = remote {
        request = request.query("remote", remote);
    }
    request = match upload {
        Some(upload) => {
            sent = Some(upload.sent);
            request.body("application/x-tar", upload.body)
        }
        None => request.body("application/x-tar", Body::Empty),
    };
    let mut lines = app.client().await?.send(request).await?.lines();
    // A daemon may answer while the context is still on its way; it has all of it when it has something to say.
    lines.ready().await?;
    if let (Some(sent), false) = (sent, quiet) {
        let size = human_size(sent.load(Ordering::Relaxed) as f64, 4);
        output::out(&format!("Sending build context to Docker daemon {size:>8}\r\r\n"));
    }
    let how = if quiet { Show::Nothing } else { Show::on(Which::Stdout) };
    let said = progress::show(lines, how, Which::Stdout).await?;
    let id =
        said.aux.iter().rev().find_map(|value| value.get("ID").and_then(Value::as_str)).unwrap_or_default();
    if !matches.str("iidfile").is_empty() {
        if id.is_empty() {
            return Err(Fail::text(format!(
                "server did not provide an image ID. Cannot write {}",
                matches.str("iidfile")
            )));
        }
        let path = matches.str("iidfile");
        std::fs::write(path, id).map_err(|error| Fail::text(format!("open {path}: {}", describe(&error))))?;
    }
    if quiet {
        // Asked to be quiet, the daemon says nothing but the ID.
        let said = said.text.trim();
        output::out(&format!("{}\n", if said.is_empty() { id } else { said }));
    }
    Ok(())
}

fn source(matches: &Matches) -> Result<Source, Fail> {
    let place = matches.args[0].as_str();
    let file = matches.str("file");
    match place {
        "-" if file == "-" => {
            Err(Fail::text("invalid argument: can't use stdin for both build context and dockerfile"))
        }
        "-" => from_stdin(file),
        url if is_remote(url) => Ok(Source {
            upload: None,
            remote: Some(url.to_owned()),
            dockerfile: if file.is_empty() { "Dockerfile".to_owned() } else { file.to_owned() },
        }),
        folder => from_folder(folder, file, matches.bool("compress")),
    }
}

fn is_remote(place: &str) -> bool {
    ["http://", "https://", "git://", "github.com/", "git@"].iter().any(|prefix| place.starts_with(prefix))
}

/// An archive on standard input, or a Dockerfile without a context.
fn from_stdin(file: &str) -> Result<Source, Fail> {
    let mut head = Vec::new();
    let mut stdin = std::io::stdin();
    (&mut stdin).take(512).read_to_end(&mut head)?;
    if context::is_archive(&head) {
        let dockerfile = if file.is_empty() { "Dockerfile" } else { file };
        let upload = context::from_reader(head, stdin);
        return Ok(Source { upload: Some(upload), remote: None, dockerfile: dockerfile.to_owned() });
    }
    if !file.is_empty() {
        return Err(Fail::text("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles"));
    }
    stdin.take(MAX_DOCKERFILE).read_to_end(&mut head)?;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(head.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    archive.append_data(&mut header, "Dockerfile", head.as_slice())?;
    let upload = context::from_reader(archive.into_inner()?, std::io::empty());
    Ok(Source { upload: Some(upload), remote: None, dockerfile: "Dockerfile".to_owned() })
}

fn from_folder(folder: &str, file: &str, compress: bool) -> Result<Source, Fail> {
    let prepare = |error: &std::io::Error, path: &str| {
        Fail::text(match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("unable to prepare context: path {} not found", template::quote(path))
            }
            _ => format!("unable to prepare context: {path}: {}", describe(error)),
        })
    };
    let root = std::fs::canonicalize(folder).map_err(|error| prepare(&error, folder))?;
    if !root.is_dir() {
        return Err(Fail::text(format!("unable to prepare context: context must be a directory: {folder}")));
    }
    let mut extra = Vec::new();
    let name = if file == "-" {
        let mut content = Vec::new();
        std::io::stdin().take(MAX_DOCKERFILE).read_to_end(&mut content)?;
        added(&mut extra, content)
    } else {
        let path = if file.is_empty() { root.join("Dockerfile") } else { PathBuf::from(file) };
        let full = std::fs::canonicalize(&path).map_err(|error| {
            let name = path.file_name().unwrap_or_default();
            Fail::text(format!(
                "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: {}",
                std::path::absolute(&path).unwrap_or_else(|_| name.into()).display(),
                describe(&error)
            ))
        })?;
        match inside(&root, &full) {
            Some(name) => name,
            // A Dockerfile from elsewhere travels along under a name that nobody else uses.
            None => {
                let mut content = Vec::new();
                let opened = std::fs::File::open(&full).map_err(|error| prepare(&error, file))?;
                opened.take(MAX_DOCKERFILE).read_to_end(&mut content)?;
                added(&mut extra, content)
            }
        }
    };
    let mut rules = Rules::read(&root.join(".dockerignore")).map_err(Fail::text)?;
    // The daemon needs both, whatever the rules say; it removes them again if they were not to be sent.
    rules.keep(".dockerignore");
    rules.keep(&name);
    let upload = context::from_folder(Context { root, rules, extra, compress });
    Ok(Source { upload: Some(upload), remote: None, dockerfile: name })
}

fn added(extra: &mut Vec<(String, Vec<u8>)>, content: Vec<u8>) -> String {
    let name = format!(".dockerfile.{:x}{:x}", std::process::id(), crate::time::now_nanos());
    extra.push((name.clone(), content));
    name
}

/// The path of `full` in `root`, if it is in it.
fn inside(root: &Path, full: &Path) -> Option<String> {
    full.strip_prefix(root).ok().map(|path| path.to_string_lossy().into_owned())
}

fn request(app: &App, matches: &Matches) -> Result<Request, Fail> {
    let mut request = Request::post("/build").query("version", "1");
    for tag in matches.list("tag") {
        request = request.query("t", tag.as_str());
    }
    request = request.query("rm", if matches.bool_or_true("rm") { "1" } else { "0" });
    for (flag, key) in [
        ("quiet", "q"),
        ("no-cache", "nocache"),
        ("force-rm", "forcerm"),
        ("pull", "pull"),
        ("squash", "squash"),
    ] {
        request = request.flag(key, matches.bool(flag));
    }
    for (flag, key) in [
        ("cpuset-cpus", "cpusetcpus"),
        ("cpuset-mems", "cpusetmems"),
        ("cgroup-parent", "cgroupparent"),
        ("network", "networkmode"),
        ("target", "target"),
        ("platform", "platform"),
        ("isolation", "isolation"),
    ] {
        if !matches.str(flag).is_empty() {
            request = request.query(key, matches.str(flag));
        }
    }
    for (flag, key) in [("cpu-shares", "cpushares"), ("cpu-quota", "cpuquota"), ("cpu-period", "cpuperiod")] {
        if let Some(number) = matches.int(flag) {
            request = request.query(key, number.to_string());
        }
    }
    for (flag, key) in [("memory", "memory"), ("memory-swap", "memswap"), ("shm-size", "shmsize")] {
        if let Some(bytes) = matches.bytes(flag) {
            request = request.query(key, bytes.to_string());
        }
    }
    for host in crate::opts::container::extra_hosts(matches.list("add-host")) {
        request = request.query("extrahosts", host);
    }
    for option in matches.strings("security-opt") {
        request = request.query("securityopt", option);
    }
    let json =
        |value: Result<String, serde_json::Error>| value.map_err(|error| Fail::text(error.to_string()));
    let limits = matches
        .list("ulimit")
        .iter()
        .map(|value| limits::parse_ulimit(value))
        .collect::<Result<Vec<_>, _>>()?;
    if !limits.is_empty() {
        request = request.query("ulimits", json(serde_json::to_string(&limits))?);
    }
    let arguments = arguments(app, matches.list("build-arg"))?;
    if !arguments.is_empty() {
        request = request.query("buildargs", json(serde_json::to_string(&arguments))?);
    }
    let labels: StringMap = kv::labels(&[], matches.list("label"))?;
    if !labels.is_empty() {
        request = request.query("labels", json(serde_json::to_string(&labels))?);
    }
    let from = matches.strings("cache-from");
    if !from.is_empty() {
        request = request.query("cachefrom", json(serde_json::to_string(&from))?);
    }
    Ok(request)
}

/// Build arguments. A name alone takes its value from our environment, or is sent without one.
fn arguments(app: &App, values: &[String]) -> Result<serde_json::Map<String, Value>, Fail> {
    let mut found = serde_json::Map::new();
    for value in values {
        let (name, value) = match value.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (value.as_str(), std::env::var(value).ok()),
        };
        found.insert(name.to_owned(), value.map_or(Value::Null, Value::from));
    }
    for (name, value) in app.proxies()? {
        found.entry(name).or_insert_with(|| value.into());
    }
    Ok(found)
}
