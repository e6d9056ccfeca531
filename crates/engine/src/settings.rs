//! The part of the configuration that can change while the daemon runs, and what the host is.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use api_types::StringMap;
use api_types::container::{LogConfig, Ulimit};
use model::create::HostFacts;

use crate::{Engine, Runtimes};

/// What the operator has set, and may set anew with a reload.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub labels: Vec<String>,
    pub debug: bool,
    pub experimental: bool,
    /// What a container's log gets if it names no driver.
    pub log: LogConfig,
    /// Bytes.
    pub shm_size: i64,
    /// Seconds; -1: for ever.
    pub stop_timeout: i64,
    /// How long a clean end waits for work that nobody waits for; none: for ever. Seconds.
    pub shutdown_seconds: Option<u64>,
    pub ulimits: Vec<Ulimit>,
    pub ipc_mode: String,
    /// Empty: private with cgroup v2, the host's else.
    pub cgroupns_mode: String,
    pub no_new_privileges: bool,
    /// An init in front of each container's first process.
    pub init: bool,
    /// The profile of containers that name none: its text, or `unconfined`; none: the built-in one.
    pub seccomp: Option<String>,
    pub runtimes: Runtimes,
    pub insecure_registries: Vec<String>,
    pub registry_mirrors: Vec<String>,
    pub downloads_max: u32,
    pub uploads_max: u32,
    pub download_attempts_max: u32,
    pub http_proxy: String,
    pub https_proxy: String,
    pub no_proxy: String,
    pub features: BTreeMap<String, bool>,
    pub authorization_plugins: Vec<String>,
    pub live_restore: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            labels: Vec::new(),
            debug: false,
            experimental: false,
            log: LogConfig { driver: "json-file".into(), config: StringMap::new() },
            shm_size: 64 << 20,
            stop_timeout: 10,
            shutdown_seconds: Some(15),
            ulimits: Vec::new(),
            ipc_mode: "private".into(),
            cgroupns_mode: String::new(),
            no_new_privileges: false,
            init: false,
            seccomp: None,
            runtimes: Runtimes::default(),
            insecure_registries: Vec::new(),
            registry_mirrors: Vec::new(),
            downloads_max: 3,
            uploads_max: 5,
            download_attempts_max: 5,
            http_proxy: String::new(),
            https_proxy: String::new(),
            no_proxy: String::new(),
            features: BTreeMap::new(),
            authorization_plugins: Vec::new(),
            live_restore: true,
        }
    }
}

impl Settings {
    /// Puts what concerns new containers where creating them looks for it.
    pub(crate) fn apply(&self, facts: &mut HostFacts) {
        facts.log = self.log.clone();
        facts.shm_size = self.shm_size;
        facts.stop_timeout = self.stop_timeout;
        facts.ulimits = self.ulimits.clone();
        facts.ipc_mode = self.ipc_mode.clone();
        facts.cgroupns_mode = self.cgroupns_mode.clone();
        facts.no_new_privileges = self.no_new_privileges;
        facts.init = self.init;
        facts.runtimes = self.runtimes.names();
    }

    /// What the reload event says, under Docker's names.
    fn attributes(&self) -> StringMap {
        let json = |value: serde_json::Value| value.to_string();
        let ulimits: BTreeMap<&str, &Ulimit> =
            self.ulimits.iter().map(|limit| (limit.name.as_str(), limit)).collect();
        let runtimes = self.runtimes.described().into_iter();
        let runtimes: Vec<String> = runtimes.map(|(name, path, _)| format!("{name}:{path}")).collect();
        let all = [
            ("authorization-plugins", json(self.authorization_plugins.clone().into())),
            ("debug", self.debug.to_string()),
            ("default-ipc-mode", self.ipc_mode.clone()),
            ("default-runtime", self.runtimes.default_name().into()),
            ("default-shm-size", self.shm_size.to_string()),
            ("default-stop-timeout", self.stop_timeout.to_string()),
            ("default-ulimits", serde_json::to_string(&ulimits).unwrap_or_default()),
            ("features", serde_json::to_string(&self.features).unwrap_or_default()),
            ("insecure-registries", json(self.insecure_registries.clone().into())),
            ("labels", json(self.labels.clone().into())),
            ("live-restore", self.live_restore.to_string()),
            ("max-concurrent-downloads", self.downloads_max.to_string()),
            ("max-concurrent-uploads", self.uploads_max.to_string()),
            ("max-download-attempts", self.download_attempts_max.to_string()),
            ("registry-mirrors", json(self.registry_mirrors.clone().into())),
            ("runtimes", runtimes.join(" ")),
            ("shutdown-timeout", self.shutdown_seconds.map_or("-1".into(), |seconds| seconds.to_string())),
        ];
        all.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
    }
}

/// The settings in force, with the facts that follow from them. Readers take what is there and keep it.
#[derive(Debug)]
pub(crate) struct Current(RwLock<(Arc<Settings>, Arc<HostFacts>)>);

impl Current {
    pub fn new(settings: Settings, mut facts: HostFacts) -> Current {
        settings.apply(&mut facts);
        Current(RwLock::new((Arc::new(settings), Arc::new(facts))))
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub fn facts(&self) -> Arc<HostFacts> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    fn replace(&self, settings: Settings) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut facts = HostFacts::clone(&current.1);
        settings.apply(&mut facts);
        *current = (Arc::new(settings), Arc::new(facts));
    }
}

impl Engine {
    /// What the operator has set.
    pub fn settings(&self) -> Arc<Settings> {
        self.0.current.settings()
    }

    /// What the host is, and what new containers get that ask for nothing else.
    pub fn facts(&self) -> Arc<HostFacts> {
        self.0.current.facts()
    }

    /// Takes new settings: they count for what is done from now on.
    pub fn reload(&self, settings: Settings) {
        let mut attributes = settings.attributes();
        attributes.insert("name".into(), crate::net::host_name());
        self.0.current.replace(settings);
        self.events().emit("daemon", "reload", &self.0.id, attributes);
    }
}
