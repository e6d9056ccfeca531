//! Logical lines to instructions, and instructions to stages.

use crate::flags::{Flags, Form};
use crate::instruction::{Add, Command, Copy, CopySource, Healthcheck, Heredoc, Instruction, Mount, Run};
use crate::lines::{self, Directives, Line};
use crate::{Error, FILE_BYTES_MAX, words};

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    pub directives: Directives,
    /// `ARG`s before the first `FROM`.
    pub arguments: Vec<Step>,
    pub stages: Vec<Stage>,
}

/// From one `FROM` to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Image or earlier stage, not expanded.
    pub base: String,
    /// Lower case.
    pub name: Option<String>,
    /// Not expanded.
    pub platform: Option<String>,
    /// The `FROM` as it is printed.
    pub text: String,
    pub line: usize,
    pub steps: Vec<Step>,
}

/// An instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub instruction: Instruction,
    /// The instruction as it is printed: continuations joined, comments gone.
    pub text: String,
    /// First line, from 1.
    pub line: usize,
}

enum Parsed {
    From { base: String, name: Option<String>, platform: Option<String> },
    Step(Instruction),
}

/// Parses a file.
pub fn parse(text: &str) -> Result<Dockerfile, Error> {
    if text.len() > FILE_BYTES_MAX {
        return Err(Error::File(format!("the Dockerfile is larger than {FILE_BYTES_MAX} bytes")));
    }
    let (directives, lines) = lines::read(text)?;
    if lines.is_empty() {
        return Err(Error::File("file with no instructions".into()));
    }
    let mut file = Dockerfile { directives, arguments: Vec::new(), stages: Vec::new() };
    for line in lines {
        let bad = |what| Error::Line { line: line.start, what };
        let parsed = instruction(&line, file.directives.escape).map_err(bad)?;
        match parsed {
            Parsed::From { base, name, platform } => file.stages.push(Stage {
                base,
                name,
                platform,
                text: line.text.clone(),
                line: line.start,
                steps: Vec::new(),
            }),
            Parsed::Step(instruction) => {
                let is_argument = matches!(instruction, Instruction::Arg(_));
                let step = Step { instruction, text: line.text.clone(), line: line.start };
                match file.stages.last_mut() {
                    Some(stage) => stage.steps.push(step),
                    None if is_argument => file.arguments.push(step),
                    None => return Err(bad("no build stage in current context".into())),
                }
            }
        }
    }
    if file.stages.is_empty() {
        return Err(Error::File("no build stage in current context".into()));
    }
    Ok(file)
}

/// Parses an instruction that stands alone: a trigger of `ONBUILD`, or a change of `commit` and `import`.
pub fn parse_trigger(text: &str) -> Result<Step, Error> {
    let (directives, mut lines) = lines::read(text)?;
    let (Some(line), true) = (lines.pop(), lines.is_empty()) else {
        return Err(Error::File(format!("{text:?} is not one instruction")));
    };
    match instruction(&line, directives.escape) {
        Ok(Parsed::Step(instruction)) => Ok(Step { instruction, text: line.text, line: 1 }),
        Ok(Parsed::From { .. }) => Err(Error::File("FROM isn't allowed as an ONBUILD trigger".into())),
        Err(what) => Err(Error::Line { line: 1, what }),
    }
}

const COPY_FLAGS: &[(&str, Form)] = &[
    ("from", Form::Text),
    ("chown", Form::Text),
    ("chmod", Form::Text),
    ("link", Form::Boolean),
    ("parents", Form::Boolean),
    ("exclude", Form::List),
];
const ADD_FLAGS: &[(&str, Form)] = &[
    ("chown", Form::Text),
    ("chmod", Form::Text),
    ("link", Form::Boolean),
    ("exclude", Form::List),
    ("checksum", Form::Text),
    ("keep-git-dir", Form::Boolean),
    ("unpack", Form::Boolean),
];
const RUN_FLAGS: &[(&str, Form)] =
    &[("mount", Form::List), ("network", Form::Text), ("security", Form::Text), ("device", Form::List)];
const HEALTHCHECK_FLAGS: &[(&str, Form)] = &[
    ("interval", Form::Text),
    ("timeout", Form::Text),
    ("start-period", Form::Text),
    ("start-interval", Form::Text),
    ("retries", Form::Text),
];

