use super::*;
use proptest::prelude::*;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("content")).unwrap();
    (directory, store)
}

fn ingest_count(store: &Store) -> usize {
    std::fs::read_dir(store.root().join("ingest")).unwrap().count()
}

#[test]
fn a_blob_comes_and_goes() {
    let (_directory, store) = store();
    let blob = store.put(b"hello").unwrap();
    assert_eq!(blob.digest, Digest::of(b"hello"));
    assert_eq!(store.size(&blob.digest).unwrap(), 5);
    assert_eq!(store.read(&blob.digest, 5).unwrap(), b"hello");
    assert!(matches!(store.read(&blob.digest, 4), Err(Error::TooLarge(_, 4))));
    assert_eq!(store.walk().unwrap(), std::slice::from_ref(&blob));
    assert_eq!(store.put(b"hello").unwrap(), blob);
    assert_eq!(ingest_count(&store), 0);
    store.sync().unwrap();
    store.delete(&blob.digest).unwrap();
    store.delete(&blob.digest).unwrap();
    assert!(!store.contains(&blob.digest));
    assert_eq!(
        store.open_blob(&blob.digest).unwrap_err().to_string(),
        format!("blob {} not found", blob.digest)
    );
}

#[test]
fn what_is_not_finished_leaves_nothing() {
    let (_directory, store) = store();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"half").unwrap();
    drop(writer);
    assert_eq!(ingest_count(&store), 0);
    let mut writer = store.writer_for(Algorithm::Sha512).unwrap();
    writer.write_all(b"whole").unwrap();
    let ingested = writer.finish().unwrap();
    let error = ingested.verify(&Digest::of(b"other"), None).unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
    let digest = ingested.blob().digest.clone();
    assert!(matches!(ingested.verify(&digest, Some(4)), Err(Error::Size { expected: 4, found: 5, .. })));
    drop(ingested);
    assert_eq!(ingest_count(&store), 0);
    assert!(store.walk().unwrap().is_empty());
}

#[test]
fn a_crash_leaves_only_what_open_sweeps() {
    let (directory, store) = store();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"half").unwrap();
    std::mem::forget(writer);
    assert_eq!(ingest_count(&store), 1);
    drop(store);
    let store = Store::open(&directory.path().join("content")).unwrap();
    assert_eq!(ingest_count(&store), 0);
    assert_eq!(store.index().unwrap(), Index::default());
}

#[test]
fn a_changed_blob_is_noticed() {
    let (_directory, store) = store();
    let blob = store.put(b"hello").unwrap();
    std::fs::write(store.path(&blob.digest), b"hullo").unwrap();
    assert!(matches!(store.read(&blob.digest, 100), Err(Error::Digest { .. })));
}

#[test]
fn another_layout_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(matches!(Store::open(directory.path()), Err(Error::Layout { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_content_reads_back(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..900), 0..6)) {
        let (_directory, store) = store();
        let mut writer = store.writer().unwrap();
        for piece in &pieces {
            writer.write_all(piece).unwrap();
        }
        let blob = writer.finish().unwrap().commit().unwrap();
        prop_assert_eq!(store.read(&blob.digest, 1 << 20).unwrap(), pieces.concat());
    }
}

#[test]
fn partial_blobs_outlive_the_process() {
    let (directory, store) = store();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|number| (number / 7) as u8 | 1).collect();
    let digest = Digest::of(&bytes);
    let size = bytes.len() as u64;
    let store = std::sync::Arc::new(store);
    {
        let partial = store.partial(&digest, size).unwrap();
        assert_eq!(partial.present().unwrap(), []);
        partial.write_at(&bytes[..100_000], 0).unwrap();
        partial.write_at(&bytes[600_000..900_000], 600_000).unwrap();
        assert!(partial.write_at(b"xy", size - 1).is_err());
    }
    drop(store);
    let store = std::sync::Arc::new(Store::open(&directory.path().join("content")).unwrap());
    let partial = store.partial(&digest, size).unwrap();
    let present = partial.present().unwrap();
    // What is said to be there, is; a block may be missing before a hole.
    assert!(present.iter().map(|part| part.end - part.start).sum::<u64>() >= 200_000, "{present:?}");
    for part in &present {
        let mut read = vec![0; (part.end - part.start) as usize];
        assert_eq!(partial.read_at(&mut read, part.start).unwrap(), read.len());
        let end = part.end.min(900_000) as usize;
        assert!(read[..end - part.start as usize] == bytes[part.start as usize..end]);
    }
    partial.write_at(&bytes, 0).unwrap();
    assert!(partial.present().unwrap().iter().eq([&(0..size)]));
    partial.commit().unwrap();
    assert_eq!(store.read(&digest, size).unwrap(), bytes);
    // Longer than it should be: begun anew.
    store.partial(&Digest::of(b"x"), 10).unwrap().write_at(b"0123456789", 0).unwrap();
    assert_eq!(store.partial(&Digest::of(b"x"), 5).unwrap().present().unwrap(), []);
    store.partial(&Digest::of(b"x"), 5).unwrap().discard().unwrap();
    assert_eq!(std::fs::read_dir(store.root().join("partial")).unwrap().count(), 0);
}
