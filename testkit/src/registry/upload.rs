//! The half of a registry that takes: blobs in pieces, mounts from other repositories, and manifests of what is there.

use serde_json::{Value, json};

use super::{Asked, State, digest};

pub struct Stored {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

fn stored(status: u16, headers: &[(&str, String)]) -> Stored {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Stored { status, headers, body: String::new() }
}

fn refused(status: u16, code: &str) -> Stored {
    let message = code.to_lowercase().replace('_', " ");
    let body = json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    Stored { status, headers: Vec::new(), body }
}

/// One value of a query.
fn query(path: &str, key: &str) -> Option<String> {
    let pairs = path.split_once('?')?.1.split('&');
    let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key)?.1;
    Some(value.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/"))
}

/// Answers what sends something; none if this request does not.
pub fn answer(state: &mut State, asked: &Asked) -> Option<Stored> {
    let path = asked.path.split('?').next()?;
    if let Some((name, rest)) = path.strip_prefix("/v2/")?.split_once("/blobs/uploads/") {
        return blob(state, asked, name, rest);
    }
    let (name, reference) = path.strip_prefix("/v2/")?.split_once("/manifests/")?;
    (asked.method == "PUT").then(|| manifest(state, asked, name, reference))
}

fn blob(state: &mut State, asked: &Asked, name: &str, number: &str) -> Option<Stored> {
    if asked.method == "POST" {
        if let (Some(mount), Some(from)) = (query(&asked.path, "mount"), query(&asked.path, "from"))
            && let Some(found) = state.served.get(&format!("/v2/{from}/blobs/{mount}")).cloned()
        {
            let path = format!("/v2/{name}/blobs/{mount}");
            state.served.insert(path.clone(), found);
            return Some(stored(201, &[("Location", path)]));
        }
        let number = state.uploads.len() as u64;
        state.uploads.insert(number, Vec::new());
        let location = format!("/v2/{name}/blobs/uploads/{number}");
        return Some(stored(202, &[("Location", location), ("Range", "0-0".into())]));
    }
    let key: u64 = number.parse().ok()?;
    let Some(upload) = state.uploads.get_mut(&key) else { return Some(refused(404, "BLOB_UPLOAD_UNKNOWN")) };
    upload.extend_from_slice(&asked.body);
    let range = format!("0-{}", upload.len().saturating_sub(1));
    let location = format!("/v2/{name}/blobs/uploads/{number}");
    Some(match asked.method.as_str() {
        "PATCH" => stored(202, &[("Location", location), ("Range", range)]),
        "GET" => stored(204, &[("Location", location), ("Range", range)]),
        "PUT" => {
            let bytes = std::mem::take(upload);
            let wanted = query(&asked.path, "digest").unwrap_or_default();
            if digest(&bytes) != wanted {
                return Some(refused(400, "DIGEST_INVALID"));
            }
            let path = format!("/v2/{name}/blobs/{wanted}");
            state.served.insert(path.clone(), ("application/octet-stream".into(), bytes));
            stored(201, &[("Location", path)])
        }
        _ => stored(204, &[]),
    })
}

/// Takes a manifest if everything that it names is there.
fn manifest(state: &mut State, asked: &Asked, name: &str, reference: &str) -> Stored {
    let Ok(document) = serde_json::from_slice::<Value>(&asked.body) else {
        return refused(400, "MANIFEST_INVALID");
    };
    let has = |kind: &str, entry: &Value| {
        let wanted = entry["digest"].as_str().unwrap_or_default();
        state.served.contains_key(&format!("/v2/{name}/{kind}/{wanted}"))
    };
    let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    let blobs = list("layers").into_iter().chain(document.get("config").cloned());
    if !blobs.into_iter().all(|entry| has("blobs", &entry))
        || !list("manifests").iter().all(|entry| has("manifests", entry))
    {
        return refused(400, "MANIFEST_BLOB_UNKNOWN");
    }
    let media_type = asked.headers.get("content-type").cloned().unwrap_or_default();
    let own = digest(&asked.body);
    for under in [reference, &own] {
        let path = format!("/v2/{name}/manifests/{under}");
        state.served.insert(path, (media_type.clone(), asked.body.clone()));
    }
    stored(
        201,
        &[("Docker-Content-Digest", own.clone()), ("Location", format!("/v2/{name}/manifests/{own}"))],
    )
}
