//! `network`.

use crate::args::Kind::{Bool, Int, List, Map, Str, Strings};
use crate::args::check;
use crate::args::{
    BLANK, Command, Completes, Count, Flag, Section, flag, tree::FORMAT_HELP, tree::FORMAT_TABLE_HELP,
};
use crate::commands::Verb;

const CONNECT_FLAGS: &[Flag] = &[
    flag("alias", Strings, "Add network-scoped alias for the container"),
    flag("driver-opt", Strings, "driver options for the network"),
    flag(
        "gw-priority",
        Int,
        "Highest gw-priority provides the default gateway. Accepts positive and negative values.",
    ),
    flag("ip", Str, "IPv4 address (e.g., \"172.30.100.104\")"),
    flag("ip6", Str, "IPv6 address (e.g., \"2001:db8::33\")"),
    flag("link", List("list"), "Add link to another container").check(check::link),
    flag("link-local-ip", Strings, "Add a link-local address for the container").check(check::ip),
];

pub const CONNECT: Command = Command {
    name: "connect",
    usage: "[OPTIONS] NETWORK CONTAINER",
    short: "Connect a container to a network",
    flags: &[CONNECT_FLAGS],
    count: Count::Exactly(2),
    verb: Some(Verb::NetworkConnect),
    completes: Completes::Networks,
    ..BLANK
};

const CREATE_FLAGS: &[Flag] = &[
    flag("attachable", Bool, "Enable manual container attachment"),
    flag("aux-address", Map, "Auxiliary IPv4 or IPv6 addresses used by Network driver").default("map[]"),
    flag("config-from", Str, "The network from which to copy the configuration"),
    flag("config-only", Bool, "Create a configuration only network"),
    flag("driver", Str, "Driver to manage the Network").short('d').default("bridge"),
    flag("gateway", Strings, "IPv4 or IPv6 Gateway for the master subnet"),
    flag("ingress", Bool, "Create swarm routing-mesh network"),
    flag("internal", Bool, "Restrict external access to the network"),
    flag("ip-range", Strings, "Allocate container ip from a sub-range"),
    flag("ipam-driver", Str, "IP Address Management Driver").default("default"),
    flag("ipam-opt", Map, "Set IPAM driver specific options").default("map[]"),
    flag("ipv4", Bool, "Enable or disable IPv4 address assignment").default("true"),
    flag("ipv6", Bool, "Enable or disable IPv6 address assignment"),
    flag("label", List("list"), "Set metadata on a network").check(check::label),
    flag("opt", Map, "Set driver specific options").short('o').default("map[]"),
    flag("scope", Str, "Control the network's scope"),
    flag("subnet", Strings, "Subnet in CIDR format that represents a network segment"),
];

pub const CREATE: Command = Command {
    name: "create",
    usage: "[OPTIONS] NETWORK",
    short: "Create a network",
    flags: &[CREATE_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::NetworkCreate),
    ..BLANK
};

const DISCONNECT_FLAGS: &[Flag] =
    &[flag("force", Bool, "Force the container to disconnect from a network").short('f')];

pub const DISCONNECT: Command = Command {
    name: "disconnect",
    usage: "[OPTIONS] NETWORK CONTAINER",
    short: "Disconnect a container from a network",
    flags: &[DISCONNECT_FLAGS],
    count: Count::Exactly(2),
    verb: Some(Verb::NetworkDisconnect),
    completes: Completes::Networks,
    ..BLANK
};

const INSPECT_FLAGS: &[Flag] = &[
    flag("format", Str, FORMAT_HELP).short('f'),
    flag("verbose", Bool, "Verbose output for diagnostics").short('v'),
];

pub const INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    short: "Display detailed information on one or more networks",
    flags: &[INSPECT_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::NetworkInspect),
    completes: Completes::Networks,
    ..BLANK
};

const LS_FLAGS: &[Flag] = &[
    flag("filter", List("filter"), "Provide filter values (e.g. \"driver=bridge\")")
        .short('f')
        .check(check::filter),
    flag("format", Str, FORMAT_TABLE_HELP),
    flag("no-trunc", Bool, "Do not truncate the output"),
    flag("quiet", Bool, "Only display network IDs").short('q'),
];

pub const LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    usage: "[OPTIONS]",
    short: "List networks",
    paths: "network ls, network list",
    flags: &[LS_FLAGS],
    verb: Some(Verb::NetworkLs),
    ..BLANK
};

const PRUNE_FLAGS: &[Flag] = &[
    flag("filter", List("filter"), "Provide filter values (e.g. \"until=<timestamp>\")").check(check::filter),
    flag("force", Bool, "Do not prompt for confirmation").short('f'),
];

pub const PRUNE: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    short: "Remove all unused networks",
    flags: &[PRUNE_FLAGS],
    verb: Some(Verb::NetworkPrune),
    ..BLANK
};

const RM_FLAGS: &[Flag] = &[flag("force", Bool, "Do not error if the network does not exist").short('f')];

pub const RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    usage: "NETWORK [NETWORK...]",
    short: "Remove one or more networks",
    paths: "network rm, network remove",
    flags: &[RM_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::NetworkRm),
    completes: Completes::Networks,
    ..BLANK
};

pub const GROUP: Command = Command {
    name: "network",
    short: "Manage networks",
    count: Count::Any,
    subs: &[&CONNECT, &CREATE, &DISCONNECT, &INSPECT, &LS, &PRUNE, &RM],
    section: Section::Management,
    ..BLANK
};
