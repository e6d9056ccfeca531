//! The functions a template may call: Go's own, and Docker's.

use serde_json::Value;

use crate::Val;
use crate::printf::{print_value, sprint, sprintf};
use crate::value::{Type, View};

/// The longest text that one call of `pad` may make.
const MAX_PAD: i128 = 1 << 20;

const NAMES: &[&str] = &[
    "and", "call", "html", "index", "slice", "js", "len", "not", "or", "print", "printf", "println",
    "urlquery", "eq", "ge", "gt", "le", "lt", "ne", "json", "split", "join", "title", "lower", "upper",
    "pad", "truncate",
];

pub(crate) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Fixed and variable numbers of arguments.
pub(crate) fn check_count(name: &str, count: usize) -> Result<(), String> {
    let (least, more) = match name {
        "index" | "slice" | "printf" | "call" | "eq" => (1, true),
        "len" | "not" | "json" | "title" | "lower" | "upper" => (1, false),
        "ge" | "gt" | "le" | "lt" | "ne" | "split" | "join" | "truncate" => (2, false),
        "pad" => (3, false),
        _ => (0, true),
    };
    match more {
        true if count < least => {
            Err(format!("wrong number of args for {name}: want at least {least} got {count}"))
        }
        false if count != least => Err(format!("wrong number of args for {name}: want {least} got {count}")),
        _ => Ok(()),
    }
}

/// The Go type that an argument must have, where it is not `any`.
pub(crate) fn wanted(header: bool, name: &str, index: usize) -> Option<&'static str> {
    match (name, index) {
        ("printf" | "split" | "title" | "lower" | "upper" | "pad" | "truncate", 0) => Some("string"),
        ("json" | "join", 0) if header => Some("string"),
        ("join", 0) => Some("[]string"),
        ("split" | "join", 1) => Some("string"),
        ("pad", 1 | 2) | ("truncate", 1) => Some("int"),
        _ => None,
    }
}

pub(crate) fn fits(wanted: &str, value: &Val<'_>) -> bool {
    matches!(
        (wanted, value.view()),
        ("string", View::Str(_))
            | ("int", View::Int(_))
            | ("[]string", View::List(..) | View::Missing | View::Nil)
    )
}

fn text<'a>(value: &'a Val<'_>) -> &'a str {
    match value.view() {
        View::Str(text) => text,
        _ => "",
    }
}

fn int(value: &Val<'_>) -> i128 {
    match value.view() {
        View::Int(int) => int,
        _ => 0,
    }
}

/// Calls a function whose arguments have been counted and whose typed arguments have been checked.
pub(crate) fn call<'d>(header: bool, name: &str, args: &[Val<'d>]) -> Result<Val<'d>, String> {
    if header && matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate") {
        return Ok(args[0].clone());
    }
    Ok(match name {
        "html" => Val::own(escape(&joined(args), html_escape)),
        "js" => Val::own(escape(&joined(args), js_escape)),
        "urlquery" => Val::own(url_query(&joined(args))),
        "print" => Val::own(sprint(args)),
        "println" => {
            let words: Vec<String> = args.iter().map(shown).collect();
            Val::own(words.join(" ") + "\n")
        }
        "printf" => Val::own(sprintf(text(&args[0]), &args[1..])),
        "not" => Val::own(!args[0].truth()),
        "len" => Val::own(length(&args[0])?),
        "index" => index(&args[0], &args[1..])?,
        "slice" => slice(&args[0], &args[1..])?,
        "call" => return Err(call_refused(&args[0], "")),
        "eq" => equal_any(args)?,
        "ne" => Val::own(!equal(&args[0], &args[1])?),
        "lt" => Val::own(less(&args[0], &args[1])?),
        "le" => Val::own(less(&args[0], &args[1])? || equal(&args[0], &args[1])?),
        "gt" => Val::own(!less(&args[0], &args[1])? && !equal(&args[0], &args[1])?),
        "ge" => Val::own(!less(&args[0], &args[1])?),
        "json" => Val::own(to_json(&args[0])),
        "split" => split(text(&args[0]), text(&args[1])),
        "join" => join(&args[0], text(&args[1]))?,
        "title" => Val::own(title(text(&args[0]))),
        "lower" => Val::own(text(&args[0]).to_lowercase()),
        "upper" => Val::own(text(&args[0]).to_uppercase()),
        "pad" => pad(text(&args[0]), int(&args[1]), int(&args[2]))?,
        "truncate" => truncate(text(&args[0]), int(&args[1]))?,
        _ => return Err("no such function".to_owned()),
    })
}

