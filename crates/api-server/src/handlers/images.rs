//! Images.

use api_types::StringMap;
use api_types::image::{
    AttestationStatement, HistoryItem, Identity, ImageDelete, ImageInspect, ImageMetadata, ImageSummary,
    ImagesPrune, ManifestAttestation, ManifestImage, ManifestSize, ManifestSummary, PullIdentity, RootFs,
    UnpackedSize,
};
use engine::Engine;
use http::StatusCode;
use images::{
    ChildKind, Found, ListFilter, PruneFilter, RemoveOptions, Removed, StatementFilter, Target, User,
};
use model::filter::Filters;
use model::{Refusal, time};
use oci::{Digest, Reference};

use crate::App;
use crate::request::Request;
use crate::respond::{Outcome, empty, json};
use crate::versions::{self, Version};

/// Runs a use case of images where it may block.
pub async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Engine) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let engine = app.engine.clone();
    let done = tokio::task::spawn_blocking(move || work(&engine)).await;
    done.map_err(|error| Refusal::from_error("internal error", &error))?
}

pub fn refusal(error: images::Error) -> Refusal {
    engine::images_refusal(&error)
}

pub fn timestamp(nanos: i64) -> oci::Timestamp {
    oci::Timestamp { seconds: nanos.div_euclid(time::NANOS), nanos: nanos.rem_euclid(time::NANOS) as u32 }
}

pub fn announce(engine: &Engine, action: &str, image: &str, name: &str) {
    let attributes = StringMap::from([("name".to_string(), name.to_string())]);
    engine.announce("image", action, image, attributes);
}

pub async fn list(app: &App, request: &Request) -> Outcome {
    let filters = Filters::parse(
        request.query.text("filters"),
        &["before", "dangling", "label", "label!", "reference", "since", "until"],
    )?;
    let (all, version) = (request.query.flag("all"), request.version);
    let manifests = versions::has_manifests(version) && request.query.flag("manifests");
    let identities = versions::list_identity(request);
    let shared = request.query.flag("shared-size");
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
        let found = engine.images().catalog().list(&wanted).map_err(refusal)?;
        let shared = shared.then(|| engine.images().catalog().shared_sizes());
        let answers = found.iter().map(|one| {
            let mut answer = summary(engine, one, version);
            if let Some(shared) = &shared {
                answer.shared_size = shared.get(&one.image.id).map_or(0, |bytes| *bytes as i64);
            }
            answer.manifests = manifests.then(|| manifest_summaries(engine, &one.target));
            if identities {
                // What is known is known of the whole, and told with each of its images.
                let known = identity(engine, &engine.images().names().of_target(&one.target).1);
                let images = answer.manifests.iter_mut().flatten().filter_map(|one| one.image_data.as_mut());
                images.for_each(|image| image.identity = known.clone());
            }
            answer
        });
        Ok(answers.collect::<Vec<_>>())
    })
    .await?;
    json(&answers)
}

/// Bytes of all layers, and every image with what it shares and how many containers it has.
pub async fn usage(app: &App, version: Version) -> Result<(i64, Vec<ImageSummary>), Refusal> {
    blocking(app, move |engine| {
        let catalog = engine.images().catalog();
        let found = catalog.list(&ListFilter::default()).map_err(refusal)?;
        let (shared, users) = (catalog.shared_sizes(), engine.system().image_users());
        let answers = found.iter().map(|one| {
            let mut answer = summary(engine, one, version);
            answer.shared_size = shared.get(&one.image.id).map_or(0, |bytes| *bytes as i64);
            let images = catalog.images_of(&one.target);
            let counts = images.iter().filter_map(|image| users.get(&image.id.to_string()));
            answer.containers = counts.map(|count| *count as i64).sum();
            answer
        });
        Ok((catalog.layers_size() as i64, answers.collect()))
    })
    .await
}