fn instruction(line: &Line, escape: char) -> Result<Parsed, String> {
    let (word, arguments) = match line.text.split_once(char::is_whitespace) {
        Some((word, arguments)) => (word, arguments.trim()),
        None => (line.text.as_str(), ""),
    };
    let keyword = word.to_ascii_uppercase();
    let known: &[(&str, Form)] = match keyword.as_str() {
        "FROM" => &[("platform", Form::Text)],
        "COPY" => COPY_FLAGS,
        "ADD" => ADD_FLAGS,
        "RUN" => RUN_FLAGS,
        "HEALTHCHECK" => HEALTHCHECK_FLAGS,
        // The command after them may have anything.
        "ONBUILD" => return onbuild(arguments, escape, line),
        _ => &[],
    };
    // What is no instruction at all is told first.
    let takes_flags = !known.is_empty() || arguments.starts_with("--");
    let is_known = KEYWORDS.contains(&keyword.as_str());
    if !is_known {
        return Err(format!("unknown instruction: {word}"));
    }
    let (flags, rest) = if takes_flags {
        Flags::take(arguments, escape, known)?
    } else {
        (Flags::default(), arguments.to_owned())
    };
    let rest = rest.trim();
    let at_least_one = || format!("{keyword} requires at least one argument");
    let exactly_one = || format!("{keyword} requires exactly one argument");
    let list = |text: &str| -> Result<Vec<String>, String> {
        let list = words::json_or_blanks(text)?;
        if list.is_empty() { Err(at_least_one()) } else { Ok(list) }
    };
    let whole = || if rest.is_empty() { Err(exactly_one()) } else { Ok(rest.to_owned()) };
    Ok(Parsed::Step(match keyword.as_str() {
        "FROM" => return from(rest, &flags),
        "ADD" => Instruction::Add(Add {
            copy: copy(rest, &flags, line, &keyword)?,
            checksum: flags.text("checksum"),
            keep_git_dir: flags.boolean("keep-git-dir"),
            unpack: flags.text("unpack").map(|value| value == "true"),
        }),
        "COPY" => Instruction::Copy(copy(rest, &flags, line, &keyword)?),
        "ARG" => Instruction::Arg(arg(rest, escape)?),
        "CMD" => Instruction::Cmd(command(rest)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)?),
        "ENV" => Instruction::Env(words::pairs(rest, escape, &keyword)?),
        "LABEL" => Instruction::Label(words::pairs(rest, escape, &keyword)?),
        "EXPOSE" => {
            let mut ports = words::quoted(rest, escape);
            if ports.is_empty() {
                return Err(at_least_one());
            }
            ports.sort();
            Instruction::Expose(ports)
        }
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(rest, &flags)?),
        "MAINTAINER" => Instruction::Maintainer(whole()?),
        "RUN" => Instruction::Run(run(rest, &flags, line)?),
        "SHELL" => match words::json(rest)? {
            Some(shell) if !shell.is_empty() => Instruction::Shell(shell),
            Some(_) => return Err(at_least_one()),
            None => return Err("SHELL requires the arguments to be in JSON form".into()),
        },
        "STOPSIGNAL" => match rest.split_whitespace().collect::<Vec<_>>()[..] {
            [signal] => Instruction::Stopsignal(signal.to_owned()),
            _ => return Err(exactly_one()),
        },
        "USER" => Instruction::User(whole()?),
        "VOLUME" => {
            let volumes = list(rest)?;
            if volumes.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".into());
            }
            Instruction::Volume(volumes)
        }
        "WORKDIR" => Instruction::Workdir(whole()?),
        _ => return Err(format!("unknown instruction: {word}")),
    }))
}

const KEYWORDS: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn from(rest: &str, flags: &Flags) -> Result<Parsed, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (base, name) = match words[..] {
        [base] => (base, None),
        [base, as_word, name] if as_word.eq_ignore_ascii_case("as") => (base, Some(name)),
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    let name = name.map(stage_name).transpose()?;
    Ok(Parsed::From { base: base.to_owned(), name, platform: flags.text("platform") })
}

fn stage_name(name: &str) -> Result<String, String> {
    let lower = name.to_ascii_lowercase();
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    if lower.starts_with(|c: char| c.is_ascii_lowercase()) && lower.bytes().all(valid) {
        return Ok(lower);
    }
    Err(format!("invalid name for build stage: {name:?}, name can't start with a number or contain symbols"))
}

fn onbuild(arguments: &str, escape: char, line: &Line) -> Result<Parsed, String> {
    let Some(keyword) = arguments.split_whitespace().next() else {
        return Err("ONBUILD requires at least one argument".into());
    };
    match keyword.to_ascii_uppercase().as_str() {
        "ONBUILD" => Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        upper @ ("MAINTAINER" | "FROM") => Err(format!("{upper} isn't allowed as an ONBUILD trigger")),
        _ => {
            // Wrong triggers are told here, not to those who build on the image.
            let trigger = Line { text: arguments.to_owned(), ..line.clone() };
            instruction(&trigger, escape)?;
            let mut text = arguments.to_owned();
            for heredoc in &line.heredocs {
                text.push_str(&format!("\n{}{}\n", heredoc.content, heredoc.name));
            }
            Ok(Parsed::Step(Instruction::Onbuild(text)))
        }
    }
}

