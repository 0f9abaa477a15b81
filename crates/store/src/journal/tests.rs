use proptest::prelude::*;

use super::*;
use crate::disk::sim::{SimDisk, Tear};

fn journal(disk: &SimDisk) -> Journal {
    Journal::open(Box::new(disk.clone())).unwrap()
}

fn write(disk: &SimDisk, groups: &[Vec<Vec<u8>>]) -> Vec<Place> {
    let mut journal = journal(disk);
    journal.replay(Tip::start(), &mut |_| {}).unwrap();
    let mut places = Vec::new();
    for group in groups {
        places.extend(group.iter().map(|payload| journal.append(payload).unwrap()));
        journal.commit().unwrap();
    }
    places
}

fn payloads(disk: &SimDisk) -> (Vec<Vec<u8>>, Result<Option<Damage>, JournalError>) {
    let mut read = Vec::new();
    let result = journal(disk).replay(Tip::start(), &mut |entry| read.push(entry.payload.to_vec()));
    (read, result)
}

fn singles(count: u8) -> Vec<Vec<Vec<u8>>> {
    (0..count).map(|n| vec![vec![n; 3 + usize::from(n)]]).collect()
}

proptest! {
    #[test]
    fn what_is_committed_is_read_back(groups in prop::collection::vec(
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5), 0..8)) {
        let disk = SimDisk::default();
        let places = write(&disk, &groups);
        let all: Vec<Vec<u8>> = groups.concat();
        let (read, result) = payloads(&disk);
        prop_assert_eq!(&read, &all);
        prop_assert_eq!(result.unwrap(), None);
        let journal = journal(&disk);
        for (place, payload) in places.iter().zip(&all) {
            prop_assert_eq!(&journal.read(*place).unwrap(), payload);
        }
    }
}

#[test]
fn every_flipped_byte_is_found_and_nothing_false_is_served() {
    let disk = SimDisk::default();
    let places = write(&disk, &singles(5));
    let all = singles(5).concat();
    let good = disk.bytes(FILE);
    for at in 0..good.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= mask;
            let rotten = SimDisk::default();
            rotten.overwrite(FILE, bytes);
            let Some(hit) = places.iter().rposition(|place| place.offset <= at as u64) else {
                let error = Journal::open(Box::new(rotten)).err().unwrap();
                assert!(matches!(error, JournalError::Damaged { offset, .. } if offset == at as u64), "{error}");
                continue;
            };
            let scan = journal(&rotten).scan(&mut |_| {}).unwrap();
            assert_eq!(scan.damage.unwrap().offset, places[hit].offset, "byte {at}");
            assert!(matches!(journal(&rotten).read(places[hit]), Err(JournalError::Damaged { .. })), "byte {at}");
            let (read, result) = payloads(&rotten);
            assert_eq!(read, all[..hit], "byte {at}: exactly the records before it");
            match result {
                Ok(damage) => assert_eq!((hit, damage.unwrap().kind), (all.len() - 1, DamageKind::TornTail)),
                Err(error) => {
                    assert!(matches!(error, JournalError::Damaged { kind: DamageKind::Rot, .. }), "{error}");
                    assert!(hit + 1 < all.len(), "byte {at}");
                    assert_eq!(rotten.bytes(FILE).len(), good.len(), "rot is never cut by itself");
                }
            }
        }
    }
}

/// Two hundred records as large as real ones, in groups of one to three; the end of each, and which are in the last group.
fn large(disk: &SimDisk) -> (Vec<Tip>, usize) {
    let mut dice = crate::sample::Dice(7);
    let mut journal = journal(disk);
    let (mut tips, mut last) = (vec![journal.tip()], 0);
    while tips.len() <= 200 {
        last = tips.len() - 1;
        for _ in 0..=dice.roll(3) {
            let length = 60 + dice.roll(700);
            let payload: Vec<u8> = (0..length).map(|_| b"0123456789abcdef{\":,}"[dice.roll(21) as usize]).collect();
            journal.append(&payload).unwrap();
            tips.push(journal.tip());
        }
        journal.commit().unwrap();
    }
    (tips, last)
}

/// What stands before a frame does not change what is found in it, so that each scan begins there.
#[test]
fn every_byte_of_a_long_journal_flipped_once_is_found_where_it_stands() {
    let disk = SimDisk::default();
    let (tips, last) = large(&disk);
    let mut dice = crate::sample::Dice(8);
    let mut flips = 0;
    for (frame, pair) in tips.windows(2).enumerate() {
        let [before, after] = pair else { unreachable!("windows of two") };
        for at in before.end..after.end {
            let (at, mask) = (usize::try_from(at).unwrap(), 1 << dice.roll(8));
            disk.flip(FILE, at, mask);
            let mut served = 0;
            let found = scan::scan(&disk, *before, &mut |_| served += 1).unwrap();
            assert_eq!((found.tip, served), (*before, 0), "byte {at}: nothing false is served");
            let damage = found.damage.unwrap_or_else(|| panic!("byte {at}: not found"));
            assert_eq!(damage.offset, before.end, "byte {at}");
            // What stands in the last group can be taken for the tail that a crash leaves, as far as the journal alone can
            // tell: a power cut loses any part of it. With its index a store refuses there too.
            if damage.kind == DamageKind::TornTail {
                assert!(frame >= last, "byte {at} of frame {frame} is reported as a tail");
            }
            disk.flip(FILE, at, mask);
            flips += 1;
        }
    }
    assert_eq!(flips + HEADER.len(), disk.bytes(FILE).len());
    assert_eq!(journal(&disk).scan(&mut |_| {}).unwrap(), Scan { tip: *tips.last().unwrap(), damage: None });
}

