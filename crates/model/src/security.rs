//! `--security-opt`, and what it comes to: under which labels of the kernel's security modules a container runs.

use api_types::container::HostConfig;
use serde::{Deserialize, Serialize};

use crate::Refusal;

/// The AppArmor profile that containers run under when nothing else is asked for; the name that Docker's users know.
pub const APPARMOR_DEFAULT: &str = "docker-default";
const UNCONFINED: &str = "unconfined";

/// Whether AppArmor can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AppArmor {
    /// The kernel has none, or it is off.
    #[default]
    Absent,
    /// The kernel has it, and the default profile could not be loaded, for this reason.
    Unusable(String),
    /// The default profile is loaded.
    Ready,
}

/// What the host's security modules can do; found out once at start.
#[derive(Debug, Clone, Default)]
pub struct SecurityFacts {
    pub apparmor: AppArmor,
    /// SELinux is on, and the daemon was told to use it.
    pub selinux: Option<SelinuxContexts>,
}

/// The contexts of SELinux's policy for containers, `user:role:type:level`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SelinuxContexts {
    pub process: String,
    pub file: String,
}

/// The labels of a container, as they are stored. Empty: none is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Labels {
    /// `unconfined` or the profile's name; empty where the kernel has no AppArmor.
    pub apparmor: String,
    /// SELinux's, of the processes.
    pub process: String,
    /// SELinux's, of the files.
    pub mount: String,
}

/// The options, told apart. A later one of a kind wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options<'a> {
    pub apparmor: Option<&'a str>,
    /// `builtin`, `unconfined`, or the profile itself.
    pub seccomp: Option<&'a str>,
    /// `disable`, `user:…`, `role:…`, `type:…`, `level:…`, `filetype:…`, in order.
    pub labels: Vec<&'a str>,
    pub no_new_privileges: Option<bool>,
    pub writable_cgroups: Option<bool>,
    /// `systempaths=unconfined`, which Docker's command line turns into empty lists of paths by itself.
    pub all_paths: bool,
}

impl<'a> Options<'a> {
    pub fn parse(host: &'a HostConfig) -> Result<Options<'a>, Refusal> {
        let mut options = Options::default();
        for text in host.security_opt.iter().flatten() {
            options.take(text)?;
        }
        Ok(options)
    }

    fn take(&mut self, text: &'a str) -> Result<(), Refusal> {
        let odd = |number: u8| Refusal::invalid(format!("invalid --security-opt {number}: \"{text}\""));
        let (key, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
            Some(pair) => pair,
            None if text == "no-new-privileges" => (text, "true"),
            None if text == "disable" => ("label", "disable"),
            None => return Err(odd(1)),
        };
        let switch = || match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(Refusal::invalid(format!("invalid --security-opt value for {key}: \"{value}\""))),
        };
        match key {
            "apparmor" => self.apparmor = Some(value),
            "seccomp" => self.seccomp = Some(value),
            "label" => self.labels.push(value),
            "no-new-privileges" => self.no_new_privileges = Some(switch()?),
            "writable-cgroups" => self.writable_cgroups = Some(switch()?),
            "systempaths" if value == UNCONFINED => self.all_paths = true,
            _ => return Err(odd(2)),
        }
        Ok(())
    }
}

/// Adds the option that a privileged container and one that shares the host's processes or IPC objects have by themselves:
/// under a label of its own it could not reach them. What was asked for stays.
pub fn complete(host: &mut HostConfig) -> Result<(), Refusal> {
    let shares = host.privileged || host.pid_mode == "host" || host.ipc_mode == "host";
    if shares && Options::parse(host)?.labels.is_empty() {
        host.security_opt.get_or_insert_default().push("label=disable".into());
    }
    Ok(())
}

/// SELinux's labels of the other containers.
#[derive(Clone, Copy)]
pub struct Others<'a> {
    /// Whether one of them has this level.
    pub has_level: &'a dyn Fn(&str) -> bool,
    /// That of a container's processes, by name or ID; none where it has none.
    pub process: &'a dyn Fn(&str) -> Option<String>,
}

/// The level of the files of containers whose processes have no label; no other container gets it.
const UNLABELLED_LEVEL: &str = "s0:c1022,c1023";

