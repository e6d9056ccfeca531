//! Flags and `daemon.json`: one table of what there is, read from both.
//!
//! Every setting of Docker's daemon is known here. What has no meaning for Corten is taken and said in the log, with
//! the reason, so that a `daemon.json` that worked keeps working; what would be dangerous to ignore is refused.

mod check;
mod file;
mod flags;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// What a setting takes, as a flag and as a member of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Switch,
    Text,
    Number,
    /// May be given more than once.
    List,
    /// `key=value`, more than once.
    Map,
    /// `name=true`, more than once; an object of booleans in the file.
    Switches,
    /// `name=soft[:hard]`; in the file `{"name": {"Name", "Soft", "Hard"}}`.
    Ulimits,
    /// `base=CIDR,size=N`; in the file a list of objects.
    Pools,
    /// `name=path`; in the file `{"name": {"path", "runtimeArgs", "runtimeType", "options"}}`.
    Runtimes,
    /// `driver=option=value`; in the file `{"driver": {"option": "value"}}`.
    NetworkOptions,
    /// An object with any members. No flag.
    Object,
}

/// What becomes of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Works,
    /// Taken, and said in the log: why it changes nothing.
    Nothing(&'static str),
    /// Refused unless it says what is so anyway: ignoring it would break a promise.
    Refused(&'static str),
}

/// One setting.
struct Setting {
    flag: &'static str,
    short: Option<char>,
    /// The member of `daemon.json`; empty if it can only be a flag.
    key: &'static str,
    kind: Kind,
    help: &'static str,
    effect: Effect,
    /// A new value in the file counts from the next reload on.
    live: bool,
    hidden: bool,
}

const fn setting(
    flag: &'static str,
    short: Option<char>,
    key: &'static str,
    kind: Kind,
    help: &'static str,
) -> Setting {
    Setting { flag, short, key, kind, help, effect: Effect::Works, live: false, hidden: false }
}

impl Setting {
    const fn live(mut self) -> Self {
        self.live = true;
        self
    }

    const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    const fn nothing(mut self, why: &'static str) -> Self {
        self.effect = Effect::Nothing(why);
        self
    }

    const fn refused(mut self, why: &'static str) -> Self {
        self.effect = Effect::Refused(why);
        self
    }

    fn name(&self) -> &'static str {
        if self.flag.is_empty() { self.key } else { self.flag }
    }
}

const NO_CONTAINERD: &str = "Corten needs no containerd";
const NO_IPV6: &str = "the default bridge has no IPv6 yet";
const OWN_TABLE: &str = "rules are set by netlink in an nftables table of Corten's own";
const NO_SWARM: &str = "there is no swarm mode yet";

