//! Images and file systems as archives: `load`, `save`, `import`, `export`.

use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;

use api_client::{Body, Client, Request, Response, Switched, segment};
use archive::handover::{Outlet, PROTOCOL};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::opts::kv::describe;
use crate::output::{self, Which};
use crate::progress::{self, Show};
use crate::term;

const CHUNK: usize = 64 << 10;

/// A body that a thread reads from `source` as it is sent.
pub fn read_body(mut source: impl Read + Send + 'static) -> Body {
    let (sender, receiver) = mpsc::channel(8);
    let _ = std::thread::Builder::new().name("upload".to_owned()).spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            let piece = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => Ok(Bytes::copy_from_slice(&buffer[..count])),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let ends = piece.is_err();
            if sender.blocking_send(piece).is_err() || ends {
                break;
            }
        }
    });
    Body::Stream(receiver)
}

/// An archive to be sent.
fn archive(path: &str) -> Result<std::fs::File, Fail> {
    let failed =
        |verb: &str, error: std::io::Error| Fail::text(format!("{verb} {path}: {}", describe(&error)));
    let file = std::fs::File::open(path).map_err(|error| failed("open", error))?;
    match file.metadata() {
        Ok(meta) if meta.is_dir() => Err(failed("read", std::io::ErrorKind::IsADirectory.into())),
        _ => Ok(file),
    }
}

/// A platform as the API takes it: what the text leaves out comes from this host.
pub fn platform_json(text: &str) -> Result<String, Fail> {
    let platform =
        oci::Platform::parse(text).map_err(|error| Fail::text(format!("invalid platform: {error}")))?;
    serde_json::to_string(&platform).map_err(|error| Fail::text(error.to_string()))
}

pub async fn load(app: &App, matches: &Matches) -> Result<(), Fail> {
    let file = match matches.str("input") {
        "" if term::stdin_is_terminal() => {
            return Err(Fail::text("requested load from stdin, but stdin is empty"));
        }
        "" => None,
        path => Some(archive(path)?),
    };
    // Progress is for terminals.
    let calm = matches.bool("quiet") || !term::stdout_is_terminal();
    let request = || {
        let mut request = Request::post("/images/load").query("quiet", if calm { "1" } else { "0" });
        for platform in matches.strings("platform") {
            request = request.query("platform", platform_json(&platform)?);
        }
        Ok::<Request, Fail>(request)
    };
    let client = app.client().await?;
    if let Some(file) = &file
        && let Some(lines) = hand_over(client, request()?, file).await?
    {
        return progress::show(lines, Show::on(Which::Stdout), Which::Stdout).await.map(drop);
    }
    let body = match file {
        Some(file) => read_body(file),
        None => read_body(std::io::stdin()),
    };
    let answer = client.send(request()?.body("application/x-tar", body)).await?;
    if answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
        return progress::show(answer.lines(), Show::on(Which::Stdout), Which::Stdout).await.map(drop);
    }
    to_output(answer, None).await
}

