//! `daemon.json`: its members, each with the line that it stands on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Kind, SETTINGS, Setting};

/// The members of an object as they stand in the text.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'a> Visitor<'a> for Reader {
            type Value = Members<'a>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
                let mut all = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    all.push((Cow::Owned(key), map.next_value()?));
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Members that older Dockers had, and what to do without them.
const GONE: [(&str, &str); 6] = [
    ("graph", "use data-root"),
    ("api-cors-header", "put a proxy that sets the header in front of the API"),
    ("cluster-store", "use swarm mode"),
    ("cluster-store-opts", "use swarm mode"),
    ("cluster-advertise", "use swarm mode"),
    ("disable-legacy-registry", "it has no successor"),
];

/// Values by the names of their settings, with their lines. Unknown members and wrong types are refused by name and line.
pub fn parse(text: &str) -> Result<BTreeMap<&'static str, (Value, usize)>> {
    let mut given = BTreeMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Ok(given);
    }
    let Members(members) = match serde_json::from_str(text) {
        Ok(members) => members,
        Err(error) => bail!("invalid JSON: {error}"),
    };
    let line_of = |raw: &RawValue| {
        let at = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
    };
    let mut unknown = Vec::new();
    for (key, raw) in members {
        let line = line_of(raw);
        if let Some((_, instead)) = GONE.iter().find(|(gone, _)| *gone == key) {
            bail!("line {line}: \"{key}\" was removed: {instead}");
        }
        // Its name while there could be only one address.
        let (key, raw_text) = match key.as_ref() {
            "host-gateway-ip" => (Cow::Borrowed("host-gateway-ips"), Cow::Owned(format!("[{}]", raw.get()))),
            _ => (key, Cow::Borrowed(raw.get())),
        };
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key && !key.is_empty()) else {
            unknown.push(format!("{key} (line {line})"));
            continue;
        };
        let value: Value = serde_json::from_str(&raw_text)?;
        // As everywhere in Go's JSON, nothing is the default.
        if value.is_null() {
            continue;
        }
        if let Some(wanted) = misfit(setting, &value) {
            bail!("line {line}: the value of \"{key}\" has the wrong type: it must be {wanted}");
        }
        if given.insert(setting.name(), (value, line)).is_some() {
            bail!("line {line}: \"{key}\" stands there twice");
        }
    }
    if !unknown.is_empty() {
        bail!("the following directives don't match any configuration option: {}", unknown.join(", "));
    }
    Ok(given)
}

/// What the value must be, if it is not that.
fn misfit(setting: &Setting, value: &Value) -> Option<&'static str> {
    let scalar = |value: &Value| value.is_string() || value.is_boolean() || value.is_number();
    let object = |fits: &dyn Fn(&Value) -> bool| value.as_object().is_some_and(|map| map.values().all(fits));
    let list = |fits: &dyn Fn(&Value) -> bool| value.as_array().is_some_and(|list| list.iter().all(fits));
    let (fits, wanted) = match setting.kind {
        Kind::Switch => (value.is_boolean(), "true or false"),
        Kind::Text if setting.key == "default-shm-size" => {
            (value.is_string() || value.is_u64(), "a size such as \"64M\"")
        }
        Kind::Text => (value.is_string(), "a string"),
        Kind::Number => (value.is_i64(), "a whole number"),
        Kind::List => (list(&Value::is_string), "a list of strings"),
        Kind::Map => (object(&scalar), "an object of strings"),
        Kind::Switches => (object(&Value::is_boolean), "an object of true and false"),
        Kind::Ulimits => (
            object(&|one| {
                let number = |key: &str| one.get(key).is_none_or(Value::is_i64);
                one.is_object() && number("Hard") && number("Soft")
            }),
            "an object such as {\"nofile\": {\"Name\": \"nofile\", \"Soft\": 1024, \"Hard\": 2048}}",
        ),
        Kind::Pools => (
            list(&|one| {
                one.get("base").is_some_and(Value::is_string) && one.get("size").is_some_and(Value::is_i64)
            }),
            "a list such as [{\"base\": \"10.10.0.0/16\", \"size\": 24}]",
        ),
        Kind::Runtimes => {
            (object(&Value::is_object), "an object such as {\"crun\": {\"path\": \"/usr/bin/crun\"}}")
        }
        Kind::NetworkOptions => (
            object(&|one| one.as_object().is_some_and(|options| options.values().all(Value::is_string))),
            "an object such as {\"bridge\": {\"com.docker.network.driver.mtu\": \"1400\"}}",
        ),
        Kind::Object => (value.is_object(), "an object"),
    };
    (!fits).then_some(wanted)
}
