//! `context`: named daemons.

use std::io::{IsTerminal as _, Read as _, Write as _};

use serde_json::{Map, Value, json};
use template::{MissingKey, Template};

use super::Verb;
use crate::app::App;
use crate::args::{Matches, check};
use crate::config::Config;
use crate::context_store::{Material, Store, Stored, TLS_NAMES, check_name, export, import};
use crate::fail::Fail;
use crate::output::{out, out_bytes};
use crate::table::{List, Row};

const DEFAULT_DESCRIPTION: &str = "Current DOCKER_HOST based configuration";
/// The longest archive that is read.
const ARCHIVE_MAX: u64 = 64 << 20;

const LIST: List = List {
    default: " {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    headings: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
        ("Current", ""),
    ],
    type_name: "*formatter.clientContextContext",
};

pub fn run(app: &App, verb: Verb, matches: &Matches) -> Result<(), Fail> {
    let store = Store::new(&app.folder());
    let name = matches.args.first().map_or("", String::as_str);
    match verb {
        Verb::ContextCreate => create(app, &store, name, matches),
        Verb::ContextUpdate => update(app, &store, name, matches),
        Verb::ContextUse => choose(app, &store, name),
        Verb::ContextRm => remove(app, &store, matches),
        Verb::ContextLs => list(app, &store, matches),
        Verb::ContextShow => {
            out(&format!("{}\n", app.context()));
            Ok(())
        }
        Verb::ContextInspect => inspect(app, &store, matches),
        Verb::ContextExport => export_to(app, &store, name, matches.args.get(1).map(String::as_str)),
        _ => import_from(&store, name, &matches.args[1]),
    }
}

/// A context by name, also the one that is not stored.
fn look_up(app: &App, store: &Store, name: &str) -> Result<Stored, Fail> {
    if name != "default" {
        return Ok(store.get(name)?);
    }
    let mut stored = Stored::new("default");
    stored.set_endpoint(&app.default_host(), false);
    Ok(stored)
}

/// Reads `--docker host=…,ca=…`: the endpoint, and its files.
fn endpoint(
    app: &App,
    store: &Store,
    stored: &mut Stored,
    values: &[String],
    what: &str,
) -> Result<Option<Material>, Fail> {
    let failed = |text: String| Fail::text(format!("unable to {what} docker endpoint config: {text}"));
    let mut given = Map::new();
    for value in values {
        for pair in check::csv_fields(value).map_err(failed)? {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| failed(format!("{pair} must be formatted as key=value")))?;
            given.insert(key.to_owned(), value.into());
        }
    }
    const KEYS: [&str; 6] = ["from", "host", "ca", "cert", "key", "skip-tls-verify"];
    if let Some(key) = given.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(failed(format!("unrecognized config key: {key}")));
    }
    let text = |key: &str| given.get(key).and_then(Value::as_str).unwrap_or_default();
    if !text("from").is_empty() {
        let from = look_up(app, store, text("from"))?;
        stored.set_endpoint(from.host(), from.skips_verification());
        return Ok(Some(store.material(from.name())));
    }
    let skip = match text("skip-tls-verify") {
        "" => false,
        value => check::parse_bool(value).map_err(|error| failed(format!("skip-tls-verify: {error}")))?,
    };
    let mut material = Material::new();
    for (key, file) in ["ca", "cert", "key"].into_iter().zip(TLS_NAMES) {
        if !text(key).is_empty() {
            let path = text(key);
            let bytes = std::fs::read(path)
                .map_err(|error| failed(format!("open {path}: {}", crate::opts::kv::describe(&error))))?;
            material.push((file.to_owned(), bytes));
        }
    }
    let host = text("host");
    if !host.is_empty() && !host.contains("://") {
        return Err(failed(format!("unable to parse docker host `{host}`")));
    }
    stored.set_endpoint(host, skip);
    Ok(Some(material))
}

