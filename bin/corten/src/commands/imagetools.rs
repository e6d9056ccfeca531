//! `buildx imagetools`: what a name stands for in its registry, and indexes put together of what is there.

use std::collections::{BTreeMap, BTreeSet};

use oci::{Descriptor, Digest, Image, Index, Platform, Reference, media_type};
use registry::{Fetched, Repository};
use serde_json::{Map, Value, json};
use template::{MissingKey, NoMethods, Template, Val};

use super::remote::{
    asked, config, copy_manifest, describe, failed, fetch, index, platforms, pretty, read, repository,
};
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::tabwriter;

const INDENT: &[u8] = b"  ";

fn parse(name: &str) -> Result<Reference, Fail> {
    Reference::parse(name).map(Reference::or_latest).map_err(|error| Fail::text(error.to_string()))
}

fn value(of: &impl serde::Serialize) -> Result<Value, Fail> {
    serde_json::to_value(of).map_err(|error| Fail::text(error.to_string()))
}

pub async fn inspect(app: &App, matches: &Matches) -> Result<(), Fail> {
    let reference = parse(&matches.args[0])?;
    let repository = repository(app, &reference, false)?;
    let fetched = fetch(&repository, &reference).await?;
    if matches.bool("raw") {
        // Without an end of line, so that it keeps its digest.
        out(&String::from_utf8_lossy(&fetched.bytes));
        return Ok(());
    }
    let format = matches.str("format");
    if matches!(format, "" | "{{.Manifest}}") {
        out(&table(&reference, &fetched)?);
        return Ok(());
    }
    let template = Template::parse("", format)
        .map_err(|error| Fail::text(format!("template parsing error: {error}")))?;
    let shown = Shown { reference: &reference, repository: &repository, fetched: &fetched };
    let object = shown.object(format).await?;
    // `json` of this command is indented, and that of templates is not.
    let whole = format.trim().strip_prefix("{{json ").and_then(|rest| rest.strip_suffix("}}"));
    if let Some(path) = whole.map(str::trim).filter(|path| is_path(path)) {
        let mut parts = path.split('.').filter(|part| !part.is_empty());
        let found = parts.try_fold(&object, |value, part| value.get(part));
        out(&pretty(found.unwrap_or(&Value::Null), INDENT)?);
        return Ok(());
    }
    out(&template.execute_typed(Val::json(&object), MissingKey::NoValue, &NoMethods)?);
    Ok(())
}

/// `.Manifest.digest` and its like.
fn is_path(text: &str) -> bool {
    text.starts_with('.') && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'))
}

fn table(reference: &Reference, fetched: &Fetched) -> Result<String, Fail> {
    let mut text =
        format!("Name:\t{reference}\nMediaType:\t{}\nDigest:\t{}\n", fetched.media_type, fetched.digest);
    if !media_type::is_index(&fetched.media_type) {
        return Ok(tabwriter::align_with(&text, 0, 1));
    }
    let index: Index = read("the manifest list", &fetched.bytes)?;
    text.push_str("\t\nManifests:\t\n");
    let mut text = tabwriter::align_with(&text, 0, 1);
    for (number, entry) in index.manifests.iter().enumerate() {
        let mut block = if number == 0 { String::new() } else { "\t\n".to_owned() };
        let name = if reference.digest().is_some() { reference.name() } else { reference.to_string() };
        block += &format!("  Name:\t{name}@{}\n  MediaType:\t{}\n", entry.digest, entry.media_type);
        if let Some(platform) = &entry.platform {
            block += &format!("  Platform:\t{platform}\n");
            if !platform.os_version.is_empty() {
                block += &format!("  OSVersion:\t{}\n", platform.os_version);
            }
            if !platform.os_features.is_empty() {
                block += &format!("  OSFeatures:\t{}\n", platform.os_features.join(", "));
            }
        }
        if !entry.urls.is_empty() {
            block += &format!("  URLs:\t{}\n", entry.urls.join(", "));
        }
        if !entry.annotations.is_empty() {
            block += "  Annotations:\t\n";
        }
        text += &tabwriter::align_with(&block, 0, 1);
        let annotations: String =
            entry.annotations.iter().map(|(key, value)| format!("    {key}:\t{value}\n")).collect();
        text += &tabwriter::align_with(&annotations, 0, 1);
    }
    Ok(text)
}

/// What templates see.
struct Shown<'a> {
    reference: &'a Reference,
    repository: &'a Repository,
    fetched: &'a Fetched,
}

