//! `COPY` and `ADD`: files of the context, of another stage or of an image into a layer, without a container.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use archive::{
    Compression, CopyOptions, Decoder, Entry, Ownership, PackOptions, Packer, Reader, Root, Time,
    UnpackOptions,
};
use dockerfile::ignore::glob::Glob;
use dockerfile::{Add, Copy, CopySource, Heredoc};
use images::NewLayer;
use oci::{Algorithm, Hasher};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

use crate::stage::Build;
use crate::{Error, owner};

/// Files that one pattern may match.
const MATCHES_MAX: usize = 100_000;

/// Something to copy, found.
enum Found {
    /// A file, or whatever else is not a directory: its directory, and its name there.
    File {
        parent: OwnedFd,
        name: CString,
    },
    Directory(OwnedFd),
    Text(Heredoc),
}

struct Source {
    found: Found,
    /// Last name of the path, for a destination that is a directory.
    base: String,
}

/// Runs one instruction. `add` is there for `ADD`.
pub fn copy(
    build: &mut Build<'_>,
    keyword: &'static str,
    instruction: &Copy,
    add: Option<&Add>,
) -> Result<(), Error> {
    refuse_unsupported(instruction, add)?;
    let failed = |what: String| Error::Copy { keyword, what };
    let expand = |text: &String| build.expand(text).map_err(failed);
    let destination = expand(&instruction.destination)?;
    let chown = instruction.chown.as_ref().map(expand).transpose()?.filter(|text| !text.is_empty());
    let mode = instruction.chmod.as_ref().map(expand).transpose()?.map(|text| octal(&text)).transpose();
    let mode = mode.map_err(failed)?;
    let mut sources = Vec::new();
    for source in &instruction.sources {
        sources.push(match source {
            CopySource::Path(path) => CopySource::Path(expand(path)?),
            CopySource::Heredoc(heredoc) if heredoc.expand => {
                let content = expand(&heredoc.content)?;
                CopySource::Heredoc(Heredoc { content, ..heredoc.clone() })
            }
            CopySource::Heredoc(heredoc) => CopySource::Heredoc(heredoc.clone()),
        });
    }
    let destination = absolute(&build.state.config.working_dir, &destination);

    let from = instruction.from.as_ref().map(|from| build.expand(from).map_err(failed)).transpose()?;
    let other_root = match &from {
        None => None,
        Some(from) => Some(image_root(build, from)?),
    };
    let source_root = other_root.as_ref().unwrap_or_else(|| build.context.root());
    let found = find_all(source_root, &sources).map_err(failed)?;
    if found.len() > 1 && !destination.ends_with('/') {
        let what = format!(
            "When using {keyword} with more than one source file, the destination must be a directory and end with a /"
        );
        return Err(failed(what));
    }
    // Files of the context belong to root, those of an image to whom they belong there.
    let default_owner = if from.is_some() { None } else { Some((0, 0)) };

    let hash = content_hash(&found, default_owner, mode).map_err(failed_archive(keyword))?;
    let chown_text = chown.as_ref().map(|chown| format!("--chown={chown} ")).unwrap_or_default();
    let created_by = build.nothing_run(&format!("{keyword} {chown_text}{hash} in {destination} "));
    let config = build.state.config.clone();
    if let Some(image) = build.cached(&created_by, &config) {
        build.use_cached(image);
        return Ok(());
    }
    let unpacks = add.is_some_and(|add| add.unpack != Some(false));
    let layer = with_layer(build, |root| {
        let owner = match &chown {
            Some(chown) => Some(owner::parse(chown, root).map_err(failed)?),
            None => default_owner,
        };
        let target = Target {
            root,
            destination: &destination,
            owner,
            mode,
            extracted_owner: chown.as_ref().and(owner),
            keyword,
        };
        for source in &found {
            target.put(source, unpacks)?;
        }
        Ok(true)
    })?;
    build.commit(created_by, layer)
}

fn refuse_unsupported(instruction: &Copy, add: Option<&Add>) -> Result<(), Error> {
    let refused = |what: &str| Err(Error::NotImplemented(what.to_owned()));
    if instruction.parents {
        return refused("COPY --parents");
    }
    if !instruction.exclude.is_empty() {
        return refused("--exclude of COPY and ADD");
    }
    if let Some(add) = add {
        if add.checksum.is_some() {
            return refused("ADD --checksum");
        }
        let remote = |source: &CopySource| match source {
            CopySource::Path(path) => ["http://", "https://", "git@", "git://", "ssh://"]
                .iter()
                .any(|scheme| path.starts_with(scheme)),
            CopySource::Heredoc(_) => false,
        };
        if instruction.sources.iter().any(remote) {
            return refused("ADD of a remote address");
        }
    }
    Ok(())
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(|| {
        format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
    })
}

