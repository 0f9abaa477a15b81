use std::sync::Arc;

use isoloss_sweep::{Outcome, RunId, SweepId};

use super::*;
use crate::disk::sim::SimDisk;
use crate::journal::FILE;
use crate::ledger::{Refusal, Status};
use crate::record::{Admission, Lapse, Needs, Target};
use crate::sample::{self, Dice};

mod copies;
mod crashes;
mod losses;
mod salvages;

fn open(disk: &SimDisk) -> Store {
    Store::open_on(Box::new(disk.clone())).unwrap()
}

fn settled(run_id: RunId, attempt: u64, outcome: Outcome) -> Record {
    Record::Settled { run_id, attempt, worker: format!("worker-{attempt}"), outcome: Box::new(outcome) }
}

fn granted(run_id: RunId, attempt: u64) -> Record {
    Record::Granted { run_id, attempt, worker: format!("worker-{attempt}"), slot: "cpu:0".to_owned() }
}

fn lapsed(run_id: RunId, attempt: u64) -> Record {
    Record::Lapsed { run_id, attempt, lapse: Lapse::Expired { worker_lost: true } }
}

/// Some record, most likely one that is accepted.
fn some_record(dice: &mut Dice, ledger: &Ledger) -> Record {
    let runs: Vec<RunId> = ledger.runs().map(|(id, _)| id).collect();
    if runs.is_empty() || dice.chance(3) {
        let name = format!("sweep {}", dice.roll(6));
        let first = dice.roll(5) * 3 + 1;
        let runs = (first..first + 6).map(sample::planned).chain(sample::trunk(first, &[20, 40 + first]));
        let admission = sample::admission(&name, runs);
        return Record::Admitted { admission: Arc::new(Admission { held: dice.chance(20), ..admission }) };
    }
    let run_id = *dice.pick(&runs);
    let attempt = ledger.run(run_id).unwrap().attempt;
    let sweeps: Vec<SweepId> = ledger.sweeps().map(|(id, _)| id).collect();
    let sweep_id = *dice.pick(&sweeps);
    let target = if dice.chance(50) { Target::Run(run_id) } else { Target::Sweep(sweep_id) };
    let row = ledger.run(run_id).unwrap();
    match dice.roll(18) {
        10 => Record::Quarantined { run_id, reason: "it takes workers down".to_owned() },
        11 => Record::Chosen { sweep_id, runs: dice.chance(70).then(|| vec![run_id]) },
        12 => Record::Paused { target },
        13 => Record::Resumed { target },
        15 => Record::Ranked { sweep_id, priority: 40 + u32::try_from(dice.roll(20)).unwrap() },
        14 if row.lease.is_none() => {
            Record::Adopted { run_id, attempt, worker: format!("worker-{attempt}"), slot: "cpu:0".to_owned() }
        }
        14 => Record::Lapsed { run_id, attempt, lapse: Lapse::Failed { reason: "it broke".to_owned() } },
        17 => Record::Amended { needs: vec![Needs { run_id, memory_bytes: 1 << dice.roll(30), threads: 2 }] },
        16 => Record::Drained { worker: format!("worker-{}", dice.roll(3)), on: dice.chance(60) },
        0 => Record::Cancelled { target },
        1 => Record::Revived { sweep_id },
        2 => Record::Retried { runs: vec![run_id] },
        3..=6 if row.lease.is_none() => granted(run_id, attempt + 1),
        3 => lapsed(run_id, attempt),
        4 => Record::Published { run_id, attempt, checkpoint: sample::checkpoint(20, "here") },
        5..=8 => settled(run_id, attempt, sample::finished(dice.roll(1000) as f64 / 997.0)),
        _ => settled(run_id, attempt, sample::diverged()),
    }
}

