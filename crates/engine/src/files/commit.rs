//! A container made an image of.

use images::{Committed, NewImage};
use model::{Kind, Phase, Refusal};
use oci::{Config, Platform, Reference, Timestamp};

use super::changes;
use crate::container::{Command, Handle};
use crate::{Engine, blocking, image};

/// What the new image is to be.
#[derive(Debug)]
pub struct Commit {
    pub config: Config,
    pub reference: Option<Reference>,
    pub author: String,
    pub comment: String,
    /// Hold the container still meanwhile, if it runs.
    pub pause: bool,
}

/// The use cases of making an image of a container.
#[derive(Clone)]
pub struct Commits(pub(crate) Engine);

impl Commits {
    /// The config that an image of a container has if nobody says otherwise; refuses what cannot be committed.
    pub fn config(&self, container: &str) -> Result<Config, Refusal> {
        let view = self.0.find(container)?.view();
        if let Phase::Removing { .. } = view.phase {
            return Err(Refusal::conflict(format!(
                "You cannot commit container {} which is being removed",
                view.id()
            )));
        }
        Ok(image::stored_config(&view.record.config))
    }

    /// Makes the image; returns its ID.
    pub async fn make(&self, container: &str, commit: Commit) -> Result<String, Refusal> {
        let handle = self.0.find(container)?;
        let is_still = match handle.view().phase {
            Phase::Running { frozen, .. } => frozen,
            _ => true,
        };
        let held = commit.pause && !is_still && hold(&handle).await?;
        let made = self.make_still(&handle, commit).await;
        if held {
            // Whoever thawed or ended it meanwhile was quicker.
            let _ = handle.ask(|answer| Command::Freeze { frozen: false, answer }).await;
        }
        made
    }

    async fn make_still(&self, handle: &Handle, commit: Commit) -> Result<String, Refusal> {
        let (commits, record) = (self.clone(), handle.view().record.clone());
        blocking(move || {
            let engine = &commits.0;
            let refused = |error: images::Error| image::refusal(&error);
            let parent = engine.images().resolve(&record.image_id).map_err(refused)?;
            let (_, others) = changes::changes(engine, &record.id)?;
            let leave_out: Vec<Vec<u8>> =
                others.into_iter().map(|change| change.path[1..].to_vec()).collect();
            let now = engine.now();
            let seconds = now.div_euclid(model::time::NANOS);
            let reference = commit.reference.map(Reference::or_latest);
            let platform =
                Some(parent.config.platform()).filter(|platform| !platform.architecture.is_empty());
            let platform = platform.unwrap_or_else(Platform::host);
            let image = NewImage {
                parent: Some(parent),
                layer: None,
                config: commit.config,
                author: commit.author,
                comment: commit.comment.clone(),
                created_by: record.config.cmd.as_deref().unwrap_or_default().join(" "),
                // A container of an image for another platform is one for that platform.
                platform,
                references: reference.iter().cloned().collect(),
                container: Some(Committed {
                    id: record.id.clone(),
                    config: serde_json::to_value(&record.config).unwrap_or_default(),
                }),
                now: Timestamp { seconds, nanos: now.rem_euclid(model::time::NANOS) as u32 },
            };
            let made = engine.images().maker().commit(&record.id, &leave_out, image).map_err(refused)?;
            let id = made.image.id.to_string();
            let name = reference.map(|reference| reference.familiar()).unwrap_or_default();
            if !name.is_empty() {
                engine.announce("image", "tag", &id, [("name".to_string(), name.clone())].into());
            }
            let told = [("comment", commit.comment), ("imageID", id.clone()), ("imageRef", name)];
            engine.events().container(&record, "commit", &told);
            Ok(id)
        })
        .await
    }
}

/// Freezes a running container; false if it has ended or stands still already.
async fn hold(handle: &Handle) -> Result<bool, Refusal> {
    match handle.ask(|answer| Command::Hold { answer }).await {
        Ok(()) => Ok(true),
        Err(refusal) if refusal.kind == Kind::Conflict => Ok(false),
        Err(refusal) => Err(refusal),
    }
}