fn summary(engine: &Engine, found: &images::Summary, version: Version) -> ImageSummary {
    let image = &found.image;
    let catalog = engine.images().catalog();
    let labels = &image.config.config.labels;
    let containers = || {
        let images = catalog.images_of(&found.target);
        images
            .iter()
            .map(|image| engine.system().containers_of_image(&image.id.to_string()).len() as i64)
            .sum()
    };
    let mut answer = ImageSummary {
        containers: if version >= Version::new(1, 51) { containers() } else { -1 },
        id: image.id.to_string(),
        parent_id: image.parent.as_ref().map(Digest::to_string).unwrap_or_default(),
        repo_tags: Some(found.repo_tags.clone()),
        repo_digests: Some(found.repo_digests.clone()),
        created: image.created().seconds,
        size: catalog.unpacked_size(&found.target) as i64,
        shared_size: -1,
        virtual_size: None,
        labels: (!labels.is_empty()).then(|| labels.clone()),
        manifests: None,
        descriptor: catalog.descriptor(&found.target).map(engine::api_descriptor),
    };
    versions::image_summary(&mut answer, version);
    answer
}

/// Where registries have been seen to have what these names with digests stand for. Signatures are not verified, and
/// what was built here says so nowhere.
fn identity(engine: &Engine, digests: &[Reference]) -> Option<Identity> {
    let repositories = engine.images().names().repositories(digests);
    let pull: Vec<_> = repositories.into_iter().map(|repository| PullIdentity { repository }).collect();
    (!pull.is_empty()).then_some(Identity { pull })
}

/// Every manifest that a name stands for.
fn manifest_summaries(engine: &Engine, target: &Target) -> Vec<ManifestSummary> {
    let manifests = engine.images().catalog().manifests(target);
    manifests.into_iter().map(|one| manifest_summary(engine, one)).collect()
}

fn manifest_summary(engine: &Engine, from: images::ManifestSummary) -> ManifestSummary {
    let users = from.image.as_ref().map(|image| engine.system().containers_of_image(&image.id.to_string()));
    let containers = users.unwrap_or_default().into_iter().map(|(container, _)| container).collect();
    let (kind, about) = match from.kind {
        ChildKind::Image => ("image", None),
        ChildKind::Attestation(about) => ("attestation", Some(about)),
        ChildKind::Unknown => ("unknown", None),
    };
    ManifestSummary {
        id: from.descriptor.digest.to_string(),
        descriptor: engine::api_descriptor(from.descriptor),
        available: from.available,
        size: ManifestSize { total: (from.content + from.unpacked) as i64, content: from.content as i64 },
        kind: kind.into(),
        image_data: from.platform.map(|of| ManifestImage {
            platform: engine::api_platform(of),
            identity: None,
            containers,
            size: UnpackedSize { unpacked: from.unpacked as i64 },
        }),
        attestation_data: about.map(|about| ManifestAttestation { about }),
    }
}

