//! What things weigh. Measuring walks directories, as long as they have files, so it is kept within bounds: one walk at
//! a time, and who asks for what is being measured already gets the same answer. Nothing of it is on the way of a
//! container's start or end.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use api_types::container::ContainerSummary;
use api_types::volume::{UsageData, Volume};
use model::Refusal;
use tokio::sync::{OnceCell, Semaphore};

use crate::{Engine, ListQuery, blocking};

/// Walks that may go on at once.
const WALKS_MAX: usize = 1;

#[derive(Debug)]
pub(crate) struct Meter {
    walks: Semaphore,
    containers: Flight<Vec<ContainerSummary>>,
    volumes: Flight<Vec<Volume>>,
}

impl Default for Meter {
    fn default() -> Meter {
        Meter { walks: Semaphore::new(WALKS_MAX), containers: Flight::default(), volumes: Flight::default() }
    }
}

impl Meter {
    /// Runs a walk when it is its turn.
    pub async fn measured<T: Send + 'static>(
        &self,
        walk: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = self.walks.acquire().await;
        let turn = turn.map_err(|error| Refusal::from_error("internal error", &error))?;
        let done = blocking(walk).await;
        drop(turn);
        done
    }
}

/// One measurement for all who ask while it goes on. If the one who began it goes away, the next one begins anew.
#[derive(Debug)]
struct Flight<T>(Mutex<Option<Arc<OnceCell<Arc<T>>>>>);

impl<T> Default for Flight<T> {
    fn default() -> Flight<T> {
        Flight(Mutex::new(None))
    }
}

impl<T> Flight<T> {
    async fn join(&self, measure: impl Future<Output = Result<T, Refusal>>) -> Result<Arc<T>, Refusal> {
        let cell = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().clone();
        let measured = cell.get_or_try_init(|| async { measure.await.map(Arc::new) }).await.cloned();
        // Who comes from now on wants to know what is from now on.
        let mut flying = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if flying.as_ref().is_some_and(|one| Arc::ptr_eq(one, &cell)) {
            *flying = None;
        }
        measured
    }
}

/// The use cases of weighing.
#[derive(Clone)]
pub struct Usage(pub(crate) Engine);

impl Usage {
    /// Every container with its sizes; what is weighed needs no word of its image's manifest.
    pub async fn containers(&self) -> Result<Arc<Vec<ContainerSummary>>, Refusal> {
        let all = ListQuery { all: true, size: true, ..ListQuery::default() };
        let containers = self.0.containers();
        let weighed = async move {
            let found = containers.list(all).await?;
            Ok(found.map(|one| ContainerSummary { image_manifest_descriptor: None, ..one }).collect())
        };
        self.0.0.meter.containers.join(weighed).await
    }

    /// Every volume with its size and the number of containers that have it.
    pub async fn volumes(&self) -> Result<Arc<Vec<Volume>>, Refusal> {
        let engine = self.0.clone();
        let walk = self.0.0.meter.measured(move || {
            let volumes = engine.volume_keeper().all().into_iter().map(|(record, users)| {
                let size = engine.volume_keeper().usage(&record.name);
                let size = size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
                let usage = UsageData { size, ref_count: i64::try_from(users).unwrap_or(i64::MAX) };
                Volume { usage_data: Some(usage), ..engine.volume_keeper().answer(&record) }
            });
            Ok(volumes.collect())
        });
        self.0.0.meter.volumes.join(walk).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn who_asks_meanwhile_gets_the_same_answer() {
        let flight = Flight::<usize>::default();
        let measured = AtomicUsize::new(0);
        let gate = tokio::sync::Notify::new();
        let measure = || async {
            let number = measured.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
            Ok(number)
        };
        let (first, second, ()) = tokio::join!(flight.join(measure()), flight.join(measure()), async {
            tokio::task::yield_now().await;
            gate.notify_one();
        });
        assert_eq!((*first.unwrap(), *second.unwrap()), (0, 0));
        gate.notify_one();
        assert_eq!(*flight.join(measure()).await.unwrap(), 1, "later, it is measured anew");
    }
}
