//! What versions of the API ask and are told of images and their platforms.

use api_types::image::{ImageInspect, ImageSummary};
use model::Refusal;
use oci::Platform;

use super::Version;
use crate::request::Request;

/// Refuses a route that is younger than the request's version.
pub fn needs(request: &Request, minor: u16, method: &str, path: &str) -> Result<(), Refusal> {
    let since = Version::new(1, minor);
    if request.version < since {
        return Err(Refusal::invalid(format!("{method} {path} requires minimum API version {since}")));
    }
    Ok(())
}

/// Platforms as JSON, which both parts of a platform have to be in.
pub fn json_platforms(texts: &[String]) -> Result<Vec<Platform>, Refusal> {
    texts.iter().filter(|text| !text.is_empty()).map(|text| json_platform(text)).collect()
}

fn json_platform(text: &str) -> Result<Platform, Refusal> {
    let platform: Platform = serde_json::from_str(text)
        .map_err(|error| Refusal::invalid(format!("failed to parse platform: {error}")))?;
    let optional =
        !platform.variant.is_empty() || !platform.os_version.is_empty() || !platform.os_features.is_empty();
    match (platform.os.is_empty(), platform.architecture.is_empty()) {
        (false, false) => Ok(platform.normalised()),
        (true, true) if optional => Err(Refusal::invalid(
            "optional platform components provided, but OS and Architecture are not set",
        )),
        _ => Err(Refusal::invalid("both OS and Architecture must be provided")),
    }
}

/// The platform of a request, if its version could ask for one.
fn one_platform(request: &Request, since: u16) -> Result<Option<Platform>, Refusal> {
    if request.version < Version::new(1, since) || request.query.text("platform").is_empty() {
        return Ok(None);
    }
    json_platform(request.query.text("platform")).map(Some)
}

pub fn push_platform(request: &Request) -> Result<Option<Platform>, Refusal> {
    one_platform(request, 46)
}

pub fn history_platform(request: &Request) -> Result<Option<Platform>, Refusal> {
    one_platform(request, 48)
}

pub fn inspect_platform(request: &Request) -> Result<Option<Platform>, Refusal> {
    one_platform(request, 49)
}

/// What load and save are for. Docker takes several platforms from 1.52 on; who could name one before may name more here.
pub fn archive_platforms(request: &Request) -> Result<Vec<Platform>, Refusal> {
    match request.version >= Version::new(1, 48) {
        true => json_platforms(&request.query.all("platform")),
        false => Ok(Vec::new()),
    }
}

pub fn removed_platforms(request: &Request) -> Result<Vec<Platform>, Refusal> {
    match request.version >= Version::new(1, 50) {
        true => json_platforms(&request.query.all("platforms")),
        false => Ok(Vec::new()),
    }
}

pub fn has_manifests(version: Version) -> bool {
    version >= Version::new(1, 47)
}

/// Whether a list is to say where each manifest comes from, beside the manifests themselves.
pub fn list_identity(request: &Request) -> bool {
    request.version >= Version::new(1, 54) && request.query.flag("identity")
}

pub fn inspect_manifests(request: &Request) -> bool {
    request.version >= Version::new(1, 48) && request.query.flag("manifests")
}

/// Before 1.48 images had no descriptor, before 1.44 there was `VirtualSize`; before 1.43 nameless images had the name
/// `<none>`.
pub fn image_summary(answer: &mut ImageSummary, version: Version) {
    if version < Version::new(1, 48) {
        answer.descriptor = None;
    }
    if version < Version::new(1, 44) {
        answer.virtual_size = Some(answer.size);
    }
    if version < Version::new(1, 43) {
        if answer.repo_tags.as_ref().is_none_or(Vec::is_empty) {
            answer.repo_tags = Some(vec!["<none>:<none>".into()]);
        }
        if answer.repo_digests.as_ref().is_none_or(Vec::is_empty) {
            answer.repo_digests = Some(vec!["<none>@<none>".into()]);
        }
    }
}

/// Before 1.53 an image did not say where it comes from; before 1.45 it told of the container that it was committed from,
/// also if it was none.
pub fn inspect_image(answer: &mut ImageInspect, version: Version) {
    if version < Version::new(1, 53) {
        answer.identity = None;
    }
    if version < Version::new(1, 45) {
        answer.container.get_or_insert_default();
        answer.container_config.get_or_insert_default();
    } else {
        (answer.container, answer.container_config) = (None, None);
    }
    if version < Version::new(1, 48) {
        answer.descriptor = None;
    }
    if version < Version::new(1, 44) {
        answer.virtual_size = Some(answer.size);
    }
}
