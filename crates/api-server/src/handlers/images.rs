//! Images.

use std::sync::Arc;

use api_types::image::{
    HistoryItem, ImageDelete, ImageInspect, ImageMetadata, ImageSummary, ImagesPrune, RootFs,
};
use api_types::{ProgressDetail, ProgressMessage, StringMap};
use engine::Engine;
use http::StatusCode;
use images::{Import, ListFilter, LoadOptions, PruneFilter, RemoveOptions, Removed, StoredImage, User};
use model::filter::Filters;
use model::{Refusal, time};
use oci::{Digest, Platform, Reference};

use crate::App;
use crate::request::Request;
use crate::respond::{Outcome, empty, json, streamed};
use crate::stream::{Pipe, pipe};
use crate::versions::{self, Version};

/// Runs a use case of images where it may block.
async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Engine) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let engine = app.engine.clone();
    let done = tokio::task::spawn_blocking(move || work(&engine)).await;
    done.map_err(|error| Refusal::from_error("internal error", &error))?
}

fn refusal(error: images::Error) -> Refusal {
    engine::images_refusal(&error)
}

pub fn timestamp(nanos: i64) -> oci::Timestamp {
    oci::Timestamp { seconds: nanos.div_euclid(time::NANOS), nanos: nanos.rem_euclid(time::NANOS) as u32 }
}

fn announce(engine: &Engine, action: &str, image: &str, name: &str) {
    let attributes = StringMap::from([("name".to_string(), name.to_string())]);
    engine.announce("image", action, image, attributes);
}

pub async fn list(app: &App, request: &Request) -> Outcome {
    let filters = Filters::parse(
        request.query.text("filters"),
        &["before", "dangling", "label", "label!", "reference", "since", "until"],
    )?;
    let (all, version) = (request.query.flag("all"), request.version);
    let now = app.engine.now();
    let answers = blocking(app, move |engine| {
        let values = |key: &str| filters.values(key).map(String::from).collect::<Vec<_>>();
        let until = filters.values("until").next().map(|text| {
            time::parse_moment(text, now)
                .ok_or_else(|| Refusal::invalid(format!("invalid filter 'until=[{text}]'")))
        });
        let wanted = ListFilter {
            all,
            before: values("before"),
            since: values("since"),
            dangling: filters.flag("dangling")?,
            labels: values("label"),
            without_labels: values("label!"),
            references: values("reference"),
            until: until.transpose()?.map(|at| at.div_euclid(time::NANOS)),
        };
        let found = engine.images().list(&wanted).map_err(refusal)?;
        Ok(found.iter().map(|one| summary(engine, one, version)).collect::<Vec<_>>())
    })
    .await?;
    json(&answers)
}

/// Bytes of all layers, and every image with what it shares and how many containers it has.
pub async fn usage(app: &App, version: Version) -> Result<(i64, Vec<ImageSummary>), Refusal> {
    blocking(app, move |engine| {
        let found = engine.images().list(&ListFilter::default()).map_err(refusal)?;
        let (shared, users) = (engine.images().shared_sizes(), engine.system().image_users());
        let answers = found.iter().map(|one| {
            let mut answer = summary(engine, one, version);
            answer.shared_size = shared.get(&one.image.id).map_or(0, |bytes| *bytes as i64);
            answer.containers = users.get(&answer.id).map_or(0, |count| *count as i64);
            answer
        });
        Ok((engine.images().layers_size() as i64, answers.collect()))
    })
    .await
}

fn summary(engine: &Engine, found: &images::Summary, version: Version) -> ImageSummary {
    let image = &found.image;
    let id = image.id.to_string();
    let labels = &image.config.config.labels;
    let mut answer = ImageSummary {
        containers: if version >= Version::new(1, 51) {
            engine.system().containers_of_image(&id).len() as i64
        } else {
            -1
        },
        id,
        parent_id: image.parent.as_ref().map(Digest::to_string).unwrap_or_default(),
        repo_tags: Some(found.repo_tags.clone()),
        repo_digests: Some(found.repo_digests.clone()),
        created: image.created().seconds,
        size: image.size() as i64,
        shared_size: -1,
        virtual_size: None,
        labels: (!labels.is_empty()).then(|| labels.clone()),
    };
    versions::image_summary(&mut answer, version);
    answer
}

pub async fn inspect(app: &App, request: &Request, name: &str) -> Outcome {
    let (name, version) = (name.to_string(), request.version);
    let answer = blocking(app, move |engine| {
        let image = engine.images().resolve(&name).map_err(refusal)?;
        let mut answer = inspected(engine, &image);
        versions::inspect_image(&mut answer, version);
        Ok(answer)
    })
    .await?;
    json(&answer)
}

