//! Instructions that change nothing but the configuration: in a Dockerfile, and as `--change` of `commit` and `import`.

use dockerfile::{Command, Healthcheck, Instruction, expand};
use oci::{Config, image};

use crate::Error;

/// Instructions that `commit` and `import` take.
const CHANGES: &[&str] = &[
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies the changes that `commit` and `import` were given, one instruction each.
pub fn apply(config: &mut Config, changes: &[String]) -> Result<(), Error> {
    let mut cmd_set = false;
    for change in changes {
        let step = dockerfile::parse_trigger(change).map_err(|error| match error {
            dockerfile::Error::Line { what, .. } => Error::Invalid(what),
            whole => whole.into(),
        })?;
        let keyword = step.instruction.keyword();
        if !CHANGES.contains(&keyword) {
            return Err(Error::Invalid(format!("{keyword} is not a valid change command")));
        }
        let env = config.env.clone();
        let lookup = |name: &str| env_value(&env, name);
        let instruction = expanded(&step.instruction, '\\', &lookup).map_err(Error::Invalid)?;
        apply_one(config, &instruction, &mut cmd_set).map_err(Error::Invalid)?;
    }
    Ok(())
}

/// The value of a variable in a list of `name=value`.
pub fn env_value(env: &[String], name: &str) -> Option<String> {
    env.iter().find_map(|entry| match entry.split_once('=') {
        Some((key, value)) if key == name => Some(value.to_owned()),
        _ => None,
    })
}

/// The shell that runs commands in shell form.
pub fn shell(config: &Config) -> Vec<String> {
    if config.shell.is_empty() { DEFAULT_SHELL.map(str::to_owned).to_vec() } else { config.shell.clone() }
}

/// A command as a list of words.
pub fn command_line(command: &Command, config: &Config) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(line) => {
            let mut words = shell(config);
            words.push(line.clone());
            words
        }
    }
}

/// Replaces variables in those instructions that have them.
pub fn expanded(
    instruction: &Instruction,
    escape: char,
    lookup: expand::Lookup<'_>,
) -> Result<Instruction, String> {
    let word = |text: &String| expand::word(text, escape, lookup);
    let list = |texts: &[String]| texts.iter().map(word).collect::<Result<Vec<String>, String>>();
    let pairs = |pairs: &[(String, String)]| {
        let one = |(name, value): &(String, String)| Ok((word(name)?, word(value)?));
        pairs.iter().map(one).collect::<Result<Vec<_>, String>>()
    };
    Ok(match instruction {
        Instruction::Env(list) => Instruction::Env(pairs(list)?),
        Instruction::Label(list) => Instruction::Label(pairs(list)?),
        Instruction::User(text) => Instruction::User(word(text)?),
        Instruction::Workdir(text) => Instruction::Workdir(word(text)?),
        Instruction::Stopsignal(text) => Instruction::Stopsignal(word(text)?),
        Instruction::Volume(paths) => Instruction::Volume(list(paths)?),
        Instruction::Expose(ports) => {
            let words = ports.iter().map(|port| expand::words(port, escape, lookup));
            Instruction::Expose(words.collect::<Result<Vec<_>, String>>()?.concat())
        }
        other => other.clone(),
    })
}

