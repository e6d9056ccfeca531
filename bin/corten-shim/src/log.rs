//! The container's log, as the shim keeps it: what cannot be written is lost, and the container runs on.

use std::fs::File;
use std::path::Path;

use logs::{Compression, Driver, Options, Stream, Writer};
use shim_protocol::{LogDriver, LogTarget};

/// The argument that makes this program compress a file and exit.
pub const COMPRESS: &str = "compress";

#[derive(Debug)]
pub struct Log {
    writer: Writer,
    /// The process that compresses a rotated file.
    compressor: Option<i32>,
}

impl Log {
    /// None if the container's output is not recorded.
    pub fn open(target: &LogTarget) -> Result<Option<Log>, logs::Error> {
        let driver = match target.driver {
            LogDriver::None => return Ok(None),
            LogDriver::JsonFile => Driver::JsonFile,
            LogDriver::Local => Driver::Local,
        };
        let writer = Writer::open(Options {
            driver,
            path: target.path.clone(),
            size_max: target.size_max,
            files_max: target.files_max,
            compress: target.compress,
            numbered: target.numbered,
            attributes: target.attributes.clone(),
        })?;
        Ok(Some(Log { writer, compressor: None }))
    }

    pub fn write(&mut self, stream: Stream, output: &[u8]) {
        // There is nobody to tell: a full disk must not stop the container.
        let _ = self.writer.write(stream, output, crate::clock::now() as i64);
        self.compress();
    }

    /// Up to when everything is in the log, and what is to come of lines that have no end yet.
    pub fn position(&self) -> (Option<i64>, [Vec<u8>; 2]) {
        let streams = [Stream::Stdout, Stream::Stderr];
        (self.writer.last_time(), streams.map(|stream| self.writer.unfinished(stream).to_vec()))
    }

    /// The stream has ended.
    pub fn finish(&mut self, stream: Stream) {
        let _ = self.writer.finish(stream, crate::clock::now() as i64);
    }

    pub fn trim(&mut self) {
        self.writer.trim();
    }

    pub fn is_compressing(&self) -> bool {
        self.compressor.is_some()
    }

    /// Takes note of a child's end; false if it is not the log's.
    pub fn reaped(&mut self, pid: i32, success: bool) -> bool {
        if self.compressor != Some(pid) {
            return false;
        }
        self.compressor = None;
        let _ = self.writer.compression_ended(success);
        self.compress();
        true
    }

    /// Starts what is to be compressed in a process of its own: the container's output does not wait for it.
    fn compress(&mut self) {
        let Some(Compression { source, target }) = self.writer.compression_wanted() else { return };
        // A program is started once per rotation, which is rare; this one again, whatever file it came from.
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg(COMPRESS).arg(target).stdin(source);
        match command.spawn() {
            Ok(child) => self.compressor = i32::try_from(child.id()).ok(),
            Err(_) => drop(self.writer.compression_ended(false)),
        }
    }
}

/// What the process for it does, with the source as its input.
pub fn compress(source: File, target: &Path) -> Result<(), logs::Error> {
    logs::compress(Compression { source, target: target.into() })
}
