//! Listing images, and the filters of lists.

use std::sync::Arc;

use oci::{Digest, Reference, Timestamp};

use crate::state::{State, StoredImage, Summary};
use crate::{Error, Images};

/// Which images a list shows. The empty filter shows all that have a name or nothing built on them.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Also images that have neither a name nor a use but as parent of others.
    pub all: bool,
    /// Older than these images.
    pub before: Vec<String>,
    /// Younger than these images.
    pub since: Vec<String>,
    /// With (`false`) or without (`true`) a tag.
    pub dangling: Option<bool>,
    /// `key` or `key=value`; all must be there.
    pub labels: Vec<String>,
    /// `key` or `key=value`; none may be there.
    pub without_labels: Vec<String>,
    /// Glob patterns of names; names that match none are not shown.
    pub references: Vec<String>,
    /// Made before this second of Unix time.
    pub until: Option<i64>,
}

/// Which images a prune takes.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    /// Also images that have names.
    pub all: bool,
    pub labels: Vec<String>,
    pub without_labels: Vec<String>,
    /// Made before this second of Unix time.
    pub until: Option<i64>,
}

impl Images {
    /// Images with their names, youngest first.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<Summary>, Error> {
        let state = self.read();
        let bound = |names: &[String]| -> Result<Vec<Timestamp>, Error> {
            names.iter().map(|name| Ok(state.resolve(name)?.0.created())).collect()
        };
        let (before, since) = (bound(&filter.before)?, bound(&filter.since)?);
        for pattern in &filter.references {
            // A bad pattern is told even if there is nothing to match.
            glob::matches(pattern, "")
                .map_err(|()| Error::Filter { key: "reference", value: pattern.clone() })?;
        }
        let mut shown: Vec<Summary> = state
            .images
            .values()
            .filter(|image| {
                let created = image.created();
                before.iter().all(|bound| created < *bound)
                    && since.iter().all(|bound| created > *bound)
                    && filter.until.is_none_or(|until| created.seconds < until)
                    && labels_match(image, &filter.labels, &filter.without_labels)
            })
            .filter_map(|image| named(&state, image, filter))
            .collect();
        shown.sort_by(|a, b| b.image.created().cmp(&a.image.created()).then(a.image.id.cmp(&b.image.id)));
        Ok(shown)
    }

    /// The names of an image, as lists show them.
    pub fn summary(&self, id: &Digest) -> Option<Summary> {
        let state = self.read();
        state.images.get(id).map(|image| state.summary(image))
    }
}

/// The image with those of its names that the filter lets through, or `None` if it is not shown.
fn named(state: &State, image: &Arc<StoredImage>, filter: &ListFilter) -> Option<Summary> {
    let references = state.references(&image.id);
    let kept: Vec<&Reference> = references
        .iter()
        .filter(|reference| {
            filter.references.is_empty()
                || filter.references.iter().any(|pattern| reference_matches(pattern, reference))
        })
        .collect();
    let familiar = |digests: bool| -> Vec<String> {
        let kept = kept.iter().filter(|reference| reference.digest().is_some() == digests);
        kept.map(|reference| reference.familiar()).collect()
    };
    let summary =
        Summary { image: Arc::clone(image), repo_tags: familiar(false), repo_digests: familiar(true) };
    if summary.repo_tags.is_empty() && summary.repo_digests.is_empty() {
        let intermediate = state.children(&image.id).next().is_some();
        if (intermediate && !filter.all) || filter.dangling == Some(false) || !filter.references.is_empty() {
            return None;
        }
    } else if filter.dangling == Some(true) && !summary.repo_tags.is_empty() {
        return None;
    }
    Some(summary)
}

/// Docker matches a pattern against the familiar name with and without its tag.
fn reference_matches(pattern: &str, reference: &Reference) -> bool {
    [reference.familiar(), reference.familiar_name()]
        .iter()
        .any(|name| glob::matches(pattern, name).unwrap_or(false))
}

pub fn labels_match(image: &StoredImage, wanted: &[String], unwanted: &[String]) -> bool {
    let has = |label: &String| {
        let labels = &image.config.config.labels;
        match label.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(label),
        }
    };
    wanted.iter().all(has) && !unwanted.iter().any(has)
}

/// Shell patterns as Go's `path.Match` reads them: `*` and `?` stop at slashes, `[…]` is a class, `\` quotes.
pub mod glob {
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
}