fn inspected(engine: &Engine, image: &Arc<StoredImage>) -> ImageInspect {
    let (tags, digests) = engine.images().references(&image.id);
    let familiar = |list: Vec<Reference>| list.iter().map(Reference::familiar).collect::<Vec<_>>();
    let config = &image.config;
    ImageInspect {
        id: image.id.to_string(),
        repo_tags: familiar(tags),
        repo_digests: familiar(digests),
        parent: image.parent.as_ref().map(Digest::to_string).unwrap_or_default(),
        comment: config.history.last().map(|step| step.comment.clone()).unwrap_or_default(),
        created: config.created.clone().unwrap_or_default(),
        docker_version: String::new(),
        author: config.author.clone(),
        config: engine::image_config(&config.config),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        size: image.size() as i64,
        virtual_size: None,
        graph_driver: engine.graph_of_image(image),
        root_fs: RootFs {
            kind: "layers".into(),
            layers: config.rootfs.diff_ids.iter().map(Digest::to_string).collect(),
        },
        metadata: ImageMetadata { last_tag_time: time::NEVER.into() },
    }
}

pub async fn history(app: &App, name: &str) -> Outcome {
    let name = name.to_string();
    let items = blocking(app, move |engine| engine.images().history(&name).map_err(refusal)).await?;
    let answers: Vec<HistoryItem> = items
        .into_iter()
        .map(|item| HistoryItem {
            id: item.id.map_or_else(|| "<missing>".into(), |id| id.to_string()),
            created: item.created.seconds,
            created_by: item.created_by,
            tags: (!item.tags.is_empty()).then_some(item.tags),
            size: item.size as i64,
            comment: item.comment,
        })
        .collect();
    json(&answers)
}

pub async fn tag(app: &App, request: &Request, name: &str) -> Outcome {
    let (repository, tag) = (request.query.text("repo").to_string(), request.query.text("tag").to_string());
    let (name, now) = (name.to_string(), app.engine.now());
    blocking(app, move |engine| {
        let image = engine.images().resolve(&name).map_err(refusal)?;
        let reference = named(&repository, &tag)?;
        engine.images().tag(&image.id, &reference, timestamp(now)).map_err(refusal)?;
        announce(engine, "tag", &image.id.to_string(), &reference.familiar());
        Ok(())
    })
    .await?;
    Ok(empty(StatusCode::CREATED))
}

/// `repo` and `tag` parameters as one reference.
pub fn named(repository: &str, tag: &str) -> Result<Reference, Refusal> {
    let reference = Reference::parse(repository).map_err(|error| Refusal::invalid(error.to_string()))?;
    if tag.is_empty() {
        return Ok(reference.or_latest());
    }
    reference.with_tag(tag).map_err(|error| Refusal::invalid(error.to_string()))
}

/// Which containers use an image, for its removal.
fn users(engine: &Engine) -> impl Fn(&Digest) -> Vec<User> + '_ {
    |image| {
        let using = engine.system().containers_of_image(&image.to_string());
        using.into_iter().map(|(container, running)| User { container, running }).collect()
    }
}

fn tell_removed(engine: &Engine, removed: &[Removed]) -> Vec<ImageDelete> {
    let mut answers = Vec::new();
    for one in removed {
        match one {
            Removed::Untagged { reference, image } => {
                announce(engine, "untag", &image.to_string(), &image.to_string());
                answers.push(ImageDelete { untagged: Some(reference.clone()), deleted: None });
            }
            Removed::Image(image) => {
                announce(engine, "delete", &image.to_string(), &image.to_string());
                answers.push(ImageDelete { untagged: None, deleted: Some(image.to_string()) });
            }
            Removed::Layer(chain) => {
                answers.push(ImageDelete { untagged: None, deleted: Some(chain.to_string()) });
            }
        }
    }
    answers
}

pub async fn remove(app: &App, request: &Request, name: &str) -> Outcome {
    if !request.query.text("platforms").is_empty() {
        return Err(Refusal::not_implemented("removing single platforms of an image"));
    }
    let options =
        RemoveOptions { force: request.query.flag("force"), keep_parents: request.query.flag("noprune") };
    let name = name.to_string();
    let answers = blocking(app, move |engine| {
        let removed = engine.images().remove(&name, options, &users(engine)).map_err(refusal)?;
        Ok(tell_removed(engine, &removed))
    })
    .await?;
    json(&answers)
}

pub async fn prune(app: &App, request: &Request) -> Outcome {
    let filters = Filters::parse(request.query.text("filters"), &["dangling", "label", "label!", "until"])?;
    let now = app.engine.now();
    let answer = blocking(app, move |engine| {
        let values = |key: &str| filters.values(key).map(String::from).collect::<Vec<_>>();
        let until = engine::prune_until(&filters, now)?;
        let wanted = PruneFilter {
            all: filters.flag("dangling")? == Some(false),
            labels: values("label"),
            without_labels: values("label!"),
            until: until.map(|at| at.div_euclid(time::NANOS)),
        };
        let (removed, freed) = engine.images().prune(&wanted, &users(engine)).map_err(refusal)?;
        let deleted = tell_removed(engine, &removed);
        engine.announce("image", "prune", "", [("reclaimed".to_string(), freed.to_string())].into());
        Ok(ImagesPrune { images_deleted: (!deleted.is_empty()).then_some(deleted), space_reclaimed: freed })
    })
    .await?;
    json(&answer)
}

