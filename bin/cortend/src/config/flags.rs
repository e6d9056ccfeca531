//! The command line, in `pflag`'s grammar, and its help.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::{Given, Kind, SETTINGS, Setting};

/// Reads the command line. Arguments that are no flags are refused.
pub fn parse(arguments: &[String]) -> Result<Given> {
    let mut given = Given::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if let Some(long) = argument.strip_prefix("--").filter(|long| !long.is_empty()) {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (long, None),
            };
            let found = SETTINGS.iter().find(|setting| setting.flag == name && !name.is_empty());
            let Some(found) = found else { bail!("unknown flag: --{name}") };
            take(&mut given, found, value, &mut rest, &format!("--{name}"))?;
        } else if let Some(short) = argument.strip_prefix('-').filter(|short| !short.is_empty()) {
            for (at, letter) in short.char_indices() {
                let found = SETTINGS.iter().find(|setting| setting.short == Some(letter));
                let Some(found) = found else { bail!("unknown shorthand flag: '{letter}' in -{short}") };
                if found.kind == Kind::Switch {
                    given.insert(found.name(), Value::Bool(true));
                    continue;
                }
                let tail = &short[at + letter.len_utf8()..];
                let value = (!tail.is_empty()).then(|| tail.strip_prefix('=').unwrap_or(tail).to_string());
                take(&mut given, found, value, &mut rest, &format!("'{letter}' in -{short}"))?;
                break;
            }
        } else {
            bail!("accepts no arguments, but got \"{argument}\"");
        }
    }
    Ok(given)
}

fn take(
    given: &mut Given,
    setting: &Setting,
    value: Option<String>,
    rest: &mut std::slice::Iter<'_, String>,
    shown: &str,
) -> Result<()> {
    let value = match (value, setting.kind) {
        (Some(value), _) => value,
        (None, Kind::Switch) => "true".into(),
        (None, _) => rest.next().cloned().with_context(|| format!("flag needs an argument: {shown}"))?,
    };
    let place = given.entry(setting.name()).or_insert(Value::Null);
    if let Err(why) = add(place, setting.kind, &value) {
        bail!("invalid argument \"{value}\" for \"--{}\" flag: {why}", setting.flag);
    }
    Ok(())
}

/// Puts one value of a flag into the shape that the file has.
fn add(place: &mut Value, kind: Kind, text: &str) -> Result<(), String> {
    let pair = || text.split_once('=').ok_or_else(|| format!("invalid key=value pair: {text}"));
    match kind {
        Kind::Switch => {
            *place = match text {
                "true" | "1" | "t" | "T" | "TRUE" | "True" => Value::Bool(true),
                "false" | "0" | "f" | "F" | "FALSE" | "False" => Value::Bool(false),
                _ => return Err(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax")),
            };
        }
        Kind::Text => *place = text.into(),
        Kind::Number => {
            let number: i64 =
                text.parse().map_err(|_| format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))?;
            *place = number.into();
        }
        Kind::List => push(place, text.into()),
        Kind::Map => {
            let (key, value) = pair()?;
            member(place, key, value.into());
        }
        Kind::Switches => {
            let (key, value) = text.split_once('=').unwrap_or((text, "true"));
            let on =
                value.parse::<bool>().map_err(|_| format!("invalid boolean value for {key}: {value}"))?;
            member(place, key, on.into());
        }
        Kind::Ulimits => {
            let (name, value) =
                text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
            let (soft, hard) = value.split_once(':').unwrap_or((value, value));
            let number = |text: &str| {
                text.parse::<i64>()
                    .map_err(|_| format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
            };
            member(place, name, json!({"Name": name, "Soft": number(soft)?, "Hard": number(hard)?}));
        }
        Kind::Pools => {
            let mut pool = Map::new();
            for part in text.split(',') {
                let (key, value) = part
                    .split_once('=')
                    .ok_or_else(|| format!("invalid field '{part}' must be a key=value pair"))?;
                let value = match key.trim() {
                    "base" => value.into(),
                    "size" => {
                        value.parse::<i64>().map_err(|_| format!("invalid size value: {value}"))?.into()
                    }
                    other => return Err(format!("unexpected key '{other}' in '{text}'")),
                };
                pool.insert(key.trim().into(), value);
            }
            push(place, pool.into());
        }
        Kind::Runtimes => {
            let (name, path) = text
                .split_once('=')
                .filter(|(name, path)| !name.trim().is_empty() && !path.trim().is_empty())
                .ok_or_else(|| format!("invalid value: {text}: use NAME=PATH"))?;
            member(place, name.trim(), json!({"path": path.trim()}));
        }
        Kind::NetworkOptions => {
            let (driver, option) = pair()?;
            let (key, value) =
                option.split_once('=').ok_or_else(|| format!("invalid key=value pair: {option}"))?;
            let mut options = place.get(driver).cloned().unwrap_or(Value::Null);
            member(&mut options, key, value.into());
            member(place, driver, options);
        }
        Kind::Object => return Err("it can only stand in the file".into()),
    }
    Ok(())
}

fn push(place: &mut Value, value: Value) {
    match place {
        Value::Array(list) => list.push(value),
        _ => *place = Value::Array(vec![value]),
    }
}

fn member(place: &mut Value, key: &str, value: Value) {
    match place {
        Value::Object(members) => drop(members.insert(key.into(), value)),
        _ => *place = Value::Object(Map::from_iter([(key.to_string(), value)])),
    }
}

pub fn help(program: &str) -> String {
    let mut text =
        format!("\nUsage:  {program} [OPTIONS]\n\nA self-sufficient runtime for containers.\n\nOptions:\n");
    let shown = SETTINGS.iter().filter(|setting| !setting.flag.is_empty() && !setting.hidden);
    for setting in shown {
        let short = setting.short.map_or_else(|| "    ".into(), |letter| format!("-{letter}, "));
        let kind = match setting.kind {
            Kind::Switch | Kind::Object => "",
            Kind::Text => " string",
            Kind::Number => " int",
            Kind::List => " list",
            Kind::Map | Kind::Switches => " map",
            Kind::Ulimits => " ulimit",
            Kind::Pools => " pool-options",
            Kind::Runtimes => " runtime",
            Kind::NetworkOptions => " mapmap",
        };
        text.push_str(&format!("  {short}--{:<39} {}\n", format!("{}{kind}", setting.flag), setting.help));
    }
    text
}