const SETTINGS: &[Setting] = &[
    setting("add-runtime", None, "runtimes", Kind::Runtimes, "Register an additional OCI compatible runtime")
        .live(),
    setting(
        "allow-direct-routing",
        None,
        "allow-direct-routing",
        Kind::Switch,
        "Allow remote access to published ports on container IP addresses",
    )
    .nothing("direct access to unpublished ports is never blocked beyond the bridge's own rules"),
    setting(
        "authorization-plugin",
        None,
        "authorization-plugins",
        Kind::List,
        "Authorization plugins to load",
    )
    .live(),
    setting("bip", None, "bip", Kind::Text, "IPv4 address for the default bridge"),
    setting("bip6", None, "bip6", Kind::Text, "IPv6 address for the default bridge").nothing(NO_IPV6),
    setting("bridge", Some('b'), "bridge", Kind::Text, "Name of the default bridge; \"none\" for no bridge"),
    setting(
        "bridge-accept-fwmark",
        None,
        "bridge-accept-fwmark",
        Kind::Text,
        "In bridge networks, accept packets with this firewall mark/mask",
    )
    .nothing("packets with a firewall mark are treated as all others"),
    setting("cdi-spec-dir", None, "cdi-spec-dirs", Kind::List, "CDI specification directories to use"),
    setting(
        "certs-dir",
        None,
        "certs-dir",
        Kind::List,
        "Folder with a folder for each registry's certificates",
    ),
    setting("cgroup-parent", None, "cgroup-parent", Kind::Text, "Set parent cgroup for all containers"),
    setting("config-file", None, "", Kind::Text, "Daemon configuration file"),
    setting("containerd", None, "containerd", Kind::Text, "containerd grpc address").nothing(NO_CONTAINERD),
    setting("containerd-namespace", None, "containerd-namespace", Kind::Text, "Containerd namespace to use")
        .nothing(NO_CONTAINERD),
    setting(
        "containerd-plugins-namespace",
        None,
        "containerd-plugin-namespace",
        Kind::Text,
        "Containerd namespace to use for plugins",
    )
    .nothing(NO_CONTAINERD),
    setting(
        "cpu-rt-period",
        None,
        "cpu-rt-period",
        Kind::Number,
        "Limit the CPU real-time period in microseconds for the parent cgroup for all containers",
    )
    .nothing("kernels with cgroup v2 have no real-time group scheduling"),
    setting(
        "cpu-rt-runtime",
        None,
        "cpu-rt-runtime",
        Kind::Number,
        "Limit the CPU real-time runtime in microseconds for the parent cgroup for all containers",
    )
    .nothing("kernels with cgroup v2 have no real-time group scheduling"),
    setting("cri-containerd", None, "cri-containerd", Kind::Switch, "start containerd with cri")
        .nothing(NO_CONTAINERD),
    setting("data-root", None, "data-root", Kind::Text, "Root directory of persistent state"),
    setting("debug", Some('D'), "debug", Kind::Switch, "Enable debug mode").live(),
    setting(
        "default-address-pool",
        None,
        "default-address-pools",
        Kind::Pools,
        "Default address pools for node specific local networks",
    ),
    setting(
        "default-cgroupns-mode",
        None,
        "default-cgroupns-mode",
        Kind::Text,
        "Default mode for containers cgroup namespace (\"host\" | \"private\")",
    )
    .live(),
    setting(
        "default-gateway",
        None,
        "default-gateway",
        Kind::Text,
        "Default gateway IPv4 address for the default bridge network",
    )
    .nothing("the bridge itself is the gateway"),
    setting(
        "default-gateway-v6",
        None,
        "default-gateway-v6",
        Kind::Text,
        "Default gateway IPv6 address for the default bridge network",
    )
    .nothing(NO_IPV6),
    setting(
        "default-ipc-mode",
        None,
        "default-ipc-mode",
        Kind::Text,
        "Default mode for containers ipc (\"shareable\" | \"private\")",
    )
    .live(),
    setting(
        "default-network-opt",
        None,
        "default-network-opts",
        Kind::NetworkOptions,
        "Default network options",
    ),
    setting("default-runtime", None, "default-runtime", Kind::Text, "Default OCI runtime for containers")
        .live(),
    setting("default-shm-size", None, "default-shm-size", Kind::Text, "Default shm size for containers")
        .live(),
    setting(
        "default-stop-timeout",
        None,
        "default-stop-timeout",
        Kind::Number,
        "Default time to wait for a container to stop, in seconds",
    )
    .live(),
    setting("default-ulimit", None, "default-ulimits", Kind::Ulimits, "Default ulimits for containers")
        .live(),
    setting("dns", None, "dns", Kind::List, "DNS server to use"),
    setting("dns-opt", None, "dns-opts", Kind::List, "DNS options to use"),
    setting("dns-search", None, "dns-search", Kind::List, "DNS search domains to use"),
    setting("exec-opt", None, "exec-opts", Kind::List, "Runtime execution options"),
    setting("exec-root", None, "exec-root", Kind::Text, "Root directory for execution state files"),
    setting("experimental", None, "experimental", Kind::Switch, "Enable experimental features"),
    setting("feature", None, "features", Kind::Switches, "Enable feature in the daemon").live(),
    setting(
        "firewall-backend",
        None,
        "firewall-backend",
        Kind::Text,
        "Firewall backend to use, iptables or nftables",
    ),
    setting("fixed-cidr", None, "fixed-cidr", Kind::Text, "IPv4 subnet for the default bridge network"),
    setting("fixed-cidr-v6", None, "fixed-cidr-v6", Kind::Text, "IPv6 subnet for the default bridge network")
        .nothing(NO_IPV6),
    setting("group", Some('G'), "group", Kind::Text, "Group for the unix socket"),
    setting("help", Some('h'), "", Kind::Switch, "Print usage"),
    setting("host", Some('H'), "hosts", Kind::List, "Daemon socket(s) to connect to"),
    setting(
        "host-gateway-ip",
        None,
        "host-gateway-ips",
        Kind::List,
        "IP addresses that the special 'host-gateway' string in --add-host resolves to",
    ),
    setting("http-proxy", None, "", Kind::Text, "HTTP proxy URL to use for outgoing traffic"),
    setting("https-proxy", None, "", Kind::Text, "HTTPS proxy URL to use for outgoing traffic"),
    setting(
        "icc",
        None,
        "icc",
        Kind::Switch,
        "Enable inter-container communication for the default bridge network",
    ),
    setting(
        "init",
        None,
        "init",
        Kind::Switch,
        "Run an init in the container to forward signals and reap processes",
    ),
    setting("init-path", None, "init-path", Kind::Text, "Path to the docker-init binary"),
    setting(
        "insecure-registry",
        None,
        "insecure-registries",
        Kind::List,
        "Enable insecure registry communication",
    )
    .live(),
    setting("ip", None, "ip", Kind::Text, "Host IP for port publishing from the default bridge network"),
    setting("ip-forward", None, "ip-forward", Kind::Switch, "Enable IP forwarding in system configuration"),
    setting(
        "ip-forward-no-drop",
        None,
        "ip-forward-no-drop",
        Kind::Switch,
        "Do not set the filter-FORWARD policy to DROP when enabling IP forwarding",
    )
    .nothing("Corten never sets a policy of a chain that is not its own"),
    setting(
        "ip-masq",
        None,
        "ip-masq",
        Kind::Switch,
        "Enable IP masquerading for the default bridge network",
    ),
    setting("ip6tables", None, "ip6tables", Kind::Switch, "Enable addition of ip6tables rules")
        .nothing(OWN_TABLE),
    setting("iptables", None, "iptables", Kind::Switch, "Enable addition of iptables rules")
        .nothing(OWN_TABLE),
    setting("ipv6", None, "ipv6", Kind::Switch, "Enable IPv6 networking for the default bridge network")
        .nothing(NO_IPV6),
    setting("label", None, "labels", Kind::List, "Set key=value labels to the daemon").live(),
    setting(
        "live-restore",
        None,
        "live-restore",
        Kind::Switch,
        "Enable live restore of docker when containers are still running",
    )
    .live(),
    setting("log-driver", None, "log-driver", Kind::Text, "Default driver for container logs"),
    setting("log-format", None, "log-format", Kind::Text, "Set the logging format (\"text\"|\"json\")"),
    setting(
        "log-level",
        Some('l'),
        "log-level",
        Kind::Text,
        "Set the logging level (\"debug\"|\"info\"|\"warn\"|\"error\"|\"fatal\")",
    )
    .live(),
    setting("log-opt", None, "log-opts", Kind::Map, "Default log driver options for containers"),
    setting(
        "max-concurrent-downloads",
        None,
        "max-concurrent-downloads",
        Kind::Number,
        "Set the max concurrent downloads",
    )
    .live(),
    setting(
        "max-concurrent-uploads",
        None,
        "max-concurrent-uploads",
        Kind::Number,
        "Set the max concurrent uploads",
    )
    .live(),
    setting(
        "max-download-attempts",
        None,
        "max-download-attempts",
        Kind::Number,
        "Set the max download attempts for each pull",
    )
    .live(),
    setting(
        "metrics-addr",
        None,
        "metrics-addr",
        Kind::Text,
        "Set default address and port to serve the metrics api on",
    ),
    setting("mtu", None, "mtu", Kind::Number, "Set the MTU for the default \"bridge\" network"),
    setting(
        "network-control-plane-mtu",
        None,
        "network-control-plane-mtu",
        Kind::Number,
        "Network Control plane MTU",
    )
    .nothing(NO_SWARM),
    setting(
        "network-diagnostic-port",
        None,
        "network-diagnostic-port",
        Kind::Number,
        "TCP port number of the network diagnostic server",
    )
    .live()
    .hidden()
    .nothing(NO_SWARM),
    setting(
        "no-new-privileges",
        None,
        "no-new-privileges",
        Kind::Switch,
        "Set no-new-privileges by default for new containers",
    )
    .live(),
    setting(
        "no-proxy",
        None,
        "",
        Kind::Text,
        "Comma-separated list of hosts or IP addresses for which the proxy is skipped",
    ),
    setting(
        "node-generic-resource",
        None,
        "node-generic-resources",
        Kind::List,
        "Advertise user-defined resource",
    )
    .live()
    .nothing(NO_SWARM),
    setting("nri-opt", None, "nri-opts", Kind::Map, "Node Resource Interface configuration")
        .live()
        .nothing("NRI plugins are not supported"),
    setting("pidfile", Some('p'), "pidfile", Kind::Text, "Path to use for daemon PID file"),
    setting("raw-logs", None, "raw-logs", Kind::Switch, "Full timestamps without ANSI coloring")
        .nothing("the log never has colours, and always full timestamps"),
    setting("registry-mirror", None, "registry-mirrors", Kind::List, "Preferred registry mirror").live(),
    setting(
        "rootless",
        None,
        "rootless",
        Kind::Switch,
        "Enable rootless mode; typically used with RootlessKit",
    )
    .refused("running without root privileges is not supported yet"),
    setting("search-index", None, "search-index", Kind::Text, "Address that images are searched at"),
    setting(
        "seccomp-profile",
        None,
        "seccomp-profile",
        Kind::Text,
        "Path to seccomp profile. Set to \"unconfined\" to disable the default seccomp profile",
    )
    .live(),
    setting("selinux-enabled", None, "selinux-enabled", Kind::Switch, "Enable selinux support"),
    setting("shim", None, "", Kind::Text, "The shim program; beside this one by default"),
    setting(
        "shutdown-timeout",
        None,
        "shutdown-timeout",
        Kind::Number,
        "Set the default shutdown timeout, in seconds",
    )
    .live(),
    setting("storage-driver", Some('s'), "storage-driver", Kind::Text, "Storage driver to use"),
    setting("storage-opt", None, "storage-opts", Kind::List, "Storage driver options"),
    setting(
        "swarm-default-advertise-addr",
        None,
        "swarm-default-advertise-addr",
        Kind::Text,
        "Set default address or interface for swarm advertised address",
    )
    .nothing(NO_SWARM),
    setting(
        "swarm-raft-election-tick",
        None,
        "swarm-raft-election-tick",
        Kind::Number,
        "Number of raft ticks before an election",
    )
    .hidden()
    .nothing(NO_SWARM),
    setting(
        "swarm-raft-heartbeat-tick",
        None,
        "swarm-raft-heartbeat-tick",
        Kind::Number,
        "Number of raft ticks between heartbeats",
    )
    .hidden()
    .nothing(NO_SWARM),
    setting("tls", None, "tls", Kind::Switch, "Use TLS; implied by --tlsverify"),
    setting("tlscacert", None, "tlscacert", Kind::Text, "Trust certs signed only by this CA"),
    setting("tlscert", None, "tlscert", Kind::Text, "Path to TLS certificate file"),
    setting("tlskey", None, "tlskey", Kind::Text, "Path to TLS key file"),
    setting("tlsverify", None, "tlsverify", Kind::Switch, "Use TLS and verify the remote"),
    setting(
        "userland-proxy",
        None,
        "userland-proxy",
        Kind::Switch,
        "Use userland proxy for loopback traffic",
    )
    .nothing("published ports are served by the kernel, also on loopback"),
    setting(
        "userland-proxy-path",
        None,
        "userland-proxy-path",
        Kind::Text,
        "Path to the userland proxy binary",
    )
    .nothing("published ports are served by the kernel, also on loopback"),
    setting("userns-remap", None, "userns-remap", Kind::Text, "User/Group setting for user namespaces"),
    setting("validate", None, "", Kind::Switch, "Validate daemon configuration and exit"),
    setting("version", Some('v'), "", Kind::Switch, "Print version information and quit"),
    // Only in the file, as with Docker.
    setting("", None, "builder", Kind::Object, "")
        .nothing("the build cache is kept as long as its images; the classic builder has no other"),
    setting("", None, "default-init", Kind::Text, ""),
    setting("", None, "min-api-version", Kind::Text, ""),
    setting("", None, "proxies", Kind::Map, ""),
    setting("", None, "resolv-conf", Kind::Text, "").nothing("the host's own resolv.conf is read"),
    // Gone from Docker too, and left over in files.
    setting("", None, "allow-nondistributable-artifacts", Kind::List, "").nothing("it was removed"),
    setting("", None, "deprecated-key-path", Kind::Text, "").nothing("it was removed"),
    setting("", None, "oom-score-adjust", Kind::Number, "").nothing("it was removed"),
];

