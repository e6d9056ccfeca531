//! `ps` and `port`.

use api_client::{Request, segment};
use api_types::container::{ContainerInspect, ContainerSummary, PortSummary};

use super::filters;
use crate::app::App;
use crate::args::{Matches, check};
use crate::fail::Fail;
use crate::output::out;
use crate::table::{List, Row, ellipsis, join_labels, short_id};
use crate::time;
use crate::units::{human_duration, human_size};

const DEFAULT: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const DEFAULT_WITH_SIZE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

pub const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];

pub async fn ps(app: &App, matches: &Matches) -> Result<(), Fail> {
    let size = matches.bool("size");
    let quiet = matches.bool("quiet");
    let list = List {
        default: if size { DEFAULT_WITH_SIZE } else { DEFAULT },
        headings: HEADINGS,
        type_name: "*formatter.ContainerContext",
    };
    let format = match matches.str("format") {
        "" if !quiet => app.config().text("psFormat"),
        format => format,
    };
    // Mistakes in the format show before anything is asked.
    let truncate = !matches.bool("no-trunc");
    list.check(format, &row(&ContainerSummary::default(), truncate, 0))?;
    let mut limit = matches.int("last").unwrap_or(-1);
    if matches.bool("latest") && !matches.has("last") {
        limit = 1;
    }
    let mut request = Request::get("/containers/json").flag("all", matches.bool("all"));
    if limit > 0 {
        request = request.query("limit", limit.to_string());
    }
    // Sizes cost the daemon much, so they are only asked for where they show.
    request = request
        .flag("size", size || (!quiet && (list.mentions(format, "Size") || format.contains("{{json .}}"))));
    if let Some(filters) = filters(matches.list("filter")) {
        request = request.query("filters", filters);
    }
    let client = app.client().await?;
    let plain = matches!(format, "" | "table");
    // Our own daemon can leave out what the table does not show; others tell everything.
    let request = request.flag("brief", plain);
    if quiet && plain {
        let id = |container: ContainerSummary| id(&container, truncate) + "\n";
        out(&client.list(request, id).await?.concat());
        return Ok(());
    }
    let now = time::now();
    if plain {
        let columns = list.default_columns();
        let line = |container: ContainerSummary| {
            let cells = columns.iter().map(|name| cell(&container, name, truncate, now));
            cells.collect::<Vec<_>>().join("\t")
        };
        out(&list.default_table(&client.list(request, line).await?));
        return Ok(());
    }
    let rows = client.list(request, |container| row(&container, truncate, now)).await?;
    out(&list.render(format, &rows)?);
    Ok(())
}

fn id(container: &ContainerSummary, truncate: bool) -> String {
    if truncate { short_id(&container.id) } else { container.id.clone() }
}