fn create(app: &App, store: &Store, name: &str, matches: &Matches) -> Result<(), Fail> {
    check_name(name)?;
    if store.exists(name) {
        return Err(Fail::text(format!("context {} already exists", template::quote(name))));
    }
    let (from, values) = (matches.str("from"), matches.list("docker"));
    if !from.is_empty() && !values.is_empty() {
        return Err(Fail::text("cannot use --docker flag when --from is set"));
    }
    let mut stored = Stored::new(name);
    let material = if values.is_empty() {
        let current = app.context();
        let source = look_up(app, store, if from.is_empty() { &current } else { from })?;
        let described = if source.name() == "default" { DEFAULT_DESCRIPTION } else { source.description() };
        stored.describe(described);
        stored.set_endpoint(source.host(), source.skips_verification());
        Some(store.material(source.name()))
    } else {
        endpoint(app, store, &mut stored, values, "create")?
    };
    if !matches.str("description").is_empty() {
        stored.describe(matches.str("description"));
    }
    store.put(&stored, material.as_ref())?;
    out(&format!("{name}\n"));
    eprintln!("Successfully created context {}", template::quote(name));
    Ok(())
}

fn update(app: &App, store: &Store, name: &str, matches: &Matches) -> Result<(), Fail> {
    check_name(name)?;
    let mut stored = store.get(name)?;
    if matches.has("description") {
        stored.describe(matches.str("description"));
    }
    let values = matches.list("docker");
    let material =
        if values.is_empty() { None } else { endpoint(app, store, &mut stored, values, "create")? };
    store.put(&stored, material.as_ref())?;
    out(&format!("{name}\n"));
    eprintln!("Successfully updated context {}", template::quote(name));
    Ok(())
}

fn choose(app: &App, store: &Store, name: &str) -> Result<(), Fail> {
    if name != "default" {
        check_name(name)?;
        store.get(name)?;
    }
    let current = app.config().text("currentContext");
    if current != if name == "default" { "" } else { name } {
        set_current(app, name)?;
    }
    out(&format!("{name}\n"));
    eprintln!("Current context is now {}", template::quote(name));
    if name != "default" && crate::app::env("DOCKER_HOST").is_some() {
        eprintln!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {}, either set the global \
             --context flag, or unset DOCKER_HOST environment variable.",
            template::quote(name)
        );
    }
    Ok(())
}

fn set_current(app: &App, name: &str) -> Result<(), Fail> {
    Config::change(&app.folder(), |map| match name {
        "default" => drop(map.remove("currentContext")),
        name => drop(map.insert("currentContext".to_owned(), name.into())),
    })
    .map_err(Fail::text)
}

fn remove(app: &App, store: &Store, matches: &Matches) -> Result<(), Fail> {
    let mut mistakes = Vec::new();
    for name in &matches.args {
        let shown = template::quote(name);
        let current = app.context();
        let done = if name == "default" {
            Err(format!("context {shown} cannot be removed"))
        } else if let Err(error) = check_name(name) {
            Err(error)
        } else if !store.exists(name) && !matches.bool("force") {
            Err(format!("context {shown} does not exist"))
        } else if *name == current && !matches.bool("force") {
            Err(format!("context {shown} is in use, set -f flag to force remove"))
        } else {
            if *name == app.config().text("currentContext") {
                set_current(app, "default")?;
            }
            store.remove(name)
        };
        match done {
            Ok(()) => out(&format!("{name}\n")),
            Err(error) => mistakes.push(error),
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Fail::text(mistakes.join("\n"))) }
}

fn row(name: &str, current: bool, description: &str, host: &str, error: &str) -> Row {
    let mut row = Row::new([
        ("Current", String::new()),
        ("Description", description.to_owned()),
        ("DockerEndpoint", host.to_owned()),
        ("Error", error.to_owned()),
        ("Name", name.to_owned()),
    ]);
    row.fields.insert("Current".to_owned(), current.into());
    row
}

/// As much of a mistake as a column shows.
fn shortened(text: &str) -> String {
    const MOST: usize = 45;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}

fn list(app: &App, store: &Store, matches: &Matches) -> Result<(), Fail> {
    let current = app.context();
    let mut all = store.list();
    let mut rows: Vec<Row> = all
        .drain(..)
        .map(|one| row(one.name(), one.name() == current, one.description(), one.host(), ""))
        .collect();
    rows.push(row("default", current == "default", DEFAULT_DESCRIPTION, &app.default_host(), ""));
    if current != "default"
        && let Err(error) = store.get(&current)
    {
        rows.push(row(&current, true, "", "", &shortened(&error)));
    }
    rows.sort_by(|left, right| left.fields["Name"].as_str().cmp(&right.fields["Name"].as_str()));
    let format = match (matches.bool("quiet"), matches.str("format")) {
        (true, "" | "table") => "{{.Name}}",
        (_, format) => format,
    };
    out(&LIST.render(format, &rows)?);
    if !matches.bool("quiet") && current == "default" && crate::app::env("DOCKER_HOST").is_some() {
        eprintln!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the \
             global --context flag, or unset DOCKER_HOST environment variable."
        );
    }
    Ok(())
}

