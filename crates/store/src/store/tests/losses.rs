//! A journal that lacks what its index has seen is refused by whoever would go on without it, and left as it is.

use super::*;
use crate::journal::{HEADER, Tip};

/// A store on disk whose last commits have one to three records.
struct Kept {
    home: tempfile::TempDir,
    journal: Vec<u8>,
    /// Ends of the records.
    ends: Vec<u64>,
    /// Where the last commit begins.
    last_group: u64,
    ledger: Ledger,
}

impl Kept {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("store");
        let mut store = Store::open(&folder).unwrap();
        fill(&mut store, 3, 40);
        let mut last_group = 0;
        for seed in 0..5 {
            last_group = store.size_bytes();
            let mut dice = Dice(seed);
            let goal = store.records() + 3;
            while store.records() < goal {
                let record = some_record(&mut dice, store.ledger());
                let _ = store.append(&record);
            }
            store.commit().unwrap();
        }
        let ledger = store.ledger().clone();
        drop(store);
        let journal = std::fs::read(folder.join(FILE)).unwrap();
        let mut ends = vec![Tip::start().end];
        Journal::existing(Box::new(Folder::existing(&folder)))
            .unwrap()
            .scan(&mut |entry| ends.push(entry.place.offset + entry.frame.len() as u64))
            .unwrap();
        Self { home, journal, ends, last_group, ledger }
    }

    fn folder(&self) -> std::path::PathBuf {
        self.home.path().join("store")
    }

    fn put(&self, bytes: &[u8]) {
        std::fs::write(self.folder().join(FILE), bytes).unwrap();
    }

    /// What each way to the store says of this journal; all must refuse and change nothing.
    fn refusals(&self, bytes: Option<&[u8]>) -> Vec<StoreError> {
        let (folder, copy) = (self.folder(), self.home.path().join("copy"));
        match bytes {
            Some(bytes) => self.put(bytes),
            None => std::fs::remove_file(folder.join(FILE)).unwrap(),
        }
        let refused = vec![
            Store::backup(&folder, &copy, &mut |_, _| {}).expect_err("no backup"),
            Store::compact(&folder, true, &mut |_, _| {}).expect_err("no compaction"),
            Store::open(&folder).err().expect("no store"),
        ];
        assert_eq!(std::fs::read(folder.join(FILE)).ok().as_deref(), bytes);
        assert!(!copy.exists() && std::fs::read_dir(self.home.path()).unwrap().count() == 1);
        let aside = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(!aside.into_iter().any(|name| name.starts_with("journal.")), "nothing is set aside");
        refused
    }

    /// The whole journal back: nothing was spoiled by the refusals, the index is still believed.
    fn is_as_it_was(&self) {
        self.put(&self.journal);
        let store = Store::open(&self.folder()).unwrap();
        assert_eq!((store.opened().replayed, store.opened().index_rebuilt), (0, false));
        assert!(store.ledger() == &self.ledger);
    }
}

#[test]
fn a_journal_that_was_cut_anywhere_is_refused_by_what_its_index_has_seen() {
    let kept = Kept::new();
    let size = kept.journal.len();
    let mut cuts: Vec<usize> = vec![1, 5, HEADER.len(), HEADER.len() + 1, size - 1, size - 70];
    cuts.extend(kept.ends.iter().rev().skip(1).step_by(6).flat_map(|end| [*end as usize, *end as usize + 61]));
    cuts.push(kept.ends[kept.ends.len() - 2] as usize);
    for cut in cuts {
        let whole = kept.ends[1..].iter().filter(|end| **end <= cut as u64).count() as u64;
        for refused in kept.refusals(Some(&kept.journal[..cut])) {
            let StoreError::Lost { loss, .. } = &refused else { panic!("cut at {cut}: {refused}") };
            assert_eq!((loss.records, loss.size_bytes, loss.end_seen), (whole, cut as u64, size as u64), "{refused}");
            assert_eq!(loss.records_seen, kept.ends.len() as u64 - 1);
        }
        match Store::inspect(&kept.folder(), &mut |_, _| {}) {
            Ok(seen) => assert!(!seen.is_sound() && seen.loss.unwrap().records == whole, "cut at {cut}"),
            Err(error) => assert!(matches!(error, StoreError::Lost { .. }) && whole == 0, "cut at {cut}: {error}"),
        }
    }
    for bytes in [None, Some(&[][..])] {
        for refused in kept.refusals(bytes) {
            assert!(matches!(&refused, StoreError::Lost { loss, .. } if loss.outcomes > 0), "{refused}");
            assert!(refused.to_string().contains("missing or empty") && refused.advice().contains("backup"));
        }
        assert!(matches!(Store::inspect(&kept.folder(), &mut |_, _| {}), Err(StoreError::Lost { .. })));
        kept.put(&[]);
    }
    kept.is_as_it_was();
}

