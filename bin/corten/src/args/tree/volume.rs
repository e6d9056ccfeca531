//! `volume`.

use crate::args::Kind::{Bool, Bytes, List, Map, Str};
use crate::args::check;
use crate::args::{BLANK, Command, Count, Flag, Section, flag, tree::FORMAT_HELP, tree::FORMAT_TABLE_HELP};
use crate::commands::Verb;

const CREATE_FLAGS: &[Flag] = &[
    flag("availability", Str, "Cluster Volume availability (\"active\", \"pause\", \"drain\")")
        .default("active"),
    flag("driver", Str, "Specify volume driver name").short('d').default("local"),
    flag("group", Str, "Cluster Volume group (cluster volumes)"),
    flag("label", List("list"), "Set metadata for a volume").check(check::label),
    flag("limit-bytes", Bytes, "Minimum size of the Cluster Volume in bytes"),
    flag("opt", Map, "Set driver specific options").short('o').default("map[]"),
    flag("required-bytes", Bytes, "Maximum size of the Cluster Volume in bytes"),
    flag("scope", Str, "Cluster Volume access scope (\"single\", \"multi\")").default("single"),
    flag("secret", Map, "Cluster Volume secrets").default("map[]"),
    flag("sharing", Str, "Cluster Volume access sharing (\"none\", \"readonly\", \"onewriter\", \"all\")")
        .default("none"),
    flag("topology-preferred", List("list"), "A topology that the Cluster Volume would be preferred in"),
    flag("topology-required", List("list"), "A topology that the Cluster Volume must be accessible from"),
    flag("type", Str, "Cluster Volume access type (\"mount\", \"block\")").default("block"),
];

pub const CREATE: Command = Command {
    name: "create",
    usage: "[OPTIONS] [VOLUME]",
    short: "Create a volume",
    flags: &[CREATE_FLAGS],
    count: Count::AtMost(1),
    verb: Some(Verb::VolumeCreate),
    ..BLANK
};

const INSPECT_FLAGS: &[Flag] = &[flag("format", Str, FORMAT_HELP).short('f')];

pub const INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    short: "Display detailed information on one or more volumes",
    flags: &[INSPECT_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::VolumeInspect),
    ..BLANK
};

const LS_FLAGS: &[Flag] = &[
    flag("cluster", Bool, "Display only cluster volumes, and use cluster volume list formatting"),
    flag("filter", List("filter"), "Provide filter values (e.g. \"dangling=true\")")
        .short('f')
        .check(check::filter),
    flag("format", Str, FORMAT_TABLE_HELP),
    flag("quiet", Bool, "Only display volume names").short('q'),
];

pub const LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    usage: "[OPTIONS]",
    short: "List volumes",
    paths: "volume ls, volume list",
    flags: &[LS_FLAGS],
    verb: Some(Verb::VolumeLs),
    ..BLANK
};

const PRUNE_FLAGS: &[Flag] = &[
    flag("all", Bool, "Remove all unused volumes, not just anonymous ones").short('a'),
    flag("filter", List("filter"), "Provide filter values (e.g. \"label=<label>\")").check(check::filter),
    flag("force", Bool, "Do not prompt for confirmation").short('f'),
];

pub const PRUNE: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    short: "Remove unused local volumes",
    flags: &[PRUNE_FLAGS],
    verb: Some(Verb::VolumePrune),
    ..BLANK
};

const RM_FLAGS: &[Flag] = &[flag("force", Bool, "Force the removal of one or more volumes").short('f')];

pub const RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    short: "Remove one or more volumes",
    long: "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    paths: "volume rm, volume remove",
    flags: &[RM_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::VolumeRm),
    ..BLANK
};

const UPDATE_FLAGS: &[Flag] =
    &[flag("availability", Str, "Cluster Volume availability (\"active\", \"pause\", \"drain\")")
        .default("active")];

pub const UPDATE: Command = Command {
    name: "update",
    usage: "[OPTIONS] [VOLUME]",
    short: "Update a volume (cluster volumes only)",
    flags: &[UPDATE_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::VolumeUpdate),
    // Shown where there is a swarm.
    section: Section::Hidden,
    ..BLANK
};

pub const GROUP: Command = Command {
    name: "volume",
    short: "Manage volumes",
    count: Count::Any,
    subs: &[&CREATE, &INSPECT, &LS, &PRUNE, &RM, &UPDATE],
    section: Section::Management,
    ..BLANK
};
