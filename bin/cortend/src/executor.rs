//! Commands of builds, run as containers of the engine.

use std::io::Read;
use std::os::unix::net::UnixStream;

use api_server::{BuildSetting, timestamp};
use api_types::StringMap;
use api_types::container::{ContainerCreate, HealthConfig, HostConfig};
use build::{ExecutorError, Kind, RunStep, Stream};
use engine::container::Client;
use engine::{Engine, WaitCondition, image_config};
use model::Refusal;
use oci::{Platform, Reference};
use shim_protocol::Attach;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use transfer::{Board, Event, PullRequest, Transfers};

/// Called on blocking threads; the engine's own work runs on the runtime.
pub struct Executor {
    pub engine: Engine,
    pub runtime: Handle,
    pub transfers: Transfers,
    /// What the build's client gave.
    pub setting: BuildSetting,
}

fn failed(refusal: Refusal) -> ExecutorError {
    let kind = match refusal.kind {
        model::Kind::NotFound => Kind::NotFound,
        model::Kind::Invalid | model::Kind::Conflict => Kind::Invalid,
        model::Kind::NotImplemented => Kind::NotImplemented,
        _ => Kind::System,
    };
    ExecutorError { kind, message: refusal.message }
}

fn system(error: std::io::Error) -> ExecutorError {
    ExecutorError { kind: Kind::System, message: error.to_string() }
}

/// What the engine is asked to create for a step.
fn request(step: &RunStep<'_>, image: String, host: &HostConfig) -> ContainerCreate {
    let mut config = image_config(step.config);
    config.image = image;
    // The builder has put the whole command line into `cmd`; the image's own entrypoint does not count.
    config.entrypoint = Some(Vec::new());
    config.healthcheck = Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() });
    config.volumes = None;
    let host = HostConfig { network_mode: step.network.into(), ..host.clone() };
    ContainerCreate { config, host_config: Some(host), no_image_volumes: true, ..ContainerCreate::default() }
}

impl build::Executor for Executor {
    fn create(&self, step: &RunStep<'_>) -> Result<String, ExecutorError> {
        let Some(image) = step.image else {
            let program = step.config.cmd.iter().flatten().next().cloned().unwrap_or_default();
            return Err(ExecutorError {
                kind: Kind::Invalid,
                message: format!("exec: \"{program}\": stat {program}: no such file or directory"),
            });
        };
        let request = request(step, image.id.to_string(), &self.setting.host);
        let (id, _) = self.runtime.block_on(self.engine.containers().create("", request)).map_err(failed)?;
        Ok(id)
    }

    fn run(&self, container: &str, output: &mut dyn FnMut(Stream, &[u8])) -> Result<i64, ExecutorError> {
        let (ours, theirs) = UnixStream::pair().map_err(system)?;
        let (send, stream) = oneshot::channel();
        let _ = send.send((theirs.into(), Vec::new()));
        let attach = Attach {
            stdin: false,
            stdout: true,
            stderr: true,
            multiplexed: true,
            detach_keys: Vec::new(),
            early_input: Vec::new(),
            held: false,
        };
        let ended = self.runtime.block_on(async {
            self.engine
                .attachments()
                .attach(container, Client { attach, stream, held: None, run: None })
                .await?;
            let ended = self.engine.containers().wait(container, WaitCondition::NextExit)?;
            self.engine.containers().start(container).await?;
            Ok(ended)
        });
        let ended = ended.map_err(failed)?;
        read_frames(ours, output).map_err(system)?;
        let exit = self.runtime.block_on(async {
            let exit = ended.await;
            self.engine.containers().settled(container).await.map(|()| exit)
        });
        Ok(exit.map_err(failed)?.status_code)
    }

    fn remove(&self, container: &str) -> Result<(), ExecutorError> {
        self.runtime.block_on(self.engine.containers().remove(container, true, true)).map_err(failed)
    }

    fn fetch(
        &self,
        reference: &Reference,
        platform: &Platform,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<(), ExecutorError> {
        let now = timestamp(self.engine.now());
        let credentials = self.setting.credentials.get(reference.domain()).cloned().unwrap_or_default();
        let wanted =
            PullRequest { reference: reference.clone(), platform: Some(platform.clone()), credentials, now };
        let pull = self.runtime.block_on(self.transfers.pull(wanted)).map_err(pull_failed)?;
        let board = Board::default();
        let (running, engine) = (board.clone(), self.engine.clone());
        let work = self.runtime.spawn(async move {
            let done = pull.run(running.clone(), |pulled| {
                let attributes = StringMap::from([("name".into(), pulled.reference.familiar_name())]);
                engine.announce("image", "pull", &pulled.reference.familiar(), attributes);
            });
            let outcome = done.await;
            running.close();
            outcome
        });
        // Told between the waits and not within them: whoever listens may block.
        while let Some(event) = self.runtime.block_on(board.next()) {
            // Layers tell of themselves many times a second: text is for what happens once.
            if let Event::Message { id: None, text } = event {
                on_text(&format!("{text}\n"));
            }
        }
        match self.runtime.block_on(work) {
            Ok(outcome) => outcome.map_err(pull_failed),
            Err(error) => Err(ExecutorError { kind: Kind::System, message: error.to_string() }),
        }
    }
}

fn pull_failed(error: transfer::Error) -> ExecutorError {
    let kind = match error.kind() {
        transfer::Kind::NotFound => Kind::NotFound,
        transfer::Kind::Invalid | transfer::Kind::Unauthorized | transfer::Kind::Forbidden => Kind::Invalid,
        transfer::Kind::System => Kind::System,
    };
    ExecutorError { kind, message: error.to_string() }
}

/// Takes the multiplexed output apart until its end.
fn read_frames(mut stream: UnixStream, output: &mut dyn FnMut(Stream, &[u8])) -> std::io::Result<()> {
    let mut header = [0; 8];
    let mut piece = vec![0; 32 << 10];
    loop {
        match stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let which = if header[0] == 2 { Stream::Stderr } else { Stream::Stdout };
        let mut left = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        while left > 0 {
            let most = left.min(piece.len());
            let count = stream.read(&mut piece[..most])?;
            if count == 0 {
                return Ok(());
            }
            output(which, &piece[..count]);
            left -= count;
        }
    }
}
