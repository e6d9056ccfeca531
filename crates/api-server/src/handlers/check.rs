//! `/corten/check`: whether the image store is whole, and its repair. No part of Docker's API.

use api_types::system::{CheckFinding, SystemCheck};

use super::images::blocking;
use crate::App;
use crate::respond::{Outcome, json};

pub async fn check(app: &App, repair: bool) -> Outcome {
    let report = blocking(app, move |engine| engine.system().check_images(repair)).await?;
    let clean = report.is_clean();
    let findings = report.findings.into_iter().map(|finding| CheckFinding {
        kind: finding.problem.kind().into(),
        problem: finding.problem.to_string(),
        repair: finding.repair.unwrap_or_default(),
    });
    json(&SystemCheck {
        images: report.images as i64,
        indexes: report.indexes as i64,
        blobs: report.blobs as i64,
        size: report.bytes as i64,
        layers: report.layers as i64,
        containers: report.containers as i64,
        findings: findings.collect(),
        clean,
    })
}
