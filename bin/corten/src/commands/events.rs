//! `events`.

use api_client::Request;
use serde_json::Value;
use template::{MissingKey, NoMethods, Template, Val};

use super::{filters, schema};
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::time;

pub async fn events(app: &App, matches: &Matches) -> Result<(), Fail> {
    let template = match matches.str("format") {
        "" => None,
        "json" => Some(parse("{{json .}}")?),
        text => Some(parse(text)?),
    };
    let now = time::now_nanos();
    let mut request = Request::get("/events");
    for key in ["since", "until"] {
        if !matches.str(key).is_empty() {
            let at = time::to_api(matches.str(key), now)
                .map_err(|text| Fail::text(format!("invalid value for \"{key}\": {text}")))?;
            request = request.query(key, at);
        }
    }
    if let Some(filters) = filters(matches.list("filter")) {
        request = request.query("filters", filters);
    }
    let mut lines = app.client().await?.send(request).await?.lines();
    while let Some(event) = lines.next::<Value>().await? {
        let line = match &template {
            Some(template) => {
                template.execute_typed(Val::typed(&event, &schema::EVENT), MissingKey::NoValue, &NoMethods)?
            }
            None => line(&event),
        };
        out(&format!("{line}\n"));
    }
    Ok(())
}

fn parse(text: &str) -> Result<Template, Fail> {
    Template::parse("", text).map_err(|error| Fail::text(format!("Error parsing format: {error}")).code(64))
}

/// `2026-01-02T15:04:05.000000000Z container create <id> (image=x, name=y)`
fn line(event: &Value) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| event.get(key).and_then(Value::as_i64).unwrap_or(0);
    let mut line = match (number("timeNano"), number("time")) {
        (0, 0) => String::new(),
        (0, seconds) => format!("{} ", time::format_rfc3339(seconds, Some(0))),
        (nanos, _) => {
            let (seconds, nanos) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
            format!("{} ", time::format_rfc3339(seconds, Some(nanos)))
        }
    };
    let actor = event.get("Actor");
    let id = actor.and_then(|actor| actor.get("ID")).and_then(Value::as_str).unwrap_or_default();
    line += &format!("{} {} {id}", text("Type"), text("Action"));
    if let Some(Value::Object(attributes)) = actor.and_then(|actor| actor.get("Attributes"))
        && !attributes.is_empty()
    {
        let mut pairs: Vec<String> = attributes
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        pairs.sort();
        line += &format!(" ({})", pairs.join(", "));
    }
    line
}
