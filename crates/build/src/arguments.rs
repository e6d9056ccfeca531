//! Build arguments: which there are, which are declared, and what they are worth where.

use std::collections::{BTreeMap, BTreeSet};

use oci::Platform;

/// Known without a declaration; they reach commands, but neither the history nor the cache.
const PREDEFINED: &[&str] = &[
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The arguments of one build, at one point of its Dockerfile.
#[derive(Debug, Clone)]
pub struct Arguments {
    given: BTreeMap<String, Option<String>>,
    /// Declared before the first `FROM`, with their values there.
    global: BTreeMap<String, Option<String>>,
    /// Declared in this stage, with their defaults.
    declared: BTreeMap<String, Option<String>>,
    /// Set by the builder itself.
    platform: BTreeMap<String, String>,
    consumed: BTreeSet<String>,
}

impl Arguments {
    pub fn new(given: &BTreeMap<String, Option<String>>, target: &Platform, build: &Platform) -> Arguments {
        let mut platform = BTreeMap::new();
        for (prefix, value) in [("TARGET", target), ("BUILD", build)] {
            platform.insert(format!("{prefix}PLATFORM"), value.to_string());
            platform.insert(format!("{prefix}OS"), value.os.clone());
            platform.insert(format!("{prefix}ARCH"), value.architecture.clone());
            platform.insert(format!("{prefix}VARIANT"), value.variant.clone());
        }
        Arguments {
            given: given.clone(),
            global: BTreeMap::new(),
            declared: BTreeMap::new(),
            platform,
            consumed: BTreeSet::new(),
        }
    }

    /// An `ARG` before the first `FROM`.
    pub fn declare_global(&mut self, name: &str, default: Option<String>) {
        let value = self.given_or(name, default);
        self.consumed.insert(name.to_owned());
        self.global.insert(name.to_owned(), value);
    }

    /// A value in a `FROM`.
    pub fn in_from(&self, name: &str) -> Option<String> {
        self.global.get(name).cloned().flatten().or_else(|| self.platform.get(name).cloned())
    }

    /// A stage begins: what another one declared is unknown here.
    pub fn begin_stage(&mut self) {
        self.declared.clear();
    }

    /// An `ARG` in a stage. Without a default it takes the value it has before the first `FROM`.
    pub fn declare(&mut self, name: &str, default: Option<String>) {
        self.consumed.insert(name.to_owned());
        let default = default
            .or_else(|| self.global.get(name).cloned().flatten())
            .or_else(|| self.platform.get(name).cloned());
        self.declared.insert(name.to_owned(), default);
    }

    /// A value in the instructions of a stage.
    pub fn get(&self, name: &str) -> Option<String> {
        match self.declared.get(name) {
            Some(default) => self.given_or(name, default.clone()),
            None => self.predefined(name),
        }
    }

    /// What commands see besides the environment: declared arguments first, which also count for the cache, then the
    /// predefined ones, which do not. `is_set` tells which names the environment has.
    pub fn for_commands(&self, is_set: &dyn Fn(&str) -> bool) -> (Vec<String>, Vec<String>) {
        let declared = self
            .declared
            .keys()
            .filter(|name| !is_set(name))
            .filter_map(|name| Some(format!("{name}={}", self.get(name)?)))
            .collect();
        let predefined = PREDEFINED
            .iter()
            .filter(|name| !self.declared.contains_key(**name) && !is_set(name))
            .filter_map(|name| Some(format!("{name}={}", self.predefined(name)?)))
            .collect();
        (declared, predefined)
    }

    /// Given arguments that nothing declared.
    pub fn unused(&self) -> Vec<&str> {
        let known = |name: &str| self.consumed.contains(name) || PREDEFINED.contains(&name);
        self.given.keys().map(String::as_str).filter(|name| !known(name)).collect()
    }

    fn predefined(&self, name: &str) -> Option<String> {
        PREDEFINED.contains(&name).then(|| self.given.get(name).cloned().flatten()).flatten()
    }

    fn given_or(&self, name: &str, default: Option<String>) -> Option<String> {
        self.given.get(name).cloned().flatten().or(default)
    }
}
