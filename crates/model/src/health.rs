//! Health checks: what a container's configuration asks for, and what becomes of its health by each result.

use std::collections::VecDeque;

use api_types::container::{self as api, ContainerConfig, HealthConfig};
use serde::{Deserialize, Serialize};

use crate::Refusal;
use crate::time::{NANOS, UnixNanos, go_duration, rfc3339_nano};

/// Results that are remembered.
const RESULTS_MAX: usize = 5;
/// Bytes of a probe's output that are kept.
pub const OUTPUT_MAX: usize = 4096;
/// The exit code of a probe that gave none.
const NO_CODE: i64 = -1;

/// A check that is to be made, its defaults filled in. Times in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Program and arguments.
    pub command: Vec<String>,
    pub interval: i64,
    pub timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

impl Check {
    /// What a container's configuration asks for; none if nothing is checked.
    pub fn of(config: &ContainerConfig) -> Option<Check> {
        let health = config.healthcheck.as_ref()?;
        let (kind, rest) = health.test.as_ref()?.split_first()?;
        let command = match kind.as_str() {
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => {
                let shell = config.shell.clone().filter(|shell| !shell.is_empty());
                let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                command.extend_from_slice(rest);
                command
            }
            _ => return None,
        };
        let or = |value: i64, default: i64| if value == 0 { default } else { value };
        Some(Check {
            command,
            interval: or(health.interval, 30 * NANOS),
            timeout: or(health.timeout, 30 * NANOS),
            start_period: health.start_period,
            start_interval: or(health.start_interval, 5 * NANOS),
            retries: if health.retries > 0 { health.retries } else { 3 },
        })
    }
}

/// Completes a request's check by its image's: each field that is not given is inherited.
pub fn inherit(own: &mut Option<HealthConfig>, image: Option<&HealthConfig>) {
    let Some(image) = image else { return };
    let Some(own) = own else {
        *own = Some(image.clone());
        return;
    };
    if own.test.as_ref().is_none_or(Vec::is_empty) {
        own.test = image.test.clone();
    }
    for (own, image) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *own == 0 {
            *own = image;
        }
    }
}

/// Refuses times that are too short and counts that are no counts.
pub fn check(health: &HealthConfig) -> Result<(), Refusal> {
    const MILLISECOND: i64 = 1_000_000;
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value != 0 && value < MILLISECOND {
            return Err(Refusal::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if health.retries < 0 {
        return Err(Refusal::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Starting,
    Healthy,
    Unhealthy,
}

impl Status {
    /// As filters, events and inspect have it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Starting => "starting",
            Status::Healthy => "healthy",
            Status::Unhealthy => "unhealthy",
        }
    }
}

/// How one probe ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub began: UnixNanos,
    pub ended: UnixNanos,
    pub code: i64,
    pub output: String,
}

impl Outcome {
    /// A probe that ran to its end. `truncated`: it said more than is kept.
    pub fn exited(began: UnixNanos, ended: UnixNanos, code: i32, output: &str, truncated: bool) -> Outcome {
        Outcome { began, ended, code: code.into(), output: text(output, truncated) }
    }

    /// A probe that was killed because it took longer than `timeout`.
    pub fn timed_out(
        began: UnixNanos,
        ended: UnixNanos,
        timeout: i64,
        output: &str,
        truncated: bool,
    ) -> Outcome {
        let mut said = format!("Health check exceeded timeout ({})", go_duration(timeout));
        if !output.is_empty() {
            said = format!("{said}: {}", text(output, truncated));
        }
        Outcome { began, ended, code: NO_CODE, output: said }
    }

    /// A probe that could not be started.
    pub fn failed(began: UnixNanos, ended: UnixNanos, why: &str) -> Outcome {
        Outcome { began, ended, code: NO_CODE, output: why.into() }
    }
}

fn text(output: &str, truncated: bool) -> String {
    let rest = if truncated { "..." } else { "" };
    format!("{output}{rest}")
}

// Starting -- success --> Healthy -- `retries` failures in a row --> Unhealthy -- success --> Healthy
// Starting -- `retries` failures in a row after the start period --> Unhealthy
/// A container's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: Status,
    /// Failures in a row.
    pub streak: i64,
    /// The oldest first.
    results: VecDeque<Outcome>,
}

