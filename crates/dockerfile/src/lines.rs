//! Physical lines to logical ones: directives, comments, continuations and heredocs.

use crate::Error;
use crate::instruction::Heredoc;

/// What the first lines of a file say to its reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    pub escape: char,
    pub syntax: Option<String>,
    pub check: Option<String>,
}

/// An instruction as one line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Number of its first physical line, from 1.
    pub start: usize,
    pub end: usize,
    /// The text, continuations joined, blanks around it cut.
    pub text: String,
    pub heredocs: Vec<Heredoc>,
}

/// Reads a whole file.
pub fn read(text: &str) -> Result<(Directives, Vec<Line>), Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.lines().collect();
    let (directives, mut at) = directives(&physical)?;
    let mut lines = Vec::new();
    while at < physical.len() {
        let start = at;
        let first = physical[at].trim_start();
        at += 1;
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let (piece, mut more) = without_continuation(first, directives.escape);
        let mut joined = piece.to_owned();
        while more && at < physical.len() {
            let next = physical[at];
            at += 1;
            // Comments and empty lines between the parts of an instruction are not part of it.
            if next.trim_start().starts_with('#') || next.trim().is_empty() {
                continue;
            }
            let (piece, continues) = without_continuation(next, directives.escape);
            joined.push_str(piece);
            more = continues;
        }
        let joined = joined.trim().to_owned();
        if joined.is_empty() {
            continue;
        }
        let mut heredocs = Vec::new();
        if takes_heredocs(&joined) {
            for mut heredoc in heredoc_markers(&joined) {
                at = read_heredoc(&physical, at, &mut heredoc, start + 1)?;
                heredocs.push(heredoc);
            }
        }
        lines.push(Line { start: start + 1, end: at, text: joined, heredocs });
    }
    Ok((directives, lines))
}

/// Directives stand at the very top; the first line that is none ends them. Gives the number of lines that they took.
fn directives(physical: &[&str]) -> Result<(Directives, usize), Error> {
    let mut found = Directives { escape: '\\', syntax: None, check: None };
    let mut escape_seen = false;
    for (index, line) in physical.iter().enumerate() {
        let bad = |what: String| Error::Line { line: index + 1, what };
        let Some((key, value)) = directive(line) else { return Ok((found, index)) };
        let once = |seen: bool| {
            if seen { Err(bad(format!("only one {key} parser directive can be used"))) } else { Ok(()) }
        };
        match key.as_str() {
            "escape" => {
                once(escape_seen)?;
                escape_seen = true;
                found.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        return Err(bad(format!("invalid escape token '{other}' does not match ` or \\")));
                    }
                };
            }
            "syntax" => {
                once(found.syntax.is_some())?;
                found.syntax = Some(value.to_owned());
            }
            "check" => {
                once(found.check.is_some())?;
                found.check = Some(value.to_owned());
            }
            _ => return Ok((found, index)),
        }
    }
    Ok((found, physical.len()))
}

/// `# key = value`.
fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let key = key.trim().to_ascii_lowercase();
    let valid =
        key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.bytes().all(|b| b.is_ascii_alphanumeric());
    valid.then(|| (key, value.trim()))
}

/// A line without the escape character at its end, and whether there was one. Two of them are no continuation.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t', '\r']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line.trim_end_matches('\r'), false),
    }
}

fn takes_heredocs(line: &str) -> bool {
    let mut words = line.split_whitespace().map(str::to_ascii_uppercase);
    let mut keyword = words.next();
    if keyword.as_deref() == Some("ONBUILD") {
        keyword = words.next();
    }
    matches!(keyword.as_deref(), Some("RUN" | "COPY" | "ADD")) && line.contains("<<")
}

/// The `<<WORD`s of a line, outside of quotes.
fn heredoc_markers(line: &str) -> Vec<Heredoc> {
    let mut found = Vec::new();
    let characters: Vec<char> = line.chars().collect();
    let mut at = 0;
    let mut quote: Option<char> = None;
    while at < characters.len() {
        let c = characters[at];
        match (quote, c) {
            (_, '\\') => at += 1,
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            // A word of its own, perhaps after the number of a descriptor; `<<<` is something else.
            (None, '<') if characters.get(at + 1) == Some(&'<') => {
                let digits = characters[..at].iter().rev().take_while(|c| c.is_ascii_digit()).count();
                let alone = at == digits || characters[at - digits - 1].is_whitespace();
                if let Some((heredoc, length)) = marker(&characters[at + 2..])
                    && alone
                {
                    found.push(heredoc);
                    at += 2 + length;
                    continue;
                }
                at += 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// What follows `<<`: `-`, and a word that may be quoted.
fn marker(rest: &[char]) -> Option<(Heredoc, usize)> {
    let chomp = rest.first() == Some(&'-');
    let start = usize::from(chomp);
    let quote = rest.get(start).copied().filter(|c| matches!(c, '"' | '\''));
    let from = start + usize::from(quote.is_some());
    let word = |c: &char| c.is_ascii_alphanumeric() || *c == '_' || (*c == '.' || *c == '-');
    let name: String = rest.get(from..)?.iter().take_while(|c| word(c)).collect();
    let mut length = from + name.chars().count();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return None;
    }
    if let Some(quote) = quote {
        if rest.get(length) != Some(&quote) {
            return None;
        }
        length += 1;
    }
    Some((Heredoc { name, content: String::new(), expand: quote.is_none(), chomp }, length))
}

fn read_heredoc(
    physical: &[&str],
    mut at: usize,
    heredoc: &mut Heredoc,
    line: usize,
) -> Result<usize, Error> {
    while at < physical.len() {
        let text = physical[at];
        at += 1;
        let text = if heredoc.chomp { text.trim_start_matches('\t') } else { text };
        if text == heredoc.name {
            return Ok(at);
        }
        heredoc.content.push_str(text);
        heredoc.content.push('\n');
    }
    Err(Error::Line { line, what: "unterminated heredoc".into() })
}
