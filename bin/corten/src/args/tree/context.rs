//! `context`.

use crate::args::Kind::{Bool, List, Str};
use crate::args::{
    BLANK, Command, Completes, Count, Flag, Section, flag, tree::FORMAT_HELP, tree::FORMAT_TABLE_HELP,
};
use crate::commands::Verb;

const CREATE_HELP: &str = "Create a context

Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ {program} context create my-context --description \"some description\" --docker \"host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\"";

const UPDATE_HELP: &str = "Update a context

Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ {program} context update my-context --description \"some description\" --docker \"host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\"";

const ENDPOINT_FLAGS: &[Flag] = &[
    flag("description", Str, "Description of the context"),
    flag("docker", List("stringToString"), "set the docker endpoint").default("[]"),
];

const FROM_FLAGS: &[Flag] = &[flag("from", Str, "create context from a named context")];

const CREATE: Command = Command {
    name: "create",
    usage: "[OPTIONS] CONTEXT",
    short: "Create a context",
    long: CREATE_HELP,
    flags: &[ENDPOINT_FLAGS, FROM_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::ContextCreate),
    ..BLANK
};

const EXPORT: Command = Command {
    name: "export",
    usage: "[OPTIONS] CONTEXT [FILE|-]",
    short: "Export a context to a tar archive FILE or a tar stream on STDOUT.",
    count: Count::Between(1, 2),
    verb: Some(Verb::ContextExport),
    completes: Completes::Contexts,
    ..BLANK
};

const IMPORT: Command = Command {
    name: "import",
    usage: "CONTEXT FILE|-",
    short: "Import a context from a tar or zip file",
    count: Count::Exactly(2),
    verb: Some(Verb::ContextImport),
    completes: Completes::Files,
    ..BLANK
};

const INSPECT_FLAGS: &[Flag] = &[flag("format", Str, FORMAT_HELP).short('f')];

const INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
    short: "Display detailed information on one or more contexts",
    flags: &[INSPECT_FLAGS],
    count: Count::Any,
    verb: Some(Verb::ContextInspect),
    completes: Completes::Contexts,
    ..BLANK
};

const LS_FLAGS: &[Flag] =
    &[flag("format", Str, FORMAT_TABLE_HELP), flag("quiet", Bool, "Only show context names").short('q')];

const LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    usage: "[OPTIONS]",
    short: "List contexts",
    paths: "context ls, context list",
    flags: &[LS_FLAGS],
    verb: Some(Verb::ContextLs),
    ..BLANK
};

const RM_FLAGS: &[Flag] = &[flag("force", Bool, "Force the removal of a context in use").short('f')];

const RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    usage: "CONTEXT [CONTEXT...]",
    short: "Remove one or more contexts",
    paths: "context rm, context remove",
    flags: &[RM_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::ContextRm),
    completes: Completes::Contexts,
    ..BLANK
};

const SHOW: Command = Command {
    name: "show",
    short: "Print the name of the current context",
    verb: Some(Verb::ContextShow),
    ..BLANK
};

const UPDATE: Command = Command {
    name: "update",
    usage: "[OPTIONS] CONTEXT",
    short: "Update a context",
    long: UPDATE_HELP,
    flags: &[ENDPOINT_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::ContextUpdate),
    completes: Completes::Contexts,
    ..BLANK
};

const USE: Command = Command {
    name: "use",
    usage: "CONTEXT",
    short: "Set the current docker context",
    count: Count::Exactly(1),
    verb: Some(Verb::ContextUse),
    completes: Completes::Contexts,
    ..BLANK
};

pub const GROUP: Command = Command {
    name: "context",
    short: "Manage contexts",
    count: Count::Any,
    subs: &[&CREATE, &EXPORT, &IMPORT, &INSPECT, &LS, &RM, &SHOW, &UPDATE, &USE],
    section: Section::Management,
    ..BLANK
};
