//! Named places where tests make a step fail, through `CORTEN_FAILPOINTS=start.network=error,…`.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use model::Refusal;

fn armed() -> &'static BTreeSet<String> {
    static ARMED: OnceLock<BTreeSet<String>> = OnceLock::new();
    ARMED.get_or_init(|| {
        let text = std::env::var("CORTEN_FAILPOINTS").unwrap_or_default();
        text.split([',', ';']).filter_map(|one| one.strip_suffix("=error")).map(String::from).collect()
    })
}

/// Fails if the place is armed.
pub fn hit(name: &str) -> Result<(), Refusal> {
    let armed = armed();
    if !armed.is_empty() && armed.contains(name) {
        return Err(Refusal::system(format!("failpoint {name}")));
    }
    Ok(())
}
