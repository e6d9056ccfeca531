//! Stored contexts, where Docker's client keeps its own: `contexts/meta/ID/meta.json` and `contexts/tls/ID/docker/*`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use api_client::TlsFiles;
use serde_json::{Map, Value, json};

/// The largest file of a context, also in an archive.
const FILE_MAX: u64 = 10 << 20;
/// The TLS files that mean something.
pub const TLS_NAMES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A context as it is stored; members that we do not know stay.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored(pub Map<String, Value>);

/// Files below `docker`, by name.
pub type Material = Vec<(String, Vec<u8>)>;

impl Stored {
    pub fn new(name: &str) -> Self {
        let mut map = Map::new();
        map.insert("Name".to_owned(), name.into());
        map.insert("Metadata".to_owned(), json!({}));
        map.insert("Endpoints".to_owned(), json!({}));
        Self(map)
    }

    fn member(&mut self, name: &str) -> &mut Map<String, Value> {
        let value = self.0.entry(name).or_insert_with(|| json!({}));
        if !value.is_object() {
            *value = json!({});
        }
        value.as_object_mut().expect("an object, from the line above")
    }

    pub fn name(&self) -> &str {
        self.0.get("Name").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn rename(&mut self, name: &str) {
        self.0.insert("Name".to_owned(), name.into());
    }

    pub fn description(&self) -> &str {
        let metadata = self.0.get("Metadata");
        metadata.and_then(|all| all.get("Description")).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn describe(&mut self, text: &str) {
        match text {
            "" => drop(self.member("Metadata").remove("Description")),
            text => drop(self.member("Metadata").insert("Description".to_owned(), text.into())),
        }
    }

    /// The endpoint of the daemon; null if there is none.
    pub fn endpoint(&self) -> &Value {
        self.0.get("Endpoints").and_then(|all| all.get("docker")).unwrap_or(&Value::Null)
    }

    pub fn host(&self) -> &str {
        self.endpoint().get("Host").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn skips_verification(&self) -> bool {
        self.endpoint().get("SkipTLSVerify").and_then(Value::as_bool).unwrap_or(false)
    }

    pub fn set_endpoint(&mut self, host: &str, skip: bool) {
        let mut endpoint = Map::new();
        if !host.is_empty() {
            endpoint.insert("Host".to_owned(), host.into());
        }
        endpoint.insert("SkipTLSVerify".to_owned(), skip.into());
        self.member("Endpoints").insert("docker".to_owned(), endpoint.into());
    }
}

/// Refuses names that cannot be stored.
pub fn check_name(name: &str) -> Result<(), String> {
    if name == "default" {
        return Err("\"default\" is a reserved context name".to_owned());
    }
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.len() > 1 && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte));
    if first && rest {
        return Ok(());
    }
    Err(format!(
        "context name {} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\"",
        template::quote(name)
    ))
}

fn describe(path: &Path, error: &io::Error) -> String {
    format!("open {}: {}", path.display(), crate::opts::kv::describe(error))
}

/// Writes a file whole or not at all.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let partial = path.with_extension(format!("tmp-{}", std::process::id()));
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(bytes)
}

