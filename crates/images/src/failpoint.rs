//! Named places where tests make a step fail, through `CORTEN_FAILPOINTS=images.record=error,…`.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::Error;

/// Fails if the place is armed, as a full disk would make it.
pub fn hit(name: &'static str) -> Result<(), Error> {
    static ARMED: OnceLock<BTreeSet<String>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("CORTEN_FAILPOINTS").unwrap_or_default();
        text.split([',', ';']).filter_map(|one| one.strip_suffix("=error")).map(String::from).collect()
    });
    if !armed.is_empty() && armed.contains(name) {
        let source = std::io::ErrorKind::StorageFull.into();
        return Err(Error::Io { operation: name, source });
    }
    Ok(())
}
