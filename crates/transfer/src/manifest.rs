//! Which manifest of an index is meant, and what an image's manifest must be like before anything is fetched.

use images::LAYERS_MAX;
use oci::{Descriptor, Image, Index, Manifest, Platform, media_type};

use crate::Error;

/// The entry of an index for a platform; the closest one that runs there.
pub fn select(bytes: &[u8], wanted: &Platform) -> Result<Descriptor, Error> {
    let index: Index = oci::image::read(bytes)
        .map_err(|source| Error::Document { what: "the manifest list".into(), source })?;
    let entries = index.manifests.into_iter().map(|entry| (entry.platform.clone(), entry));
    wanted.closest(entries).ok_or_else(|| Error::NoPlatform(wanted.to_string()))
}

/// Reads the manifest of an image, and refuses what is none.
pub fn image(bytes: &[u8]) -> Result<Manifest, Error> {
    let manifest: Manifest =
        oci::image::read(bytes).map_err(|source| Error::Document { what: "the manifest".into(), source })?;
    if !media_type::is_config(&manifest.config.media_type) {
        let config = &manifest.config.media_type;
        return Err(Error::NoImage(if config.is_empty() { manifest.artifact_type } else { config.clone() }));
    }
    if manifest.layers.len() > LAYERS_MAX {
        let count = manifest.layers.len();
        return Err(Error::Manifest(format!("it names {count} layers; an image may have {LAYERS_MAX}")));
    }
    Ok(manifest)
}

/// Reads the configuration that belongs to a manifest.
pub fn config(bytes: &[u8], manifest: &Manifest) -> Result<Image, Error> {
    let config: Image = oci::image::read(bytes)
        .map_err(|source| Error::Document { what: "the image configuration".into(), source })?;
    if !config.os.is_empty() && config.os != "linux" {
        return Err(Error::OperatingSystem(config.os));
    }
    let (layers, diffs) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diffs {
        return Err(Error::Manifest(format!("layers length mismatch: expected {diffs}, got {layers}")));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Digest;
    use proptest::prelude::*;

    fn index(platforms: &[Option<&str>]) -> Vec<u8> {
        let manifests = platforms.iter().enumerate().map(|(number, platform)| {
            let digest = Digest::of(number.to_string().as_bytes());
            let mut entry = Descriptor::new(media_type::OCI_MANIFEST, digest, number as u64);
            entry.platform = platform.map(|text| {
                let (os, architecture) = text.split_once('/').unwrap();
                Platform::new(os, architecture, "")
            });
            entry
        });
        serde_json::to_vec(&Index { manifests: manifests.collect(), ..Index::default() }).unwrap()
    }

    #[test]
    fn the_closest_entry() {
        let wanted = Platform::new("linux", "arm64", "");
        let pick = |platforms: &[Option<&str>]| select(&index(platforms), &wanted).map(|entry| entry.size);
        assert_eq!(pick(&[Some("linux/amd64"), Some("linux/arm64"), Some("unknown/unknown")]).unwrap(), 1);
        assert_eq!(pick(&[None, Some("linux/arm64")]).unwrap(), 1);
        assert_eq!(pick(&[None]).unwrap(), 0);
        assert_eq!(
            pick(&[Some("linux/amd64")]).unwrap_err().to_string(),
            "no matching manifest for linux/arm64 in the manifest list entries"
        );
        assert!(pick(&[Some("unknown/unknown")]).is_err());
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let descriptor = |kind: &str| Descriptor::new(kind, Digest::of(b""), 0);
        let chart = Manifest::new(descriptor("application/vnd.cncf.helm.config.v1+json"), Vec::new());
        let error = image(&serde_json::to_vec(&chart).unwrap()).unwrap_err().to_string();
        assert!(error.contains("application/vnd.cncf.helm.config.v1+json"), "{error}");
        let layer = descriptor(media_type::OCI_LAYER);
        let many = Manifest::new(descriptor(media_type::OCI_CONFIG), vec![layer; 501]);
        assert!(image(&serde_json::to_vec(&many).unwrap()).unwrap_err().to_string().contains("501 layers"));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in "\\PC{0,60}") {
            let _ = (select(bytes.as_bytes(), &Platform::host()), image(bytes.as_bytes()));
        }
    }
}
