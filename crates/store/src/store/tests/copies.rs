//! Backups of a store at work, restored stores, compacted ones.

use super::*;
use crate::journal::HEADER;

fn quiet() -> impl FnMut(u64, u64) {
    |_, _| {}
}

#[test]
fn a_backup_of_a_store_at_work_holds_all_that_was_acknowledged_before_it() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("store");
    let mut store = Store::open(&folder).unwrap();
    fill(&mut store, 3, 20);
    let (done, durable) = (std::sync::atomic::AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    use std::sync::atomic::Ordering::SeqCst;
    let last = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = Dice(5);
            while !done.load(SeqCst) {
                let record = some_record(&mut dice, store.ledger());
                if store.append(&record).is_ok() {
                    store.commit().unwrap();
                    durable.store(store.records(), SeqCst);
                }
            }
        });
        let mut last = 0;
        for n in 0..20 {
            let acknowledged = durable.load(SeqCst);
            let backup = home.path().join(format!("backup-{n}"));
            let made = Store::backup(&folder, &backup, &mut quiet()).unwrap();
            assert!(made.scan.tip.sequence >= acknowledged && made.scan.damage.is_none());
            let seen = Store::inspect_file(&backup, &mut quiet()).unwrap();
            assert_eq!((seen.scan, seen.ledger), (made.scan.clone(), made.ledger));
            assert!(made.scan.tip.sequence >= last);
            last = made.scan.tip.sequence;
        }
        done.store(true, SeqCst);
        last
    });
    assert!(store.records() >= last);

    let backup = home.path().join("backup-19");
    let again = home.path().join("again");
    let restored = Store::restore(&backup, &again, &mut quiet()).unwrap();
    assert_eq!(restored.scan.tip.sequence, last);
    let refused = Store::restore(&backup, &again, &mut quiet());
    assert!(matches!(refused, Err(StoreError::Occupied(path)) if path == again.join(FILE)));
    assert!(matches!(Store::backup(&folder, &backup, &mut quiet()), Err(StoreError::Occupied(_))));
    let mut store = Store::open(&again).unwrap();
    assert!(store.ledger() == &restored.ledger);
    fill(&mut store, 6, 10);
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_damaged_journal_is_not_backed_up_and_a_damaged_backup_is_not_restored() {
    let home = tempfile::tempdir().unwrap();
    let (folder, backup) = (home.path().join("store"), home.path().join("backup"));
    let mut store = Store::open(&folder).unwrap();
    fill(&mut store, 3, 30);
    drop(store);
    Store::backup(&folder, &backup, &mut quiet()).unwrap();
    let whole = std::fs::read(&backup).unwrap();
    assert_eq!(whole, std::fs::read(folder.join(FILE)).unwrap());
    std::fs::write(&backup, &whole[..whole.len() - 1]).unwrap();
    let cut = Store::restore(&backup, &home.path().join("new"), &mut quiet());
    assert!(matches!(cut, Err(StoreError::BadBackup { .. })), "{cut:?}");
    assert!(!home.path().join("new").exists(), "nothing is made for it");
    let mut rotten = whole;
    rotten[HEADER.len() + 100] ^= 1;
    std::fs::write(folder.join(FILE), rotten).unwrap();
    let other = home.path().join("other");
    assert!(matches!(Store::backup(&folder, &other, &mut quiet()), Err(StoreError::Journal(_))));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2, "nothing half made is left");
    assert!(matches!(Store::backup(&other, &backup, &mut quiet()), Err(StoreError::Missing(_))));
}

#[test]
fn a_compacted_store_says_the_same_in_less_and_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let mut smaller = 0;
    for seed in 0..12 {
        let mut store = Store::open(folder).unwrap();
        fill(&mut store, seed, 60);
        let (ledger, outcomes) = (store.ledger().clone(), outcomes(&store));
        assert!(matches!(Store::compact(folder, true, &mut quiet()), Err(StoreError::Locked { .. })));
        drop(store);
        let before = std::fs::read(folder.join(FILE)).unwrap();
        let done = Store::compact(folder, true, &mut quiet()).unwrap();
        assert_eq!(std::fs::read(done.old.unwrap()).unwrap(), before);
        assert_eq!((done.bytes_before, done.now.size_bytes), (before.len() as u64, size(folder)));
        smaller += u64::from(done.now.size_bytes < done.bytes_before);
        let store = Store::open(folder).unwrap();
        assert!(store.ledger() == &ledger, "seed {seed}");
        assert_eq!(self::outcomes(&store), outcomes, "seed {seed}");
        assert!(store.opened().index_rebuilt && store.verify().unwrap().is_sound());
        drop(store);
        let again = Store::compact(folder, false, &mut quiet()).unwrap();
        assert!(again.now.size_bytes == done.now.size_bytes && again.old.is_none(), "seed {seed}");
    }
    assert!(smaller >= 10, "{smaller}");
}

#[test]
fn a_compaction_that_was_cut_short_leaves_a_store_that_opens() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let mut store = Store::open(folder).unwrap();
    fill(&mut store, 3, 80);
    let ledger = store.ledger().clone();
    drop(store);
    let check = |what: &str| assert!(Store::open(folder).unwrap().ledger() == &ledger, "{what}");
    std::fs::write(folder.join("journal.compacted"), b"isoloss jour").unwrap();
    check("while it was written");
    std::fs::hard_link(folder.join(FILE), folder.join("journal.old")).unwrap();
    check("while it was put in place");
    copy(&folder.join("index"), &folder.join("kept"));
    Store::compact(folder, true, &mut quiet()).unwrap();
    copy(&folder.join("kept"), &folder.join("index"));
    check("before the old index was removed");
}

fn size(folder: &Path) -> u64 {
    std::fs::metadata(folder.join(FILE)).unwrap().len()
}

fn outcomes(store: &Store) -> Vec<Option<Outcome>> {
    store.ledger().runs().map(|(id, _)| store.outcome(id).unwrap()).collect()
}
