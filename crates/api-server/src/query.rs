//! Query strings and urlencoded bodies.

use model::Refusal;

/// Decoded pairs, in order.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

/// Decodes `%41` and `+`. Broken escapes stand for themselves, bytes that are not UTF-8 are replaced.
pub fn decode(text: &str, plus: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
                match digits
                    .filter(|two| !two.starts_with('+'))
                    .and_then(|two| u8::from_str_radix(two, 16).ok())
                {
                    Some(decoded) => {
                        bytes.push(decoded);
                        rest = &rest[2..];
                    }
                    None => bytes.push(b'%'),
                }
            }
            b'+' if plus => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

impl Query {
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true), decode(value, true))
        });
        Query(pairs.collect())
    }

    /// The first value of a key; empty if it is not there.
    pub fn text(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    pub fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }

    /// Docker's booleans: everything but these words is true.
    pub fn flag(&self, key: &str) -> bool {
        let text = self.text(key).trim().to_ascii_lowercase();
        !matches!(text.as_str(), "" | "0" | "no" | "false" | "none")
    }

    pub fn flag_or(&self, key: &str, default: bool) -> bool {
        if self.has(key) { self.flag(key) } else { default }
    }

    /// A whole number; none if the key is not there or empty.
    pub fn number(&self, key: &str) -> Result<Option<i64>, Refusal> {
        match self.text(key) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Refusal::invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax"))),
        }
    }

    /// A moment as Unix seconds, RFC 3339 or a duration before `now`; `0` and nothing are none.
    pub fn moment(&self, key: &str, now: i64) -> Result<Option<i64>, Refusal> {
        match self.text(key) {
            "" | "0" => Ok(None),
            text => model::time::parse_moment(text, now)
                .map(Some)
                .ok_or_else(|| Refusal::invalid(format!("invalid value for \"{key}\": {text}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        let query = Query::parse("a=1&b=x%20y+z&t=one&t=two&c&bad=%zz");
        assert_eq!((query.text("a"), query.text("b"), query.text("bad")), ("1", "x y z", "%zz"));
        assert_eq!(query.all("t"), ["one", "two"]);
        assert!(query.has("c") && !query.flag("c") && query.flag("a") && query.flag("bad"));
        assert_eq!(query.number("a").unwrap(), Some(1));
        assert!(query.number("b").is_err());
    }
}
