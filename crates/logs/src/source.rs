//! The files of a log, opened for reading.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use flate2::read::MultiGzDecoder;

use crate::{Error, Options, files};

/// What tells a file from others while it is renamed.
pub(crate) type Identity = (u64, u64);

/// One opened file.
#[derive(Debug)]
pub(crate) struct Source {
    input: Input,
    pub identity: Identity,
    /// Seconds; no record is newer.
    pub modified: i64,
    /// Bytes handed out so far.
    pub position: u64,
    /// Records at the front that are not wanted.
    pub skip: u64,
}

#[derive(Debug)]
enum Input {
    Plain(File),
    Gzip(Box<MultiGzDecoder<File>>),
}

impl Source {
    fn new(file: File, gzip: bool) -> io::Result<Source> {
        let metadata = file.metadata()?;
        Ok(Source {
            identity: (metadata.dev(), metadata.ino()),
            modified: metadata.mtime(),
            position: 0,
            skip: 0,
            input: if gzip { Input::Gzip(Box::new(MultiGzDecoder::new(file))) } else { Input::Plain(file) },
        })
    }

    /// The file itself, if it can be read at any place.
    pub fn plain(&self) -> Option<&File> {
        match &self.input {
            Input::Plain(file) => Some(file),
            Input::Gzip(_) => None,
        }
    }

    /// Goes to a place of a plain file, or to the start of any.
    pub fn seek(&mut self, position: u64) -> io::Result<()> {
        match &mut self.input {
            Input::Plain(file) => {
                file.seek(SeekFrom::Start(position))?;
            }
            Input::Gzip(decoder) => {
                let mut file = decoder.get_ref().try_clone()?;
                file.seek(SeekFrom::Start(0))?;
                **decoder = MultiGzDecoder::new(file);
            }
        }
        self.position = position;
        Ok(())
    }

    fn starts_with(&mut self, mut wanted: &[u8]) -> io::Result<bool> {
        let mut block = vec![0; 16 * 1024];
        while !wanted.is_empty() {
            let room = block.len().min(wanted.len());
            let count = self.read(&mut block[..room])?;
            if count == 0 || !wanted.starts_with(&block[..count]) {
                return Ok(false);
            }
            wanted = &wanted[count..];
        }
        Ok(true)
    }

    /// Reads on; 0 at the end. A compressed file that is cut off or damaged ends where it cannot be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = loop {
            let result = match &mut self.input {
                Input::Plain(file) => file.read(buffer),
                Input::Gzip(decoder) => decoder.read(buffer).or_else(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput => Ok(0),
                    _ => Err(error),
                }),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

/// Bytes at a file's start that tell it from others: the first record is within, and it has its time in it.
const TELLING: u64 = 128 * 1024;

/// Which of `sources` has the content of a plain file that is still open.
pub(crate) fn find_content(file: &Source, sources: &mut [Source]) -> io::Result<Option<usize>> {
    let Some(file) = file.plain() else { return Ok(None) };
    let length = file.metadata()?.len().min(TELLING);
    let mut wanted = vec![0; length as usize];
    file.read_exact_at(&mut wanted, 0)?;
    if wanted.is_empty() {
        return Ok(None);
    }
    for (index, source) in sources.iter_mut().enumerate() {
        let same = source.starts_with(&wanted)?;
        source.seek(0)?;
        if same {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// The identity of the current file; none if there is no file at the moment.
pub(crate) fn current(options: &Options) -> Option<Identity> {
    let metadata = std::fs::metadata(&options.path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// All files of a log, the newest first.
pub(crate) fn open_all(options: &Options) -> Result<Vec<Source>, Error> {
    // A rotation in between would show one file at two places, so what was found is thrown away then. Somebody
    // who rotates faster than files can be opened, five times in a row, gets a doubled file read.
    for _ in 0..5 {
        let before = current(options);
        let sources = open_present(options)?;
        if before == current(options) {
            return Ok(sources);
        }
    }
    open_present(options)
}

fn open_present(options: &Options) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    for index in 0..options.files_max.max(1) {
        let plain = files::rotated(&options.path, index);
        let gzip = files::compressed(&options.path, index);
        let names = if index == 0 { &[(plain, false)][..] } else { &[(plain, false), (gzip, true)] };
        let mut found = false;
        for (name, gzip) in names {
            match File::open(name).and_then(|file| Source::new(file, *gzip)) {
                Ok(source) => {
                    sources.push(source);
                    found = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::new("open", name, error)),
            }
        }
        // The current file may be missing for an instant.
        if !found && index > 0 {
            break;
        }
    }
    Ok(sources)
}
