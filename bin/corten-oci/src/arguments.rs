//! The command line: flags as callers of runtimes know them, with one dash or two, values after `=` or a space.

use std::collections::VecDeque;
use std::path::PathBuf;

use sandbox::cgroup::Driver;

use crate::Failure;

pub const HELP: &str = "\
corten-oci: an OCI runtime

usage: corten-oci [global options] COMMAND [options] [arguments]

commands:
  create      make a container that waits
  start       let a created container run its program
  run         create and start
  exec        run another program in a container
  state       print a container's state
  list        list containers
  ps          list a container's processes
  events      print a container's statistics (with --stats)
  kill        send a signal
  delete      remove a container
  pause       freeze all processes of a container
  resume      let them go on
  update      change a container's limits
  features    print what this runtime can do
  spec        write an example config.json

global options:
  --root DIR              where containers are kept (default /run/corten-oci)
  --log FILE              where errors are written as well
  --log-format FORMAT     text (default) or json
  --cgroup-manager NAME   cgroupfs (default) or systemd
  --systemd-cgroup        the same as --cgroup-manager systemd
  --debug                 accepted and ignored
  --version, -v           print the version
";

/// What is left of the command line.
#[derive(Debug, Default)]
pub struct Arguments(VecDeque<String>);

/// A flag of a command, and whether it takes a value.
pub struct Flag {
    /// All its names, without dashes.
    pub names: &'static [&'static str],
    pub value: bool,
}

pub const fn switch(names: &'static [&'static str]) -> Flag {
    Flag { names, value: false }
}

pub const fn valued(names: &'static [&'static str]) -> Flag {
    Flag { names, value: true }
}

/// The flags that were given, and the words between and after them.
#[derive(Debug, Default)]
pub struct Parsed {
    flags: Vec<(&'static str, String)>,
    pub words: Vec<String>,
}

impl Arguments {
    pub fn from_environment() -> Arguments {
        Arguments(
            std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect(),
        )
    }

    pub fn next_word(&mut self) -> Option<String> {
        self.0.pop_front()
    }

    /// Takes flags and words. With `words_max` the flags end after so many words: what follows belongs to a
    /// program.
    pub fn parse(mut self, flags: &[Flag], words_max: Option<usize>) -> Result<Parsed, Failure> {
        let mut parsed = Parsed::default();
        while let Some(argument) = self.0.pop_front() {
            let full = words_max.is_some_and(|max| parsed.words.len() >= max);
            let is_flag = argument.len() > 1 && argument.starts_with('-');
            if full || !is_flag {
                parsed.words.push(argument);
            } else if argument == "--" {
                parsed.words.extend(self.0.drain(..));
            } else {
                let (name, value) = take(&argument, &mut self.0, flags)?;
                parsed.flags.push((name, value));
            }
        }
        Ok(parsed)
    }
}

fn take(
    argument: &str,
    rest: &mut VecDeque<String>,
    flags: &[Flag],
) -> Result<(&'static str, String), Failure> {
    let name = argument.trim_start_matches('-');
    let (name, value) = match name.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (name, None),
    };
    let Some(flag) = flags.iter().find(|flag| flag.names.contains(&name)) else {
        return Err(Failure(format!("flag provided but not defined: {argument}")));
    };
    let value = match (flag.value, value) {
        (_, Some(value)) => value,
        (true, None) => {
            rest.pop_front().ok_or_else(|| Failure(format!("flag needs an argument: {argument}")))?
        }
        (false, None) => "true".into(),
    };
    Ok((flag.names[0], value))
}

impl Parsed {
    /// The last value of a flag, by its first name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a flag, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.flags.iter().filter(move |(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value != "false")
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.value(name)
            .map(|text| text.parse().map_err(|_| Failure(format!("invalid value {text:?} for flag -{name}"))))
            .transpose()
    }

    /// The container's ID, which is the first word.
    pub fn id(&self) -> Result<&str, Failure> {
        self.words.first().map(String::as_str).ok_or_else(|| Failure("container id cannot be empty".into()))
    }
}

