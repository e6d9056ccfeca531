//! What containers use, as `stats` answers it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// One sample of a container, beside what it had used at the sample before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerStats {
    pub id: String,
    /// With a leading slash.
    pub name: String,
    /// Answered from API 1.52 on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_type: String,
    /// RFC 3339.
    pub read: String,
    pub cpu_stats: CpuStats,
    pub memory_stats: MemoryStats,
    /// By interface; none if the container has no network of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<BTreeMap<String, NetworkStats>>,
    pub pids_stats: PidsStats,
    pub blkio_stats: BlkioStats,
    /// Not told on Linux.
    pub num_procs: u32,
    pub storage_stats: StorageStats,
    pub preread: String,
    pub precpu_stats: CpuStats,
}

/// Nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuStats {
    pub cpu_usage: CpuUsage,
    /// Of all CPUs of the host, idle time included.
    #[serde(skip_serializing_if = "is_zero")]
    pub system_cpu_usage: u64,
    #[serde(skip_serializing_if = "is_zero_32")]
    pub online_cpus: u32,
    pub throttling_data: ThrottlingData,
}

/// Nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    pub total_usage: u64,
    /// By CPU, on cgroup v1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_usage: Vec<u64>,
    pub usage_in_kernelmode: u64,
    pub usage_in_usermode: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottlingData {
    pub periods: u64,
    pub throttled_periods: u64,
    /// Nanoseconds.
    pub throttled_time: u64,
}

/// Names and numbers of the kernel's `memory.stat`. Their JSON is made once: samples of a container that does nothing
/// share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryFields {
    numbers: BTreeMap<Cow<'static, str>, u64>,
    json: OnceLock<Box<RawValue>>,
}

impl From<BTreeMap<Cow<'static, str>, u64>> for MemoryFields {
    fn from(numbers: BTreeMap<Cow<'static, str>, u64>) -> MemoryFields {
        MemoryFields { numbers, json: OnceLock::new() }
    }
}

impl MemoryFields {
    pub fn get(&self, name: &str) -> Option<u64> {
        self.numbers.get(name).copied()
    }

    fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

impl PartialEq for MemoryFields {
    fn eq(&self, other: &MemoryFields) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for MemoryFields {}

impl Serialize for MemoryFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = match self.json.get() {
            Some(json) => json,
            None => {
                let made = to_raw_value(&self.numbers).map_err(serde::ser::Error::custom)?;
                self.json.get_or_init(|| made)
            }
        };
        json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MemoryFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MemoryFields, D::Error> {
        BTreeMap::deserialize(deserializer).map(MemoryFields::from)
    }
}

/// Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStats {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// On cgroup v1.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_usage: u64,
    /// The kernel's `memory.stat`; its names differ between v1 and v2.
    #[serde(skip_serializing_if = "MemoryFields::is_empty")]
    pub stats: Arc<MemoryFields>,
    #[serde(skip_serializing_if = "is_zero")]
    pub failcnt: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PidsStats {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Those that only the CFQ scheduler of old kernels filled are always `null`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioStats {
    pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
    pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
    pub io_queue_recursive: Option<Vec<BlkioEntry>>,
    pub io_service_time_recursive: Option<Vec<BlkioEntry>>,
    pub io_wait_time_recursive: Option<Vec<BlkioEntry>>,
    pub io_merged_recursive: Option<Vec<BlkioEntry>>,
    pub io_time_recursive: Option<Vec<BlkioEntry>>,
    pub sectors_recursive: Option<Vec<BlkioEntry>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioEntry {
    pub major: u64,
    pub minor: u64,
    pub op: Cow<'static, str>,
    pub value: u64,
}

/// Only told on Windows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageStats {}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero_32(value: &u32) -> bool {
    *value == 0
}
