//! `--name=value` between an instruction's keyword and its arguments.

/// What an instruction knows of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    /// May come several times.
    List,
    Boolean,
}

/// The flags of one instruction.
#[derive(Debug, Default)]
pub struct Flags(Vec<(String, String)>);

impl Flags {
    /// Takes the flags off the front of an instruction's arguments, and refuses those that `known` does not have. Gives
    /// what is left.
    pub fn take(arguments: &str, escape: char, known: &[(&str, Form)]) -> Result<(Flags, String), String> {
        let (words, rest) = split(arguments, escape);
        let mut flags = Flags::default();
        for word in words {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let Some((_, form)) = known.iter().find(|(known, _)| *known == name) else {
                return Err(format!("unknown flag: --{name}"));
            };
            if *form != Form::List && flags.text(name).is_some() {
                return Err(format!("duplicate flag specified: --{name}"));
            }
            let value = match (form, value) {
                (Form::Boolean, None) => "true",
                (Form::Boolean, Some(value)) => {
                    let lower = value.to_ascii_lowercase();
                    match lower.as_str() {
                        "true" => "true",
                        "false" => "false",
                        _ => return Err(format!("expecting boolean value for flag --{name}, not: {value}")),
                    }
                }
                (_, None) => return Err(format!("missing a value on flag: --{name}")),
                (_, Some(value)) => value,
            };
            flags.0.push((name.to_owned(), value.to_owned()));
        }
        Ok((flags, rest))
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    pub fn boolean(&self, name: &str) -> bool {
        self.text(name).as_deref() == Some("true")
    }
}

/// The words that begin with `--` (without it), and what follows them. `--` alone ends them.
fn split(arguments: &str, escape: char) -> (Vec<String>, String) {
    let mut words = Vec::new();
    let mut rest = arguments.trim_start();
    while let Some(after) = rest.strip_prefix("--") {
        let (word, length) = word(after, escape);
        rest = after[length..].trim_start();
        if word.is_empty() {
            break;
        }
        words.push(word);
    }
    (words, rest.to_owned())
}

/// Up to the next blank outside of quotes; quotes and escapes are taken off. Gives the word and its length in the text.
fn word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut characters = text.char_indices();
    while let Some((index, c)) = characters.next() {
        match quote {
            None if c.is_whitespace() => return (word, index),
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ if c == escape && quote != Some('\'') => match characters.next() {
                Some((_, escaped)) => word.push(escaped),
                None => word.push(c),
            },
            _ => word.push(c),
        }
    }
    (word, text.len())
}
