//! The filters of lists.

use std::collections::BTreeSet;
use std::sync::Arc;

use oci::Reference;

use crate::glob;
use crate::state::{State, StoredImage, Summary, Target};

/// Which images a list shows. The empty filter shows all that have a name or nothing built on them.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Also images that have neither a name nor a use but as parent of others.
    pub all: bool,
    /// Older than these images.
    pub before: Vec<String>,
    /// Younger than these images.
    pub since: Vec<String>,
    /// With (`false`) or without (`true`) a tag.
    pub dangling: Option<bool>,
    /// `key` or `key=value`; all must be there.
    pub labels: Vec<String>,
    /// `key` or `key=value`; none may be there.
    pub without_labels: Vec<String>,
    /// Glob patterns of names; names that match none are not shown.
    pub references: Vec<String>,
    /// Made before this second of Unix time.
    pub until: Option<i64>,
}

/// Which images a prune takes.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    /// Also images that have names.
    pub all: bool,
    pub labels: Vec<String>,
    pub without_labels: Vec<String>,
    /// Made before this second of Unix time.
    pub until: Option<i64>,
}

/// The row of an image with those of its names that the filter lets through, or `None` if it is not shown.
pub fn row(
    state: &State,
    image: &Arc<StoredImage>,
    targets: &[Target],
    filter: &ListFilter,
) -> Option<Summary> {
    let names: BTreeSet<&Reference> = targets.iter().flat_map(|target| state.names_of(target)).collect();
    let kept: Vec<&Reference> = names
        .into_iter()
        .filter(|reference| {
            filter.references.is_empty()
                || filter.references.iter().any(|pattern| reference_matches(pattern, reference))
        })
        .collect();
    let familiar = |digests: bool| -> Vec<String> {
        let kept = kept.iter().filter(|reference| reference.digest().is_some() == digests);
        kept.map(|reference| reference.familiar()).collect()
    };
    // What has a name tells more than what has none, and an index more than one of its images.
    let target = targets.iter().min_by_key(|target| (state.names_of(target).next().is_none(), *target))?;
    let target = targets
        .iter()
        .find(|target| matches!(target, Target::Index(_)) && state.names_of(target).next().is_some())
        .unwrap_or(target);
    let summary = Summary {
        target: target.clone(),
        image: Arc::clone(image),
        repo_tags: familiar(false),
        repo_digests: familiar(true),
    };
    if summary.repo_tags.is_empty() && summary.repo_digests.is_empty() {
        let intermediate = state.children(&image.id).next().is_some();
        if (intermediate && !filter.all) || filter.dangling == Some(false) || !filter.references.is_empty() {
            return None;
        }
    } else if filter.dangling == Some(true) && !summary.repo_tags.is_empty() {
        return None;
    }
    Some(summary)
}

/// Docker matches a pattern against the familiar name with and without its tag.
fn reference_matches(pattern: &str, reference: &Reference) -> bool {
    [reference.familiar(), reference.familiar_name()]
        .iter()
        .any(|name| glob::matches(pattern, name).unwrap_or(false))
}

pub fn labels_match(image: &StoredImage, wanted: &[String], unwanted: &[String]) -> bool {
    let has = |label: &String| {
        let labels = &image.config.config.labels;
        match label.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(label),
        }
    };
    wanted.iter().all(has) && !unwanted.iter().any(has)
}
