//! `buildx`: of Docker's plugin for builds, what has to do with images in registries.

use crate::args::Kind::{Bool, List, Str};
use crate::args::{BLANK, Command, Count, Flag, Section, flag};
use crate::commands::Verb;

const BUILDER: Flag = flag("builder", Str, "Override the configured builder instance").hidden();

const CREATE_FLAGS: &[Flag] = &[
    flag("annotation", List("stringArray"), "Add annotation to the image"),
    flag("append", Bool, "Append to existing manifest"),
    flag("dry-run", Bool, "Show final image instead of pushing"),
    flag("file", List("stringArray"), "Read source descriptor from file").short('f'),
    flag("metadata-file", Str, "Write create result metadata to a file"),
    flag("platform", List("stringArray"), "Filter specified platforms of target image").short('p'),
    flag(
        "prefer-index",
        Bool,
        "When only a single source is specified, prefer outputting an image index or manifest list instead of performing a carbon copy",
    )
    .default("true"),
    flag("progress", Str, "Set type of progress output (\"auto\", \"none\", \"plain\", \"rawjson\", \"tty\")").default("auto"),
    flag("tag", List("stringArray"), "Set reference for new image").short('t'),
    BUILDER,
];

const CREATE: Command = Command {
    name: "create",
    usage: "[OPTIONS] [SOURCE...]",
    short: "Create a new image based on source images",
    flags: &[CREATE_FLAGS],
    count: Count::Any,
    verb: Some(Verb::ImagetoolsCreate),
    ..BLANK
};

const INSPECT_FLAGS: &[Flag] = &[
    flag("format", Str, "Format the output using the given Go template").default("{{.Manifest}}"),
    flag("raw", Bool, "Show original, unformatted JSON manifest"),
    BUILDER,
];

const INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] NAME",
    short: "Show details of an image in the registry",
    flags: &[INSPECT_FLAGS],
    count: Count::Exactly(1),
    verb: Some(Verb::ImagetoolsInspect),
    ..BLANK
};

const IMAGETOOLS: Command = Command {
    name: "imagetools",
    short: "Commands to work on images in registry",
    count: Count::Any,
    subs: &[&CREATE, &INSPECT],
    section: Section::Management,
    ..BLANK
};

pub const GROUP: Command = Command {
    name: "buildx",
    short: "Docker Buildx",
    count: Count::Any,
    subs: &[&IMAGETOOLS],
    section: Section::Management,
    ..BLANK
};
