//! `manifest`: lists of manifests, put together here and kept beside the configuration until they are pushed.
//!
//! These commands talk to registries themselves; the daemon has no part in them.

use std::path::PathBuf;

use oci::{Descriptor, Index, Reference, media_type};
use serde::{Deserialize, Serialize};

use super::remote::{copy_manifest, describe, failed, fetch, index, pretty, repository};
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;

/// How deep each level of what is printed is indented.
const INDENT: &[u8] = b"   ";

/// One manifest of a list that is not pushed yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(rename = "Ref")]
    reference: String,
    #[serde(rename = "Descriptor")]
    descriptor: Descriptor,
    /// The manifest, byte for byte.
    #[serde(rename = "Raw")]
    raw: String,
}

/// The lists of a configuration folder.
struct Lists(PathBuf);

/// A name that is a file's name.
fn file_name(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

fn parse(name: &str) -> Result<Reference, Fail> {
    let parsed = Reference::parse(name)
        .map_err(|error| Fail::text(format!("error parsing name for manifest list {name}: {error}")))?;
    Ok(parsed.or_latest())
}

impl Lists {
    fn folder(&self, list: &Reference) -> PathBuf {
        self.0.join(file_name(list))
    }

    fn read(&self, list: &Reference) -> Result<Vec<Kept>, Fail> {
        let mut kept = Vec::new();
        let Ok(entries) = std::fs::read_dir(self.folder(list)) else { return Ok(kept) };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let bytes = std::fs::read(&path)?;
            let one = serde_json::from_slice(&bytes)
                .map_err(|error| Fail::text(format!("cannot read {}: {error}", path.display())))?;
            kept.push(one);
        }
        Ok(kept)
    }

    fn write(&self, list: &Reference, one: &Kept) -> Result<(), Fail> {
        let folder = self.folder(list);
        std::fs::create_dir_all(&folder)?;
        let name = file_name(&parse(&one.reference)?);
        let bytes = serde_json::to_vec(one).map_err(|error| Fail::text(error.to_string()))?;
        Ok(std::fs::write(folder.join(name), bytes)?)
    }

    fn remove(&self, list: &Reference) -> Result<(), Fail> {
        Ok(std::fs::remove_dir_all(self.folder(list))?)
    }
}

fn lists(app: &App) -> Lists {
    Lists(app.folder().join("manifests"))
}

pub async fn create(app: &App, matches: &Matches) -> Result<(), Fail> {
    let [list, members @ ..] = matches.args.as_slice() else { return Ok(()) };
    let list = parse(list)?;
    let lists = lists(app);
    if !lists.read(&list)?.is_empty() && !matches.bool("amend") {
        return Err(Fail::text(format!(
            "refusing to amend an existing manifest list with no --amend flag ({})",
            list.familiar()
        )));
    }
    let mut found = Vec::new();
    for name in members {
        let reference = parse(name)?;
        let repository = repository(app, &reference, matches.bool("insecure"))?;
        let fetched = fetch(&repository, &reference).await?;
        if media_type::is_index(&fetched.media_type) {
            return Err(Fail::text(format!("{} is a manifest list", reference.familiar())));
        }
        let descriptor = describe(&repository, &fetched).await?;
        let raw = String::from_utf8_lossy(&fetched.bytes).into_owned();
        found.push(Kept { reference: reference.to_string(), descriptor, raw });
    }
    for one in &found {
        lists.write(&list, one)?;
    }
    out(&format!("Created manifest list {list}\n"));
    Ok(())
}

pub async fn annotate(app: &App, matches: &Matches) -> Result<(), Fail> {
    let (list, member) = (parse(&matches.args[0])?, parse(&matches.args[1])?);
    let lists = lists(app);
    let found = lists.read(&list)?.into_iter().find(|one| one.reference == member.to_string());
    let Some(mut found) = found else {
        return Err(Fail::text(format!(
            "manifest for image {} does not exist in {}",
            member.familiar(),
            list.familiar()
        )));
    };
    let mut platform = found.descriptor.platform.take().unwrap_or_default();
    for (flag, member) in [
        ("os", &mut platform.os),
        ("arch", &mut platform.architecture),
        ("variant", &mut platform.variant),
        ("os-version", &mut platform.os_version),
    ] {
        if matches.has(flag) {
            *member = matches.str(flag).to_owned();
        }
    }
    for feature in matches.strings("os-features") {
        if !platform.os_features.contains(&feature) {
            platform.os_features.push(feature);
        }
    }
    if platform.os.is_empty() || platform.architecture.is_empty() {
        return Err(Fail::text(format!(
            "manifest entry for image has unsupported os/arch combination: {}/{}",
            platform.os, platform.architecture
        )));
    }
    found.descriptor.platform = Some(platform);
    lists.write(&list, &found)
}

fn list_of(kept: &[Kept]) -> Index {
    index(kept.iter().map(|one| one.descriptor.clone()).collect())
}