/// Changes the configuration, and gives the step's text in the history. `cmd_set` is whether this stage has set a
/// command: a new entrypoint drops the one that came with the image, but not that.
pub fn apply_one(
    config: &mut Config,
    instruction: &Instruction,
    cmd_set: &mut bool,
) -> Result<String, String> {
    Ok(match instruction {
        Instruction::Env(pairs) => {
            for (name, value) in pairs {
                set_env(&mut config.env, name, value);
            }
            format!("ENV {}", joined(pairs))
        }
        Instruction::Label(pairs) => {
            config.labels.extend(pairs.iter().cloned());
            format!("LABEL {}", joined(pairs))
        }
        Instruction::Cmd(command) => {
            let words = command_line(command, config);
            *cmd_set = !words.is_empty();
            let text = format!("CMD {}", quoted(&words));
            config.cmd = Some(words);
            text
        }
        Instruction::Entrypoint(command) => {
            let words = match command {
                // `ENTRYPOINT []` clears it.
                Command::Exec(words) => words.clone(),
                shell => command_line(shell, config),
            };
            let text = format!("ENTRYPOINT {}", quoted(&words));
            config.entrypoint = (!words.is_empty()).then_some(words);
            if !*cmd_set {
                config.cmd = None;
            }
            text
        }
        Instruction::Expose(ports) => {
            let mut all = Vec::new();
            for port in ports {
                all.extend(expose(port)?);
            }
            let text = format!("EXPOSE {}", all.join(" "));
            config.exposed_ports.extend(all);
            text
        }
        Instruction::Healthcheck(check) => {
            let check = check.as_ref().map_or_else(none, healthcheck);
            let text = format!("HEALTHCHECK {}", quoted(&check.test));
            config.healthcheck = Some(check);
            text
        }
        Instruction::Onbuild(trigger) => {
            config.on_build.push(trigger.clone());
            format!("ONBUILD {trigger}")
        }
        Instruction::Shell(words) => {
            config.shell.clone_from(words);
            format!("SHELL [{}]", words.join(" "))
        }
        Instruction::Stopsignal(signal) => {
            if !is_signal(signal) {
                return Err(format!("invalid signal: {signal}"));
            }
            config.stop_signal.clone_from(signal);
            format!("STOPSIGNAL {signal}")
        }
        Instruction::User(user) => {
            config.user.clone_from(user);
            format!("USER {user}")
        }
        Instruction::Volume(paths) => {
            if paths.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".into());
            }
            config.volumes.extend(paths.iter().cloned());
            format!("VOLUME [{}]", paths.join(" "))
        }
        Instruction::Workdir(path) => {
            config.working_dir = working_directory(&config.working_dir, path)?;
            format!("WORKDIR {}", config.working_dir)
        }
        other => return Err(format!("{} is not a valid change command", other.keyword())),
    })
}

/// Where a relative `WORKDIR` leads.
pub fn working_directory(current: &str, path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Err("cannot normalize nothing".into());
    }
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("/{current}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    let same = |entry: &&mut String| entry.split_once('=').map_or(entry.as_str(), |(key, _)| key) == name;
    match env.iter_mut().find(same) {
        Some(found) => *found = entry,
        None => env.push(entry),
    }
}

fn joined(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// A list as Go prints it with `%q`.
fn quoted(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "))
}

fn none() -> image::Healthcheck {
    image::Healthcheck { test: vec!["NONE".into()], ..image::Healthcheck::default() }
}

fn healthcheck(check: &Healthcheck) -> image::Healthcheck {
    let test = match &check.command {
        Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        Command::Exec(words) => [&["CMD".to_owned()], words.as_slice()].concat(),
    };
    image::Healthcheck {
        test,
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    }
}

/// `port[-end][/protocol]` as a list of `port/protocol`.
fn expose(text: &str) -> Result<Vec<String>, String> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let invalid = || format!("invalid containerPort: {range}");
    let port = |text: &str| text.parse::<u16>().map_err(|_| invalid());
    let (start, end) = match range.split_once('-') {
        Some((start, end)) => (port(start)?, port(end)?),
        None => (port(range)?, port(range)?),
    };
    if start > end {
        return Err(invalid());
    }
    Ok((start..=end).map(|port| format!("{port}/{protocol}")).collect())
}

fn is_signal(text: &str) -> bool {
    const NAMES: &[&str] = &[
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
    ];
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str| rest.is_empty() || rest[1..].parse::<u32>().is_ok_and(|number| number <= 15);
    NAMES.contains(&name)
        || name
            .strip_prefix("RTMIN")
            .is_some_and(|rest| rest.is_empty() || (rest.starts_with('+') && real_time(rest)))
        || name
            .strip_prefix("RTMAX")
            .is_some_and(|rest| rest.is_empty() || (rest.starts_with('-') && real_time(rest)))
}
