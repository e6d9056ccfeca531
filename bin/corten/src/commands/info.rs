//! `info`.

use std::fmt::Write as _;

use api_client::Request;
use serde_json::{Value, json};
use template::{MissingKey, NoMethods, Template, Val};

use super::system::VERSION;
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::plugins::{self, Plugin};
use crate::units::binary_size;

pub async fn info(app: &App, matches: &Matches) -> Result<(), Fail> {
    let template = match matches.str("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        text => Some(text),
    };
    let template = template
        .map(|text| Template::parse("", text))
        .transpose()
        .map_err(|error| Fail::text(format!("template parsing error: {error}")).code(64))?;
    let server = match app.client().await {
        Ok(client) => client.value(Request::get("/info")).await.map_err(Fail::from),
        Err(fail) => Err(fail),
    };
    let plugins = plugins::all(app.config(), &app.folder());
    let client = json!({
        "Debug": app.debug(),
        "Version": VERSION,
        "Context": app.context(),
        "Plugins": plugins.iter().map(Plugin::value).collect::<Vec<_>>(),
        "Warnings": null,
    });
    if let Some(template) = template {
        let mut whole = server.as_ref().ok().cloned().unwrap_or_else(|| json!({}));
        whole["ClientInfo"] = client;
        if let Err(fail) = &server {
            whole["ServerErrors"] = json!([fail.text]);
        }
        let whole = Val::typed(&whole, &super::schema::INFO);
        let text = template.execute_typed(whole, MissingKey::NoValue, &NoMethods);
        out(&format!("{}\n", text.as_deref().unwrap_or_default()));
        text.map_err(|error| Fail::text(error.to_string()))?;
        return server.map(drop);
    }
    let maker = if app.program == "docker" { "Docker Engine - Community" } else { "Corten" };
    let mut text = format!(
        "Client: {maker}\n Version:    {VERSION}\n Context:    {}\n Debug Mode: {}\n",
        app.context(),
        app.debug()
    );
    list_plugins(&mut text, &plugins);
    text += "\nServer:\n";
    match server {
        Err(fail) => {
            out(&text);
            Err(Fail::text(fail.text))
        }
        Ok(server) => {
            let mut warnings = String::new();
            layout(&mut text, &mut warnings, &server);
            out(&text);
            eprint!("{warnings}");
            Ok(())
        }
    }
}

fn list_plugins(text: &mut String, plugins: &[Plugin]) {
    let mut usable = plugins.iter().filter(|plugin| plugin.error.is_none()).peekable();
    if usable.peek().is_some() {
        text.push_str(" Plugins:\n");
    }
    for plugin in usable {
        let (what, vendor) = (plugin.text("ShortDescription"), plugin.text("Vendor"));
        let _ = writeln!(text, "  {}: {what} ({vendor})", plugin.name);
        if !plugin.text("Version").is_empty() {
            let _ = writeln!(text, "    Version:  {}", plugin.text("Version"));
        }
        let _ = writeln!(text, "    Path:     {}", plugin.path.display());
    }
    for plugin in plugins {
        if let Some(error) = &plugin.error {
            let path = template::quote(&plugin.path.display().to_string());
            eprintln!("WARNING: Plugin {path} is not valid: {error}");
        }
    }
}

struct Reader<'a>(&'a Value);

impl<'a> Reader<'a> {
    fn text(&self, key: &str) -> &'a str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn number(&self, key: &str) -> i64 {
        self.0.get(key).and_then(Value::as_i64).unwrap_or(0)
    }

    fn bool(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn list(&self, key: &str) -> Vec<&'a str> {
        self.0.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

fn layout(out: &mut String, warnings: &mut String, server: &Value) {
    let info = Reader(server);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, " {name}: {value}");
    };
    line("Containers", &info.number("Containers").to_string());
    line(" Running", &info.number("ContainersRunning").to_string());
    line(" Paused", &info.number("ContainersPaused").to_string());
    line(" Stopped", &info.number("ContainersStopped").to_string());
    line("Images", &info.number("Images").to_string());
    let optional = |line: &mut dyn FnMut(&str, &str), name: &str, value: &str| {
        if !value.is_empty() {
            line(name, value);
        }
    };
    optional(&mut line, "Server Version", info.text("ServerVersion"));
    optional(&mut line, "Storage Driver", info.text("Driver"));
    for pair in server.get("DriverStatus").and_then(Value::as_array).into_iter().flatten() {
        if let (Some(name), Some(value)) = (pair[0].as_str(), pair[1].as_str()) {
            line(&format!(" {name}"), value);
        }
    }
    optional(&mut line, "Logging Driver", info.text("LoggingDriver"));
    optional(&mut line, "Cgroup Driver", info.text("CgroupDriver"));
    optional(&mut line, "Cgroup Version", info.text("CgroupVersion"));
    plugins(out, server);
    security_and_runtimes(out, &info, server);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, " {name}: {value}");
    };
    optional(&mut line, "Kernel Version", info.text("KernelVersion"));
    optional(&mut line, "Operating System", info.text("OperatingSystem"));
    optional(&mut line, "OSType", info.text("OSType"));
    optional(&mut line, "Architecture", info.text("Architecture"));
    line("CPUs", &info.number("NCPU").to_string());
    line("Total Memory", &binary_size(info.number("MemTotal") as f64));
    optional(&mut line, "Name", info.text("Name"));
    optional(&mut line, "ID", info.text("ID"));
    line("Docker Root Dir", info.text("DockerRootDir"));
    line("Debug Mode", &info.bool("Debug").to_string());
    if info.bool("Debug") {
        line(" File Descriptors", &info.number("NFd").to_string());
        line(" Goroutines", &info.number("NGoroutines").to_string());
        line(" System Time", info.text("SystemTime"));
        line(" EventsListeners", &info.number("NEventsListener").to_string());
    }
    optional(&mut line, "HTTP Proxy", info.text("HttpProxy"));
    optional(&mut line, "HTTPS Proxy", info.text("HttpsProxy"));
    optional(&mut line, "No Proxy", info.text("NoProxy"));
    let labels = info.list("Labels");
    if !labels.is_empty() {
        let _ = writeln!(out, " Labels:");
        labels.iter().for_each(|label| {
            let _ = writeln!(out, "  {label}");
        });
    }
    let _ = writeln!(out, " Experimental: {}", info.bool("ExperimentalBuild"));
    registries(out, server);
    let _ = writeln!(out, " Live Restore Enabled: {}", info.bool("LiveRestoreEnabled"));
    optional(
        &mut |name: &str, value: &str| {
            let _ = writeln!(out, " {name}: {value}");
        },
        "Product License",
        info.text("ProductLicense"),
    );
    if let Some(driver) =
        server.get("FirewallBackend").and_then(|backend| backend.get("Driver")).and_then(Value::as_str)
    {
        let _ = writeln!(out, " Firewall Backend: {driver}");
    }
    out.push('\n');
    for warning in info.list("Warnings") {
        let _ = writeln!(warnings, "{warning}");
    }
}

