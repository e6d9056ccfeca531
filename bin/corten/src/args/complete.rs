//! What may come next on a command line.

use super::{Command, Completes, Kind, Section, tree};

/// What to offer.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Words with a tab and their description.
    Words(Vec<String>),
    Files,
    /// Names that only the daemon knows, with what they begin with.
    Objects(Completes, String),
}

/// What may stand in place of the last of `words`, which come after the program's name.
pub fn wanted(words: &[String]) -> Wanted {
    let (last, before) =
        words.split_last().map_or((String::new(), &[][..]), |(last, before)| (last.clone(), before));
    let mut command: &'static Command = &tree::ROOT;
    let mut takes_value = false;
    let mut positional = 0;
    let mut closed = false;
    for word in before {
        if takes_value {
            takes_value = false;
            continue;
        }
        if word == "--" {
            closed = true;
        } else if !closed && word.starts_with('-') && word.len() > 1 {
            takes_value = needs_value(command, word);
        } else if let Some(sub) = command.sub(word).filter(|_| !command.subs.is_empty()) {
            command = sub;
        } else {
            positional += 1;
            closed |= !command.interspersed;
        }
    }
    if takes_value {
        return Wanted::Files;
    }
    if last.starts_with('-') && !closed {
        return Wanted::Words(flags(command, &last));
    }
    if !command.subs.is_empty() {
        let subs =
            command.subs.iter().filter(|sub| sub.name.starts_with(&last) && sub.section != Section::Hidden);
        return Wanted::Words(subs.map(|sub| format!("{}\t{}", sub.name, sub.short)).collect());
    }
    match command.completes {
        Completes::Nothing => Wanted::Words(Vec::new()),
        Completes::Files => Wanted::Files,
        // What runs inside of a container is not known here.
        _ if positional > 0 && !command.interspersed => Wanted::Files,
        kind => Wanted::Objects(kind, last),
    }
}

fn needs_value(command: &Command, word: &str) -> bool {
    if word.contains('=') {
        return false;
    }
    let flag = match word.strip_prefix("--") {
        Some(name) => command.all_flags().find(|flag| flag.name == name),
        // Of bundled flags only the last can take the next word.
        None => {
            word.chars().last().and_then(|short| command.all_flags().find(|flag| flag.short == Some(short)))
        }
    };
    flag.is_some_and(|flag| flag.kind != Kind::Bool)
}

fn flags(command: &Command, prefix: &str) -> Vec<String> {
    let mut found: Vec<String> = command
        .all_flags()
        .filter(|flag| !flag.hidden)
        .map(|flag| (format!("--{}", flag.name), flag.help))
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, help)| format!("{name}\t{}", help.lines().next().unwrap_or_default()))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &[&str]) -> Wanted {
        wanted(&line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    fn first(wanted: Wanted) -> Vec<String> {
        match wanted {
            Wanted::Words(words) => {
                words.iter().map(|word| word.split('\t').next().unwrap_or("").to_owned()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_flags_and_names() {
        assert_eq!(first(ask(&["ru"])), ["run"]);
        assert_eq!(first(ask(&["container", "re"])), ["rename", "restart"]);
        assert_eq!(first(ask(&["run", "--net"])), ["--network", "--network-alias"]);
        assert_eq!(ask(&["run", "-it", "busy"]), Wanted::Objects(Completes::Images, "busy".to_owned()));
        assert_eq!(ask(&["run", "-v", ""]), Wanted::Files);
        assert_eq!(ask(&["run", "busybox", "ca"]), Wanted::Files);
        assert_eq!(ask(&["stop", "we"]), Wanted::Objects(Completes::RunningContainers, "we".to_owned()));
    }
}