fn inspect(app: &App, store: &Store, matches: &Matches) -> Result<(), Fail> {
    let template = match matches.str("format") {
        "" | "json" => None,
        text => Some(
            Template::parse("", text)
                .map_err(|error| Fail::text(format!("template parsing error: {error}")).code(64))?,
        ),
    };
    let current = [app.context()];
    let names: &[String] = if matches.args.is_empty() { &current } else { &matches.args };
    let (mut found, mut mistakes) = (Vec::new(), Vec::new());
    for name in names {
        match look_up(app, store, name) {
            Ok(stored) => found.push(described(store, &stored)),
            Err(fail) => mistakes.push(fail.text),
        }
    }
    match template {
        Some(template) => {
            let mut text = String::new();
            for value in &found {
                match template.execute(value, MissingKey::NoValue) {
                    Ok(line) => text += &(line + "\n"),
                    Err(error) => mistakes.push(format!("template parsing error: {error}")),
                }
            }
            out(if text.is_empty() { "\n" } else { &text });
        }
        None if matches.str("format") == "json" => out(&format!("{}\n", Value::Array(found))),
        // The reference client escapes for HTML here, which shows in the default context's places.
        None => out(&super::inspect::indented(&found)?.replace('<', "\\u003c").replace('>', "\\u003e")),
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Fail::text(mistakes.join("\n"))) }
}

fn described(store: &Store, stored: &Stored) -> Value {
    let mut value = Value::Object(stored.0.clone());
    let name = stored.name();
    let files: Vec<String> = store.material(name).into_iter().map(|(file, _)| file).collect();
    value["TLSMaterial"] = if files.is_empty() { json!({}) } else { json!({"docker": files}) };
    let path = |path: std::path::PathBuf| match name {
        "default" => "<IN MEMORY>".to_owned(),
        _ => path.display().to_string(),
    };
    value["Storage"] =
        json!({"MetadataPath": path(store.meta_folder(name)), "TLSPath": path(store.tls_folder(name))});
    value
}

fn export_to(app: &App, store: &Store, name: &str, file: Option<&str>) -> Result<(), Fail> {
    if name != "default" {
        check_name(name)?;
    }
    let stored = look_up(app, store, name)?;
    let mut bytes = Vec::new();
    export(&stored, &store.material(name), &mut bytes)?;
    let standard = format!("{name}.dockercontext");
    match file.unwrap_or(&standard) {
        "-" if std::io::stdout().is_terminal() => {
            Err(Fail::text("cowardly refusing to export to a terminal, specify a file path"))
        }
        "-" => {
            out_bytes(&bytes);
            Ok(())
        }
        path => {
            use std::os::unix::fs::OpenOptionsExt as _;
            // It may hold a key.
            let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let mut file = file
                .map_err(|error| Fail::text(format!("open {path}: {}", crate::opts::kv::describe(&error))))?;
            file.write_all(&bytes)?;
            eprintln!("Written file {}", template::quote(path));
            Ok(())
        }
    }
}

fn import_from(store: &Store, name: &str, file: &str) -> Result<(), Fail> {
    check_name(name)?;
    if store.exists(name) {
        return Err(Fail::text(format!("context {} already exists", template::quote(name))));
    }
    let mut bytes = Vec::new();
    if file == "-" {
        std::io::stdin().lock().take(ARCHIVE_MAX).read_to_end(&mut bytes)?;
    } else {
        let opened = std::fs::File::open(file)
            .map_err(|error| Fail::text(format!("open {file}: {}", crate::opts::kv::describe(&error))))?;
        opened.take(ARCHIVE_MAX).read_to_end(&mut bytes)?;
    }
    let (mut stored, material) = import(&bytes)?;
    stored.rename(name);
    store.put(&stored, Some(&material))?;
    out(&format!("{name}\n"));
    eprintln!("Successfully imported context {}", template::quote(name));
    Ok(())
}