/// Gives a file to a daemon of this machine as it is, and what the daemon says of it. None if it has to be sent: such a
/// daemon has seen an empty archive, whatever it said of that.
async fn hand_over(
    client: &Client,
    request: Request,
    file: &std::fs::File,
) -> Result<Option<api_client::Lines>, Fail> {
    if !client.is_local() || !file.metadata()?.is_file() {
        return Ok(None);
    }
    let (socket, early) = match client.switch(request, PROTOCOL).await {
        Ok(Switched::Socket { socket, early, .. }) => (socket, early),
        Ok(Switched::Answer(answer)) => {
            answer.discard().await;
            return Ok(None);
        }
        Err(api_client::Error::Api { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let file = file.try_clone()?;
    let handed = tokio::task::spawn_blocking(move || -> Result<UnixStream, Fail> {
        let outlet = Outlet::greet(socket.try_clone()?, &early)?;
        match outlet.send_one(file) {
            Ok(outlet) => Ok(outlet.close()?),
            // The daemon has ended it, and says why.
            Err(archive::Error::Write(_)) => Ok(socket),
            Err(error) => Err(Fail::text(error.to_string())),
        }
    });
    let socket = handed.await.map_err(|error| Fail::text(error.to_string()))??;
    Ok(Some(api_client::Lines::of_socket(socket)?))
}

/// Copies an answer to a file, or to standard output.
async fn to_output(mut answer: Response, file: Option<&str>) -> Result<(), Fail> {
    let Some(path) = file else {
        while let Some(chunk) = answer.chunk().await? {
            output::write_or_end(Which::Stdout, &chunk).await?;
        }
        return Ok(());
    };
    // A file that is half written must not be taken for a whole one.
    let temporary = format!("{path}.tmp{}", std::process::id());
    let failed = |error: std::io::Error| Fail::text(format!("open {path}: {}", describe(&error)));
    let mut target = std::fs::File::create(&temporary).map_err(failed)?;
    let copied = async {
        while let Some(chunk) = answer.chunk().await? {
            target.write_all(&chunk)?;
        }
        Ok::<(), Fail>(())
    };
    let result = copied.await.and_then(|()| std::fs::rename(&temporary, path).map_err(failed));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// Where an archive goes: a file, or standard output unless that is a terminal.
fn target(matches: &Matches) -> Result<Option<&str>, Fail> {
    match matches.str("output") {
        "" if term::stdout_is_terminal() => {
            Err(Fail::text("cowardly refusing to save to a terminal. Use the -o flag or redirect"))
        }
        "" => Ok(None),
        path => {
            let failed = |why: String| Err(Fail::text(format!("failed to save image: {why}")));
            let folder = std::path::Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder
                && let Err(error) = std::fs::metadata(folder)
            {
                return failed(format!(
                    "invalid output path: stat {}: {}",
                    folder.display(),
                    describe(&error)
                ));
            }
            match std::fs::metadata(path) {
                Ok(meta) if meta.is_dir() => failed(format!("open {path}: is a directory")),
                Ok(meta) if meta.file_type().is_char_device() => {
                    failed("cannot write to a character device file".to_owned())
                }
                Ok(meta) if meta.file_type().is_block_device() => {
                    failed("cannot write to a block device file".to_owned())
                }
                _ => Ok(Some(path)),
            }
        }
    }
}

pub async fn save(app: &App, matches: &Matches) -> Result<(), Fail> {
    let file = target(matches)?;
    let mut request = Request::get("/images/get");
    for name in &matches.args {
        request = request.query("names", name.as_str());
    }
    for platform in matches.strings("platform") {
        request = request.query("platform", platform_json(&platform)?);
    }
    let answer = app.client().await?.send(request).await?;
    to_output(answer, file).await
}

pub async fn export(app: &App, matches: &Matches) -> Result<(), Fail> {
    let file = target(matches).map_err(|mut fail| {
        fail.text = fail.text.replace("save image", "export container");
        fail
    })?;
    let request = Request::get(format!("/containers/{}/export", segment(&matches.args[0])));
    let answer = app.client().await?.send(request).await?;
    to_output(answer, file).await
}

pub async fn import(app: &App, matches: &Matches) -> Result<(), Fail> {
    let source = &matches.args[0];
    let remote = source.starts_with("http://") || source.starts_with("https://");
    let body = match source.as_str() {
        "-" => read_body(std::io::stdin()),
        _ if remote => Body::Empty,
        path => read_body(archive(path)?),
    };
    let mut request = Request::post("/images/create").query("fromSrc", if remote { source } else { "-" });
    if let Some(name) = matches.args.get(1) {
        crate::opts::reference::check(name)?;
        request = request.query("repo", name.as_str());
    }
    for (flag, key) in [("message", "message"), ("platform", "platform")] {
        if !matches.str(flag).is_empty() {
            request = request.query(key, matches.str(flag));
        }
    }
    for change in matches.list("change") {
        request = request.query("changes", change.as_str());
    }
    let answer = app.client().await?.send(request.body("application/x-tar", body)).await?;
    progress::show(answer.lines(), Show::on(Which::Stdout), Which::Stdout).await.map(drop)
}
