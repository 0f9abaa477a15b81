//! Children that take several runs, one after another: that they do, how often, and that no run suffers by another.

use std::num::NonZeroU32;
use std::time::Duration;

use isoloss_wire::api::RunState;

use crate::lab::{self, Coordinator, Worker};
use crate::processes::{gone_within, read_pids};

/// What a trainer that says it goes on does then, and how many processes four runs on one slot take.
const CASES: [(&str, usize); 7] = [
    ("again", 1),
    ("again old", 1),
    ("again dies", 4),
    ("again speaks", 4),
    ("again crashes", 4),
    ("again fails", 4),
    ("again deaf", 4),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_child_takes_one_run_after_another_and_what_it_does_between_costs_no_run_an_attempt() {
    for (mode, processes) in CASES {
        let coordinator = Coordinator::start().await;
        let dir = tempfile::tempdir().unwrap();
        let mut config = lab::config(&coordinator, "w", mode, 1, dir.path());
        if mode == "again deaf" {
            config.grace = Duration::from_millis(300);
        }
        let worker = Worker::start_as(&coordinator, config, dir).await;
        let sweep = coordinator.submit_with(&["retry.failures=0"]).await.sweep_id.to_string();
        coordinator.ended(&sweep).await;
        for row in coordinator.client.runs(&sweep).await.unwrap() {
            assert_eq!((row.state, row.attempts), (RunState::Finished, 1), "{mode}: {:?}", row.reason);
            let run = row.run_id.to_string();
            let log = coordinator.client.log(&run, 0).await.unwrap();
            let learns: Vec<&str> = log.lines.iter().filter_map(|line| line.text.strip_prefix("learns ")).collect();
            assert_eq!(learns, [run], "{mode}: a log is of its own run, {log:?}");
        }
        let pids = read_pids(&worker.dir().join("pids"));
        assert_eq!(pids.len(), processes, "{mode}");
        // While the worker lives: a child without a run is not kept when there is no other.
        assert!(gone_within(&pids, Duration::from_secs(20)).await, "{mode}");
        worker.stop().await;
        coordinator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_takes_no_more_runs_than_it_may() {
    let coordinator = Coordinator::start().await;
    for (seed, most, processes) in [(1, 3, 3), (2, 1, 8)] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = lab::config(&coordinator, "w", "again", 1, dir.path());
        config.runs_per_child = NonZeroU32::new(most).unwrap();
        let worker = Worker::start_as(&coordinator, config, dir).await;
        let seeds = format!("axes.seed={{ linear = [{}, {}], n = 8 }}", 10 * seed, 10 * seed + 7);
        let sets = ["axes.params=['10k']", "axes.tokens=['20k']", &seeds];
        let sweep = coordinator.submit_with(&sets).await.sweep_id.to_string();
        coordinator.ended(&sweep).await;
        assert_eq!(coordinator.client.runs(&sweep).await.unwrap().len(), 8);
        assert_eq!(read_pids(&worker.dir().join("pids")).len(), processes, "{most} runs each");
        worker.stop().await;
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_goes_on_harms_no_run_after_it() {
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let mut worker = lab::spawn_foreign_worker_process(&coordinator, dir.path(), &pids);
    let mut known = 0;
    for mode in ["again", "again fork", "again dies", "again speaks", "again deaf"] {
        let sets = lab::foreign_sets(mode, 0);
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let sweep = coordinator.submit_with(&sets).await.sweep_id.to_string();
        coordinator.ended(&sweep).await;
        for row in coordinator.client.runs(&sweep).await.unwrap() {
            assert_eq!((row.state, row.attempts), (RunState::Finished, 1), "{mode}: {:?}", row.reason);
        }
        let all = read_pids(&pids);
        assert!(gone_within(&all, Duration::from_secs(20)).await, "{mode}: processes outlive their runs");
        let processes = all.len() - std::mem::replace(&mut known, all.len());
        if mode == "again" {
            assert!(processes < 4, "{processes} processes for four runs");
        }
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    coordinator.stop().await;
}
