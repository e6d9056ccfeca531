//! `network create`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api_client::Request;
use api_types::network::{ConfigReference, Ipam, IpamConfig};
use api_types::{IdResponse, StringMap};
use serde::Serialize;

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::opts::kv;
use crate::output::out;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Create<'a> {
    name: &'a str,
    driver: &'a str,
    scope: &'a str,
    #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
    enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    config_from: Option<ConfigReference>,
    options: StringMap,
    labels: StringMap,
}

pub async fn create(app: &App, matches: &Matches) -> Result<(), Fail> {
    let name = &matches.args[0];
    let from = matches.str("config-from");
    let driver = match matches.str("driver") {
        "" => "bridge",
        driver => driver,
    };
    let body = Create {
        name,
        driver,
        scope: matches.str("scope"),
        enable_ipv4: matches.has("ipv4").then(|| matches.bool("ipv4")),
        enable_ipv6: matches.has("ipv6").then(|| matches.bool("ipv6")),
        ipam: Ipam {
            driver: if matches.has("ipam-driver") { matches.str("ipam-driver") } else { "default" }
                .to_owned(),
            options: Some(kv::map(matches.list("ipam-opt"))),
            config: Some(ipam(matches)?),
        },
        internal: matches.bool("internal"),
        attachable: matches.bool("attachable"),
        ingress: matches.bool("ingress"),
        config_only: matches.bool("config-only"),
        config_from: (!from.is_empty()).then(|| ConfigReference { network: from.to_owned() }),
        options: kv::map(matches.list("opt")),
        labels: kv::labels(&[], matches.list("label"))?,
    };
    let made: IdResponse = app.client().await?.json(Request::post("/networks/create").json(&body)?).await?;
    out(&format!("{}\n", made.id));
    Ok(())
}

/// Subnets with the ranges, gateways and addresses that lie in them.
fn ipam(matches: &Matches) -> Result<Vec<IpamConfig>, Fail> {
    let subnets = matches.strings("subnet");
    let ranges = matches.strings("ip-range");
    let gateways = matches.strings("gateway");
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err(Fail::text("every ip-range or gateway must have a corresponding subnet"));
    }
    let mut found: BTreeMap<String, IpamConfig> = BTreeMap::new();
    for (at, subnet) in subnets.iter().enumerate() {
        for other in &subnets[..at] {
            if contains(subnet, other)? || contains(other, subnet)? {
                return Err(Fail::text("multiple overlapping subnet configuration is not supported"));
            }
        }
        found.insert(subnet.clone(), IpamConfig { subnet: subnet.clone(), ..IpamConfig::default() });
    }
    let mut place = |address: &str, what: &str, set: &dyn Fn(&mut IpamConfig) -> bool| -> Result<(), Fail> {
        for (subnet, config) in &mut found {
            if contains(subnet, address)? {
                if !set(config) {
                    return Err(Fail::text(format!(
                        "cannot configure multiple {what} ({address}) on the same subnet ({subnet})"
                    )));
                }
                return Ok(());
            }
        }
        Err(Fail::text(format!("no matching subnet for {what} {address}")))
    };
    for range in &ranges {
        place(range, "range", &|config| std::mem::replace(&mut config.ip_range, range.clone()).is_empty())?;
    }
    for gateway in &gateways {
        place(gateway, "gateway", &|config| {
            std::mem::replace(&mut config.gateway, gateway.clone()).is_empty()
        })?;
    }
    for (name, address) in kv::map(matches.list("aux-address")) {
        place(&address, "aux-address", &|config| {
            config.auxiliary_addresses.get_or_insert_default().insert(name.clone(), address.clone());
            true
        })?;
    }
    Ok(found.into_values().collect())
}

/// Whether `subnet` contains the address or network `other`.
fn contains(subnet: &str, other: &str) -> Result<bool, Fail> {
    let invalid = |text: &str| Fail::text(format!("invalid CIDR address: {text}"));
    let parse = |text: &str| -> Option<(IpAddr, u32)> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (bits <= most).then_some((address, bits))
    };
    let (network, bits) = parse(subnet).filter(|_| subnet.contains('/')).ok_or_else(|| invalid(subnet))?;
    let (address, length) = parse(other).ok_or_else(|| invalid(other))?;
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    };
    let ((left, left_v4), (right, right_v4)) = (number(network), number(address));
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
    Ok(left_v4 == right_v4 && length >= bits && left & mask == right & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        let yes = |subnet, other| contains(subnet, other).unwrap_or(false);
        assert!(yes("10.0.0.0/8", "10.1.2.3"));
        assert!(yes("10.0.0.0/8", "10.1.0.0/16"));
        assert!(!yes("10.1.0.0/16", "10.0.0.0/8"));
        assert!(!yes("10.0.0.0/8", "fd00::1"));
        assert!(yes("fd00::/8", "fd00::1"));
        assert!(contains("10.0.0.0", "10.0.0.1").is_err());
        assert!(contains("10.0.0.0/8", "x").is_err());
    }

    #[test]
    fn ranges_go_to_their_subnet() {
        let matches = Matches::from_pairs(
            &[
                ("subnet", "10.0.0.0/8"),
                ("subnet", "172.16.0.0/16"),
                ("gateway", "172.16.0.1"),
                ("ip-range", "10.1.0.0/16"),
            ],
            &["n"],
        );
        let configs = ipam(&matches).expect("valid");
        assert_eq!(configs[0].ip_range, "10.1.0.0/16");
        assert_eq!(configs[1].gateway, "172.16.0.1");
    }
}
