//! The `prune` commands: a warning, a question, and what was removed.

use std::io::{BufRead, Write};

use api_client::{Client, Request};
use api_types::container::ContainersPrune;
use api_types::image::ImagesPrune;
use serde::Deserialize;

use super::{Verb, filters};
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::units::human_size;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NetworksPrune {
    networks_deleted: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct VolumesPrune {
    volumes_deleted: Vec<String>,
    space_reclaimed: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CachePrune {
    caches_deleted: Vec<String>,
    space_reclaimed: u64,
}

/// Asks on the terminal; anything but yes is no.
fn confirm(warning: &str) -> Result<bool, Fail> {
    // One line where the warning brings no lines of its own, as Docker asks about the build cache.
    let gap = if warning.ends_with("build cache.") { ' ' } else { '\n' };
    out(&format!("{warning}{gap}Are you sure you want to continue? [y/N] "));
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

pub async fn prune(app: &App, verb: Verb, matches: &Matches) -> Result<(), Fail> {
    let all = matches.bool("all");
    let mut wanted = app.config().prune_filters();
    wanted.extend(matches.list("filter").iter().cloned());
    if verb == Verb::SystemPrune {
        return system(app, matches, wanted).await;
    }
    if verb == Verb::VolumePrune
        && all
        && let Some(filter) = wanted.iter().find(|filter| filter.starts_with("all="))
    {
        return Err(Fail::text(format!(
            "conflicting options: cannot specify both --all and --filter {filter}"
        )));
    }
    let warning = match (verb, all) {
        (Verb::BuilderPrune, false) => "WARNING! This will remove all dangling build cache.",
        (Verb::BuilderPrune, true) => "WARNING! This will remove all build cache.",
        (Verb::ContainerPrune, _) => "WARNING! This will remove all stopped containers.",
        (Verb::ImagePrune, false) => "WARNING! This will remove all dangling images.",
        (Verb::ImagePrune, true) => {
            "WARNING! This will remove all images without at least one container associated to them."
        }
        (Verb::VolumePrune, false) => {
            "WARNING! This will remove anonymous local volumes not used by at least one container."
        }
        (Verb::VolumePrune, true) => {
            "WARNING! This will remove all local volumes not used by at least one container."
        }
        _ => "WARNING! This will remove all custom networks not used by at least one container.",
    };
    if !matches.bool("force") && !confirm(warning)? {
        return Ok(());
    }
    let client = app.client().await?;
    if verb == Verb::BuilderPrune {
        let (text, reclaimed) = cache(client, all, matches.str("keep-storage"), &wanted).await?;
        out(&(text + &total(reclaimed)));
        return Ok(());
    }
    let (text, reclaimed) = one(client, verb, all, &wanted).await?;
    out(&text);
    if let Some(reclaimed) = reclaimed {
        out(&total(reclaimed));
    }
    Ok(())
}

fn total(bytes: u64) -> String {
    format!("Total reclaimed space: {}\n", human_size(bytes as f64, 4))
}

fn listed(heading: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("{heading}\n{}\n\n", names.join("\n")) }
}

fn request(path: &str, wanted: &[String]) -> Request {
    let request = Request::post(path);
    match filters(wanted) {
        Some(filters) => request.query("filters", filters),
        None => request,
    }
}

/// One kind of object: what to print, and the space that came free, where that is known.
async fn one(
    client: &Client,
    verb: Verb,
    all: bool,
    wanted: &[String],
) -> Result<(String, Option<u64>), Fail> {
    Ok(match verb {
        Verb::ContainerPrune => {
            let done: ContainersPrune = client.json(request("/containers/prune", wanted)).await?;
            (
                listed("Deleted Containers:", &done.containers_deleted.unwrap_or_default()),
                Some(done.space_reclaimed),
            )
        }
        Verb::ImagePrune => {
            let mut wanted = wanted.to_vec();
            wanted.push(format!("dangling={}", !all));
            let done: ImagesPrune = client.json(request("/images/prune", &wanted)).await?;
            let deleted = done.images_deleted.unwrap_or_default();
            let text = match deleted.is_empty() {
                true => String::new(),
                false => {
                    let lines = super::images::deleted_lines(&deleted);
                    format!(
                        "Deleted Images:\n{}\n",
                        lines.replace("Deleted: ", "deleted: ").replace("Untagged: ", "untagged: ")
                    )
                }
            };
            (text, Some(done.space_reclaimed))
        }
        Verb::VolumePrune => {
            let mut wanted = wanted.to_vec();
            if all {
                wanted.push("all=true".to_owned());
            }
            let done: VolumesPrune = client.json(request("/volumes/prune", &wanted)).await?;
            (listed("Deleted Volumes:", &done.volumes_deleted), Some(done.space_reclaimed))
        }
        _ => {
            let done: NetworksPrune = client.json(request("/networks/prune", wanted)).await?;
            (listed("Deleted Networks:", &done.networks_deleted), None)
        }
    })
}

/// The build cache: what to print, and the space that came free. `keep` is a size, or empty.
async fn cache(client: &Client, all: bool, keep: &str, wanted: &[String]) -> Result<(String, u64), Fail> {
    let mut request = request("/build/prune", wanted).flag("all", all);
    if !keep.is_empty() {
        let bytes = crate::units::parse_ram(keep).map_err(Fail::text)?;
        request = request.query("reserved-space", bytes.to_string());
    }
    let done: CachePrune = client.json(request).await?;
    Ok((listed("Deleted build cache objects:", &done.caches_deleted), done.space_reclaimed))
}

/// Everything that is not in use. A kind of object that the daemon does not have is left out.
async fn system(app: &App, matches: &Matches, wanted: Vec<String>) -> Result<(), Fail> {
    let (all, volumes) = (matches.bool("all"), matches.bool("volumes"));
    if volumes && wanted.iter().any(|filter| filter.starts_with("until=")) {
        return Err(Fail::text("ERROR: The \"until\" filter is not supported with \"--volumes\""));
    }
    let mut lines = vec!["all stopped containers", "all networks not used by at least one container"];
    if volumes {
        lines.push("all anonymous volumes not used by at least one container");
    }
    lines.push(if all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    });
    lines.push(if all { "all build cache" } else { "unused build cache" });
    let mut warning = format!(
        "WARNING! This will remove:\n{}",
        lines.iter().map(|line| format!("  - {line}\n")).collect::<String>()
    );
    if !wanted.is_empty() {
        warning += &format!(
            "\n  Items to be pruned will be filtered with:\n{}",
            wanted.iter().map(|filter| format!("  - {filter}\n")).collect::<String>()
        );
    }
    if !matches.bool("force") && !confirm(&warning)? {
        return Ok(());
    }
    let client = app.client().await?;
    let mut kinds = vec![Verb::ContainerPrune, Verb::NetworkPrune];
    if volumes {
        kinds.push(Verb::VolumePrune);
    }
    kinds.push(Verb::ImagePrune);
    let mut reclaimed = 0;
    for kind in kinds {
        match one(client, kind, all && kind == Verb::ImagePrune, &wanted).await {
            Ok((text, space)) => {
                out(&text);
                reclaimed += space.unwrap_or(0);
            }
            Err(fail) if matches!(fail.status, Some(404 | 501)) => {}
            Err(fail) => return Err(fail),
        }
    }
    match cache(client, all, "", &wanted).await {
        Ok((text, space)) => {
            out(&text);
            reclaimed += space;
        }
        Err(fail) if matches!(fail.status, Some(404 | 501)) => {}
        Err(fail) => return Err(fail),
    }
    out(&total(reclaimed));
    Ok(())
}
