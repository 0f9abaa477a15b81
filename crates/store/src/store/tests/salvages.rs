//! What is written of a store that no coordinator starts on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::journal::{HEADER, Tip};

struct Broken {
    home: tempfile::TempDir,
    journal: Vec<u8>,
    /// Where each record begins, and what it says.
    records: Vec<(u64, Record)>,
    ledger: Ledger,
}

impl Broken {
    /// Two sweeps of twenty runs; most were lost once, granted again and settled.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::open(&home.path().join("store")).unwrap();
        for (name, first) in [("one", 1), ("two", 21)] {
            let runs: Vec<_> = (first..first + 20).map(sample::planned).collect();
            let ids: Vec<RunId> = runs.iter().map(|run| run.run_id).collect();
            store.append(&Record::Admitted { admission: Arc::new(sample::admission(name, runs)) }).unwrap();
            for (n, id) in ids.into_iter().enumerate() {
                store.append(&granted(id, 1)).unwrap();
                store.append(&lapsed(id, 1)).unwrap();
                store.append(&granted(id, 2)).unwrap();
                store.commit().unwrap();
                if n % 4 != 3 {
                    let outcome = if n % 4 == 2 { sample::diverged() } else { sample::finished(1.0 + n as f64) };
                    store.append(&settled(id, 2, outcome)).unwrap();
                    store.commit().unwrap();
                }
            }
        }
        store.append(&Record::Cancelled { target: Target::Sweep(sweep("two")) }).unwrap();
        store.commit().unwrap();
        let ledger = store.ledger().clone();
        drop(store);
        let folder = home.path().join("store");
        let mut records = Vec::new();
        let each = &mut |entry: crate::journal::Entry<'_>| {
            records.push((entry.place.offset, Record::decode(entry.payload).unwrap()));
        };
        Journal::existing(Box::new(Folder::existing(&folder))).unwrap().scan(each).unwrap();
        Self { journal: std::fs::read(folder.join(FILE)).unwrap(), home, records, ledger }
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("store")
    }

    fn to(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Salvages what is left when `spoil` has been at the journal, and looks that the old store stays as it is and the new
    /// one opens.
    fn salvage(&self, name: &str, spoil: impl FnOnce(&mut Vec<u8>)) -> (crate::Salvaged, Store) {
        let mut bytes = self.journal.clone();
        spoil(&mut bytes);
        std::fs::write(self.folder().join(FILE), &bytes).unwrap();
        let salvaged = Store::salvage(&self.folder(), &self.to(name), &mut |_, _| {}).unwrap();
        assert_eq!(std::fs::read(self.folder().join(FILE)).unwrap(), bytes);
        let store = Store::open(&self.to(name)).unwrap();
        assert!(store.verify().unwrap().is_sound());
        self.is_true(&store, salvaged.raised > 0, name);
        (salvaged, store)
    }

    /// Nothing false is said: every outcome is the one that was accepted, and no attempt number comes twice.
    fn is_true(&self, store: &Store, is_raised: bool, what: &str) {
        let mut newest: BTreeMap<RunId, u64> = BTreeMap::new();
        let mut accepted: BTreeMap<RunId, &Outcome> = BTreeMap::new();
        for (_, record) in &self.records {
            match record {
                Record::Granted { run_id, attempt, .. } => drop(newest.insert(*run_id, *attempt)),
                Record::Settled { run_id, outcome, .. } => drop(accepted.insert(*run_id, outcome)),
                _ => {}
            }
        }
        for (id, row) in store.ledger().runs() {
            if let Some(outcome) = store.outcome(id).unwrap() {
                assert_eq!(&outcome, accepted[&id], "{what}");
            }
            let is_done = matches!(&row.settled, Some(settled) if matches!(settled.end, crate::End::Finished { .. }));
            // Where records are lost, what was leased may have been granted again since.
            assert!(row.attempt >= newest[&id] + u64::from(is_raised && !is_done), "{what}");
            assert!(!is_raised || row.lease.is_none(), "{what}");
        }
    }

    fn settled(&self, sweep_name: &str) -> Vec<(u64, RunId)> {
        let of = self.ledger.sweep(sweep(sweep_name)).unwrap();
        let outcome = |(offset, record): &(u64, Record)| match record {
            Record::Settled { run_id, .. } if of.members.iter().any(|member| member.run_id == *run_id) => {
                Some((*offset, *run_id))
            }
            _ => None,
        };
        self.records.iter().filter_map(outcome).collect()
    }
}