/// Every byte of the last group, which the journal alone cannot tell from a torn tail, and some of each record before it.
#[test]
fn a_flipped_byte_of_any_acknowledged_record_is_refused_and_never_set_aside() {
    let kept = Kept::new();
    let (mut dice, mut last) = (Dice(11), 0);
    for (before, pair) in kept.ends.windows(2).enumerate() {
        let [start, end] = pair else { unreachable!("windows of two") };
        // The header of a frame is 60 bytes; what stands in it decides whether the index finds its last record.
        let places: Vec<u64> = match *start >= kept.last_group {
            true => (*start..*start + 60).step_by(4).chain((*start + 60..*end).step_by(40)).collect(),
            false => vec![*start + dice.roll(*end - *start)],
        };
        last += usize::from(*start >= kept.last_group) * places.len();
        for at in places {
            let mut rotten = kept.journal.clone();
            rotten[usize::try_from(at).unwrap()] ^= 1 << dice.roll(8);
            for refused in kept.refusals(Some(&rotten)) {
                let offset = match refused {
                    StoreError::Journal(JournalError::Damaged { offset, kind: DamageKind::Rot }) => offset,
                    other => panic!("byte {at}: {other}"),
                };
                assert_eq!(offset, *start, "byte {at}");
            }
            let seen = Store::inspect(&kept.folder(), &mut |_, _| {}).unwrap();
            let damage = seen.scan.damage.unwrap();
            assert_eq!((damage.offset, damage.kind), (*start, DamageKind::Rot), "byte {at}");
            assert_eq!(seen.scan.tip.sequence, before as u64, "all records before it, and no more");
        }
    }
    assert!(last > 30, "{last} in the last group");
    kept.is_as_it_was();
}

/// What stands behind the last record that the index has seen was never acknowledged.
#[test]
fn a_torn_tail_behind_what_the_index_has_seen_is_still_set_aside() {
    let kept = Kept::new();
    for tail in [&b"\xa5ISO"[..], &[0; 200], &kept.journal[HEADER.len()..HEADER.len() + 50]] {
        let torn = [&kept.journal, tail].concat();
        kept.put(&torn);
        let seen = Store::inspect(&kept.folder(), &mut |_, _| {}).unwrap();
        assert_eq!(seen.scan.damage.unwrap().kind, DamageKind::TornTail);
        let copy = kept.home.path().join("copy");
        assert!(Store::backup(&kept.folder(), &copy, &mut |_, _| {}).unwrap().is_sound());
        assert_eq!(std::fs::read(&copy).unwrap(), kept.journal);
        std::fs::remove_file(&copy).unwrap();
        let store = Store::open(&kept.folder()).unwrap();
        assert!(store.ledger() == &kept.ledger && store.opened().torn.is_some());
    }
    kept.is_as_it_was();
}

#[test]
fn an_older_copy_of_the_journal_in_its_place_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (folder, copy) = (home.path().join("store"), home.path().join("copy"));
    let mut store = Store::open(&folder).unwrap();
    fill(&mut store, 3, 40);
    Store::backup(&folder, &copy, &mut |_, _| {}).unwrap();
    fill(&mut store, 4, 20);
    drop(store);
    // Went on elsewhere, further than here: no shorter than what the index has seen.
    let elsewhere = home.path().join("elsewhere");
    Store::restore(&copy, &elsewhere, &mut |_, _| {}).unwrap();
    let mut other = Store::open(&elsewhere).unwrap();
    fill(&mut other, 5, 60);
    drop(other);
    for journal in [copy, elsewhere.join(FILE)] {
        std::fs::copy(journal, folder.join(FILE)).unwrap();
        let refused = Store::open(&folder).err().unwrap();
        assert!(matches!(refused, StoreError::Lost { .. }), "{refused}");
    }
}

/// The claim that all of this rests on: an index never shows what the journal's fsync did not make durable.
#[test]
fn an_index_is_never_ahead_of_the_synced_journal() {
    use crate::disk::sim::Tear;
    let home = tempfile::tempdir().unwrap();
    for at in 3..16 {
        let (disk, folder) = (SimDisk::default(), home.path().join(at.to_string()));
        disk.fail_sync_at(at);
        let through = disk.clone();
        let mut store = Store::open_through(&folder, |_| Box::new(through)).unwrap();
        let mut dice = Dice(at);
        while store.commit().is_ok() {
            for _ in 0..3 {
                let record = some_record(&mut dice, store.ledger());
                let _ = store.append(&record);
            }
        }
        drop(store);
        let after = disk.crash(Tear::Lost);
        let synced = after.bytes(FILE).len() as u64;
        let seen = Index::open(&folder.join(INDEX)).unwrap().tip().unwrap();
        assert!(seen.is_none_or(|tip| tip.end <= synced), "{seen:?} of {synced} synced bytes");
        let store = Store::open_through(&folder, |_| Box::new(after)).unwrap();
        assert_eq!(store.size_bytes(), synced);
    }
}
