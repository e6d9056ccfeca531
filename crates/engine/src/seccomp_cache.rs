//! Seccomp filters, compiled once for each profile and set of capabilities.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::Refusal;
use model::create::Record;
use model::security::Options;
use model::spec::granted;
use oci::runtime::{CapabilitySet, LinuxSeccomp};
use seccomp::{Arch, Kernel, Profile};

/// Filters kept; a custom profile is a few kilobytes.
const KEPT_MAX: usize = 64;

/// The profile's text (none: the built-in one), and the capabilities that it is resolved for.
type Key = (Option<String>, u64);

#[derive(Debug)]
pub struct Cache {
    kernel: Kernel,
    filters: Mutex<HashMap<Key, Arc<[u8]>>>,
}

impl Cache {
    pub fn new(kernel: Kernel) -> Cache {
        Cache { kernel, filters: Mutex::default() }
    }

    /// The filter of a container; none if it runs unconfined. `standard` is the profile of those that name none.
    pub fn filter(&self, record: &Record, standard: Option<&str>) -> Result<Option<Arc<[u8]>>, Refusal> {
        let profile = match Options::parse(&record.host_config)?.seccomp {
            Some("unconfined") => return Ok(None),
            None if record.host_config.privileged => return Ok(None),
            None if standard == Some("unconfined") => return Ok(None),
            None => standard.map(String::from),
            Some("" | "builtin") => None,
            Some(text) => Some(text.to_string()),
        };
        let capabilities = granted(record)?;
        let key = (profile, capabilities.bits());
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = filters.get(&key) {
            return Ok(Some(filter.clone()));
        }
        let filter: Arc<[u8]> = self.compile(key.0.as_deref(), capabilities)?.into();
        if filters.len() >= KEPT_MAX {
            filters.clear();
        }
        filters.insert(key, filter.clone());
        Ok(Some(filter))
    }

    /// The filter of a container as a runtime spec has it, for runtimes that compile it themselves.
    pub fn section(&self, record: &Record, standard: Option<&str>) -> Result<Option<LinuxSeccomp>, Refusal> {
        match Options::parse(&record.host_config)?.seccomp {
            Some("unconfined") => Ok(None),
            None if record.host_config.privileged => Ok(None),
            None if standard == Some("unconfined") => Ok(None),
            None => self.resolve(standard, granted(record)?),
            Some("" | "builtin") => self.resolve(None, granted(record)?),
            Some(text) => self.resolve(Some(text), granted(record)?),
        }
    }

    fn compile(&self, text: Option<&str>, capabilities: CapabilitySet) -> Result<Vec<u8>, Refusal> {
        let arch = Arch::HOST.ok_or_else(|| Refusal::not_implemented("seccomp on this architecture"))?;
        // An empty profile filters nothing.
        let Some(section) = self.resolve(text, capabilities)? else { return Ok(Vec::new()) };
        seccomp::compile(&section, arch)
            .map_err(|error| Refusal::invalid(format!("seccomp profile: {error}")))
    }

    fn resolve(
        &self,
        text: Option<&str>,
        capabilities: CapabilitySet,
    ) -> Result<Option<LinuxSeccomp>, Refusal> {
        let arch = Arch::HOST.ok_or_else(|| Refusal::not_implemented("seccomp on this architecture"))?;
        let profile = match text {
            None => seccomp::default_profile(),
            Some(text) => Profile::parse(text).map_err(|error| {
                let mut refusal = Refusal::from_error("Decoding seccomp profile failed", &error);
                refusal.kind = model::Kind::Invalid;
                refusal
            })?,
        };
        let names: Vec<&str> = capabilities.iter().map(|one| one.name()).collect();
        profile
            .resolve(&names, arch, self.kernel)
            .map_err(|error| Refusal::invalid(format!("seccomp profile: {error}")))
    }
}