#[test]
fn an_outcome_is_taken_once_and_only_from_the_newest_attempt() {
    let disk = SimDisk::default();
    let mut store = open(&disk);
    let planned = sample::planned(1);
    let id = planned.run_id;
    let admission = Arc::new(sample::admission("one", [planned]));
    store.append(&Record::Admitted { admission }).unwrap();
    let refusal = |store: &mut Store, record: &Record| match store.append(record) {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let never = refusal(&mut store, &settled(id, 1, sample::finished(1.0)));
    assert_eq!(never, Refusal::NeverGranted { attempt: 1, newest: 0 });
    store.append(&granted(id, 1)).unwrap();
    assert_eq!(refusal(&mut store, &granted(id, 2)), Refusal::Stale { newest: 1 }, "while it is leased");
    store.append(&lapsed(id, 1)).unwrap();
    store.append(&granted(id, 2)).unwrap();
    assert_eq!(refusal(&mut store, &settled(id, 1, sample::finished(1.0))), Refusal::Stale { newest: 2 });
    store.append(&settled(id, 2, sample::finished(2.0))).unwrap();
    store.commit().unwrap();
    for mut store in [store, open(&disk)] {
        assert_eq!(refusal(&mut store, &settled(id, 2, sample::finished(2.0))), Refusal::AlreadyRecorded);
        let conflict = refusal(&mut store, &settled(id, 2, sample::finished(2.5)));
        assert!(matches!(conflict, Refusal::Conflict { attempt: 2, .. }));
        assert_eq!(refusal(&mut store, &settled(id, 1, sample::finished(1.0))), Refusal::Stale { newest: 2 });
        assert_eq!(refusal(&mut store, &granted(id, 3)), Refusal::Ended);
        assert_eq!(store.outcome(id).unwrap(), Some(sample::finished(2.0)));
    }
}

#[test]
fn what_cannot_be_read_back_is_never_written() {
    let mut store = open(&SimDisk::default());
    let record = settled(sample::run(1).id(), 1, sample::finished(f64::NAN));
    assert!(matches!(store.append(&record), Err(StoreError::Unwritable(_))));
    assert_eq!(store.records(), 0);
}

#[test]
fn a_rotten_outcome_is_refused() {
    let disk = SimDisk::default();
    let mut store = open(&disk);
    let runs = [sample::planned(1), sample::planned(2)];
    let ids = [runs[0].run_id, runs[1].run_id];
    store.append(&Record::Admitted { admission: Arc::new(sample::admission("two", runs)) }).unwrap();
    store.commit().unwrap();
    for id in ids {
        store.append(&granted(id, 1)).unwrap();
        store.append(&settled(id, 1, sample::finished(0.1 + 0.2))).unwrap();
        store.commit().unwrap();
    }
    let place = store.places.outcomes[&ids[0]];
    let mut bytes = disk.bytes(FILE);
    bytes[usize::try_from(place.offset).unwrap() + 100] ^= 4;
    disk.overwrite(FILE, bytes);
    let error = store.outcome(ids[0]).unwrap_err();
    assert!(matches!(error, StoreError::Journal(JournalError::Damaged { offset, .. }) if offset == place.offset));
    assert_eq!(store.outcome(ids[1]).unwrap(), Some(sample::finished(0.1 + 0.2)));
    assert!(store.verify().unwrap().has_rot());
    let again = Store::open_on(Box::new(disk)).err().unwrap();
    assert!(again.to_string().contains(&place.offset.to_string()), "{again}");
}

#[test]
fn an_index_does_not_hide_rot_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let run = sample::planned(1);
    let id = run.run_id;
    store.append(&Record::Admitted { admission: Arc::new(sample::admission("one", [run])) }).unwrap();
    store.append(&granted(id, 1)).unwrap();
    store.append(&settled(id, 1, sample::finished(0.5))).unwrap();
    store.commit().unwrap();
    let place = store.places.outcomes[&id];
    drop(store);
    let path = dir.path().join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[usize::try_from(place.offset).unwrap() + 100] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::Journal(JournalError::Damaged { offset, .. }) if offset == place.offset));
}

fn fill(store: &mut Store, seed: u64, records: u64) {
    fill_at(store, seed, records, 0);
}

