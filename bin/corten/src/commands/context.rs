//! The build context: a folder as a tar stream, or what came on standard input.

use std::collections::VecDeque;
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api_client::Body;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::ignore::Rules;

const CHUNK: usize = 64 << 10;

/// Writes pieces into a request's body.
struct Sender {
    channel: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    sent: Arc<AtomicU64>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        self.channel.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// What is sent: a folder with rules, and files that are not in it.
#[derive(Debug)]
pub struct Context {
    pub root: PathBuf,
    pub rules: Rules,
    /// Name in the archive, and content.
    pub extra: Vec<(String, Vec<u8>)>,
    pub compress: bool,
}

/// A body, and how many bytes of it have gone out so far.
pub struct Upload {
    pub body: Body,
    pub sent: Arc<AtomicU64>,
}

/// Sends `write`'s output as a body, from a thread of its own.
fn upload(write: impl FnOnce(&mut Sender) -> io::Result<()> + Send + 'static) -> Upload {
    let (channel, receiver) = mpsc::channel(8);
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let _ = std::thread::Builder::new().name("context".to_owned()).spawn(move || {
        let mut sender = Sender { channel, buffer: Vec::new(), sent: counter };
        if let Err(error) = write(&mut sender).and_then(|()| sender.flush()) {
            let _ = sender.channel.blocking_send(Err(error));
        }
    });
    Upload { body: Body::Stream(receiver), sent }
}

/// A context from a folder.
pub fn from_folder(context: Context) -> Upload {
    upload(move |sender| {
        if !context.compress {
            return archive(&context, sender);
        }
        let mut encoder = flate2::write::GzEncoder::new(sender, flate2::Compression::default());
        archive(&context, &mut encoder)?;
        encoder.finish().map(drop)
    })
}

/// A context that is already an archive.
pub fn from_reader(head: Vec<u8>, mut rest: impl Read + Send + 'static) -> Upload {
    upload(move |sender| {
        sender.write_all(&head)?;
        io::copy(&mut rest, sender).map(drop)
    })
}

fn archive(context: &Context, out: &mut dyn Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(out);
    builder.mode(tar::HeaderMode::Complete);
    let mut folders = VecDeque::from([PathBuf::new()]);
    // Depth first, sorted, so that the same folder makes the same stream.
    while let Some(folder) = folders.pop_front() {
        let mut entries: Vec<_> = fs::read_dir(context.root.join(&folder))?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let mut inner = Vec::new();
        for entry in entries {
            let relative = folder.join(entry.file_name());
            let meta = match fs::symlink_metadata(entry.path()) {
                // Gone between listing and looking.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                meta => meta?,
            };
            let name = relative.to_string_lossy();
            let excluded = context.rules.excludes(&name);
            if meta.is_dir() && (!excluded || context.rules.brings_back()) {
                inner.push(relative.clone());
            }
            if !excluded {
                append(&mut builder, &entry.path(), &relative, &meta)?;
            }
        }
        for folder in inner.into_iter().rev() {
            folders.push_front(folder);
        }
    }
    for (name, content) in &context.extra {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        builder.append_data(&mut header, name, content.as_slice())?;
    }
    builder.finish()
}

/// One entry, owned by root: who owns files here says nothing about the image.
fn append(
    builder: &mut tar::Builder<&mut dyn Write>,
    path: &Path,
    name: &Path,
    meta: &Metadata,
) -> io::Result<()> {
    let kind = meta.file_type();
    let mut header = tar::Header::new_gnu();
    header.set_mode(meta.mode() & 0o7777);
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        return builder.append_link(&mut header, name, fs::read_link(path)?);
    }
    if kind.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        return builder.append_data(&mut header, name, io::empty());
    }
    if kind.is_fifo() {
        header.set_entry_type(tar::EntryType::Fifo);
        return builder.append_data(&mut header, name, io::empty());
    }
    if !kind.is_file() {
        // Sockets and devices cannot be copied into an image.
        return Ok(());
    }
    let file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    // A file that grows or shrinks meanwhile must not shift what follows it.
    builder.append_data(&mut header, name, file.take(size).chain(io::repeat(0)).take(size))
}

/// Whether bytes are the beginning of an archive that a daemon can open.
pub fn is_archive(head: &[u8]) -> bool {
    let magic: &[&[u8]] =
        &[&[0x1f, 0x8b], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z'], &[0x28, 0xb5, 0x2f, 0xfd]];
    magic.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_hold_what_the_rules_leave() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::create_dir_all(root.join("a/deep")).expect("folders");
        fs::write(root.join("a/keep"), "k").expect("a file");
        fs::write(root.join("a/deep/drop"), "d").expect("a file");
        fs::write(root.join("Dockerfile"), "FROM x").expect("a file");
        std::os::unix::fs::symlink("keep", root.join("a/link")).expect("a link");
        let context = Context {
            root: root.to_owned(),
            rules: Rules::parse("a/deep").expect("valid"),
            extra: vec![(".extra".to_owned(), b"e".to_vec())],
            compress: false,
        };
        let mut bytes = Vec::new();
        archive(&context, &mut bytes).expect("an archive");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<String> = archive
            .entries()
            .expect("entries")
            .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
            .collect();
        assert_eq!(names, ["Dockerfile", "a", "a/keep", "a/link", ".extra"]);
    }

    #[test]
    fn archives_are_recognised() {
        assert!(is_archive(&[0x1f, 0x8b, 8]));
        assert!(!is_archive(b"FROM busybox\n"));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar));
    }
}
