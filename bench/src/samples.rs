//! Samples by measurement and by who was measured.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What is measured; the order is the report's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ApiBridge,
    ApiNone,
    ApiHost,
    CliBridge,
    CliNone,
    CliHost,
    ExecApi,
    ExecCli,
    OneByOne,
    EightAtATime,
    ApiList,
    CliList,
    BesideFew,
    BesideMany,
    Restart,
    LogWrite,
    LogRead,
    CopyLargeIn,
    CopyLargeOut,
    CopySmallIn,
    CopySmallOut,
    LogShipped,
    DaemonMemory,
    ShimMemory,
    ShimShare,
    StatsLoad,
    PullCold,
    PullUnchanged,
    PullMemory,
    ImageLoad,
    ImageSave,
    ImagePush,
}

impl Kind {
    pub const ALL: [Self; 32] = [
        Self::ApiBridge,
        Self::ApiNone,
        Self::ApiHost,
        Self::CliBridge,
        Self::CliNone,
        Self::CliHost,
        Self::ExecApi,
        Self::ExecCli,
        Self::OneByOne,
        Self::EightAtATime,
        Self::ApiList,
        Self::CliList,
        Self::BesideFew,
        Self::BesideMany,
        Self::Restart,
        Self::LogWrite,
        Self::LogRead,
        Self::CopyLargeIn,
        Self::CopyLargeOut,
        Self::CopySmallIn,
        Self::CopySmallOut,
        Self::LogShipped,
        Self::DaemonMemory,
        Self::ShimMemory,
        Self::ShimShare,
        Self::StatsLoad,
        Self::PullCold,
        Self::PullUnchanged,
        Self::PullMemory,
        Self::ImageLoad,
        Self::ImageSave,
        Self::ImagePush,
    ];

    /// The unit, which also tells whether more is better.
    pub fn unit(self) -> &'static str {
        match self {
            Self::OneByOne | Self::EightAtATime => "ms each",
            Self::LogWrite | Self::LogRead => "MB/s",
            Self::LogShipped => "lines/s",
            Self::DaemonMemory | Self::ShimMemory | Self::ShimShare | Self::PullMemory => "MB",
            Self::StatsLoad => "% of a core",
            _ => "ms",
        }
    }

    pub fn more_is_better(self) -> bool {
        matches!(self.unit(), "MB/s" | "lines/s")
    }
}

/// Who was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Floor,
    Corten,
    Docker,
    Podman,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "kernel",
            Self::Corten => "Corten",
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        }
    }
}

impl From<testkit::Engine> for Who {
    fn from(engine: testkit::Engine) -> Self {
        match engine {
            testkit::Engine::Corten => Self::Corten,
            testkit::Engine::Docker => Self::Docker,
            testkit::Engine::Podman => Self::Podman,
        }
    }
}

/// All samples of a run.
#[derive(Debug, Default)]
pub struct Samples {
    by: BTreeMap<(Kind, Who), Vec<f64>>,
    /// Version strings.
    pub versions: BTreeMap<Who, String>,
}

impl Samples {
    pub fn add(&mut self, kind: Kind, who: Who, value: f64) {
        self.by.entry((kind, who)).or_default().push(value);
    }

    pub fn median(&self, kind: Kind, who: Who) -> Option<f64> {
        let mut values = self.by.get(&(kind, who))?.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        Some(if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 })
    }

    /// Who has any samples.
    pub fn who(&self) -> Vec<Who> {
        let mut who: Vec<_> = self.by.keys().map(|(_, who)| *who).collect();
        who.sort();
        who.dedup();
        who
    }

    pub fn json(&self) -> Value {
        self.by
            .iter()
            .map(|((kind, who), values)| {
                json!({ "kind": format!("{kind:?}"), "who": who.name(), "unit": kind.unit(), "samples": values })
            })
            .collect()
    }
}
