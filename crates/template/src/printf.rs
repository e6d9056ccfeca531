//! Go's `fmt`: `Sprint`, `Sprintf` and the `%v` of everything.

use std::fmt::Write as _;

use crate::Val;
use crate::quote::{quote, quote_char};
use crate::value::{Type, View, sorted};

/// The widest a width or precision may be, as in Go.
const MAX_WIDTH: i128 = 1_000_000;

/// How an action prints its value.
pub(crate) fn print_value(out: &mut String, value: &Val<'_>) {
    match value.view() {
        View::Missing | View::Nil => out.push_str("<no value>"),
        // Not the outermost: an action looks through a pointer first.
        _ => verb(out, value, &Spec::default(), 'v', 1),
    }
}

/// How a function of `fmt` prints a value with `%v`.
pub(crate) fn print_operand(out: &mut String, value: &Val<'_>) {
    verb(out, value, &Spec::default(), 'v', 0);
}

/// `fmt.Sprint`: a blank between operands of which neither is a string.
pub(crate) fn sprint(args: &[Val<'_>]) -> String {
    let mut out = String::new();
    let mut before_is_text = true;
    for (index, arg) in args.iter().enumerate() {
        let is_text = matches!(arg.view(), View::Str(_));
        if index > 0 && !is_text && !before_is_text {
            out.push(' ');
        }
        print_operand(&mut out, arg);
        before_is_text = is_text;
    }
    out
}

#[derive(Debug, Default, Clone)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
    /// Print the names of a struct's fields.
    names: bool,
}

/// `fmt.Sprintf`.
pub(crate) fn sprintf(format: &str, args: &[Val<'_>]) -> String {
    let mut out = String::new();
    let mut next = 0;
    let mut chars = format.chars().peekable();
    let mut reordered = false;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => break,
            }
            chars.next();
        }
        reordered |= arg_number(&mut chars, &mut next);
        match number(&mut chars, args, &mut next) {
            Number::Bad => out.push_str("%!(BADWIDTH)"),
            Number::None => {}
            Number::Is(width) => {
                spec.minus |= width < 0;
                spec.width = Some(width.unsigned_abs() as usize);
            }
        }
        if chars.peek() == Some(&'.') {
            chars.next();
            reordered |= arg_number(&mut chars, &mut next);
            match number(&mut chars, args, &mut next) {
                Number::Bad => out.push_str("%!(BADPREC)"),
                Number::None => spec.precision = Some(0),
                Number::Is(precision) => spec.precision = usize::try_from(precision).ok(),
            }
        }
        reordered |= arg_number(&mut chars, &mut next);
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(letter) => match args.get(next) {
                None => {
                    let _ = write!(out, "%!{letter}({})", if reordered { "BADINDEX" } else { "MISSING" });
                }
                Some(arg) => {
                    next += 1;
                    spec.zero &= !spec.minus;
                    // `%+v` asks for field names, not for signs.
                    spec.names = letter == 'v' && (spec.plus || spec.sharp);
                    spec.plus &= letter != 'v';
                    verb(&mut out, arg, &spec, letter, 0);
                }
            },
        }
    }
    if !reordered && next < args.len() {
        out.push_str("%!(EXTRA ");
        for (index, arg) in args[next..].iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            named(&mut out, arg, &Spec::default());
        }
        out.push(')');
    }
    out
}

enum Number {
    None,
    Bad,
    Is(i128),
}

fn number(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    args: &[Val<'_>],
    next: &mut usize,
) -> Number {
    if chars.peek() == Some(&'*') {
        chars.next();
        let value = args.get(*next).map(Val::view);
        *next += 1;
        return match value {
            Some(View::Int(value)) if value.abs() <= MAX_WIDTH => Number::Is(value),
            _ => Number::Bad,
        };
    }
    let mut found = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        found = Some(found.unwrap_or(0i128).saturating_mul(10).saturating_add(digit.into()));
    }
    match found {
        None => Number::None,
        Some(value) if value > MAX_WIDTH => Number::Bad,
        Some(value) => Number::Is(value),
    }
}

/// `[3]`: the next operand is the third. True if there was one.
fn arg_number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, next: &mut usize) -> bool {
    if chars.peek() != Some(&'[') {
        return false;
    }
    chars.next();
    let mut at = 0usize;
    for c in chars.by_ref() {
        match c.to_digit(10) {
            Some(digit) => at = at.saturating_mul(10).saturating_add(digit as usize),
            None => break,
        }
    }
    // A number that no operand has stays in range of the counting that follows.
    *next = at.checked_sub(1).unwrap_or(1 << 20).min(1 << 20);
    true
}

