//! `system df`.

use api_client::Request;
use serde_json::Value;

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::table::{List, Row};
use crate::units::human_size;

const LIST: List = List {
    default: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    headings: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    type_name: "*formatter.diskUsageContext",
};

pub async fn df(app: &App, matches: &Matches) -> Result<(), Fail> {
    if matches.bool("verbose") {
        return Err(Fail::text("corten: 'system df --verbose' is not supported yet"));
    }
    let usage = app.client().await?.value(Request::get("/system/df")).await?;
    out(&LIST.render(
        matches.str("format"),
        &[images(&usage), containers(&usage), volumes(&usage), cache(&usage)],
    )?);
    Ok(())
}

fn items<'a>(usage: &'a Value, key: &str) -> &'a [Value] {
    usage.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn number(value: &Value, key: &str) -> i64 {
    value.get(key).and_then(Value::as_i64).unwrap_or(0)
}

/// One line: how much there is, how much of it is in use, and what a prune could free.
fn row(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64, percent: bool) -> Row {
    let free = human_size(reclaimable as f64, 4);
    let free = match percent && size > 0 {
        true => format!("{free} ({}%)", (reclaimable * 100) / size),
        false => free,
    };
    Row::new([
        ("Type", kind.to_owned()),
        ("TotalCount", total.to_string()),
        ("Active", active.to_string()),
        ("Size", human_size(size as f64, 4)),
        ("Reclaimable", free),
    ])
}

fn images(usage: &Value) -> Row {
    let images = items(usage, "Images");
    let layers = number(usage, "LayersSize");
    let used = |image: &&Value| number(image, "Containers") > 0;
    let in_use: i64 = images
        .iter()
        .filter(used)
        .filter(|image| number(image, "Size") != -1 && number(image, "SharedSize") != -1)
        .map(|image| number(image, "Size") - number(image, "SharedSize"))
        .sum();
    row("Images", images.len(), images.iter().filter(used).count(), layers, layers - in_use, true)
}

fn containers(usage: &Value) -> Row {
    let containers = items(usage, "Containers");
    let active = |container: &&Value| {
        matches!(container.get("State").and_then(Value::as_str), Some("running" | "paused" | "restarting"))
    };
    let size = containers.iter().map(|container| number(container, "SizeRw")).sum();
    let kept: i64 = containers.iter().filter(active).map(|container| number(container, "SizeRw")).sum();
    row("Containers", containers.len(), containers.iter().filter(active).count(), size, size - kept, true)
}

fn volumes(usage: &Value) -> Row {
    let volumes = items(usage, "Volumes");
    let data = |volume: &Value, key: &str| volume.get("UsageData").map_or(0, |data| number(data, key));
    let size = volumes.iter().map(|volume| data(volume, "Size").max(0)).sum();
    let free = volumes
        .iter()
        .filter(|volume| data(volume, "RefCount") == 0)
        .map(|volume| data(volume, "Size").max(0))
        .sum();
    let active = volumes.iter().filter(|volume| data(volume, "RefCount") > 0).count();
    row("Local Volumes", volumes.len(), active, size, free, true)
}

fn cache(usage: &Value) -> Row {
    let records = items(usage, "BuildCache");
    let flag = |record: &Value, key: &str| record.get(key).and_then(Value::as_bool).unwrap_or(false);
    let size =
        records.iter().filter(|record| !flag(record, "Shared")).map(|record| number(record, "Size")).sum();
    let free = records
        .iter()
        .filter(|record| !flag(record, "Shared") && !flag(record, "InUse"))
        .map(|record| number(record, "Size"))
        .sum();
    let active = records.iter().filter(|record| flag(record, "InUse")).count();
    row("Build Cache", records.len(), active, size, free, false)
}
