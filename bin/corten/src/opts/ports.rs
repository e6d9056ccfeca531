//! `--publish` and `--expose`.

use api_types::container::{PortBinding, PortMap};
use api_types::{Empty, ObjectSet};

use crate::args::check::csv_fields;

/// Ports that one command line may name, so that a range cannot fill memory many times over.
const MAX_PORTS: usize = 1 << 20;

/// All published ports: those the container exposes, and where they are bound.
pub fn parse_publish(values: &[String]) -> Result<(ObjectSet, PortMap), String> {
    let mut exposed = ObjectSet::new();
    let mut bindings = PortMap::new();
    let mut count = 0;
    for value in values {
        for (port, binding) in parse_one(&standard_notation(value)?)? {
            count += 1;
            if count > MAX_PORTS {
                return Err("too many ports".to_owned());
            }
            exposed.insert(port.clone(), Empty {});
            bindings.entry(port).or_default().get_or_insert_default().push(binding);
        }
    }
    Ok((exposed, bindings))
}

/// Adds the ports of `--expose` to those that are published.
pub fn add_exposed(values: &[String], exposed: &mut ObjectSet) -> Result<(), String> {
    for value in values {
        if value.contains(':') {
            return Err(format!("invalid port format for --expose: {value}"));
        }
        let (port, protocol) = split_protocol(value);
        let (from, to) = range(port)
            .map_err(|error| format!("invalid range format for --expose: {value}, error: {error}"))?;
        for port in from..=to {
            exposed.entry(format!("{port}/{}", protocol.to_lowercase())).or_default();
        }
    }
    Ok(())
}

fn split_protocol(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((port, "")) => (port, "tcp"),
        Some((port, protocol)) => (port, protocol),
        None => (text, "tcp"),
    }
}

/// The long form (`target=80,published=8080,protocol=tcp`) as the short one.
fn standard_notation(value: &str) -> Result<String, String> {
    if !value.contains('=') {
        return Ok(value.to_owned());
    }
    let (mut target, mut published, mut protocol, mut address) =
        (String::new(), String::new(), "tcp".to_owned(), None);
    for field in csv_fields(value)? {
        match field.split_once('=') {
            Some(("target", text)) => target = text.to_owned(),
            Some(("published", text)) => published = text.to_owned(),
            Some(("protocol", text)) => protocol = text.to_owned(),
            Some(("host_ip" | "host-ip", text)) => address = Some(text.to_owned()),
            Some(("mode", _)) => {}
            _ => {}
        }
    }
    let address = address.map_or(String::new(), |address| format!("{address}:"));
    Ok(format!("{address}{published}:{target}/{protocol}"))
}

/// `[ip:][hostPort[-end]:]containerPort[-end][/protocol]`
fn parse_one(value: &str) -> Result<Vec<(String, PortBinding)>, String> {
    let mut parts = value.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    if container.is_empty() {
        return Err(format!("no port specified: {value}<empty>"));
    }
    let (ports, protocol) = split_protocol(container);
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address: {bare}"));
    }
    if ports.is_empty() {
        return Err(format!("no port specified: {value}<empty>"));
    }
    let (from, to) = range(ports).map_err(|_| format!("invalid containerPort: {ports}"))?;
    let hosts = match host {
        "" => None,
        text => Some(range(text).map_err(|_| format!("invalid hostPort: {text}"))?),
    };
    if let Some((host_from, host_to)) = hosts
        && to - from != host_to - host_from
        && from != to
    {
        return Err(format!("invalid ranges specified for container and host Ports: {ports} and {host}"));
    }
    Ok((from..=to)
        .map(|port| {
            let host_port = match hosts {
                None => String::new(),
                // One port in the container, a range on the host: the daemon picks one of them.
                Some((first, last)) if from == to && first != last => format!("{first}-{last}"),
                Some((first, _)) => (first + (port - from)).to_string(),
            };
            (format!("{port}/{protocol}"), PortBinding { host_ip: bare.to_owned(), host_port })
        })
        .collect())
}

/// `80` or `80-90`, inclusive.
fn range(text: &str) -> Result<(u32, u32), String> {
    if text.is_empty() {
        return Err("empty string specified for ports.".to_owned());
    }
    let number = |text: &str| {
        crate::args::check::parse_uint(
            text.trim_start_matches('0').get(..).filter(|t| !t.is_empty()).unwrap_or(if text.is_empty() {
                ""
            } else {
                "0"
            }),
            16,
        )
        .map(|port| port as u32)
    };
    let (from, to) = match text.split_once('-') {
        Some((from, to)) => (number(from)?, number(to)?),
        None => {
            let port = number(text)?;
            (port, port)
        }
    };
    if to < from {
        return Err(format!("invalid range specified for port: {text}"));
    }
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(value: &str, expected: &[(&str, &str, &str)]) {
        let bindings = parse_one(&standard_notation(value).expect(value)).expect(value);
        let shown: Vec<_> = bindings
            .iter()
            .map(|(port, at)| (port.as_str(), at.host_ip.as_str(), at.host_port.as_str()))
            .collect();
        assert_eq!(shown, expected, "{value}");
    }

    #[test]
    fn publish() {
        check("80", &[("80/tcp", "", "")]);
        check("8080:80/udp", &[("80/udp", "", "8080")]);
        check("127.0.0.1:8080:80", &[("80/tcp", "127.0.0.1", "8080")]);
        check("127.0.0.1::80", &[("80/tcp", "127.0.0.1", "")]);
        check("[::1]:8080:80", &[("80/tcp", "::1", "8080")]);
        check("8000-8001:80-81", &[("80/tcp", "", "8000"), ("81/tcp", "", "8001")]);
        check("8000-8010:80", &[("80/tcp", "", "8000-8010")]);
        check("published=8080,target=80,protocol=udp", &[("80/udp", "", "8080")]);
    }

    #[test]
    fn refusals() {
        for (value, text) in [
            ("x", "invalid containerPort: x"),
            ("99999:1", "invalid hostPort: 99999"),
            ("80:80/foo", "invalid proto: foo"),
            ("::", "no port specified: ::<empty>"),
            ("1.2.3.4.5:80:80", "invalid IP address: 1.2.3.4.5"),
            ("1-3:5-6", "invalid ranges specified for container and host Ports: 5-6 and 1-3"),
        ] {
            assert_eq!(parse_one(value), Err(text.to_owned()), "{value}");
        }
        let mut exposed = ObjectSet::new();
        assert_eq!(
            add_exposed(&["x".to_owned()], &mut exposed),
            Err("invalid range format for --expose: x, error: strconv.ParseUint: parsing \"x\": invalid syntax".into())
        );
        assert_eq!(add_exposed(&["80-82/udp".to_owned()], &mut exposed), Ok(()));
        assert_eq!(exposed.keys().collect::<Vec<_>>(), ["80/udp", "81/udp", "82/udp"]);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(value in "[0-9a-z:./\\[\\]=,-]{0,24}") {
            let _ = parse_publish(std::slice::from_ref(&value));
            let _ = add_exposed(&[value], &mut ObjectSet::new());
        }
    }
}