/// Decides on the labels of a new container.
pub fn labels(
    host: &HostConfig,
    facts: &SecurityFacts,
    cgroup_v2: bool,
    id: &str,
    others: Others<'_>,
    warnings: &mut Vec<String>,
) -> Result<Labels, Refusal> {
    let options = Options::parse(host)?;
    if options.writable_cgroups == Some(true) && !cgroup_v2 {
        return Err(Refusal::invalid(
            "security option writable-cgroups needs cgroup v2, and this host has v1",
        )
        .hint("on v1 a container could lift its own limits; leave the option out"));
    }
    let mut labels = Labels { apparmor: apparmor(host, &options, facts, warnings)?, ..Labels::default() };
    match &facts.selinux {
        Some(contexts) => (labels.process, labels.mount) = selinux(host, &options, contexts, id, others)?,
        None => {
            if let Some(label) = options.labels.iter().find(|label| **label != "disable") {
                let text = format!("security option label={label} cannot be applied: SELinux is not enabled");
                return Err(Refusal::invalid(text)
                    .hint("start the daemon with --selinux-enabled on a kernel with SELinux"));
            }
        }
    }
    Ok(labels)
}

fn apparmor(
    host: &HostConfig,
    options: &Options<'_>,
    facts: &SecurityFacts,
    warnings: &mut Vec<String>,
) -> Result<String, Refusal> {
    if facts.apparmor == AppArmor::Ready {
        let default = if host.privileged { UNCONFINED } else { APPARMOR_DEFAULT };
        return Ok(options.apparmor.filter(|profile| !profile.is_empty()).unwrap_or(default).into());
    }
    match options.apparmor {
        None | Some("" | UNCONFINED) => {}
        Some(APPARMOR_DEFAULT) => {
            warnings
                .push(format!("AppArmor is not enabled on this host. Profile {APPARMOR_DEFAULT} discarded."));
        }
        Some(profile) => {
            return Err(Refusal::invalid(format!(
                "security option apparmor={profile} cannot be applied: AppArmor is not enabled on this host"
            )));
        }
    }
    Ok(String::new())
}

/// The labels of processes and files.
fn selinux(
    host: &HostConfig,
    options: &Options<'_>,
    contexts: &SelinuxContexts,
    id: &str,
    others: Others<'_>,
) -> Result<(String, String), Refusal> {
    let split = |context: &str| context.splitn(4, ':').map(String::from).collect::<Vec<String>>();
    let (mut process, mut file) = (split(&contexts.process), split(&contexts.file));
    if process.len() < 3 || file.len() < 3 {
        return Err(Refusal::system("SELinux's policy has no usable contexts for containers"));
    }
    process.resize(4, "s0".into());
    file.resize(4, "s0".into());
    if options.labels.contains(&"disable") {
        file[3] = UNLABELLED_LEVEL.into();
        return Ok((String::new(), file.join(":")));
    }
    let mut level = None;
    for label in &options.labels {
        let odd = || {
            Refusal::invalid(format!(
                "bad label option \"{label}\", valid options 'disable' or \n'user, role, level, type, filetype' followed \
                 by ':' and a value"
            ))
        };
        let (key, value) = label.split_once(':').filter(|(_, value)| !value.is_empty()).ok_or_else(odd)?;
        match key {
            "user" => (process[0], file[0]) = (value.into(), value.into()),
            "role" => process[1] = value.into(),
            "type" => process[2] = value.into(),
            "filetype" => file[2] = value.into(),
            "level" => level = Some(value.to_string()),
            _ => return Err(odd()),
        }
    }
    // Who shares processes or their memory runs as they do: they would be strangers otherwise.
    if options.labels.is_empty()
        && let Some(shared) = shared(host, others)?.map(|context| split(&context))
        && let [user, role, kind, shared_level] = &shared[..]
    {
        (process[0], file[0]) = (user.clone(), user.clone());
        (process[1], process[2]) = (role.clone(), kind.clone());
        level = Some(shared_level.clone());
    }
    let level = match level {
        Some(level) => level,
        None => own_level(id, others.has_level)?,
    };
    (process[3], file[3]) = (level.clone(), level);
    // A privileged container's processes have none, whatever its files have.
    let process = if host.privileged { String::new() } else { process.join(":") };
    Ok((process, file.join(":")))
}

/// The label of the containers whose processes or IPC objects it shares.
fn shared(host: &HostConfig, others: Others<'_>) -> Result<Option<String>, Refusal> {
    let label = |mode: &str| mode.strip_prefix("container:").and_then(|other| (others.process)(other));
    match (label(&host.pid_mode), label(&host.ipc_mode)) {
        (Some(pid), Some(ipc)) if pid != ipc => {
            Err(Refusal::invalid("--ipc and --pid containers SELinux labels aren't the same"))
        }
        (pid, ipc) => Ok(pid.or(ipc)),
    }
}