fn shown(value: &Val<'_>) -> String {
    let mut out = String::new();
    crate::printf::print_operand(&mut out, value);
    out
}

/// What the escaping functions work on: a lone string as it is, anything else printed.
fn joined(args: &[Val<'_>]) -> String {
    match args {
        [one] if matches!(one.view(), View::Missing | View::Nil) => {
            let mut out = String::new();
            print_value(&mut out, one);
            out
        }
        args => sprint(args),
    }
}

fn escape(text: &str, one: fn(char) -> Option<String>) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match one(c) {
            Some(escaped) => out.push_str(&escaped),
            None => out.push(c),
        }
        out
    })
}

fn html_escape(c: char) -> Option<String> {
    Some(
        match c {
            '\0' => "\u{fffd}",
            '"' => "&#34;",
            '\'' => "&#39;",
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            _ => return None,
        }
        .to_owned(),
    )
}

fn js_escape(c: char) -> Option<String> {
    Some(match c {
        '\\' => "\\\\".to_owned(),
        '\'' => "\\'".to_owned(),
        '"' => "\\\"".to_owned(),
        '<' => "\\u003C".to_owned(),
        '>' => "\\u003E".to_owned(),
        '&' => "\\u0026".to_owned(),
        '=' => "\\u003D".to_owned(),
        c if c < ' ' => format!("\\u{:04X}", u32::from(c)),
        _ => return None,
    })
}

