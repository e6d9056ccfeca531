//! `pull`, and the pull that `run` and `create` do on their own.

use api_client::{Client, Request};

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::opts::reference;
use crate::output::{self, Which};
use crate::progress::{self, Show};

pub async fn command(app: &App, matches: &Matches) -> Result<(), Fail> {
    let name = &matches.args[0];
    reference::check(name)?;
    let (_, tag, digest) = reference::split(name);
    let all = matches.bool("all-tags");
    if all && (tag.is_some() || digest.is_some()) {
        return Err(Fail::text("tag can't be used with --all-tags/-a"));
    }
    let quiet = matches.bool("quiet");
    if !all && tag.is_none() && digest.is_none() && !quiet {
        output::out("Using default tag: latest\n");
    }
    let client = app.client().await?;
    pull_with(app, client, name, matches.str("platform"), quiet, Which::Stdout, all).await?;
    output::out(&format!("{}\n", full_name(name, all)));
    Ok(())
}

/// Pulls one image, showing progress on `to`.
pub async fn pull(
    app: &App,
    client: &Client,
    name: &str,
    platform: &str,
    quiet: bool,
    to: Which,
) -> Result<(), Fail> {
    pull_with(app, client, name, platform, quiet, to, false).await
}

async fn pull_with(
    app: &App,
    client: &Client,
    name: &str,
    platform: &str,
    quiet: bool,
    to: Which,
    all: bool,
) -> Result<(), Fail> {
    let (repository, tag, digest) = reference::split(name);
    let mut request = Request::post("/images/create").query("fromImage", repository);
    match (digest, tag) {
        (Some(digest), _) => request = request.query("tag", digest),
        (None, Some(tag)) => request = request.query("tag", tag),
        (None, None) if !all => request = request.query("tag", "latest"),
        (None, None) => {}
    }
    if !platform.is_empty() {
        request = request.query("platform", platform);
    }
    request = request.header("x-registry-auth", app.registry_auth(repository)?);
    let answer = client.send(request).await?;
    let how = if quiet { Show::Nothing } else { Show::on(to) };
    progress::show(answer.lines(), how, to).await.map(drop)
}

/// A name with its registry, as `pull` prints it at the end.
pub fn full_name(name: &str, all: bool) -> String {
    let (repository, tag, digest) = reference::split(name);
    let host =
        repository.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost");
    let full = match (host, repository.contains('/')) {
        (true, _) => repository.to_owned(),
        (false, true) => format!("docker.io/{repository}"),
        (false, false) => format!("docker.io/library/{repository}"),
    };
    match (digest, tag) {
        (Some(digest), _) => format!("{full}@{digest}"),
        (None, Some(tag)) => format!("{full}:{tag}"),
        (None, None) if all => full,
        (None, None) => format!("{full}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(full_name("busybox", false), "docker.io/library/busybox:latest");
        assert_eq!(full_name("a/b:1", false), "docker.io/a/b:1");
        assert_eq!(full_name("localhost:5000/x", true), "localhost:5000/x");
    }
}
