//! `.dockerignore`: which files of a build context stay at home.

/// The longest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// One line.
#[derive(Debug, Clone)]
struct Rule {
    tokens: Vec<Token>,
    /// `!pattern`: brings back what an earlier line excluded.
    keeps: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: one character but no slash.
    One,
    /// `*`: any characters but no slash.
    Star,
    /// `**` at the end, or not followed by a slash: anything.
    Any,
    /// `**/`: nothing, or anything that ends with a slash.
    Folders,
    /// `[a-z]`, `[^a-z]`.
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

/// The rules of one file; the last that matches decides.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Reads `.dockerignore`; there are no rules if there is no file.
    pub fn read(path: &std::path::Path) -> Result<Self, String> {
        let Ok(meta) = std::fs::metadata(path) else { return Ok(Self::default()) };
        if meta.len() > MAX_FILE {
            return Err(format!("{} is longer than {MAX_FILE} bytes", path.display()));
        }
        let bytes =
            std::fs::read(path).map_err(|error| format!("error reading {}: {error}", path.display()))?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for line in text.lines() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let (keeps, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if keeps && pattern.is_empty() {
                return Err("illegal exclusion pattern: \"!\"".to_owned());
            }
            let pattern = clean(pattern);
            rules.push(Rule { tokens: tokens(&pattern)?, keeps });
        }
        Ok(Self(rules))
    }

    /// Adds a path that is kept whatever the rules say.
    pub fn keep(&mut self, path: &str) {
        self.0.push(Rule { tokens: path.chars().map(Token::Char).collect(), keeps: true });
    }

    /// Whether any rule brings something back: then an excluded folder may still hold files to send.
    pub fn brings_back(&self) -> bool {
        self.0.iter().any(|rule| rule.keeps)
    }

    /// Whether `path`, relative and with slashes, stays at home. A rule for a folder holds for all that is in it.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for rule in &self.0 {
            // A rule that would not change the outcome need not be tried.
            if rule.keeps == excluded && prefixes(path).any(|part| matches(&rule.tokens, part)) {
                excluded = !rule.keeps;
            }
        }
        excluded
    }
}

/// The path itself and each folder that it is in.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain([path])
}

/// A pattern without `.`, `..`, doubled slashes, and a slash in front.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, String> {
    let invalid = || format!("syntax error in pattern: {pattern}");
    let mut found = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        let token = match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                if chars.peek() == Some(&'/') {
                    chars.next();
                    Token::Folders
                } else {
                    Token::Any
                }
            }
            '*' => Token::Star,
            '?' => Token::One,
            '\\' => Token::Char(chars.next().ok_or_else(invalid)?),
            '[' => {
                let not = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    let mut next = || match chars.next() {
                        Some('\\') => chars.next().ok_or_else(invalid),
                        Some(c) => Ok(c),
                        None => Err(invalid()),
                    };
                    let from = next()?;
                    if from == ']' && !ranges.is_empty() {
                        break;
                    }
                    let to = match chars.next_if_eq(&'-') {
                        Some(_) => match chars.next() {
                            Some('\\') => chars.next().ok_or_else(invalid)?,
                            Some(c) => c,
                            None => return Err(invalid()),
                        },
                        None => from,
                    };
                    ranges.push((from, to));
                }
                Token::Class { not, ranges }
            }
            c => Token::Char(c),
        };
        found.push(token);
    }
    Ok(found)
}

/// Whether the whole of `text` matches. Walks the text once with the set of places in the pattern that are reached, so
/// no pattern takes longer than its length times the text's.
fn matches(tokens: &[Token], text: &str) -> bool {
    let mut reached = vec![false; tokens.len() + 1];
    reach(tokens, &mut reached, 0, true);
    let mut after_slash;
    for c in text.chars() {
        after_slash = c == '/';
        let mut next = vec![false; tokens.len() + 1];
        for (at, token) in tokens.iter().enumerate().filter(|(at, _)| reached[*at]) {
            let (stays, moves) = match token {
                Token::Char(wanted) => (false, c == *wanted),
                Token::One => (false, c != '/'),
                Token::Star => (c != '/', false),
                Token::Any => (true, false),
                Token::Folders => (true, c == '/'),
                Token::Class { not, ranges } => {
                    (false, ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *not && c != '/')
                }
            };
            if stays {
                // Inside of `**/` the way on opens only behind a slash.
                next[at] = true;
                if !matches!(token, Token::Folders) {
                    reach(tokens, &mut next, at, false);
                }
            }
            if moves {
                reach(tokens, &mut next, at + 1, after_slash);
            }
        }
        reached = next;
    }
    reached[tokens.len()]
}

/// Marks a place, and those that follow it without a character.
fn reach(tokens: &[Token], reached: &mut [bool], from: usize, _at_start: bool) {
    let mut at = from;
    loop {
        reached[at] = true;
        match tokens.get(at) {
            Some(Token::Star | Token::Any | Token::Folders) => at += 1,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn excluded(rules: &str, path: &str) -> bool {
        Rules::parse(rules).expect(rules).excludes(path)
    }

    #[test]
    fn patterns() {
        for (rules, path, expected) in [
            ("*.log", "a.log", true),
            ("*.log", "d/a.log", false),
            ("**/*.log", "a.log", true),
            ("**/*.log", "d/e/a.log", true),
            ("node_modules", "node_modules/x/y.js", true),
            ("/src", "src/a", true),
            ("src/", "src/a", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/bz", false),
            ("?.txt", "a.txt", true),
            ("?.txt", "ab.txt", false),
            ("[a-c].x", "b.x", true),
            ("[^a-c].x", "b.x", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*", "a/b", true),
            ("*\n!keep", "keep/file", false),
            ("*\n!keep", "other", true),
            ("*.md\n!README.md\nREADME.md", "README.md", true),
            ("# comment\n\n  spaced  ", "spaced", true),
            ("**", "anything/at/all", true),
            ("./x", "x", true),
        ] {
            assert_eq!(excluded(rules, path), expected, "{rules:?} {path}");
        }
        assert!(Rules::parse("!").is_err());
        assert!(Rules::parse("[a").is_err());
    }

    #[test]
    fn kept_files_are_kept() {
        let mut rules = Rules::parse("*").expect("valid");
        rules.keep("Dockerfile");
        assert!(!rules.excludes("Dockerfile"));
        assert!(rules.excludes("x"));
    }

    proptest! {
        #[test]
        fn any_pattern_is_taken_or_refused(rules in "[\\PC\n]{0,40}", path in "[a-z/.]{1,30}") {
            if let Ok(rules) = Rules::parse(&rules) {
                let _ = rules.excludes(&path);
            }
        }

        #[test]
        fn plain_names_match_themselves(path in "[a-z]{1,5}(/[a-z]{1,5}){0,3}") {
            prop_assert!(excluded(&path, &path));
        }
    }
}
