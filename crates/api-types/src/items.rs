//! Lists, read as they come.

use serde::de::DeserializeOwned;
use serde_json::{Deserializer, Value};

use crate::{drop_nulls, from_json};

/// A JSON list in pieces that end anywhere. A long one is never in memory as a whole; an item is read like
/// [`crate::from_answer`] reads one.
#[derive(Debug, Default)]
pub struct Items {
    buffer: Vec<u8>,
    /// Bytes of the buffer that have been read.
    at: usize,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come but space.
    #[default]
    Before,
    /// Behind the bracket.
    First,
    /// Behind an item.
    Behind,
    /// Behind a comma.
    Next,
    /// Behind the last bracket.
    Ended,
    /// What came is no list.
    Other,
}

impl Items {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// Bytes that wait for more.
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.at
    }

    /// The next item; none if it has not come whole.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, serde_json::Error> {
        loop {
            let rest = &self.buffer[self.at..];
            let Some(space) = rest.iter().position(|byte| !byte.is_ascii_whitespace()) else {
                return Ok(None);
            };
            self.state = match (self.state, rest[space]) {
                (State::Other, _) => return Ok(None),
                (State::Before, b'[') => State::First,
                (State::Before, _) => {
                    self.state = State::Other;
                    return Ok(None);
                }
                (State::First | State::Behind, b']') => State::Ended,
                (State::Behind, b',') => State::Next,
                (State::First | State::Next, _) => return self.item(),
                // What is wrong is for the parser to say.
                (State::Behind | State::Ended, _) => {
                    return serde_json::from_slice(&[b"[]", rest].concat());
                }
            };
            self.at += space + 1;
        }
    }

    fn item<T: DeserializeOwned>(&mut self) -> Result<Option<T>, serde_json::Error> {
        let rest = &self.buffer[self.at..];
        let mut typed = Deserializer::from_slice(rest).into_iter::<T>();
        let (item, length) = match typed.next() {
            Some(Ok(item)) => (item, typed.byte_offset()),
            Some(Err(error)) if error.is_eof() => return Ok(None),
            _ => {
                let mut values = Deserializer::from_slice(rest).into_iter::<Value>();
                match values.next() {
                    Some(Ok(mut value)) => {
                        drop_nulls(&mut value);
                        (serde_json::from_value(value)?, values.byte_offset())
                    }
                    Some(Err(error)) if !error.is_eof() => return Err(error),
                    _ => return Ok(None),
                }
            }
        };
        // A number goes on as long as there are digits.
        if length == rest.len() {
            return Ok(None);
        }
        self.at += length;
        self.state = State::Behind;
        Ok(Some(item))
    }

    /// Nothing more comes. An answer that is no list may be `null`, and has no items.
    pub fn end(self) -> Result<(), serde_json::Error> {
        let rest = &self.buffer[self.at..];
        match self.state {
            State::Ended if rest.iter().all(u8::is_ascii_whitespace) => Ok(()),
            State::Before | State::Other => from_json::<Option<Vec<Value>>>(rest).map(drop),
            // It is cut off: what is missing is for the parser to say.
            State::First => serde_json::from_slice::<Vec<Value>>(&[b"[", rest].concat()).map(drop),
            _ => serde_json::from_slice::<Vec<Value>>(&[b"[0", rest].concat()).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Deserialize)]
    struct Item {
        #[serde(default)]
        name: String,
    }

    fn read<T: DeserializeOwned>(pieces: &[&[u8]]) -> Result<Vec<T>, serde_json::Error> {
        let (mut items, mut all) = (Items::default(), Vec::new());
        for piece in pieces {
            items.push(piece);
            while let Some(item) = items.take()? {
                all.push(item);
            }
        }
        items.end()?;
        Ok(all)
    }

    #[test]
    fn lists_of_all_shapes() {
        let names = |text: &str| {
            let items = read::<Item>(&[text.as_bytes()]).map_err(|error| error.to_string())?;
            Ok::<_, String>(items.into_iter().map(|item| item.name).collect::<Vec<_>>())
        };
        assert_eq!(names("[]\n"), Ok(vec![]));
        assert_eq!(names(" [ {} , {\"name\":\"a\",\"x\":[1,2]} ] \n"), Ok(vec![String::new(), "a".into()]));
        assert_eq!(names("[{\"name\":null}]"), Ok(vec![String::new()]), "null is the zero value");
        assert_eq!(names("null\n"), Ok(vec![]));
        for bad in
            ["", "[", "[{}", "[{},", "[{},]", "[{} {}]", "[,]", "[{}]x", "[{\"name\":1}]", "{}", "7", "[{}"]
        {
            assert!(names(bad).is_err(), "{bad}");
        }
        assert_eq!(read::<u32>(&[b"[1", b"2,3", b"]"]).unwrap(), [12, 3]);
    }

    proptest! {
        #[test]
        fn pieces_may_end_anywhere(text in "[\\[\\]{},:\"a1n ]{0,24}|\\[(\\{\"name\":\"[a-z\\\\\"é]{0,3}\"\\}[, ]?){0,4}\\]", cuts in proptest::collection::vec(0usize..30, 0..5)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            let whole = serde_json::from_slice::<Vec<Value>>(bytes);
            let read = read::<Value>(&pieces);
            match whole {
                Ok(items) => prop_assert_eq!(read.unwrap(), items),
                Err(_) => prop_assert!(read.is_err(), "{}", text),
            }
        }
    }
}
