//! `ps`: the published views, filtered.

use std::sync::Arc;

use api_types::container::{
    ContainerSummary, HealthSummary, PortSummary, SummaryHostConfig, SummaryNetworkSettings,
};
use model::filter::Filters;
use model::time::NANOS;
use model::{Refusal, mounts, ports};

use crate::container::{View, links};
use crate::{Containers, clock, image};

#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    pub all: bool,
    /// The newest so many; 0 is no limit.
    pub limit: i64,
    pub size: bool,
    /// Without labels, mounts, networks and the image's manifest: what a table shows.
    pub brief: bool,
    /// JSON, or empty.
    pub filters: String,
}

const KEYS: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "label!",
];

/// A container, and the bytes that are its own and those of its whole root filesystem.
type Entry = (Arc<View>, Option<(i64, i64)>);

/// What a list has found: each is told of when its turn comes.
pub struct Listing {
    containers: Containers,
    entries: std::vec::IntoIter<Entry>,
    brief: bool,
    now: i64,
}

impl Iterator for Listing {
    type Item = ContainerSummary;

    fn next(&mut self) -> Option<ContainerSummary> {
        let (view, sizes) = self.entries.next()?;
        let mut summary = self.containers.brief_summary(&view, self.now);
        if !self.brief {
            self.containers.add_details(&view, &mut summary);
        }
        if let Some((rw, root)) = sizes {
            (summary.size_rw, summary.size_root_fs) = (Some(rw), Some(root));
        }
        Some(summary)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for Listing {}

impl Containers {
    pub async fn list(&self, query: ListQuery) -> Result<Listing, Refusal> {
        let filters = Filters::parse(&query.filters, &KEYS)?;
        check(&filters)?;
        let all = query.all || query.limit > 0 || filters.has("status") || filters.has("exited");
        let mut views: Vec<Arc<View>> =
            self.0.registry().all().into_iter().map(|handle| handle.view()).collect();
        views.sort_by(|a, b| (b.record.created, &b.record.id).cmp(&(a.record.created, &a.record.id)));
        let created_of = |key: &str| -> Result<Option<i64>, Refusal> {
            filters.values(key).next().map(|name| Ok(self.0.find(name)?.view().record.created)).transpose()
        };
        let (before, since) = (created_of("before")?, created_of("since")?);
        let ancestors: Vec<String> = filters
            .values("ancestor")
            .filter_map(|name| self.0.images().resolve(name).ok().map(|image| image.id.to_string()))
            .collect();
        let networks: Vec<String> = filters
            .values("network")
            .filter_map(|name| self.0.networks().inspect(name).ok().map(|one| one.name))
            .collect();
        let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let chosen = views.into_iter().filter(|view| {
            (all || view.phase.is_running() || view.phase.status() == "restarting")
                && !view.removed
                && before.is_none_or(|at| view.record.created < at)
                && since.is_none_or(|at| view.record.created > at)
                && (!filters.has("ancestor") || ancestors.contains(&view.record.image_id))
                && (!filters.has("network") || networks.contains(&view.record.host_config.network_mode))
                && passes(view, &filters)
        });
        let chosen: Vec<Arc<View>> = chosen.take(limit).collect();
        let containers = self.clone();
        let entries: Vec<Entry> = if query.size {
            let measure = move || {
                let measured = chosen.into_iter().map(|view| {
                    let sizes = containers.sizes(view.id());
                    (view, Some(sizes))
                });
                Ok(measured.collect())
            };
            self.0.0.meter.measured(measure).await?
        } else {
            chosen.into_iter().map(|view| (view, None)).collect()
        };
        Ok(Listing {
            containers: self.clone(),
            entries: entries.into_iter(),
            brief: query.brief,
            now: clock::now(),
        })
    }

    fn brief_summary(&self, view: &View, now: i64) -> ContainerSummary {
        let record = &view.record;
        ContainerSummary {
            id: record.id.clone(),
            names: links::names(&self.0, view),
            image: record.config.image.clone(),
            image_id: record.image_id.clone(),
            command: record.command().join(" "),
            created: record.created / NANOS,
            ports: ports_of(view),
            state: view.phase.status().into(),
            status: view.phase.words(now, view.health.as_ref()),
            health: Some(HealthSummary {
                status: view.health.as_ref().map_or("none", |health| health.status.word()).into(),
                failing_streak: view.health.as_ref().map_or(0, |health| health.streak),
            }),
            ..ContainerSummary::default()
        }
    }

    fn add_details(&self, view: &View, summary: &mut ContainerSummary) {
        let record = &view.record;
        summary.image_manifest_descriptor = record.image_manifest.clone().map(image::api_descriptor);
        summary.labels = record.config.labels.clone().unwrap_or_default();
        summary.host_config = SummaryHostConfig {
            network_mode: record.host_config.network_mode.clone(),
            annotations: record.host_config.annotations.clone(),
        };
        summary.network_settings = SummaryNetworkSettings { networks: self.endpoint_settings(view) };
        summary.mounts = self.0.volumes().mount_points(record);
    }
}

/// Refuses values that no container can have.
fn check(filters: &Filters) -> Result<(), Refusal> {
    const STATUS: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
    if let Some(odd) = filters.values("status").find(|value| !STATUS.contains(value)) {
        return Err(Refusal::invalid(format!("invalid filter 'status={odd}'")));
    }
    if let Some(odd) = filters.values("exited").find(|value| value.parse::<i64>().is_err()) {
        return Err(Refusal::invalid(format!("invalid filter 'exited={odd}'")));
    }
    const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];
    if let Some(odd) = filters.values("health").find(|value| !HEALTH.contains(value)) {
        return Err(Refusal::invalid(format!("invalid filter 'health={odd}'")));
    }
    filters.flag("is-task")?;
    for key in ["expose", "publish"] {
        for value in filters.values(key) {
            ports::parse(value)?;
        }
    }
    Ok(())
}

fn passes(view: &View, filters: &Filters) -> bool {
    let record = &view.record;
    let exited = match &view.phase {
        model::Phase::Exited(ending) => Some(i64::from(ending.code)),
        _ => None,
    };
    let wanted_ports = |key: &str| -> Vec<ports::Port> {
        filters.values(key).filter_map(|value| ports::parse(value).ok()).flatten().collect()
    };
    let is_published = |wanted: &ports::Port| {
        view.endpoint.iter().flat_map(|endpoint| &endpoint.0.ports).any(|port| {
            port.container_port == wanted.number && crate::net::api_protocol(port.protocol) == wanted.protocol
        })
    };
    let is_exposed = |wanted: &ports::Port| {
        let exposed = record.config.exposed_ports.as_ref().map(ports::exposed);
        exposed.is_some_and(|ports| ports.is_ok_and(|ports| ports.contains(wanted)))
    };
    filters.any("id", |id| record.id.starts_with(id))
        && filters.any("name", |pattern| name_matches(&record.name, pattern))
        && filters.any("status", |status| view.phase.status() == status)
        && filters.any("exited", |code| exited.is_some_and(|exited| code.parse() == Ok(exited)))
        && filters
            .any("health", |word| view.health.as_ref().map_or("none", |health| health.status.word()) == word)
        && filters.any("is-task", |value| matches!(value, "false" | "0" | "False" | "FALSE" | "f"))
        && filters.any("isolation", |value| matches!(value, "" | "default"))
        && filters.labels(record.config.labels.as_ref().unwrap_or(&Default::default()))
        && filters.any("volume", |wanted| mounts::mentions(&record.mounts, wanted))
        && (!filters.has("publish") || wanted_ports("publish").iter().any(is_published))
        && (!filters.has("expose") || wanted_ports("expose").iter().any(is_exposed))
}

/// Names are matched by regular expression, with and without the slash that they begin with. A pattern that is no
/// regular expression matches nothing.
fn name_matches(name: &str, pattern: &str) -> bool {
    let Ok(pattern) = regex_lite::Regex::new(pattern) else { return false };
    pattern.is_match(name) || pattern.is_match(&format!("/{name}"))
}

fn ports_of(view: &View) -> Vec<PortSummary> {
    if !view.phase.is_running() {
        return Vec::new();
    }
    let published = view.endpoint.iter().flat_map(|endpoint| &endpoint.0.ports);
    let mut all: Vec<PortSummary> = published
        .map(|port| PortSummary {
            ip: port.host_ip.to_string(),
            private_port: port.container_port,
            public_port: Some(port.host_port),
            protocol: crate::net::api_protocol(port.protocol).name().into(),
        })
        .collect();
    let exposed = ports::exposed(view.record.config.exposed_ports.as_ref().unwrap_or(&Default::default()));
    for port in exposed.unwrap_or_default() {
        let name = port.protocol.name();
        if !all.iter().any(|one| one.private_port == port.number && one.protocol == name) {
            all.push(PortSummary {
                private_port: port.number,
                protocol: name.into(),
                ..PortSummary::default()
            });
        }
    }
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::name_matches;

    #[test]
    fn names_by_part_and_anchor() {
        for (pattern, hit) in [
            ("eb", true),
            ("^web$", true),
            ("^/web$", true),
            ("^eb", false),
            ("web1", false),
            ("w.b", true),
            ("(", false),
        ] {
            assert_eq!(name_matches("web", pattern), hit, "{pattern}");
        }
    }
}
