//! Several GPUs of one worker, with trainers that only look at which one they were given.

use std::collections::BTreeMap;
use std::time::Duration;

use isoloss_wire::api::RunState;
use isoloss_worker::gpu_slots;

use crate::lab::{self, Coordinator, Worker, eventually};
use crate::processes::read_pids;
use crate::trainer::DEAD_GPU;

/// As a GPU that hangs would leave it.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_says_nothing_on_its_gpu_is_ended_and_tried_again() {
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(&coordinator, "w", "stuck", 1, dir.path());
    config.slots = gpu_slots("GPU-1", 80 << 30, 4);
    config.silence = Duration::from_secs(2);
    let worker = Worker::start_as(&coordinator, config, dir).await;
    let sweep = coordinator.submit_with(&["train.engine='cuda'"]).await.sweep_id.to_string();
    coordinator.ended(&sweep).await;
    for row in coordinator.client.runs(&sweep).await.unwrap() {
        assert_eq!((row.state, row.attempts), (RunState::Finished, 2), "{row:?}");
        let why = coordinator.client.explain(&row.run_id.to_string()).await.unwrap();
        let first = format!("{:?}", why.attempts[0]);
        assert!(first.contains("the trainer on a GPU said nothing of its run for 2 s"), "{first}");
    }
    worker.stop().await;
    coordinator.stop().await;
}

async fn worker(coordinator: &Coordinator, mode: &str, gpus: &[&str], runs: u32) -> Worker {
    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(coordinator, "w", mode, 1, dir.path());
    config.slots = gpus.iter().flat_map(|gpu| gpu_slots(gpu, 80 << 30, runs)).collect();
    Worker::start_as(coordinator, config, dir).await
}

/// How often each GPU had a run of the sweep, where all runs have finished.
async fn attempts(coordinator: &Coordinator, sweep: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for row in coordinator.client.runs(sweep).await.unwrap() {
        assert_eq!(row.state, RunState::Finished, "{row:?}");
        let why = coordinator.client.explain(&row.run_id.to_string()).await.unwrap();
        for attempt in why.attempts {
            *found.entry(attempt.device.split(':').next().unwrap().to_owned()).or_default() += 1;
        }
    }
    found
}

/// The worker is there first, so that all its slots could ask before there is work.
#[tokio::test(flavor = "multi_thread")]
async fn runs_are_spread_over_gpus() {
    let coordinator = Coordinator::start().await;
    let gpus = ["GPU-1", "GPU-2", "GPU-3", "GPU-4"];
    let worker = worker(&coordinator, "wait", &gpus, 4).await;
    let sweep = coordinator.submit_with(&["train.engine='cuda'"]).await.sweep_id.to_string();
    let pids = worker.dir().join("pids");
    eventually("all runs are under way", || async { read_pids(&pids).len() == 4 }).await;
    worker.release();
    coordinator.ended(&sweep).await;
    assert_eq!(attempts(&coordinator, &sweep).await, gpus.map(|gpu| (gpu.to_owned(), 1)).into());
    worker.stop().await;
    coordinator.stop().await;
}

/// Also what fits the emptier GPU not is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_is_too_small_does_not_keep_runs_from_another() {
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(&coordinator, "w", "wait", 1, dir.path());
    config.slots = [gpu_slots("GPU-1", 80 << 30, 4), gpu_slots("GPU-2", 1 << 20, 4)].concat();
    let worker = Worker::start_as(&coordinator, config, dir).await;
    let sweep = coordinator.submit_with(&["train.engine='cuda'"]).await.sweep_id.to_string();
    let pids = worker.dir().join("pids");
    eventually("all runs are under way", || async { read_pids(&pids).len() == 4 }).await;
    worker.release();
    coordinator.ended(&sweep).await;
    assert_eq!(attempts(&coordinator, &sweep).await, [("GPU-1".to_owned(), 4)].into());
    worker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_gpu_beside_a_healthy_one_takes_few_runs_and_fails_none() {
    let coordinator = Coordinator::start().await;
    let worker = worker(&coordinator, "gpus", &["GPU-1", DEAD_GPU], 1).await;
    let sets = ["train.engine='cuda'", "retry.failures=0", "axes.seed=[1, 2, 3]"];
    let sweep = coordinator.submit_with(&sets).await.sweep_id.to_string();
    coordinator.ended(&sweep).await;
    let attempts = attempts(&coordinator, &sweep).await;
    assert_eq!(attempts["GPU-1"], 12);
    assert!((1..=3).contains(&attempts[DEAD_GPU]), "{attempts:?}");
    worker.stop().await;
    coordinator.stop().await;
}

/// Four runs are on one GPU at the same time, of another sweep each has a pair of GPUs to itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_tells_which_gpu_the_run_had_and_how_much_of_it() {
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(&coordinator, "w", "wait", 1, dir.path());
    config.slots = gpu_slots("GPU-1", 80 << 30, 4);
    config.gpu_names = [("GPU-1".to_owned(), "H200".to_owned())].into();
    let worker = Worker::start_as(&coordinator, config, dir).await;
    let sweep = coordinator.submit_with(&["train.engine='cuda'"]).await.sweep_id.to_string();
    let pids = worker.dir().join("pids");
    eventually("all runs are under way", || async { read_pids(&pids).len() == 4 }).await;
    let live = coordinator.leased(&sweep).await.live.unwrap().gpu.unwrap();
    assert_eq!((live.uuid.as_str(), live.name.as_deref(), live.seconds), ("GPU-1", Some("H200"), None));
    let row = coordinator.client.workers().await.unwrap().workers.remove(0);
    assert_eq!(row.gpu_names["GPU-1"], "H200");
    worker.release();
    coordinator.ended(&sweep).await;
    for row in coordinator.client.runs(&sweep).await.unwrap() {
        let (gpu, seconds) = (row.gpu.clone().unwrap(), row.seconds.unwrap());
        assert_eq!((gpu.card().as_str(), gpu.mps), ("H200 GPU-1", false));
        assert!(gpu.seconds.is_some_and(|had| had > 0.0 && had < seconds), "it was never alone: {row:?}");
    }
    worker.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(&coordinator, "v", "finish", 1, dir.path());
    config.slots = [gpu_slots("GPU-1,GPU-2", 80 << 30, 1), isoloss_worker::core_groups(1, 1, 4 << 30)].concat();
    let worker = Worker::start_as(&coordinator, config, dir).await;
    for engine in ["cuda", "reference"] {
        let sets = [format!("train.engine='{engine}'"), "seed=2".to_owned()];
        let submitted = coordinator.submit_with(&sets.each_ref().map(String::as_str)).await;
        let sweep = submitted.sweep_id.to_string();
        coordinator.ended(&sweep).await;
        for row in coordinator.client.runs(&sweep).await.unwrap() {
            let had = row.gpu.map(|gpu| (gpu.card(), gpu.seconds.unwrap() / row.seconds.unwrap()));
            assert_eq!(had, (engine == "cuda").then(|| ("GPU-1,GPU-2".to_owned(), 2.0)));
        }
    }
    worker.stop().await;
    coordinator.stop().await;
}