/// A path in the image from the root, its slash at the end kept.
fn absolute(working_directory: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{working_directory}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let is_directory = path.ends_with('/') || matches!(path, "." | "..") || path.ends_with("/.");
    match (parts.is_empty(), is_directory) {
        (true, _) => "/".to_owned(),
        (false, true) => format!("/{}/", parts.join("/")),
        (false, false) => format!("/{}", parts.join("/")),
    }
}

/// The files of a stage or of an image, to be read.
fn image_root(build: &mut Build<'_>, from: &str) -> Result<Root, Error> {
    let image = build.source_image(from)?;
    image.as_ref().map_or(Ok(()), |image| build.builder.images.layers().unpack_missing(image))?;
    match image.as_ref().and_then(|image| image.chain()) {
        Some(chain) => Ok(Root::from_descriptor(build.builder.images.snapshots().open_layers(chain)?)),
        None => {
            // Nothing to find in an image without layers.
            let path = build.builder.scratch.join("empty");
            let io = |source| Error::Io { operation: "create", path: path.clone(), source };
            std::fs::create_dir_all(&path).map_err(io)?;
            Root::open_path(&path).map_err(io)
        }
    }
}

/// Fills a read-write layer on the present image, and makes a layer of it if `fill` says that it did something.
pub fn with_layer(
    build: &mut Build<'_>,
    fill: impl FnOnce(&Root) -> Result<bool, Error>,
) -> Result<Option<NewLayer>, Error> {
    let images = &build.builder.images;
    let snapshots = images.snapshots();
    let name = build.builder.layer_name();
    let parent = build.state.image.clone();
    parent.as_ref().map_or(Ok(()), |image| images.layers().unpack_missing(image))?;
    snapshots.create(&name, parent.as_ref().and_then(|image| image.chain()))?;
    let filled = (|| {
        let root = Root::from_descriptor(snapshots.open_root(&name)?);
        fill(&root)
    })();
    match filled {
        Ok(true) => {
            let adopted = images.maker().adopt_container(&name, parent.as_deref(), &mut build.pins);
            if adopted.is_err() {
                drop(images.release(&name)?);
            }
            Ok(Some(adopted?))
        }
        other => {
            drop(images.release(&name)?);
            other.map(|_| None)
        }
    }
}

fn failed_archive(keyword: &'static str) -> impl Fn(archive::Error) -> Error {
    move |error| match error {
        archive::Error::Compression(_) | archive::Error::Unsupported { .. } => Error::Archive(error),
        other => Error::Copy { keyword, what: other.to_string() },
    }
}

fn find_all(root: &Root, sources: &[CopySource]) -> Result<Vec<Source>, String> {
    let mut found = Vec::new();
    for source in sources {
        match source {
            CopySource::Heredoc(heredoc) => {
                found.push(Source { base: heredoc.name.clone(), found: Found::Text(heredoc.clone()) });
            }
            CopySource::Path(path) if path.contains(['*', '?', '[', '\\']) => {
                for path in expand_pattern(root, path)? {
                    found.push(find(root, &path)?);
                }
            }
            CopySource::Path(path) => found.push(find(root, path)?),
        }
    }
    if found.is_empty() {
        return Err("no source files were specified".into());
    }
    Ok(found)
}

/// The path's parts without `..` that would lead out: they stop at the context's root.
fn parts(path: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() && !path.starts_with('/') {
                    return Err(format!("forbidden path outside the build context: {path} ()"));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts)
}

fn find(root: &Root, path: &str) -> Result<Source, String> {
    let missing = || {
        format!(
            "file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
        )
    };
    let parts = parts(path)?;
    let joined = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
    let base = parts.last().map(|name| (*name).to_owned()).unwrap_or_default();
    // A link is followed if it is the source itself; those in directories are copied.
    let directory = root.open(Path::new(&joined), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
    if let Ok(directory) = directory {
        return Ok(Source { found: Found::Directory(directory), base });
    }
    let target = root.open(Path::new(&joined), OFlags::PATH, Mode::empty()).map_err(|_| missing())?;
    // Where the links lead, as the kernel names it, tells the last directory and the name there.
    let (parent, name) = named(root, &joined, &target).ok_or_else(missing)?;
    Ok(Source { found: Found::File { parent, name }, base })
}

/// The directory that holds what `path` leads to, and its name there: links are followed one by one below the root.
fn named(root: &Root, path: &str, target: &OwnedFd) -> Option<(OwnedFd, CString)> {
    let wanted = rustix::fs::fstat(target).ok()?;
    let mut path = path.to_owned();
    for _ in 0..40 {
        let (parent_path, name) = path.rsplit_once('/').unwrap_or((".", &path));
        let parent_path = if parent_path.is_empty() { "." } else { parent_path };
        let parent =
            root.open(Path::new(parent_path), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).ok()?;
        let name = CString::new(name).ok()?;
        let stat = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let same = (stat.st_dev, stat.st_ino) == (wanted.st_dev, wanted.st_ino);
            return same.then_some((parent, name));
        }
        let link = rustix::fs::readlinkat(&parent, &name, Vec::new()).ok()?.into_string().ok()?;
        path = if link.starts_with('/') { link } else { format!("{parent_path}/{link}") };
    }
    None
}

