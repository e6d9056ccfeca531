//! `container` and the commands that go without it.

use crate::args::Kind::{Bool, Bytes, Decimal, Int, List, Str, SwapBytes, Uint16};
use crate::args::check;
use crate::args::{
    BLANK, Command, Completes, Count, Flag, Section, flag, tree::FORMAT_HELP, tree::FORMAT_TABLE_HELP,
};
use crate::commands::Verb;

const ATTACH_FLAGS: &[Flag] = &[
    flag("detach-keys", Str, "Override the key sequence for detaching a container"),
    flag("no-stdin", Bool, "Do not attach STDIN"),
    flag("sig-proxy", Bool, "Proxy all received signals to the process").default("true"),
];

pub const ATTACH: Command = Command {
    name: "attach",
    usage: "[OPTIONS] CONTAINER",
    short: "Attach local standard input, output, and error streams to a running container",
    paths: "container attach, attach",
    flags: &[ATTACH_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::Attach),
    completes: Completes::RunningContainers,
    ..BLANK
};

pub const TOP_ATTACH: Command = Command { section: Section::Plain, ..ATTACH };

const COMMIT_FLAGS: &[Flag] = &[
    flag("author", Str, "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")").short('a'),
    flag("change", List("list"), "Apply Dockerfile instruction to the created image").short('c'),
    flag("message", Str, "Commit message").short('m'),
    flag("pause", Bool, "Pause container during commit").short('p').default("true"),
    flag("no-pause", Bool, "").hidden(),
];

