//! The commands, one module per group.

pub mod attach;
pub mod build;
pub mod check;
pub mod completion;
pub mod containers;
pub mod context;
pub mod contexts;
pub mod cp;
pub mod create;
pub mod df;
pub mod dial;
pub mod events;
pub mod exec;
pub mod follow;
pub mod history;
pub mod ignore;
pub mod image_tree;
pub mod images;
pub mod imagetools;
pub mod info;
pub mod inspect;
pub mod login;
pub mod logs;
pub mod manifest;
pub mod network;
pub mod network_create;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod push;
pub mod remote;
pub mod run;
pub mod schema;
pub mod search;
pub mod start;
pub mod stats;
pub mod system;
pub mod transfer;
pub mod volume;

use crate::app::App;
use crate::args::{Command, Matches};
use crate::fail::Fail;

/// What a command does; the table of commands names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Attach,
    Build,
    BuilderPrune,
    Commit,
    CompletionBash,
    CompletionFish,
    CompletionZsh,
    ContainerInspect,
    ContainerPrune,
    ContextCreate,
    ContextExport,
    ContextImport,
    ContextInspect,
    ContextLs,
    ContextRm,
    ContextShow,
    ContextUpdate,
    ContextUse,
    Cp,
    Create,
    Df,
    DialStdio,
    Diff,
    Events,
    Exec,
    Export,
    History,
    ImageInspect,
    ImagePrune,
    Images,
    ImagetoolsCreate,
    ImagetoolsInspect,
    Import,
    Info,
    Inspect,
    Kill,
    Load,
    Login,
    Logout,
    Logs,
    ManifestAnnotate,
    ManifestCreate,
    ManifestInspect,
    ManifestPush,
    ManifestRm,
    NetworkConnect,
    NetworkCreate,
    NetworkDisconnect,
    NetworkInspect,
    NetworkLs,
    NetworkPrune,
    NetworkRm,
    Pause,
    Port,
    Ps,
    Pull,
    Push,
    Rename,
    Restart,
    Rm,
    Rmi,
    Run,
    Save,
    Search,
    Start,
    Stats,
    Stop,
    SystemCheck,
    SystemPrune,
    Tag,
    Top,
    Unpause,
    Update,
    Version,
    VolumeCreate,
    VolumeInspect,
    VolumeLs,
    VolumePrune,
    VolumeRm,
    VolumeUpdate,
    Wait,
}

