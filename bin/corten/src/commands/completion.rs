//! Shell completion: a script for each shell, which asks this program what may come next.

use api_client::Request;
use serde_json::Value;

use super::Verb;
use crate::app::App;
use crate::args::complete::{self, Wanted};
use crate::args::{Completes, Matches};
use crate::fail::Fail;
use crate::output::out;
use crate::plugins;

const BASH: &str = include_str!("../../completion/bash");
const ZSH: &str = include_str!("../../completion/zsh");
const FISH: &str = include_str!("../../completion/fish");

pub fn script(app: &App, verb: Verb, _matches: &Matches) -> Result<(), Fail> {
    let text = match verb {
        Verb::CompletionBash => BASH,
        Verb::CompletionFish => FISH,
        _ => ZSH,
    };
    out(&text.replace("@program@", app.program));
    Ok(())
}

/// Prints what may stand in place of the last word, a line each: the word, a tab, and what it does.
pub async fn complete(program: &'static str, words: &[String]) -> Result<i32, Fail> {
    if let Some(lines) = of_plugin(program, words) {
        out(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        return Ok(0);
    }
    let wanted = complete::wanted(words);
    let lines = match wanted {
        Wanted::Words(words) => words,
        Wanted::Files => vec![":files".to_owned()],
        Wanted::Objects(kind, prefix) => {
            let app = App::new(program, Matches::default(), Vec::new());
            // Completion must never start a daemon or complain.
            let names = names(&app, kind).await.unwrap_or_default();
            names.into_iter().filter(|name| name.starts_with(&prefix)).collect()
        }
    };
    out(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    Ok(0)
}

/// What a plugin offers, where the line is one of its commands or may become one.
fn of_plugin(program: &'static str, words: &[String]) -> Option<Vec<String>> {
    let (first, rest) = words.split_first()?;
    if first.starts_with('-') {
        return None;
    }
    let app = App::new(program, Matches::default(), Vec::new());
    if !rest.is_empty() {
        let known = crate::args::tree::ROOT.sub(first).is_some();
        let plugin = (!known).then(|| plugins::find(app.config(), &app.folder(), first)).flatten()?;
        return Some(plugins::complete(&plugin, words));
    }
    let Wanted::Words(mut lines) = complete::wanted(words) else { return None };
    let found = plugins::all(app.config(), &app.folder());
    let usable = found.iter().filter(|plugin| plugin.error.is_none() && !plugin.is_hidden());
    let fitting = usable.filter(|plugin| plugin.name.starts_with(first.as_str()));
    lines.extend(fitting.map(|plugin| format!("{}\t{}", plugin.name, plugin.text("ShortDescription"))));
    Some(lines)
}

async fn names(app: &App, kind: Completes) -> Result<Vec<String>, Fail> {
    let request = match kind {
        Completes::Containers => Request::get("/containers/json").query("all", "1"),
        Completes::RunningContainers => Request::get("/containers/json"),
        Completes::Images => Request::get("/images/json"),
        Completes::Networks => Request::get("/networks"),
        Completes::Contexts => {
            let all = crate::context_store::Store::new(&app.folder()).list();
            let names = all.iter().map(|one| one.name().to_owned());
            return Ok(names.chain(["default".to_owned()]).collect());
        }
        Completes::Nothing | Completes::Files => return Ok(Vec::new()),
    };
    let found = app.client_as_is()?.value(request).await?;
    let texts = |value: &Value| -> Vec<String> {
        match value {
            Value::String(text) => vec![text.clone()],
            Value::Array(list) => list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        }
    };
    let key = match kind {
        Completes::Images => "RepoTags",
        Completes::Networks => "Name",
        _ => "Names",
    };
    let names = found.as_array().into_iter().flatten().filter_map(|item| item.get(key)).flat_map(texts);
    Ok(names
        .map(|name| name.trim_start_matches('/').to_owned())
        .filter(|name| name != "<none>:<none>")
        .collect())
}