fn document(bytes: &[u8]) -> Result<serde_json::Value, Fail> {
    serde_json::from_slice(bytes).map_err(|error| Fail::text(format!("the manifest is not valid: {error}")))
}

/// One manifest with its name and descriptor, as `--verbose` shows it.
fn verbose(reference: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<serde_json::Value, Fail> {
    let member = match descriptor.media_type == media_type::DOCKER_MANIFEST {
        true => "SchemaV2Manifest",
        false => "OCIManifest",
    };
    let raw = registry::base64::encode(bytes);
    Ok(serde_json::json!({
        "Ref": reference, "Descriptor": descriptor, "Raw": raw, member: document(bytes)?,
    }))
}

pub async fn inspect(app: &App, matches: &Matches) -> Result<(), Fail> {
    let lists = lists(app);
    let detailed = matches.bool("verbose");
    let (list, name) = match matches.args.as_slice() {
        [list, member] => (Some(parse(list)?), parse(member)?),
        [name] => (None, parse(name)?),
        _ => return Ok(()),
    };
    if let Some(list) = list {
        let found = lists.read(&list)?.into_iter().find(|one| one.reference == name.to_string());
        let found = found.ok_or_else(|| Fail::text(format!("No such manifest: {}", name.familiar())))?;
        let shown = match detailed {
            true => verbose(&found.reference, &found.descriptor, found.raw.as_bytes())?,
            false => document(found.raw.as_bytes())?,
        };
        out(&format!("{}\n", pretty(&shown, INDENT)?));
        return Ok(());
    }
    let kept = lists.read(&name)?;
    if !kept.is_empty() {
        let shown = match detailed {
            true => serde_json::Value::Array(
                kept.iter()
                    .map(|one| verbose(&one.reference, &one.descriptor, one.raw.as_bytes()))
                    .collect::<Result<_, _>>()?,
            ),
            false => serde_json::to_value(list_of(&kept)).map_err(|error| Fail::text(error.to_string()))?,
        };
        out(&format!("{}\n", pretty(&shown, INDENT)?));
        return Ok(());
    }
    let repository = repository(app, &name, matches.bool("insecure"))?;
    let fetched = fetch(&repository, &name).await?;
    if !detailed {
        out(&format!("{}\n", pretty(&document(&fetched.bytes)?, INDENT)?));
        return Ok(());
    }
    let shown = match media_type::is_index(&fetched.media_type) {
        false => {
            let descriptor = describe(&repository, &fetched).await?;
            verbose(&name.to_string(), &descriptor, &fetched.bytes)?
        }
        true => {
            let index: Index =
                serde_json::from_slice(&fetched.bytes).map_err(|error| Fail::text(error.to_string()))?;
            let mut all = Vec::new();
            for descriptor in index.manifests {
                let member = fetch(&repository, &name.with_digest(descriptor.digest.clone())).await?;
                let reference = format!("{name}@{}", descriptor.digest);
                all.push(verbose(&reference, &descriptor, &member.bytes)?);
            }
            serde_json::Value::Array(all)
        }
    };
    out(&format!("{}\n", pretty(&shown, INDENT)?));
    Ok(())
}

pub async fn push(app: &App, matches: &Matches) -> Result<(), Fail> {
    let list = parse(&matches.args[0])?;
    let lists = lists(app);
    let kept = lists.read(&list)?;
    if kept.is_empty() {
        return Err(Fail::text(format!("{} not found", list.familiar())));
    }
    let insecure = matches.bool("insecure");
    let target = repository(app, &list, insecure)?;
    for one in &kept {
        let source = parse(&one.reference)?;
        if source.domain() != list.domain() {
            return Err(Fail::text(format!(
                "cannot use source images from a different registry than the target image: {} != {}",
                source.domain(),
                list.domain()
            )));
        }
        if source.path() != list.path() {
            let from = repository(app, &source, insecure)?;
            let copied = copy_manifest(&from, &target, &source, &one.descriptor, one.raw.as_bytes());
            for digest in copied.await? {
                out(&format!("Mounted {digest} from {}\n", source.path()));
            }
        }
    }
    let index = list_of(&kept);
    let bytes = serde_json::to_vec_pretty(&index).map_err(|error| Fail::text(error.to_string()))?;
    let tag = list.tag().unwrap_or("latest");
    let digest = target.put_manifest(tag, &index.media_type, &bytes).await.map_err(failed)?;
    out(&format!("{digest}\n"));
    if matches.bool("purge") { lists.remove(&list) } else { Ok(()) }
}

pub fn rm(app: &App, matches: &Matches) -> Result<(), Fail> {
    let lists = lists(app);
    let mut missing = Vec::new();
    for name in &matches.args {
        let list = parse(name)?;
        if lists.read(&list)?.is_empty() {
            missing.push(format!("No such manifest: {}", list.familiar()));
        } else {
            lists.remove(&list)?;
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Fail::text(missing.join("\n"))),
    }
}
