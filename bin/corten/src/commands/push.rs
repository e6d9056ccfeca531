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
        note(
            "Using --platform pushes only the specified platform manifest of a multi-platform image index.\n\
             Other components, like attestations, will not be included.\n\
             To push the complete multi-platform image, remove the --platform flag.\n",
        );
        let platform = super::transfer::platform_json(matches.str("platform"))?;
        request = request.query("platform", platform);
    }
    request = request.header("x-registry-auth", app.registry_auth(repository)?);
    let answer = app.client().await?.send(request).await?;
    let how = if quiet { Show::Nothing } else { Show::on(Which::Stdout) };
    let said = progress::show(answer.lines(), how, Which::Stdout).await;
    for one in said.iter().flat_map(|said| &said.aux) {
        if let Some(text) = told(one) {
            note(&text);
        }
    }
    said?;
    if quiet {
        output::out(&format!("{}\n", super::pull::full_name(name, all)));
    }
    Ok(())
}

/// What the daemon said on the side, for people.
fn told(aux: &serde_json::Value) -> Option<String> {
    let digest = |key: &str| aux[key]["digest"].as_str().unwrap_or_default();
    if aux["manifestPushedInsteadOfIndex"] == true {
        return Some(format!(
            "Not all multiplatform-content is present and only the available single-platform image was pushed\n{} -> {}",
            digest("originalIndex"),
            digest("selectedManifest")
        ));
    }
    (aux["contentMissing"] == true).then(|| {
        "You're trying to push a manifest list/index which\n\
         references multiple platform specific manifests, but not all of them are available locally\n\
         or available to the remote repository.\n\n\
         Make sure you have all the referenced content and try again.\n\n\
         You can also push only a single platform specific manifest directly by specifying the platform you want to push \
         with the --platform flag."
            .to_owned()
    })
}

/// Tells something beside the result, where Docker does, with an indent that keeps its lines together.
fn note(text: &str) {
    const HEAD: &str = " Info -> ";
    let lines = text.replace('\n', &format!("\n{}", " ".repeat(HEAD.len())));
    output::out(&format!("\n{HEAD}{lines}\n"));
}
