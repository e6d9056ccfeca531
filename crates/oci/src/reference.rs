//! Image references: Docker's grammar, its short (familiar) names and their canonical forms.
//!
//! ```text
//! reference := name [ ":" tag ] [ "@" digest ]
//! name      := [ domain "/" ] component { "/" component }
//! domain    := host [ ":" port ]
//! ```
//! A [`Reference`] always has a domain: `busybox` is `docker.io/library/busybox`. Error texts are those that Docker's
//! clients match on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{self, Digest};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const NAME_LEN_MAX: usize = 255;
const TAG_LEN_MAX: usize = 128;

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    #[error("repository name must not be more than {NAME_LEN_MAX} characters")]
    NameTooLong,
    #[error("invalid tag format")]
    Tag,
    #[error(transparent)]
    Digest(#[from] digest::Error),
}

/// A valid reference. Made by [`Reference::parse`]; what it holds cannot be invalid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a familiar or canonical reference. Sixty-four hexadecimal digits are refused: they would be taken for an
    /// image ID.
    pub fn parse(text: &str) -> Result<Reference, Error> {
        if looks_like_id(text) {
            return Err(Error::LooksLikeId(text.into()));
        }
        let (domain, remainder) = split_domain(text);
        let name_end = remainder.find([':', '@']).unwrap_or(remainder.len());
        let colon_end = remainder.find(':').unwrap_or(remainder.len());
        // The upper-case check looks at everything before the first colon, as Docker's does.
        let lowered = &remainder[..colon_end];
        if lowered.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Error::Uppercase(lowered.into()));
        }
        let (path, suffix) = remainder.split_at(name_end);
        if !is_domain(&domain) || !is_path(path) {
            return Err(Error::Format);
        }
        let (tag, digest) = match suffix.split_once('@') {
            Some((tag, digest)) => (tag, Some(digest)),
            None => (suffix, None),
        };
        let tag = match tag.strip_prefix(':') {
            Some(tag) if is_tag(tag) => Some(tag.to_owned()),
            None if tag.is_empty() => None,
            _ => return Err(Error::Format),
        };
        if domain.len() + 1 + path.len() > NAME_LEN_MAX {
            return Err(Error::NameTooLong);
        }
        let digest = digest.map(parse_digest).transpose()?;
        Ok(Reference { domain, path: path.to_owned(), tag, digest })
    }

    /// Registry host with its port: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository path below the domain: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Neither tag nor digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The canonical name without tag and digest: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it: `busybox`. It is the canonical one where a shorter one would be read as another: as a
    /// host's (`docker.io/example.com/a`) or as an image's ID.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        let short = match self.path.strip_prefix(OFFICIAL) {
            Some(official) if !official.contains('/') => official,
            _ => &self.path,
        };
        let (domain, path) = split_domain(short);
        match domain == self.domain && path == self.path && !looks_like_id(short) {
            true => short.to_owned(),
            false => self.name(),
        }
    }

    /// Everything, with the name as people write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// The same with tag `latest` if it had neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Reference {
        if self.is_name_only() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The key under which an image is known: a digest says all, so a tag beside it is dropped.
    #[must_use]
    pub fn favouring_digest(mut self) -> Reference {
        if self.digest.is_some() {
            self.tag = None;
        }
        self.or_latest()
    }

    /// The same repository with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, Error> {
        if !is_tag(tag) {
            return Err(Error::Tag);
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    /// The canonical form: `docker.io/library/busybox:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        Reference::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Reference::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Splits the first component off if it can only be a host: it has a dot, a colon or upper case, or is `localhost`.
fn split_domain(text: &str) -> (String, String) {
    let (domain, remainder) = match text.split_once('/') {
        Some((first, rest)) => {
            let is_host = first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase());
            if first == LEGACY_DOMAIN {
                (DEFAULT_DOMAIN, rest)
            } else if is_host {
                (first, rest)
            } else {
                (DEFAULT_DOMAIN, text)
            }
        }
        None => (DEFAULT_DOMAIN, text),
    };
    let bare = domain == DEFAULT_DOMAIN && !remainder.contains('/');
    let remainder = if bare { format!("{OFFICIAL}{remainder}") } else { remainder.to_owned() };
    (domain.to_owned(), remainder)
}

