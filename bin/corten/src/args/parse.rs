//! Words into a command and its flags.

use super::{Command, Count, Flag, Kind, Matches, check};

/// A command line that was understood.
#[derive(Debug)]
pub enum Parsed {
    /// Run this command. The path is without the program.
    Run {
        global: Matches,
        command: &'static Command,
        path: Vec<&'static str>,
        matches: Matches,
    },
    /// Print this command's help; `asked` tells a request from a group named without a command.
    Help {
        command: &'static Command,
        path: Vec<&'static str>,
        asked: bool,
        deprecated_h: bool,
    },
    Version,
    /// A command that Docker has and Corten does not have yet.
    Unsupported(String),
    /// Not a command of ours, but it may be a plugin's; if not, this is to be said.
    Outside {
        global: Matches,
        name: String,
        otherwise: Mistake,
    },
}

/// A command line that was not understood: what to print on stderr, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    pub text: String,
    pub code: i32,
}

/// Commands of Docker that have no counterpart yet, by the group they would be in.
const UNSUPPORTED: &[(&str, &[&str])] = &[(
    "",
    &[
        "bake",
        "checkpoint",
        "compose",
        "config",
        "node",
        "plugin",
        "secret",
        "service",
        "stack",
        "swarm",
        "trust",
    ],
)];

fn is_unsupported(group: &str, name: &str) -> bool {
    UNSUPPORTED.iter().any(|(known, names)| *known == group && names.contains(&name))
}

struct Words<'a> {
    program: &'a str,
    path: Vec<&'static str>,
    command: &'static Command,
}

impl Words<'_> {
    fn full_path(&self) -> String {
        std::iter::once(self.program).chain(self.path.iter().copied()).collect::<Vec<_>>().join(" ")
    }

    fn mistake(&self, text: &str, code: i32) -> Mistake {
        let path = self.full_path();
        let usage = match (self.path.is_empty(), self.command.usage) {
            (true, _) => format!("{path} [OPTIONS] COMMAND [ARG...]"),
            // A group names itself alone.
            (false, _) if !self.command.subs.is_empty() => path.clone(),
            (false, "") => path.clone(),
            // Further forms are shown by the short path, as in the help.
            (false, usage) => {
                format!(
                    "{path} {}",
                    usage.replace('\n', &format!("\n\t{} {} ", self.program, self.command.name))
                )
            }
        };
        Mistake {
            text: format!("{text}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information"),
            code,
        }
    }
}

/// Parses all words after the program's name.
pub fn parse(program: &str, root: &'static Command, words: &[String]) -> Result<Parsed, Mistake> {
    let mut at = Words { program, path: Vec::new(), command: root };
    let mut global = Matches::default();
    let mut rest = words.to_vec();
    let mut deprecated_h = false;
    let mut asked = false;
    loop {
        let command = at.command;
        let is_group = !command.subs.is_empty();
        let mut matches = Matches::default();
        let outcome = flags(&at, command, &rest, !is_group && command.interspersed, &mut matches)?;
        deprecated_h |= outcome.deprecated_h;
        asked |= outcome.help;
        if at.path.is_empty() {
            if outcome.version && !asked {
                return Ok(Parsed::Version);
            }
            global = matches;
            if !asked && matches_help(&global.args) {
                return help_topic(&at, root, &global.args[1..]);
            }
            matches = Matches { values: Vec::new(), args: std::mem::take(&mut global.args) };
        }
        if !is_group {
            if asked {
                return Ok(Parsed::Help { command, path: at.path, asked: true, deprecated_h });
            }
            check_count(&at, command, matches.args.len())?;
            return Ok(Parsed::Run { global, command, path: at.path, matches });
        }
        let Some(name) = matches.args.first() else {
            return Ok(Parsed::Help { command, path: at.path, asked, deprecated_h });
        };
        match command.sub(name) {
            Some(sub) => {
                at.path.push(sub.name);
                at.command = sub;
                rest = matches.args.split_off(1);
            }
            None if at.path.is_empty() => {
                let name = name.clone();
                return Ok(Parsed::Outside { global, otherwise: not_ours(&at, &name), name });
            }
            // Most of it is a plugin's, if there is one.
            None if at.path == ["buildx"] => {
                let text = format!("corten: 'buildx {name}' is not supported yet");
                let otherwise = Mistake { text, code: 1 };
                return Ok(Parsed::Outside { global, name: "buildx".to_owned(), otherwise });
            }
            None if asked => return Ok(Parsed::Help { command, path: at.path, asked: true, deprecated_h }),
            None => return unknown(&at, name),
        }
    }
}

