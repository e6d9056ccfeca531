//! The `filters` parameter: parsing, and matching of labels.

use std::collections::{BTreeMap, BTreeSet};

use api_types::StringMap;
use serde_json::Value;

use crate::Refusal;

/// Values of one key are alternatives; keys must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads `{"key":["value"]}` or `{"key":{"value":true}}`; an empty text is no filter. `known` are the keys
    /// that the endpoint takes.
    pub fn parse(text: &str, known: &[&str]) -> Result<Filters, Refusal> {
        if text.is_empty() {
            return Ok(Filters::default());
        }
        let invalid =
            || Refusal::invalid(format!("invalid filter: {}", text.chars().take(200).collect::<String>()));
        let Ok(Value::Object(members)) = serde_json::from_str(text) else { return Err(invalid()) };
        let mut all = BTreeMap::new();
        for (key, values) in members {
            if !known.contains(&key.as_str()) {
                return Err(Refusal::invalid(format!("invalid filter '{key}'")));
            }
            let values: BTreeSet<String> = match values {
                Value::Array(list) => list
                    .into_iter()
                    .map(|value| value.as_str().map(String::from).ok_or_else(invalid))
                    .collect::<Result<_, _>>()?,
                Value::Object(map) => map
                    .into_iter()
                    .filter(|(_, on)| on.as_bool() != Some(false))
                    .map(|(value, _)| value)
                    .collect(),
                _ => return Err(invalid()),
            };
            all.insert(key, values);
        }
        Ok(Filters(all))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values of a key; none if the key is not there.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|values| !values.is_empty())
    }

    /// True if the key is not there, or one of its values passes.
    pub fn any(&self, key: &str, mut passes: impl FnMut(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).any(&mut passes)
    }

    /// `label=k`, `label=k=v` (all must hold) and `label!=` (none may).
    pub fn labels(&self, labels: &StringMap) -> bool {
        let holds = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").all(holds) && !self.values("label!").any(holds)
    }

    /// A boolean key; none if it is not there.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Refusal> {
        match self.values(key).next() {
            None => Ok(None),
            Some("1" | "true" | "True" | "TRUE" | "t") => Ok(Some(true)),
            Some("0" | "false" | "False" | "FALSE" | "f") => Ok(Some(false)),
            Some(other) => Err(Refusal::invalid(format!("invalid filter '{key}=[{other}]'"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let list = Filters::parse(r#"{"label":["a=b","c"]}"#, &["label"]).unwrap();
        let map = Filters::parse(r#"{"label":{"a=b":true,"c":true}}"#, &["label"]).unwrap();
        assert_eq!(list, map);
        let labels =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert!(list.labels(&labels(&[("a", "b"), ("c", "")])));
        assert!(!list.labels(&labels(&[("a", "b")])));
        assert_eq!(Filters::parse(r#"{"x":["1"]}"#, &["label"]).unwrap_err().message, "invalid filter 'x'");
        for bad in ["x", "[]", r#"{"label":1}"#, r#"{"label":[1]}"#] {
            assert!(Filters::parse(bad, &["label"]).is_err(), "{bad}");
        }
    }
}