/// A pair of categories that no other container has: the first free one from where its ID points.
fn own_level(id: &str, taken: &dyn Fn(&str) -> bool) -> Result<String, Refusal> {
    const CATEGORIES: u32 = 1024;
    let seed = id.bytes().take(16).fold(0_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    for attempt in 0..CATEGORIES * CATEGORIES {
        let number = seed.wrapping_add(attempt);
        let (low, high) = (number % CATEGORIES, (number / CATEGORIES) % CATEGORIES);
        if low >= high {
            continue;
        }
        let level = format!("s0:c{low},c{high}");
        if level != UNLABELLED_LEVEL && !taken(&level) {
            return Ok(level);
        }
    }
    Err(Refusal::system("every pair of SELinux categories is taken by a container"))
}

/// The level at the end of a context.
pub fn level(context: &str) -> &str {
    context.splitn(4, ':').nth(3).unwrap_or_default()
}

/// How a bind is to be labelled anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relabel {
    /// `z`: for every container.
    Shared,
    /// `Z`: for this one.
    Private,
}

/// What the options of a bind say about its label.
pub fn relabel(mode: &str) -> Option<Relabel> {
    mode.split(',').find_map(|option| match option {
        "z" => Some(Relabel::Shared),
        "Z" => Some(Relabel::Private),
        _ => None,
    })
}

