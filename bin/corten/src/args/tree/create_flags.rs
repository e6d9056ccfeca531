//! The flags of `run` and `create`.

use crate::args::Kind::{Bool, Bytes, Decimal, Duration, Int, List, Map, Str, SwapBytes, Uint, Uint16};
use crate::args::check;
use crate::args::{Flag, flag};

/// What `run` and `create` share.
pub const COMMON: &[Flag] = &[
    flag("help", Bool, "Print usage"),
    flag("add-host", List("list"), "Add a custom host-to-IP mapping (host:ip)").check(check::extra_host),
    flag("annotation", Map, "Add an annotation to the container (passed through to the OCI runtime)")
        .default("map[]"),
    flag("attach", List("list"), "Attach to STDIN, STDOUT or STDERR").short('a').check(check::stream),
    flag("blkio-weight", Uint16, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
        .default("0"),
    flag("blkio-weight-device", List("list"), "Block IO weight (relative device weight)")
        .default("[]")
        .check(check::weight_device),
    flag("cap-add", List("list"), "Add Linux capabilities"),
    flag("cap-drop", List("list"), "Drop Linux capabilities"),
    flag("cgroup-parent", Str, "Optional parent cgroup for the container"),
    flag(
        "cgroupns",
        Str,
        "Cgroup namespace to use (host|private)\n'host':    Run the container in the Docker host's cgroup namespace\n'private': Run the container in its own private cgroup namespace\n'':        Use the cgroup namespace as configured by the\n           default-cgroupns-mode option on the daemon (default)",
    ),
    flag("cidfile", Str, "Write the container ID to the file"),
    flag("cpu-count", Int, "CPU count (Windows only)").hidden(),
    flag("cpu-percent", Int, "CPU percent (Windows only)").hidden(),
    flag("cpu-period", Int, "Limit CPU CFS (Completely Fair Scheduler) period"),
    flag("cpu-quota", Int, "Limit CPU CFS (Completely Fair Scheduler) quota"),
    flag("cpu-rt-period", Int, "Limit CPU real-time period in microseconds"),
    flag("cpu-rt-runtime", Int, "Limit CPU real-time runtime in microseconds"),
    flag("cpu-shares", Int, "CPU shares (relative weight)").short('c'),
    flag("cpus", Decimal, "Number of CPUs"),
    flag("cpuset-cpus", Str, "CPUs in which to allow execution (0-3, 0,1)"),
    flag("cpuset-mems", Str, "MEMs in which to allow execution (0-3, 0,1)"),
    flag("device", List("list"), "Add a host device to the container"),
    flag("device-cgroup-rule", List("list"), "Add a rule to the cgroup allowed devices list")
        .check(check::device_rule),
    flag("device-read-bps", List("list"), "Limit read rate (bytes per second) from a device")
        .default("[]")
        .check(check::device_rate),
    flag("device-read-iops", List("list"), "Limit read rate (IO per second) from a device")
        .default("[]")
        .check(check::device_iops),
    flag("device-write-bps", List("list"), "Limit write rate (bytes per second) to a device")
        .default("[]")
        .check(check::device_rate),
    flag("device-write-iops", List("list"), "Limit write rate (IO per second) to a device")
        .default("[]")
        .check(check::device_iops),
    flag("dns", List("list"), "Set custom DNS servers").check(check::ip),
    flag("dns-option", List("list"), "Set DNS options"),
    flag("dns-search", List("list"), "Set custom DNS search domains").check(check::domain),
    flag("domainname", Str, "Container NIS domain name"),
    flag("entrypoint", Str, "Overwrite the default ENTRYPOINT of the image"),
    flag("env", List("list"), "Set environment variables").short('e').check(check::env),
    flag("env-file", List("list"), "Read in a file of environment variables"),
    flag("expose", List("list"), "Expose a port or a range of ports"),
    flag("gpus", List("gpu-request"), "GPU devices to add to the container ('all' to pass all GPUs)")
        .check(check::gpus),
    flag("group-add", List("list"), "Add additional groups to join"),
    flag("health-cmd", Str, "Command to run to check health"),
    flag("health-interval", Duration, "Time between running the check (ms|s|m|h)").default("0s"),
    flag("health-retries", Int, "Consecutive failures needed to report unhealthy"),
    flag(
        "health-start-interval",
        Duration,
        "Time between running the check during the start period (ms|s|m|h)",
    )
    .default("0s"),
    flag(
        "health-start-period",
        Duration,
        "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h)",
    )
    .default("0s"),
    flag("health-timeout", Duration, "Maximum time to allow one check to run (ms|s|m|h)").default("0s"),
    flag("hostname", Str, "Container host name").short('h'),
    flag("init", Bool, "Run an init inside the container that forwards signals and reaps processes"),
    flag("interactive", Bool, "Keep STDIN open even if not attached").short('i'),
    flag("io-maxbandwidth", Bytes, "Maximum IO bandwidth limit for the system drive (Windows only)").hidden(),
    flag("io-maxiops", Uint, "Maximum IOps limit for the system drive (Windows only)").hidden(),
    flag("ip", Str, "IPv4 address (e.g., 172.30.100.104)"),
    flag("ip6", Str, "IPv6 address (e.g., 2001:db8::33)"),
    flag("ipc", Str, "IPC mode to use"),
    flag("isolation", Str, "Container isolation technology"),
    flag("kernel-memory", Bytes, "Kernel memory limit"),
    flag("label", List("list"), "Set meta data on a container").short('l').check(check::label),
    flag("label-file", List("list"), "Read in a line delimited file of labels"),
    flag("link", List("list"), "Add link to another container").check(check::link),
    flag("link-local-ip", List("list"), "Container IPv4/IPv6 link-local addresses").check(check::ip),
    flag("log-driver", Str, "Logging driver for the container"),
    flag("log-opt", List("list"), "Log driver options"),
    flag("mac-address", Str, "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    flag("memory", Bytes, "Memory limit").short('m'),
    flag("memory-reservation", Bytes, "Memory soft limit"),
    flag("memory-swap", SwapBytes, "Swap limit equal to memory plus swap: '-1' to enable unlimited swap"),
    flag("memory-swappiness", Int, "Tune container memory swappiness (0 to 100)").default("-1"),
    flag("mount", List("mount"), "Attach a filesystem mount to the container").check(check::mount),
    flag("name", Str, "Assign a name to the container"),
    flag("network", List("network"), "Connect a container to a network").check(check::network),
    flag("network-alias", List("list"), "Add network-scoped alias for the container"),
    flag("no-healthcheck", Bool, "Disable any container-specified HEALTHCHECK"),
    flag("oom-kill-disable", Bool, "Disable OOM Killer"),
    flag("oom-score-adj", Int, "Tune host's OOM preferences (-1000 to 1000)"),
    flag("pid", Str, "PID namespace to use"),
    flag("pids-limit", Int, "Tune container pids limit (set -1 for unlimited)"),
    flag("platform", Str, "Set platform if server is multi-platform capable"),
    flag("privileged", Bool, "Give extended privileges to this container"),
    flag("publish", List("list"), "Publish a container's port(s) to the host").short('p'),
    flag("publish-all", Bool, "Publish all exposed ports to random ports").short('P'),
    flag("quiet", Bool, "Suppress the pull output").short('q'),
    flag("read-only", Bool, "Mount the container's root filesystem as read only"),
    flag("restart", Str, "Restart policy to apply when a container exits").default("no"),
    flag("rm", Bool, "Automatically remove the container and its associated anonymous volumes when it exits"),
    flag("runtime", Str, "Runtime to use for this container"),
    flag("security-opt", List("list"), "Security Options"),
    flag("shm-size", Bytes, "Size of /dev/shm"),
    flag("stop-signal", Str, "Signal to stop the container"),
    flag("stop-timeout", Int, "Timeout (in seconds) to stop a container"),
    flag("storage-opt", List("list"), "Storage driver options for the container"),
    flag("sysctl", Map, "Sysctl options").default("map[]").check(check::sysctl),
    flag("tmpfs", List("list"), "Mount a tmpfs directory"),
    flag("tty", Bool, "Allocate a pseudo-TTY").short('t'),
    flag("ulimit", List("ulimit"), "Ulimit options").default("[]").check(check::ulimit),
    flag("use-api-socket", Bool, "Bind mount Docker API socket and required auth"),
    flag("user", Str, "Username or UID (format: <name|uid>[:<group|gid>])").short('u'),
    flag("userns", Str, "User namespace to use"),
    flag("uts", Str, "UTS namespace to use"),
    flag("volume", List("list"), "Bind mount a volume").short('v'),
    flag("volume-driver", Str, "Optional volume driver for the container"),
    flag("volumes-from", List("list"), "Mount volumes from the specified container(s)"),
    flag("workdir", Str, "Working directory inside the container").short('w'),
    flag("net", List("network"), "").check(check::network).hidden(),
    flag("net-alias", List("list"), "").hidden(),
    flag("dns-opt", List("list"), "").hidden(),
    flag("disable-content-trust", Bool, "Skip image verification").default("true"),
];

/// What only `run` has.
pub const RUN_ONLY: &[Flag] = &[
    flag("detach", Bool, "Run container in background and print container ID").short('d'),
    flag("detach-keys", Str, "Override the key sequence for detaching a container"),
    flag("pull", Str, "Pull image before running (\"always\", \"missing\", \"never\")").default("missing"),
    flag("sig-proxy", Bool, "Proxy received signals to the process").default("true"),
];

/// What only `create` has.
pub const CREATE_ONLY: &[Flag] =
    &[flag("pull", Str, "Pull image before creating (\"always\", \"|missing\", \"never\")")
        .default("missing")];
