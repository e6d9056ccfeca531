//! `images`, `rmi` and `tag`.

use api_client::{Request, segment};
use api_types::image::{ImageDelete, ImageSummary};

use super::{filters, image_tree};
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::opts::reference;
use crate::output::out;
use crate::table::{List, Row, short_id};
use crate::time;
use crate::units::{human_duration, human_size};

const NONE: &str = "<none>";

pub const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// Flags that only the list by repository and tag has an answer for.
const LEGACY: &[&str] = &["quiet", "no-trunc", "digests"];

pub async fn images(app: &App, matches: &Matches) -> Result<(), Fail> {
    let quiet = matches.bool("quiet");
    let tree = matches.bool("tree");
    let format = match matches.str("format") {
        "" if !quiet => app.config().text("imagesFormat"),
        format => format,
    };
    let legacy = LEGACY.iter().find(|flag| matches.bool(flag));
    if tree {
        if let Some(flag) = legacy {
            return Err(Fail::text(format!("--{flag} is not yet supported with --tree")));
        }
        if !matches.str("format").is_empty() {
            return Err(Fail::text("--format is not yet supported with --tree"));
        }
    }
    let mut wanted: Vec<String> = matches.list("filter").to_vec();
    if let Some(name) = matches.args.first() {
        wanted.push(format!("reference={name}"));
    }
    let all = matches.bool("all");
    let old = legacy.is_some() || !format.is_empty();
    let mut request = Request::get("/images/json").flag("all", all).flag("manifests", tree || !old);
    if let Some(filters) = filters(&wanted) {
        request = request.query("filters", filters);
    }
    let found: Vec<ImageSummary> = app.client().await?.json(request).await?;
    if tree || !old {
        let dangling = all || wanted.iter().any(|filter| filter.starts_with("dangling="));
        image_tree::show(&found, tree, dangling);
        return Ok(());
    }
    let digests = matches.bool("digests");
    let list = List {
        default: if digests {
            "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        } else {
            "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        },
        headings: HEADINGS,
        type_name: "*formatter.imageContext",
    };
    let truncate = !matches.bool("no-trunc");
    let names = Names { digests, all: format.contains("{{.Digest}}") };
    let now = time::now();
    let rows: Vec<Row> = found.iter().flat_map(|image| rows(image, &names, truncate, now)).collect();
    if quiet && matches!(format, "" | "table") {
        let ids = rows.iter().filter_map(|row| row.fields.get("ID")?.as_str());
        out(&ids.map(|id| format!("{id}\n")).collect::<String>());
        return Ok(());
    }
    out(&list.render(format, &rows)?);
    Ok(())
}

pub struct Names {
    pub digests: bool,
    pub all: bool,
}

/// One row for each name of an image, or one without a name.
pub fn rows(image: &ImageSummary, names: &Names, truncate: bool, now: i64) -> Vec<Row> {
    let split = |text: &String| {
        let (repository, tag, digest) = reference::split(text);
        (repository.to_owned(), tag.unwrap_or(NONE).to_owned(), digest.unwrap_or(NONE).to_owned())
    };
    let tags: Vec<_> =
        image.repo_tags.iter().flatten().filter(|tag| *tag != "<none>:<none>").map(split).collect();
    let digests: Vec<_> =
        image.repo_digests.iter().flatten().filter(|name| !name.starts_with(NONE)).map(split).collect();
    let mut found: Vec<(String, String, String)> = Vec::new();
    let by_digest = names.digests || names.all;
    for (repository, tag, _) in &tags {
        let matching: Vec<&str> = digests
            .iter()
            .filter(|(known, ..)| known == repository)
            .map(|(.., digest)| digest.as_str())
            .collect();
        match by_digest && !matching.is_empty() {
            true => found.extend(
                matching.iter().map(|digest| (repository.clone(), tag.clone(), (*digest).to_owned())),
            ),
            false => found.push((repository.clone(), tag.clone(), NONE.to_owned())),
        }
    }
    // Repositories that are known by a digest alone.
    for (repository, _, digest) in &digests {
        if tags.iter().any(|(known, ..)| known == repository) {
            continue;
        }
        if names.digests {
            found.push((repository.clone(), NONE.to_owned(), digest.clone()));
        } else if !found.iter().any(|(known, ..)| known == repository) {
            found.push((repository.clone(), NONE.to_owned(), String::new()));
        }
    }
    if found.is_empty() {
        found.push((NONE.to_owned(), NONE.to_owned(), NONE.to_owned()));
    }
    found.into_iter().map(|name| row(image, name, truncate, now)).collect()
}

fn row(
    image: &ImageSummary,
    (repository, tag, digest): (String, String, String),
    truncate: bool,
    now: i64,
) -> Row {
    let size = |bytes: i64| if bytes < 0 { "N/A".to_owned() } else { human_size(bytes as f64, 4) };
    let unique = if image.shared_size < 0 { -1 } else { image.size - image.shared_size };
    let containers = if image.containers < 0 { "N/A".to_owned() } else { image.containers.to_string() };
    Row::new([
        ("ID", if truncate { short_id(&image.id) } else { image.id.clone() }),
        ("Repository", repository),
        ("Tag", tag),
        ("Digest", digest),
        ("CreatedSince", format!("{} ago", human_duration(now - image.created))),
        ("CreatedAt", time::format_long(image.created)),
        ("Size", human_size(image.size as f64, 3)),
        ("VirtualSize", human_size(image.size as f64, 4)),
        ("Containers", containers),
        ("SharedSize", size(image.shared_size)),
        ("UniqueSize", size(unique)),
    ])
}

pub async fn rmi(app: &App, matches: &Matches) -> Result<(), Fail> {
    let client = app.client().await?;
    let force = matches.bool("force");
    let mut failed: Vec<Fail> = Vec::new();
    for name in &matches.args {
        let mut request = Request::delete(format!("/images/{}", segment(name)))
            .flag("force", force)
            .flag("noprune", matches.bool("no-prune"));
        for platform in matches.strings("platform") {
            request = request.query("platforms", crate::commands::transfer::platform_json(&platform)?);
        }
        match client.json::<Vec<ImageDelete>>(request).await {
            Ok(deleted) => out(&deleted_lines(&deleted)),
            Err(error) => failed.push(error.into()),
        }
    }
    let missing = failed.iter().all(|fail| fail.status == Some(404));
    let Some(mut first) =
        failed.first().map(|fail| Fail { hint: fail.hint.clone(), ..Fail::text(String::new()) })
    else {
        return Ok(());
    };
    first.text = failed.iter().map(|fail| fail.text.as_str()).collect::<Vec<_>>().join("\n");
    if force && missing {
        // What is not there needs no force to be gone.
        eprintln!("{}", first.text);
        return Ok(());
    }
    Err(first)
}

/// What a removal did, a line each.
pub fn deleted_lines(deleted: &[ImageDelete]) -> String {
    deleted
        .iter()
        .map(|one| match (&one.deleted, &one.untagged) {
            (Some(id), _) => format!("Deleted: {id}\n"),
            (None, untagged) => format!("Untagged: {}\n", untagged.as_deref().unwrap_or_default()),
        })
        .collect()
}

pub async fn tag(app: &App, matches: &Matches) -> Result<(), Fail> {
    let (source, target) = (&matches.args[0], &matches.args[1]);
    reference::check(target).map_err(|error| {
        Fail::text(format!(
            "Error parsing reference: {} is not a valid repository/tag: {error}",
            template::quote(target)
        ))
    })?;
    let (repository, tag, digest) = reference::split(target);
    if digest.is_some() {
        return Err(Fail::text("refusing to create a tag with a digest reference"));
    }
    let request = Request::post(format!("/images/{}/tag", segment(source)))
        .query("repo", repository)
        .query("tag", tag.unwrap_or("latest"));
    Ok(app.client().await?.done(request).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(image: &ImageSummary, digests: bool) -> Vec<String> {
        rows(image, &Names { digests, all: false }, true, 0)
            .iter()
            .map(|row| {
                format!("{} {} {}", row.fields["Repository"], row.fields["Tag"], row.fields["Digest"])
                    .replace('"', "")
            })
            .collect()
    }

    #[test]
    fn a_row_per_name() {
        let image = ImageSummary {
            repo_tags: Some(vec!["a:1".to_owned(), "a:2".to_owned()]),
            repo_digests: Some(vec!["a@sha256:x".to_owned(), "b@sha256:y".to_owned()]),
            ..ImageSummary::default()
        };
        assert_eq!(names(&image, false), ["a 1 <none>", "a 2 <none>", "b <none> "]);
        assert_eq!(names(&image, true), ["a 1 sha256:x", "a 2 sha256:x", "b <none> sha256:y"]);
        assert_eq!(names(&ImageSummary::default(), false), ["<none> <none> <none>"]);
    }
}
