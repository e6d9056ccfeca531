//! Commands that have to do with registries alone.

use crate::args::Kind::{Bool, Int, List, Str, Strings};
use crate::args::check;
use crate::args::{BLANK, Command, Count, Flag, Section, flag, tree::FORMAT_HELP};
use crate::commands::Verb;

const LOGIN_FLAGS: &[Flag] = &[
    flag("password", Str, "Password or Personal Access Token (PAT)").short('p'),
    flag("password-stdin", Bool, "Take the Password or Personal Access Token (PAT) from stdin"),
    flag("username", Str, "Username").short('u'),
];

pub const LOGIN: Command = Command {
    name: "login",
    usage: "[OPTIONS] [SERVER]",
    short: "Authenticate to a registry",
    flags: &[LOGIN_FLAGS],
    count: Count::AtMost(1),
    verb: Some(Verb::Login),
    section: Section::Common,
    ..BLANK
};

pub const LOGOUT: Command = Command {
    name: "logout",
    usage: "[SERVER]",
    short: "Log out from a registry",
    count: Count::AtMost(1),
    verb: Some(Verb::Logout),
    section: Section::Common,
    ..BLANK
};

const SEARCH_FLAGS: &[Flag] = &[
    flag("filter", List("filter"), "Filter output based on conditions provided")
        .short('f')
        .check(check::filter),
    flag("format", Str, FORMAT_HELP),
    flag("limit", Int, "Max number of search results"),
    flag("no-trunc", Bool, "Don't truncate output"),
];

pub const SEARCH: Command = Command {
    name: "search",
    usage: "[OPTIONS] TERM",
    short: "Search Docker Hub for images",
    flags: &[SEARCH_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::Search),
    section: Section::Common,
    ..BLANK
};

const ANNOTATE_FLAGS: &[Flag] = &[
    flag("arch", Str, "Set architecture"),
    flag("os", Str, "Set operating system"),
    flag("os-features", Strings, "Set operating system feature"),
    flag("os-version", Str, "Set operating system version"),
    flag("variant", Str, "Set architecture variant"),
];

const ANNOTATE: Command = Command {
    name: "annotate",
    usage: "[OPTIONS] MANIFEST_LIST MANIFEST",
    short: "Add additional information to a local image manifest",
    flags: &[ANNOTATE_FLAGS],
    count: Count::Exactly(2),
    verb: Some(Verb::ManifestAnnotate),
    ..BLANK
};

const INSECURE: Flag = flag("insecure", Bool, "Allow communication with an insecure registry");

const CREATE: Command = Command {
    name: "create",
    usage: "MANIFEST_LIST MANIFEST [MANIFEST...]",
    short: "Create a local manifest list for annotating and pushing to a registry",
    flags: &[&[flag("amend", Bool, "Amend an existing manifest list").short('a'), INSECURE]],
    count: Count::AtLeast(2),
    verb: Some(Verb::ManifestCreate),
    ..BLANK
};

const INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    short: "Display an image manifest, or manifest list",
    flags: &[&[
        INSECURE,
        flag("verbose", Bool, "Output additional info including layers and platform").short('v'),
    ]],
    count: Count::Between(1, 2),
    verb: Some(Verb::ManifestInspect),
    ..BLANK
};

const PUSH: Command = Command {
    name: "push",
    usage: "[OPTIONS] MANIFEST_LIST",
    short: "Push a manifest list to a repository",
    flags: &[&[INSECURE, flag("purge", Bool, "Remove the local manifest list after push").short('p')]],
    count: Count::Exactly(1),
    verb: Some(Verb::ManifestPush),
    ..BLANK
};

const RM: Command = Command {
    name: "rm",
    usage: "MANIFEST_LIST [MANIFEST_LIST...]",
    short: "Delete one or more manifest lists from local storage",
    count: Count::AtLeast(1),
    verb: Some(Verb::ManifestRm),
    ..BLANK
};

pub const MANIFEST: Command = Command {
    name: "manifest",
    short: "Manage Docker image manifests and manifest lists",
    count: Count::Any,
    subs: &[&ANNOTATE, &CREATE, &INSPECT, &PUSH, &RM],
    section: Section::Management,
    ..BLANK
};