fn matches_help(args: &[String]) -> bool {
    args.first().is_some_and(|arg| arg == "help")
}

fn help_topic(at: &Words<'_>, root: &'static Command, topic: &[String]) -> Result<Parsed, Mistake> {
    let mut path = Vec::new();
    let mut command = root;
    for word in topic {
        match command.sub(word) {
            Some(sub) => {
                path.push(sub.name);
                command = sub;
            }
            None if path.is_empty() => {
                let otherwise = match is_unsupported("", word) {
                    true => not_ours(at, word),
                    false => Mistake { text: format!("unknown help topic: {}", topic.join(" ")), code: 1 },
                };
                return Ok(Parsed::Outside { global: Matches::default(), name: word.clone(), otherwise });
            }
            None => {
                return Err(Mistake { text: format!("unknown help topic: {}", topic.join(" ")), code: 1 });
            }
        }
    }
    Ok(Parsed::Help { command, path, asked: true, deprecated_h: false })
}

/// What to say of a word that is neither a command nor a plugin.
fn not_ours(at: &Words<'_>, name: &str) -> Mistake {
    match unknown(at, name) {
        Err(mistake) => mistake,
        Ok(_) => Mistake { text: format!("corten: '{name}' is not supported yet"), code: 1 },
    }
}

fn unknown(at: &Words<'_>, name: &str) -> Result<Parsed, Mistake> {
    let path = at.full_path();
    if is_unsupported(at.path.first().unwrap_or(&""), name) {
        let inner = path.strip_prefix(at.program).unwrap_or_default().trim();
        return Ok(Parsed::Unsupported(format!("{inner} {name}").trim().to_owned()));
    }
    let usage = if at.path.is_empty() { String::new() } else { format!("Usage:  {path}\n\n") };
    let hint = meant(at, name).map_or(String::new(), |near| format!("\nhint: did you mean '{path} {near}'?"));
    Err(Mistake {
        text: format!(
            "{}: unknown command: {path} {name}\n\n{usage}Run '{path} --help' for more information{hint}",
            at.program
        ),
        code: 1,
    })
}

/// The command that was meant, if one is near. Docker's own words have no such line, so only `corten` has it.
fn meant(at: &Words<'_>, name: &str) -> Option<&'static str> {
    if at.program == "docker" {
        return None;
    }
    let shown = at.command.subs.iter().filter(|sub| sub.section != super::Section::Hidden);
    let near = shown.map(|sub| (distance(name, sub.name), sub.name)).min()?;
    (near.0 <= 1 + name.len() / 4).then_some(near.1)
}

/// How many letters have to be changed, added, removed or swapped with their neighbour.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().take(32).collect(), right.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for (row, letter) in left.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let mut least = (rows[row][column] + usize::from(letter != other))
                .min(rows[row][column + 1] + 1)
                .min(next[column] + 1);
            if row > 0 && column > 0 && left[row - 1] == *other && right[column - 1] == *letter {
                least = least.min(rows[row - 1][column - 1] + 1);
            }
            next.push(least);
        }
        rows.push(next);
    }
    rows[left.len()][right.len()]
}

#[derive(Default)]
struct Outcome {
    help: bool,
    deprecated_h: bool,
    version: bool,
}

