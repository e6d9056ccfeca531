//! What a registry sends before any layer: an index, a manifest, a configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{Image, Index, Manifest, Platform};
use serde::Serialize;
use serde::de::DeserializeOwned;
use transfer::manifest;

/// What was read can be written, and read again.
fn reads_back<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(document) = serde_json::from_slice::<T>(bytes) {
        let again = serde_json::to_vec(&document).expect("it can be written");
        assert_eq!(serde_json::from_slice::<T>(&again).expect("it can be read"), document);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let host = Platform::host();
    if let Ok(chosen) = manifest::select(bytes, &host) {
        let platform = chosen.platform.clone();
        assert!(platform.is_none_or(|platform| platform.distance(&host).is_some()));
    }
    // The bytes are both: the configuration that belongs to the manifest is looked for in the same document.
    if let Ok(read) = manifest::image(bytes) {
        if let Ok(config) = manifest::config(bytes, &read) {
            assert_eq!(oci::chain_ids(&config.rootfs.diff_ids).len(), read.layers.len());
        }
    }
    reads_back::<Index>(bytes);
    reads_back::<Manifest>(bytes);
    reads_back::<Image>(bytes);
});
