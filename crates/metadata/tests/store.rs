//! What the store promises: acknowledged is durable, torn is dropped, batches are whole.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use metadata::{Batch, Error, Store};
use proptest::prelude::*;

fn contents(store: &Store) -> BTreeMap<String, Vec<u8>> {
    store.scan("t").into_iter().map(|(key, value)| (key, value.to_vec())).collect()
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.commit(Batch::default().put("t", "a", b"1".to_vec()).put("u", "a", b"2".to_vec())).unwrap();
    store.commit(Batch::default().delete("t", "a").put("t", "b", b"3".to_vec())).unwrap();
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.get("t", "a"), None);
    assert_eq!(store.get("u", "a").as_deref(), Some(b"2".as_slice()));
    assert_eq!(contents(&store), BTreeMap::from([("b".into(), b"3".to_vec())]));
}

#[test]
fn one_daemon_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let _store = Store::open(directory.path()).unwrap();
    assert!(matches!(Store::open(directory.path()), Err(Error::Locked { .. })));
}

#[test]
fn a_foreign_file_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.log");
    std::fs::write(&path, "something else entirely").unwrap();
    assert!(matches!(Store::open(directory.path()), Err(Error::Foreign { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"something else entirely");
}

#[test]
fn threads_share_syncs_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                for number in 0..50 {
                    let key = format!("{thread}-{number}");
                    store.commit(Batch::default().put("t", &key, key.clone().into_bytes())).unwrap();
                    assert!(store.get("t", &key).is_some());
                }
            });
        }
    });
    drop(store);
    assert_eq!(Store::open(directory.path()).unwrap().scan("t").len(), 400);
}

#[test]
fn compaction_keeps_the_live_records() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let big = vec![7; 64 << 10];
    for round in 0..200_u32 {
        store.commit(Batch::default().put("t", &(round % 5).to_string(), big.clone())).unwrap();
    }
    let size = std::fs::metadata(directory.path().join("records.log")).unwrap().len();
    assert!(size < 8 << 20, "{size}");
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.scan("t").len(), 5);
    store.commit(Batch::default().put("t", "after", b"x".to_vec())).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Cutting or damaging the file anywhere leaves a prefix of the commits, never a part of one.
    #[test]
    fn a_damaged_log_holds_a_prefix(sizes in prop::collection::vec(0_usize..300, 1..20), cut in any::<prop::sample::Index>(), flip in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.log");
        let mut states = vec![BTreeMap::new()];
        {
            let store = Store::open(directory.path()).unwrap();
            for (number, size) in sizes.iter().enumerate() {
                let batch = Batch::default()
                    .put("t", &format!("k{}", number % 4), vec![number as u8; *size])
                    .put("t", "last", vec![number as u8]);
                store.commit(batch).unwrap();
                states.push(contents(&store));
            }
        }
        let length = std::fs::read(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        let at = 16 + cut.index((length - 16) as usize) as u64;
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        if flip {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x41], at).unwrap();
        } else {
            file.set_len(at).unwrap();
        }
        let found = {
            let store = Store::open(directory.path()).unwrap();
            let found = contents(&store);
            store.commit(Batch::default().put("u", "still", b"works".to_vec())).unwrap();
            found
        };
        prop_assert!(states.contains(&found));
        let store = Store::open(directory.path()).unwrap();
        prop_assert_eq!(contents(&store), found);
        prop_assert!(store.get("u", "still").is_some());
    }
}
