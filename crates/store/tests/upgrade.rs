//! Stores that earlier releases wrote open, say what they said, are copied, compacted and go on.

use std::path::{Path, PathBuf};

use isoloss_store::{Record, Store, Target, sample};
use serde_json::Value;

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(!found.is_empty(), "there is no fixture");
    found
}

#[test]
fn the_store_of_every_release_opens_and_says_what_it_said() {
    for fixture in fixtures() {
        let what = fixture.display();
        let expected = std::fs::read_to_string(fixture.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let home = tempfile::tempdir().unwrap();
        let (store_dir, copy) = (home.path().join("store"), home.path().join("copy"));
        std::fs::create_dir(&store_dir).unwrap();
        std::fs::copy(fixture.join("journal"), store_dir.join("journal")).unwrap();

        let mut store = Store::open(&store_dir).unwrap();
        assert_eq!(sample::gist(&store), expected, "{what}");
        assert!(store.verify().unwrap().is_sound(), "{what}");
        assert!(store.opened().torn.is_none(), "{what}");
        drop(store);
        store = Store::open(&store_dir).unwrap();
        assert_eq!(
            (store.opened().replayed, sample::gist(&store)),
            (0, expected.clone()),
            "{what}: from its new index"
        );
        drop(store);

        Store::backup(&store_dir, &copy, &mut |_, _| {}).unwrap();
        let restored = home.path().join("restored");
        Store::restore(&copy, &restored, &mut |_, _| {}).unwrap();
        Store::compact(&restored, false, &mut |_, _| {}).unwrap();
        store = Store::open(&restored).unwrap();
        assert_eq!(sample::gist(&store), expected, "{what}: restored and compacted");
        let sweep = store.ledger().sweeps().next().unwrap().0;
        store.append(&Record::Cancelled { target: Target::Sweep(sweep) }).unwrap();
        store.commit().unwrap();
        assert!(store.verify().unwrap().is_sound(), "{what}");
    }
}

/// The release that is being made has a fixture too.
#[test]
fn this_release_has_a_fixture() {
    assert!(fixtures().iter().any(|path| path.ends_with(env!("CARGO_PKG_VERSION"))));
}