/// The JSON form of a platform, as load and save take it.
pub fn platform(request: &Request) -> Result<Option<Platform>, Refusal> {
    let texts = request.query.all("platform");
    match texts.as_slice() {
        [] => Ok(None),
        [text] if text.is_empty() => Ok(None),
        [text] => serde_json::from_str(text)
            .map(Some)
            .map_err(|error| Refusal::invalid(format!("failed to parse platform: {error}"))),
        _ => Err(Refusal::not_implemented("more than one platform at a time")),
    }
}

pub async fn load(app: &App, request: Request) -> Outcome {
    let quiet = request.query.flag_or("quiet", true);
    let options = LoadOptions { platform: platform(&request)?, now: timestamp(app.engine.now()) };
    let engine = app.engine.clone();
    let (mut out, pieces) = pipe();
    let reader = request.into_reader();
    tokio::task::spawn_blocking(move || {
        let loaded = engine.images().load(reader, &options, &mut |progress| {
            if !quiet {
                let _ = out.message(&ProgressMessage {
                    status: Some("Loading layer".into()),
                    id: Some(progress.diff_id.short().into()),
                    progress_detail: Some(ProgressDetail {
                        current: Some(progress.current as i64),
                        total: Some(progress.total as i64),
                    }),
                    ..ProgressMessage::default()
                });
            }
        });
        match loaded {
            Ok(loaded) => loaded.iter().for_each(|one| tell_loaded(&engine, &mut out, one)),
            Err(error) => out.fail(0, &refusal(error)),
        }
    });
    Ok(streamed("application/json", pieces))
}

fn tell_loaded(engine: &Engine, out: &mut Pipe, loaded: &images::Loaded) {
    let id = loaded.image.id.to_string();
    let mut say = |text: String| {
        let _ = out.message(&ProgressMessage { stream: Some(text), ..ProgressMessage::default() });
    };
    for (reference, old) in &loaded.replaced {
        say(format!(
            "The image {} already exists, renaming the old one with ID {old} to empty string\n",
            reference.familiar()
        ));
    }
    if loaded.references.is_empty() {
        say(format!("Loaded image ID: {id}\n"));
    }
    for reference in &loaded.references {
        say(format!("Loaded image: {}\n", reference.familiar()));
    }
    let name = loaded.references.first().map_or_else(|| id.clone(), Reference::familiar);
    announce(engine, "load", &id, &name);
}

pub fn save(app: &App, names: Vec<String>, request: &Request) -> Outcome {
    if platform(request)?.is_some_and(|wanted| !Platform::host().serves(&wanted)) {
        return Err(Refusal::not_found("no image for the asked platform is there"));
    }
    // Comma-separated lists were never Docker's; each name comes by itself.
    if names.is_empty() {
        return Err(Refusal::invalid("no image names were given"));
    }
    for name in &names {
        app.engine.images().resolve(name).map_err(refusal)?;
    }
    let engine = app.engine.clone();
    let (out, pieces) = pipe();
    tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut out = out;
        match engine.images().save(&names, &mut out) {
            Ok(_) => {
                let _ = out.flush();
                for name in &names {
                    if let Ok(image) = engine.images().resolve(name) {
                        announce(&engine, "save", &image.id.to_string(), name);
                    }
                }
            }
            Err(error) => out.abort(&refusal(error)),
        }
    });
    Ok(streamed("application/x-tar", pieces))
}

/// `POST /images/create`: pulls or imports.
pub async fn create(app: &App, request: Request) -> Outcome {
    let query = request.query.clone();
    if !query.text("fromImage").is_empty() {
        return crate::handlers::registry::pull(app, &request).await;
    }
    match query.text("fromSrc") {
        "-" => {}
        "" => return Err(Refusal::invalid("fromImage or fromSrc must be given")),
        _ => return Err(Refusal::not_implemented("importing from a URL")),
    }
    let reference = match query.text("repo") {
        "" => None,
        repository => Some(named(repository, query.text("tag"))?),
    };
    let platform = match query.text("platform") {
        "" => Platform::host(),
        text => Platform::parse(text).map_err(|error| Refusal::invalid(error.to_string()))?,
    };
    let config = crate::handlers::build::changed_config(Default::default(), &query.all("changes"))?;
    let message = match query.text("message") {
        "" => "Imported from -".into(),
        text => text.to_string(),
    };
    let wanted =
        Import { reference: reference.clone(), config, message, platform, now: timestamp(app.engine.now()) };
    let engine = app.engine.clone();
    let (mut out, pieces) = pipe();
    let reader = request.into_reader();
    tokio::task::spawn_blocking(move || match engine.images().import(reader, wanted) {
        Ok(made) => {
            let id = made.image.id.to_string();
            announce(
                &engine,
                "import",
                &id,
                &reference.map_or_else(|| id.clone(), |reference| reference.familiar()),
            );
            let _ = out.message(&ProgressMessage { status: Some(id), ..ProgressMessage::default() });
        }
        Err(error) => out.fail(0, &refusal(error)),
    });
    Ok(streamed("application/json", pieces))
}
