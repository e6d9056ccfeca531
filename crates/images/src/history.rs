//! How an image came to be, step by step.

use oci::{Digest, Timestamp};

use crate::{Error, Images};

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

impl Images {
    /// The steps of an image.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryItem>, Error> {
        let state = self.read();
        let (image, _) = state.resolve(name)?;
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
            item.tags = state.summary(&image).repo_tags;
            next = image.parent.as_ref().and_then(|parent| state.images.get(parent).cloned());
        }
        Ok(items)
    }
}