pub const COMMIT: Command = Command {
    name: "commit",
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    short: "Create a new image from a container's changes",
    paths: "container commit, commit",
    flags: &[COMMIT_FLAGS],
    count: Count::Between(1, 2),
    verb: Some(Verb::Commit),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_COMMIT: Command = Command { section: Section::Plain, ..COMMIT };

const CP_FLAGS: &[Flag] = &[
    flag("archive", Bool, "Archive mode (copy all uid/gid information)").short('a'),
    flag("follow-link", Bool, "Always follow symlinks in SRC_PATH").short('L'),
    flag(
        "quiet",
        Bool,
        "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached",
    )
    .short('q'),
];

pub const CP: Command = Command {
    name: "cp",
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    short: "Copy files/folders between a container and the local filesystem",
    long: "Copy files/folders between a container and the local filesystem\n\nUse '-' as the source to read a tar archive \
           from stdin\nand extract it to a directory destination in a container.\nUse '-' as the destination to stream \
           a tar archive of a\ncontainer source to stdout.",
    paths: "container cp, cp",
    flags: &[CP_FLAGS],
    count: Count::Exactly(2),
    verb: Some(Verb::Cp),
    completes: Completes::Files,
    ..BLANK
};

pub const TOP_CP: Command = Command { section: Section::Plain, ..CP };

pub const CREATE: Command = Command {
    name: "create",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    short: "Create a new container",
    paths: "container create, create",
    flags: &[super::create_flags::COMMON, super::create_flags::CREATE_ONLY],
    count: Count::AtLeast(1),
    interspersed: false,
    verb: Some(Verb::Create),
    completes: Completes::Images,
    ..BLANK
};

pub const TOP_CREATE: Command = Command { section: Section::Plain, ..CREATE };

pub const DIFF: Command = Command {
    name: "diff",
    usage: "CONTAINER",
    short: "Inspect changes to files or directories on a container's filesystem",
    paths: "container diff, diff",
    count: Count::Exactly(1),
    verb: Some(Verb::Diff),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_DIFF: Command = Command { section: Section::Plain, ..DIFF };

const EXEC_FLAGS: &[Flag] = &[
    flag("detach", Bool, "Detached mode: run command in the background").short('d'),
    flag("detach-keys", Str, "Override the key sequence for detaching a container"),
    flag("env", List("list"), "Set environment variables").short('e').check(check::env),
    flag("env-file", List("list"), "Read in a file of environment variables"),
    flag("interactive", Bool, "Keep STDIN open even if not attached").short('i'),
    flag("privileged", Bool, "Give extended privileges to the command"),
    flag("tty", Bool, "Allocate a pseudo-TTY").short('t'),
    flag("user", Str, "Username or UID (format: \"<name|uid>[:<group|gid>]\")").short('u'),
    flag("workdir", Str, "Working directory inside the container").short('w'),
];

pub const EXEC: Command = Command {
    name: "exec",
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    short: "Execute a command in a running container",
    paths: "container exec, exec",
    flags: &[EXEC_FLAGS],
    count: Count::AtLeast(2),
    interspersed: false,
    verb: Some(Verb::Exec),
    completes: Completes::RunningContainers,
    ..BLANK
};

pub const TOP_EXEC: Command = Command { section: Section::Common, ..EXEC };

const EXPORT_FLAGS: &[Flag] = &[flag("output", Str, "Write to a file, instead of STDOUT").short('o')];

pub const EXPORT: Command = Command {
    name: "export",
    usage: "[OPTIONS] CONTAINER",
    short: "Export a container's filesystem as a tar archive",
    paths: "container export, export",
    flags: &[EXPORT_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::Export),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_EXPORT: Command = Command { section: Section::Plain, ..EXPORT };

const INSPECT_FLAGS: &[Flag] =
    &[flag("format", Str, FORMAT_HELP).short('f'), flag("size", Bool, "Display total file sizes").short('s')];

pub const INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    short: "Display detailed information on one or more containers",
    flags: &[INSPECT_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::ContainerInspect),
    completes: Completes::Containers,
    ..BLANK
};

const KILL_FLAGS: &[Flag] = &[flag("signal", Str, "Signal to send to the container").short('s')];

pub const KILL: Command = Command {
    name: "kill",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    short: "Kill one or more running containers",
    paths: "container kill, kill",
    flags: &[KILL_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::Kill),
    completes: Completes::RunningContainers,
    ..BLANK
};

pub const TOP_KILL: Command = Command { section: Section::Plain, ..KILL };

const LOGS_FLAGS: &[Flag] = &[
    flag("details", Bool, "Show extra details provided to logs"),
    flag("follow", Bool, "Follow log output").short('f'),
    flag(
        "since",
        Str,
        "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
    ),
    flag("tail", Str, "Number of lines to show from the end of the logs").short('n').default("all"),
    flag("timestamps", Bool, "Show timestamps").short('t'),
    flag(
        "until",
        Str,
        "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
    ),
];

pub const LOGS: Command = Command {
    name: "logs",
    usage: "[OPTIONS] CONTAINER",
    short: "Fetch the logs of a container",
    paths: "container logs, logs",
    flags: &[LOGS_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::Logs),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_LOGS: Command = Command { section: Section::Plain, ..LOGS };

const LS_FLAGS: &[Flag] = &[
    flag("all", Bool, "Show all containers").short('a').default("shows just running"),
    flag("filter", List("filter"), "Filter output based on conditions provided")
        .short('f')
        .check(check::filter),
    flag("format", Str, FORMAT_TABLE_HELP),
    flag("last", Int, "Show n last created containers (includes all states)").short('n').default("-1"),
    flag("latest", Bool, "Show the latest created container (includes all states)").short('l'),
    flag("no-trunc", Bool, "Don't truncate output"),
    flag("quiet", Bool, "Only display container IDs").short('q'),
    flag("size", Bool, "Display total file sizes").short('s'),
];

pub const LS: Command = Command {
    name: "ls",
    aliases: &["list", "ps"],
    usage: "[OPTIONS]",
    short: "List containers",
    paths: "container ls, container list, container ps, ps",
    flags: &[LS_FLAGS],
    verb: Some(Verb::Ps),
    ..BLANK
};

pub const TOP_LS: Command = Command { name: "ps", aliases: &[], section: Section::Common, ..LS };

pub const PAUSE: Command = Command {
    name: "pause",
    usage: "CONTAINER [CONTAINER...]",
    short: "Pause all processes within one or more containers",
    paths: "container pause, pause",
    count: Count::AtLeast(1),
    verb: Some(Verb::Pause),
    completes: Completes::RunningContainers,
    ..BLANK
};

pub const TOP_PAUSE: Command = Command { section: Section::Plain, ..PAUSE };

pub const PORT: Command = Command {
    name: "port",
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    short: "List port mappings or a specific mapping for the container",
    paths: "container port, port",
    count: Count::Between(1, 2),
    verb: Some(Verb::Port),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_PORT: Command = Command { section: Section::Plain, ..PORT };

const PRUNE_FLAGS: &[Flag] = &[
    flag("filter", List("filter"), "Provide filter values (e.g. \"until=<timestamp>\")").check(check::filter),
    flag("force", Bool, "Do not prompt for confirmation").short('f'),
];

pub const PRUNE: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    short: "Remove all stopped containers",
    flags: &[PRUNE_FLAGS],
    verb: Some(Verb::ContainerPrune),
    ..BLANK
};

pub const RENAME: Command = Command {
    name: "rename",
    usage: "CONTAINER NEW_NAME",
    short: "Rename a container",
    paths: "container rename, rename",
    count: Count::Exactly(2),
    verb: Some(Verb::Rename),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_RENAME: Command = Command { section: Section::Plain, ..RENAME };

const RESTART_FLAGS: &[Flag] = &[
    flag("signal", Str, "Signal to send to the container").short('s'),
    flag("timeout", Int, "Seconds to wait before killing the container").short('t'),
    flag("time", Int, "").hidden(),
];

pub const RESTART: Command = Command {
    name: "restart",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    short: "Restart one or more containers",
    paths: "container restart, restart",
    flags: &[RESTART_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::Restart),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_RESTART: Command = Command { section: Section::Plain, ..RESTART };

const RM_FLAGS: &[Flag] = &[
    flag("force", Bool, "Force the removal of a running container (uses SIGKILL)").short('f'),
    flag("link", Bool, "Remove the specified link").short('l'),
    flag("volumes", Bool, "Remove anonymous volumes associated with the container").short('v'),
];

pub const RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    short: "Remove one or more containers",
    paths: "container rm, container remove, rm",
    flags: &[RM_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::Rm),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_RM: Command = Command { aliases: &[], section: Section::Plain, ..RM };

pub const RUN: Command = Command {
    name: "run",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    short: "Create and run a new container from an image",
    paths: "container run, run",
    flags: &[super::create_flags::COMMON, super::create_flags::RUN_ONLY],
    count: Count::AtLeast(1),
    interspersed: false,
    verb: Some(Verb::Run),
    completes: Completes::Images,
    ..BLANK
};

pub const TOP_RUN: Command = Command { section: Section::Common, ..RUN };

const START_FLAGS: &[Flag] = &[
    flag("attach", Bool, "Attach STDOUT/STDERR and forward signals").short('a'),
    flag("checkpoint", Str, "Restore from this checkpoint").hidden(),
    flag("checkpoint-dir", Str, "Use a custom checkpoint storage directory").hidden(),
    flag("detach-keys", Str, "Override the key sequence for detaching a container"),
    flag("interactive", Bool, "Attach container's STDIN").short('i'),
];

pub const START: Command = Command {
    name: "start",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    short: "Start one or more stopped containers",
    paths: "container start, start",
    flags: &[START_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::Start),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_START: Command = Command { section: Section::Plain, ..START };

const STATS_FLAGS: &[Flag] = &[
    flag("all", Bool, "Show all containers (default shows just running)").short('a'),
    flag("format", Str, FORMAT_TABLE_HELP),
    flag("no-stream", Bool, "Disable streaming stats and only pull the first result"),
    flag("no-trunc", Bool, "Do not truncate output"),
];

pub const STATS: Command = Command {
    name: "stats",
    usage: "[OPTIONS] [CONTAINER...]",
    short: "Display a live stream of container(s) resource usage statistics",
    paths: "container stats, stats",
    flags: &[STATS_FLAGS],
    count: Count::Any,
    verb: Some(Verb::Stats),
    completes: Completes::RunningContainers,
    ..BLANK
};

pub const TOP_STATS: Command = Command { section: Section::Plain, ..STATS };

const STOP_FLAGS: &[Flag] = &[
    flag("signal", Str, "Signal to send to the container").short('s'),
    flag("timeout", Int, "Seconds to wait before killing the container").short('t'),
    flag("time", Int, "").hidden(),
];

pub const STOP: Command = Command {
    name: "stop",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    short: "Stop one or more running containers",
    paths: "container stop, stop",
    flags: &[STOP_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::Stop),
    completes: Completes::RunningContainers,
    ..BLANK
};

pub const TOP_STOP: Command = Command { section: Section::Plain, ..STOP };

pub const TOP: Command = Command {
    name: "top",
    usage: "CONTAINER [ps OPTIONS]",
    short: "Display the running processes of a container",
    paths: "container top, top",
    count: Count::AtLeast(1),
    interspersed: false,
    verb: Some(Verb::Top),
    completes: Completes::RunningContainers,
    ..BLANK
};

pub const TOP_TOP: Command = Command { section: Section::Plain, ..TOP };

pub const UNPAUSE: Command = Command {
    name: "unpause",
    usage: "CONTAINER [CONTAINER...]",
    short: "Unpause all processes within one or more containers",
    paths: "container unpause, unpause",
    count: Count::AtLeast(1),
    verb: Some(Verb::Unpause),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_UNPAUSE: Command = Command { section: Section::Plain, ..UNPAUSE };

const UPDATE_FLAGS: &[Flag] = &[
    flag("blkio-weight", Uint16, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
        .default("0"),
    flag("cpu-period", Int, "Limit CPU CFS (Completely Fair Scheduler) period"),
    flag("cpu-quota", Int, "Limit CPU CFS (Completely Fair Scheduler) quota"),
    flag("cpu-rt-period", Int, "Limit the CPU real-time period in microseconds"),
    flag("cpu-rt-runtime", Int, "Limit the CPU real-time runtime in microseconds"),
    flag("cpu-shares", Int, "CPU shares (relative weight)").short('c'),
    flag("cpus", Decimal, "Number of CPUs"),
    flag("cpuset-cpus", Str, "CPUs in which to allow execution (0-3, 0,1)"),
    flag("cpuset-mems", Str, "MEMs in which to allow execution (0-3, 0,1)"),
    flag("memory", Bytes, "Memory limit").short('m'),
    flag("memory-reservation", Bytes, "Memory soft limit"),
    flag("memory-swap", SwapBytes, "Swap limit equal to memory plus swap: -1 to enable unlimited swap"),
    flag("pids-limit", Int, "Tune container pids limit (set -1 for unlimited)"),
    flag("restart", Str, "Restart policy to apply when a container exits"),
    flag("kernel-memory", Bytes, "").hidden(),
];

pub const UPDATE: Command = Command {
    name: "update",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    short: "Update configuration of one or more containers",
    paths: "container update, update",
    flags: &[UPDATE_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::Update),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_UPDATE: Command = Command { section: Section::Plain, ..UPDATE };

pub const WAIT: Command = Command {
    name: "wait",
    usage: "CONTAINER [CONTAINER...]",
    short: "Block until one or more containers stop, then print their exit codes",
    paths: "container wait, wait",
    count: Count::AtLeast(1),
    verb: Some(Verb::Wait),
    completes: Completes::Containers,
    ..BLANK
};

pub const TOP_WAIT: Command = Command { section: Section::Plain, ..WAIT };

pub const GROUP: Command = Command {
    name: "container",
    short: "Manage containers",
    count: Count::Any,
    subs: &[
        &ATTACH, &COMMIT, &CP, &CREATE, &DIFF, &EXEC, &EXPORT, &INSPECT, &KILL, &LOGS, &LS, &PAUSE, &PORT,
        &PRUNE, &RENAME, &RESTART, &RM, &RUN, &START, &STATS, &STOP, &TOP, &UNPAUSE, &UPDATE, &WAIT,
    ],
    section: Section::Management,
    ..BLANK
};
