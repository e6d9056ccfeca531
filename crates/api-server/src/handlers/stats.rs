//! What containers use: once, or as a stream.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use api_types::stats::{
    BlkioEntry, BlkioStats, ContainerStats, CpuStats, CpuUsage, MemoryFields, MemoryStats, NetworkStats,
    PidsStats, ThrottlingData,
};
use bytes::Bytes;
use engine::stats::{Sample, Watch};
use model::Refusal;
use model::time::{NANOS, rfc3339_nano};

use crate::App;
use crate::request::Request;
use crate::respond::{Outcome, json, streamed};
use crate::versions::{self, Version};

/// Samples of one answer are at least this far apart: over less time a percentage says little.
const APART: i64 = NANOS / 2;

pub async fn stats(app: &App, request: &Request, id: &str) -> Outcome {
    let query = &request.query;
    let stream = query.flag_or("stream", true);
    let once = request.version >= Version::new(1, 41) && query.flag("one-shot");
    if stream && once {
        return Err(Refusal::invalid("cannot have stream=true and one-shot=true"));
    }
    let view = app.engine.find(id)?.view();
    let mut answers = Answers {
        id: view.id().into(),
        name: format!("/{}", view.name()),
        memory: app.engine.facts().memory,
        version: request.version,
        before: None,
        fields: None,
        length: 0,
    };
    if !stream && (once || !view.phase.is_running()) {
        return json(&answers.next(app.engine.stats().once(id).await?));
    }
    let mut watch = app.engine.stats().watch(id)?;
    if !stream {
        let sample = match second(&mut watch, &mut answers).await {
            Some(sample) => sample,
            None => Arc::new(Sample::empty()),
        };
        return json(&answers.next(sample));
    }
    let lines = futures_util::stream::unfold((watch, answers), |(mut watch, mut answers)| async move {
        let sample = loop {
            let sample = watch.next().await?;
            if answers.is_due(&sample) {
                break sample;
            }
        };
        let line = answers.line(sample);
        Some((line, (watch, answers)))
    });
    Ok(streamed("application/json", lines))
}

/// The second sample; the first goes into `answers`.
async fn second(watch: &mut Watch, answers: &mut Answers) -> Option<Arc<Sample>> {
    answers.before = Some(watch.next().await?);
    loop {
        let sample = watch.next().await?;
        if answers.is_due(&sample) {
            return Some(sample);
        }
    }
}

/// Makes answers of samples, each beside the one before.
struct Answers {
    id: String,
    name: String,
    /// Of the host, in bytes.
    memory: u64,
    version: Version,
    before: Option<Arc<Sample>>,
    /// What was made of the text that the kernel wrote last. Most containers do nothing most of the time.
    fields: Option<(Arc<str>, Arc<MemoryFields>)>,
    /// Bytes of the last line.
    length: usize,
}

impl Answers {
    /// Whether a sample may follow the one before.
    fn is_due(&self, sample: &Sample) -> bool {
        !sample.is_running || self.before.as_ref().is_none_or(|before| sample.at - before.at >= APART)
    }

    /// The next answer of a stream.
    fn line(&mut self, sample: Arc<Sample>) -> io::Result<Bytes> {
        let mut line = Vec::with_capacity(self.length + self.length / 8);
        serde_json::to_writer(&mut line, &self.next(sample))?;
        line.push(b'\n');
        self.length = line.len();
        Ok(line.into())
    }

    fn next(&mut self, sample: Arc<Sample>) -> ContainerStats {
        let before = self.before.replace(sample.clone());
        let mut answer = ContainerStats {
            id: self.id.clone(),
            name: self.name.clone(),
            os_type: "linux".into(),
            read: time(sample.at),
            cpu_stats: processor(&sample),
            memory_stats: self.memory(&sample),
            networks: networks(&sample),
            pids_stats: PidsStats {
                current: sample.stats.pids.current,
                // On v1 no limit has always been nothing, on v2 the largest number.
                limit: match sample.stats.pids.limit {
                    u64::MAX if !sample.is_cgroup_v2 => 0,
                    limit => limit,
                },
            },
            blkio_stats: block_io(&sample),
            preread: time(before.as_ref().map_or(0, |before| before.at)),
            precpu_stats: before.as_deref().map(processor).unwrap_or_default(),
            ..ContainerStats::default()
        };
        versions::stats(&mut answer, self.version);
        answer
    }

    /// Without a limit of its own, the host's memory is the limit.
    fn memory(&mut self, sample: &Sample) -> MemoryStats {
        if !sample.is_running {
            return MemoryStats::default();
        }
        let memory = &sample.stats.memory;
        let fields = match self.fields.take() {
            Some((text, fields)) if Arc::ptr_eq(&text, &memory.detail) => fields,
            _ => Arc::new(memory_fields(memory, sample.is_cgroup_v2)),
        };
        self.fields = Some((memory.detail.clone(), fields.clone()));
        MemoryStats {
            usage: memory.usage,
            max_usage: memory.usage_max,
            stats: fields,
            failcnt: memory.failures,
            limit: memory.limit.min(self.memory),
        }
    }
}

