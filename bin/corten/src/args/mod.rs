//! The command line as data: one tree of commands and flags drives parsing, help, error texts and completion.
//!
//! The grammar is that of Go's `pflag` as Docker uses it, because scripts rely on it: `--x=v`, `--x v`, bundled shorts
//! (`-it`), booleans with `=true`, and no flags after the first positional argument of `run`, `create` and `exec`.

pub mod check;
pub mod complete;
pub mod help;
pub mod parse;
pub mod tree;

use crate::commands::Verb;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Str,
    Int,
    Uint,
    Uint16,
    /// Repeatable text; the name is what help shows as its type.
    List(&'static str),
    /// Repeatable `key=value`.
    Map,
    /// Repeatable, each value a comma-separated list.
    Strings,
    Bytes,
    /// Like bytes; -1 means without limit.
    SwapBytes,
    Duration,
    Decimal,
}

/// Looks at one value of a flag; the text is what follows `invalid argument … flag: `.
pub type Check = fn(&str) -> Result<(), String>;

/// One flag of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    pub help: &'static str,
    /// What help shows as default, without the parentheses; empty for none.
    pub default: &'static str,
    pub check: Option<Check>,
    pub hidden: bool,
}

/// A flag with nothing special about it.
pub const fn flag(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, short: None, kind, help, default: "", check: None, hidden: false }
}

impl Flag {
    pub const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    pub const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    pub const fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// Accepted, but not shown in help: old names, what other systems or experimental daemons have.
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}

/// How many positional arguments a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    None,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
    Any,
}

/// What completes a positional argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completes {
    Nothing,
    Files,
    Containers,
    RunningContainers,
    Images,
    Networks,
    Contexts,
}

/// Under which heading of the root's help a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Common,
    Management,
    Plain,
    Hidden,
}

/// One command, or a group of them.
#[derive(Debug)]
pub struct Command {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// What follows the command's path in its usage line.
    pub usage: &'static str,
    pub short: &'static str,
    /// Replaces `short` at the top of the command's own help, if not empty.
    pub long: &'static str,
    /// Every path that leads here, without the program, as help lists them; empty if there is only one.
    pub paths: &'static str,
    pub flags: &'static [&'static [Flag]],
    pub count: Count,
    /// Whether flags may follow positional arguments.
    pub interspersed: bool,
    pub verb: Option<Verb>,
    pub subs: &'static [&'static Command],
    pub section: Section,
    pub completes: Completes,
}

/// The fields that most commands leave alone.
pub const BLANK: Command = Command {
    name: "",
    aliases: &[],
    usage: "",
    short: "",
    long: "",
    paths: "",
    flags: &[],
    count: Count::None,
    interspersed: true,
    verb: None,
    subs: &[],
    section: Section::Plain,
    completes: Completes::Nothing,
};

impl Command {
    /// Every flag, in the order of the table.
    pub fn all_flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().flat_map(|set| set.iter())
    }

    pub fn sub(&self, name: &str) -> Option<&'static Command> {
        self.subs.iter().copied().find(|sub| sub.name == name || sub.aliases.contains(&name))
    }
}

/// What was given on the command line for one command.
#[derive(Debug, Default)]
pub struct Matches {
    values: Vec<(&'static str, Vec<String>)>,
    pub args: Vec<String>,
}

impl Matches {
    fn add(&mut self, flag: &'static Flag, value: String) {
        match self.values.iter_mut().find(|(name, _)| *name == flag.name) {
            Some((_, values)) => values.push(value),
            None => self.values.push((flag.name, vec![value])),
        }
    }

    /// Whether the flag was given at all.
    pub fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(known, _)| *known == name)
    }

    /// Whether any flag of the command was given.
    pub fn has_flags(&self) -> bool {
        !self.values.is_empty()
    }

    /// All values in order.
    pub fn list(&self, name: &str) -> &[String] {
        self.values.iter().find(|(known, _)| *known == name).map_or(&[], |(_, values)| values)
    }

    /// The last value; the empty text if there is none.
    pub fn str(&self, name: &str) -> &str {
        self.list(name).last().map_or("", String::as_str)
    }

    pub fn bool(&self, name: &str) -> bool {
        check::parse_bool(self.str(name)).unwrap_or(false)
    }

    /// A boolean whose default is true.
    pub fn bool_or_true(&self, name: &str) -> bool {
        self.list(name).last().is_none_or(|value| check::parse_bool(value).unwrap_or(true))
    }

    /// The value if given. It has been checked when parsed.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.list(name).last().and_then(|value| check::parse_int(value).ok())
    }

    pub fn uint(&self, name: &str) -> Option<u64> {
        self.list(name).last().and_then(|value| check::parse_uint(value, 64).ok())
    }

    /// Bytes; -1 where that means without limit.
    pub fn bytes(&self, name: &str) -> Option<i64> {
        let value = self.list(name).last()?;
        if value == "-1" { Some(-1) } else { crate::units::parse_ram(value).ok() }
    }

    /// A duration in nanoseconds.
    pub fn duration(&self, name: &str) -> Option<i64> {
        self.list(name).last().and_then(|value| crate::units::parse_duration(value).ok())
    }

    /// The items of all values of a comma-separated flag.
    pub fn strings(&self, name: &str) -> Vec<String> {
        self.list(name).iter().flat_map(|value| check::csv_fields(value).unwrap_or_default()).collect()
    }

    #[cfg(test)]
    pub fn from_pairs(pairs: &[(&'static str, &str)], args: &[&str]) -> Self {
        let mut matches = Self::default();
        for (name, value) in pairs {
            match matches.values.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push((*value).to_owned()),
                None => matches.values.push((name, vec![(*value).to_owned()])),
            }
        }
        matches.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        matches
    }
}