/// The same with sweeps that were handed in at another time.
fn fill_at(store: &mut Store, seed: u64, records: u64, submitted_at_ms: i64) {
    let mut dice = Dice(seed);
    let goal = store.records() + records;
    while store.records() < goal {
        let mut record = some_record(&mut dice, store.ledger());
        if let Record::Admitted { admission } = &mut record {
            Arc::make_mut(admission).submitted_at_ms = submitted_at_ms;
        }
        if store.append(&record).is_ok() {
            store.commit().unwrap();
        }
    }
}

#[test]
fn the_index_is_believed_only_where_it_proves_itself() {
    let home = tempfile::tempdir().unwrap();
    let (folder, index) = (home.path().join("store"), home.path().join("store/index"));
    let mut store = Store::open(&folder).unwrap();
    assert!(!store.opened().index_rebuilt);
    fill(&mut store, 3, 60);
    drop(store);
    let old = home.path().join("old");
    copy(&index, &old);
    let mut store = Store::open(&folder).unwrap();
    assert_eq!(store.opened().replayed, 0, "the index was complete");
    fill(&mut store, 4, 40);
    let ledger = store.ledger().clone();
    assert!(store.verify().unwrap().is_sound());
    drop(store);

    let open = |spoil: &dyn Fn(), replayed: u64, rebuilt: bool, what: &str| {
        spoil();
        let store = Store::open(&folder).unwrap();
        assert_eq!(store.ledger(), &ledger, "{what}");
        assert_eq!((store.opened().replayed, store.opened().index_rebuilt), (replayed, rebuilt), "{what}");
        assert!(store.verify().unwrap().is_sound(), "{what}");
    };
    open(&|| std::fs::remove_dir_all(&index).unwrap(), 100, true, "missing");
    open(&|| replace(&old, &index), 40, false, "stale");
    open(&|| spoil(&index, "db", |_| vec![7; 4096]), 100, true, "garbage");
    open(&|| spoil(&index, "db", |bytes| bytes[..bytes.len() / 2].to_vec()), 100, true, "half written");
    let refused = || std::fs::write(index.join("snap.7FFFFFFFFFFFFFF0"), b"nonsense").unwrap();
    open(&refused, 100, true, "refuses to open");
    let torn = || std::fs::write(index.join("snap.0000000000000010.generating"), b"torn").unwrap();
    open(&torn, 0, false, "a snapshot torn while opening");
    let file = || {
        std::fs::remove_dir_all(&index).unwrap();
        std::fs::write(&index, b"a file").unwrap();
    };
    open(&file, 100, true, "not a directory");
    let older = || {
        let db = crate::index::database(&index).unwrap();
        let meta = String::from_utf8(db.get("meta").unwrap().unwrap().to_vec()).unwrap();
        let meta = meta.replace("\"format\":4", "\"format\":3");
        assert!(meta.contains("\"format\":3"));
        db.insert("meta", meta.as_bytes()).unwrap();
        db.flush().unwrap();
    };
    open(&older, 100, true, "written by an earlier version");
    let other = || {
        drop(std::fs::remove_dir_all(&index));
        let mut other = Store::open(&home.path().join("other")).unwrap();
        fill_at(&mut other, 5, 120, 7);
        drop(other);
        copy(&home.path().join("other/index"), &index);
    };
    open(&other, 100, true, "the index of another journal, and further on");
    let shorter = || {
        std::fs::remove_dir_all(&index).unwrap();
        let mut other = Store::open(&home.path().join("shorter")).unwrap();
        fill_at(&mut other, 6, 20, 7);
        drop(other);
        copy(&home.path().join("shorter/index"), &index);
    };
    open(&shorter, 100, true, "the index of another journal, and not so far");
    let unfinished = || mark_unfinished(&index);
    open(&unfinished, 100, true, "one whose making was cut short");
}

