//! `system` and the commands that go without it.

use crate::args::Kind::{Bool, List, Str};
use crate::args::check;
use crate::args::{BLANK, Command, Count, Flag, Section, flag, tree::FORMAT_HELP, tree::FORMAT_TABLE_HELP};
use crate::commands::Verb;

const DF_FLAGS: &[Flag] = &[
    flag("format", Str, FORMAT_TABLE_HELP),
    flag("verbose", Bool, "Show detailed information on space usage").short('v'),
];

pub const DF: Command = Command {
    name: "df",
    usage: "[OPTIONS]",
    short: "Show docker disk usage",
    flags: &[DF_FLAGS],
    verb: Some(Verb::Df),
    ..BLANK
};

const EVENTS_FLAGS: &[Flag] = &[
    flag("filter", List("filter"), "Filter output based on conditions provided")
        .short('f')
        .check(check::filter),
    flag("format", Str, FORMAT_HELP),
    flag("since", Str, "Show all events created since timestamp"),
    flag("until", Str, "Stream events until this timestamp"),
];

pub const EVENTS: Command = Command {
    name: "events",
    usage: "[OPTIONS]",
    short: "Get real time events from the server",
    paths: "system events, events",
    flags: &[EVENTS_FLAGS],
    verb: Some(Verb::Events),
    ..BLANK
};

pub const TOP_EVENTS: Command = Command { section: Section::Plain, ..EVENTS };

const INFO_FLAGS: &[Flag] = &[flag("format", Str, FORMAT_HELP).short('f')];

pub const INFO: Command = Command {
    name: "info",
    usage: "[OPTIONS]",
    short: "Display system-wide information",
    paths: "system info, info",
    flags: &[INFO_FLAGS],
    verb: Some(Verb::Info),
    ..BLANK
};

pub const TOP_INFO: Command = Command { section: Section::Common, ..INFO };

const PRUNE_FLAGS: &[Flag] = &[
    flag("all", Bool, "Remove all unused images not just dangling ones").short('a'),
    flag("filter", List("filter"), "Provide filter values (e.g. \"label=<key>=<value>\")")
        .check(check::filter),
    flag("force", Bool, "Do not prompt for confirmation").short('f'),
    flag("volumes", Bool, "Prune anonymous volumes"),
];

pub const PRUNE: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    short: "Remove unused data",
    flags: &[PRUNE_FLAGS],
    verb: Some(Verb::SystemPrune),
    ..BLANK
};

const CHECK_FLAGS: &[Flag] = &[flag(
    "repair",
    Bool,
    "Remove what belongs to nothing, unpack lost layers again, and drop images that cannot be whole",
)];

/// Of our own; Docker has no such command.
const CHECK: Command = Command {
    name: "check",
    usage: "[OPTIONS]",
    short: "Check whether everything in the image store is whole",
    flags: &[CHECK_FLAGS],
    verb: Some(Verb::SystemCheck),
    ..BLANK
};

/// Not shown, as in Docker: it is for programs.
const DIAL: Command = Command {
    name: "dial-stdio",
    short: "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
    verb: Some(Verb::DialStdio),
    section: Section::Hidden,
    ..BLANK
};

pub const GROUP: Command = Command {
    name: "system",
    short: "Manage Docker",
    count: Count::Any,
    subs: &[&CHECK, &DF, &EVENTS, &INFO, &PRUNE, &DIAL],
    section: Section::Management,
    ..BLANK
};