impl Health {
    /// When its container starts. Results of an earlier run are kept, as Docker does.
    pub fn begin(earlier: Option<&Health>) -> Health {
        let results = earlier.map(|health| health.results.clone()).unwrap_or_default();
        Health { status: Status::Starting, streak: 0, results }
    }

    /// Takes a result in. Tells the new status if it changed by it.
    pub fn take(&mut self, check: &Check, started_at: UnixNanos, outcome: Outcome) -> Option<Status> {
        let before = self.status;
        if outcome.code == 0 {
            (self.status, self.streak) = (Status::Healthy, 0);
        } else if !(self.status == Status::Starting && outcome.began - started_at < check.start_period) {
            self.streak += 1;
            if self.streak >= check.retries {
                self.status = Status::Unhealthy;
            }
        }
        if self.results.len() >= RESULTS_MAX {
            self.results.pop_front();
        }
        self.results.push_back(outcome);
        (self.status != before).then_some(self.status)
    }

    /// Nobody looks any more: the container ended or is paused. Docker calls that unhealthy.
    pub fn stop(&mut self) {
        self.status = Status::Unhealthy;
    }

    /// How long after `now` the next probe is due, in nanoseconds.
    pub fn pause(&self, check: &Check, started_at: UnixNanos, now: UnixNanos) -> i64 {
        let starting = self.status == Status::Starting && now - started_at < check.start_period;
        if starting { check.start_interval } else { check.interval }
    }

    /// The end of the last probe.
    pub fn last_looked(&self) -> Option<UnixNanos> {
        self.results.back().map(|result| result.ended)
    }

