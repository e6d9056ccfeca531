//! A container's address and host ports, while it runs.

use std::sync::Arc;

use model::Refusal;
use model::create::{NetworkChoice, Record};

use crate::net::Endpoint;
use crate::{Engine, blocking, failpoint};

/// Takes an address and host ports; bookkeeping only.
pub async fn allocate(engine: &Engine, record: &Arc<Record>) -> Result<Option<Arc<Endpoint>>, Refusal> {
    let NetworkChoice::Bridge(settings) = &record.network else { return Ok(None) };
    failpoint::hit("start.ports")?;
    let (engine, record, settings) = (engine.clone(), record.clone(), settings.clone());
    let endpoint = blocking(move || engine.network().allocate(&record, &settings)).await?;
    Ok(Some(Arc::new(endpoint)))
}

/// Frees address and ports, and in the background the link.
pub async fn release(engine: &Engine, endpoint: Option<Arc<Endpoint>>) {
    let Some(endpoint) = endpoint else { return };
    let releasing = engine.clone();
    let released = blocking(move || {
        releasing.network().detach(&endpoint);
        Ok(())
    });
    let _ = released.await;
    engine.in_background(|engine| engine.network().reap());
}

/// Tells of a container that comes to its network or leaves it.
pub fn emit(engine: &Engine, record: &Record, action: &str) {
    if let NetworkChoice::Bridge(_) = record.network {
        engine.networks().emit_bridge(action, &record.id);
    }
}
