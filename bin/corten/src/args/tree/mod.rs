//! The tree of commands.

use crate::args::Kind::{Bool, List, Str};
use crate::args::{BLANK, Command, Completes, Count, Flag, Section, flag};
use crate::commands::Verb;

mod buildx;
mod container;
mod context;
mod create_flags;
mod image;
mod network;
mod registry;
mod system;
mod volume;

/// How `--format` is described where the output is no table.
pub const FORMAT_HELP: &str = "Format output using a custom template:\n\
    'json':             Print in JSON format\n\
    'TEMPLATE':         Print output using the given Go template.\n\
    Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";
/// How `--format` is described where the output is a table.
pub const FORMAT_TABLE_HELP: &str = "Format output using a custom template:\n\
    'table':            Print output in table format with column headers (default)\n\
    'table TEMPLATE':   Print output in table format using the given Go template\n\
    'json':             Print in JSON format\n\
    'TEMPLATE':         Print output using the given Go template.\n\
    Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

const INSPECT_FLAGS: &[Flag] = &[
    flag("format", Str, FORMAT_HELP).short('f'),
    flag("size", Bool, "Display total file sizes if the type is container").short('s'),
    flag("type", Str, "Only inspect objects of the given type"),
];

pub const INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    short: "Return low-level information on Docker objects",
    flags: &[INSPECT_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::Inspect),
    section: Section::Plain,
    completes: Completes::Containers,
    ..BLANK
};

const VERSION_FLAGS: &[Flag] = &[flag("format", Str, FORMAT_HELP).short('f')];

pub const VERSION: Command = Command {
    name: "version",
    usage: "[OPTIONS]",
    short: "Show the Docker version information",
    flags: &[VERSION_FLAGS],
    verb: Some(Verb::Version),
    section: Section::Common,
    ..BLANK
};

const GLOBAL_FLAGS: &[Flag] = &[
    flag("config", Str, "Location of client config files").default("{config}"),
    flag("context", Str, "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with \"docker context use\")").short('c'),
    flag("debug", Bool, "Enable debug mode").short('D'),
    flag("host", List("list"), "Daemon socket to connect to").short('H'),
    flag("log-level", Str, "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")").short('l').default("info"),
    flag("tls", Bool, "Use TLS; implied by --tlsverify"),
    flag("tlscacert", Str, "Trust certs signed only by this CA").default("{config}/ca.pem"),
    flag("tlscert", Str, "Path to TLS certificate file").default("{config}/cert.pem"),
    flag("tlskey", Str, "Path to TLS key file").default("{config}/key.pem"),
    flag("tlsverify", Bool, "Use TLS and verify the remote"),
    flag("version", Bool, "Print version information and quit").short('v'),
    flag("no-autostart", Bool, "Do not start a daemon if none answers").hidden(),
];

pub static ROOT: Command = Command {
    short: "A self-sufficient runtime for containers",
    flags: &[GLOBAL_FLAGS],
    count: Count::Any,
    interspersed: false,
    subs: &[
        &container::TOP_RUN,
        &container::TOP_EXEC,
        &container::TOP_LS,
        &image::TOP_BUILD,
        &image::TOP_PULL,
        &image::TOP_PUSH,
        &image::TOP_LS,
        &registry::LOGIN,
        &registry::LOGOUT,
        &registry::SEARCH,
        &VERSION,
        &system::TOP_INFO,
        &image::BUILDER,
        &buildx::GROUP,
        &container::GROUP,
        &context::GROUP,
        &image::GROUP,
        &registry::MANIFEST,
        &network::GROUP,
        &system::GROUP,
        &volume::GROUP,
        &container::TOP_ATTACH,
        &container::TOP_COMMIT,
        &container::TOP_CP,
        &container::TOP_CREATE,
        &container::TOP_DIFF,
        &system::TOP_EVENTS,
        &container::TOP_EXPORT,
        &image::TOP_HISTORY,
        &image::TOP_IMPORT,
        &INSPECT,
        &container::TOP_KILL,
        &image::TOP_LOAD,
        &container::TOP_LOGS,
        &container::TOP_PAUSE,
        &container::TOP_PORT,
        &container::TOP_RENAME,
        &container::TOP_RESTART,
        &container::TOP_RM,
        &image::TOP_RM,
        &image::TOP_SAVE,
        &container::TOP_START,
        &container::TOP_STATS,
        &container::TOP_STOP,
        &image::TOP_TAG,
        &container::TOP_TOP,
        &container::TOP_UNPAUSE,
        &container::TOP_UPDATE,
        &container::TOP_WAIT,
        &COMPLETION,
    ],
    ..BLANK
};

const COMPLETION_FLAGS: &[Flag] = &[flag("no-descriptions", Bool, "disable completion descriptions")];

const fn completion(name: &'static str, short: &'static str, verb: Verb) -> Command {
    Command { name, short, flags: &[COMPLETION_FLAGS], verb: Some(verb), ..BLANK }
}

/// Not shown in the list of commands, as in Docker.
const COMPLETION: Command = Command {
    name: "completion",
    short: "Generate the autocompletion script for the specified shell",
    long: "Generate the autocompletion script for {program} for the specified shell.\n\
        See each sub-command's help for details on how to use the generated script.",
    count: Count::Any,
    subs: &[
        &completion("bash", "Generate the autocompletion script for bash", Verb::CompletionBash),
        &completion("fish", "Generate the autocompletion script for fish", Verb::CompletionFish),
        &completion("zsh", "Generate the autocompletion script for zsh", Verb::CompletionZsh),
    ],
    section: Section::Hidden,
    ..BLANK
};