fn flags(
    at: &Words<'_>,
    command: &'static Command,
    words: &[String],
    interspersed: bool,
    matches: &mut Matches,
) -> Result<Outcome, Mistake> {
    let mut outcome = Outcome::default();
    let fail = |text: String| Err(at.mistake(&text, 125));
    let mut index = 0;
    while index < words.len() {
        let word = &words[index];
        index += 1;
        if word == "--" {
            matches.args.extend(words[index..].iter().cloned());
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            if long.starts_with(['-', '=']) {
                return fail(format!("bad flag syntax: {word}"));
            }
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            if name == "help" {
                outcome.help = value.is_none_or(|value| check::parse_bool(&value).unwrap_or(true));
                continue;
            }
            let Some(flag) = command.all_flags().find(|flag| flag.name == name) else {
                return fail(format!("unknown flag: --{name}"));
            };
            let value = match (value, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".to_owned(),
                (None, _) => match words.get(index) {
                    Some(value) => {
                        index += 1;
                        value.clone()
                    }
                    None => return fail(format!("flag needs an argument: --{name}")),
                },
            };
            set(at, flag, value, matches, &mut outcome)?;
        } else if word.len() > 1 && word.starts_with('-') {
            shorts(at, command, &word[1..], words, &mut index, matches, &mut outcome)?;
        } else {
            matches.args.push(word.clone());
            if !interspersed {
                matches.args.extend(words[index..].iter().cloned());
                break;
            }
        }
    }
    Ok(outcome)
}

/// A word of bundled short flags, of which the last may take a value: `-it`, `-p80:80`, `-e=X`.
fn shorts(
    at: &Words<'_>,
    command: &'static Command,
    bundle: &str,
    words: &[String],
    index: &mut usize,
    matches: &mut Matches,
    outcome: &mut Outcome,
) -> Result<(), Mistake> {
    let mut rest = bundle;
    while let Some(short) = rest.chars().next() {
        let tail = &rest[short.len_utf8()..];
        let Some(flag) = command.all_flags().find(|flag| flag.short == Some(short)) else {
            if short == 'h' {
                outcome.help = true;
                outcome.deprecated_h = true;
                rest = tail;
                continue;
            }
            return Err(at.mistake(&format!("unknown shorthand flag: '{short}' in -{rest}"), 125));
        };
        let value = if tail.len() > 1 && tail.starts_with('=') {
            rest = "";
            tail[1..].to_owned()
        } else if flag.kind == Kind::Bool {
            rest = tail;
            "true".to_owned()
        } else if !tail.is_empty() {
            rest = "";
            tail.to_owned()
        } else if let Some(value) = words.get(*index) {
            *index += 1;
            rest = "";
            value.clone()
        } else {
            return Err(at.mistake(&format!("flag needs an argument: '{short}' in -{rest}"), 125));
        };
        set(at, flag, value, matches, outcome)?;
    }
    Ok(())
}

fn set(
    at: &Words<'_>,
    flag: &'static Flag,
    value: String,
    matches: &mut Matches,
    outcome: &mut Outcome,
) -> Result<(), Mistake> {
    if let Err(text) = check::value(flag, &value) {
        let shown = match flag.short {
            Some(short) => format!("-{short}, --{}", flag.name),
            None => format!("--{}", flag.name),
        };
        return Err(at.mistake(
            &format!("invalid argument {} for \"{shown}\" flag: {text}", template::quote(&value)),
            125,
        ));
    }
    if flag.name == "version" && at.path.is_empty() {
        outcome.version = check::parse_bool(&value).unwrap_or(false);
    }
    matches.add(flag, value);
    Ok(())
}