impl Store {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.join("contexts") }
    }

    pub fn meta_folder(&self, name: &str) -> PathBuf {
        self.folder.join("meta").join(crate::opts::context_id(name))
    }

    pub fn tls_folder(&self, name: &str) -> PathBuf {
        self.folder.join("tls").join(crate::opts::context_id(name))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.meta_folder(name).join("meta.json").exists()
    }

    /// All contexts that can be read, by name.
    pub fn list(&self) -> Vec<Stored> {
        let Ok(entries) = fs::read_dir(self.folder.join("meta")) else { return Vec::new() };
        let mut all: Vec<Stored> = entries
            .flatten()
            .filter_map(|entry| serde_json::from_slice(&read(&entry.path().join("meta.json")).ok()?).ok())
            .map(Stored)
            .collect();
        all.sort_by(|left, right| left.name().cmp(right.name()));
        all
    }

    pub fn get(&self, name: &str) -> Result<Stored, String> {
        let path = self.meta_folder(name).join("meta.json");
        let bytes = read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("context {}: context not found: {}", template::quote(name), describe(&path, &error))
            }
            _ => format!("context {}: {}", template::quote(name), describe(&path, &error)),
        })?;
        serde_json::from_slice(&bytes).map(Stored).map_err(|error| {
            format!("context {}: parsing {}: {error}", template::quote(name), path.display())
        })
    }

    /// What is in the files for TLS, as far as there are any.
    pub fn material(&self, name: &str) -> Material {
        let folder = self.tls_folder(name).join("docker");
        let files = TLS_NAMES.iter();
        files.filter_map(|file| Some(((*file).to_owned(), read(&folder.join(file)).ok()?))).collect()
    }

    /// The TLS files, if the context asks for TLS at all.
    pub fn tls(&self, stored: &Stored) -> Option<TlsFiles> {
        let folder = self.tls_folder(stored.name()).join("docker");
        let existing = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        let insecure = stored.skips_verification();
        let [ca, cert, key] = TLS_NAMES.map(existing);
        let any = insecure || ca.is_some() || cert.is_some();
        any.then_some(TlsFiles { ca, cert, key, insecure })
    }

    /// Stores a context; `material` replaces its files, none leaves them.
    pub fn put(&self, stored: &Stored, material: Option<&Material>) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot store context {}: {error}", stored.name());
        if let Some(files) = material {
            let folder = self.tls_folder(stored.name());
            if let Err(error) = fs::remove_dir_all(&folder)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(failed(error));
            }
            if !files.is_empty() {
                let folder = folder.join("docker");
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
                for (name, bytes) in files {
                    write(&folder.join(name), bytes, 0o600).map_err(failed)?;
                }
            }
        }
        let folder = self.meta_folder(stored.name());
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(failed)?;
        let bytes = serde_json::to_vec(&stored.0).map_err(|error| failed(error.into()))?;
        // The meta file last: with it the context is there.
        write(&folder.join("meta.json"), &bytes, 0o644).map_err(failed)
    }

    pub fn remove(&self, name: &str) -> Result<(), String> {
        for folder in [self.meta_folder(name), self.tls_folder(name)] {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(format!("failed to remove context {}: {error}", template::quote(name)));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes a context as an archive: `meta.json` and `tls/docker/*`.
pub fn export(stored: &Stored, material: &Material, out: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    let header = |size: u64, mode: u32, kind: tar::EntryType| {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(mode);
        header.set_entry_type(kind);
        header
    };
    let meta = serde_json::to_vec(&stored.0)?;
    let file = tar::EntryType::Regular;
    archive.append_data(&mut header(meta.len() as u64, 0o644, file), "meta.json", meta.as_slice())?;
    archive.append_data(&mut header(0, 0o700, tar::EntryType::Directory), "tls", io::empty())?;
    if !material.is_empty() {
        archive.append_data(&mut header(0, 0o700, tar::EntryType::Directory), "tls/docker", io::empty())?;
    }
    for (name, bytes) in material {
        let mut header = header(bytes.len() as u64, 0o600, file);
        archive.append_data(&mut header, format!("tls/docker/{name}"), bytes.as_slice())?;
    }
    archive.finish()
}

/// Reads a context from an archive, tar or zip.
pub fn import(bytes: &[u8]) -> Result<(Stored, Material), String> {
    let files = if bytes.starts_with(b"PK\x03\x04") { unzip(bytes)? } else { untar(bytes)? };
    let (mut meta, mut material) = (None, Material::new());
    for (name, content) in files {
        if name == "meta.json" {
            let map = serde_json::from_slice(&content).map_err(|error| format!("meta.json: {error}"))?;
            meta = Some(Stored(map));
        } else if let Some(file) = name.strip_prefix("tls/docker/").filter(|file| TLS_NAMES.contains(file)) {
            material.push((file.to_owned(), content));
        } else if !name.starts_with("tls/") {
            return Err(format!("{name}: unexpected file in the archive of a context"));
        }
    }
    Ok((meta.ok_or("invalid context: no meta.json in the archive")?, material))
}

type Files = Vec<(String, Vec<u8>)>;

fn untar(bytes: &[u8]) -> Result<Files, String> {
    let broken = |error: io::Error| format!("the archive cannot be read: {error}");
    let mut files = Files::new();
    for entry in tar::Archive::new(bytes).entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.to_string_lossy().trim_start_matches("./").to_owned();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let mut content = Vec::new();
        entry.by_ref().take(FILE_MAX + 1).read_to_end(&mut content).map_err(broken)?;
        if content.len() as u64 > FILE_MAX {
            return Err(format!("{name}: the file is too large"));
        }
        files.push((name, content));
    }
    Ok(files)
}

/// The files of a zip archive, one local header after the other.
fn unzip(bytes: &[u8]) -> Result<Files, String> {
    let broken = || "the archive cannot be read: it is no zip file that is whole".to_owned();
    let mut files = Files::new();
    let mut rest = bytes;
    while let Some(header) = rest.strip_prefix(b"PK\x03\x04") {
        let short = |at: usize| {
            header.get(at..at + 2).map(|two| u16::from_le_bytes([two[0], two[1]])).ok_or_else(broken)
        };
        let long = |at: usize| -> Result<usize, String> {
            Ok(usize::from(short(at)?) | usize::from(short(at + 2)?) << 16)
        };
        let (flags, method) = (short(2)?, short(4)?);
        let (packed, size) = (long(14)?, long(18)?);
        let (name_length, extra) = (usize::from(short(22)?), usize::from(short(24)?));
        if flags & 8 != 0 {
            return Err("zip archives that were written as a stream are not supported; use tar".to_owned());
        }
        let name = header.get(26..26 + name_length).ok_or_else(broken)?;
        let name = String::from_utf8_lossy(name).into_owned();
        let start = 26 + name_length + extra;
        let data = header.get(start..start + packed).ok_or_else(broken)?;
        rest = &header[start + packed..];
        if name.ends_with('/') {
            continue;
        }
        if size as u64 > FILE_MAX {
            return Err(format!("{name}: the file is too large"));
        }
        let mut content = Vec::new();
        match method {
            0 => content.extend_from_slice(data),
            8 => {
                let inflater = flate2::read::DeflateDecoder::new(data);
                inflater.take(FILE_MAX).read_to_end(&mut content).map_err(|_| broken())?;
            }
            other => return Err(format!("{name}: compression method {other} of zip is not supported")),
        }
        if content.len() != size {
            return Err(broken());
        }
        files.push((name, content));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn contexts_are_kept_and_carried() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        let mut stored = Stored::new("prod");
        stored.describe("the real one");
        stored.set_endpoint("tcp://h:2376", true);
        let material = vec![("ca.pem".to_owned(), b"CA".to_vec())];
        store.put(&stored, Some(&material)).expect("stored");
        assert_eq!(store.get("prod").expect("there"), stored);
        assert_eq!(store.list().len(), 1);
        assert!(store.tls(&stored).is_some_and(|tls| tls.insecure && tls.ca.is_some() && tls.cert.is_none()));
        let mut archive = Vec::new();
        export(&stored, &store.material("prod"), &mut archive).expect("written");
        assert_eq!(import(&archive).expect("read"), (stored.clone(), material));
        store.remove("prod").expect("removed");
        assert!(store.get("prod").unwrap_err().starts_with("context \"prod\": context not found: open "));
        assert!(!store.tls_folder("prod").exists());
    }

    #[test]
    fn zip_archives_are_read() {
        let content = br#"{"Name":"x"}"#;
        let mut zip = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        for size in [content.len() as u32; 2] {
            zip.extend(size.to_le_bytes());
        }
        zip.extend([9, 0, 0, 0]);
        zip.extend(b"meta.json");
        zip.extend(content);
        assert_eq!(import(&zip).expect("read").0.name(), "x");
    }

    #[test]
    fn names() {
        for name in ["ab", "a.b_c+d-e", "0a"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["a", "", "-a", "a b", "default", "a/b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_archive_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = import(&bytes);
            let _ = import(&[b"PK\x03\x04".as_slice(), &bytes].concat());
        }
    }
}
