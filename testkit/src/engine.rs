//! The engines that a [`Bed`](crate::Bed) can hold: Corten, and peers to compare with.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Corten,
    /// Debian's `docker.io`, from `packaging/fetch-peers`.
    Docker,
    /// Debian's `podman` with `crun`; it has no daemon but for its API service.
    Podman,
}

impl Engine {
    /// What the environment asks for: `CORTEN_TEST_ENGINE=docker` runs the tests against that engine, to see
    /// whether they ask for what it really does.
    pub fn from_environment() -> Self {
        match std::env::var("CORTEN_TEST_ENGINE").as_deref() {
            Ok("docker") => Self::Docker,
            Ok("podman") => Self::Podman,
            Ok("corten" | "") | Err(_) => Self::Corten,
            Ok(other) => panic!("CORTEN_TEST_ENGINE: no engine named {other}"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Corten => "corten",
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// A host with what the engine needs.
    pub fn host(self) -> Host {
        match self {
            Self::Corten => Host::new(),
            Self::Docker | Self::Podman => Host::with_peers(Some(&peers())),
        }
    }

    /// The daemon's command line, to be run inside `host`. All its state goes below the host's folder.
    pub fn daemon(self, host: &Host, socket: &Path) -> Command {
        let folder = host.folder();
        let url = format!("unix://{}", socket.display());
        match self {
            Self::Corten => {
                let mut command = host.command(program("cortend"));
                command.arg("-H").arg(url);
                state_flags(&mut command, host);
                command
            }
            Self::Docker => {
                let config = folder.join("daemon.json");
                let key = folder.join("key.json");
                let text = serde_json::json!({ "deprecated-key-path": key, "oom-score-adjust": 0 });
                std::fs::write(&config, text.to_string()).expect("daemon.json");
                let mut command = host.command("/usr/sbin/dockerd");
                command.arg("-H").arg(url).arg("--config-file").arg(config);
                // Its own containerd, runc and so on are found by PATH; /usr/bin is the peers' here.
                command.env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
                state_flags(&mut command, host);
                command
            }
            Self::Podman => {
                let mut command = self.client(host, socket);
                command.args(["system", "service", "--time=0"]).arg(url);
                command
            }
        }
    }

    /// The command line client. It runs on the machine, not inside the host, but for Podman's.
    pub fn client(self, host: &Host, socket: &Path) -> Command {
        let folder = host.folder();
        let mut command = match self {
            // Another client may be tried in its place.
            Self::Corten => match std::env::var_os("CORTEN_TEST_CLIENT") {
                Some(path) => Command::new(path),
                None => Command::new(program("corten")),
            },
            Self::Docker => Command::new(peers().join("usr/bin/docker")),
            Self::Podman => {
                let mut command = host.command("/usr/bin/podman");
                command.arg("--root").arg(folder.join("data")).arg("--runroot").arg(folder.join("exec"));
                command
                    .arg("--tmpdir")
                    .arg(folder.join("tmp"))
                    .arg("--network-config-dir")
                    .arg(folder.join("net"));
                command.args([
                    "--cgroup-manager",
                    "cgroupfs",
                    "--runtime",
                    "/usr/bin/crun",
                    "--storage-driver",
                ]);
                command.args(["overlay", "--events-backend", "file"]);
                command.env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
                return command;
            }
        };
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        command.env("DOCKER_CONFIG", folder.join("client"));
        // The classic builder, for a client without the buildx plugin.
        command.env("DOCKER_BUILDKIT", "0");
        command
    }
}

fn state_flags(command: &mut Command, host: &Host) {
    let folder = host.folder();
    command.arg("--data-root").arg(folder.join("data"));
    command.arg("--exec-root").arg(folder.join("exec"));
    command.arg("--pidfile").arg(folder.join("daemon.pid"));
    command.arg("--cgroup-parent").arg(host.cgroup());
}

/// A built program: from `CORTEN_DIST`, else from `dist/` of the source tree.
///
/// # Panics
/// When it is not there.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("CORTEN_DIST").map_or_else(|| source_tree().join("dist"), PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: run `make build` first, or set CORTEN_DIST", path.display());
    path
}

/// The root of the source tree.
pub fn source_tree() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the crate stands in the source tree").to_owned()
}

/// Where `packaging/fetch-peers` put the peers' files.
pub fn peers() -> PathBuf {
    let folder =
        std::env::var_os("CORTEN_PEERS").map_or_else(|| source_tree().join("target/peers"), PathBuf::from);
    folder.join("root")
}

/// The official client on this machine, if there is one.
pub fn docker_client() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("docker")).find(|file| file.is_file())
}
