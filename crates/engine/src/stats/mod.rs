//! What containers use: one thread samples all those that somebody watches, once a second.
//!
//! [`Stats::watch`] hands out a [`Watch`]; the thread runs while there is one, and keeps the files of the watched
//! containers' cgroups open. [`Stats::once`] and [`Stats::all`] read on the spot.

mod sample;
mod sampler;

use std::sync::Arc;

use model::{Phase, Refusal};
use sandbox::Cgroup;
use sandbox::cgroup::Gauge;
use tokio::sync::watch;

use crate::container::View;
use crate::{Engine, blocking};
use sample::{Host, Source};
pub use sample::{Network, Sample};
pub use sampler::Sampler;
pub use sandbox::cgroup::{BlockIoEntry, MemoryStats};

/// A container's samples as they come; the first is there at once or soon.
#[derive(Debug)]
pub struct Watch {
    samples: watch::Receiver<Option<Arc<Sample>>>,
}

impl Watch {
    /// The next sample that was not handed out yet; none when the container is removed.
    pub async fn next(&mut self) -> Option<Arc<Sample>> {
        loop {
            self.samples.changed().await.ok()?;
            let sample = self.samples.borrow_and_update().clone();
            if sample.is_some() {
                return sample;
            }
        }
    }
}

/// The use cases of samples.
#[derive(Clone)]
pub struct Stats(pub(crate) Engine);

impl Stats {
    fn sampler(&self) -> &Sampler {
        &self.0.0.sampler
    }

    /// Watches a container, which need not run.
    pub fn watch(&self, name: &str) -> Result<Watch, Refusal> {
        let handle = self.0.find(name)?;
        Ok(Watch { samples: self.sampler().watch(handle) })
    }

    /// What a container uses now.
    pub async fn once(&self, name: &str) -> Result<Arc<Sample>, Refusal> {
        let view = self.0.find(name)?.view();
        blocking(move || {
            let mut buffer = Vec::new();
            let host = Host::read();
            Ok(Arc::new(match source(&view, &host) {
                Some(mut source) => Sample::read(&mut source, &host, &mut buffer),
                None => Sample::empty(),
            }))
        })
        .await
    }

    /// What all running containers use now. Blocks for some 50 microseconds for each that nobody watches; the last
    /// sample of the others is at most a second old.
    pub fn all(&self) -> Vec<(Arc<View>, Arc<Sample>)> {
        let mut buffer = Vec::new();
        let host = Host::read();
        let views = self.0.registry().all().into_iter().map(|handle| handle.view());
        let running = views.filter(|view| view.phase.is_running());
        running
            .filter_map(|view| {
                let watched = self.sampler().last(view.id()).filter(|sample| sample.is_running);
                let sample = match watched {
                    Some(sample) => sample,
                    None => {
                        let mut source = source(&view, &host)?;
                        Arc::new(Sample::read(&mut source, &host, &mut buffer))
                    }
                };
                Some((view, sample))
            })
            .collect()
    }
}

/// The files to ask about a container; none if it does not run.
fn source(view: &View, host: &Host) -> Option<Source> {
    let Phase::Running { pid, .. } = view.phase else { return None };
    let cgroup = Cgroup::of_process(pid, view.id()).ok()?;
    Some(Source::open(Gauge::open(&cgroup), pid, host))
}
