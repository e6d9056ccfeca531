//! `system check`: whether the image store is whole.

use api_client::Request;
use api_types::system::SystemCheck;

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::out;
use crate::units::human_size;

pub async fn check(app: &App, matches: &Matches) -> Result<(), Fail> {
    let repair = matches.bool("repair");
    let request = match repair {
        true => Request::post("/corten/check"),
        false => Request::get("/corten/check"),
    };
    let found: SystemCheck = app.client().await?.json(request).await?;
    out(&report(&found));
    if found.clean {
        return Ok(());
    }
    let left = found.findings.iter().filter(|one| one.repair.is_empty()).count();
    let hint = (!repair).then(|| format!("let them be repaired: {} system check --repair", app.program));
    Err(Fail { hint, ..Fail::text(counted(left as i64, "problem", "problems")) })
}

fn counted(count: i64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

fn report(found: &SystemCheck) -> String {
    let mut text = String::new();
    for one in &found.findings {
        text += &one.problem;
        if !one.repair.is_empty() {
            text += &format!(": {}", one.repair);
        }
        text.push('\n');
    }
    let size = human_size(found.size as f64, 3);
    text += &format!(
        "Checked {}, {}, {} of {size}, {}, {}",
        counted(found.images, "image", "images"),
        counted(found.indexes, "index", "indexes"),
        counted(found.blobs, "blob", "blobs"),
        counted(found.layers, "layer", "layers"),
        counted(found.containers, "container", "containers"),
    );
    text += match (found.findings.is_empty(), found.clean) {
        (true, _) => ": everything is whole\n",
        (false, true) => ": everything was repaired\n",
        (false, false) => "\n",
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::system::CheckFinding;

    #[test]
    fn what_is_found_is_told_line_by_line() {
        let finding = |repair: &str| CheckFinding {
            kind: "blob".into(),
            problem: "image a:1 (abc): blob sha256:x is missing".into(),
            repair: repair.into(),
        };
        let found = |findings: Vec<CheckFinding>, clean| SystemCheck {
            images: 1,
            blobs: 2,
            size: 1500,
            findings,
            clean,
            ..SystemCheck::default()
        };
        assert_eq!(
            report(&found(Vec::new(), true)),
            "Checked 1 image, 0 indexes, 2 blobs of 1.5kB, 0 layers, 0 containers: everything is whole\n"
        );
        assert!(
            report(&found(vec![finding("")], false))
                .starts_with("image a:1 (abc): blob sha256:x is missing\n")
        );
        let repaired = report(&found(vec![finding("dropped the image")], true));
        assert!(repaired.contains("is missing: dropped the image\n") && repaired.ends_with("was repaired\n"));
    }
}
