//! Variables and quotes in a word.
//!
//! `$v`, `${v}`, `${v:-w}`, `${v:+w}`, `${v:?w}` (and each without the colon), `${v#p}`, `${v##p}`, `${v%p}`,
//! `${v%%p}`, `${v/p/r}`, `${v//p/r}`; double quotes expand, single quotes do not, the escape character takes the
//! meaning off what follows.

use std::iter::Peekable;
use std::str::Chars;

use crate::ignore::glob;

/// Nested `${…}`.
const DEPTH_MAX: usize = 32;
/// Longest result, in bytes: replacements can multiply.
const RESULT_BYTES_MAX: usize = 1 << 20;

/// Looks a variable up.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands a text into one word.
pub fn word(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    let mut lexer = Lexer { rest: text.chars().peekable(), escape, lookup, depth: 0 };
    let pieces = lexer.pieces(None)?;
    let joined: String = pieces.into_iter().map(|piece| piece.text).collect();
    if joined.len() > RESULT_BYTES_MAX {
        return Err("the expanded text is too long".into());
    }
    Ok(joined)
}

/// Expands a text and splits it at blanks that were not quoted.
pub fn words(text: &str, escape: char, lookup: Lookup<'_>) -> Result<Vec<String>, String> {
    let mut lexer = Lexer { rest: text.chars().peekable(), escape, lookup, depth: 0 };
    let mut words = Vec::new();
    let mut current: Option<String> = None;
    for piece in lexer.pieces(None)? {
        if piece.quoted {
            current.get_or_insert_default().push_str(&piece.text);
            continue;
        }
        for c in piece.text.chars() {
            if c.is_whitespace() {
                words.extend(current.take());
            } else {
                current.get_or_insert_default().push(c);
            }
        }
    }
    words.extend(current);
    Ok(words)
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    lookup: Lookup<'a>,
    depth: usize,
}

/// Part of a word.
struct Piece {
    text: String,
    quoted: bool,
}