    /// `healthy`, `health: starting`: what stands in brackets in lists.
    pub fn words(&self) -> &'static str {
        match self.status {
            Status::Starting => "health: starting",
            other => other.word(),
        }
    }

    /// The member of inspect.
    pub fn api(&self) -> api::Health {
        let results = self.results.iter().map(|result| api::HealthcheckResult {
            start: rfc3339_nano(result.began),
            end: rfc3339_nano(result.ended),
            exit_code: result.code,
            output: result.output.clone(),
        });
        api::Health { status: self.status.word().into(), failing_streak: self.streak, log: results.collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(test: &[&str], times: [i64; 4], retries: i64) -> ContainerConfig {
        let [interval, timeout, start_period, start_interval] = times;
        let test = Some(test.iter().map(|word| word.to_string()).collect());
        let health = HealthConfig { test, interval, timeout, start_period, start_interval, retries };
        ContainerConfig { healthcheck: Some(health), ..ContainerConfig::default() }
    }

    fn probe(code: i32, began: i64) -> Outcome {
        Outcome::exited(began, began + 1, code, "", false)
    }

    #[test]
    fn what_is_checked() {
        let check = Check::of(&config(&["CMD-SHELL", "true"], [0; 4], 0)).unwrap();
        assert_eq!(check.command, ["/bin/sh", "-c", "true"]);
        assert_eq!((check.interval, check.timeout, check.retries), (30 * NANOS, 30 * NANOS, 3));
        let mut shelled = config(&["CMD-SHELL", "true"], [0; 4], 0);
        shelled.shell = Some(vec!["ash".into(), "-ec".into()]);
        assert_eq!(Check::of(&shelled).unwrap().command, ["ash", "-ec", "true"]);
        assert_eq!(Check::of(&config(&["CMD", "a", "b"], [0; 4], 0)).unwrap().command, ["a", "b"]);
        for none in [&["NONE"][..], &[], &["ODD", "x"]] {
            assert_eq!(Check::of(&config(none, [0; 4], 0)), None, "{none:?}");
        }
        assert_eq!(Check::of(&ContainerConfig::default()), None);
    }

    #[test]
    fn a_part_is_inherited() {
        let image = config(&["CMD", "probe"], [5, 6, 7, 8], 9).healthcheck;
        let mut own = config(&[], [1, 0, 0, 0], 2).healthcheck;
        inherit(&mut own, image.as_ref());
        assert_eq!(own, config(&["CMD", "probe"], [1, 6, 7, 8], 2).healthcheck);
        let mut none = None;
        inherit(&mut none, image.as_ref());
        assert_eq!(none, image);
        let mut off = config(&["NONE"], [0; 4], 0).healthcheck;
        inherit(&mut off, image.as_ref());
        assert_eq!(off.unwrap().test.unwrap(), ["NONE"]);
    }

    #[test]
    fn three_failures_in_a_row_are_unhealthy_and_one_success_is_not() {
        let check = Check::of(&config(&["CMD", "x"], [0; 4], 0)).unwrap();
        let mut health = Health::begin(None);
        let codes = [0, 1, 1, 0, 1, 1, 1, 1, 0];
        let changes: Vec<_> =
            codes.iter().map(|code| health.take(&check, 0, probe(*code, 0)).map(Status::word)).collect();
        let none = None;
        let said = [Some("healthy"), none, none, none, none, none, Some("unhealthy"), none, Some("healthy")];
        assert_eq!(changes, said);
        assert_eq!(health.streak, 0);
        assert_eq!(health.api().log.len(), 5);
        assert_eq!(health.api().log.last().unwrap().exit_code, 0);
    }

    #[test]
    fn failures_within_the_start_period_do_not_count() {
        let check = Check::of(&config(&["CMD", "x"], [50 * NANOS, 0, 10 * NANOS, NANOS], 1)).unwrap();
        let mut health = Health::begin(None);
        assert_eq!(health.pause(&check, 0, 0), NANOS);
        assert_eq!(health.take(&check, 0, probe(1, 9 * NANOS)), None);
        assert_eq!((health.status, health.streak), (Status::Starting, 0));
        // A success ends it for good.
        assert_eq!(health.take(&check, 0, probe(0, 9 * NANOS)), Some(Status::Healthy));
        assert_eq!(health.pause(&check, 0, 9 * NANOS), 50 * NANOS);
        assert_eq!(health.take(&check, 0, probe(1, 9 * NANOS)), Some(Status::Unhealthy));
        let mut late = Health::begin(Some(&health));
        assert_eq!((late.status, late.api().log.len()), (Status::Starting, 3));
        assert_eq!(late.pause(&check, 0, 10 * NANOS), 50 * NANOS);
        assert_eq!(late.take(&check, 0, probe(1, 10 * NANOS)), Some(Status::Unhealthy));
    }

    #[test]
    fn what_a_probe_said() {
        assert_eq!(
            Outcome::timed_out(0, 1, 1_500_000_000, "", false).output,
            "Health check exceeded timeout (1.5s)"
        );
        let long = Outcome::timed_out(0, 1, 30 * NANOS, "so far", true);
        assert_eq!(long.output, "Health check exceeded timeout (30s): so far...");
        assert_eq!(long.code, -1);
    }

    #[test]
    fn texts_that_clients_match() {
        let said = |times, retries| check(&config(&["CMD", "x"], times, retries).healthcheck.unwrap());
        assert!(said([1_000_000; 4], 1).is_ok() && said([0; 4], 0).is_ok());
        for (place, name) in ["Interval", "Timeout", "StartPeriod", "StartInterval"].iter().enumerate() {
            let mut times = [0; 4];
            times[place] = 999_999;
            let text = format!("{name} in Healthcheck cannot be less than 1ms");
            assert_eq!(said(times, 0).unwrap_err().message, text);
        }
        assert_eq!(said([0; 4], -1).unwrap_err().message, "Retries in Healthcheck cannot be negative");
    }

    proptest! {
        /// Whatever comes in whatever order, the state is one that follows from the last results.
        #[test]
        fn the_status_follows_from_the_results(codes in prop::collection::vec(0..3_i32, 0..40), retries in 1..5_i64) {
            let check = Check::of(&config(&["CMD", "x"], [0; 4], retries)).unwrap();
            let mut health = Health::begin(None);
            for code in &codes {
                let before = health.status;
                let change = health.take(&check, 0, probe(*code, 0));
                prop_assert_eq!(change, (health.status != before).then_some(health.status));
            }
            let failures = codes.iter().rev().take_while(|code| **code != 0).count() as i64;
            prop_assert_eq!(health.streak, failures);
            let expected = match codes.last() {
                None => Status::Starting,
                Some(_) if failures >= retries => Status::Unhealthy,
                Some(_) if codes.contains(&0) => Status::Healthy,
                Some(_) => Status::Starting,
            };
            prop_assert_eq!(health.status, expected);
            prop_assert!(health.api().log.len() <= 5);
        }
    }
}
