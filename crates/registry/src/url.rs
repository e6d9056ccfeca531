//! The few parts of a URL that matter here.

use std::fmt;

/// Longest URL that is followed, in bytes.
const BYTES_MAX: usize = 8 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

/// `scheme://host[:port]/path?query`, without user, password and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub scheme: Scheme,
    /// `host[:port]`, as it was written.
    pub authority: String,
    /// Starts with a slash, or is empty.
    pub path: String,
    pub query: Option<String>,
}

/// The host of an authority, without its port; an IPv6 address keeps its brackets.
pub fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.is_empty() => {
            if host.starts_with('[') || !host.contains(':') { host } else { authority }
        }
        _ => authority,
    }
}

impl Url {
    /// Reads an absolute URL. One that carries credentials is refused: they would end up in logs.
    pub fn parse(text: &str) -> Option<Url> {
        if text.len() > BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let rest = rest.split('#').next()?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (path, query) = match tail.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (tail, None),
        };
        let parsed: http::uri::Authority = authority.parse().ok()?;
        if authority.contains('@') || parsed.host().is_empty() {
            return None;
        }
        let port = authority.strip_prefix(parsed.host()).and_then(|tail| tail.strip_prefix(':'));
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return None;
        }
        Some(Url { scheme, authority: authority.to_ascii_lowercase(), path: path.to_owned(), query })
    }

    /// What a `Location` header means when it came from here.
    pub fn resolve(&self, location: &str) -> Option<Url> {
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if location.split_once("://").is_some_and(|(scheme, _)| is_word(scheme)) {
            return Url::parse(location);
        }
        let rest = match location.strip_prefix("//") {
            Some(rest) => format!("{}://{rest}", self.scheme),
            None if location.starts_with('/') => format!("{}://{}{location}", self.scheme, self.authority),
            None if location.starts_with('?') => {
                format!("{}://{}{}{location}", self.scheme, self.authority, self.path)
            }
            None => {
                let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{}://{}{folder}/{location}", self.scheme, self.authority)
            }
        };
        Url::parse(&rest)
    }

    pub fn host(&self) -> &str {
        host_of(&self.authority)
    }

    pub fn port(&self) -> u16 {
        let port = self.authority.strip_prefix(self.host()).and_then(|tail| tail.strip_prefix(':'));
        let standard = if self.scheme == Scheme::Https { 443 } else { 80 };
        port.and_then(|port| port.parse().ok()).unwrap_or(standard)
    }

    /// With something behind the path; the query goes.
    pub fn join_path(&self, tail: &str) -> Url {
        Url { path: format!("{}{tail}", self.path.trim_end_matches('/')), query: None, ..self.clone() }
    }

    /// With one more parameter, which is encoded here.
    pub fn with_query(mut self, key: &str, value: &str) -> Url {
        let pair = format!("{key}={}", encode(value));
        self.query = Some(match self.query.take() {
            Some(query) if !query.is_empty() => format!("{query}&{pair}"),
            _ => pair,
        });
        self
    }

    /// Same scheme, host and port: credentials may go along.
    pub fn same_origin(&self, other: &Url) -> bool {
        self.scheme == other.scheme && self.host() == other.host() && self.port() == other.port()
    }

    /// Path and query, as the request line has them.
    pub fn target(&self) -> String {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        match &self.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }
}

/// Percent-encodes everything that is not plain.
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts() {
        let url = Url::parse("https://R.example:5000/v2/a?x=1#y").unwrap();
        assert_eq!((url.host(), url.port(), &*url.target()), ("r.example", 5000, "/v2/a?x=1"));
        assert_eq!(Url::parse("http://[::1]/").unwrap().port(), 80);
        assert_eq!(Url::parse("http://[::1]:5/").unwrap().host(), "[::1]");
        for bad in
            ["", "a", "ftp://x", "http://", "http://u:p@h/", "http://h:99999/", "http://a b/", "http:///x"]
        {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn locations() {
        let url = Url::parse("https://h/v2/a/b?q=1").unwrap();
        for (location, expected) in [
            ("https://o/x?y", "https://o/x?y"),
            ("/v2/c?_state=1", "https://h/v2/c?_state=1"),
            ("//o/x", "https://o/x"),
            ("c", "https://h/v2/a/c"),
            ("?z=http://x", "https://h/v2/a/b?z=http://x"),
            ("/r?to=https://x/y", "https://h/r?to=https://x/y"),
        ] {
            assert_eq!(url.resolve(location).unwrap().to_string(), expected, "{location}");
        }
        assert_eq!(url.resolve("file:///etc/passwd"), None);
        assert!(url.same_origin(&Url::parse("https://h:443/").unwrap()));
        assert!(!url.same_origin(&Url::parse("http://h:443/").unwrap()));
        assert_eq!(url.with_query("scope", "a:b c").query.as_deref(), Some("q=1&scope=a%3Ab%20c"));
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_back(text in "(https?://)?[a-z\\[\\]:0-9.@]{0,12}(/\\PC{0,8})?(\\?\\PC{0,8})?") {
            if let Some(url) = Url::parse(&text) {
                let again = Url::parse(&url.to_string());
                prop_assert_eq!(again.as_ref(), Some(&url));
                let _ = (url.port(), url.resolve(&text));
            }
        }
    }
}
