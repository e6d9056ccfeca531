//! What is fast, measured: Corten beside the kernel's own price and beside other engines, in one run.
//!
//! Every engine has a private host and a daemon of its own ([`testkit::Bed`]); all daemons are up at the same
//! time and idle but for the one being measured. Samples are interleaved (each round asks every engine), so that
//! whatever else the machine does meets all of them; the tables show medians.
//!
//! `make bench` runs everything; `make bench BENCH='--quick'` takes a few minutes. Raw samples go beside the
//! programs, as JSON.
#![allow(clippy::disallowed_methods)] // The command lines are what is measured.

mod floor;
mod images;
mod measure;
mod memory;
mod report;
mod samples;

use std::path::PathBuf;

use anyhow::{Context, bail};
use testkit::Engine;

/// What to run, and how much of it.
#[derive(Debug, Clone)]
pub struct Plan {
    pub engines: Vec<Engine>,
    pub floor: PathBuf,
    /// The report; nothing is written without it.
    pub out: Option<PathBuf>,
    /// Rounds of everything short.
    pub rounds: usize,
    /// Samples of each kind in one round.
    pub samples: usize,
    /// Repeats of logs, and of Corten's part of everything with many containers.
    pub repeats: usize,
    /// Containers for the tests of many.
    pub many: usize,
    /// Containers that run while one more is started.
    pub crowd: usize,
    /// Size of the log that is written and read, in units of [`measure::LINES_FILE_BYTES`].
    pub log_files: usize,
    /// What is measured.
    pub parts: Vec<Part>,
}

/// A part of the measurements that can be taken alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Pulls, loads, saves and pushes.
    Images,
    /// One container, and one command in it.
    Short,
    /// Hundreds and thousands of containers.
    Many,
    Logs,
    Copies,
}

impl Part {
    const ALL: [(&str, Self); 5] = [
        ("images", Self::Images),
        ("short", Self::Short),
        ("many", Self::Many),
        ("logs", Self::Logs),
        ("copies", Self::Copies),
    ];

    fn named(name: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, part)| part).with_context(|| {
            let known: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("no part named {name}: there are {}", known.join(", "))
        })
    }
}

impl Plan {
    fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut plan = Self {
            engines: vec![Engine::Corten, Engine::Docker, Engine::Podman],
            floor: PathBuf::from("target/bench/floor"),
            out: None,
            rounds: 8,
            samples: 5,
            repeats: 3,
            many: 200,
            crowd: 500,
            log_files: 4,
            parts: Part::ALL.into_iter().map(|(_, part)| part).collect(),
        };
        let mut arguments = arguments.skip(1);
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--quick" => (plan.rounds, plan.samples, plan.repeats, plan.crowd) = (3, 3, 1, plan.many),
                "--only" => plan.parts = value()?.split(',').map(Part::named).collect::<Result<_, _>>()?,
                "--engines" => {
                    plan.engines = value()?.split(',').map(engine_named).collect::<Result<_, _>>()?
                }
                "--floor" => plan.floor = value()?.into(),
                "--out" => plan.out = Some(value()?.into()),
                "--rounds" => plan.rounds = value()?.parse()?,
                "--repeats" => plan.repeats = value()?.parse()?,
                "--many" => plan.many = value()?.parse()?,
                "--crowd" => plan.crowd = value()?.parse()?,
                other => bail!("unknown flag {other}"),
            }
        }
        Ok(plan)
    }
}

fn engine_named(name: &str) -> anyhow::Result<Engine> {
    [Engine::Corten, Engine::Docker, Engine::Podman]
        .into_iter()
        .find(|engine| engine.name() == name)
        .with_context(|| format!("no engine named {name}"))
}

fn main() -> anyhow::Result<()> {
    let plan = Plan::parse(std::env::args())?;
    let results = measure::everything(&plan)?;
    let text = report::markdown(&plan, &results);
    match &plan.out {
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("written: {}", path.display());
        }
        None => println!("{text}"),
    }
    let raw = plan.floor.with_file_name("samples.json");
    std::fs::write(&raw, results.json().to_string())
        .with_context(|| format!("cannot write {}", raw.display()))?;
    Ok(())
}