pub async fn inspect(app: &App, request: &Request, name: &str) -> Outcome {
    let (name, version) = (name.to_string(), request.version);
    let wanted = versions::inspect_platform(request)?;
    let manifests = versions::inspect_manifests(request);
    if manifests && wanted.is_some() {
        return Err(Refusal::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let answer = blocking(app, move |engine| {
        let found = engine.images().find(&name, wanted.as_ref()).map_err(refusal)?;
        let mut answer = inspected(engine, &found);
        answer.manifests = manifests.then(|| manifest_summaries(engine, &found.target));
        versions::inspect_image(&mut answer, version);
        Ok(answer)
    })
    .await?;
    json(&answer)
}

fn inspected(engine: &Engine, found: &Found) -> ImageInspect {
    let (image, names, catalog) = (&found.image, engine.images().names(), engine.images().catalog());
    let (mut tags, mut digests) = names.of(&image.id);
    if tags.is_empty() && digests.is_empty() {
        // An image for another platform is called what its index is called.
        (tags, digests) = names.of_target(&found.target);
    }
    let familiar = |list: Vec<Reference>| list.iter().map(Reference::familiar).collect::<Vec<_>>();
    let config = &image.config;
    ImageInspect {
        id: image.id.to_string(),
        descriptor: catalog.descriptor(&found.target).map(engine::api_descriptor),
        manifests: None,
        identity: identity(engine, &digests),
        repo_tags: familiar(tags),
        repo_digests: familiar(digests),
        parent: image.parent.as_ref().map(Digest::to_string).unwrap_or_default(),
        comment: config.history.last().map(|step| step.comment.clone()).unwrap_or_default(),
        created: config.created.clone().unwrap_or_default(),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        config: engine::image_config(&config.config),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        size: image.size() as i64,
        virtual_size: None,
        container: Some(config.container.clone()),
        container_config: config.container_config.clone().and_then(|told| serde_json::from_value(told).ok()),
        graph_driver: engine.graph_of_image(image),
        root_fs: RootFs {
            kind: "layers".into(),
            layers: config.rootfs.diff_ids.iter().map(Digest::to_string).collect(),
        },
        metadata: ImageMetadata {
            last_tag_time: names
                .last_given(&image.id)
                .map_or_else(|| time::NEVER.into(), |at| at.to_string()),
        },
    }
}

pub async fn history(app: &App, request: &Request, name: &str) -> Outcome {
    let (name, wanted) = (name.to_string(), versions::history_platform(request)?);
    let items = blocking(app, move |engine| {
        engine.images().catalog().history(&name, wanted.as_ref()).map_err(refusal)
    })
    .await?;
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

/// `GET /images/{name}/attestations`.
pub async fn attestations(app: &App, request: &Request, name: &str) -> Outcome {
    versions::needs(request, 55, "GET", "/images/{name}/attestations")?;
    let mut wanted = versions::json_platforms(&request.query.all("platform"))?;
    if wanted.len() > 1 {
        return Err(Refusal::invalid("only one platform can be asked for at a time"));
    }
    let filter = StatementFilter {
        platform: wanted.pop(),
        predicates: request.query.all("type"),
        with_body: request.query.flag("statement"),
    };
    let name = name.to_string();
    let found =
        blocking(app, move |engine| engine.images().catalog().statements(&name, &filter).map_err(refusal))
            .await?;
    let answers: Vec<AttestationStatement> = found
        .into_iter()
        .map(|one| AttestationStatement {
            descriptor: engine::api_descriptor(one.descriptor),
            predicate_type: one.predicate,
            statement: one.body,
        })
        .collect();
    json(&answers)
}

pub async fn tag(app: &App, request: &Request, name: &str) -> Outcome {
    let (repository, tag) = (request.query.text("repo").to_string(), request.query.text("tag").to_string());
    let (name, now) = (name.to_string(), app.engine.now());
    blocking(app, move |engine| {
        let found = engine.images().find(&name, None).map_err(refusal)?;
        let reference = named(&repository, &tag)?;
        engine.images().names().tag(&found.target, &reference, timestamp(now)).map_err(refusal)?;
        announce(engine, "tag", &found.image.id.to_string(), &reference.familiar());
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
    let platforms = versions::removed_platforms(request)?;
    let options =
        RemoveOptions { force: request.query.flag("force"), keep_parents: request.query.flag("noprune") };
    let name = name.to_string();
    let answers = blocking(app, move |engine| {
        let (removals, users) = (engine.images().removals(), users(engine));
        let removed = match platforms.as_slice() {
            [] => removals.remove(&name, options, &users),
            platforms => removals.remove_platforms(&name, platforms, options, &users),
        };
        let removed = removed.map_err(refusal)?;
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
        let (removed, freed) = engine.images().removals().prune(&wanted, &users(engine)).map_err(refusal)?;
        let deleted = tell_removed(engine, &removed);
        engine.announce("image", "prune", "", [("reclaimed".to_string(), freed.to_string())].into());
        Ok(ImagesPrune { images_deleted: (!deleted.is_empty()).then_some(deleted), space_reclaimed: freed })
    })
    .await?;
    json(&answer)
}
