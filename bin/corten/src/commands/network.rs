//! `network`: list, connect, disconnect, remove.

use api_client::{Request, segment};
use api_types::network::{EndpointIpamConfig, EndpointSettings, Network};

use super::filters;
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::table::{List, Row, join_labels, short_id};

const LIST: List = List {
    default: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    headings: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    type_name: "*network.networkContext",
};

pub async fn ls(app: &App, matches: &Matches) -> Result<(), Fail> {
    let quiet = matches.bool("quiet");
    let mut request = Request::get("/networks");
    if let Some(filters) = filters(matches.list("filter")) {
        request = request.query("filters", filters);
    }
    let mut networks: Vec<Network> = app.client().await?.json(request).await?;
    networks.sort_by(|left, right| left.name.cmp(&right.name));
    let format = match matches.str("format") {
        "" if !quiet => app.config().text("networksFormat"),
        format => format,
    };
    let truncate = !matches.bool("no-trunc");
    let rows: Vec<Row> = networks
        .into_iter()
        .map(|network| {
            let created = crate::time::parse_rfc3339(&network.created);
            Row::new([
                ("ID", if truncate { short_id(&network.id) } else { network.id }),
                ("Name", network.name),
                ("Driver", network.driver),
                ("Scope", network.scope),
                ("IPv4", network.enable_ipv4.to_string()),
                ("IPv6", network.enable_ipv6.to_string()),
                ("Internal", network.internal.to_string()),
                ("Labels", join_labels(&network.labels)),
                ("CreatedAt", created.map_or(network.created, |(seconds, nanos)| created_at(seconds, nanos))),
            ])
            .labels(network.labels)
        })
        .collect();
    let format = if quiet && matches!(format, "" | "table") { "{{.ID}}" } else { format };
    out(&LIST.render(format, &rows)?);
    Ok(())
}

/// `2006-01-02 15:04:05.123 +0000 UTC`: a point in time as Go prints it.
fn created_at(seconds: i64, nanos: i64) -> String {
    let text = crate::time::format_utc(seconds);
    if nanos == 0 {
        return format!("{text} +0000 UTC");
    }
    let fraction = format!("{nanos:09}");
    format!("{text}.{} +0000 UTC", fraction.trim_end_matches('0'))
}

pub async fn rm(app: &App, matches: &Matches) -> Result<(), Fail> {
    let client = app.client().await?;
    let force = matches.bool("force");
    let mut status = Ok(());
    for name in &matches.args {
        match client.done(Request::delete(format!("/networks/{}", segment(name)))).await {
            Ok(()) => out(&format!("{name}\n")),
            Err(error) if force && error.is_not_found() => {}
            Err(error) => {
                eprintln!("{error}");
                status = Err(Fail::text("exit status 1"));
            }
        }
    }
    status
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Connect<'a> {
    container: &'a str,
    endpoint_config: EndpointSettings,
}

pub async fn connect(app: &App, matches: &Matches) -> Result<(), Fail> {
    let (network, container) = (&matches.args[0], &matches.args[1]);
    let mut options = api_types::StringMap::new();
    for option in matches.strings("driver-opt") {
        let Some((key, value)) = option.split_once('=') else {
            return Err(Fail::text(format!("invalid key/value pair format in driver options: {option}")));
        };
        options.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    let local = matches.strings("link-local-ip");
    let aliases = matches.strings("alias");
    let ipam = EndpointIpamConfig {
        ipv4_address: matches.str("ip").to_owned(),
        ipv6_address: matches.str("ip6").to_owned(),
        link_local_ips: (!local.is_empty()).then_some(local),
    };
    let endpoint = EndpointSettings {
        ipam_config: Some(ipam),
        links: matches.has("link").then(|| matches.list("link").to_vec()),
        aliases: (!aliases.is_empty()).then_some(aliases),
        driver_opts: (!options.is_empty()).then_some(options),
        gw_priority: matches.int("gw-priority").unwrap_or(0),
        ..EndpointSettings::default()
    };
    let request = Request::post(format!("/networks/{}/connect", segment(network)))
        .json(&Connect { container, endpoint_config: endpoint })?;
    Ok(app.client().await?.done(request).await?)
}

pub async fn disconnect(app: &App, matches: &Matches) -> Result<(), Fail> {
    let (network, container) = (&matches.args[0], &matches.args[1]);
    let body = serde_json::json!({"Container": container, "Force": matches.bool("force")});
    let request = Request::post(format!("/networks/{}/disconnect", segment(network))).json(&body)?;
    Ok(app.client().await?.done(request).await?)
}
