//! `volume`.

use api_client::{Request, segment};
use api_types::volume::{Volume, VolumeList};

use super::filters;
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::opts::kv;
use crate::output::out;
use crate::table::{List, Row, join_labels};
use crate::units::human_size;

pub const LIST: List = List {
    default: "{{.Driver}}\t{{.Name}}",
    headings: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Availability", "AVAILABILITY"),
        ("Group", "GROUP"),
        ("Status", "STATUS"),
    ],
    type_name: "*formatter.volumeContext",
};

pub async fn ls(app: &App, matches: &Matches) -> Result<(), Fail> {
    let quiet = matches.bool("quiet");
    let mut request = Request::get("/volumes");
    if let Some(filters) = filters(matches.list("filter")) {
        request = request.query("filters", filters);
    }
    let mut found: VolumeList = app.client().await?.json(request).await?;
    found.volumes.sort_by(|left, right| left.name.cmp(&right.name));
    let format = match matches.str("format") {
        "" if !quiet => app.config().text("volumesFormat"),
        format => format,
    };
    let mut volumes = found.volumes;
    let cluster = matches.bool("cluster") && !quiet && format.is_empty();
    if cluster {
        // Those of a swarm only, which there are none of here.
        volumes.retain(|volume| volume.cluster_volume.is_some());
    }
    let rows: Vec<Row> = volumes.into_iter().map(row).collect();
    let format = match (quiet, format) {
        (true, "" | "table") => "{{.Name}}",
        (false, "") if cluster => "table {{.Name}}\t{{.Group}}\t{{.Driver}}\t{{.Availability}}\t{{.Status}}",
        (_, format) => format,
    };
    out(&LIST.render(format, &rows)?);
    Ok(())
}

pub fn row(volume: Volume) -> Row {
    let none = || "N/A".to_owned();
    let labels = volume.labels.unwrap_or_default();
    // Only `system df` tells how much it holds.
    let (links, size) = match &volume.usage_data {
        Some(data) => (data.ref_count.to_string(), human_size(data.size.max(0) as f64, 4)),
        None => (none(), none()),
    };
    Row::new([
        ("Driver", volume.driver),
        ("Name", volume.name),
        ("Scope", volume.scope),
        ("Mountpoint", volume.mountpoint),
        ("Labels", join_labels(&labels)),
        ("Links", links),
        ("Size", size),
        ("Availability", none()),
        ("Group", none()),
        ("Status", none()),
    ])
    .labels(labels)
}

pub async fn create(app: &App, matches: &Matches) -> Result<(), Fail> {
    let driver = if matches.has("driver") { matches.str("driver") } else { "local" };
    let mut body = serde_json::json!({
        "Name": matches.args.first().map_or("", String::as_str),
        "Driver": driver,
        "DriverOpts": kv::map(matches.list("opt")),
        "Labels": kv::labels(&[], matches.list("label"))?,
    });
    if CLUSTER_FLAGS.iter().any(|flag| matches.has(flag)) {
        // Only a swarm has such volumes; the daemon says what it makes of that.
        body["ClusterVolumeSpec"] = cluster_spec(matches);
    }
    let made: Volume = app.client().await?.json(Request::post("/volumes/create").json(&body)?).await?;
    out(&format!("{}\n", made.name));
    Ok(())
}

/// Flags that make it a volume of a swarm.
const CLUSTER_FLAGS: [&str; 10] = [
    "availability",
    "group",
    "limit-bytes",
    "required-bytes",
    "scope",
    "secret",
    "sharing",
    "topology-preferred",
    "topology-required",
    "type",
];

fn cluster_spec(matches: &Matches) -> serde_json::Value {
    let word = |name: &str| matches.str(name).to_owned();
    serde_json::json!({
        "Group": word("group"),
        "Availability": word("availability"),
        "AccessMode": { "Scope": word("scope"), "Sharing": word("sharing") },
    })
}

/// `volume update`: only volumes of a swarm can be updated.
pub async fn update(app: &App, matches: &Matches) -> Result<(), Fail> {
    let Some(name) = matches.args.first() else {
        return Err(Fail::text("Error: a volume must be named"));
    };
    let client = app.client().await?;
    let path = format!("/volumes/{}", segment(name));
    let found: Volume = client.json(Request::get(path.clone())).await?;
    let Some(mut cluster) = found.cluster_volume else {
        return Err(Fail::text("can only update cluster volumes"));
    };
    let version = cluster["Version"]["Index"].as_u64().unwrap_or(0);
    if matches.has("availability") {
        cluster["Spec"]["Availability"] = matches.str("availability").into();
    }
    let body = serde_json::json!({ "Spec": cluster["Spec"] });
    client.done(Request::put(path).query("version", version.to_string()).json(&body)?).await?;
    Ok(())
}

pub async fn rm(app: &App, matches: &Matches) -> Result<(), Fail> {
    let client = app.client().await?;
    super::each(&matches.args, |name| async move {
        let request =
            Request::delete(format!("/volumes/{}", segment(name))).flag("force", matches.bool("force"));
        client.done(request).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