/// As a rebuild leaves it that was cut short between its parts.
fn mark_unfinished(index: &Path) {
    let db = crate::index::database(index).unwrap();
    let mut meta: serde_json::Value = serde_json::from_slice(&db.get("meta").unwrap().unwrap()).unwrap();
    let nowhere = crate::journal::Tip::nowhere();
    (meta["sequence"], meta["newest"], meta["end"]) =
        (nowhere.sequence.into(), nowhere.newest.into(), nowhere.end.into());
    meta["chain"] = serde_json::to_value(isoloss_sweep::Digest::from_bytes(nowhere.chain)).unwrap();
    db.insert("meta", serde_json::to_vec(&meta).unwrap()).unwrap();
    db.flush().unwrap();
}

fn spoil(index: &Path, name: &str, change: impl Fn(&[u8]) -> Vec<u8>) {
    let path = index.join(name);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(path, change(&bytes)).unwrap();
}

fn replace(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).unwrap();
    copy(from, to);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn two_coordinators_cannot_open_one_folder() {
    let home = tempfile::tempdir().unwrap();
    let mut first = Store::open(home.path()).unwrap();
    let said = || Store::open(home.path()).err().unwrap().to_string();
    let own = format!("(pid {})", std::process::id());
    assert!(said().ends_with(&own), "{}", said());
    first.sign("127.0.0.1:8470");
    assert!(said().ends_with(&own.replace(')', ", at 127.0.0.1:8470)")), "{}", said());
    drop(first);
    Store::open(home.path()).unwrap();
}

#[test]
fn shared_runs_and_trunks_follow_the_sweeps_that_want_them() {
    let mut store = open(&SimDisk::default());
    let mut add = |record: Record| {
        store.append(&record).unwrap();
        store.ledger().clone()
    };
    let (one, two) =
        (sample::admission("one", sample::trunk(1, &[20])), sample::admission("two", sample::trunk(1, &[20, 40])));
    let (trunk, first, second) = (two.runs[0].run_id, two.runs[1].run_id, two.runs[2].run_id);
    let (one, two) = (Arc::new(one), Arc::new(two));
    let is = |ledger: &Ledger, id: RunId| ledger.status(ledger.run(id).unwrap());
    add(Record::Admitted { admission: Arc::clone(&one) });
    add(granted(trunk, 1));
    let checkpoint = sample::checkpoint(20, "here");
    let ledger = add(Record::Published { run_id: trunk, attempt: 1, checkpoint });
    assert_eq!(is(&ledger, first), Status::Pending, "a branch may start while its trunk goes on");
    let ledger = add(settled(trunk, 1, sample::finished(1.0)));
    assert_eq!(is(&ledger, trunk), Status::Finished);
    let ledger = add(Record::Admitted { admission: Arc::clone(&two) });
    assert_eq!(is(&ledger, trunk), Status::Pending, "the second sweep needs one more checkpoint");
    assert_eq!(ledger.run(trunk).unwrap().planned.trunk_steps, [20, 40]);
    assert_eq!(is(&ledger, second), Status::Blocked(crate::Block::Waiting));
    let ledger = add(Record::Cancelled { target: Target::Sweep(one.sweep_id) });
    assert_eq!(is(&ledger, first), Status::Pending, "the second sweep still wants it");
    let ledger = add(Record::Cancelled { target: Target::Sweep(two.sweep_id) });
    assert_eq!((is(&ledger, first), is(&ledger, second)), (Status::Cancelled, Status::Cancelled));
    let ledger = add(Record::Revived { sweep_id: two.sweep_id });
    assert_eq!(is(&ledger, first), Status::Pending);
    add(granted(trunk, 2));
    let ledger = add(settled(trunk, 2, sample::diverged()));
    assert_eq!(is(&ledger, second), Status::Blocked(crate::Block::TrunkDiverged));
    assert!(is(&ledger, second).is_final());
    let ledger = add(Record::Retried { runs: vec![trunk] });
    assert_eq!((is(&ledger, trunk), is(&ledger, second)), (Status::Pending, Status::Blocked(crate::Block::Waiting)));
}
