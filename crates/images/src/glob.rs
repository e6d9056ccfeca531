//! Shell patterns as Go's `path.Match` reads them: `*` and `?` stop at slashes, `[…]` is a class, `\` quotes.

/// Whether the pattern matches the whole text; an error if it is no pattern.
pub fn matches(pattern: &str, text: &str) -> Result<bool, ()> {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    validate(&pattern)?;
    Ok(match_here(&pattern, &text))
}

fn validate(pattern: &[char]) -> Result<(), ()> {
    let mut at = 0;
    while at < pattern.len() {
        at += match pattern[at] {
            '\\' if at + 1 == pattern.len() => return Err(()),
            '\\' => 2,
            '[' => class(&pattern[at..], '\0').ok_or(())?.1,
            _ => 1,
        };
    }
    Ok(())
}

/// Greedy with one point to come back to: a later star makes all earlier ones final, so this is quadratic at worst.
fn match_here(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
            continue;
        }
        if p == pattern.len() && t == text.len() {
            return true;
        }
        let step = text.get(t).and_then(|&c| step(&pattern[p..], c));
        if let Some(length) = step {
            p += length;
            t += 1;
            continue;
        }
        // Let the last star take one more character, if it may.
        match star {
            Some((at, taken)) if taken < text.len() && text[taken] != '/' => {
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            }
            _ => return false,
        }
    }
}

/// Length of the pattern's first item if it matches the character.
fn step(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => (c != '/').then_some(1),
        '[' => {
            let (matched, length) = class(pattern, c)?;
            matched.then_some(length)
        }
        '\\' => (pattern.get(1) == Some(&c)).then_some(2),
        &literal => (literal == c).then_some(1),
    }
}

/// Whether a class matches, and its length; `None` if it is not one.
fn class(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&'^');
    at += usize::from(negated);
    let mut matched = false;
    let mut ranges = 0;
    loop {
        if pattern.get(at) == Some(&']') && ranges > 0 {
            return Some((matched != negated, at + 1));
        }
        let (low, next) = bound(pattern, at)?;
        at = next;
        let mut high = low;
        if pattern.get(at) == Some(&'-') {
            (high, at) = bound(pattern, at + 1)?;
        }
        matched |= (low..=high).contains(&c);
        ranges += 1;
    }
}

fn bound(pattern: &[char], at: usize) -> Option<(char, usize)> {
    match pattern.get(at)? {
        '-' | ']' => None,
        '\\' => Some((*pattern.get(at + 1)?, at + 2)),
        &c => Some((c, at + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("busy*:1.*", "busybox:1.36", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), Ok(expected), "{pattern} {text}");
        }
        for bad in ["[", "[a", "[]a]", "\\", "[a-]", "[-x]"] {
            assert_eq!(matches(bad, "x"), Err(()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn literals_match_themselves(text in "[a-z/:.]{0,20}") {
            prop_assert_eq!(matches(&text, &text), Ok(true));
        }

        #[test]
        fn never_panics(pattern in "[a*?\\[\\]^\\\\/-]{0,12}", text in "[a/]{0,12}") {
            let _ = matches(&pattern, &text);
        }
    }
}
