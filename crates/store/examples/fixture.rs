//! The store that a release leaves behind, for the tests of every later one: made once at each release and never again.
//!
//! `cargo run -p isoloss-store --example fixture` writes `tests/fixtures/<version>/` and refuses where it is.

use std::path::Path;
use std::sync::Arc;

use isoloss_store::{Admission, Lapse, Record, Store, Target, sample};
use isoloss_sweep::{Outcome, RunId};

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(env!("CARGO_PKG_VERSION"));
    assert!(!folder.exists(), "{} is there: a release has one fixture", folder.display());
    let work = std::env::temp_dir().join(format!("isoloss-fixture-{}", std::process::id()));
    let mut store = Store::open(&work).expect("an empty folder opens");
    for record in records() {
        store.append(&record).expect("the record is acceptable");
        store.commit().expect("the disk works");
    }
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    std::fs::copy(work.join("journal"), folder.join("journal")).expect("the journal can be copied");
    let gist = serde_json::to_string_pretty(&sample::gist(&store)).expect("plain data");
    std::fs::write(folder.join("expected.json"), gist + "\n").expect("a file can be written");
    drop(store);
    std::fs::remove_dir_all(work).expect("the folder can be removed");
}

/// Every kind of record.
fn records() -> Vec<Record> {
    let dense: Vec<_> = (1..=20).map(sample::planned).collect();
    let ids: Vec<RunId> = dense.iter().map(|planned| planned.run_id).collect();
    let trunk = sample::trunk(7, &[20, 40]);
    let (stem, branch) = (trunk[0].run_id, trunk[1].run_id);
    let (one, two) = (sample::admission("dense", dense), sample::admission("branches", trunk));
    let (first, second) = (one.sweep_id, two.sweep_id);
    let mut records = vec![Record::Admitted { admission: Arc::new(one) }];
    records.push(Record::Admitted {
        admission: Arc::new(Admission { held: true, submitted_at_ms: 1_700_000_000_000, ..two }),
    });
    for (n, id) in ids.iter().enumerate() {
        records.push(granted(*id, 1));
        match n % 5 {
            0 => records.extend([lapsed(*id, 1, Lapse::Expired { worker_lost: true }), granted(*id, 2)]),
            1 => records.extend([lapsed(*id, 1, Lapse::Failed { reason: "killed".to_owned() }), granted(*id, 2)]),
            _ => {}
        }
        records.extend(match n % 5 {
            0 | 2 => Some(settled(*id, if n % 5 == 0 { 2 } else { 1 }, sample::finished(1.0 + n as f64 / 7.0))),
            3 => Some(settled(*id, 1, sample::diverged())),
            _ => None,
        });
    }
    records.push(lapsed(ids[4], 1, Lapse::Yielded { reason: "preempted".to_owned() }));
    records.push(Record::Adopted { run_id: ids[4], attempt: 1, worker: "w".to_owned(), slot: "cpu:0".to_owned() });
    records.push(settled(ids[9], 1, sample::failed(false)));
    records.push(Record::Quarantined { run_id: ids[6], reason: "it takes workers down".to_owned() });
    records.push(lapsed(ids[14], 1, Lapse::Cancelled));
    records.push(Record::Cancelled { target: Target::Run(ids[14]) });
    records.push(Record::Retried { runs: vec![ids[3], ids[9]] });
    records.push(granted(ids[3], 2));
    records.push(Record::Paused { target: Target::Sweep(first) });
    records.push(Record::Resumed { target: Target::Sweep(first) });
    records.push(Record::Paused { target: Target::Run(ids[19]) });
    records.push(Record::Chosen { sweep_id: second, runs: Some(vec![stem, branch]) });
    records.push(granted(stem, 1));
    records.push(Record::Published { run_id: stem, attempt: 1, checkpoint: sample::checkpoint(20, "here") });
    records.push(Record::Cancelled { target: Target::Sweep(second) });
    records.push(Record::Revived { sweep_id: second });
    records.push(settled(stem, 1, sample::finished(0.1 + 0.2)));
    for (worker, on) in [("worker-1", true), ("worker-2", true), ("worker-1", false)] {
        records.push(Record::Drained { worker: worker.to_owned(), on });
    }
    records
}

fn granted(run_id: RunId, attempt: u64) -> Record {
    Record::Granted { run_id, attempt, worker: format!("worker-{attempt}"), slot: "cpu:0".to_owned() }
}

fn lapsed(run_id: RunId, attempt: u64, lapse: Lapse) -> Record {
    Record::Lapsed { run_id, attempt, lapse }
}

fn settled(run_id: RunId, attempt: u64, outcome: Outcome) -> Record {
    Record::Settled { run_id, attempt, worker: format!("worker-{attempt}"), outcome: Box::new(outcome) }
}