/// Runs a command; the result is the exit code.
pub async fn run(app: App, command: &Command, matches: Matches) -> Result<i32, Fail> {
    let Some(verb) = command.verb else { return Err(Fail::text("nothing to do")) };
    let done = match verb {
        Verb::Run => return Box::pin(run::run(&app, matches)).await,
        Verb::Start => return Box::pin(start::start(&app, &matches)).await,
        Verb::Attach => return Box::pin(attach::attach(&app, &matches)).await,
        Verb::Exec => return Box::pin(exec::exec(&app, &matches)).await,
        Verb::Create => create::command(&app, matches).await,
        Verb::Wait => containers::wait(&app, &matches).await,
        Verb::Stop => containers::stop(&app, &matches).await,
        Verb::Restart => containers::restart(&app, &matches).await,
        Verb::Kill => containers::kill(&app, &matches).await,
        Verb::Rm => containers::rm(&app, &matches).await,
        Verb::Rename => containers::rename(&app, &matches).await,
        Verb::Pause => containers::pause(&app, &matches).await,
        Verb::Unpause => containers::unpause(&app, &matches).await,
        Verb::Update => containers::update(&app, &matches).await,
        Verb::Commit => containers::commit(&app, &matches).await,
        Verb::Cp => Box::pin(cp::cp(&app, &matches)).await,
        Verb::Diff => containers::diff(&app, &matches).await,
        Verb::Stats => Box::pin(stats::stats(&app, &matches)).await,
        Verb::Top => containers::top(&app, &matches).await,
        Verb::Port => ps::port(&app, &matches).await,
        Verb::Ps => ps::ps(&app, &matches).await,
        Verb::Logs => logs::logs(&app, &matches).await,
        Verb::Inspect
        | Verb::ContainerInspect
        | Verb::ImageInspect
        | Verb::NetworkInspect
        | Verb::VolumeInspect => inspect::inspect(&app, verb, &matches).await,
        Verb::Images => images::images(&app, &matches).await,
        Verb::Rmi => images::rmi(&app, &matches).await,
        Verb::Tag => images::tag(&app, &matches).await,
        Verb::History => history::history(&app, &matches).await,
        Verb::Pull => pull::command(&app, &matches).await,
        Verb::Push => push::command(&app, &matches).await,
        Verb::Search => search::search(&app, &matches).await,
        Verb::Login => login::login(&app, &matches).await,
        Verb::Logout => login::logout(&app, &matches).await,
        Verb::ManifestAnnotate => manifest::annotate(&app, &matches).await,
        Verb::ManifestCreate => Box::pin(manifest::create(&app, &matches)).await,
        Verb::ManifestInspect => Box::pin(manifest::inspect(&app, &matches)).await,
        Verb::ManifestPush => Box::pin(manifest::push(&app, &matches)).await,
        Verb::ManifestRm => manifest::rm(&app, &matches),
        Verb::ImagetoolsCreate => Box::pin(imagetools::create(&app, &matches)).await,
        Verb::ImagetoolsInspect => Box::pin(imagetools::inspect(&app, &matches)).await,
        Verb::Load => transfer::load(&app, &matches).await,
        Verb::Save => transfer::save(&app, &matches).await,
        Verb::Import => transfer::import(&app, &matches).await,
        Verb::Export => transfer::export(&app, &matches).await,
        Verb::Build => Box::pin(build::build(&app, &matches)).await,
        Verb::NetworkLs => network::ls(&app, &matches).await,
        Verb::NetworkRm => network::rm(&app, &matches).await,
        Verb::NetworkCreate => network_create::create(&app, &matches).await,
        Verb::NetworkConnect => network::connect(&app, &matches).await,
        Verb::NetworkDisconnect => network::disconnect(&app, &matches).await,
        Verb::VolumeLs => volume::ls(&app, &matches).await,
        Verb::VolumeCreate => volume::create(&app, &matches).await,
        Verb::VolumeRm => volume::rm(&app, &matches).await,
        Verb::VolumeUpdate => volume::update(&app, &matches).await,
        Verb::BuilderPrune
        | Verb::ContainerPrune
        | Verb::ImagePrune
        | Verb::NetworkPrune
        | Verb::VolumePrune
        | Verb::SystemPrune => prune::prune(&app, verb, &matches).await,
        Verb::SystemCheck => check::check(&app, &matches).await,
        Verb::Version => system::version(&app, &matches).await,
        Verb::Info => info::info(&app, &matches).await,
        Verb::Events => events::events(&app, &matches).await,
        Verb::ContextCreate
        | Verb::ContextExport
        | Verb::ContextImport
        | Verb::ContextInspect
        | Verb::ContextLs
        | Verb::ContextRm
        | Verb::ContextShow
        | Verb::ContextUpdate
        | Verb::ContextUse => contexts::run(&app, verb, &matches),
        Verb::DialStdio => dial::dial(&app).await,
        Verb::Df => df::df(&app, &matches).await,
        Verb::CompletionBash | Verb::CompletionFish | Verb::CompletionZsh => {
            completion::script(&app, verb, &matches)
        }
    };
    done.map(|()| 0)
}

/// Does something with each of several names, prints the names that worked, and collects what did not.
pub(crate) async fn each<'a, F>(names: &'a [String], act: impl Fn(&'a str) -> F) -> Result<(), Fail>
where
    F: Future<Output = Result<Option<String>, Fail>>,
{
    let mut failed: Option<Fail> = None;
    for name in names {
        match act(name).await {
            Ok(Some(text)) => crate::output::out(&format!("{text}\n")),
            Ok(None) => {}
            Err(fail) => match &mut failed {
                Some(before) => before.text = format!("{}\n{}", before.text, fail.text),
                None => failed = Some(fail),
            },
        }
    }
    failed.map_or(Ok(()), |fail| Err(fail.code(1)))
}

/// Filters of the command line as the API takes them: `{"name":{"value":true}}`.
pub(crate) fn filters(values: &[String]) -> Option<String> {
    let mut found = serde_json::Map::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        let (key, value) = value.split_once('=').unwrap_or((value, ""));
        let entry = found.entry(key.trim().to_lowercase()).or_insert_with(|| serde_json::json!({}));
        entry[value.trim()] = true.into();
    }
    (!found.is_empty()).then(|| serde_json::Value::Object(found).to_string())
}
