//! A power cut at every fsync of a workload, with every kind of torn, reordered and missing rest, and another one while
//! the store recovers.

use super::*;
use crate::disk::sim::Tear;

const COMMITS: usize = 240;

/// Writes `commits` groups of one to three records, as far as the disk bears it; the ledgers after each record, and how
/// many records were acknowledged.
fn work(disk: &SimDisk, seed: u64, commits: usize) -> (Vec<Ledger>, usize) {
    let mut dice = Dice(seed);
    let mut history = vec![Ledger::default()];
    let mut acknowledged = 0;
    let Ok(mut store) = Store::open_on(Box::new(disk.clone())) else {
        return (history, acknowledged);
    };
    for _ in 0..commits {
        for _ in 0..=dice.roll(3) {
            let record = some_record(&mut dice, store.ledger());
            if store.append(&record).is_ok() {
                history.push(store.ledger().clone());
            }
        }
        if store.commit().is_err() {
            let syncs = disk.syncs();
            assert!(matches!(store.commit(), Err(StoreError::Journal(JournalError::Poisoned))));
            assert!(store.append(&some_record(&mut dice, &Ledger::default())).is_err());
            assert_eq!(disk.syncs(), syncs, "a failed fsync is never retried");
            break;
        }
        acknowledged = history.len() - 1;
    }
    (history, acknowledged)
}

/// Nothing, all, zeros, a hole; cuts around the parts of a frame and everywhere between; sectors and smaller blocks
/// written in any order.
fn tears(unsynced: usize, dice: &mut Dice) -> Vec<Tear> {
    let mut tears = vec![Tear::Lost, Tear::Kept, Tear::Zeros, Tear::Hole];
    let cuts = [1, 59, 60, 61, unsynced / 3, unsynced / 2, unsynced.saturating_sub(1)];
    tears.extend(cuts.iter().filter(|cut| (1..unsynced).contains(*cut)).map(|cut| Tear::Cut(*cut)));
    for bytes in [512, 64] {
        let masks = [0x5555_5555_5555_5555, !0x5555_5555_5555_5555, dice.roll(u64::MAX), dice.roll(u64::MAX)];
        tears.extend(masks.map(|kept| Tear::Blocks { bytes, kept }));
    }
    tears
}

/// The recovered store says what was said after some record, at least after the last acknowledged one.
fn check(store: &Store, history: &[Ledger], acknowledged: usize, what: &str) {
    let records = usize::try_from(store.records()).unwrap();
    assert!(records >= acknowledged, "{what}: {records} of {acknowledged} acknowledged records");
    assert!(records < history.len(), "{what}: {records} records of {}", history.len() - 1);
    assert!(store.ledger() == &history[records], "{what}: a state that never was");
    for (run_id, row) in history[acknowledged].runs() {
        assert!(store.ledger().run(run_id).unwrap().attempt >= row.attempt, "{what}: an attempt went back");
    }
}

#[test]
fn a_crash_at_any_fsync_loses_nothing_acknowledged_and_invents_nothing() {
    let all = SimDisk::default();
    let (whole, acknowledged) = work(&all, 1, COMMITS);
    assert_eq!(whole.len() - 1, acknowledged);
    assert!(acknowledged > 200, "only {acknowledged} records: the workload is too thin");
    let is = |status: Status| whole.iter().any(|ledger| ledger.runs().any(|(_, row)| ledger.status(row) == status));
    assert!([Status::Cancelled, Status::Quarantined, Status::Finished, Status::Diverged].into_iter().all(is));
    assert!(whole.iter().any(|ledger| ledger.runs().any(|(_, row)| !row.checkpoints.is_empty())));
    let mut dice = Dice(9);
    for at in 1..=all.syncs() {
        let disk = SimDisk::default();
        disk.fail_sync_at(at);
        let (history, acknowledged) = work(&disk, 1, COMMITS);
        for tear in tears(disk.unsynced(FILE), &mut dice) {
            let what = format!("sync {at}, {tear:?}");
            let crashed = disk.crash(tear);
            let mut store = open(&crashed);
            check(&store, &history, acknowledged, &what);
            let admission = sample::admission("after the crash", [sample::planned(99)]);
            store.append(&Record::Admitted { admission: Arc::new(admission) }).unwrap();
            store.commit().unwrap();
            assert_eq!(open(&crashed).ledger(), store.ledger(), "{what}");
            if at % 10 == 0 {
                assert!(store.verify().unwrap().is_sound(), "{what}");
            }
        }
    }
}

#[test]
fn a_crash_while_recovering_from_a_crash_loses_nothing_either() {
    let all = SimDisk::default();
    work(&all, 2, 40);
    let mut recoveries = 0;
    for at in 1..=all.syncs() {
        let disk = SimDisk::default();
        disk.fail_sync_at(at);
        let (history, acknowledged) = work(&disk, 2, 40);
        let half = disk.unsynced(FILE) / 2;
        for tear in [Tear::Cut(half), Tear::Hole, Tear::Zeros, Tear::Blocks { bytes: 64, kept: 0x5555_5555_5555_5555 }]
        {
            // Recovery syncs the tail that it sets aside, the names and the cut journal.
            for second in 1..=4 {
                let recovering = disk.crash(tear);
                recovering.fail_sync_at(second);
                if Store::open_on(Box::new(recovering.clone())).is_err() {
                    recoveries += 1;
                }
                for tear in [Tear::Lost, Tear::Kept, Tear::Cut(half / 2), Tear::Zeros] {
                    let what = format!("sync {at}, then sync {second} of the recovery, {tear:?}");
                    check(&open(&recovering.crash(tear)), &history, acknowledged, &what);
                }
            }
        }
    }
    assert!(recoveries > 100, "only {recoveries} recoveries were cut short");
}

#[test]
fn a_flipped_bit_in_any_record_is_told_with_its_place_and_all_before_it_is_kept() {
    let disk = SimDisk::default();
    let (history, _) = work(&disk, 3, COMMITS);
    let (mut places, mut last_group) = (Vec::new(), 0);
    let each = &mut |entry: crate::journal::Entry<'_>| {
        places.push(entry.place);
        last_group = entry.group;
    };
    Journal::existing(Box::new(disk.clone())).unwrap().scan(each).unwrap();
    let (mut dice, mut refused) = (Dice(4), 0);
    for (before, place) in places.iter().enumerate() {
        let rotten = disk.crash(Tear::Kept);
        let at = place.offset + dice.roll(60 + u64::from(place.length));
        rotten.flip(FILE, usize::try_from(at).unwrap(), 1 << dice.roll(8));
        let seen = Inspected::of(Box::new(rotten.clone()), &mut |_, _| {}).unwrap();
        assert_eq!(seen.scan.damage.unwrap().offset, place.offset, "byte {at}");
        assert!(seen.ledger == history[before], "byte {at}: all records before it, and no more");
        match Store::open_on(Box::new(rotten)) {
            Ok(store) => {
                // A power cut may leave any part of the last group, so that the journal alone cannot tell it from rot
                // there. The index can: see the tests of losses.
                assert!(place.sequence >= last_group, "byte {at}: rot before the last group is never a tail");
                assert_eq!(store.opened().torn.unwrap().offset, place.offset);
                assert!(store.ledger() == &history[before], "byte {at}");
            }
            Err(error) => {
                refused += 1;
                let offset = place.offset;
                assert!(
                    matches!(error, StoreError::Journal(JournalError::Damaged { offset: at, .. }) if at == offset),
                    "{error}"
                );
            }
        }
    }
    assert!(refused > 200, "{refused}");
}