fn command(rest: &str) -> Result<Command, String> {
    Ok(match words::json(rest)? {
        Some(words) => Command::Exec(words),
        None => Command::Shell(rest.to_owned()),
    })
}

fn arg(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    let words = words::quoted(rest, escape);
    if words.is_empty() {
        return Err("ARG requires at least one argument".into());
    }
    let one = |word: String| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".to_owned()),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word, None)),
    };
    words.into_iter().map(one).collect()
}

fn copy(rest: &str, flags: &Flags, line: &Line, keyword: &str) -> Result<Copy, String> {
    let mut words = words::json_or_blanks(rest)?;
    let Some(destination) = words.pop() else {
        return Err(format!(
            "{keyword} requires at least two arguments, but only zero was provided. Destination could not be determined"
        ));
    };
    if words.is_empty() {
        return Err(format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        ));
    }
    if destination.starts_with("<<") && !line.heredocs.is_empty() {
        return Err(format!("{keyword} cannot accept a heredoc as a destination"));
    }
    let mut heredocs = line.heredocs.iter();
    let sources = words
        .into_iter()
        .map(|word| match word.strip_prefix("<<") {
            Some(_) => heredocs.next().cloned().map_or(CopySource::Path(word), CopySource::Heredoc),
            None => CopySource::Path(word),
        })
        .collect();
    Ok(Copy {
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.boolean("link"),
        parents: flags.boolean("parents"),
        exclude: flags.list("exclude"),
        sources,
        destination,
    })
}

fn run(rest: &str, flags: &Flags, line: &Line) -> Result<Run, String> {
    if rest.is_empty() {
        return Err("RUN requires at least one argument".into());
    }
    let mounts = flags.list("mount").iter().map(|text| mount(text)).collect();
    let heredocs: Vec<Heredoc> = line.heredocs.clone();
    Ok(Run {
        command: command(rest)?,
        heredocs,
        mounts,
        network: flags.text("network"),
        security: flags.text("security"),
        devices: flags.list("device"),
    })
}

fn mount(text: &str) -> Mount {
    Mount(
        text.split(',')
            .map(|part| match part.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (part.to_owned(), None),
            })
            .collect(),
    )
}

fn healthcheck(rest: &str, flags: &Flags) -> Result<Option<Healthcheck>, String> {
    let (kind, command_text) = match rest.split_once(char::is_whitespace) {
        Some((kind, command)) => (kind, command.trim()),
        None => (rest, ""),
    };
    match kind.to_ascii_uppercase().as_str() {
        "" => Err("HEALTHCHECK requires at least one argument".into()),
        "NONE" if command_text.is_empty() => Ok(None),
        "NONE" => Err("HEALTHCHECK NONE takes no arguments".into()),
        "CMD" if command_text.is_empty() => Err("Missing command after HEALTHCHECK CMD".into()),
        "CMD" => {
            let retries = match flags.text("retries") {
                None => 0,
                Some(text) => {
                    let retries: i64 = text.parse().map_err(|_| format!("invalid retries {text:?}"))?;
                    if retries < 0 {
                        return Err(format!("--retries cannot be negative ({retries})"));
                    }
                    retries
                }
            };
            Ok(Some(Healthcheck {
                command: command(command_text)?,
                interval: interval(flags, "interval")?,
                timeout: interval(flags, "timeout")?,
                start_period: interval(flags, "start-period")?,
                start_interval: interval(flags, "start-interval")?,
                retries,
            }))
        }
        _ => Err(format!("Unknown type {:?} in HEALTHCHECK (try CMD)", kind.to_ascii_uppercase())),
    }
}

fn interval(flags: &Flags, name: &str) -> Result<i64, String> {
    let Some(text) = flags.text(name) else { return Ok(0) };
    let nanos = duration(&text).ok_or_else(|| format!("time: invalid duration {text:?}"))?;
    if nanos < 0 {
        return Err(format!("Interval {name:?} cannot be negative"));
    }
    if nanos != 0 && nanos < 1_000_000 {
        return Err(format!("Interval {name:?} cannot be less than 1ms"));
    }
    Ok(nanos)
}

/// Go's durations: `1h30m`, `1.5s`, `300ms`.
fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * scale;
        rest = &rest[unit..];
    }
    // Far below where a 64-bit count of nanoseconds ends (292 years).
    if total > 9e18 {
        return None;
    }
    let total = total as i64;
    Some(if negative { -total } else { total })
}
