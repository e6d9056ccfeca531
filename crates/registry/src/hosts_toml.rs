//! `hosts.toml`: which hosts stand in for a registry, in the order of the file.

use serde::Deserialize;
use toml::{Table, Value};

use crate::settings::Capabilities;

/// Bytes and hosts that a file may have.
const BYTES_MAX: usize = 1 << 20;
const HOSTS_MAX: usize = 100;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    pub server: Option<String>,
    pub hosts: Vec<Host>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Host {
    pub address: String,
    pub capabilities: Capabilities,
    /// Files, relative to the folder of this one.
    pub authorities: Vec<String>,
    /// A certificate with its key; one file may hold both.
    pub clients: Vec<(String, Option<String>)>,
    pub skip_verify: bool,
    pub override_path: bool,
    pub headers: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    host: Option<Table>,
}

#[derive(Deserialize, Default)]
struct HostTable {
    capabilities: Option<Vec<String>>,
    ca: Option<Value>,
    client: Option<Value>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    header: Option<Table>,
}

/// Reads a file. Unknown members are skipped: later versions of the format have more.
pub fn parse(text: &str) -> Result<Hosts, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("it is larger than {BYTES_MAX} bytes"));
    }
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let tables = file.host.unwrap_or_default();
    if tables.len() > HOSTS_MAX {
        return Err(format!("it names more than {HOSTS_MAX} hosts"));
    }
    let mut hosts = Vec::new();
    for (address, value) in tables {
        let table: HostTable = value
            .try_into()
            .map_err(|error: toml::de::Error| format!("host {address:?}: {}", error.message()))?;
        hosts.push(host(address, table)?);
    }
    Ok(Hosts { server: file.server, hosts })
}

fn host(address: String, table: HostTable) -> Result<Host, String> {
    let capabilities = match &table.capabilities {
        None => Capabilities::ALL,
        Some(list) => {
            let known = ["pull", "resolve", "push"];
            if let Some(odd) = list.iter().find(|one| !known.contains(&one.as_str()) && *one != "referrers") {
                return Err(format!("host {address:?}: unknown capability {odd:?}"));
            }
            let has = |name: &str| list.iter().any(|one| one == name);
            Capabilities { pull: has("pull"), resolve: has("resolve"), push: has("push") }
        }
    };
    let wrong = |what: &str| format!("host {address:?}: {what} has the wrong type");
    let authorities = match &table.ca {
        None => Vec::new(),
        Some(value) => texts(value).ok_or_else(|| wrong("ca"))?,
    };
    let clients = match &table.client {
        None => Vec::new(),
        Some(value) => clients(value).ok_or_else(|| wrong("client"))?,
    };
    let mut headers = Vec::new();
    for (name, value) in table.header.unwrap_or_default() {
        let values = texts(&value).ok_or_else(|| wrong("header"))?;
        headers.extend(values.into_iter().map(|value| (name.clone(), value)));
    }
    let HostTable { skip_verify, override_path, .. } = table;
    Ok(Host { address, capabilities, authorities, clients, skip_verify, override_path, headers })
}

/// A text, or a list of them.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|one| one.as_str().map(String::from)).collect(),
        _ => None,
    }
}

/// A file, a list of files, or a list of pairs of files.
fn clients(value: &Value) -> Option<Vec<(String, Option<String>)>> {
    let Value::Array(list) = value else {
        return Some(vec![(value.as_str()?.to_owned(), None)]);
    };
    list.iter()
        .map(|one| match one {
            Value::String(file) => Some((file.clone(), None)),
            Value::Array(_) => match texts(one)?.as_slice() {
                [cert] => Some((cert.clone(), None)),
                [cert, key] => Some((cert.clone(), Some(key.clone()).filter(|key| !key.is_empty()))),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_member_in_every_form() {
        let parsed = parse(
            r#"
server = "https://docker.io"
[host."https://z.example"]
  capabilities = ["pull", "resolve"]
  ca = ["a.crt", "/b.crt"]
  client = [["c.crt", "c.key"], "both.pem", ["d.crt", ""]]
  skip_verify = true
  future = 1
  [host."https://z.example".header]
    x-one = "1"
    x-two = ["2", "3"]
[host."https://a.example"]
  client = "one.pem"
"#,
        )
        .unwrap();
        assert_eq!(parsed.server.as_deref(), Some("https://docker.io"));
        // In the order of the file, not of the alphabet.
        assert_eq!(
            parsed.hosts.iter().map(|host| &*host.address).collect::<Vec<_>>(),
            ["https://z.example", "https://a.example"]
        );
        let first = &parsed.hosts[0];
        assert_eq!(first.capabilities, Capabilities::READ);
        assert_eq!(first.authorities, ["a.crt", "/b.crt"]);
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(
            first.clients,
            [("c.crt".into(), own("c.key")), ("both.pem".into(), None), ("d.crt".into(), None)]
        );
        assert_eq!(first.headers.len(), 3);
        assert!(first.skip_verify && !first.override_path);
        assert_eq!(parsed.hosts[1].clients, [("one.pem".to_owned(), None)]);
        assert_eq!(parse("").unwrap(), Hosts::default());
        for bad in ["server = 1", "[host.x]\nca = 1", "[host.x]\ncapabilities = [\"fly\"]", "=", "host = 1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\[host\\.\"?[a-z:/.]{0,8}\"?\\]|[a-z_]{1,8} = (\"\\PC{0,5}\"|\\[\\[?[\"a,]{0,6}\\]?\\]|1|true)|\n|\\PC){0,12}") {
            let _ = parse(&text);
        }
    }
}
