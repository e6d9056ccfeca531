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

const LIST: List = List {
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
    let none = || "N/A".to_owned();
    let rows: Vec<Row> = found
        .volumes
        .into_iter()
        .map(|volume| {
            let labels = volume.labels.unwrap_or_default();
            Row::new([
                ("Driver", volume.driver),
                ("Name", volume.name),
                ("Scope", volume.scope),
                ("Mountpoint", volume.mountpoint),
                ("Labels", join_labels(&labels)),
                ("Links", none()),
                ("Size", none()),
                ("Availability", none()),
                ("Group", none()),
                ("Status", none()),
            ])
            .labels(labels)
        })
        .collect();
    let format = if quiet && matches!(format, "" | "table") { "{{.Name}}" } else { format };
    out(&LIST.render(format, &rows)?);
    Ok(())
}

pub async fn create(app: &App, matches: &Matches) -> Result<(), Fail> {
    let driver = if matches.has("driver") { matches.str("driver") } else { "local" };
    let body = serde_json::json!({
        "Name": matches.args.first().map_or("", String::as_str),
        "Driver": driver,
        "DriverOpts": kv::map(matches.list("opt")),
        "Labels": kv::labels(&[], matches.list("label"))?,
    });
    let made: Volume = app.client().await?.json(Request::post("/volumes/create").json(&body)?).await?;
    out(&format!("{}\n", made.name));
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