/// Paths of the context that a pattern matches, sorted.
fn expand_pattern(root: &Root, pattern: &str) -> Result<Vec<String>, String> {
    let pattern = parts(pattern)?.join("/");
    let glob = Glob::new(&pattern).ok_or_else(|| "syntax error in pattern".to_owned())?;
    let mut matches = Vec::new();
    let mut open: Vec<String> = vec![String::new()];
    while let Some(directory_path) = open.pop() {
        let path = if directory_path.is_empty() { "." } else { &directory_path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let Ok(directory) = root.open(Path::new(path), flags, Mode::empty()) else { continue };
        let listing = Dir::new(directory).map_err(|errno| errno.to_string())?;
        for entry in listing {
            let entry = entry.map_err(|errno| errno.to_string())?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            let child =
                if directory_path.is_empty() { name.to_owned() } else { format!("{directory_path}/{name}") };
            if glob.matches(&child) {
                matches.push(child.clone());
                if matches.len() > MATCHES_MAX {
                    return Err(format!("more than {MATCHES_MAX} files match"));
                }
            }
            if entry.file_type() == FileType::Directory {
                open.push(child);
            }
        }
    }
    if matches.is_empty() {
        return Err("no source files were specified".into());
    }
    matches.sort();
    Ok(matches)
}

/// Hashes instead of keeping.
struct HashWriter(Hasher);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the sources are made of, times left out: `file:…`, `dir:…` or `multi:…`.
fn content_hash(
    sources: &[Source],
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
) -> Result<String, archive::Error> {
    let one = |source: &Source| -> Result<String, archive::Error> {
        let options = PackOptions { mtime: Some(Time::default()), owner, mode, ..PackOptions::default() };
        let mut packer = Packer::new(HashWriter(Hasher::new(Algorithm::Sha256)), options);
        let kind = match &source.found {
            Found::File { parent, name } => {
                packer.add(parent.as_fd(), name, source.base.as_bytes())?;
                "file"
            }
            Found::Directory(directory) => {
                packer.add_children(directory, b"")?;
                "dir"
            }
            Found::Text(heredoc) => {
                let path = format!("{}\0{}", heredoc.name, heredoc.content);
                let digest = oci::Digest::of(path.as_bytes());
                return Ok(format!("file:{}", digest.hex()));
            }
        };
        Ok(format!("{kind}:{}", packer.finish()?.0.finish().hex()))
    };
    let hashes = sources.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(match &hashes[..] {
        [one] => one.clone(),
        many => format!("multi:{}", oci::Digest::of(many.join(",").as_bytes()).hex()),
    })
}

/// Where the sources go.
struct Target<'a> {
    root: &'a Root,
    /// Absolute; with a slash at the end it is a directory.
    destination: &'a str,
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
    /// Owner of what comes out of an archive, if it is not to be the archive's own.
    extracted_owner: Option<(u32, u32)>,
    keyword: &'static str,
}

