//! The documents of a pull: what is small and comes beside the layers.

use std::io::Write;

use images::Pins;
use oci::{Descriptor, Digest, Index, Manifest};
use registry::Fetched;

use crate::Error;
use crate::pull::{NewImage, Work};
use crate::wait::while_wanted;

/// Statements that come along with an image, and the bytes of all of them.
const STATEMENTS_MAX: usize = 8;
const STATEMENT_BYTES_MAX: u64 = 64 << 20;

impl Work {
    /// Puts the image's documents into the content store, and fetches what its index says about it.
    pub(crate) fn keep_documents(&self, pins: &mut Pins<'_>, new: &NewImage) -> Result<(), Error> {
        let registrar = self.images().registrar();
        for fetched in new.indexes.iter().chain([&new.manifest]) {
            registrar.keep(pins, &fetched.digest, &fetched.bytes)?;
        }
        registrar.keep(pins, &Digest::of(&new.config_bytes), &new.config_bytes)?;
        match new.indexes.last() {
            Some(index) => self.fetch_statements(pins, index, &new.manifest.digest),
            None => Ok(()),
        }
    }

    /// What an index says about one of its images, with all that belongs to it. An image can do without: what cannot be
    /// had is left out.
    fn fetch_statements(&self, pins: &mut Pins<'_>, index: &Fetched, image: &Digest) -> Result<(), Error> {
        let Ok(index) = oci::image::read::<Index>(&index.bytes) else { return Ok(()) };
        let about = |entry: &&Descriptor| images::attested(entry) == Some(image.as_str());
        let mut left = STATEMENT_BYTES_MAX;
        for entry in index.manifests.iter().filter(about).take(STATEMENTS_MAX) {
            match self.fetch_statement(pins, &entry.digest, &mut left) {
                Err(error) if !self.board.is_cancelled() => {
                    tracing::info!(%error, manifest = %entry.digest, "a statement about the image was left out");
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Its manifest comes last: what no manifest names goes away with the pins.
    fn fetch_statement(&self, pins: &mut Pins<'_>, digest: &Digest, left: &mut u64) -> Result<(), Error> {
        let fetched = self.while_wanted(self.repository.manifest(digest.as_str()))?;
        let manifest: Manifest = oci::image::read(&fetched.bytes)
            .map_err(|source| Error::Document { what: "the manifest".into(), source })?;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            self.fetch_blob(pins, &blob.digest, left)?;
        }
        Ok(self.images().registrar().keep(pins, digest, &fetched.bytes)?)
    }

    fn fetch_blob(&self, pins: &mut Pins<'_>, digest: &Digest, left: &mut u64) -> Result<(), Error> {
        pins.blob(digest);
        let content = self.images().content();
        if content.contains(digest) {
            return Ok(());
        }
        let mut stream = self.while_wanted(self.repository.blob(digest, 0, None))?;
        let mut writer = content.writer_for(digest.algorithm())?;
        while let Some(bytes) = self.while_wanted(stream.next())? {
            *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                Error::Manifest(format!(
                    "what is said about the image has more than {STATEMENT_BYTES_MAX} bytes"
                ))
            })?;
            writer
                .write_all(&bytes)
                .map_err(|source| Error::Io { operation: "write a statement", source })?;
        }
        let ingested = writer.finish()?;
        ingested.verify(digest, None)?;
        ingested.commit()?;
        Ok(())
    }

    /// Waits for the registry, but not for longer than the pull is wanted.
    fn while_wanted<T>(&self, wait: impl Future<Output = Result<T, registry::Error>>) -> Result<T, Error> {
        let waited = while_wanted(&self.runtime, || !self.board.is_cancelled(), wait);
        Ok(waited.ok_or(Error::Cancelled)??)
    }
}
