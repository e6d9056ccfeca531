//! `history`.

use api_client::{Request, segment};
use api_types::image::HistoryItem;

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::table::{List, Row, ellipsis, short_id};
use crate::time;
use crate::units::{human_duration, human_size};

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

pub async fn history(app: &App, matches: &Matches) -> Result<(), Fail> {
    let human = matches.bool_or_true("human");
    let truncate = !matches.bool("no-trunc");
    let quiet = matches.bool("quiet");
    let mut request = Request::get(format!("/images/{}/history", segment(&matches.args[0])));
    if !matches.str("platform").is_empty() {
        request = request.query("platform", super::transfer::platform_json(matches.str("platform"))?);
    }
    let items: Vec<HistoryItem> = app.client().await?.json(request).await?;
    let now = time::now();
    let list = List {
        default: if human {
            "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
        } else {
            "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
        },
        headings: HEADINGS,
        type_name: "*image.historyContext",
    };
    let format = if quiet && matches!(matches.str("format"), "" | "table") {
        "{{.ID}}"
    } else {
        matches.str("format")
    };
    let rows: Vec<Row> = items
        .iter()
        .map(|item| {
            // Tabs would make columns of their own.
            let by = item.created_by.replace('\t', " ");
            Row::new([
                ("ID", if truncate { short_id(&item.id) } else { item.id.clone() }),
                ("CreatedAt", time::format_rfc3339(item.created, None)),
                ("CreatedSince", created(item, human, now)),
                ("CreatedBy", if truncate { ellipsis(&by, 45) } else { by }),
                ("Size", if human { human_size(item.size as f64, 3) } else { item.size.to_string() }),
                ("Comment", item.comment.clone()),
            ])
        })
        .collect();
    out(&list.render(format, &rows)?);
    Ok(())
}

fn created(item: &HistoryItem, human: bool, now: i64) -> String {
    // Layers without a date would be as old as the calendar.
    if item.created <= -62_135_596_800 {
        return "N/A".to_owned();
    }
    match human {
        true => format!("{} ago", human_duration(now - item.created)),
        false => time::format_rfc3339(item.created, None),
    }
}
