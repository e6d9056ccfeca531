//! `system df`.

use api_client::Request;
use api_types::container::ContainerSummary;
use api_types::image::ImageSummary;
use api_types::volume::Volume;
use serde_json::{Map, Value};
use template::{MissingKey, Template};

use super::{images, ps, volume};
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::table::{List, Row, short_id};
use crate::time;
use crate::units::{human_duration, human_size};

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

const IMAGES: List = List {
    default: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t\
              {{.Containers}}",
    headings: images::HEADINGS,
    type_name: "*formatter.imageContext",
};

const CONTAINERS: List = List {
    default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    headings: ps::HEADINGS,
    type_name: "*formatter.ContainerContext",
};

const VOLUMES: List = List { default: "{{.Name}}\t{{.Links}}\t{{.Size}}", ..volume::LIST };

const CACHE: List = List {
    default: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    headings: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
        ("Description", "DESCRIPTION"),
        ("InUse", "IN USE"),
        ("Parent", "PARENT"),
    ],
    type_name: "*formatter.buildCacheContext",
};

pub async fn df(app: &App, matches: &Matches) -> Result<(), Fail> {
    let verbose = matches.bool("verbose");
    let request = Request::get("/system/df").flag("verbose", verbose);
    let usage = app.client().await?.value(request).await?;
    let format = matches.str("format");
    if !verbose {
        let rows = [images_row(&usage), containers_row(&usage), volumes_row(&usage), cache_row(&usage)];
        out(&LIST.render(format, &rows)?);
        return Ok(());
    }
    let found = Found::of(&usage)?;
    match format {
        "" | "table" => out(&found.tables()?),
        "json" => out(&found.json().to_string()),
        text => {
            let template = Template::parse("", text)
                .map_err(|error| Fail::text(format!("template parsing error: {error}")))?;
            out(&template.execute(&found.json(), MissingKey::NoValue)?);
        }
    }
    Ok(())
}

/// The objects of one kind: `ImageUsage.Items` of newer daemons, `Images` of older ones.
fn items<'a>(usage: &'a Value, new: &str, old: &str) -> &'a [Value] {
    let found = usage.get(new).and_then(|sums| sums.get("Items")).or_else(|| usage.get(old));
    found.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn number(value: &Value, key: &str) -> i64 {
    value.get(key).and_then(Value::as_i64).unwrap_or(0)
}

/// One line: how much there is, how much of it is in use, and what a prune could free.
struct Sums {
    total: i64,
    active: i64,
    size: i64,
    reclaimable: i64,
}

impl Sums {
    /// What a newer daemon has added up itself.
    fn told(usage: &Value, key: &str) -> Option<Sums> {
        let sums = usage.get(key).filter(|sums| sums.is_object())?;
        Some(Sums {
            total: number(sums, "TotalCount"),
            active: number(sums, "ActiveCount"),
            size: number(sums, "TotalSize"),
            reclaimable: number(sums, "Reclaimable"),
        })
    }

    fn row(&self, kind: &str, percent: bool) -> Row {
        let free = human_size(self.reclaimable as f64, 4);
        let free = match percent && self.size > 0 {
            true => format!("{free} ({}%)", (self.reclaimable * 100) / self.size),
            false => free,
        };
        Row::new([
            ("Type", kind.to_owned()),
            ("TotalCount", self.total.to_string()),
            ("Active", self.active.to_string()),
            ("Size", human_size(self.size as f64, 4)),
            ("Reclaimable", free),
        ])
    }
}

fn images_row(usage: &Value) -> Row {
    let sums = Sums::told(usage, "ImageUsage").unwrap_or_else(|| {
        let images = items(usage, "ImageUsage", "Images");
        let layers = number(usage, "LayersSize");
        let used = |image: &&Value| number(image, "Containers") > 0;
        let in_use: i64 = images
            .iter()
            .filter(used)
            .filter(|image| number(image, "Size") != -1 && number(image, "SharedSize") != -1)
            .map(|image| number(image, "Size") - number(image, "SharedSize"))
            .sum();
        Sums {
            total: images.len() as i64,
            active: images.iter().filter(used).count() as i64,
            size: layers,
            reclaimable: layers - in_use,
        }
    });
    sums.row("Images", true)
}

fn containers_row(usage: &Value) -> Row {
    let sums = Sums::told(usage, "ContainerUsage").unwrap_or_else(|| {
        let containers = items(usage, "ContainerUsage", "Containers");
        let active = |container: &&Value| {
            matches!(
                container.get("State").and_then(Value::as_str),
                Some("running" | "paused" | "restarting")
            )
        };
        let size: i64 = containers.iter().map(|container| number(container, "SizeRw")).sum();
        let kept: i64 = containers.iter().filter(active).map(|container| number(container, "SizeRw")).sum();
        Sums {
            total: containers.len() as i64,
            active: containers.iter().filter(active).count() as i64,
            size,
            reclaimable: size - kept,
        }
    });
    sums.row("Containers", true)
}

