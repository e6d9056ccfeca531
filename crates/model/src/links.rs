//! Links between containers on the default bridge (`--link`): a container finds another one by an alias.

use std::net::IpAddr;

use api_types::container::ContainerConfig;
use serde::{Deserialize, Serialize};

use crate::Refusal;
use crate::ports::{self, Port, Protocol};

/// A container that another one is linked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its ID.
    pub container: String,
    /// Its name when the link was made, for messages when it is gone.
    pub name: String,
    pub alias: String,
}

/// `NAME`, `NAME:ALIAS`, or what inspect answers, `/NAME:/PARENT/ALIAS`, as name and alias.
pub fn parse(text: &str) -> Result<(&str, &str), Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid("empty string specified for links"));
    }
    let (found, alias) = match text.split_once(':') {
        None => (text, text),
        Some((_, more)) if more.contains(':') => {
            return Err(Refusal::invalid(format!("bad format for links: {text}")));
        }
        Some((found, alias)) => match found.strip_prefix('/') {
            Some(found) => (found, alias.rsplit('/').next().unwrap_or(alias)),
            None => (found, alias),
        },
    };
    // It becomes a word of `/etc/hosts`, and a part of a name.
    if found.is_empty() || !is_word(alias) {
        return Err(Refusal::invalid(format!("bad format for links: {text}")));
    }
    Ok((found, alias))
}

fn is_word(alias: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !alias.is_empty() && alias.len() <= 255 && alias.bytes().all(plain)
}

/// A linked container as it runs now.
#[derive(Debug, Clone)]
pub struct Linked {
    pub alias: String,
    pub name: String,
    pub address: IpAddr,
    pub config: ContainerConfig,
}

impl Linked {
    /// The names by which it is found: the alias, its host name, and its own name.
    pub fn names(&self) -> String {
        let mut names = format!("{} {}", self.alias, self.config.hostname);
        if self.alias != self.name {
            names = format!("{names} {}", self.name);
        }
        names
    }

    /// The variables that tell of it, as Docker once set them; `parent` is the name of the container that gets them.
    pub fn variables(&self, parent: &str) -> Vec<String> {
        let prefix = self.alias.to_uppercase().replace('-', "_");
        let address = self.address;
        let exposed = ports::exposed(self.config.exposed_ports.as_ref().unwrap_or(&Default::default()));
        let mut ports: Vec<Port> = exposed.unwrap_or_default().into_iter().collect();
        ports.sort_by_key(|port| (port.protocol != Protocol::Tcp, port.number));
        let mut all = Vec::new();
        let first = ports.iter().min_by_key(|port| (port.number, port.protocol != Protocol::Tcp));
        if let Some(port) = first {
            all.push(format!("{prefix}_PORT={}://{address}:{}", port.protocol.name(), port.number));
        }
        for run in runs(&ports) {
            let [start, .., end] = run else { continue };
            let (protocol, first, last) = (start.protocol.name(), start.number, end.number);
            let head = format!("{prefix}_PORT_{first}_{}", protocol.to_uppercase());
            all.push(format!("{head}_START={protocol}://{address}:{first}"));
            all.push(format!("{head}_ADDR={address}"));
            all.push(format!("{head}_PROTO={protocol}"));
            all.push(format!("{head}_PORT_START={first}"));
            all.push(format!("{head}_END={protocol}://{address}:{last}"));
            all.push(format!("{head}_PORT_END={last}"));
        }
        for port in &ports {
            let (protocol, number) = (port.protocol.name(), port.number);
            let head = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
            all.push(format!("{head}={protocol}://{address}:{number}"));
            all.push(format!("{head}_ADDR={address}"));
            all.push(format!("{head}_PORT={number}"));
            all.push(format!("{head}_PROTO={protocol}"));
        }
        all.push(format!("{prefix}_NAME=/{parent}/{}", self.alias));
        let own = self.config.env.iter().flatten().filter_map(|variable| variable.split_once('='));
        // These come from the image and concern nobody else.
        let told = own.filter(|(name, _)| !matches!(*name, "HOME" | "PATH"));
        all.extend(told.map(|(name, value)| format!("{prefix}_ENV_{name}={value}")));
        all
    }
}

/// Ports of one protocol that follow each other.
fn runs(ports: &[Port]) -> impl Iterator<Item = &[Port]> {
    ports
        .chunk_by(|one, next| one.protocol == next.protocol && one.number.checked_add(1) == Some(next.number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_people_and_inspect_write_them() {
        assert_eq!(parse("db").unwrap(), ("db", "db"));
        assert_eq!(parse("db:sql").unwrap(), ("db", "sql"));
        assert_eq!(parse("/db:/web/sql").unwrap(), ("db", "sql"));
        assert_eq!(parse("").unwrap_err().message, "empty string specified for links");
        for bad in ["a:b:c", ":b", "a:", "a:b c", "a:b\n", "/db:/web/"] {
            let said = parse(bad).unwrap_err().message;
            assert_eq!(said, format!("bad format for links: {bad}"));
        }
    }

    fn linked(exposed: &[&str], env: &[&str]) -> Linked {
        let exposed = exposed.iter().map(|port| (port.to_string(), Default::default())).collect();
        let env = env.iter().map(ToString::to_string).collect();
        let config = ContainerConfig {
            hostname: "0123456789ab".into(),
            exposed_ports: Some(exposed),
            env: Some(env),
            ..ContainerConfig::default()
        };
        Linked { alias: "my-sql".into(), name: "db".into(), address: [172, 17, 0, 2].into(), config }
    }

    #[test]
    fn a_linked_container_has_three_names() {
        let mut one = linked(&[], &[]);
        assert_eq!(one.names(), "my-sql 0123456789ab db");
        one.alias = "db".into();
        assert_eq!(one.names(), "db 0123456789ab");
    }

    #[test]
    fn variables_tell_of_ports_and_environment() {
        let told = linked(&["6379/tcp"], &["A=1", "PATH=/bin", "HOME=/", "EMPTY"]).variables("web");
        let wanted = [
            "MY_SQL_PORT=tcp://172.17.0.2:6379",
            "MY_SQL_PORT_6379_TCP=tcp://172.17.0.2:6379",
            "MY_SQL_PORT_6379_TCP_ADDR=172.17.0.2",
            "MY_SQL_PORT_6379_TCP_PORT=6379",
            "MY_SQL_PORT_6379_TCP_PROTO=tcp",
            "MY_SQL_NAME=/web/my-sql",
            "MY_SQL_ENV_A=1",
        ];
        assert_eq!(told, wanted);
        let told = linked(&["53/udp", "80/tcp", "81/tcp"], &[]).variables("web");
        assert_eq!(told[0], "MY_SQL_PORT=udp://172.17.0.2:53", "the lowest number, whatever it speaks");
        assert!(told.contains(&"MY_SQL_PORT_80_TCP_START=tcp://172.17.0.2:80".to_string()), "{told:?}");
        assert!(told.contains(&"MY_SQL_PORT_80_TCP_PORT_END=81".to_string()), "{told:?}");
        assert!(told.contains(&"MY_SQL_PORT_81_TCP_PORT=81".to_string()), "{told:?}");
    }
}
