//! `version`.

use api_client::Request;
use serde_json::{Value, json};
use template::{MissingKey, NoMethods, Template, Val};

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::time;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that this was built from, where the build says so.
pub const COMMIT: &str = match option_env!("CORTEN_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// What `--version` prints.
pub fn version_line(program: &str) -> String {
    match program {
        "docker" => format!("Docker version {VERSION}, build {COMMIT}"),
        _ => format!("Corten version {VERSION}, build {COMMIT}"),
    }
}

fn client_part(app: &App, api: &str) -> Value {
    json!({
        "Version": VERSION,
        "ApiVersion": api,
        "DefaultAPIVersion": api_client::API_VERSION,
        "GitCommit": COMMIT,
        "GoVersion": "",
        "Os": std::env::consts::OS,
        "Arch": arch(),
        "BuildTime": option_env!("CORTEN_BUILD_TIME").unwrap_or_default(),
        "Context": app.context(),
    })
}

/// The architecture under the name that images use.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        arch => arch,
    }
}

pub async fn version(app: &App, matches: &Matches) -> Result<(), Fail> {
    let template = match matches.str("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        text => Some(text),
    };
    let template = template
        .map(|text| Template::parse("version", text))
        .transpose()
        .map_err(|error| Fail::text(format!("template parsing error: {error}")).code(64))?;
    let (server, failed) = match server(app).await {
        Ok(server) => (server, None),
        Err(fail) => (Value::Null, Some(fail)),
    };
    let api = app.client().await.map_or(api_client::API_VERSION.to_owned(), |client| client.version());
    let client = client_part(app, &api);
    match template {
        Some(template) => {
            let whole = json!({"Client": client, "Server": server});
            let whole = Val::typed(&whole, &super::schema::VERSION);
            let text = template.execute_typed(whole, MissingKey::NoValue, &NoMethods);
            // The line is ended whatever became of it.
            out(&format!("{}\n", text.as_deref().unwrap_or_default()));
            text.map_err(|error| Fail::text(error.to_string()))?;
        }
        None => out(&layout(app.program, &client, &server)),
    }
    failed.map_or(Ok(()), Err)
}

async fn server(app: &App) -> Result<Value, Fail> {
    Ok(app.client().await?.value(Request::get("/version")).await?)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A build time in words, if it is in RFC 3339.
fn built(text: &str) -> String {
    time::parse_rfc3339(text).map_or_else(|| text.to_owned(), |(seconds, _)| time::format_ansi(seconds))
}

fn layout(program: &str, client: &Value, server: &Value) -> String {
    let maker = if program == "docker" { "Docker Engine - Community" } else { "Corten" };
    let mut out = format!("Client: {maker}\n");
    let mut line = |name: &str, value: &str| out += &format!(" {:<18}{value}\n", format!("{name}:"));
    line("Version", text(client, "Version"));
    let (api, default) = (text(client, "ApiVersion"), text(client, "DefaultAPIVersion"));
    match api == default {
        true => line("API version", api),
        false => line("API version", &format!("{api} (downgraded from {default})")),
    }
    line("Go version", text(client, "GoVersion"));
    line("Git commit", text(client, "GitCommit"));
    line("Built", &built(text(client, "BuildTime")));
    line("OS/Arch", &format!("{}/{}", text(client, "Os"), text(client, "Arch")));
    line("Context", text(client, "Context"));
    if server.is_null() {
        return out;
    }
    let platform = server.get("Platform").map_or("", |platform| text(platform, "Name"));
    out +=
        &format!("\nServer:{}\n", if platform.is_empty() { String::new() } else { format!(" {platform}") });
    for component in server.get("Components").and_then(Value::as_array).into_iter().flatten() {
        out +=
            &format!(" {}:\n  {:<17}{}\n", text(component, "Name"), "Version:", text(component, "Version"));
        let details = component.get("Details").unwrap_or(&Value::Null);
        if text(component, "Name") == "Engine" {
            let least = text(details, "MinAPIVersion");
            let least = if least.is_empty() { String::new() } else { format!(" (minimum version {least})") };
            for (name, value) in [
                ("API version", format!("{}{least}", text(details, "ApiVersion"))),
                ("Go version", text(details, "GoVersion").to_owned()),
                ("Git commit", text(details, "GitCommit").to_owned()),
                ("Built", built(text(details, "BuildTime"))),
                ("OS/Arch", format!("{}/{}", text(details, "Os"), text(details, "Arch"))),
                ("Experimental", text(details, "Experimental").to_owned()),
            ] {
                out += &format!("  {:<17}{value}\n", format!("{name}:"));
            }
        } else if let Value::Object(map) = details {
            for (name, value) in template_sorted(map) {
                out += &format!("  {:<17}{}\n", format!("{name}:"), value.as_str().unwrap_or_default());
            }
        }
    }
    out
}

fn template_sorted(map: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}
