//! `.dockerignore`: which paths of a context stay out.
//!
//! Patterns are shell patterns with `**` for any number of directories; a pattern that matches a directory covers what
//! is in it; the last pattern that matches decides, and `!` lets back in.

/// The patterns of a file.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    glob: glob::Glob,
    /// It began with `!`.
    exception: bool,
}

impl Ignore {
    /// Reads a `.dockerignore`.
    pub fn parse(text: &str) -> Result<Ignore, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Ignore::new(text.lines().filter(|line| !line.starts_with('#')))
    }

    /// Takes patterns one by one, as `--exclude` gives them.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Ignore, String> {
        let mut ignore = Ignore::default();
        for line in patterns {
            let line = line.trim();
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if line.is_empty() {
                continue;
            }
            if pattern.is_empty() {
                return Err("illegal exclusion pattern: \"!\"".into());
            }
            let cleaned = clean(pattern);
            // The whole context: to Docker it means nothing.
            if cleaned.is_empty() {
                continue;
            }
            let glob =
                glob::Glob::new(&cleaned).ok_or_else(|| format!("syntax error in pattern: {pattern}"))?;
            ignore.patterns.push(Pattern { glob, exception });
        }
        Ok(ignore)
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether there are patterns that let something back in: then an excluded directory must be walked all the same.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }

    /// Whether a path (relative to the context, with slashes) stays out.
    pub fn matches(&self, path: &str) -> bool {
        let path = clean(path);
        let mut matched = false;
        for pattern in &self.patterns {
            // Only a pattern that could change the answer is worth a look.
            if pattern.exception == matched && covers(&pattern.glob, &path) {
                matched = !pattern.exception;
            }
        }
        matched
    }
}

/// Whether the pattern matches the path or a directory it is in.
fn covers(glob: &glob::Glob, path: &str) -> bool {
    glob.matches(path) || path.match_indices('/').any(|(slash, _)| glob.matches(&path[..slash]))
}

/// A path without `.`, empty parts and slashes at its ends, `..` taken back.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Shell patterns with `**`.
pub mod glob {
    /// A pattern, taken apart.
    #[derive(Debug, Clone)]
    pub struct Glob {
        items: Vec<Item>,
    }

    #[derive(Debug, Clone)]
    enum Item {
        Literal(char),
        /// `?`: one character but the slash.
        One,
        /// `*`: any number of characters but the slash.
        Name,
        /// `**` at the end: anything.
        Rest,
        /// `**/`: any number of whole directories.
        Directories,
        Class {
            negated: bool,
            ranges: Vec<(char, char)>,
        },
    }

    impl Glob {
        /// `None` if it is not a pattern.
        pub fn new(pattern: &str) -> Option<Glob> {
            let mut items = Vec::new();
            let mut characters = pattern.chars().peekable();
            while let Some(c) = characters.next() {
                items.push(match c {
                    '*' if characters.next_if_eq(&'*').is_some() => {
                        while characters.next_if_eq(&'*').is_some() {}
                        // The slash belongs to it: the directories may be none.
                        characters.next_if_eq(&'/');
                        if characters.peek().is_none() { Item::Rest } else { Item::Directories }
                    }
                    '*' => Item::Name,
                    '?' => Item::One,
                    '\\' => Item::Literal(characters.next()?),
                    '[' => class(&mut characters)?,
                    c => Item::Literal(c),
                });
            }
            Some(Glob { items })
        }

        /// Whether the pattern matches all of a path.
        pub fn matches(&self, text: &str) -> bool {
            self.run(text, false)
        }

        /// Follows all ways through the pattern at once, so that no pattern takes longer than its length times the
        /// text's.
        fn run(&self, text: &str, star_takes_slash: bool) -> bool {
            let count = self.items.len();
            let mut now = vec![false; count + 1];
            // Inside of `**/`, before its slash.
            let mut inside = vec![false; count + 1];
            now[0] = true;
            self.skip(&mut now);
            for c in text.chars() {
                let mut next = vec![false; count + 1];
                let mut next_inside = vec![false; count + 1];
                for (index, item) in self.items.iter().enumerate() {
                    let here = now[index];
                    match item {
                        Item::Literal(literal) => next[index + 1] |= here && *literal == c,
                        Item::One => next[index + 1] |= here && (c != '/' || star_takes_slash),
                        Item::Class { negated, ranges } => {
                            let found = ranges.iter().any(|(low, high)| (low..=high).contains(&&c));
                            next[index + 1] |= here && found != *negated;
                        }
                        Item::Name => next[index] |= here && (c != '/' || star_takes_slash),
                        Item::Rest => next[index] |= here,
                        Item::Directories => {
                            let within = here || inside[index];
                            next_inside[index] |= within;
                            next[index + 1] |= within && c == '/';
                        }
                    }
                }
                (now, inside) = (next, next_inside);
                self.skip(&mut now);
            }
            now[count]
        }

        /// Steps over items that match nothing as well.
        fn skip(&self, states: &mut [bool]) {
            for (index, item) in self.items.iter().enumerate() {
                if states[index] && matches!(item, Item::Name | Item::Rest | Item::Directories) {
                    states[index + 1] = true;
                }
            }
        }
    }

    fn class(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Item> {
        let negated = characters.next_if(|c| *c == '^' || *c == '!').is_some();
        let mut ranges = Vec::new();
        loop {
            let low = match characters.next()? {
                ']' if !ranges.is_empty() => return Some(Item::Class { negated, ranges }),
                '\\' => characters.next()?,
                c => c,
            };
            let mut high = low;
            if characters.peek() == Some(&'-') {
                characters.next();
                match characters.next()? {
                    // A dash at the end stands for itself.
                    ']' => {
                        ranges.extend([(low, low), ('-', '-')]);
                        return Some(Item::Class { negated, ranges });
                    }
                    '\\' => high = characters.next()?,
                    c => high = c,
                }
            }
            ranges.push((low, high));
        }
    }

    /// As [`Glob::matches`] for text that is no path: slashes are characters like others. What is no pattern matches
    /// nothing.
    pub fn matches_text(pattern: &str, text: &str) -> bool {
        Glob::new(pattern).is_some_and(|glob| glob.run(text, true))
    }
}