impl Lexer<'_> {
    /// Up to the end, or to one of the stops outside of quotes, which is left.
    fn pieces(&mut self, stop: Option<&[char]>) -> Result<Vec<Piece>, String> {
        let mut pieces = Vec::new();
        let mut push = |text: String, quoted: bool| pieces.push(Piece { text, quoted });
        while let Some(&c) = self.rest.peek() {
            if stop.is_some_and(|stops| stops.contains(&c)) {
                break;
            }
            match c {
                '\'' => push(self.single_quoted()?, true),
                '"' => push(self.double_quoted()?, true),
                '$' => push(self.dollar()?, false),
                c if c == self.escape => {
                    self.rest.next();
                    if let Some(escaped) = self.rest.next() {
                        push(escaped.to_string(), true);
                    }
                }
                c => {
                    self.rest.next();
                    push(c.to_string(), false);
                }
            }
        }
        Ok(pieces)
    }

    fn text(&mut self, stop: &[char]) -> Result<String, String> {
        Ok(self.pieces(Some(stop))?.into_iter().map(|piece| piece.text).collect())
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        self.rest.next();
        let mut text = String::new();
        for c in self.rest.by_ref() {
            if c == '\'' {
                return Ok(text);
            }
            text.push(c);
        }
        Err("unexpected end of statement while looking for matching single-quote".into())
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        self.rest.next();
        let mut text = String::new();
        while let Some(&c) = self.rest.peek() {
            match c {
                '"' => {
                    self.rest.next();
                    return Ok(text);
                }
                '$' => text.push_str(&self.dollar()?),
                c if c == self.escape => {
                    self.rest.next();
                    match self.rest.next() {
                        Some(escaped) if escaped == '"' || escaped == '$' || escaped == self.escape => {
                            text.push(escaped);
                        }
                        Some(other) => text.extend([c, other]),
                        None => break,
                    }
                }
                c => {
                    self.rest.next();
                    text.push(c);
                }
            }
        }
        Err("unexpected end of statement while looking for matching double-quote".into())
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.rest.next();
        if self.rest.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok((self.lookup)(&name).unwrap_or_default());
        }
        self.rest.next();
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("variables are nested too deep".into());
        }
        let value = self.braced();
        self.depth -= 1;
        value
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(&c) if c.is_ascii_alphabetic() || c == '_' => {}
            // Parameters of a shell that is not there.
            Some(&c) if c.is_ascii_digit() || "@*#?-!".contains(c) => {
                self.rest.next();
                return c.to_string();
            }
            _ => return name,
        }
        while let Some(&c) = self.rest.peek() {
            if !c.is_ascii_alphanumeric() && c != '_' {
                break;
            }
            name.push(c);
            self.rest.next();
        }
        name
    }

    fn braced(&mut self) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() {
            return Err("syntax error: bad substitution".into());
        }
        let value = (self.lookup)(&name);
        let missing = || "syntax error: missing '}'".to_owned();
        let modifier = self.rest.next().ok_or_else(missing)?;
        if modifier == '}' {
            return Ok(value.unwrap_or_default());
        }
        let colon = modifier == ':';
        let operator = if colon { self.rest.next().ok_or_else(missing)? } else { modifier };
        // With a colon, an empty value is as good as none.
        let set = value.clone().filter(|value| !colon || !value.is_empty());
        match operator {
            '-' | '+' | '?' => {
                let word = self.text(&['}'])?;
                self.close()?;
                match (operator, set) {
                    ('-', Some(value)) => Ok(value),
                    ('-', None) => Ok(word),
                    ('+', set) => Ok(if set.is_some() { word } else { String::new() }),
                    (_, Some(value)) => Ok(value),
                    (_, None) if word.is_empty() => Err(format!("{name}: not allowed to be unset")),
                    (_, None) => Err(format!("{name}: {word}")),
                }
            }
            '#' | '%' if !colon => {
                let longest = self.rest.next_if_eq(&operator).is_some();
                let pattern = self.text(&['}'])?;
                self.close()?;
                Ok(strip(&value.unwrap_or_default(), &pattern, operator == '#', longest))
            }
            '/' if !colon => {
                let all = self.rest.next_if_eq(&'/').is_some();
                let pattern = self.text(&['/', '}'])?;
                let replacement = match self.rest.next_if_eq(&'/') {
                    Some(_) => self.text(&['}'])?,
                    None => String::new(),
                };
                self.close()?;
                replace(&value.unwrap_or_default(), &pattern, &replacement, all)
            }
            other => {
                let shown = if colon { format!(":{other}") } else { other.to_string() };
                Err(format!("unsupported modifier ({shown}) in substitution"))
            }
        }
    }

    fn close(&mut self) -> Result<(), String> {
        self.rest.next_if_eq(&'}').map(drop).ok_or_else(|| "syntax error: missing '}'".to_owned())
    }
}

/// Every place where a character may end, the beginning included.
fn boundaries(text: &str) -> Vec<usize> {
    text.char_indices().map(|(index, _)| index).chain([text.len()]).collect()
}

fn strip(value: &str, pattern: &str, prefix: bool, longest: bool) -> String {
    let mut cuts = boundaries(value);
    // Shortest first: a prefix grows with the cut, a suffix shrinks with it.
    if prefix == longest {
        cuts.reverse();
    }
    let piece = |cut: usize| if prefix { &value[..cut] } else { &value[cut..] };
    match cuts.into_iter().find(|&cut| glob::matches_text(pattern, piece(cut))) {
        Some(cut) if prefix => value[cut..].to_owned(),
        Some(cut) => value[..cut].to_owned(),
        None => value.to_owned(),
    }
}

/// The leftmost longest matches.
fn replace(value: &str, pattern: &str, replacement: &str, all: bool) -> Result<String, String> {
    if pattern.is_empty() {
        return Ok(value.to_owned());
    }
    let cuts = boundaries(value);
    let mut out = String::new();
    let mut from = 0;
    while from < cuts.len() - 1 {
        let end = (from + 1..cuts.len())
            .rev()
            .find(|&end| glob::matches_text(pattern, &value[cuts[from]..cuts[end]]));
        match end {
            Some(end) => {
                out.push_str(replacement);
                from = end;
                if !all {
                    break;
                }
            }
            None => {
                out.push_str(&value[cuts[from]..cuts[from + 1]]);
                from += 1;
            }
        }
        if out.len() > RESULT_BYTES_MAX {
            return Err("the expanded text is too long".into());
        }
    }
    out.push_str(&value[cuts[from]..]);
    Ok(out)
}