/// What concerns every command.
#[derive(Debug)]
pub struct Global {
    pub root: PathBuf,
    pub log: Option<PathBuf>,
    pub log_json: bool,
    pub cgroup_driver: Driver,
}

impl Global {
    /// Takes the flags in front of the command.
    pub fn parse(arguments: &mut Arguments) -> Result<Global, Failure> {
        const FLAGS: &[Flag] = &[
            valued(&["root"]),
            valued(&["log"]),
            valued(&["log-format"]),
            valued(&["log-level"]),
            valued(&["cgroup-manager"]),
            switch(&["systemd-cgroup"]),
            switch(&["debug"]),
            valued(&["rootless"]),
            valued(&["criu"]),
            switch(&["version", "v"]),
            switch(&["help", "h"]),
        ];
        let mut flags = Vec::new();
        while arguments.0.front().is_some_and(|argument| argument.len() > 1 && argument.starts_with('-')) {
            let Some(argument) = arguments.0.pop_front() else { break };
            flags.push(take(&argument, &mut arguments.0, FLAGS)?);
        }
        let parsed = Parsed { flags, words: Vec::new() };
        if parsed.is_set("version") {
            print_version();
            std::process::exit(0);
        }
        if parsed.is_set("help") {
            print!("{HELP}");
            std::process::exit(0);
        }
        let cgroup_driver = match parsed.value("cgroup-manager") {
            Some("systemd") => Driver::Systemd,
            Some("cgroupfs") => Driver::Cgroupfs,
            None if parsed.is_set("systemd-cgroup") => Driver::Systemd,
            None => Driver::Cgroupfs,
            Some(other) => return Err(Failure(format!("cgroup manager {other:?} is not known"))),
        };
        Ok(Global {
            root: parsed.value("root").map_or_else(default_root, PathBuf::from),
            log: parsed.value("log").filter(|path| !path.is_empty()).map(PathBuf::from),
            log_json: parsed.value("log-format") == Some("json"),
            cgroup_driver,
        })
    }
}

fn default_root() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !rustix::process::geteuid().is_root() => {
            PathBuf::from(directory).join("corten-oci")
        }
        _ => "/run/corten-oci".into(),
    }
}

fn print_version() {
    println!("corten-oci version {}", env!("CARGO_PKG_VERSION"));
    println!("spec: {}", oci::runtime::OCI_VERSION);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str], words_max: Option<usize>) -> Result<Parsed, Failure> {
        let flags = [valued(&["bundle", "b"]), switch(&["detach", "d"]), valued(&["env", "e"])];
        Arguments(words.iter().map(|word| (*word).to_owned()).collect()).parse(&flags, words_max)
    }

    #[test]
    fn flags_have_one_dash_or_two_and_values_in_two_places() {
        for words in
            [["--bundle=/x", "-d", "id"].as_slice(), &["-b", "/x", "id", "--detach"], &["id", "-d", "-b=/x"]]
        {
            let parsed = parse(words, None).unwrap();
            assert_eq!(
                (parsed.value("bundle"), parsed.is_set("detach"), parsed.id().unwrap()),
                (Some("/x"), true, "id")
            );
        }
        let parsed = parse(&["-e", "A=b", "-e", "C=d", "id", "sh", "-d", "--x"], Some(2)).unwrap();
        assert_eq!(parsed.values("env").collect::<Vec<_>>(), ["A=b", "C=d"]);
        assert_eq!(parsed.words, ["id", "sh", "-d", "--x"]);
        assert!(!parsed.is_set("detach"));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(parse(&["--nothing"], None).is_err());
        assert!(parse(&["id", "--bundle"], None).is_err());
        assert!(parse(&[], None).unwrap().id().is_err());
    }
}
