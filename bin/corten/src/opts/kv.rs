//! `key=value` from flags and files: environment and labels.

use std::fs;

use api_types::StringMap;

/// The longest environment or label file that is read.
const MAX_FILE: u64 = 16 << 20;

/// Lines of the files, then the values, with what is missing filled in by `look_up`.
fn all(
    files: &[String],
    values: &[String],
    look_up: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for path in files {
        let opened = |error: std::io::Error| format!("open {path}: {}", describe(&error));
        let size = fs::metadata(path).map_err(opened)?.len();
        if size > MAX_FILE {
            return Err(format!("file {path} is longer than {MAX_FILE} bytes"));
        }
        let text = fs::read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::IsADirectory => {
                format!("invalid env file ({path}): read {path}: is a directory")
            }
            _ => opened(error),
        })?;
        let text =
            String::from_utf8(text).map_err(|_| format!("env file {path} contains invalid utf8 bytes"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        for (number, line) in text.lines().enumerate() {
            found.extend(line_of_file(path, number, line, &look_up)?);
        }
    }
    found.extend(values.iter().cloned());
    Ok(found)
}

fn line_of_file(
    path: &str,
    number: usize,
    line: &str,
    look_up: &impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    let line = line.trim_start_matches([' ', '\t']);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = match line.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (line.trim(), None),
    };
    let name = name.trim_start_matches([' ', '\t']);
    if name.is_empty() {
        return Err(format!("invalid env file ({path}): no variable name on line '{line}'"));
    }
    if name.contains([' ', '\t']) {
        return Err(format!("invalid env file ({path}): variable '{name}' contains whitespaces"));
    }
    let _ = number;
    Ok(match value {
        Some(value) => Some(format!("{name}={value}")),
        None => look_up(name).map(|value| format!("{name}={value}")),
    })
}

/// What the system says about an error, in Go's words: lower case, no number.
pub fn describe(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => "no such file or directory".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "is a directory".to_owned(),
        ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let mut chars = text.chars();
            chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
        }
    }
}

/// The environment of a new container. A name alone takes its value from ours, if we have it.
pub fn environment(files: &[String], values: &[String]) -> Result<Vec<String>, String> {
    let ours = |name: &str| std::env::var(name).ok();
    let values: Vec<String> = values
        .iter()
        .map(|value| match value.contains('=') {
            true => value.clone(),
            false => ours(value).map_or_else(|| value.clone(), |found| format!("{value}={found}")),
        })
        .collect();
    all(files, &values, ours)
}

/// Labels as a map; a name alone has the empty value.
pub fn labels(files: &[String], values: &[String]) -> Result<StringMap, String> {
    Ok(map(&all(files, values, |_| Some(String::new()))?))
}

/// `key=value` texts as a map.
pub fn map(values: &[String]) -> StringMap {
    values
        .iter()
        .map(|value| {
            let (key, value) = value.split_once('=').unwrap_or((value, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_files() {
        let line =
            |text: &str| line_of_file("f", 0, text, &|name| (name == "HOME").then(|| "/root".to_owned()));
        assert_eq!(line("A=b c"), Ok(Some("A=b c".to_owned())));
        assert_eq!(line("  # no"), Ok(None));
        assert_eq!(line("HOME"), Ok(Some("HOME=/root".to_owned())));
        assert_eq!(line("OTHER"), Ok(None));
        assert_eq!(line("A=\"q\""), Ok(Some("A=\"q\"".to_owned())));
        assert!(line("=x").is_err());
        assert!(line("A B=x").is_err());
    }

    #[test]
    fn labels_without_value_are_empty() {
        let map = labels(&[], &["a".to_owned(), "b=c=d".to_owned()]).expect("valid");
        assert_eq!((map["a"].as_str(), map["b"].as_str()), ("", "c=d"));
        assert_eq!(
            environment(&["/nonexist".to_owned()], &[]),
            Err("open /nonexist: no such file or directory".to_owned())
        );
    }
}