fn sweep(name: &str) -> SweepId {
    sample::admission(name, []).sweep_id
}

fn settled_runs(store: &Store) -> usize {
    store.ledger().runs().filter(|(_, row)| row.settled.is_some()).count()
}

fn flip(at: u64) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| bytes[usize::try_from(at).unwrap()] ^= 4
}

#[test]
fn a_rotten_outcome_alone_is_lost_and_all_else_is_kept() {
    let broken = Broken::new();
    let all = broken.settled("one");
    let (offset, lost) = all[3];
    let (salvaged, mut store) = broken.salvage("new", flip(offset + 100));
    let gaps: Vec<(u64, Option<u64>)> = salvaged.gaps.iter().map(|gap| (gap.offset, gap.records)).collect();
    assert_eq!(gaps, [(offset, Some(1))]);
    assert_eq!(salvaged.outcomes.iter().map(|lost| lost.run_id).collect::<Vec<_>>(), [lost]);
    assert!(salvaged.has_index && salvaged.sweeps.is_empty() && salvaged.unused == 0);
    assert_eq!(settled_runs(&store), 29, "all but one of thirty");
    assert!(store.ledger().sweep(sweep("two")).unwrap().cancelled);

    // The run is open, its old worker is stale and its next attempt is new.
    assert_eq!(salvaged.raised, 1001);
    let stale = store.append(&settled(lost, 2, sample::finished(1.0)));
    assert!(matches!(stale, Err(StoreError::Refused(Refusal::Stale { newest: 1003 }))), "{stale:?}");
    store.append(&granted(lost, 1004)).unwrap();
    store.append(&settled(lost, 1004, sample::finished(1.0))).unwrap();
    store.commit().unwrap();
    let diverged = broken.settled("one")[2].1;
    store.append(&Record::Retried { runs: vec![diverged] }).unwrap();
    store.append(&granted(diverged, 1004)).unwrap();
    store.commit().unwrap();
    let ledger = store.ledger().clone();
    drop(store);
    // What was salvaged is a store like any other.
    Store::compact(&broken.to("new"), false, &mut |_, _| {}).unwrap();
    assert!(Store::open(&broken.to("new")).unwrap().ledger() == &ledger);
    let again = Store::salvage(&broken.folder(), &broken.to("new"), &mut |_, _| {});
    assert!(matches!(again, Err(StoreError::Occupied(_))), "{again:?}");
}

#[test]
fn every_record_lost_once_leaves_a_store_that_says_nothing_false() {
    let broken = Broken::new();
    let mut dice = Dice(5);
    std::fs::rename(broken.folder().join(INDEX), broken.to("index")).unwrap();
    for (n, (offset, record)) in broken.records.iter().enumerate().step_by(3) {
        // Without an index too: then the numbers around a gap say how much is missing.
        let has_index = n % 2 == 0;
        if has_index {
            copy(&broken.to("index"), &broken.folder().join(INDEX));
        }
        let name = format!("new-{n}");
        let (salvaged, store) = broken.salvage(&name, flip(offset + 60 + dice.roll(20)));
        assert_eq!(salvaged.has_index, has_index);
        match record {
            Record::Admitted { .. } => assert!(store.ledger().sweeps().count() == 1, "{name}"),
            Record::Settled { .. } => assert_eq!(settled_runs(&store), 29, "{name}"),
            _ => assert_eq!(settled_runs(&store), 30, "{name}"),
        }
        let rows = if matches!(record, Record::Admitted { .. }) { 20 } else { 40 };
        assert_eq!(store.ledger().len(), rows, "{name}");
        drop(store);
        let _ = std::fs::remove_dir_all(broken.folder().join(INDEX));
    }
}

