//! `inspect` and its relatives.

use api_client::{Client, Request, segment};
use serde::Serialize as _;
use serde_json::Value;
use template::{MissingKey, NoMethods, Template, Val};

use super::{Verb, schema};
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;

/// Kinds of objects that may be asked for by `--type`.
const TYPES: &[&str] =
    &["config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"];

/// A kind that this can look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Kind {
    fn request(self, name: &str, matches: &Matches) -> Result<Request, Fail> {
        let name = segment(name);
        Ok(match self {
            Self::Container => {
                Request::get(format!("/containers/{name}/json")).flag("size", matches.bool("size"))
            }
            Self::Image => {
                let request = Request::get(format!("/images/{name}/json"));
                match matches.str("platform") {
                    "" => request,
                    platform => request.query("platform", super::transfer::platform_json(platform)?),
                }
            }
            Self::Network => {
                Request::get(format!("/networks/{name}")).flag("verbose", matches.bool("verbose"))
            }
            Self::Volume => Request::get(format!("/volumes/{name}")),
        })
    }
}

pub async fn inspect(app: &App, verb: Verb, matches: &Matches) -> Result<(), Fail> {
    let wanted = matches.str("type");
    if matches.has("type") && !TYPES.contains(&wanted) {
        let known: Vec<String> = TYPES.iter().map(|name| template::quote(name)).collect();
        let text = match wanted {
            "" => "type is empty: must be one of ".to_owned(),
            other => format!("unknown type: {}: must be one of ", template::quote(other)),
        };
        return Err(Fail::text(text + &known.join(", ")));
    }
    let kinds: &[Kind] = match (verb, wanted) {
        (Verb::ContainerInspect, _) | (_, "container") => &[Kind::Container],
        (Verb::ImageInspect, _) | (_, "image") => &[Kind::Image],
        (Verb::NetworkInspect, _) | (_, "network") => &[Kind::Network],
        (Verb::VolumeInspect, _) | (_, "volume") => &[Kind::Volume],
        (_, "") => &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
        (_, other) => return Err(Fail::text(format!("corten: inspecting a {other} is not supported yet"))),
    };
    let template = match matches.str("format") {
        "" | "json" => None,
        text => Some(text),
    };
    let template = template
        .map(|text| Template::parse("", text))
        .transpose()
        .map_err(|error| Fail::text(format!("template parsing error: {error}")).code(64))?;
    let client = app.client().await?;
    let (mut found, mut mistakes) = (Vec::new(), Vec::new());
    let mut text = String::new();
    let mut hint = None;
    for name in &matches.args {
        let looked_up = look_up(client, kinds, name, matches).await;
        match (looked_up, &template) {
            (Err(fail), _) => {
                hint = fail.hint.clone().or(hint);
                mistakes.push(fail.text);
            }
            (Ok((_, value)), None) => found.push(value),
            (Ok((kind, value)), Some(template)) => match apply(template, kind, &value) {
                Ok(line) => text += &(line + "\n"),
                Err(mistake) => mistakes.push(mistake),
            },
        }
    }
    match template {
        None if matches.str("format") == "json" => out(&format!("{}\n", Value::Array(found))),
        None => out(&indented(&found)?),
        Some(_) if text.is_empty() => out("\n"),
        Some(_) => out(&text),
    }
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(Fail { hint, ..Fail::text(mistakes.join("\n")) }),
    }
}

/// The object of that name: of several kinds the first that has it.
async fn look_up(
    client: &Client,
    kinds: &[Kind],
    name: &str,
    matches: &Matches,
) -> Result<(Kind, Value), Fail> {
    for kind in kinds {
        match client.value(kind.request(name, matches)?).await {
            Ok(value) => return Ok((*kind, value)),
            // With several kinds a name that is not there, or cannot be one, may still be of the next.
            Err(error) if kinds.len() > 1 && matches!(error.status(), Some(400 | 404 | 501)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Fail::text(format!("Error: No such object: {name}")))
}

/// Applies a template as Docker does: to the typed object first, and if that fails to the plain JSON.
fn apply(template: &Template, kind: Kind, value: &Value) -> Result<String, String> {
    let ty = match kind {
        Kind::Container => &schema::CONTAINER,
        Kind::Image => &schema::IMAGE,
        Kind::Network => &schema::NETWORK,
        Kind::Volume => &schema::VOLUME,
    };
    let typed = template.execute_typed(Val::typed(value, ty), MissingKey::NoValue, &NoMethods);
    typed
        .or_else(|_| template.execute(value, MissingKey::Error))
        .map_err(|error| format!("template parsing error: {error}"))
}

/// The objects as a JSON list, indented by four.
pub(super) fn indented(found: &[Value]) -> Result<String, Fail> {
    if found.is_empty() {
        return Ok("[]\n".to_owned());
    }
    let mut bytes = Vec::new();
    let layout = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, layout);
    found.serialize(&mut serializer).map_err(|error| Fail::text(error.to_string()))?;
    bytes.push(b'\n');
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(template: &str) -> String {
        let value = json!({
            "Id": "abc", "Name": "/web", "State": {"Status": "running", "Running": true, "Pid": 7},
            "Config": {"Env": ["A=b"], "Labels": null, "Image": "busybox"},
            "HostConfig": {"Memory": 0, "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}},
            "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}, "Networks": {}},
            "Mounts": [],
        });
        let parsed = Template::parse("", template).expect("valid");
        apply(&parsed, Kind::Container, &value).unwrap_or_else(|error| error)
    }

    #[test]
    fn templates_over_containers() {
        for (template, expected) in [
            (
                "{{.Id}} {{.ID}} {{.Name}}",
                "template parsing error: template: :1:10: executing \"\" at <.ID>: map has no entry for key \"ID\"",
            ),
            ("{{.ID}} {{.State.Status}} {{.State.Pid}}", "abc running 7"),
            ("{{.Id}}", "abc"),
            ("{{if .State.Health}}x{{else}}none{{end}}", "none"),
            ("{{.Config.Labels}} {{.Config.Env}} {{json .Config.Labels}}", "map[] [A=b] null"),
            (
                "{{range $p, $c := .NetworkSettings.Ports}}{{$p}}->{{(index $c 0).HostPort}}{{end}}",
                "80/tcp->8080",
            ),
            ("{{.NetworkSettings.Ports}}", "map[80/tcp:[{0.0.0.0 8080}]]"),
            (
                "{{.Foo}}",
                "template parsing error: template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"",
            ),
        ] {
            assert_eq!(container(template), expected, "{template}");
        }
    }

    #[test]
    fn lists_are_indented_by_four() {
        assert_eq!(indented(&[]).expect("json"), "[]\n");
        let text = indented(&[json!({"A": [], "B": {"C": 1}})]).expect("json");
        assert_eq!(
            text,
            "[\n    {\n        \"A\": [],\n        \"B\": {\n            \"C\": 1\n        }\n    }\n]\n"
        );
    }
}