impl Target<'_> {
    fn put(&self, source: &Source, unpacks: bool) -> Result<(), Error> {
        let failed = failed_archive(self.keyword);
        let options = CopyOptions { owner: self.owner, mode: self.mode };
        match &source.found {
            Found::Directory(directory) => {
                let path = self.destination.trim_end_matches('/');
                make_directories(self.root, path, self.owner)?;
                archive::copy(directory.as_fd(), None, self.root, relative(path), &options)
                    .map_err(failed)?;
            }
            Found::File { parent, name } => {
                if unpacks && self.unpack(parent, name)? {
                    return Ok(());
                }
                let path = self.file_path(&source.base)?;
                archive::copy(parent.as_fd(), Some(name), self.root, relative(&path), &options)
                    .map_err(failed)?;
            }
            Found::Text(heredoc) => {
                let path = self.file_path(&source.base)?;
                let (uid, gid) = self.owner.unwrap_or((0, 0));
                let entry = Entry { uid, gid, mode: self.mode.unwrap_or(0o644), ..Entry::file("", 0) };
                let entry =
                    Entry { path: relative(&path).to_vec(), size: heredoc.content.len() as u64, ..entry };
                let mut writer = archive::Writer::new(Vec::new());
                writer.append(&entry, &mut heredoc.content.as_bytes()).map_err(&failed)?;
                let bytes = writer.finish().map_err(&failed)?;
                let options = UnpackOptions { keep_kinds: true, ..UnpackOptions::default() };
                archive::unpack(&bytes[..], self.root, &options).map_err(&failed)?;
            }
        }
        Ok(())
    }

    /// The path of one file: in the destination if that is a directory.
    fn file_path(&self, base: &str) -> Result<String, Error> {
        let path = self.destination;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let is_directory =
            path.ends_with('/') || self.root.open(Path::new(path), flags, Mode::empty()).is_ok();
        let path =
            if is_directory { format!("{}/{base}", path.trim_end_matches('/')) } else { path.to_owned() };
        // A link at the end is followed: what it leads to is written.
        let path = self.through_links(path);
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        make_directories(self.root, parent, None)?;
        Ok(path)
    }

    fn through_links(&self, mut path: String) -> String {
        for _ in 0..40 {
            let (parent_path, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let parent_path = if parent_path.is_empty() { "/" } else { parent_path };
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let Ok(parent) = self.root.open(Path::new(parent_path), flags, Mode::empty()) else { break };
            let Ok(link) = rustix::fs::readlinkat(&parent, name, Vec::new()) else { break };
            let Ok(link) = link.into_string() else { break };
            path = absolute(parent_path, &link).trim_end_matches('/').to_owned();
        }
        path
    }

    /// Unpacks the file into the destination if it is an archive.
    fn unpack(&self, parent: &OwnedFd, name: &CString) -> Result<bool, Error> {
        let open = || -> Result<File, Error> {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::empty()).map(File::from).map_err(|errno| {
                Error::Io {
                    operation: "open",
                    path: std::ffi::OsStr::from_bytes(name.to_bytes()).into(),
                    source: errno.into(),
                }
            })
        };
        if !is_archive(open()?)? {
            return Ok(false);
        }
        let path = self.destination.trim_end_matches('/');
        make_directories(self.root, path, None)?;
        let ownership = match self.extracted_owner {
            Some((uid, gid)) => Ownership::Fixed { uid, gid },
            None => Ownership::Keep,
        };
        let options = UnpackOptions { ownership, destination: relative(path), ..UnpackOptions::default() };
        let decoder = Decoder::new(open()?)?;
        archive::unpack(decoder, self.root, &options).map_err(failed_archive(self.keyword))?;
        Ok(true)
    }
}

/// Whether a file is a tar archive, compressed or not: its first header must be a valid one.
fn is_archive(file: File) -> Result<bool, Error> {
    let decoder = match Decoder::new(file.take(1 << 20)) {
        Ok(decoder) => decoder,
        Err(error @ archive::Error::Compression(_)) => return Err(error.into()),
        Err(_) => return Ok(false),
    };
    let plain = decoder.compression() == Compression::None;
    let mut reader = Reader::with_limit(decoder, 1 << 20);
    // A file of zeros reads as an empty archive; only a compressed one is meant to be one.
    Ok(match reader.next_entry() {
        Ok(Some(_)) => true,
        Ok(None) => !plain,
        Err(_) => false,
    })
}

/// Makes a directory with all above it. Those that are made belong to root, the last one to `owner`.
pub fn make_directories(root: &Root, path: &str, owner: Option<(u32, u32)>) -> Result<(), Error> {
    let io = |operation| {
        let path = path.into();
        move |source: std::io::Error| Error::Io { operation, path, source }
    };
    let open = |path: &str| {
        let path = if path.is_empty() { "." } else { path };
        root.open(Path::new(path), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    };
    if open(path).is_ok() {
        return Ok(());
    }
    let mut walked = String::new();
    let mut current = open("").map_err(io("open"))?;
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    for (index, name) in names.iter().enumerate() {
        if !walked.is_empty() {
            walked.push('/');
        }
        walked.push_str(name);
        current = match open(&walked) {
            Ok(next) => next,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                rustix::fs::mkdirat(&current, *name, Mode::from_raw_mode(0o755))
                    .map_err(|errno| io("create")(errno.into()))?;
                let made = open(&walked).map_err(io("open"))?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))
                    .map_err(|errno| io("create")(errno.into()))?;
                if let (Some((uid, gid)), true) = (owner, index + 1 == names.len()) {
                    rustix::fs::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                        .map_err(|errno| io("own")(errno.into()))?;
                }
                made
            }
            Err(error) => return Err(io("open")(error)),
        };
    }
    Ok(())
}

/// A path of the image as archives write it.
fn relative(path: &str) -> &[u8] {
    path.trim_start_matches('/').as_bytes()
}