#[test]
fn a_shortened_journal_gives_its_part_and_the_index_says_what_is_lost() {
    let broken = Broken::new();
    let second = broken.records.iter().skip(1).find(|(_, record)| matches!(record, Record::Admitted { .. })).unwrap().0;
    let third = broken.settled("one")[3].0;
    let (salvaged, store) = broken.salvage("first", |bytes| bytes.truncate(usize::try_from(second).unwrap()));
    assert_eq!(salvaged.sweeps.into_iter().collect::<Vec<_>>(), [(sweep("two"), "two".to_owned())]);
    assert_eq!((salvaged.outcomes.len(), settled_runs(&store)), (15, 15));
    assert!(salvaged.gaps.is_empty() && salvaged.raised > 1000 + 15);
    let (salvaged, store) = broken.salvage("third", |bytes| bytes.truncate(usize::try_from(third + 30).unwrap()));
    assert_eq!((salvaged.outcomes.len(), settled_runs(&store), salvaged.gaps.len()), (27, 3, 1));
    // The index remembers what became of runs of which the journal has only the admission.
    let last = store.ledger().run(broken.settled("one")[14].1).unwrap();
    assert_eq!((last.attempt, last.past.len()), (2 + salvaged.raised, 1));
}

#[test]
fn a_rotten_first_line_costs_nothing_and_a_file_without_a_record_gives_nothing() {
    let broken = Broken::new();
    let (salvaged, store) = broken.salvage("header", flip(3));
    assert!(salvaged.gaps.is_empty() && salvaged.outcomes.is_empty());
    assert_eq!(settled_runs(&store), 30);
    let journal = broken.folder().join(FILE);
    for bytes in [vec![7; 5000], HEADER.to_vec(), Vec::new()] {
        std::fs::write(&journal, bytes).unwrap();
        let none = Store::salvage(&broken.folder(), &broken.to("none"), &mut |_, _| {});
        assert!(matches!(none, Err(StoreError::NothingLeft(_) | StoreError::Lost { .. })), "{none:?}");
        assert!(!broken.to("none").exists());
    }
}

#[test]
fn random_stores_with_random_rot_give_a_store_that_opens() {
    for seed in 0..12 {
        let home = tempfile::tempdir().unwrap();
        let (folder, new) = (home.path().join("store"), home.path().join("new"));
        let mut store = Store::open(&folder).unwrap();
        fill(&mut store, seed, 120);
        let ledger = store.ledger().clone();
        drop(store);
        if seed % 2 == 1 {
            std::fs::remove_dir_all(folder.join(INDEX)).unwrap();
        }
        let mut bytes = std::fs::read(folder.join(FILE)).unwrap();
        let mut dice = Dice(seed);
        for _ in 0..3 {
            let at = Tip::start().end + 4000 + dice.roll(bytes.len() as u64 - 8000);
            bytes[usize::try_from(at).unwrap()] ^= 32;
        }
        std::fs::write(folder.join(FILE), bytes).unwrap();
        let salvaged = Store::salvage(&folder, &new, &mut |_, _| {}).unwrap();
        let store = Store::open(&new).unwrap();
        assert!(store.verify().unwrap().is_sound(), "seed {seed}");
        assert!(salvaged.raised > 1000 && !salvaged.gaps.is_empty());
        for (id, row) in store.ledger().runs() {
            let was = ledger.run(id).unwrap();
            let outcome = |row: &crate::RunRow| Some(row.settled.as_ref()?.digest);
            let is_same = outcome(row).is_some() && outcome(row) == outcome(was);
            assert!(is_same || row.attempt > was.attempt, "seed {seed}: {row:?} was {was:?}");
        }
    }
}