fn check_count(at: &Words<'_>, command: &Command, given: usize) -> Result<(), Mistake> {
    let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
    let text = match command.count {
        Count::None if given > 0 => "accepts no arguments".to_owned(),
        Count::Exactly(count) if given != count => format!("requires {count} {}", plural(count)),
        Count::AtLeast(count) if given < count => format!("requires at least {count} {}", plural(count)),
        Count::AtMost(count) if given > count => format!("requires at most {count} {}", plural(count)),
        Count::Between(least, most) if given < least || given > most => {
            format!("requires at least {least} and at most {most} {}", plural(most))
        }
        _ => return Ok(()),
    };
    let path = at.full_path();
    let mut mistake = at.mistake(&format!("{}: '{path}' {text}", at.program), 1);
    // For a lower bound the last line has always read "See", for all others "Run".
    if matches!(command.count, Count::AtLeast(_)) {
        mistake.text = mistake.text.replace(&format!("\n\nRun '{path}"), &format!("\n\nSee '{path}"));
    }
    Err(mistake)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::args::tree::ROOT;

    fn line(text: &str) -> Result<Parsed, Mistake> {
        parse("docker", &ROOT, &text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn run(text: &str) -> (Vec<&'static str>, Matches) {
        match line(text) {
            Ok(Parsed::Run { path, matches, .. }) => (path, matches),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn flags_end_at_the_image_of_run() {
        let (path, matches) = run("run -it --rm -p80:80 -e=A=b busybox ls -l --color");
        assert_eq!(path, ["run"]);
        assert!(matches.bool("interactive") && matches.bool("tty") && matches.bool("rm"));
        assert_eq!((matches.str("publish"), matches.str("env")), ("80:80", "A=b"));
        assert_eq!(matches.args, ["busybox", "ls", "-l", "--color"]);
    }

    #[test]
    fn flags_may_follow_names_elsewhere() {
        let (path, matches) = run("container ps -a --filter a=b -f c=d");
        assert_eq!(
            (path.as_slice(), matches.list("filter")),
            (&["container", "ls"][..], &["a=b".to_owned(), "c=d".to_owned()][..])
        );
        let (_, matches) = run("stop web -t 5 -- -odd");
        assert_eq!(
            (matches.args.as_slice(), matches.int("timeout")),
            (&["web".to_owned(), "-odd".to_owned()][..], Some(5))
        );
    }

    #[test]
    fn a_slip_is_understood() {
        for (slip, meant) in [("rnu", "run"), ("imgaes", "images"), ("psx", "ps"), ("contianer", "container")]
        {
            let words = [slip.to_owned()];
            let Ok(Parsed::Outside { otherwise, .. }) = parse("corten", &ROOT, &words) else {
                panic!("{slip}")
            };
            let hint = format!("hint: did you mean 'corten {meant}'?");
            assert!(otherwise.text.ends_with(&hint), "{}", otherwise.text);
        }
        assert!(
            matches!(line("rnu"), Ok(Parsed::Outside { otherwise, .. }) if !otherwise.text.contains("hint"))
        );
        assert_eq!((distance("zebra", "run"), distance("ab", "ba")), (5, 1));
    }

    #[test]
    fn booleans_take_values_only_with_an_equals_sign() {
        assert!(!run("run --sig-proxy=false x").1.bool_or_true("sig-proxy"));
        assert!(run("run x").1.bool_or_true("sig-proxy"));
        assert_eq!(run("run --rm false").1.args, ["false"]);
    }

    #[test]
    fn help_wins_over_missing_arguments() {
        assert!(matches!(line("run --help"), Ok(Parsed::Help { asked: true, .. })));
        assert!(matches!(line("help container ls"), Ok(Parsed::Help { asked: true, .. })));
        assert!(matches!(line("network"), Ok(Parsed::Help { asked: false, .. })));
        assert!(matches!(line("-v"), Ok(Parsed::Version)));
        assert!(matches!(line("buildx x"), Ok(Parsed::Outside { name, .. }) if name == "buildx"));
    }

    proptest! {
        #[test]
        fn any_words_are_understood_or_refused(words in proptest::collection::vec(prop_oneof![
            Just("run".to_owned()), Just("container".to_owned()), Just("--".to_owned()), Just("-it".to_owned()),
            Just("--rm=false".to_owned()), Just("-e".to_owned()), Just("--help".to_owned()), "\\PC{0,8}", "-[a-z=]{0,5}",
            "--[a-z=-]{0,9}",
        ], 0..8)) {
            let _ = parse("docker", &ROOT, &words);
        }
    }
}