impl Shown<'_> {
    async fn object(&self, format: &str) -> Result<Value, Fail> {
        let mut object = Map::new();
        object.insert("Name".into(), self.reference.to_string().into());
        object.insert("Manifest".into(), self.manifest()?);
        let whole = format.contains(".}}") || format.contains(". }}");
        let (image, provenance, sbom) =
            (format.contains(".Image"), format.contains(".Provenance"), format.contains(".SBOM"));
        if image || whole {
            object.insert("Image".into(), of_platforms(self.images().await?));
        }
        for (member, inner, predicate, wanted) in [
            ("Provenance", "SLSA", "https://slsa.dev/provenance/", provenance),
            ("SBOM", "SPDX", "https://spdx.dev/Document", sbom),
        ] {
            if wanted || whole {
                object.insert(member.into(), of_platforms(self.statements(inner, predicate).await?));
            }
        }
        Ok(object.into())
    }

    /// The descriptor, and of an index what it names as well.
    fn manifest(&self) -> Result<Value, Fail> {
        let Fetched { media_type, digest, bytes } = self.fetched;
        let mut object =
            json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() });
        if media_type::is_index(media_type) {
            let index: Index = read("the manifest list", bytes)?;
            object["schemaVersion"] = index.schema_version.into();
            object["manifests"] = value(&index.manifests)?;
            if !index.annotations.is_empty() {
                object["annotations"] = value(&index.annotations)?;
            }
        }
        Ok(object)
    }

    fn entries(&self) -> Result<Vec<Descriptor>, Fail> {
        match media_type::is_index(&self.fetched.media_type) {
            true => Ok(read::<Index>("the manifest list", &self.fetched.bytes)?.manifests),
            false => Ok(Vec::new()),
        }
    }

    /// Configurations by platform.
    async fn images(&self) -> Result<BTreeMap<String, Value>, Fail> {
        let mut found = BTreeMap::new();
        let mut add = |entry: Option<&Descriptor>, config: Option<Image>| {
            let Some(config) = config else { return Ok(()) };
            let platform =
                entry.and_then(|entry| entry.platform.clone()).unwrap_or_else(|| config.platform());
            found.insert(platform.to_string(), value(&config)?);
            Ok::<(), Fail>(())
        };
        if !media_type::is_index(&self.fetched.media_type) {
            add(None, config(self.repository, &self.fetched.bytes).await?)?;
        }
        for entry in self.entries()?.iter().filter(|entry| is_image(entry)) {
            let fetched = self.repository.manifest(entry.digest.as_str()).await.map_err(failed)?;
            add(Some(entry), config(self.repository, &fetched.bytes).await?)?;
        }
        Ok(found)
    }

    /// Statements with this predicate, by the platform of the image that they are about.
    async fn statements(&self, inner: &str, predicate: &str) -> Result<BTreeMap<String, Value>, Fail> {
        let entries = self.entries()?;
        let mut found = BTreeMap::new();
        for entry in &entries {
            let Some(about) = entry.annotations.get("vnd.docker.reference.digest") else { continue };
            let image = entries.iter().find(|image| image.digest.as_str() == about);
            let Some(platform) = image.and_then(|image| image.platform.as_ref()) else { continue };
            let fetched = self.repository.manifest(entry.digest.as_str()).await.map_err(failed)?;
            let manifest: oci::Manifest = read("the manifest", &fetched.bytes)?;
            for layer in &manifest.layers {
                let kind = layer.annotations.get("in-toto.io/predicate-type");
                if !kind.is_some_and(|kind| kind.starts_with(predicate)) {
                    continue;
                }
                let bytes = self.repository.blob_bytes(&layer.digest, 64 << 20).await.map_err(failed)?;
                let statement: Value = read("the statement", &bytes)?;
                found.insert(platform.to_string(), json!({ inner: statement["predicate"] }));
            }
        }
        Ok(found)
    }
}

/// One platform goes without its name.
fn of_platforms(mut found: BTreeMap<String, Value>) -> Value {
    match found.len() {
        0 => Value::Object(Map::new()),
        1 => found.pop_first().map_or(Value::Null, |(_, one)| one),
        _ => Value::Object(found.into_iter().collect()),
    }
}

fn is_image(entry: &Descriptor) -> bool {
    let unknown = |platform: &Platform| platform.os == "unknown" || platform.architecture == "unknown";
    media_type::is_manifest(&entry.media_type)
        && !entry.annotations.contains_key("vnd.docker.reference.type")
        && !entry.platform.as_ref().is_some_and(unknown)
}