/// `type=value`, as in complaints about verbs.
fn named(out: &mut String, value: &Val<'_>, spec: &Spec) {
    match value.view() {
        View::Missing | View::Nil => out.push_str("<nil>"),
        _ => {
            out.push_str(&value.type_name());
            out.push('=');
            verb(out, value, &Spec { width: None, precision: None, ..spec.clone() }, 'v', 0);
        }
    }
}

fn bad_verb(out: &mut String, value: &Val<'_>, letter: char) {
    let _ = write!(out, "%!{letter}(");
    named(out, value, &Spec::default());
    out.push(')');
}

fn verb(out: &mut String, value: &Val<'_>, spec: &Spec, letter: char, depth: usize) {
    if letter == 'T' {
        let name = if value.is_missing() { "<nil>".to_owned() } else { value.type_name() };
        return padded(out, &name, spec, false);
    }
    match value.view() {
        View::Missing | View::Nil if letter == 'v' => padded(out, "<nil>", spec, false),
        View::Missing | View::Nil => bad_verb(out, value, letter),
        View::NilPtr if letter == 'v' => padded(out, "<nil>", spec, false),
        View::NilPtr => {
            let _ = write!(out, "%!{letter}({}=<nil>)", value.type_name());
        }
        View::Bool(bool) if matches!(letter, 'v' | 't') => {
            padded(out, if bool { "true" } else { "false" }, spec, false);
        }
        View::Int(int) => match format_int(int, spec, letter) {
            Some(text) => padded(out, &text, spec, spec.zero && spec.precision.is_none()),
            None => bad_verb(out, value, letter),
        },
        View::Float(float) => match format_float(float, spec, letter) {
            Some(text) => padded(out, &text, spec, spec.zero && float.is_finite()),
            None => bad_verb(out, value, letter),
        },
        View::Str(text) => match format_str(text, spec, letter) {
            Some(text) => padded(out, &text, spec, spec.zero),
            None => bad_verb(out, value, letter),
        },
        View::Bool(_) => bad_verb(out, value, letter),
        View::List(..) | View::Map(..) | View::Struct(..) if depth > 100 => out.push_str("..."),
        View::List(items, of) => {
            out.push('[');
            for at in 0..items.len() {
                if at > 0 {
                    out.push(' ');
                }
                let item = value.part(of, |list| list.get(at)).unwrap_or_else(Val::missing);
                nested(out, &item, spec, letter, depth);
            }
            out.push(']');
        }
        View::Map(map, of) => {
            out.push_str("map[");
            for (at, (key, _)) in map.map(sorted).unwrap_or_default().into_iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                verb(out, &Val::own(key.clone()), spec, letter, depth + 1);
                out.push(':');
                let item = value.part(of, |map| map.get(key)).unwrap_or_else(Val::missing);
                nested(out, &item, spec, letter, depth);
            }
            out.push(']');
        }
        View::Struct(_, fields) => {
            // At the top a pointer to a struct prints what it points to.
            out.push_str(if depth == 0 && matches!(value.ty, Type::Ptr(_)) { "&{" } else { "{" });
            for (at, field) in fields.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                if spec.names {
                    out.push_str(field.name);
                    out.push(':');
                }
                let item =
                    value.part(field.ty, |map| map.get(field.key)).unwrap_or_else(|| Val::nil(field.ty));
                nested(out, &item, spec, letter, depth);
            }
            out.push('}');
        }
    }
}

fn nested(out: &mut String, value: &Val<'_>, spec: &Spec, letter: char, depth: usize) {
    match value.view() {
        // A nil inside of something prints as `<nil>` whatever the verb complains about.
        View::Missing | View::Nil if letter == 'v' => padded(out, "<nil>", spec, false),
        _ => verb(out, value, spec, letter, depth + 1),
    }
}

fn padded(out: &mut String, text: &str, spec: &Spec, zero: bool) {
    let fill = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    if spec.minus {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', fill));
    } else if zero {
        let (sign, rest) = match text.strip_prefix(['-', '+']) {
            Some(rest) => text.split_at(text.len() - rest.len()),
            None => ("", text),
        };
        out.push_str(sign);
        out.extend(std::iter::repeat_n('0', fill));
        out.push_str(rest);
    } else {
        out.extend(std::iter::repeat_n(' ', fill));
        out.push_str(text);
    }
}

