//! `image` and the commands that go without it.

use crate::args::Kind::{Bool, Bytes, Int, List, Str, Strings, SwapBytes};
use crate::args::check;
use crate::args::{
    BLANK, Command, Completes, Count, Flag, Section, flag, tree::FORMAT_HELP, tree::FORMAT_TABLE_HELP,
};
use crate::commands::Verb;

const BUILD_FLAGS: &[Flag] = &[
    flag("add-host", List("list"), "Add a custom host-to-IP mapping (\"host:ip\")").check(check::extra_host),
    flag("build-arg", List("list"), "Set build-time variables").check(check::env),
    flag("cache-from", Strings, "Images to consider as cache sources"),
    flag("cgroup-parent", Str, "Set the parent cgroup for the \"RUN\" instructions during build"),
    flag("compress", Bool, "Compress the build context using gzip"),
    flag("cpu-period", Int, "Limit the CPU CFS (Completely Fair Scheduler) period"),
    flag("cpu-quota", Int, "Limit the CPU CFS (Completely Fair Scheduler) quota"),
    flag("cpu-shares", Int, "CPU shares (relative weight)").short('c'),
    flag("cpuset-cpus", Str, "CPUs in which to allow execution (0-3, 0,1)"),
    flag("cpuset-mems", Str, "MEMs in which to allow execution (0-3, 0,1)"),
    flag("file", Str, "Name of the Dockerfile (Default is \"PATH/Dockerfile\")").short('f'),
    flag("force-rm", Bool, "Always remove intermediate containers"),
    flag("iidfile", Str, "Write the image ID to the file"),
    flag("isolation", Str, "Container isolation technology"),
    flag("label", List("list"), "Set metadata for an image").check(check::label),
    flag("memory", Bytes, "Memory limit").short('m'),
    flag("memory-swap", SwapBytes, "Swap limit equal to memory plus swap: -1 to enable unlimited swap"),
    flag("network", Str, "Set the networking mode for the RUN instructions during build").default("default"),
    flag("no-cache", Bool, "Do not use cache when building the image"),
    flag("platform", Str, "Set platform if server is multi-platform capable"),
    flag("pull", Bool, "Always attempt to pull a newer version of the image"),
    flag("quiet", Bool, "Suppress the build output and print image ID on success").short('q'),
    flag("rm", Bool, "Remove intermediate containers after a successful build").default("true"),
    flag("security-opt", Strings, "Security options"),
    flag("shm-size", Bytes, "Size of \"/dev/shm\""),
    flag("squash", Bool, "Squash newly built layers into a single new layer").hidden(),
    flag("tag", List("list"), "Name and optionally a tag in the \"name:tag\" format")
        .short('t')
        .check(check::tag),
    flag("target", Str, "Set the target build stage to build."),
    flag("ulimit", List("ulimit"), "Ulimit options").default("[]").check(check::ulimit),
    flag("disable-content-trust", Bool, "Skip image verification").default("true"),
];

pub const BUILD: Command = Command {
    name: "build",
    usage: "[OPTIONS] PATH | URL | -",
    short: "Build an image from a Dockerfile",
    paths: "image build, build, builder build",
    flags: &[BUILD_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::Build),
    completes: Completes::Files,
    ..BLANK
};

pub const TOP_BUILD: Command = Command { section: Section::Common, ..BUILD };

const HISTORY_FLAGS: &[Flag] = &[
    flag("format", Str, FORMAT_TABLE_HELP),
    flag("human", Bool, "Print sizes and dates in human readable format").short('H').default("true"),
    flag("no-trunc", Bool, "Don't truncate output"),
    flag(
        "platform",
        Str,
        "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
    ),
    flag("quiet", Bool, "Only show image IDs").short('q'),
];

pub const HISTORY: Command = Command {
    name: "history",
    usage: "[OPTIONS] IMAGE",
    short: "Show the history of an image",
    paths: "image history, history",
    flags: &[HISTORY_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::History),
    completes: Completes::Images,
    ..BLANK
};

pub const TOP_HISTORY: Command = Command { section: Section::Plain, ..HISTORY };

const IMPORT_FLAGS: &[Flag] = &[
    flag("change", List("list"), "Apply Dockerfile instruction to the created image").short('c'),
    flag("message", Str, "Set commit message for imported image").short('m'),
    flag("platform", Str, "Set platform if server is multi-platform capable"),
];

pub const IMPORT: Command = Command {
    name: "import",
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    short: "Import the contents from a tarball to create a filesystem image",
    paths: "image import, import",
    flags: &[IMPORT_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::Import),
    completes: Completes::Files,
    ..BLANK
};

pub const TOP_IMPORT: Command = Command { section: Section::Plain, ..IMPORT };

const INSPECT_FLAGS: &[Flag] = &[
    flag("format", Str, FORMAT_HELP).short('f'),
    flag(
        "platform",
        Str,
        "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
    ),
];

pub const INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    short: "Display detailed information on one or more images",
    flags: &[INSPECT_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::ImageInspect),
    completes: Completes::Images,
    ..BLANK
};

const LOAD_FLAGS: &[Flag] = &[
    flag("input", Str, "Read from tar archive file, instead of STDIN").short('i'),
    flag(
        "platform",
        Strings,
        "Load only the given platform(s). Formatted as a comma-separated list of \"os[/arch[/variant]]\" (e.g., \"linux/amd64,linux/arm64/v8\")",
    ),
    flag("quiet", Bool, "Suppress the load output").short('q'),
];

pub const LOAD: Command = Command {
    name: "load",
    usage: "[OPTIONS]",
    short: "Load an image from a tar archive or STDIN",
    paths: "image load, load",
    flags: &[LOAD_FLAGS],
    verb: Some(Verb::Load),
    ..BLANK
};