fn time(at: i64) -> String {
    if at == 0 { "0001-01-01T00:00:00Z".into() } else { rfc3339_nano(at) }
}

fn processor(sample: &Sample) -> CpuStats {
    let cpu = &sample.stats.cpu;
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: cpu.usage_nanoseconds,
            percpu_usage: cpu.per_cpu_nanoseconds.to_vec(),
            usage_in_kernelmode: cpu.system_nanoseconds,
            usage_in_usermode: cpu.user_nanoseconds,
        },
        system_cpu_usage: sample.system_nanoseconds,
        online_cpus: sample.online_cpus,
        throttling_data: ThrottlingData {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_nanoseconds,
        },
    }
}

/// What of `memory.stat` is answered.
fn memory_fields(memory: &engine::stats::MemoryStats, is_cgroup_v2: bool) -> MemoryFields {
    let known: &[&str] = if is_cgroup_v2 { &FIELDS_2 } else { &FIELDS_1 };
    let mut fields: BTreeMap<Cow<'static, str>, u64> = memory
        .fields()
        .filter_map(|(name, value)| {
            let known = known[known.binary_search(&name).ok()?];
            Some((known.into(), value))
        })
        .collect();
    if is_cgroup_v2 {
        // Newer kernels count by kind what was one number.
        let both = |name: &str| {
            memory
                .fields()
                .filter(|(key, _)| {
                    key.strip_suffix("_anon") == Some(name) || key.strip_suffix("_file") == Some(name)
                })
                .map(|(_, value)| value)
                .sum::<u64>()
        };
        for name in ["workingset_refault", "workingset_activate"] {
            fields.entry(name.into()).or_insert_with(|| both(name));
        }
    }
    fields.into()
}

fn networks(sample: &Sample) -> Option<BTreeMap<String, NetworkStats>> {
    let entry = |network: &engine::stats::Network| {
        let (received, sent) = (&network.received, &network.sent);
        let stats = NetworkStats {
            rx_bytes: received.bytes,
            rx_packets: received.packets,
            rx_errors: received.errors,
            rx_dropped: received.dropped,
            tx_bytes: sent.bytes,
            tx_packets: sent.packets,
            tx_errors: sent.errors,
            tx_dropped: sent.dropped,
        };
        (network.name.clone(), stats)
    };
    (!sample.networks.is_empty()).then(|| sample.networks.iter().map(entry).collect())
}

/// What the kernel counts; that nothing was counted yet is an empty list, that the container does not run is `null`.
fn block_io(sample: &Sample) -> BlkioStats {
    if !sample.is_running {
        return BlkioStats::default();
    }
    let io = &sample.stats.block_io;
    let list = |entries: &[engine::stats::BlockIoEntry]| {
        let entry = |one: &engine::stats::BlockIoEntry| BlkioEntry {
            major: one.major,
            minor: one.minor,
            op: one.operation.into(),
            value: one.value,
        };
        Some(entries.iter().map(entry).collect())
    };
    BlkioStats {
        io_service_bytes_recursive: list(&io.service_bytes),
        io_serviced_recursive: list(&io.serviced),
        ..BlkioStats::default()
    }
}

/// What of v1's `memory.stat` has always been answered.
const FIELDS_1: [&str; 32] = [
    "active_anon",
    "active_file",
    "cache",
    "dirty",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    "inactive_anon",
    "inactive_file",
    "mapped_file",
    "pgfault",
    "pgmajfault",
    "pgpgin",
    "pgpgout",
    "rss",
    "rss_huge",
    "total_active_anon",
    "total_active_file",
    "total_cache",
    "total_dirty",
    "total_inactive_anon",
    "total_inactive_file",
    "total_mapped_file",
    "total_pgfault",
    "total_pgmajfault",
    "total_pgpgin",
    "total_pgpgout",
    "total_rss",
    "total_rss_huge",
    "total_unevictable",
    "total_writeback",
    "unevictable",
    "writeback",
];

/// The same of v2's.
const FIELDS_2: [&str; 31] = [
    "active_anon",
    "active_file",
    "anon",
    "anon_thp",
    "file",
    "file_dirty",
    "file_mapped",
    "file_writeback",
    "inactive_anon",
    "inactive_file",
    "kernel_stack",
    "pgactivate",
    "pgdeactivate",
    "pgfault",
    "pglazyfree",
    "pglazyfreed",
    "pgmajfault",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "shmem",
    "slab",
    "slab_reclaimable",
    "slab_unreclaimable",
    "sock",
    "thp_collapse_alloc",
    "thp_fault_alloc",
    "unevictable",
    "workingset_activate",
    "workingset_nodereclaim",
    "workingset_refault",
];

#[cfg(test)]
mod tests {
    #[test]
    fn the_fields_can_be_searched() {
        assert!(super::FIELDS_1.is_sorted() && super::FIELDS_2.is_sorted());
    }
}
