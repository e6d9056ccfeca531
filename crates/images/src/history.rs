//! How an image came to be, step by step.

use oci::{Digest, Platform, Timestamp};

use crate::filter::{self, ListFilter};
use crate::{Catalog, Error};

/// One step, youngest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// The image after the step, if it is known here.
    pub id: Option<Digest>,
    pub created: Timestamp,
    pub created_by: String,
    /// Familiar names of the image after the step.
    pub tags: Vec<String>,
    /// Bytes of file content that the step brought.
    pub size: u64,
    pub comment: String,
}

impl Catalog<'_> {
    /// The steps of an image: the one for a platform, or for this host.
    pub fn history(self, name: &str, platform: Option<&Platform>) -> Result<Vec<HistoryItem>, Error> {
        let state = self.0.read();
        let image = state.find(name, platform)?.image;
        let mut layers = image.layers.iter();
        let mut items: Vec<HistoryItem> = Vec::with_capacity(image.config.history.len());
        for step in &image.config.history {
            let size = if step.empty_layer { 0 } else { layers.next().map_or(0, |layer| layer.bytes) };
            items.push(HistoryItem {
                id: None,
                created: step.created.as_deref().and_then(Timestamp::parse).unwrap_or_default(),
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size,
                comment: step.comment.clone(),
            });
        }
        items.reverse();
        // Each parent made here is the image before one step.
        let mut next = Some(image);
        for item in &mut items {
            let Some(image) = next else { break };
            item.id = Some(image.id.clone());
            let all = ListFilter { all: true, ..ListFilter::default() };
            let row = filter::row(&state, &image, &state.targets_of(&image.id), &all);
            item.tags = row.map(|row| row.repo_tags).unwrap_or_default();
            next = image.parent.as_ref().and_then(|parent| state.images.get(parent).cloned());
        }
        Ok(items)
    }
}
