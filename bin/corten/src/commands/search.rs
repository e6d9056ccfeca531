//! `search`.

use api_client::Request;
use api_types::registry::SearchResult;

use super::filters;
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::table::{List, Row};

const LIST: List = List {
    default: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    headings: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
    type_name: "*formatter.searchContext",
};

const DESCRIPTION_MAX: usize = 45;

pub async fn search(app: &App, matches: &Matches) -> Result<(), Fail> {
    let term = &matches.args[0];
    let mut request = Request::get("/images/search").query("term", term.as_str());
    if let Some(limit) = matches.int("limit").filter(|limit| *limit > 0) {
        request = request.query("limit", limit.to_string());
    }
    if let Some(filters) = filters(matches.list("filter")) {
        request = request.query("filters", filters);
    }
    request = request.header("x-registry-auth", app.registry_auth(term)?);
    let mut found: Vec<SearchResult> = app.client().await?.json(request).await?;
    found.sort_by_key(|one| std::cmp::Reverse(one.star_count));
    let truncate = !matches.bool("no-trunc");
    let mark = |on: bool| if on { "[OK]".to_owned() } else { String::new() };
    let rows: Vec<Row> = found
        .into_iter()
        .map(|one| {
            Row::new([
                ("Name", one.name),
                ("Description", described(&one.description, truncate)),
                ("StarCount", one.star_count.to_string()),
                ("IsOfficial", mark(one.is_official)),
                ("IsAutomated", mark(one.is_automated)),
            ])
        })
        .collect();
    out(&LIST.render(matches.str("format"), &rows)?);
    Ok(())
}

/// On one line, and cut where that is wanted.
fn described(text: &str, truncate: bool) -> String {
    let line = text.replace(['\n', '\r'], " ");
    if !truncate || line.chars().count() <= DESCRIPTION_MAX {
        return line;
    }
    let cut: String = line.chars().take(DESCRIPTION_MAX - 1).collect();
    format!("{cut}…")
}