pub const TOP_LOAD: Command = Command { section: Section::Plain, ..LOAD };

const LS_FLAGS: &[Flag] = &[
    flag("all", Bool, "Show all images").short('a').default("hides intermediate images"),
    flag("digests", Bool, "Show digests"),
    flag("filter", List("filter"), "Filter output based on conditions provided")
        .short('f')
        .check(check::filter),
    flag("format", Str, FORMAT_TABLE_HELP),
    flag("no-trunc", Bool, "Don't truncate output"),
    flag("quiet", Bool, "Only show image IDs").short('q'),
    flag("tree", Bool, "List multi-platform images as a tree (EXPERIMENTAL)"),
];

pub const LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    short: "List images",
    paths: "image ls, image list, images",
    flags: &[LS_FLAGS],
    count: Count::AtMost(1),
    verb: Some(Verb::Images),
    completes: Completes::Images,
    ..BLANK
};

pub const TOP_LS: Command = Command { name: "images", aliases: &[], section: Section::Common, ..LS };

const PRUNE_FLAGS: &[Flag] = &[
    flag("all", Bool, "Remove all unused images, not just dangling ones").short('a'),
    flag("filter", List("filter"), "Provide filter values (e.g. \"until=<timestamp>\")").check(check::filter),
    flag("force", Bool, "Do not prompt for confirmation").short('f'),
];

pub const PRUNE: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    short: "Remove unused images",
    flags: &[PRUNE_FLAGS],
    verb: Some(Verb::ImagePrune),
    ..BLANK
};

const CACHE_PRUNE_FLAGS: &[Flag] = &[
    flag("all", Bool, "Remove all unused build cache, not just dangling ones").short('a'),
    flag("filter", List("filter"), "Provide filter values (e.g. \"until=24h\")").check(check::filter),
    flag("force", Bool, "Do not prompt for confirmation").short('f'),
    flag("keep-storage", Bytes, "Amount of disk space to keep for cache"),
];

const CACHE_PRUNE: Command = Command {
    name: "prune",
    short: "Remove build cache",
    flags: &[CACHE_PRUNE_FLAGS],
    verb: Some(Verb::BuilderPrune),
    ..BLANK
};

pub const BUILDER: Command = Command {
    name: "builder",
    short: "Manage builds",
    count: Count::Any,
    subs: &[&BUILD, &CACHE_PRUNE],
    section: Section::Management,
    ..BLANK
};

const PULL_FLAGS: &[Flag] = &[
    flag("all-tags", Bool, "Download all tagged images in the repository").short('a'),
    flag("platform", Str, "Set platform if server is multi-platform capable"),
    flag("quiet", Bool, "Suppress verbose output").short('q'),
    flag("disable-content-trust", Bool, "Skip image verification").default("true"),
];

pub const PULL: Command = Command {
    name: "pull",
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    short: "Download an image from a registry",
    paths: "image pull, pull",
    flags: &[PULL_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::Pull),
    completes: Completes::Images,
    ..BLANK
};

pub const TOP_PULL: Command = Command { section: Section::Common, ..PULL };

const PUSH_FLAGS: &[Flag] = &[
    flag("all-tags", Bool, "Push all tags of an image to the repository").short('a'),
    flag(
        "platform",
        Str,
        "Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
    ),
    flag("quiet", Bool, "Suppress verbose output").short('q'),
    flag("disable-content-trust", Bool, "Skip image signing").default("true"),
];

pub const PUSH: Command = Command {
    name: "push",
    usage: "[OPTIONS] NAME[:TAG]",
    short: "Upload an image to a registry",
    paths: "image push, push",
    flags: &[PUSH_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::Push),
    completes: Completes::Images,
    ..BLANK
};

pub const TOP_PUSH: Command = Command { section: Section::Common, ..PUSH };

const RM_FLAGS: &[Flag] = &[
    flag("force", Bool, "Force removal of the image").short('f'),
    flag("no-prune", Bool, "Do not delete untagged parents"),
    flag(
        "platform",
        Strings,
        "Remove only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
    ),
];

pub const RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    short: "Remove one or more images",
    paths: "image rm, image remove, rmi",
    flags: &[RM_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::Rmi),
    completes: Completes::Images,
    ..BLANK
};

pub const TOP_RM: Command = Command { name: "rmi", aliases: &[], section: Section::Plain, ..RM };

const SAVE_FLAGS: &[Flag] = &[
    flag("output", Str, "Write to a file, instead of STDOUT").short('o'),
    flag(
        "platform",
        Strings,
        "Save only the given platform(s). Formatted as a comma-separated list of \"os[/arch[/variant]]\" (e.g., \"linux/amd64,linux/arm64/v8\")",
    ),
];

pub const SAVE: Command = Command {
    name: "save",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    paths: "image save, save",
    flags: &[SAVE_FLAGS],
    count: Count::AtLeast(1),
    verb: Some(Verb::Save),
    completes: Completes::Images,
    ..BLANK
};

pub const TOP_SAVE: Command = Command { section: Section::Plain, ..SAVE };

pub const TAG: Command = Command {
    name: "tag",
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    paths: "image tag, tag",
    count: Count::Exactly(2),
    verb: Some(Verb::Tag),
    completes: Completes::Images,
    ..BLANK
};

pub const TOP_TAG: Command = Command { section: Section::Plain, ..TAG };

pub const GROUP: Command = Command {
    name: "image",
    short: "Manage images",
    count: Count::Any,
    subs: &[&BUILD, &HISTORY, &IMPORT, &INSPECT, &LOAD, &LS, &PRUNE, &PULL, &PUSH, &RM, &SAVE, &TAG],
    section: Section::Management,
    ..BLANK
};
