//! `--security-opt`, which may name files.

use serde_json::Value;

use super::kv::describe;

/// Options for the daemon, and the paths that `systempaths=unconfined` uncovers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Security {
    pub options: Vec<String>,
    /// Masked and read-only paths: `Some(vec![])` takes the daemon's defaults away.
    pub paths: Option<Vec<String>>,
}

pub fn parse(values: &[String]) -> Result<Security, String> {
    let mut found = Security::default();
    for value in values {
        if value == "systempaths=unconfined" {
            found.paths = Some(Vec::new());
            continue;
        }
        let split = value.split_once('=').or_else(|| value.split_once(':'));
        match split {
            Some((_, "")) | None if value.split(['=', ':']).next() != Some("no-new-privileges") => {
                return Err(format!("Invalid --security-opt: {}", template::quote(value)));
            }
            Some(("seccomp", "unconfined" | "builtin")) => found.options.push(value.clone()),
            Some(("seccomp", path)) => found.options.push(format!("seccomp={}", seccomp_file(path)?)),
            _ => found.options.push(value.clone()),
        }
    }
    Ok(found)
}

/// A seccomp profile, on one line.
fn seccomp_file(path: &str) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| {
        format!("opening seccomp profile ({path}) failed: open {path}: {}", describe(&error))
    })?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| format!("compacting json for seccomp profile ({path}) failed: {error}"))?;
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |value: &str| parse(&[value.to_owned()]);
        assert_eq!(parse("no-new-privileges").map(|found| found.options.len()), Ok(1));
        assert_eq!(parse("apparmor=unconfined").map(|found| found.options.len()), Ok(1));
        assert_eq!(parse("systempaths=unconfined").map(|found| found.paths), Ok(Some(vec![])));
        assert_eq!(parse("foo"), Err("Invalid --security-opt: \"foo\"".to_owned()));
        assert_eq!(
            parse("seccomp=/nonexist"),
            Err("opening seccomp profile (/nonexist) failed: open /nonexist: no such file or directory"
                .to_owned())
        );
    }
}
