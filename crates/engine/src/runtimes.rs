//! The runtimes that a container can be run by: Corten's own, and programs with runc's command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::Refusal;

/// Corten's own, and the names under which clients of Docker know the usual one.
pub const OWN: [&str; 3] = ["corten", USUAL, "io.containerd.runc.v2"];
/// What clients expect to be the default: some look for it by this name.
pub const USUAL: &str = "runc";

/// A program with runc's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalRuntime {
    /// A name to look up in `PATH`, or a path.
    pub path: String,
    /// Given before the command.
    pub arguments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtimes {
    external: BTreeMap<String, ExternalRuntime>,
    default: String,
}

impl Default for Runtimes {
    fn default() -> Runtimes {
        Runtimes { external: BTreeMap::new(), default: USUAL.into() }
    }
}

impl Runtimes {
    /// The runtimes of the configuration. A configured one hides Corten's own of the same name, but not `corten`.
    pub fn new(
        external: BTreeMap<String, ExternalRuntime>,
        default: Option<&str>,
    ) -> Result<Runtimes, Refusal> {
        // `runtimes` may say which program `runc` is; the other two are what they are.
        if let Some(name) = [OWN[0], OWN[2]].into_iter().find(|name| external.contains_key(*name)) {
            return Err(Refusal::invalid(format!("runtime name '{name}' is reserved")));
        }
        if let Some((name, _)) = external.iter().find(|(_, runtime)| runtime.path.is_empty()) {
            return Err(Refusal::invalid(format!(
                "runtime {name}: either a runtimeType or a path must be configured"
            )));
        }
        // Who only says which program `runc` is has not asked for it.
        let usual = if external.contains_key(USUAL) { OWN[0] } else { USUAL };
        let runtimes = Runtimes { external, default: default.unwrap_or(usual).to_string() };
        if !runtimes.names().contains(&runtimes.default) {
            return Err(Refusal::invalid(format!(
                "specified default runtime '{}' does not exist",
                runtimes.default
            )));
        }
        Ok(runtimes)
    }

    /// Every name; the default first.
    pub fn names(&self) -> Vec<String> {
        let own = OWN.iter().map(|name| name.to_string());
        let mut all: Vec<String> = own.chain(self.external.keys().cloned()).collect();
        all.sort();
        all.dedup();
        all.sort_by_key(|name| *name != self.default);
        all
    }

    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// The program and its first arguments; none for Corten's own runtime.
    pub fn find(&self, name: &str) -> Result<Option<(PathBuf, Vec<String>)>, Refusal> {
        let name = if name.is_empty() { &self.default } else { name };
        match self.external.get(name) {
            Some(runtime) => {
                let program = program(&runtime.path).ok_or_else(|| {
                    Refusal::system(format!(
                        "failed to create task for container: failed to create shim task: OCI runtime create failed: \
                         unable to find runtime {name}: exec: \"{}\": executable file not found in $PATH",
                        runtime.path
                    ))
                })?;
                Ok(Some((program, runtime.arguments.clone())))
            }
            None if OWN.contains(&name) => Ok(None),
            None => Err(Refusal::invalid(format!("unknown or invalid runtime name: {name}"))),
        }
    }

    /// Name, path and arguments of each, for `info`.
    pub fn described(&self) -> Vec<(String, String, Vec<String>)> {
        let own = OWN.iter().filter(|name| !self.external.contains_key(**name));
        let own = own.map(|name| (name.to_string(), "corten-shim".to_string(), Vec::new()));
        let external = self.external.iter();
        own.chain(external.map(|(name, one)| (name.clone(), one.path.clone(), one.arguments.clone())))
            .collect()
    }
}

/// Finds a program by its path, or its name in `PATH`.
fn program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(name.into()).filter(|path: &PathBuf| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(Path::new(name)))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(names: &[&str]) -> BTreeMap<String, ExternalRuntime> {
        let one = |name: &&str| {
            (name.to_string(), ExternalRuntime { path: format!("/nowhere/{name}"), arguments: Vec::new() })
        };
        names.iter().map(one).collect()
    }

    #[test]
    fn names_stand_for_programs() {
        let runtimes = Runtimes::new(external(&["crun", "runc"]), Some("crun")).unwrap();
        assert_eq!(runtimes.names()[0], "crun");
        assert_eq!(runtimes.names().len(), 4, "each once");
        assert_eq!(runtimes.find("corten").unwrap(), None);
        assert!(runtimes.find("runc").unwrap_err().message.contains("executable file not found"));
        assert_eq!(runtimes.find("odd").unwrap_err().message, "unknown or invalid runtime name: odd");
        assert!(Runtimes::new(external(&[]), Some("odd")).unwrap_err().message.contains("does not exist"));
        assert!(Runtimes::new(external(&["corten"]), None).unwrap_err().message.contains("reserved"));
        assert_eq!(Runtimes::new(external(&[]), None).unwrap().find("runc").unwrap(), None);
        assert_eq!(Runtimes::new(external(&["crun"]), None).unwrap().names()[0], "runc");
        assert_eq!(Runtimes::new(external(&["runc"]), None).unwrap().names()[0], "corten");
    }
}