/// What a column says.
fn cell(container: &ContainerSummary, name: &str, truncate: bool, now: i64) -> String {
    match name {
        "ID" => id(container, truncate),
        "Names" => names(&container.names, truncate),
        "Image" => image(container, truncate),
        "Command" if truncate => template::quote(&ellipsis(&container.command, 20)),
        "Command" => template::quote(&container.command),
        "CreatedAt" => time::format_long(container.created),
        "RunningFor" => format!("{} ago", human_duration(now - container.created)),
        "Ports" => ports(&container.ports),
        "State" => container.state.clone(),
        "Status" => container.status.clone(),
        "Size" => size(container),
        "Labels" => join_labels(&container.labels),
        "Mounts" => mounts(container, truncate),
        "LocalVolumes" => container.mounts.iter().filter(|mount| mount.driver == "local").count().to_string(),
        "Networks" => {
            let names = container.network_settings.networks.keys();
            names.map(String::as_str).collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    }
}

fn mounts(container: &ContainerSummary, truncate: bool) -> String {
    let names = container
        .mounts
        .iter()
        .map(|mount| if mount.name.is_empty() { &mount.source } else { &mount.name })
        .map(|name| if truncate { ellipsis(name, 15) } else { name.clone() });
    names.collect::<Vec<_>>().join(",")
}

pub fn row(container: &ContainerSummary, truncate: bool, now: i64) -> Row {
    let cells = HEADINGS.iter().map(|(name, _)| (*name, cell(container, name, truncate, now)));
    let mut row = Row::new(cells).labels(container.labels.clone());
    // Only newer daemons tell, and only for images of other platforms.
    row.fields.insert("Platform".to_owned(), serde_json::Value::Null);
    row.fields.sort_keys();
    row
}

/// All names without their slash; cut, the one that is the container's own and not a link's.
fn names(names: &[String], truncate: bool) -> String {
    let names: Vec<&str> = names.iter().map(|name| name.strip_prefix('/').unwrap_or(name)).collect();
    if truncate && let Some(own) = names.iter().find(|name| !name.contains('/')) {
        return (*own).to_owned();
    }
    names.join(",")
}

fn image(container: &ContainerSummary, truncate: bool) -> String {
    if container.image.is_empty() {
        return "<no image>".to_owned();
    }
    if !truncate {
        return container.image.clone();
    }
    let short = short_id(&container.image_id);
    if short == short_id(&container.image) {
        return short;
    }
    // With a tag the digest says nothing more to a reader.
    match crate::opts::reference::split(&container.image) {
        (repository, Some(tag), Some(_)) => format!("{repository}:{tag}"),
        (repository, None, Some(_)) => repository.to_owned(),
        _ => container.image.clone(),
    }
}

fn size(container: &ContainerSummary) -> String {
    let own = human_size(container.size_rw.unwrap_or(0) as f64, 3);
    match container.size_root_fs.unwrap_or(0) {
        0 => own,
        all => format!("{own} (virtual {})", human_size(all as f64, 3)),
    }
}

fn host_port(ip: &str, port: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// Address and protocol.
type PortKey<'a> = (&'a str, &'a str);
/// The first and the last port of a range.
type PortRange = (u16, u16);

/// The column of ports: neighbours that are bound to their own number are one range.
fn ports(ports: &[PortSummary]) -> String {
    let mut ports: Vec<&PortSummary> = ports.iter().collect();
    ports.sort_by(|left, right| {
        (left.private_port, &left.ip, left.public_port, &left.protocol).cmp(&(
            right.private_port,
            &right.ip,
            right.public_port,
            &right.protocol,
        ))
    });
    let mut groups: Vec<(PortKey<'_>, PortRange)> = Vec::new();
    let (mut shown, mut mapped) = (Vec::new(), Vec::new());
    for port in ports {
        let public = port.public_port.unwrap_or(0);
        if !port.ip.is_empty() && public != port.private_port {
            let from = host_port(&port.ip, &public.to_string());
            mapped.push(format!("{from}->{}/{}", port.private_port, port.protocol));
            continue;
        }
        let key = (port.ip.as_str(), port.protocol.as_str());
        match groups.iter_mut().find(|(known, _)| *known == key) {
            None => groups.push((key, (port.private_port, port.private_port))),
            Some((_, (_, last))) if last.checked_add(1) == Some(port.private_port) => {
                *last = port.private_port
            }
            Some((_, range)) => {
                shown.push(range_text(key, *range));
                *range = (port.private_port, port.private_port);
            }
        }
    }
    shown.extend(groups.into_iter().map(|(key, range)| range_text(key, range)));
    shown.extend(mapped);
    shown.join(", ")
}

fn range_text((ip, protocol): PortKey<'_>, (first, last): PortRange) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    if ip.is_empty() {
        format!("{range}/{protocol}")
    } else {
        format!("{}->{range}/{protocol}", host_port(ip, &range))
    }
}

/// `port`: all mappings, or those of one port.
pub async fn port(app: &App, matches: &Matches) -> Result<(), Fail> {
    let name = &matches.args[0];
    let container: ContainerInspect =
        app.client().await?.json(Request::get(format!("/containers/{}/json", segment(name)))).await?;
    let ports = &container.network_settings.ports;
    let mut lines = Vec::new();
    if let Some(wanted) = matches.args.get(1) {
        let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        if port.parse::<u16>().is_err() {
            let why = check::parse_uint(port, 16).err().unwrap_or_default();
            return Err(Fail::text(format!("Error: invalid port ({port}): {why}")));
        }
        let key = format!("{port}/{protocol}");
        let Some(Some(bindings)) = ports.get(&key) else {
            return Err(Fail::text(format!("Error: No public port '{wanted}' published for {name}")));
        };
        lines.extend(bindings.iter().map(|at| host_port(&at.host_ip, &at.host_port)));
    } else {
        for (port, bindings) in ports {
            for at in bindings.iter().flatten() {
                lines.push(format!("{port} -> {}", host_port(&at.host_ip, &at.host_port)));
            }
        }
        lines.sort_by(|left, right| natural(left).cmp(&natural(right)));
    }
    out(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    Ok(())
}

/// Numbers compare as numbers.
fn natural(line: &str) -> (u32, &str) {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    (line[..digits].parse().unwrap_or(0), &line[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, private: u16, public: Option<u16>, protocol: &str) -> PortSummary {
        PortSummary {
            ip: ip.to_owned(),
            private_port: private,
            public_port: public,
            protocol: protocol.to_owned(),
        }
    }

    #[test]
    fn ports_are_merged_as_docker_merges_them() {
        for (given, expected) in [
            (vec![port("", 9988, None, "tcp")], "9988/tcp"),
            (vec![port("4.3.2.1", 9988, Some(8899), "tcp")], "4.3.2.1:8899->9988/tcp"),
            (vec![port("4.3.2.1", 9988, Some(9988), "tcp")], "4.3.2.1:9988->9988/tcp"),
            (
                vec![port("", 80, None, "tcp"), port("", 81, None, "tcp"), port("", 83, None, "tcp")],
                "80-81/tcp, 83/tcp",
            ),
            (
                vec![port("1.2.3.4", 9998, Some(9998), "tcp"), port("1.2.3.4", 9999, Some(9999), "tcp")],
                "1.2.3.4:9998-9999->9998-9999/tcp",
            ),
            (
                vec![port("0.0.0.0", 80, Some(8080), "tcp"), port("::", 80, Some(8080), "tcp")],
                "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
            ),
            (vec![port("", 80, None, "udp"), port("", 80, None, "tcp")], "80/tcp, 80/udp"),
        ] {
            assert_eq!(ports(&given), expected);
        }
    }

    #[test]
    fn names_without_links() {
        let all = ["/web/db".to_owned(), "/db".to_owned()];
        assert_eq!(names(&all, true), "db");
        assert_eq!(names(&all, false), "web/db,db");
    }
}