fn format_str(text: &str, spec: &Spec, letter: char) -> Option<String> {
    let cut: String = match spec.precision {
        Some(precision) if matches!(letter, 's' | 'v' | 'q') => text.chars().take(precision).collect(),
        _ => text.to_owned(),
    };
    Some(match letter {
        'v' if spec.sharp => quote(&cut),
        'v' | 's' => cut,
        'q' if spec.sharp && !cut.contains('`') => format!("`{cut}`"),
        'q' => quote(&cut),
        'x' | 'X' => {
            let bytes = &text.as_bytes()[..spec.precision.unwrap_or(text.len()).min(text.len())];
            let mut hex = String::new();
            for (at, byte) in bytes.iter().enumerate() {
                if spec.space && at > 0 {
                    hex.push(' ');
                }
                if spec.sharp && (at == 0 || spec.space) {
                    hex.push_str(if letter == 'x' { "0x" } else { "0X" });
                }
                let _ = if letter == 'x' { write!(hex, "{byte:02x}") } else { write!(hex, "{byte:02X}") };
            }
            hex
        }
        _ => return None,
    })
}

fn format_int(int: i128, spec: &Spec, letter: char) -> Option<String> {
    let sign = match (int < 0, spec.plus, spec.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    let absolute = int.unsigned_abs();
    let (prefix, digits) = match letter {
        'v' | 'd' => ("", absolute.to_string()),
        'x' => (if spec.sharp { "0x" } else { "" }, format!("{absolute:x}")),
        'X' => (if spec.sharp { "0X" } else { "" }, format!("{absolute:X}")),
        'o' => (if spec.sharp { "0" } else { "" }, format!("{absolute:o}")),
        'O' => ("0o", format!("{absolute:o}")),
        'b' => (if spec.sharp { "0b" } else { "" }, format!("{absolute:b}")),
        'c' | 'q' | 'U' => {
            let c = u32::try_from(int).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
            return Some(match letter {
                'c' => c.to_string(),
                'q' => quote_char(c),
                _ if spec.sharp => format!("U+{absolute:04X} '{c}'"),
                _ => format!("U+{absolute:04X}"),
            });
        }
        _ => return None,
    };
    let zeros = spec.precision.unwrap_or(0).saturating_sub(digits.len());
    Some(format!("{sign}{prefix}{}{digits}", "0".repeat(zeros)))
}

fn format_float(float: f64, spec: &Spec, letter: char) -> Option<String> {
    let sign = match (float.is_sign_negative(), spec.plus, spec.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    if !float.is_finite() {
        return Some(if float.is_nan() {
            "NaN".into()
        } else {
            format!("{}Inf", if sign.is_empty() { "+" } else { sign })
        });
    }
    let absolute = float.abs();
    let body = match letter {
        'f' | 'F' => format!("{absolute:.*}", spec.precision.unwrap_or(6).min(400)),
        'e' | 'E' => exponent(&format!("{absolute:.*e}", spec.precision.unwrap_or(6).min(400))),
        'v' | 'g' | 'G' => general(absolute, spec.precision, if letter == 'v' { 21 } else { 0 }),
        _ => return None,
    };
    Some(format!("{sign}{}", if letter.is_ascii_uppercase() { body.to_uppercase() } else { body }))
}

/// Rust writes `1e5`, Go `1e+05`.
fn exponent(text: &str) -> String {
    let Some((mantissa, power)) = text.split_once('e') else { return text.to_owned() };
    let (sign, digits) = match power.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', power),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `%g`: the shorter of plain and exponent form; with no precision, as many digits as tell the number apart.
fn general(absolute: f64, precision: Option<usize>, least: i32) -> String {
    let scientific = match precision {
        Some(precision) => format!("{absolute:.*e}", precision.clamp(1, 400) - 1),
        None => format!("{absolute:e}"),
    };
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
    let limit = match precision {
        Some(precision) => precision.max(1) as i32,
        None if digits > 21 => digits,
        None => 21.max(least),
    };
    if power < -4 || power >= limit {
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        return exponent(&format!("{mantissa}e{power}"));
    }
    match precision {
        None => format!("{absolute}"),
        Some(precision) => {
            let decimals = (precision.max(1) as i32 - 1 - power).max(0) as usize;
            let text = format!("{absolute:.decimals$}");
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
    }
}