fn looks_like_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_lower_hex)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// `host[:port]`; a host is dot-separated labels or a bracketed IPv6 address.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            (None, port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (Some(&text[..end]), &text[end..])
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let port_valid = match port.strip_prefix(':') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    port_valid && host.is_none_or(|host| host.split('.').all(label))
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && text.split('/').all(is_component)
}

/// Runs of `[a-z0-9]` joined by one of `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut at = 0;
    loop {
        let start = at;
        while at < bytes.len() && word(bytes[at]) {
            at += 1;
        }
        if at == start {
            return false;
        }
        if at == bytes.len() {
            return true;
        }
        let separator = at;
        while at < bytes.len() && !word(bytes[at]) {
            at += 1;
        }
        let separator = &bytes[separator..at];
        let valid = matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-');
        if !valid {
            return false;
        }
    }
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = text.bytes();
    bytes.next().is_some_and(word)
        && text.len() <= TAG_LEN_MAX
        && bytes.all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// What has not even the shape of a digest is a format error; what has, tells what is wrong with it.
fn parse_digest(text: &str) -> Result<Digest, Error> {
    let Some((algorithm, hex)) = text.split_once(':') else { return Err(Error::Format) };
    let algorithm_valid = algorithm.split(['-', '_', '+', '.']).all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    if !algorithm_valid || hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::Format);
    }
    Ok(text.parse::<Digest>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn familiar_and_canonical() {
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"),
            ("user/app", "docker.io/user/app", "user/app"),
            ("docker.io/library/x/y", "docker.io/library/x/y", "library/x/y"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("quay.io/a/b__c.d--e", "quay.io/a/b__c.d--e", "quay.io/a/b__c.d--e"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("HOST/x", "HOST/x", "HOST/x"),
            // What is short and could be read as another name is not shortened.
            ("docker.io/example.com/a:1", "docker.io/example.com/a:1", "docker.io/example.com/a:1"),
            ("docker.io/localhost/a", "docker.io/localhost/a", "docker.io/localhost/a"),
            ("docker.io/library/localhost/a", "docker.io/library/localhost/a", "library/localhost/a"),
        ] {
            let reference = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
        let both = Reference::parse(&format!("a/b:tag@sha256:{HEX}")).unwrap();
        assert_eq!(both.tag(), Some("tag"));
        assert_eq!(both.favouring_digest().familiar(), format!("a/b@sha256:{HEX}"));
        assert_eq!(Reference::parse("x").unwrap().or_latest().familiar(), "x:latest");
    }

    #[test]
    fn refused_with_dockers_words() {
        for (text, error) in [
            ("", "invalid reference format"),
            ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
            ("a/B:C", "invalid reference format: repository name (a/B) must be lowercase"),
            ("a b", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("a:.b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("http://x/y", "invalid reference format"),
            ("a@sha256:abc", "invalid reference format"),
            (&format!("a@sha256:{}", &HEX[1..]), "invalid checksum digest length"),
            (&format!("a@md5:{}", &HEX[..32]), "unsupported digest algorithm"),
            (HEX, &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")),
        ] {
            assert_eq!(Reference::parse(text).unwrap_err().to_string(), error, "{text}");
        }
        assert_eq!(Reference::parse(&"a/".repeat(200)).unwrap_err(), Error::Format);
        assert_eq!(Reference::parse(&vec!["aa"; 100].join("/")).unwrap_err(), Error::NameTooLong);
        assert!(Reference::parse(&format!("a:{}", "x".repeat(129))).is_err());
    }

    proptest! {
        #[test]
        fn canonical_form_reads_back(text in "([a-z.]{1,6}(:[0-9]{1,3})?/)?[a-z0-9._-]{1,9}(/[a-z0-9._-]{1,9})?(:[A-Za-z0-9._-]{1,6})?") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }

        #[test]
        fn parse_never_panics(text in "\\PC{0,60}") {
            let _ = Reference::parse(&text);
        }
    }
}
