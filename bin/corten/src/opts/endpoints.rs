//! The networks of a new container, with the options that older flags spread over the command line.

use std::collections::BTreeMap;

use api_types::network::{EndpointIpamConfig, EndpointSettings};

use super::network::{Attachment, is_user_defined, mac_address, parse};
use crate::args::Matches;

/// The network mode, and the endpoints to make.
pub fn endpoints(matches: &Matches) -> Result<(String, BTreeMap<String, EndpointSettings>), String> {
    let mut values = Vec::new();
    // Both spellings count in the order of the table; mixing them is not done in practice.
    for name in ["network", "net"] {
        for value in matches.list(name) {
            values.push(parse(value)?);
        }
    }
    let given = values.len();
    if values.is_empty() {
        values.push(Attachment { target: "default".to_owned(), ..Attachment::default() });
    }
    let mode = values[0].target.clone();
    let mut found = BTreeMap::new();
    let (mut user, mut other) = (false, false);
    for (index, mut value) in values.into_iter().enumerate() {
        if given > 0 {
            let defined = is_user_defined(&value.target);
            user |= defined;
            other |= !defined;
        }
        if index == 0 {
            apply(&mut value, matches)?;
        }
        let endpoint = endpoint(&value)?;
        if found.contains_key(&value.target) {
            return Err(format!("network {} is specified multiple times", template::quote(&value.target)));
        }
        // A plain single network is left to the daemon, which makes the same of it.
        if index == 0 && given == 1 && endpoint == EndpointSettings::default() {
            continue;
        }
        found.insert(value.target, endpoint);
    }
    if user && other {
        return Err(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
                .to_owned(),
        );
    }
    Ok((mode, found))
}

/// Moves `--ip` and its like to the first network.
fn apply(value: &mut Attachment, matches: &Matches) -> Result<(), String> {
    let both = |flag: &str, what: &str| {
        Err(format!("conflicting options: cannot specify both --{flag} and per-network {what}"))
    };
    let aliases: Vec<String> =
        ["network-alias", "net-alias"].iter().flat_map(|name| matches.list(name)).cloned().collect();
    if !aliases.is_empty() {
        if !value.aliases.is_empty() {
            return both("network-alias", "alias");
        }
        value.aliases = aliases;
    }
    if matches.has("link") {
        value.links = matches.list("link").to_vec();
    }
    for (flag, what, slot) in [
        ("ip", "IPv4 address", &mut value.ipv4),
        ("ip6", "IPv6 address", &mut value.ipv6),
        ("mac-address", "MAC address", &mut value.mac),
    ] {
        let text = matches.str(flag).trim();
        if text.is_empty() {
            continue;
        }
        if !slot.is_empty() {
            return both(flag, what);
        }
        *slot = text.to_owned();
    }
    if matches.has("link-local-ip") {
        if !value.link_local.is_empty() {
            return both("link-local-ip", "link-local IP addresses");
        }
        value.link_local = matches.list("link-local-ip").to_vec();
    }
    Ok(())
}

fn endpoint(value: &Attachment) -> Result<EndpointSettings, String> {
    if !value.mac.is_empty() {
        mac_address(&value.mac)?;
    }
    let target = value.target.trim();
    if target.is_empty() {
        return Err("no name set for network".to_owned());
    }
    if !is_user_defined(target) {
        if !value.aliases.is_empty() {
            return Err("network-scoped aliases are only supported for user-defined networks".to_owned());
        }
        if target != "default" && target != "bridge" && !value.links.is_empty() {
            return Err("links are only supported for user-defined networks".to_owned());
        }
    }
    let mut endpoint = EndpointSettings {
        mac_address: value.mac.clone(),
        gw_priority: value.priority,
        ..Default::default()
    };
    endpoint.aliases = (!value.aliases.is_empty()).then(|| value.aliases.clone());
    // On the default network links are a matter of the host configuration.
    endpoint.links = (!value.links.is_empty() && is_user_defined(target)).then(|| value.links.clone());
    endpoint.driver_opts = (!value.driver_opts.is_empty()).then(|| value.driver_opts.clone());
    if !(value.ipv4.is_empty() && value.ipv6.is_empty() && value.link_local.is_empty()) {
        endpoint.ipam_config = Some(EndpointIpamConfig {
            ipv4_address: value.ipv4.clone(),
            ipv6_address: value.ipv6.clone(),
            link_local_ips: (!value.link_local.is_empty()).then(|| value.link_local.clone()),
        });
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pairs: &[(&'static str, &str)]) -> Result<(String, BTreeMap<String, EndpointSettings>), String> {
        endpoints(&Matches::from_pairs(pairs, &[]))
    }

    #[test]
    fn networks() {
        assert_eq!(run(&[]).map(|(mode, all)| (mode, all.len())), Ok(("default".to_owned(), 1)));
        assert_eq!(
            run(&[("network", "host")]).map(|(mode, all)| (mode, all.len())),
            Ok(("host".to_owned(), 0))
        );
        let (_, all) = run(&[("network", "a"), ("ip", "1.2.3.4"), ("network", "b"), ("network-alias", "x")])
            .expect("valid");
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(all["a"].aliases, Some(vec!["x".to_owned()]));
    }

    #[test]
    fn conflicts() {
        for (pairs, text) in [
            (&[("network", "x"), ("network", "x")][..], "network \"x\" is specified multiple times"),
            (
                &[("network", "host"), ("network", "x")][..],
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ),
            (
                &[("network", "host"), ("net-alias", "x")][..],
                "network-scoped aliases are only supported for user-defined networks",
            ),
            (
                &[("network", "name=a,ip=1.1.1.1"), ("ip", "1.1.1.2")][..],
                "conflicting options: cannot specify both --ip and per-network IPv4 address",
            ),
            (&[("mac-address", "zz")][..], "zz is not a valid mac address"),
        ] {
            assert_eq!(run(pairs).map(drop), Err(text.to_owned()));
        }
    }
}