/// Something that goes into a new index.
struct Source {
    reference: Reference,
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

/// What a source says of itself: a name, or the members of a descriptor.
enum Said {
    Name(Reference),
    Digest(Digest),
    Descriptor(Map<String, Value>),
}

fn said(text: &str) -> Result<Said, Fail> {
    let invalid = |why: String| {
        Fail::text(format!(
            "failed to parse source {}, valid sources are digests, references and descriptors: {why}",
            template::quote(text)
        ))
    };
    if text.starts_with("sha256:") || text.starts_with("sha512:") {
        return text
            .parse()
            .map(Said::Digest)
            .map_err(|error: oci::digest::Error| invalid(error.to_string()));
    }
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map(Said::Descriptor).map_err(|error| invalid(error.to_string()));
    }
    Reference::parse(text)
        .map(|name| Said::Name(name.or_latest()))
        .map_err(|error| invalid(error.to_string()))
}

/// The one repository that sources without a name of their own are in.
fn default_repository(names: &[&Reference], text: &str) -> Result<Reference, Fail> {
    let all: BTreeSet<String> = names.iter().map(|name| name.name()).collect();
    match (all.len(), names.first()) {
        (1, Some(name)) => parse(&name.name()),
        (0, _) | (_, None) => {
            Err(Fail::text("no repositories specified, please set a reference in tag or source"))
        }
        _ => Err(Fail::text(format!(
            "multiple repositories specified, cannot infer repository for {}",
            template::quote(text)
        ))),
    }
}

pub async fn create(app: &App, matches: &Matches) -> Result<(), Fail> {
    let mut texts: Vec<String> = Vec::new();
    for path in matches.list("file") {
        let failed =
            |error: std::io::Error| Fail::text(format!("open {path}: {}", crate::opts::kv::describe(&error)));
        texts.push(std::fs::read_to_string(path).map_err(failed)?);
    }
    texts.extend(matches.args.iter().cloned());
    if texts.is_empty() {
        return Err(Fail::text("no sources specified"));
    }
    let dry = matches.bool("dry-run");
    let tags = matches.list("tag").iter().map(|tag| parse(tag)).collect::<Result<Vec<_>, Fail>>()?;
    if tags.is_empty() && !dry {
        return Err(Fail::text("can't push with no tags specified, please set --tag or --dry-run"));
    }
    if let (true, Some(first)) = (matches.bool("append"), tags.first()) {
        texts.insert(0, first.to_string());
    }
    let notes = annotations(matches.list("annotation"))?;
    let sources = sources(app, &texts, &tags).await?;
    let wanted = platforms(matches.list("platform"))?;
    let keep_single = matches.bool_or_true("prefer-index");
    let (media_type, bytes) = combine(&sources, &notes, &wanted, keep_single)?;
    if dry {
        out(&format!("{}\n", String::from_utf8_lossy(&bytes)));
        return Ok(());
    }
    for tag in &tags {
        let target = repository(app, tag, false)?;
        for source in &sources {
            if source.reference.name() == tag.name() {
                continue;
            }
            eprintln!("copying {} from {} to {tag}", source.descriptor.digest, source.reference);
            let from = repository(app, &source.reference, false)?;
            copy_manifest(&from, &target, &source.reference, &source.descriptor, &source.bytes).await?;
        }
        let digest = target.put_manifest(&asked(tag), &media_type, &bytes).await.map_err(failed)?;
        eprintln!("pushing {digest} to {tag}");
    }
    if !matches.str("metadata-file").is_empty() {
        let descriptor = Descriptor::new(&media_type, Digest::of(&bytes), bytes.len() as u64);
        let names: Vec<String> = tags.iter().map(Reference::to_string).collect();
        let metadata = json!({ "containerimage.descriptor": descriptor, "image.name": names.join(",") });
        std::fs::write(matches.str("metadata-file"), pretty(&metadata, INDENT)?)?;
    }
    Ok(())
}

