//! Containers that this one is linked to, and those that are linked to it.

use std::net::IpAddr;
use std::sync::Arc;

use model::create::{NetworkChoice, Record};
use model::links::{Link, Linked};
use model::{Kind, Refusal};

use super::task::Task;
use super::{Command, Handle, View};
use crate::net::Endpoint;
use crate::{Engine, blocking};

/// The linked containers as they run now; for a start all of them must.
pub fn linked(engine: &Engine, record: &Record) -> Result<Vec<Linked>, Refusal> {
    if !matches!(record.network, NetworkChoice::Bridge(_)) {
        return Ok(Vec::new());
    }
    record.links.iter().map(|link| find(engine, record, link)).collect()
}

fn find(engine: &Engine, record: &Record, link: &Link) -> Result<Linked, Refusal> {
    let alias = &link.alias;
    let view = engine.find(&link.container).ok().map(|handle| handle.view());
    let name = view.as_ref().map_or(link.name.as_str(), |view| view.name());
    let Some(view) = view.as_ref().filter(|view| view.phase.is_running()) else {
        let parent = &record.name;
        let why = format!("Cannot link to a non running container: /{name} AS /{parent}/{alias}");
        return Err(Refusal::system(why).hint(format!("start {name} first")));
    };
    let Some(endpoint) = &view.endpoint else {
        let why = format!("Cannot link to /{name}, as it does not belong to the default network");
        return Err(Refusal::system(why));
    };
    let (address, config) = (endpoint.0.ip.into(), view.record.config.clone());
    Ok(Linked { alias: alias.clone(), name: name.into(), address, config })
}

/// The variables that tell of linked containers, if the daemon is to set them: of those that run.
pub fn variables(engine: &Engine, record: &Record) -> Vec<String> {
    if !engine.options().link_variables || !matches!(record.network, NetworkChoice::Bridge(_)) {
        return Vec::new();
    }
    let found = record.links.iter().filter_map(|link| find(engine, record, link).ok());
    found.flat_map(|linked| linked.variables(&record.name)).collect()
}

/// Lets a container call those that it is linked to, as far as they run, where others may not.
pub fn permit(engine: &Engine, record: &Record, own: &Endpoint) -> Result<(), Refusal> {
    if engine.options().network.icc {
        return Ok(());
    }
    for link in &record.links {
        let Ok(child) = engine.find(&link.container).map(|child| child.view()) else { continue };
        if let Some(endpoint) = &child.endpoint {
            engine.network().permit(own, endpoint, &child.record.config)?;
        }
    }
    Ok(())
}

/// The same for all containers that run since before this daemon; blocks.
pub fn permit_all(engine: &Engine) {
    for view in engine.registry().all().iter().map(Handle::view) {
        if let Some(own) = &view.endpoint
            && let Err(error) = permit(engine, &view.record, own)
        {
            tracing::warn!(container = %view.id(), %error, "it cannot call the containers that it is linked to");
        }
    }
}

/// Tells the containers that are linked to one where it is now.
pub fn tell_parents(engine: &Engine, record: &Record, address: IpAddr) {
    for parent in engine.registry().parents(&record.id) {
        let child = record.id.clone();
        // Their tasks may be waiting for this one.
        tokio::spawn(async move { parent.tell(Command::LinkMoved { child, address }).await });
    }
}

/// All names of a container as lists show them: its own first, then those that links give it.
pub fn names(engine: &Engine, view: &View) -> Vec<String> {
    let mut names = vec![format!("/{}", view.name())];
    for parent in engine.registry().parents(view.id()) {
        let parent = parent.view();
        let links = parent.record.links.iter().filter(|link| link.container == view.id());
        names.extend(links.map(|link| format!("/{}/{}", parent.name(), link.alias)));
    }
    names
}

impl Task {
    /// A linked container has started again, with another address.
    pub(super) async fn link_moved(&mut self, child: &str, address: IpAddr) {
        let aliases: Vec<String> = self.aliases(child).map(|link| link.alias.clone()).collect();
        if self.phase.is_running() && !aliases.is_empty() {
            let changed = self.change_hosts(move |text| {
                aliases
                    .iter()
                    .fold(text, |text, alias| network::files::move_host(&text, alias, Some(address)))
            });
            changed.await;
            self.call_linked().await;
        }
    }

    /// Lets the container call those that it is linked to, wherever they are now.
    async fn call_linked(&self) {
        let Some(own) = self.endpoint.clone() else { return };
        let (engine, record) = (self.engine.clone(), self.record.clone());
        if let Err(error) = blocking(move || permit(&engine, &record, &own)).await {
            tracing::warn!(container = %self.record.id, %error, "it cannot call a container that it is linked to");
        }
    }

    /// Takes that back for one of them.
    async fn forbid(&self, child: &str) {
        let there = self.engine.find(child).ok().and_then(|child| child.view().endpoint.clone());
        let (Some(own), Some(there)) = (self.endpoint.clone(), there) else { return };
        let engine = self.engine.clone();
        if let Err(error) = blocking(move || engine.network().forbid(&own, &there)).await {
            tracing::warn!(container = %self.record.id, %error, "it can still call a container that it was linked to");
        }
    }

    fn aliases<'a>(&'a self, child: &'a str) -> impl Iterator<Item = &'a Link> + 'a {
        self.record.links.iter().filter(move |link| link.container == child)
    }

    /// `rm --link`.
    pub(super) async fn unlink(&mut self, alias: &str) -> Result<(), Refusal> {
        let mut record = (*self.record).clone();
        let Some(at) = record.links.iter().position(|link| link.alias == alias) else {
            return Err(Refusal::new(Kind::NotFound, format!("No such container: {}/{alias}", record.name)));
        };
        let gone = record.links.remove(at);
        self.engine.records().put(&record).await?;
        if !record.links.iter().any(|link| link.container == gone.container) {
            self.engine.registry().unlink(&gone.container, &record.id);
            self.forbid(&gone.container).await;
        }
        self.record = Arc::new(record);
        self.publish();
        if self.phase.is_running() {
            self.change_hosts(move |text| network::files::move_host(&text, &gone.alias, None)).await;
        }
        Ok(())
    }

    /// Writes the container's hosts file anew. In its place: the container has that very file mounted.
    async fn change_hosts(&self, change: impl FnOnce(String) -> String + Send + 'static) {
        let path = self.engine.paths().file(&self.record.id, "hosts");
        let changed = blocking(move || {
            let failed = |error: std::io::Error| Refusal::from_error("cannot change the hosts file", &error);
            let text = std::fs::read_to_string(&path).map_err(failed)?;
            std::fs::write(&path, change(text)).map_err(failed)
        });
        if let Err(error) = changed.await {
            tracing::warn!(container = %self.record.id, %error, "it does not learn of a change of its links");
        }
    }
}