fn volumes_row(usage: &Value) -> Row {
    let sums = Sums::told(usage, "VolumeUsage").unwrap_or_else(|| {
        let volumes = items(usage, "VolumeUsage", "Volumes");
        let data = |volume: &Value, key: &str| volume.get("UsageData").map_or(0, |data| number(data, key));
        let used = |volume: &&Value| data(volume, "RefCount") > 0;
        let size = |volume: &Value| data(volume, "Size").max(0);
        Sums {
            total: volumes.len() as i64,
            active: volumes.iter().filter(used).count() as i64,
            size: volumes.iter().map(size).sum(),
            reclaimable: volumes.iter().filter(|volume| !used(volume)).map(size).sum(),
        }
    });
    sums.row("Local Volumes", true)
}

fn cache_row(usage: &Value) -> Row {
    let sums = Sums::told(usage, "BuildCacheUsage").unwrap_or_else(|| {
        let records = items(usage, "BuildCacheUsage", "BuildCache");
        let flag = |record: &Value, key: &str| record.get(key).and_then(Value::as_bool).unwrap_or(false);
        let own = |record: &&Value| !flag(record, "Shared");
        let size = |record: &Value| number(record, "Size");
        Sums {
            total: records.len() as i64,
            active: records.iter().filter(|record| flag(record, "InUse")).count() as i64,
            size: records.iter().filter(own).map(size).sum(),
            reclaimable: records.iter().filter(own).filter(|record| !flag(record, "InUse")).map(size).sum(),
        }
    });
    sums.row("Build Cache", false)
}

/// Everything, object by object.
struct Found {
    images: Vec<ImageSummary>,
    containers: Vec<ContainerSummary>,
    volumes: Vec<Volume>,
    cache: Vec<Value>,
}

fn parsed<T: serde::de::DeserializeOwned>(items: &[Value]) -> Result<Vec<T>, Fail> {
    let parse = |item: &Value| serde_json::to_vec(item).and_then(|text| api_types::from_json(&text));
    items
        .iter()
        .map(|item| parse(item).map_err(|error| Fail::text(format!("invalid answer of the daemon: {error}"))))
        .collect()
}

impl Found {
    fn of(usage: &Value) -> Result<Found, Fail> {
        let mut containers: Vec<ContainerSummary> = parsed(items(usage, "ContainerUsage", "Containers"))?;
        // What the image adds to it is shown with the image.
        containers.iter_mut().for_each(|one| one.size_root_fs = None);
        Ok(Found {
            images: parsed(items(usage, "ImageUsage", "Images"))?,
            containers,
            volumes: parsed(items(usage, "VolumeUsage", "Volumes"))?,
            cache: items(usage, "BuildCacheUsage", "BuildCache").to_vec(),
        })
    }

    fn rows(&self, truncate: bool) -> [Vec<Row>; 4] {
        let now = time::now();
        let names = images::Names { digests: false, all: false };
        [
            // One line each, under its first name.
            self.images
                .iter()
                .filter_map(|image| images::rows(image, &names, truncate, now).into_iter().next())
                .map(|mut row| {
                    // Digests are not asked for here, and not named as missing either.
                    row.fields.insert("Digest".to_owned(), Value::String(String::new()));
                    row
                })
                .collect(),
            self.containers.iter().map(|container| ps::row(container, truncate, now)).collect(),
            self.volumes.iter().cloned().map(volume::row).collect(),
            self.cache.iter().map(|record| cache(record, truncate, now)).collect(),
        ]
    }

    fn tables(&self) -> Result<String, Fail> {
        let [images, containers, volumes, cache] = self.rows(true);
        let size: i64 = self
            .cache
            .iter()
            .filter(|record| record.get("Shared").and_then(Value::as_bool) != Some(true))
            .map(|record| number(record, "Size"))
            .sum();
        Ok(format!(
            "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: \
             {}\n\n{}",
            IMAGES.render("", &images)?,
            CONTAINERS.render("", &containers)?,
            VOLUMES.render("", &volumes)?,
            human_size(size as f64, 4),
            CACHE.render("", &cache)?
        ))
    }

    fn json(&self) -> Value {
        let lists =
            self.rows(false).map(|rows| rows.into_iter().map(|row| Value::Object(row.fields)).collect());
        let names = ["Images", "Containers", "Volumes", "BuildCache"];
        Value::Object(names.map(String::from).into_iter().zip(lists).collect::<Map<_, Value>>())
    }
}

fn cache(record: &Value, truncate: bool, now: i64) -> Row {
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let flag = |key: &str| record.get(key).and_then(Value::as_bool).unwrap_or(false);
    let ago = |key: &str| match time::parse_rfc3339(&text(key)) {
        Some((at, _)) => format!("{} ago", human_duration(now - at)),
        None => String::new(),
    };
    let id = if truncate { short_id(&text("ID")) } else { text("ID") };
    Row::new([
        ("ID", if flag("InUse") { id + "*" } else { id }),
        ("Parent", text("Parent")),
        ("CacheType", text("Type")),
        ("Description", text("Description")),
        ("InUse", flag("InUse").to_string()),
        ("Shared", flag("Shared").to_string()),
        ("Size", human_size(number(record, "Size") as f64, 3)),
        ("CreatedSince", ago("CreatedAt")),
        ("LastUsedSince", ago("LastUsedAt")),
        ("UsageCount", number(record, "UsageCount").to_string()),
    ])
}