/// Looks every source up where it is.
async fn sources(app: &App, texts: &[String], tags: &[Reference]) -> Result<Vec<Source>, Fail> {
    let all = texts.iter().map(|text| said(text)).collect::<Result<Vec<Said>, Fail>>()?;
    let mut names: Vec<&Reference> = tags.iter().collect();
    names.extend(all.iter().filter_map(|one| match one {
        Said::Name(name) => Some(name),
        _ => None,
    }));
    let mut found = Vec::new();
    for (one, text) in all.iter().zip(texts) {
        let (reference, members) = match one {
            Said::Name(name) => (name.clone(), None),
            Said::Digest(digest) => (default_repository(&names, text)?.with_digest(digest.clone()), None),
            Said::Descriptor(members) => {
                let digest = members.get("digest").and_then(Value::as_str).unwrap_or_default();
                let digest: Digest = digest.parse().map_err(|error: oci::digest::Error| {
                    Fail::text(format!("a descriptor's digest is not valid: {error}"))
                })?;
                (default_repository(&names, text)?.with_digest(digest), Some(members))
            }
        };
        let repository = repository(app, &reference, false)?;
        let fetched = fetch(&repository, &reference).await?;
        let mut descriptor = describe(&repository, &fetched).await?;
        if let Some(members) = members {
            descriptor = merged(descriptor, members)?;
        }
        found.push(Source { reference, descriptor, bytes: fetched.bytes });
    }
    Ok(found)
}

/// What a descriptor on the command line says goes before what the registry says.
fn merged(descriptor: Descriptor, members: &Map<String, Value>) -> Result<Descriptor, Fail> {
    let given = members.get("size").and_then(Value::as_u64).unwrap_or(0);
    if given != 0 && given != descriptor.size {
        return Err(Fail::text(format!(
            "invalid size mismatch for {}, {given} != {}",
            descriptor.digest, descriptor.size
        )));
    }
    let mut object = value(&descriptor)?;
    for key in ["mediaType", "annotations", "platform"] {
        if let Some(member) = members.get(key) {
            object[key] = member.clone();
        }
    }
    serde_json::from_value(object).map_err(|error| Fail::text(format!("a descriptor is not valid: {error}")))
}

/// An annotation for the index, or for the entries of these platforms.
#[derive(Debug)]
struct Note {
    on_index: bool,
    platform: Option<Platform>,
    key: String,
    value: String,
}

fn annotations(texts: &[String]) -> Result<Vec<Note>, Fail> {
    let note = |text: &String| {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            Fail::text(format!("invalid annotation {}, expected key=value", template::quote(text)))
        })?;
        let (kind, key) = match key.split_once(':') {
            Some((kind, key)) => (kind, key),
            None => ("manifest", key),
        };
        let (kind, platform) = match kind.strip_suffix(']').and_then(|kind| kind.split_once('[')) {
            Some((kind, platform)) => {
                let platform = Platform::parse(platform)
                    .map_err(|error| Fail::text(format!("invalid platform: {error}")))?;
                (kind, Some(platform))
            }
            None => (kind, None),
        };
        let on_index = match kind {
            "index" => true,
            "manifest-descriptor" => false,
            other => {
                return Err(Fail {
                    hint: Some(format!("put index: or manifest-descriptor: in front: index:{key}={value}")),
                    ..Fail::text(format!("{} annotations are not supported yet", template::quote(other)))
                });
            }
        };
        Ok(Note { on_index, platform, key: key.to_owned(), value: value.to_owned() })
    };
    texts.iter().map(note).collect()
}

/// The document that the sources become: its media type and its bytes.
fn combine(
    sources: &[Source],
    notes: &[Note],
    wanted: &[Platform],
    prefer_index: bool,
) -> Result<(String, Vec<u8>), Fail> {
    if let ([one], true, true) = (sources, notes.is_empty(), wanted.is_empty())
        && (media_type::is_index(&one.descriptor.media_type) || !prefer_index)
    {
        return Ok((one.descriptor.media_type.clone(), one.bytes.clone()));
    }
    let mut entries: Vec<Descriptor> = Vec::new();
    for source in sources {
        match media_type::is_index(&source.descriptor.media_type) {
            true => read::<Index>("the manifest list", &source.bytes)?
                .manifests
                .into_iter()
                .for_each(|entry| add(&mut entries, entry)),
            false => add(&mut entries, source.descriptor.clone()),
        }
    }
    if !wanted.is_empty() {
        keep(&mut entries, wanted);
    }
    let mut index = index(entries);
    for note in notes {
        if note.on_index {
            index.annotations.insert(note.key.clone(), note.value.clone());
            continue;
        }
        let fits = |entry: &&mut Descriptor| match (&note.platform, &entry.platform) {
            (None, _) => true,
            (Some(wanted), Some(platform)) => platform.distance(wanted) == Some(0),
            (Some(_), None) => false,
        };
        for entry in index.manifests.iter_mut().filter(fits) {
            entry.annotations.insert(note.key.clone(), note.value.clone());
        }
    }
    if !index.annotations.is_empty() {
        // Docker's lists have no place for them.
        index.media_type = media_type::OCI_INDEX.to_owned();
    }
    let bytes = pretty(&index, INDENT)?.into_bytes();
    Ok((index.media_type, bytes))
}