/// The label that a bind's files get: without categories where every container is to have them.
pub fn bind_label(mount_label: &str, relabel: Relabel) -> String {
    match (relabel, mount_label.rsplit_once(":s0")) {
        (Relabel::Shared, Some((context, _))) => format!("{context}:s0"),
        _ => mount_label.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(options: &[&str]) -> HostConfig {
        let security_opt = Some(options.iter().map(|option| option.to_string()).collect());
        HostConfig { security_opt, ..HostConfig::default() }
    }

    fn with_selinux() -> SecurityFacts {
        let contexts = SelinuxContexts {
            process: "system_u:system_r:container_t:s0".into(),
            file: "system_u:object_r:container_file_t:s0".into(),
        };
        SecurityFacts { apparmor: AppArmor::Ready, selinux: Some(contexts) }
    }

    fn decide(host: &HostConfig, facts: &SecurityFacts) -> Result<Labels, String> {
        let process = |name: &str| match name {
            "first" => Some("system_u:system_r:spc_t:s0:c5,c6".to_owned()),
            "second" => Some("system_u:system_r:container_t:s0:c7,c8".to_owned()),
            _ => None,
        };
        let others = Others { has_level: &|_| false, process: &process };
        let mut host = host.clone();
        complete(&mut host).map_err(|refusal| refusal.message)?;
        labels(&host, facts, true, "0123456789abcdef", others, &mut Vec::new())
            .map_err(|refusal| refusal.message)
    }

    #[test]
    fn options_in_both_spellings() {
        let host = host(&[
            "apparmor:mine",
            "no-new-privileges",
            "seccomp=unconfined",
            "label=type:svirt_t",
            "label:level:s0:c1,c2",
            "writable-cgroups=false",
        ]);
        let options = Options::parse(&host).unwrap();
        assert_eq!((options.apparmor, options.seccomp), (Some("mine"), Some("unconfined")));
        assert_eq!((options.no_new_privileges, options.writable_cgroups), (Some(true), Some(false)));
        assert_eq!(options.labels, ["type:svirt_t", "level:s0:c1,c2"]);
        for (text, message) in [
            ("odd", "invalid --security-opt 1: \"odd\""),
            ("odd=1", "invalid --security-opt 2: \"odd=1\""),
            ("systempaths=all", "invalid --security-opt 2: \"systempaths=all\""),
            ("no-new-privileges=maybe", "invalid --security-opt value for no-new-privileges: \"maybe\""),
        ] {
            let host = self::host(&[text]);
            assert_eq!(Options::parse(&host).unwrap_err().message, message);
        }
    }

    #[test]
    fn apparmor_profiles() {
        let there = SecurityFacts { apparmor: AppArmor::Ready, selinux: None };
        let profile = |host: &HostConfig, facts| decide(host, facts).map(|labels| labels.apparmor);
        assert_eq!(profile(&host(&[]), &there).unwrap(), "docker-default");
        assert_eq!(profile(&host(&["apparmor=mine"]), &there).unwrap(), "mine");
        let privileged = HostConfig { privileged: true, ..HostConfig::default() };
        assert_eq!(profile(&privileged, &there).unwrap(), "unconfined");
        let gone = SecurityFacts::default();
        assert_eq!(profile(&host(&["apparmor=unconfined"]), &gone).unwrap(), "");
        assert!(
            profile(&host(&["apparmor=mine"]), &gone)
                .unwrap_err()
                .contains("apparmor=mine cannot be applied")
        );
    }

    #[test]
    fn selinux_labels() {
        let facts = with_selinux();
        let labels = decide(&host(&[]), &facts).unwrap();
        assert!(labels.process.starts_with("system_u:system_r:container_t:s0:c"), "{labels:?}");
        assert_eq!(level(&labels.process), level(&labels.mount));
        let labels = decide(&host(&["label=type:spc_t", "label=level:s0:c1,c2"]), &facts).unwrap();
        assert_eq!(labels.process, "system_u:system_r:spc_t:s0:c1,c2");
        assert_eq!(labels.mount, "system_u:object_r:container_file_t:s0:c1,c2");
        assert_eq!(bind_label(&labels.mount, Relabel::Shared), "system_u:object_r:container_file_t:s0");
        assert_eq!(bind_label(&labels.mount, Relabel::Private), labels.mount);
        assert!(decide(&host(&["label=odd:x"]), &facts).unwrap_err().starts_with("bad label option"));
        assert!(decide(&host(&["label=type:x"]), &SecurityFacts::default()).unwrap_err().contains("SELinux"));
    }

    #[test]
    fn who_shares_processes_or_memory_runs_under_the_same_label() {
        let facts = with_selinux();
        let sharing = |pids: &str, memory: &str, options: &[&str]| {
            decide(&HostConfig { pid_mode: pids.into(), ipc_mode: memory.into(), ..host(options) }, &facts)
        };
        let first = "container:first";
        for (pids, memory) in [(first, ""), ("", first), (first, first), (first, "container:bare")] {
            let labels = sharing(pids, memory, &[]).unwrap();
            assert_eq!(labels.process, "system_u:system_r:spc_t:s0:c5,c6");
            assert_eq!(labels.mount, "system_u:object_r:container_file_t:s0:c5,c6");
        }
        let refused = sharing(first, "container:second", &[]).unwrap_err();
        assert_eq!(refused, "--ipc and --pid containers SELinux labels aren't the same");
        for labels in [sharing(first, "", &["label=type:container_t"]), sharing("container:bare", "", &[])] {
            let labels = labels.unwrap();
            assert!(labels.process.starts_with("system_u:system_r:container_t:s0:c"), "{labels:?}");
            assert_ne!(level(&labels.process), "s0:c5,c6");
        }
    }

    #[test]
    fn files_of_containers_without_a_label_have_one() {
        let facts = with_selinux();
        let bare = (String::new(), format!("system_u:object_r:container_file_t:{UNLABELLED_LEVEL}"));
        let labels = |host: HostConfig| decide(&host, &facts).map(|labels| (labels.process, labels.mount));
        let privileged = |options: &[&str]| HostConfig { privileged: true, ..host(options) };
        assert_eq!(labels(host(&["label=disable"])).unwrap(), bare);
        assert_eq!(labels(privileged(&[])).unwrap(), bare);
        assert_eq!(labels(HostConfig { pid_mode: "host".into(), ..host(&[]) }).unwrap(), bare);
        assert_eq!(labels(HostConfig { ipc_mode: "host".into(), ..host(&[]) }).unwrap(), bare);
        let asked = ["label=level:s0:c1,c2"];
        let file = "system_u:object_r:container_file_t:s0:c1,c2".to_owned();
        assert_eq!(labels(privileged(&asked)).unwrap(), (String::new(), file.clone()));
        let with_host = HostConfig { pid_mode: "host".into(), ..host(&asked) };
        assert_eq!(labels(with_host).unwrap(), ("system_u:system_r:container_t:s0:c1,c2".into(), file));
    }

    #[test]
    fn no_two_containers_have_the_same_level() {
        let first = own_level("abc", &|_| false).unwrap();
        assert_ne!(own_level("abc", &|level| level == first).unwrap(), first);
        let kept = own_level("abc", &|level| level != UNLABELLED_LEVEL).unwrap_err();
        assert!(kept.message.contains("every pair"), "{}", kept.message);
    }

    proptest! {
        #[test]
        fn any_option_is_decided(text in "\\PC{0,24}", key in "(label|apparmor|no-new-privileges)[=:]") {
            for text in [text.clone(), format!("{key}{text}")] {
                let host = host(&[&text]);
                let _ = decide(&host, &with_selinux());
            }
        }
    }
}
