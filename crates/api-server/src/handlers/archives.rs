//! Images into archives and out of them, and images made of archives.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use api_types::{ProgressDetail, ProgressMessage};
use archive::handover::Handed;
use engine::Engine;
use images::{ArchiveFile, Import, Input, IsWanted, LoadOptions};
use model::Refusal;
use oci::{Platform, Reference};

use super::images::{announce, named, refusal, timestamp};
use crate::request::{Request, read_ahead};
use crate::respond::{Outcome, streamed};
use crate::stream::{Messages, Pipe, pipe};
use crate::{App, handover, versions};

pub async fn load(app: &App, mut request: Request) -> Outcome {
    let quiet = request.query.flag_or("quiet", true);
    let platforms = versions::archive_platforms(&request)?;
    let options = LoadOptions { platforms, now: timestamp(app.engine.now()) };
    let loading = Loading { engine: app.engine.clone(), options, quiet };
    if let Some(upgrade) = handover::agreed(app, &mut request) {
        return Ok(handover::receive_file(upgrade, move |handed, is_wanted, out| match handed {
            Handed::File(file) => {
                loading
                    .run(Input::<io::Empty>::File(ArchiveFile { file, is_wanted: IsWanted(is_wanted) }), out);
            }
            Handed::Stream(content) => loading.run(Input::Stream(content), out),
        }));
    }
    let (mut out, pieces) = pipe();
    let reader = request.into_reader();
    tokio::task::spawn_blocking(move || loading.run(Input::Stream(reader), &mut out));
    Ok(streamed("application/json", pieces))
}

/// What to do with an archive of images.
struct Loading {
    engine: Engine,
    options: LoadOptions,
    quiet: bool,
}

impl Loading {
    /// Loads it, and tells the client. Blocks.
    fn run(self, input: Input<'_, impl Read>, out: &mut impl Messages) {
        let images = self.engine.images();
        let loaded = images.archives().load(input, &self.options, &mut |progress| {
            if !self.quiet {
                let _ = out.message(&ProgressMessage {
                    status: Some("Loading layer".into()),
                    id: Some(progress.diff_id.short().into()),
                    progress_detail: Some(ProgressDetail {
                        current: Some(progress.current as i64),
                        total: Some(progress.total as i64),
                    }),
                    ..ProgressMessage::default()
                });
            }
        });
        match loaded {
            Ok(loaded) => loaded.iter().for_each(|one| self.tell(out, one)),
            Err(error) => out.fail(0, &refusal(error)),
        }
    }

    fn tell(&self, out: &mut impl Messages, loaded: &images::Loaded) {
        let id = loaded.image.id.to_string();
        let mut say = |text: String| {
            let _ = out.message(&ProgressMessage { stream: Some(text), ..ProgressMessage::default() });
        };
        for (reference, old) in &loaded.replaced {
            say(format!(
                "The image {} already exists, renaming the old one with ID {old} to empty string\n",
                reference.familiar()
            ));
        }
        if loaded.references.is_empty() {
            say(format!("Loaded image ID: {id}\n"));
        }
        for reference in &loaded.references {
            say(format!("Loaded image: {}\n", reference.familiar()));
        }
        let name = loaded.references.first().map_or_else(|| id.clone(), Reference::familiar);
        announce(&self.engine, "load", &id, &name);
    }
}

pub fn save(app: &App, names: Vec<String>, request: &Request) -> Outcome {
    // Comma-separated lists were never Docker's; each name comes by itself.
    if names.is_empty() {
        return Err(Refusal::invalid("no image names were given"));
    }
    let platforms = versions::archive_platforms(request)?;
    app.engine.images().archives().can_save(&names, &platforms).map_err(refusal)?;
    let engine = app.engine.clone();
    let (out, pieces) = pipe();
    tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut out = out;
        match engine.images().archives().save(&names, &platforms, &mut out) {
            Ok(_) => {
                let _ = out.flush();
                for name in &names {
                    if let Ok(image) = engine.images().resolve(name) {
                        announce(&engine, "save", &image.id.to_string(), name);
                    }
                }
            }
            Err(error) => out.abort(&refusal(error)),
        }
    });
    Ok(streamed("application/x-tar", pieces))
}

/// `POST /images/create`: pulls or imports.
pub async fn create(app: &App, request: Request) -> Outcome {
    let query = request.query.clone();
    if !query.text("fromImage").is_empty() {
        return crate::handlers::registry::pull(app, &request).await;
    }
    let source = query.text("fromSrc").to_owned();
    if source.is_empty() {
        return Err(Refusal::invalid("fromImage or fromSrc must be given"));
    }
    let reference = match query.text("repo") {
        "" => None,
        repository => Some(named(repository, query.text("tag"))?),
    };
    let platform = match query.text("platform") {
        "" => Platform::host(),
        text => Platform::parse(text).map_err(|error| Refusal::invalid(error.to_string()))?,
    };
    let config = crate::handlers::build::changed_config(Default::default(), &query.all("changes"))?;
    let message = match query.text("message") {
        "" => format!("Imported from {source}"),
        text => text.to_string(),
    };
    let wanted =
        Import { reference: reference.clone(), config, message, platform, now: timestamp(app.engine.now()) };
    let (mut out, pieces) = pipe();
    let engine = app.engine.clone();
    if source == "-" {
        let reader = request.into_reader();
        tokio::task::spawn_blocking(move || {
            let imported = engine.images().maker().import(reader, wanted);
            tell_imported(&engine, &mut out, imported, reference.as_ref());
        });
    } else {
        let file =
            app.transfers.registries().download(&source).await.map_err(super::registry::registry_refusal)?;
        let length = file.length();
        let reader = read_ahead(futures_util::stream::unfold(file, |mut file| async move {
            let piece = file.next().await.map_err(io::Error::other).transpose()?;
            Some((piece, file))
        }));
        tokio::task::spawn_blocking(move || {
            let status = Some(format!("Downloading from {source}"));
            let _ = out.message(&ProgressMessage { status, ..ProgressMessage::default() });
            let reader = Watched { reader, read: 0, length, told: Instant::now(), out: &mut out };
            let imported = engine.images().maker().import(reader, wanted);
            tell_imported(&engine, &mut out, imported, reference.as_ref());
        });
    }
    Ok(streamed("application/json", pieces))
}

fn tell_imported(
    engine: &Engine,
    out: &mut Pipe,
    imported: Result<images::Registered, images::Error>,
    reference: Option<&Reference>,
) {
    match imported {
        Ok(made) => {
            let id = made.image.id.to_string();
            announce(engine, "import", &id, &reference.map_or_else(|| id.clone(), Reference::familiar));
            let _ = out.message(&ProgressMessage { status: Some(id), ..ProgressMessage::default() });
        }
        Err(error) => out.fail(0, &refusal(error)),
    }
}

/// How often a client hears how far an import has come.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// A file on its way in, and the client that watches it.
struct Watched<'a, R> {
    reader: R,
    /// Bytes.
    read: u64,
    length: Option<u64>,
    told: Instant,
    out: &'a mut Pipe,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.read += count as u64;
        if count == 0 || self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let event = transfer::Event::Progress {
                id: String::new(),
                action: "Importing",
                current: self.read,
                total: self.length.unwrap_or(0),
            };
            // Nobody reads any more: then nobody wants the image.
            self.out.message(&ProgressMessage { id: None, ..super::registry::message(event) })?;
        }
        Ok(count)
    }
}