fn url_query(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            byte if byte.is_ascii_alphanumeric() => out.push(byte as char),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

fn length(value: &Val<'_>) -> Result<usize, String> {
    match value.view() {
        View::Missing | View::Nil => Err("reflect: call of reflect.Value.Type on zero Value".to_owned()),
        View::NilPtr => Err("len of nil pointer".to_owned()),
        View::Str(text) => Ok(text.len()),
        View::List(items, _) => Ok(items.len()),
        View::Map(map, _) => Ok(map.map_or(0, serde_json::Map::len)),
        _ => Err(format!("len of type {}", value.type_name())),
    }
}

fn position(index: &Val<'_>, length: usize, inclusive: bool) -> Result<usize, String> {
    let View::Int(at) = index.view() else {
        return Err(match index.view() {
            View::Missing | View::Nil => "cannot index slice/array with nil".to_owned(),
            _ => format!("cannot index slice/array with type {}", index.type_name()),
        });
    };
    let limit = if inclusive { length + 1 } else { length };
    usize::try_from(at).ok().filter(|at| *at < limit).ok_or_else(|| format!("index out of range: {at}"))
}

fn index<'d>(item: &Val<'d>, keys: &[Val<'d>]) -> Result<Val<'d>, String> {
    if matches!(item.view(), View::Missing | View::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    let mut value = item.clone();
    for key in keys {
        value = match value.view() {
            View::NilPtr | View::Nil | View::Missing => return Err("index of nil pointer".to_owned()),
            View::List(items, of) => {
                let at = position(key, items.len(), false)?;
                value.part(of, |list| list.get(at)).unwrap_or_else(Val::missing)
            }
            View::Str(text) => Val::own(text.as_bytes()[position(key, text.len(), false)?]),
            View::Map(..) if matches!(value.ty, Type::KeyedMap(..)) => {
                let Type::KeyedMap(named, _) = value.ty else { return Err("not a map".to_owned()) };
                return Err(format!("value has type {}; should be {named}", key.type_name()));
            }
            View::Map(_, of) => match key.view() {
                View::Str(name) => value.part(of, |map| map.get(name)).unwrap_or_else(|| Val::nil(of)),
                View::Missing | View::Nil => return Err("value is nil; should be of type string".to_owned()),
                _ => return Err(format!("value has type {}; should be string", key.type_name())),
            },
            _ => return Err(format!("can't index item of type {}", value.type_name())),
        };
    }
    Ok(value)
}

fn slice<'d>(item: &Val<'d>, indexes: &[Val<'d>]) -> Result<Val<'d>, String> {
    let length = match item.view() {
        View::Missing | View::Nil => return Err("slice of untyped nil".to_owned()),
        View::Str(_) if indexes.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        _ if indexes.len() > 3 => return Err(format!("too many slice indexes: {}", indexes.len())),
        View::Str(text) => text.len(),
        View::List(items, _) => items.len(),
        _ => return Err(format!("can't slice item of type {}", item.type_name())),
    };
    let mut bounds = [0, length];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, length, true)?;
    }
    let [from, to] = bounds;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match item.view() {
        View::Str(text) => Val::own(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()),
        View::List(items, of) => {
            let mut value = Val::own(Value::Array(items[from..to].to_vec()));
            value.ty = if matches!(of, Type::Any) { &Type::Any } else { item.ty };
            value
        }
        _ => Val::missing(),
    })
}

/// Nothing in JSON can be called.
pub(crate) fn call_refused(value: &Val<'_>, shown: &str) -> String {
    match value.view() {
        View::Missing | View::Nil => "call of nil".to_owned(),
        _ => format!("non-function {shown} of type {}", value.type_name()),
    }
}

fn comparable(value: &Val<'_>) -> bool {
    matches!(value.view(), View::Bool(_) | View::Int(_) | View::Float(_) | View::Str(_))
}

fn equal_any<'d>(args: &[Val<'d>]) -> Result<Val<'d>, String> {
    if args.len() < 2 {
        return Err("missing argument for comparison".to_owned());
    }
    for other in &args[1..] {
        if equal(&args[0], other)? {
            return Ok(Val::own(true));
        }
    }
    Ok(Val::own(false))
}

