//! Real daemons on real short runs, in hosts of their own, while a seed decides what breaks: processes are killed and
//! stopped, cables pulled, disks filled. Whatever happens, every run gets one result and none gets two.
//!
//! The short form is a test like others. `ISOLOSS_SOAK_SECONDS=3600 cargo test --release -p isoloss -- soak --nocapture`
//! goes on for an hour; `ISOLOSS_SOAK_SEED` picks other disasters. Pulling cables and filling disks take root and
//! iproute2; without them these are left out, aloud. Killing processes proves less than a power cut: what the disk loses
//! then is simulated in the store's own tests.

mod disk;
mod fault;
mod house;
mod net;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use isoloss_store::Record;
use isoloss_store::disk::Folder;
use isoloss_store::journal::Journal;
use isoloss_sweep::{Outcome, RunId};

use crate::binary::{expect, isoloss, until};
use fault::{FAULTS, Fault};
use house::House;

/// Runs of one sweep.
pub(crate) const RUNS: usize = 48;
const SECONDS: u64 = 45;

fn sweep(round: usize) -> String {
    let seeds: Vec<String> = (0..12).map(|n| (1 + 12 * round + n).to_string()).collect();
    format!(
        r#"schema = 1
name = "soak-{round}"

[corpus]
source = "synthetic"
preset = "tiny"
bytes = "400kB"
validation = 0.2

[model]
context = 64

[axes]
params = ["6k", "12k"]
tokens = ["60k", "120k"]
seed = [{}]

[retry]
failures = 20
"#,
        seeds.join(", ")
    )
}

/// A number from the environment of whoever wants more than the short form.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Splittable enough for disasters: the seed alone decides them.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }
}

/// What happened, for people.
#[derive(Default)]
struct Diary {
    faults: BTreeMap<Fault, usize>,
    /// Seconds from the end of a fault to the next accepted outcome.
    recoveries: Vec<f64>,
}

impl Diary {
    fn print(&mut self, expected: usize, accepted: usize, lost: usize, duplicated: usize) {
        println!("{:<24}{:>8}", "fault", "times");
        for (fault, times) in &self.faults {
            println!("{:<24}{times:>8}", fault.name());
        }
        self.recoveries.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = self.recoveries.len().saturating_sub(1);
            self.recoveries.get((last as f64 * share).ceil() as usize).copied().unwrap_or(0.0)
        };
        println!("survived {} faults", self.faults.values().sum::<usize>());
        println!("runs expected {expected}, accepted {accepted}, lost {lost}, duplicated {duplicated}");
        println!("recovery, s: median {:.2}, p99 {:.2}, longest {:.2}", at(0.5), at(0.99), at(1.0));
    }
}

#[test]
fn soak_of_real_daemons_loses_nothing_and_records_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (seconds, seed) = (number("ISOLOSS_SOAK_SECONDS", SECONDS), number("ISOLOSS_SOAK_SEED", 1));
    let mut house = House::build(folder.path());
    let faults: Vec<Fault> = FAULTS.into_iter().filter(|fault| house.allows(*fault)).collect();
    for fault in FAULTS.iter().filter(|fault| !house.allows(**fault)) {
        let lacking = format!("{}: no right to do it here (root and iproute2 have it)", fault.name());
        assert!(std::env::var_os("CI").is_none(), "{lacking}");
        eprintln!("SKIPPED: {lacking}");
    }
    let (mut dice, mut diary, mut rounds) = (Dice(seed), Diary::default(), 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) || diary.faults.len() < faults.len() {
        house.submit(rounds, &sweep(rounds));
        rounds += 1;
        loop {
            let before = house.finished();
            if before == rounds * RUNS {
                break;
            }
            // The first times each fault gets its turn, then dice decide.
            let turn = diary.faults.values().sum::<usize>();
            let fault = *faults.get(turn).unwrap_or(&faults[dice.below(faults.len() as u64) as usize]);
            house.suffer(fault, &mut dice);
            *diary.faults.entry(fault).or_default() += 1;
            let (healed, before) = (Instant::now(), house.finished());
            until("one more result", || (house.finished() > before || before == rounds * RUNS).then_some(()));
            diary.recoveries.push(healed.elapsed().as_secs_f64());
        }
    }
    let said = house.end();
    let results = results(&house.data());
    let expected = rounds * RUNS;
    let duplicated = results.values().filter(|count| **count > 1).count();
    diary.print(expected, results.len(), expected - results.len(), duplicated);
    println!("the coordinator gave up on a full disk {} times", house.given_up);
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!((results.len(), duplicated), (expected, 0), "seed {seed}");
    expect(0, isoloss(&house.data()).args(["store", "verify"]));
}

/// How many lasting outcomes each run has in the journal.
fn results(data: &std::path::Path) -> BTreeMap<RunId, usize> {
    let journal = Journal::open(Box::new(Folder::open(&data.join("store")).unwrap())).unwrap();
    let mut counts = BTreeMap::new();
    let scan = journal.scan(&mut |entry| {
        if let Ok(Record::Settled { run_id, outcome, .. }) = serde_json::from_slice(entry.payload)
            && matches!(*outcome, Outcome::Finished(_))
        {
            *counts.entry(run_id).or_insert(0) += 1;
        }
    });
    assert_eq!(scan.unwrap().damage, None);
    counts
}

/// The text of a log, or nothing.
pub(crate) fn text(path: &std::path::Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
