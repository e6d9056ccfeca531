//! `WWW-Authenticate`: what a registry wants to see before it answers.

/// One way to authenticate that a registry offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// A token from `realm`.
    Bearer {
        realm: String,
        service: String,
        scope: String,
        /// Why the token that was sent would not do.
        error: String,
    },
}

/// Reads one header's value, which may hold several challenges. Schemes that are not known are skipped.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let (scheme, after) = token(rest);
        if scheme.is_empty() {
            // Not a challenge; go on behind what cannot be read.
            let step = rest.chars().next().map_or(1, char::len_utf8);
            rest = rest[step..].trim_start();
            continue;
        }
        let (parameters, after) = parameters(after);
        rest = after;
        let value = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") {
            found.push(Challenge::Bearer {
                realm: value("realm"),
                service: value("service"),
                scope: value("scope"),
                error: value("error"),
            });
        }
    }
    found
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn token(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// `key=value` and `key="value"`, separated by commas, until something else begins.
fn parameters(mut text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let at = text.trim_start_matches([' ', '\t', ',']);
        let (key, after) = token(at);
        let Some(after) = after.trim_start().strip_prefix('=').filter(|_| !key.is_empty()) else {
            return (found, at);
        };
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let (value, after) = token(after);
                (value.to_owned(), after)
            }
        };
        found.push((key.to_owned(), value));
        text = after;
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_that_registries_send() {
        let bearer = |realm: &str, service: &str, scope: &str| Challenge::Bearer {
            realm: realm.into(),
            service: service.into(),
            scope: scope.into(),
            error: String::new(),
        };
        assert_eq!(
            parse(r#"Bearer realm="https://a/token",service="r",scope="repository:x:pull,push""#),
            [bearer("https://a/token", "r", "repository:x:pull,push")]
        );
        assert_eq!(parse("Basic realm=\"x, y\""), [Challenge::Basic]);
        assert_eq!(
            parse("Negotiate, basic realm=a, BEARER Realm = \"h\\\"i\""),
            [Challenge::Basic, bearer("h\"i", "", "")]
        );
        assert_eq!(parse(""), []);
        assert_eq!(parse("\"Basic"), [Challenge::Basic]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn values_come_back(realm in "[ -~]{0,20}", service in "[ -~]{0,20}") {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{}\", service=\"{}\"", quote(&realm), quote(&service));
            let expected = Challenge::Bearer { realm, service, scope: String::new(), error: String::new() };
            prop_assert_eq!(parse(&header), [expected]);
        }
    }
}