fn equal(left: &Val<'_>, right: &Val<'_>) -> Result<bool, String> {
    use View::{Bool, Float, Int, List, Map, Missing, Nil, NilPtr, Str};
    match (left.view(), right.view()) {
        (Bool(left), Bool(right)) => Ok(left == right),
        (Int(left), Int(right)) => Ok(left == right),
        (Float(left), Float(right)) => Ok(left == right),
        (Str(left), Str(right)) => Ok(left == right),
        (Missing | Nil | NilPtr, Missing | Nil | NilPtr) => Ok(true),
        (Missing | Nil | NilPtr, _) | (_, Missing | Nil | NilPtr) => Ok(false),
        (List(..) | Map(..), _) => Err(format!("non-comparable type {}: {}", shown(left), left.type_name())),
        (_, List(..) | Map(..)) => {
            Err(format!("non-comparable type {}: {}", shown(right), right.type_name()))
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn less(left: &Val<'_>, right: &Val<'_>) -> Result<bool, String> {
    if !comparable(left) || !comparable(right) {
        return Err("invalid type for comparison".to_owned());
    }
    match (left.view(), right.view()) {
        (View::Int(left), View::Int(right)) => Ok(left < right),
        (View::Float(left), View::Float(right)) => Ok(left < right),
        (View::Str(left), View::Str(right)) => Ok(left < right),
        (View::Bool(_), View::Bool(_)) => Err("invalid type for comparison".to_owned()),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

/// JSON in Go's layout: no blanks, and zero values for what a type says must be there.
fn to_json(value: &Val<'_>) -> String {
    match (value.value(), value.view()) {
        (None, _) => "null".to_owned(),
        (Some(Value::Null), View::Bool(_)) => "false".to_owned(),
        (Some(Value::Null), View::Int(_) | View::Float(_)) => "0".to_owned(),
        (Some(Value::Null), View::Str(_)) => "\"\"".to_owned(),
        (Some(Value::Null), View::Struct(..)) => "{}".to_owned(),
        (Some(_), _) => typed_json(value),
    }
}

/// Maps are sorted, structs keep the order that they came in.
fn typed_json(value: &Val<'_>) -> String {
    match (value.ty, value.view()) {
        (Type::Any, _) | (_, View::Missing | View::Nil | View::NilPtr) => {
            value.value().map_or("null".to_owned(), Value::to_string)
        }
        (_, View::List(items, of)) if value.value().is_some_and(Value::is_array) => {
            let items: Vec<String> = (0..items.len())
                .filter_map(|at| value.part(of, |list| list.get(at)))
                .map(|item| typed_json(&item))
                .collect();
            format!("[{}]", items.join(","))
        }
        (_, View::Map(Some(map), of)) => {
            object(value, crate::value::sorted(map).into_iter().map(|(key, _)| (key, of)))
        }
        (_, View::Struct(Some(map), fields)) => {
            let of = |key: &String| {
                fields.iter().find(|field| field.key == key).map_or(&Type::Any, |field| field.ty)
            };
            object(value, map.keys().map(|key| (key, of(key))))
        }
        _ => value.value().map_or("null".to_owned(), Value::to_string),
    }
}

fn object<'a>(value: &Val<'_>, keys: impl Iterator<Item = (&'a String, &'static Type)>) -> String {
    let members: Vec<String> = keys
        .filter_map(|(key, of)| {
            let member = value.part(of, |map| map.get(key))?;
            Some(format!("{}:{}", Value::from(key.as_str()), typed_json(&member)))
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

fn split<'d>(text: &str, separator: &str) -> Val<'d> {
    let parts: Vec<Value> = if separator.is_empty() {
        text.chars().map(|c| Value::from(c.to_string())).collect()
    } else {
        text.split(separator).map(Value::from).collect()
    };
    let mut value = Val::own(Value::Array(parts));
    value.ty = &Type::Slice(&Type::Str);
    value
}

fn join<'d>(list: &Val<'d>, separator: &str) -> Result<Val<'d>, String> {
    match list.view() {
        View::Missing | View::Nil => Ok(Val::own("")),
        View::List(items, of) => {
            let words: Vec<String> = (0..items.len())
                .filter_map(|at| list.part(of, |list| list.get(at)))
                .map(|item| shown(&item))
                .collect();
            Ok(Val::own(words.join(separator)))
        }
        _ => Err(format!("expected slice, got {}", list.type_name())),
    }
}

/// Upper case for each letter that follows something that is neither letter, digit nor underscore.
fn title(text: &str) -> String {
    let mut before = ' ';
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        let starts = if before.is_ascii() {
            !(before.is_ascii_alphanumeric() || before == '_')
        } else {
            !before.is_alphanumeric() && before.is_whitespace()
        };
        if starts {
            out.extend(c.to_uppercase())
        } else {
            out.push(c)
        }
        before = c;
        out
    })
}

fn pad<'d>(text: &str, before: i128, after: i128) -> Result<Val<'d>, String> {
    if text.is_empty() {
        return Ok(Val::own(text));
    }
    let width = |count: i128| {
        if count < 0 {
            return Err("strings: negative Repeat count".to_owned());
        }
        if count > MAX_PAD { Err("pad is too wide".to_owned()) } else { Ok(" ".repeat(count as usize)) }
    };
    Ok(Val::own(width(before)? + text + &width(after)?))
}

fn truncate<'d>(text: &str, length: i128) -> Result<Val<'d>, String> {
    let length = usize::try_from(length)
        .map_err(|_| format!("runtime error: slice bounds out of range [:{length}]"))?;
    if text.len() < length {
        return Ok(Val::own(text));
    }
    Ok(Val::own(String::from_utf8_lossy(&text.as_bytes()[..length]).into_owned()))
}