fn plugins(out: &mut String, server: &Value) {
    let _ = writeln!(out, " Plugins:");
    let empty = Value::Null;
    let plugins = Reader(server.get("Plugins").unwrap_or(&empty));
    let _ = writeln!(out, "  Volume: {}", plugins.list("Volume").join(" "));
    let _ = writeln!(out, "  Network: {}", plugins.list("Network").join(" "));
    let authorization = plugins.list("Authorization");
    if !authorization.is_empty() {
        let _ = writeln!(out, "  Authorization: {}", authorization.join(" "));
    }
    let _ = writeln!(out, "  Log: {}", plugins.list("Log").join(" "));
    let dirs = Reader(server).list("CDISpecDirs").iter().map(|dir| format!("  {dir}\n")).collect::<String>();
    if !dirs.is_empty() {
        let _ = write!(out, " CDI spec directories:\n{dirs}");
    }
    let swarm = server.get("Swarm").and_then(|swarm| swarm.get("LocalNodeState")).and_then(Value::as_str);
    let _ = writeln!(out, " Swarm: {}", swarm.unwrap_or_default());
}

fn security_and_runtimes(out: &mut String, info: &Reader<'_>, server: &Value) {
    if let Some(Value::Object(runtimes)) = server.get("Runtimes")
        && !runtimes.is_empty()
    {
        let mut names: Vec<&str> = runtimes.keys().map(String::as_str).collect();
        names.sort_unstable();
        let _ = writeln!(out, " Runtimes: {}", names.join(" "));
        let _ = writeln!(out, " Default Runtime: {}", info.text("DefaultRuntime"));
    }
    if info.text("OSType") == "linux" {
        let _ = writeln!(out, " Init Binary: {}", info.text("InitBinary"));
        for (key, name) in
            [("ContainerdCommit", "containerd"), ("RuncCommit", "runc"), ("InitCommit", "init")]
        {
            let id = server
                .get(key)
                .and_then(|commit| commit.get("ID"))
                .and_then(Value::as_str)
                .unwrap_or_default();
            let _ = writeln!(out, " {name} version: {id}");
        }
        let options = info.list("SecurityOptions");
        if !options.is_empty() {
            let _ = writeln!(out, " Security Options:");
            for option in options {
                let fields = option.split(',').filter_map(|field| field.split_once('='));
                for (key, value) in fields {
                    match key {
                        "name" => {
                            let _ = writeln!(out, "  {value}");
                        }
                        "profile" => {
                            let _ = writeln!(out, "   Profile: {value}");
                        }
                        _ => {
                            let _ = writeln!(out, "   {key}: {value}");
                        }
                    }
                }
            }
        }
    }
}

fn registries(out: &mut String, server: &Value) {
    let Some(config) = server.get("RegistryConfig") else { return };
    let mut insecure: Vec<String> = Vec::new();
    if let Some(Value::Object(indexes)) = config.get("IndexConfigs") {
        insecure.extend(
            indexes.iter().filter(|(_, index)| !Reader(index).bool("Secure")).map(|(name, _)| name.clone()),
        );
    }
    insecure.extend(Reader(config).list("InsecureRegistryCIDRs").iter().map(|net| (*net).to_owned()));
    if !insecure.is_empty() {
        let _ = writeln!(
            out,
            " Insecure Registries:\n{}",
            insecure.iter().map(|name| format!("  {name}")).collect::<Vec<_>>().join("\n")
        );
    }
    let mirrors = Reader(config).list("Mirrors");
    if !mirrors.is_empty() {
        let _ = writeln!(
            out,
            " Registry Mirrors:\n{}",
            mirrors.iter().map(|url| format!("  {url}")).collect::<Vec<_>>().join("\n")
        );
    }
}
