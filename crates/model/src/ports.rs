//! Exposed and published ports as the create body writes them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api_types::ObjectSet;
use api_types::container::{PortBinding, PortMap};
use serde::{Deserialize, Serialize};

use crate::Refusal;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A port of a container: `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    pub number: u16,
    pub protocol: Protocol,
}

impl std::fmt::Display for Port {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.number, self.protocol.name())
    }
}

/// A wish to publish a port; `host_from` zero means any free port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication {
    pub port: Port,
    pub host_ip: Option<IpAddr>,
    pub host_from: u16,
    pub host_to: u16,
}

fn bad(text: &str) -> Refusal {
    Refusal::invalid(format!("invalid port specification: \"{text}\""))
}

fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `8080` or `8080-8090`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (number(from)?, number(to)?);
    (from <= to).then_some((from, to))
}

/// `80`, `80/tcp`, `8000-8010/udp`: each port of the range.
pub fn parse(text: &str) -> Result<Vec<Port>, Refusal> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(bad(text)),
    };
    let (from, to) = range(ports).filter(|(from, _)| *from > 0).ok_or_else(|| bad(text))?;
    Ok((from..=to).map(|number| Port { number, protocol }).collect())
}

/// Every exposed port.
pub fn exposed(set: &ObjectSet) -> Result<BTreeSet<Port>, Refusal> {
    let mut all = BTreeSet::new();
    for text in set.keys() {
        all.extend(parse(text)?);
    }
    Ok(all)
}

/// What is to be published, in the order of the map.
pub fn publications(map: &PortMap) -> Result<Vec<Publication>, Refusal> {
    let mut all = Vec::new();
    for (text, bindings) in map {
        for port in parse(text)? {
            for binding in bindings.iter().flatten() {
                all.push(publication(port, binding)?);
            }
        }
    }
    Ok(all)
}

fn publication(port: Port, binding: &PortBinding) -> Result<Publication, Refusal> {
    let host_ip = match binding.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            Refusal::invalid(format!("invalid port specification: invalid host IP address: \"{text}\""))
        })?),
    };
    let (host_from, host_to) = match binding.host_port.as_str() {
        "" => (0, 0),
        text => range(text).ok_or_else(|| bad(text))?,
    };
    Ok(Publication { port, host_ip, host_from, host_to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(parse("80").unwrap()[0].to_string(), "80/tcp");
        assert_eq!(parse("8000-8002/UDP").unwrap().len(), 3);
        for text in ["", "0", "x", "80/foo", "9-8", "70000", "-1", "80/", "+8"] {
            assert_eq!(parse(text).unwrap_err().message, format!("invalid port specification: \"{text}\""));
        }
    }

    #[test]
    fn bindings() {
        let binding = |ip: &str, port: &str| PortBinding { host_ip: ip.into(), host_port: port.into() };
        let map =
            PortMap::from([("80/tcp".into(), Some(vec![binding("127.0.0.1", "8080"), binding("", "")]))]);
        let all = publications(&map).unwrap();
        assert_eq!((all[0].host_from, all[0].host_ip), (8080, Some("127.0.0.1".parse().unwrap())));
        assert_eq!((all[1].host_from, all[1].host_ip), (0, None));
        let map = PortMap::from([("80/tcp".into(), Some(vec![binding("nowhere", "1")]))]);
        assert!(publications(&map).is_err());
    }
}