#[test]
fn a_journal_of_a_later_format_is_left_alone_and_a_rotten_digit_is_no_format() {
    let disk = SimDisk::default();
    write(&disk, &singles(3));
    for line in [&b"isoloss journal 2\n"[..], b"isoloss journal 17\n"] {
        let later = SimDisk::default();
        let bytes = [line, b"whatever stands here"].concat();
        later.overwrite(FILE, bytes.clone());
        let found = if line.len() == 18 { 2 } else { 17 };
        let error = Journal::open(Box::new(later.clone())).err().unwrap();
        assert!(matches!(error, JournalError::Newer { found: f, known: FORMAT } if f == found), "{error}");
        assert!(error.to_string().contains(&format!("format {found}")), "{error}");
        assert_eq!(later.bytes(FILE), bytes);
    }
    disk.flip(FILE, 16, b'1' ^ b'5');
    let error = Journal::open(Box::new(disk)).err().unwrap();
    assert!(matches!(error, JournalError::Damaged { offset: 16, kind: DamageKind::Rot }), "{error}");
}

#[test]
fn any_cut_of_the_file_leaves_the_whole_records_and_they_go_on() {
    let disk = SimDisk::default();
    let places = write(&disk, &[singles(2).concat(), singles(3).concat()]);
    let all = [singles(2).concat(), singles(3).concat()].concat();
    let good = disk.bytes(FILE);
    for length in 0..good.len() {
        let torn = SimDisk::default();
        torn.overwrite(FILE, good[..length].to_vec());
        let whole = places.iter().filter(|place| place.offset + 60 + u64::from(place.length) <= length as u64).count();
        assert_eq!(payloads(&torn).0, all[..whole], "cut at {length}");
        write(&torn, &[vec![b"next".to_vec()]]);
        let (read, result) = payloads(&torn);
        assert_eq!(read.last().unwrap(), b"next", "cut at {length}");
        assert_eq!((read.len(), result.unwrap()), (whole + 1, None), "cut at {length}");
    }
}

#[test]
fn a_group_torn_out_of_order_is_a_tail_and_not_rot() {
    let disk = SimDisk::default();
    write(&disk, &singles(2));
    let tip = disk.bytes(FILE).len();
    write(&disk, &[singles(3).concat()]);
    let mut bytes = disk.bytes(FILE);
    bytes[tip..tip + 20].fill(0);
    let torn = SimDisk::default();
    torn.overwrite(FILE, bytes.clone());
    let (read, result) = payloads(&torn);
    assert_eq!(read, singles(2).concat());
    assert_eq!(result.unwrap().unwrap().kind, DamageKind::TornTail);
    assert_eq!(torn.bytes(&format!("journal.tail-{tip}")), bytes[tip..], "nothing is destroyed");
}

#[test]
fn after_a_failed_fsync_nothing_is_accepted_and_the_fsync_is_not_tried_again() {
    let disk = SimDisk::default();
    write(&disk, &singles(1));
    let mut journal = journal(&disk);
    journal.replay(Tip::start(), &mut |_| {}).unwrap();
    disk.fail_sync_at(disk.syncs() + 1);
    journal.append(b"lost").unwrap();
    assert!(matches!(journal.commit(), Err(JournalError::Io(_))));
    let syncs = disk.syncs();
    assert!(matches!(journal.commit(), Err(JournalError::Poisoned)));
    assert!(matches!(journal.append(b"more"), Err(JournalError::Poisoned)));
    assert_eq!(disk.syncs(), syncs);
    assert_eq!(payloads(&disk.crash(Tear::Lost)).0, singles(1).concat());
}

#[test]
fn the_chain_tells_a_journal_from_one_with_the_same_tail() {
    let (one, two) = (SimDisk::default(), SimDisk::default());
    write(&one, &[vec![b"aa".to_vec()], vec![b"zz".to_vec()]]);
    write(&two, &[vec![b"bb".to_vec()], vec![b"zz".to_vec()]]);
    let mut first = journal(&one);
    first.replay(Tip::start(), &mut |_| {}).unwrap();
    assert!(journal(&one).holds(first.tip()));
    assert!(!journal(&two).holds(first.tip()));
    assert!(!journal(&two).holds(Tip::nowhere()));
}

#[test]
fn a_short_file_that_is_no_journal_is_refused_and_left_as_it_is() {
    let mut disk = SimDisk::default();
    disk.append(FILE, b"hello\n").unwrap();
    let refused = [Journal::open(Box::new(disk.clone())).err(), Journal::existing(Box::new(disk.clone())).err()];
    for refused in refused {
        assert!(matches!(refused, Some(JournalError::Damaged { offset: 0, kind: DamageKind::Rot })), "{refused:?}");
    }
    assert_eq!(disk.bytes(FILE), b"hello\n");
}
