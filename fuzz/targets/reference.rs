//! Names of images, digests and platforms: what is read is written the same way, and reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{Digest, Platform, Reference};

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        let whole = reference.to_string();
        assert_eq!(Reference::parse(&whole).as_ref(), Ok(&reference), "{text:?} became {whole:?}");
        let familiar = reference.familiar();
        assert_eq!(Reference::parse(&familiar).as_ref(), Ok(&reference), "{text:?} became {familiar:?}");
        assert!(!reference.domain().is_empty() && !reference.path().is_empty());
        assert!(!reference.path().split('/').any(|part| matches!(part, "" | "." | "..")), "{text:?}");
        let tagged = reference.clone().or_latest();
        assert!(tagged.tag().is_some() || tagged.digest().is_some());
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    if let Ok(platform) = Platform::parse(text) {
        assert_eq!(platform.distance(&platform), Some(0), "{text:?}");
        assert_eq!(Platform::parse(&platform.to_string()), Ok(platform));
    }
});
