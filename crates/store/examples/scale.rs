//! A store of 100,000 settled runs: how large it is, how long it takes to open with its index and from the journal
//! alone, and the memory it then holds.
//!
//! `cargo run --release -p isoloss-store --example scale -- [RUNS [FOLDER]]`
//!
//! `scale fill RUNS FOLDER` only makes one, for `benches/restart.py`. Each opening is a process of its own, so that its memory is its own. Without a folder a temporary one is used and
//! removed. It tells nothing about fsync: the runs are written in groups of 100.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use isoloss_store::{Admission, Planned, Record, Store, sample};
use isoloss_sweep::Outcome;
use isoloss_sweep::count::Tokens;
use isoloss_sweep::outcome::CurvePoint;

const RUNS: u64 = 100_000;
/// Runs of one sweep.
const SWEEP: u64 = 10_000;
/// Records that share an fsync.
const GROUP: u64 = 100;
const CURVE_POINTS: u64 = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [open, folder] = arguments.as_slice()
        && open == "open"
    {
        return report(Path::new(folder));
    }
    if let [fill, runs, folder] = arguments.as_slice()
        && fill == "fill"
    {
        return self::fill(Path::new(folder), runs.parse().expect("a number of runs"));
    }
    let runs = arguments.first().map_or(RUNS, |text| text.parse().expect("a number of runs"));
    let own = std::env::temp_dir().join(format!("isoloss-scale-{}", std::process::id()));
    let folder = arguments.get(1).map_or_else(|| own.clone(), PathBuf::from);
    let begin = Instant::now();
    fill(&folder, runs);
    println!("{runs} runs written in {:.1} s", begin.elapsed().as_secs_f64());
    println!("journal {} MB, index {} MB", bytes(&folder.join("journal")) / 1_000_000, {
        bytes(&folder.join("index")) / 1_000_000
    });
    open("with the index", &folder);
    std::fs::remove_dir_all(folder.join("index")).expect("the index can be removed");
    open("from the journal alone", &folder);
    open("with the index again", &folder);
    if folder == own {
        std::fs::remove_dir_all(own).expect("the folder can be removed");
    }
}

fn open(how: &str, folder: &Path) {
    let program = std::env::current_exe().expect("a running program has a path");
    let output = Command::new(program).arg("open").arg(folder).output().expect("this program starts again");
    println!("{how}: {}", String::from_utf8_lossy(&output.stdout).trim());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn report(folder: &Path) {
    let begin = Instant::now();
    let store = Store::open(folder).expect("a store that was just written opens");
    let seconds = begin.elapsed().as_secs_f64();
    let (opened, settled) = (store.opened(), store.ledger().runs().filter(|(_, row)| row.settled.is_some()).count());
    println!(
        "{seconds:.2} s ({:.2} s of processor), {settled} settled runs, {} replayed records, {} MB resident, {} MB at most",
        processor_seconds(),
        opened.replayed,
        memory("VmRSS:"),
        memory("VmHWM:")
    );
}

/// Processor time of this process in all its threads, as Linux counts it in hundredths of a second; 0 elsewhere. On a
/// machine with other work it says more than the time that passed.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() as f64 / 100.0
}

/// Megabytes of this process as Linux counts them; 0 elsewhere.
fn memory(what: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024 / 1_000_000
}

fn bytes(path: &Path) -> u64 {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| bytes(&entry.expect("a readable folder").path())).sum(),
        Err(_) => std::fs::metadata(path).map_or(0, |data| data.len()),
    }
}

fn fill(folder: &Path, runs: u64) {
    let mut store = Store::open(folder).expect("an empty folder opens");
    for first in (0..runs).step_by(SWEEP as usize) {
        let planned: Vec<Planned> = (first..runs.min(first + SWEEP)).map(planned).collect();
        let ids: Vec<_> = planned.iter().map(|planned| planned.run_id).collect();
        let admission = Admission { toml: "# a sweep\n".repeat(200), ..sample::admission(&first.to_string(), planned) };
        let mut records = 0;
        let mut write = |record: &Record| {
            store.append(record).expect("the record is acceptable");
            records += 1;
            if records % GROUP == 0 {
                store.commit().expect("the disk works");
            }
        };
        write(&Record::Admitted { admission: Arc::new(admission) });
        for (seed, run_id) in (first..).zip(ids) {
            let worker = format!("node-{:03}", seed % 200);
            write(&Record::Granted { run_id, attempt: 1, worker: worker.clone(), slot: format!("cpu:{}", seed % 8) });
            write(&Record::Settled { run_id, attempt: 1, worker, outcome: Box::new(outcome(seed)) });
        }
        store.commit().expect("the disk works");
    }
}

/// A run with the labels that a sweep of four axes gives.
fn planned(seed: u64) -> Planned {
    let labels = ["params", "tokens", "learning_rate", "seed"];
    let labels = labels.iter().map(|axis| ((*axis).to_owned(), (seed * 7919 % 100_003).to_string()));
    Planned { labels: labels.collect::<BTreeMap<_, _>>().into(), ..sample::planned(seed) }
}

/// A finished run with a curve of full-length numbers.
fn outcome(seed: u64) -> Outcome {
    let loss = 1.0 + (seed as f64 + 0.5).sqrt() / 997.0;
    let Outcome::Finished(mut finished) = sample::finished(loss) else {
        unreachable!("a finished sample is finished");
    };
    finished.curve = (1..=CURVE_POINTS)
        .map(|point| CurvePoint {
            step: point * 5,
            tokens: Tokens(point * 5 * 32),
            loss_nats: loss + 1.0 / (point as f64 + 0.1),
            bits_per_byte: (loss + 1.0 / (point as f64 + 0.1)) / std::f64::consts::LN_2,
            train_loss_nats: loss + 1.1 / (point as f64 + 0.1),
        })
        .collect();
    Outcome::Finished(finished)
}
