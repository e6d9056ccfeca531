//! YAML as JSON, for files of settings: one document, no aliases, no tags but the plain ones, bounded depth.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

use crate::Error;

/// Deepest nesting.
const DEPTH_MAX: usize = 32;
/// Most scalars and collections.
const NODES_MAX: usize = 200_000;

/// A collection that is being read.
enum Open {
    List(Vec<Value>),
    /// With the key whose value comes next.
    Map(Map<String, Value>, Option<String>),
}

/// Reads a document.
pub fn parse(text: &str) -> Result<Value, Error> {
    let refuse = |what: &str| Error::Syntax(what.to_string());
    let (mut stack, mut root, mut nodes) = (Vec::<Open>::new(), None, 0_usize);
    for event in Parser::new_from_str(text) {
        let (event, place) = event.map_err(|error| Error::Syntax(error.to_string()))?;
        let at = |what: &str| Error::Syntax(format!("{what} in line {}", place.start.line()));
        let done = match event {
            Event::Alias(_) => return Err(at("an alias, which is not allowed here,")),
            Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => return Err(at("a tag")),
            Event::Scalar(_, _, _, Some(_)) => return Err(at("a tag")),
            Event::Scalar(text, style, _, None) => {
                if let Some(Open::Map(members, key @ None)) = stack.last_mut() {
                    if members.contains_key(text.as_ref()) {
                        return Err(at("a key that is there twice"));
                    }
                    *key = Some(text.into_owned());
                    continue;
                }
                if style == ScalarStyle::Plain { plain(&text) } else { Value::String(text.into_owned()) }
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if matches!(stack.last(), Some(Open::Map(_, None))) {
                    return Err(at("a key that is no text"));
                }
                if stack.len() >= DEPTH_MAX {
                    return Err(at("nesting too deep"));
                }
                stack.push(match event {
                    Event::SequenceStart(..) => Open::List(Vec::new()),
                    _ => Open::Map(Map::new(), None),
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(Open::List(items)) => Value::Array(items),
                Some(Open::Map(members, _)) => Value::Object(members),
                None => return Err(at("an end without a beginning")),
            },
            _ => continue,
        };
        nodes += 1;
        if nodes > NODES_MAX {
            return Err(refuse("too many parts"));
        }
        match stack.last_mut() {
            Some(Open::List(items)) => items.push(done),
            Some(Open::Map(members, key)) => {
                members.insert(key.take().ok_or_else(|| at("a value without a key"))?, done);
            }
            None if root.is_none() => root = Some(done),
            None => return Err(refuse("more than one document")),
        }
    }
    root.ok_or_else(|| refuse("it is empty"))
}

/// An unquoted scalar, as YAML's core schema has it.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let based = |digits: &str, base| i64::from_str_radix(digits, base).ok().filter(|number| *number >= 0);
    if let Some(number) = text.strip_prefix("0o").and_then(|digits| based(digits, 8)) {
        return Value::from(number);
    }
    if let Some(number) = text.strip_prefix("0x").and_then(|digits| based(digits, 16)) {
        return Value::from(number);
    }
    // Modes are written so, and read so by the programs that these files are written for.
    let octal =
        text.len() > 1 && text.starts_with('0') && text.bytes().all(|byte| (b'0'..b'8').contains(&byte));
    if let Some(number) = Some(text).filter(|_| octal).and_then(|digits| based(digits, 8)) {
        return Value::from(number);
    }
    if let Ok(number) = text.parse::<i64>() {
        return Value::from(number);
    }
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let number = text.parse::<f64>().ok().filter(|_| decimal).and_then(Number::from_f64);
    number.map_or_else(|| Value::String(text.into()), Value::Number)
}
