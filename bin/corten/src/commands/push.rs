//! `push`.

use api_client::{Request, segment};

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::opts::reference;
use crate::output::{self, Which};
use crate::progress::{self, Show};

pub async fn command(app: &App, matches: &Matches) -> Result<(), Fail> {
    let name = &matches.args[0];
    reference::check(name)?;
    let (repository, tag, digest) = reference::split(name);
    let (all, quiet) = (matches.bool("all-tags"), matches.bool("quiet"));
    if all && (tag.is_some() || digest.is_some()) {
        return Err(Fail::text("tag can't be used with --all-tags/-a"));
    }
    if digest.is_some() {
        return Err(Fail::text("cannot push a digest reference"));
    }
    if !all && tag.is_none() && !quiet {
        output::out("Using default tag: latest\n");
    }
    let mut request = Request::post(format!("/images/{}/push", segment(repository)));
    if !all {
        request = request.query("tag", tag.unwrap_or("latest"));
    }
    if !matches.str("platform").is_empty() {
        let platform = super::transfer::platform_json(matches.str("platform"))?;
        request = request.query("platform", platform);
    }
    request = request.header("x-registry-auth", app.registry_auth(repository)?);
    let answer = app.client().await?.send(request).await?;
    let how = if quiet { Show::Nothing } else { Show::on(Which::Stdout) };
    progress::show(answer.lines(), how, Which::Stdout).await?;
    if quiet {
        output::out(&format!("{}\n", super::pull::full_name(name, all)));
    }
    Ok(())
}
