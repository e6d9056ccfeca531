//! The JSON of the Engine API, one module per noun, shared by server and client.
//!
//! Pure: it knows the wire's names and zero values, and nothing of what they do.
//!
//! A missing member and a `null` mean the zero value, as in the Go types that clients are written in: the
//! server drops `null` members before it reads a body (see [`from_json`]). `Option` is used where the
//! wire tells "not given" from the zero value, and for lists and maps that are answered as `null`.

pub mod container;
pub mod events;
pub mod exec;
pub mod image;
mod items;
mod keys;
pub mod network;
pub mod registry;
pub mod stats;
pub mod system;
pub mod volume;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use items::Items;

/// String to string, in key order.
pub type StringMap = BTreeMap<String, String>;
/// A set written as an object with empty objects as values (`{"80/tcp": {}}`).
pub type ObjectSet = BTreeMap<String, Empty>;

/// `{}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorResponse {
    pub message: String,
    /// What the person at the keyboard can do next; ours, ignored by other clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// An answer that only names what was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdResponse {
    #[serde(rename = "Id")]
    pub id: String,
}

/// Parses a request body: `null` members count as missing, unknown members are ignored.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(body)?;
    drop_nulls(&mut value);
    serde_json::from_value(value)
}

/// Parses an answer: at once where all members have values of their types, else like [`from_json`].
pub fn from_answer<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body).or_else(|_| from_json(body))
}

/// Parses a request body as Go does: like [`from_json`], and names of members count in any case of their letters.
pub fn from_request<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(body)?;
    drop_nulls(&mut value);
    keys::normalize(&mut value);
    if let Some(name) = keys::misplaced_list(&value) {
        let text = format!("cannot unmarshal array into field {name}, which is an object");
        return Err(serde::de::Error::custom(text));
    }
    serde_json::from_value(value)
}

/// Removes `null` members of objects, at every depth. `serde_json` bounds the depth when it parses.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// One message of a progress stream (build, load, import, pull, push).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    #[serde(skip_serializing_if = "is_zero")]
    pub code: i64,
    pub message: String,
}

pub(crate) fn is_zero(value: &i64) -> bool {
    *value == 0
}

pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_count_as_missing() {
        let body = br#"{"Image":"busybox","Cmd":null,"Tty":null,"HostConfig":{"Binds":null,"Memory":null},"Unknown":1}"#;
        let create: container::ContainerCreate = from_json(body).unwrap();
        assert_eq!(create.config.image, "busybox");
        assert_eq!(create.config.cmd, None);
        assert_eq!(create.host_config.unwrap().resources.memory, 0);
    }
}