/// The settings as they were given, by flag or key, in the shape of the file.
type Given = BTreeMap<&'static str, Value>;

/// Everything that the daemon is told, with defaults.
#[derive(Debug, Clone, Default)]
pub struct Config {
    given: Given,
    /// What came by flag, which the file may not repeat.
    flags: Given,
    path: PathBuf,
    /// The file was asked for, so it must be there.
    explicit: bool,
}

/// What the command line asks for.
pub enum Invocation {
    Run(Box<Config>),
    Validate,
    Help(String),
    Version,
}

/// Reads flags and file. `program` is the name that the daemon was called by: as `dockerd` it reads Docker's file.
pub fn read(program: &str, arguments: &[String]) -> Result<Invocation> {
    let flags = flags::parse(arguments)?;
    let on = |name: &str| flags.get(name).is_some_and(|value| value == &Value::Bool(true));
    if on("help") {
        return Ok(Invocation::Help(flags::help(program)));
    }
    if on("version") {
        return Ok(Invocation::Version);
    }
    let explicit = flags.get("config-file").and_then(Value::as_str).map(PathBuf::from);
    let standard = match program {
        "dockerd" => "/etc/docker/daemon.json",
        _ => "/etc/corten/daemon.json",
    };
    let empty = Config {
        given: Given::new(),
        path: explicit.clone().unwrap_or_else(|| standard.into()),
        explicit: explicit.is_some(),
        flags,
    };
    let validate = empty.flags.get("validate") == Some(&Value::Bool(true));
    let config = empty.read_again()?;
    Ok(if validate { Invocation::Validate } else { Invocation::Run(Box::new(config)) })
}

