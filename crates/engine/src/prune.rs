//! `container prune`.

use api_types::container::ContainersPrune;
use model::filter::Filters;
use model::{Phase, Refusal, time};

use crate::container::Command;
use crate::{Containers, blocking, clock};

/// The `until` key of a prune: nothing younger than that is removed.
pub fn until(filters: &Filters, now: i64) -> Result<Option<i64>, Refusal> {
    let mut values = filters.values("until");
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(text), None) => time::parse_moment(text, now)
            .map(Some)
            .ok_or_else(|| Refusal::invalid(format!("invalid filter 'until=[{text}]'"))),
        _ => Err(Refusal::invalid("more than one until filter specified")),
    }
}

impl Containers {
    /// Removes every container that does not run and passes the filters.
    pub async fn prune(&self, filters: &str) -> Result<ContainersPrune, Refusal> {
        let filters = Filters::parse(filters, &["label", "label!", "until"])?;
        let until = until(&filters, clock::now())?;
        let mut deleted = Vec::new();
        let mut reclaimed = 0;
        for handle in self.0.registry().all() {
            let view = handle.view();
            let ended = matches!(view.phase, Phase::Created { .. } | Phase::Exited(_));
            let labels = view.record.config.labels.clone().unwrap_or_default();
            if !ended || until.is_some_and(|until| view.record.created > until) || !filters.labels(&labels) {
                continue;
            }
            let (containers, id) = (self.clone(), view.id().to_string());
            let (size, _) = blocking(move || Ok(containers.sizes(&id))).await?;
            // One that was started or removed meanwhile stays as it is.
            if handle.ask(|answer| Command::Remove { force: false, volumes: false, answer }).await.is_ok() {
                reclaimed += size.unsigned_abs();
                deleted.push(view.id().to_string());
            }
        }
        let attributes = [("reclaimed".to_string(), reclaimed.to_string())];
        self.0.events().emit("container", "prune", "", attributes.into());
        Ok(ContainersPrune { containers_deleted: Some(deleted), space_reclaimed: reclaimed })
    }
}