/// Adds an entry; one that is there is told more about.
fn add(entries: &mut Vec<Descriptor>, entry: Descriptor) {
    match entries.iter_mut().find(|known| known.digest == entry.digest) {
        Some(known) => {
            known.platform = entry.platform.or_else(|| known.platform.take());
            known.annotations.extend(entry.annotations);
        }
        None => entries.push(entry),
    }
}

/// Leaves the images for these platforms, and what is said about them.
fn keep(entries: &mut Vec<Descriptor>, wanted: &[Platform]) {
    let fits = |entry: &Descriptor| {
        entry
            .platform
            .as_ref()
            .is_some_and(|platform| wanted.iter().any(|wanted| platform.distance(wanted) == Some(0)))
    };
    let kept: BTreeSet<String> =
        entries.iter().filter(|entry| fits(entry)).map(|entry| entry.digest.to_string()).collect();
    entries.retain(|entry| {
        let about = entry.annotations.get("vnd.docker.reference.digest");
        kept.contains(entry.digest.as_str()) || about.is_some_and(|about| kept.contains(about))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(platform: &str, media_type: &str, bytes: &[u8]) -> Source {
        let mut descriptor = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        descriptor.platform = Some(Platform::parse(platform).unwrap());
        Source { reference: parse("r.example/a").unwrap(), descriptor, bytes: bytes.to_vec() }
    }

    fn combined(sources: &[Source], notes: &[&str], wanted: &[&str]) -> Index {
        let notes: Vec<String> = notes.iter().map(|&note| note.to_owned()).collect();
        let wanted: Vec<Platform> = wanted.iter().map(|text| Platform::parse(text).unwrap()).collect();
        let (media_type, bytes) = combine(sources, &annotations(&notes).unwrap(), &wanted, true).unwrap();
        let index: Index = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(index.media_type, media_type);
        index
    }

    #[test]
    fn sources_become_one_index() {
        let amd = source("linux/amd64", media_type::OCI_MANIFEST, b"a");
        let arm = source("linux/arm64", media_type::OCI_MANIFEST, b"b");
        let both = combined(&[amd, arm], &["index:who=me", "manifest-descriptor[linux/arm64]:x=y"], &[]);
        assert_eq!(both.manifests.len(), 2);
        assert_eq!(both.annotations["who"], "me");
        assert!(both.manifests[0].annotations.is_empty());
        assert_eq!(both.manifests[1].annotations["x"], "y");
        let bytes = serde_json::to_vec(&both).unwrap();
        let whole = source("linux/amd64", media_type::OCI_INDEX, &bytes);
        // The same image again is told once.
        let again = combined(&[whole, source("linux/amd64", media_type::OCI_MANIFEST, b"a")], &[], &[]);
        assert_eq!(again.manifests.len(), 2);
        let whole = source("linux/amd64", media_type::OCI_INDEX, &bytes);
        assert_eq!(combined(&[whole], &[], &["linux/arm64"]).manifests, [both.manifests[1].clone()]);
        let docker = source("linux/amd64", media_type::DOCKER_MANIFEST, b"a");
        assert_eq!(combined(&[docker], &[], &[]).media_type, media_type::DOCKER_MANIFEST_LIST);
    }

    #[test]
    fn one_source_stays_as_it_is_where_that_is_wanted() {
        let one = source("linux/amd64", media_type::OCI_MANIFEST, b"a");
        let kept = combine(std::slice::from_ref(&one), &[], &[], false).unwrap();
        assert_eq!(kept, (media_type::OCI_MANIFEST.to_owned(), b"a".to_vec()));
        let list = source("linux/amd64", media_type::OCI_INDEX, b"{ }");
        assert_eq!(combine(&[list], &[], &[], true).unwrap().1, b"{ }");
    }

    #[test]
    fn what_is_no_source_or_annotation_is_named() {
        assert!(said("sha256:zz").is_err_and(|fail| fail.text.contains("valid sources are digests")));
        assert!(said("{").is_err() && said("UPPER").is_err());
        assert!(
            annotations(&["a=b".to_owned()])
                .is_err_and(|fail| fail.text == "\"manifest\" annotations are not supported yet")
        );
        assert!(annotations(&["index:a".to_owned()]).is_err());
    }
}