impl Config {
    /// Reads the file anew, with the same flags. The whole of it is checked: an error changes nothing.
    pub fn read_again(&self) -> Result<Config> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.explicit => String::new(),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("unable to read the configuration file {}", self.path.display())
                });
            }
        };
        self.with_file(&text).with_context(|| {
            format!("unable to configure the Docker daemon with file {}", self.path.display())
        })
    }

    fn with_file(&self, text: &str) -> Result<Config> {
        let file = file::parse(text)?;
        let mut given = self.flags.clone();
        let mut twice = Vec::new();
        for (name, (value, line)) in file {
            match (given.get_mut(name), value) {
                // The one that both may add to.
                (Some(Value::Object(own)), Value::Object(more)) if name == "add-runtime" => {
                    for (key, value) in more {
                        own.entry(key).or_insert(value);
                    }
                }
                (Some(own), value) => {
                    twice.push(format!("{name}: (from flag: {own}, from file: {value}, line {line})"));
                }
                (None, value) => drop(given.insert(name, value)),
            }
        }
        if !twice.is_empty() {
            bail!(
                "the following directives are specified both as a flag and in the configuration file: {}",
                twice.join(", ")
            );
        }
        let config = Config { given, ..self.clone() };
        check::check(&config)?;
        Ok(config)
    }

    /// What was given and changes nothing, with the reasons, for the log.
    pub fn ineffective(&self) -> Vec<(&'static str, &'static str)> {
        SETTINGS
            .iter()
            .filter_map(|setting| match setting.effect {
                Effect::Nothing(why) if self.given.contains_key(setting.name()) => {
                    Some((setting.name(), why))
                }
                _ => None,
            })
            .collect()
    }

    /// The settings that differ in `newer`: those that count at once, and those that need a new start.
    pub fn differences(&self, newer: &Config) -> (Vec<&'static str>, Vec<&'static str>) {
        let names: BTreeSet<&'static str> = self.given.keys().chain(newer.given.keys()).copied().collect();
        let changed = names.into_iter().filter(|name| self.given.get(name) != newer.given.get(name));
        changed.partition(|name| SETTINGS.iter().any(|setting| setting.name() == *name && setting.live))
    }

    /// These settings as they are in `newer`, everything else as it is here.
    pub fn taking(&self, names: &[&'static str], newer: &Config) -> Config {
        let mut given = self.given.clone();
        for name in names {
            match newer.given.get(name) {
                Some(value) => drop(given.insert(name, value.clone())),
                None => drop(given.remove(name)),
            }
        }
        Config { given, ..self.clone() }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.given.get(name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str().filter(|text| !text.is_empty())
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        let list = self.value(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|one| one.as_str().map(String::from)).collect()
    }

    pub fn on(&self, name: &str) -> bool {
        self.on_or(name, false)
    }

    pub fn on_or(&self, name: &str, default: bool) -> bool {
        self.value(name).and_then(Value::as_bool).unwrap_or(default)
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.value(name)?.as_i64()
    }

    fn object(&self, name: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.value(name).and_then(Value::as_object).into_iter().flat_map(Map::iter)
    }

    pub fn map(&self, name: &str) -> BTreeMap<String, String> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        self.object(name).map(|(key, value)| (key.clone(), text(value))).collect()
    }

    /// A map of switches.
    pub fn switches(&self, name: &str) -> BTreeMap<String, bool> {
        self.object(name).filter_map(|(key, value)| Some((key.clone(), value.as_bool()?))).collect()
    }
}

#[cfg(test)]
mod tests;
