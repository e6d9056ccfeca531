//! The files of one log: names, rotation, compression.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::GzBuilder;

use crate::Error;

/// `LOG.1`, `LOG.2`, …; 0 is the current file.
pub(crate) fn rotated(path: &Path, index: u32) -> PathBuf {
    match index {
        0 => path.into(),
        _ => with_suffix(path, &format!(".{index}")),
    }
}

/// `LOG.1.gz`, `LOG.2.gz`, …
pub(crate) fn compressed(path: &Path, index: u32) -> PathBuf {
    with_suffix(path, &format!(".{index}.gz"))
}

/// Where a compression in progress goes.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    with_suffix(path, ".gz.tmp")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Makes room for a new current file: what is at the last place goes, everything else moves one place on.
pub(crate) fn shift(path: &Path, files_max: u32) -> Result<(), Error> {
    let last = files_max.max(1) - 1;
    for name in [rotated(path, last), compressed(path, last)] {
        absent_is_fine("remove", &name, fs::remove_file(&name))?;
    }
    // From the oldest present on, so that a huge limit costs nothing.
    let present = (1..last).take_while(|&index| exists(path, index)).last().unwrap_or(0);
    for index in (1..=present).rev() {
        for name in [rotated, compressed] {
            let (from, to) = (name(path, index), name(path, index + 1));
            absent_is_fine("rename", &from, fs::rename(&from, &to))?;
        }
    }
    if last > 0 {
        let to = rotated(path, 1);
        absent_is_fine("rename", path, fs::rename(path, &to))?;
    }
    Ok(())
}

/// Whether there is a rotated file at this place, in either form.
pub(crate) fn exists(path: &Path, index: u32) -> bool {
    rotated(path, index).exists() || compressed(path, index).exists()
}

fn absent_is_fine(operation: &'static str, path: &Path, result: io::Result<()>) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::new(operation, path, error)),
        _ => Ok(()),
    }
}

/// Work that a writer wants done beside it.
#[derive(Debug)]
pub struct Compression {
    /// Opened at once: by the time that somebody reads it, its name may be another file's.
    pub source: File,
    pub target: PathBuf,
}

/// Writes a gzip copy of `source` to `target`. The copy gets the age of the source, by which readers skip files
/// that are too old. Ends with an error when the source is removed meanwhile: nobody wants the copy then. Blocks: about
/// 150 MB are done in a second.
pub fn compress(mut work: Compression) -> Result<(), Error> {
    let target = &work.target;
    let reading = |error| Error::new("read the source of", target, error);
    let writing = |error| Error::new("write", target, error);
    let metadata = work.source.metadata().map_err(reading)?;
    let modified = metadata.modified().map_err(reading)?;
    let output = File::create(target).map_err(writing)?;
    let mut encoder = GzBuilder::new()
        .mtime(u32::try_from(metadata.mtime()).unwrap_or(0))
        .write(output, flate2::Compression::fast());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if work.source.metadata().map_err(reading)?.nlink() == 0 {
            return Err(reading(io::ErrorKind::NotFound.into()));
        }
        let count = match work.source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(reading(error)),
        };
        encoder.write_all(&buffer[..count]).map_err(writing)?;
    }
    let output = encoder.finish().map_err(writing)?;
    output.set_modified(modified).map_err(writing)
}
