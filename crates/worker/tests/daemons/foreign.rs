//! Commands of sweeps: what they must say, and what they may do without harm to any other run.

use std::collections::BTreeMap;
use std::time::Duration;

use isoloss_sweep::Outcome;
use isoloss_wire::api::RunState;

use crate::lab::{self, Coordinator, Worker, eventually};
use crate::processes::{gone_within, peak_bytes, read_pids};
use crate::rogue::is_victim;

/// Peak of a worker that keeps what it is told within bounds; one line of a rogue is 100 MiB long.
const WORKER_BYTES_MAX: u64 = 90 << 20;

/// What becomes of a run whose trainer does this: its state, how many attempts, and a word of the reason.
const CASES: [(&str, RunState, u64, &str); 27] = [
    ("good", RunState::Finished, 1, ""),
    ("silent", RunState::Failed, 1, "ended without an outcome"),
    ("exit 75", RunState::Finished, 2, ""),
    ("exit 78", RunState::Failed, 1, "exit code 78"),
    ("exit 85", RunState::Finished, 2, ""),
    ("garbage", RunState::Failed, 1, "not a line of the protocol"),
    ("long line", RunState::Finished, 1, ""),
    ("endless", RunState::Failed, 1, "said nothing of its run"),
    ("flood", RunState::Finished, 1, ""),
    ("hang", RunState::Failed, 1, "said nothing of its run"),
    ("deaf", RunState::Finished, 1, ""),
    ("fork", RunState::Finished, 1, ""),
    ("murder", RunState::Failed, 1, "SIGKILL"),
    ("other attempt", RunState::Failed, 1, "not its own"),
    ("twice", RunState::Finished, 1, ""),
    ("nan", RunState::Diverged, 1, "told train_loss_nats NaN at step "),
    ("nan progress", RunState::Diverged, 1, "told loss_nats NaN at step 3"),
    ("null progress", RunState::Diverged, 1, "told loss_nats null at step 3"),
    ("infinite eval", RunState::Diverged, 1, "told loss_nats -Infinity at step 3"),
    ("nan elsewhere", RunState::Failed, 1, "string \"NaN\", expected f64"),
    ("half a progress", RunState::Failed, 1, "missing field `tokens_per_second`"),
    ("half a progress and no end", RunState::Failed, 1, "no line of the protocol: missing field `tokens_per_second`"),
    ("nan in the curve", RunState::Finished, 1, ""),
    ("units", RunState::Failed, 1, "bits per byte"),
    ("curve", RunState::Finished, 1, ""),
    ("huge curve", RunState::Failed, 1, "without an outcome"),
    ("checkpoints", RunState::Finished, 2, ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_misbehaves_harms_only_its_own_run() {
    let coordinator = Coordinator::start().await;
    let mut sweeps = BTreeMap::new();
    for case in CASES {
        let (mode, _, attempts, _) = case;
        let sets = lab::foreign_sets(mode, attempts - 1);
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        sweeps.insert(coordinator.submit_with(&sets).await.sweep_id.to_string(), case);
    }
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let mut worker = lab::spawn_foreign_worker_process(&coordinator, dir.path(), &pids);
    for (sweep, (mode, state, attempts, reason)) in &sweeps {
        coordinator.ended(sweep).await;
        let results = coordinator.client.results(sweep).await.unwrap();
        let (victims, others): (Vec<_>, Vec<_>) = results.iter().partition(|result| is_victim(&result.run));
        assert_eq!((victims.len(), others.len()), (1, 3), "{mode}");
        let rows = others.iter().map(|other| &other.row);
        let harmed: Vec<_> = rows.filter(|row| (row.state, row.attempts) != (RunState::Finished, 1)).collect();
        assert!(harmed.is_empty(), "{mode}: {harmed:?}");
        let victim = &victims[0];
        let said = victim.row.reason.clone().unwrap_or_default();
        assert_eq!((victim.row.state, victim.row.attempts), (*state, *attempts), "{mode}: {said}");
        assert!(said.contains(reason), "{mode}: {said:?}");
        if let Some(Outcome::Finished(finished)) = &victim.outcome {
            assert_eq!((finished.tokens, finished.params), (victim.run.tokens(), victim.run.model.param_counts()));
            assert!((finished.score.bits_per_byte - 2.885).abs() < 0.01, "{mode}: {finished:?}");
            assert!(finished.curve.len() <= 2001, "{mode}: a curve of {} points", finished.curve.len());
            assert!(*mode != "nan in the curve" || finished.curve.len() == 1, "{mode}: {:?}", finished.curve);
        }
    }
    let nan = sweeps.iter().find(|(_, (mode, ..))| *mode == "nan progress").unwrap().0;
    let rows = coordinator.client.runs(nan).await.unwrap();
    let diverged = rows.iter().find(|row| row.state == RunState::Diverged).unwrap();
    let log = coordinator.client.log(&diverged.run_id.to_string(), 0).await.unwrap();
    let hint = r#"ends with the outcome {"outcome":"diverged","step":3,"#;
    assert!(log.lines.iter().any(|line| line.text.contains(hint)), "{log:?}");
    let spoilt = sweeps.iter().find(|(_, (mode, ..))| *mode == "checkpoints").unwrap().0;
    let results = coordinator.client.results(spoilt).await.unwrap();
    let victim = results.iter().find(|result| is_victim(&result.run)).unwrap();
    let log = coordinator.client.log(&victim.row.run_id.to_string(), 0).await.unwrap();
    let passed = "the checkpoint at step 11 is passed over";
    assert!(log.lines.iter().any(|line| line.attempt == 2 && line.text.contains(passed)), "{log:?}");
    let peak = peak_bytes(worker.id());
    assert!(peak < WORKER_BYTES_MAX, "the worker took {} MiB", peak >> 20);
    let children = read_pids(&pids);
    assert!(children.len() >= 4 * CASES.len() + 4, "{} processes", children.len());
    assert!(gone_within(&children, Duration::from_secs(5)).await, "processes outlive their attempts");
    worker.kill().unwrap();
    worker.wait().unwrap();
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_leave_is_given_no_command() {
    let coordinator = Coordinator::start().await;
    let worker = Worker::start(&coordinator, "w", "finish", 1).await;
    let sets = lab::foreign_sets("good", 0);
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let sweep = coordinator.submit_with(&sets).await.sweep_id.to_string();
    let run = coordinator.client.runs(&sweep).await.unwrap()[0].run_id.to_string();
    eventually("the worker is refused", || async {
        let why = coordinator.client.explain(&run).await.unwrap().reasons.join("; ");
        why.contains("w cpu:0: may not run commands; the run needs a worker with --allow-commands for: ")
    })
    .await;
    assert_eq!(coordinator.client.run(&run).await.unwrap().row.state, RunState::Pending);
    worker.stop().await;
    coordinator.stop().await;
}

/// A script that travels: fetched, checked, mended when the command spoils it, and run where it lies.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_command_travel_by_digest() {
    let coordinator = Coordinator::start().await;
    let script = r#"#!/bin/sh
read -r order
field() { printf '%s' "$order" | sed "s/.*\"$1\":\"\{0,1\}\([0-9a-f]*\).*/\1/"; }
echo "spoiled" > notes.txt
head="\"run_id\":\"$(field run_id)\",\"attempt\":$(field attempt)"
score="\"score\":{\"loss_nats\":$(cat loss.txt),\"tokens\":10,\"bytes\":10}"
echo "{\"event\":\"outcome\",$head,\"result\":{\"outcome\":\"finished\",$score,\"train_loss_nats\":1}}"
"#;
    let folder = coordinator.dir().join("tools");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in [("train.sh", script), ("loss.txt", "1.5"), ("notes.txt", "fine")] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let files = "trainer.files=['tools/train.sh', 'tools/loss.txt', 'tools/notes.txt']";
    let sets = ["trainer.command=['./train.sh']", files];
    let sweep = coordinator.submit_with(&sets).await.sweep_id.to_string();
    // What is planned is what runs, whatever becomes of the files meanwhile.
    std::fs::write(folder.join("loss.txt"), "9.9").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut worker = lab::spawn_foreign_worker_process(&coordinator, dir.path(), &dir.path().join("pids"));
    coordinator.ended(&sweep).await;
    for result in coordinator.client.results(&sweep).await.unwrap() {
        let Some(Outcome::Finished(finished)) = &result.outcome else { panic!("{:?}", result.row) };
        assert_eq!(finished.score.loss_nats, 1.5);
    }
    let folders: Vec<_> = std::fs::read_dir(dir.path().join("trainers")).unwrap().flatten().collect();
    assert_eq!(folders.len(), 1);
    worker.kill().unwrap();
    worker.wait().unwrap();
    let again = coordinator.submit_with(&sets).await;
    assert_eq!((again.added, again.reused), (4, 0), "another script is another result");
    coordinator.stop().await;
}
