//! Twenty deaths of coordinator and worker in the middle of a real sweep: no outcome is lost, none is recorded twice,
//! no child outlives its worker, and the losses are those of an undisturbed sweep, to the last bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use isoloss_store::Record;
use isoloss_store::disk::Folder;
use isoloss_store::journal::Journal;
use isoloss_sweep::{Outcome, RunId};
use serde_json::Value;

use crate::binary::{Daemon, children_of, expect, free_port, isoloss, parent_of, until};

const SWEEP: &str = r#"schema = 1
name = "survival"

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
seed = [1, 2, 3, 4, 5, 6, 7, 8]

[[arm]]
name = "dense"

[[arm]]
name = "moe"
family = "moe"
experts = 4
top_k = 2
"#;

const RUNS: usize = 64;
const DEATHS: u64 = 20;
/// Deaths that happen inside the coordinator's answer to an ending: after it arrived, and after it became durable.
const CRASHES: [(u64, &str); 4] =
    [(4, "settle-recorded:1"), (9, "settle-arrived:1"), (13, "settle-recorded:2"), (17, "settle-arrived:2")];
/// A child may take this long to see that its worker is gone.
const CHILD_LIFE: Duration = Duration::from_secs(2);

/// The house that is set on fire.
struct House {
    data: PathBuf,
    worker_data: PathBuf,
    port: u16,
    coordinator: Daemon,
    worker: Daemon,
}

impl House {
    fn build(folder: &Path) -> Self {
        let data = folder.join("coordinator");
        let worker_data = folder.join("worker");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("coordinator.toml"), "lease_seconds = 4.0\n").unwrap();
        let port = free_port();
        let coordinator = serve(&data, port, None);
        until("the token", || data.join("token").exists().then_some(()));
        let worker = work(&worker_data, &data, port);
        Self { data, worker_data, port, coordinator, worker }
    }

    fn client(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = isoloss(&self.data);
        command.arg("--server").arg(format!("http://127.0.0.1:{}", self.port)).args(arguments);
        command
    }

    /// Runs with a result; `None` while the coordinator does not answer.
    fn finished(&self) -> Option<usize> {
        let output = self.client(&["status", "survival", "--json"]).output().unwrap();
        let rows: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(rows["runs"].as_array()?.iter().filter(|row| row["state"] == "finished").count())
    }

    fn restart_coordinator(&mut self, crash: Option<&str>) {
        self.coordinator.kill();
        self.coordinator = serve(&self.data, self.port, crash);
    }

    /// The children that must soon be gone.
    fn restart_worker(&mut self) -> Vec<u32> {
        let children = children_of(self.worker.id());
        self.worker.kill();
        self.worker = work(&self.worker_data, &self.data, self.port);
        children
    }
}

fn serve(data: &Path, port: u16, crash: Option<&str>) -> Daemon {
    let mut command = isoloss(data);
    command.arg("serve").arg("--config").arg(data.join("coordinator.toml"));
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    if let Some(crash) = crash {
        command.args(["--crash-at", crash]);
    }
    Daemon::start(&mut command)
}

fn work(worker_data: &Path, data: &Path, port: u16) -> Daemon {
    let mut command = isoloss(worker_data);
    command.args(["worker", "--name", "w", "--cores", "2", "--server", &format!("http://127.0.0.1:{port}")]);
    command.arg("--token-file").arg(data.join("token"));
    Daemon::start(&mut command)
}

fn is_training(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    parent_of(pid).is_some() && command.windows(5).any(|w| w == b"train")
}

/// Losses by run id, as their text.
fn losses(rows: &Value) -> BTreeMap<String, String> {
    let row = |row: &Value| (row["run_id"].as_str().unwrap().to_owned(), row["loss_nats"].to_string());
    rows.as_array().unwrap().iter().map(row).collect()
}

/// How many results each run has in the journal.
fn results(data: &Path) -> BTreeMap<RunId, usize> {
    let disk = Folder::open(&data.join("store")).unwrap();
    let journal = Journal::open(Box::new(disk)).unwrap();
    let mut counts = BTreeMap::new();
    let scan = journal.scan(&mut |entry| {
        if let Ok(Record::Settled { run_id, outcome, .. }) = serde_json::from_slice(entry.payload)
            && !matches!(*outcome, Outcome::Failed(_))
        {
            *counts.entry(run_id).or_insert(0) += 1;
        }
    });
    assert_eq!(scan.unwrap().damage, None);
    counts
}

/// A small generator: the seed alone decides who dies when.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *state >> 33
}

fn burn(house: &mut House) -> Vec<(Instant, u32)> {
    let mut seed = 20;
    let mut orphans = Vec::new();
    for death in 0..DEATHS {
        let before = until("an answer", || house.finished());
        assert!(before < RUNS, "the sweep ended after {death} of {DEATHS} deaths: make it longer");
        until("one more result", || house.finished().filter(|now| *now > before || *now == RUNS));
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 250));
        if let Some((_, point)) = CRASHES.iter().find(|(at, _)| *at == death) {
            house.restart_coordinator(Some(point));
            until("the crash at its point", || house.coordinator.has_ended().then_some(()));
            house.restart_coordinator(None);
            continue;
        }
        let victim = random(&mut seed) % 3;
        if victim != 1 {
            house.restart_coordinator(None);
        }
        if victim != 0 {
            orphans.extend(house.restart_worker().into_iter().map(|pid| (Instant::now(), pid)));
        }
        orphans.retain(|(killed, pid)| {
            let due = killed.elapsed() >= CHILD_LIFE;
            assert!(!(due && is_training(*pid)), "child {pid} outlived its worker by {:?}", killed.elapsed());
            !due
        });
    }
    orphans
}

#[test]
fn twenty_deaths_lose_nothing_and_record_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("survival.toml");
    fs::write(&file, SWEEP).unwrap();
    let mut house = House::build(folder.path());
    until("the coordinator", || house.client(&["status"]).output().unwrap().status.success().then_some(()));
    expect(0, house.client(&["submit"]).arg(&file));
    let orphans = burn(&mut house);
    until("the end of the sweep", || house.finished().filter(|finished| *finished == RUNS));
    for (killed, pid) in orphans {
        std::thread::sleep(CHILD_LIFE.saturating_sub(killed.elapsed()));
        assert!(!is_training(pid), "child {pid} outlived its worker");
    }
    let rows = expect(0, &mut house.client(&["status", "survival", "--json"])).stdout;
    house.worker.kill();
    let said = house.coordinator.stop();
    assert!(!said.contains("panicked"), "{said}");

    let counts = results(&house.data);
    assert_eq!(counts.len(), RUNS);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    let summary: Value =
        serde_json::from_slice(&expect(0, isoloss(&house.data).args(["store", "verify", "--json"])).stdout).unwrap();
    assert_eq!((&summary["settled"], &summary["sound"]), (&RUNS.into(), &true.into()), "{summary}");

    let calm = folder.path().join("calm");
    let out = folder.path().join("report");
    expect(0, isoloss(&calm).args(["up", "--port", "0"]).arg(&file).arg("--out").arg(&out));
    let exported = fs::read_to_string(out.join("runs.jsonl")).unwrap();
    let undisturbed: Value =
        exported.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>().into();
    let rows: Value = serde_json::from_slice(&rows).unwrap();
    assert_eq!(losses(&rows["runs"]), losses(&undisturbed));
}
