//! Workers that share nothing but a store of artifacts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use isoloss_wire::api::{Kind, RunState};
use isoloss_worker::Artifacts;
use tempfile::TempDir;

use crate::lab::{self, Coordinator, Worker, eventually};

/// Names of the run's objects, in order.
fn objects(store: &Path, run: &str) -> Vec<String> {
    let entries = std::fs::read_dir(store.join("checkpoints").join(run)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    // Those that are being written have another name.
    names.retain(|name| !name.contains('#'));
    names.sort();
    names
}

async fn heir(coordinator: &Coordinator, mode: &str, store: &Path) -> Worker {
    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(coordinator, "heir", mode, 1, dir.path());
    config.artifacts = Some(lab::artifacts(store));
    config.env.push(("LAB_STORE".into(), store.into()));
    Worker::start_as(coordinator, config, dir).await
}

/// Does not outlive a test that fails.
struct Doomed(std::process::Child);

impl Doomed {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        self.end();
    }
}

/// Lets a worker take runs until one has stored two checkpoints, then ends it and all that it had. Gives that run.
async fn die_with_two_stored(coordinator: &Coordinator, sweep: &str, store: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    // A worker in a process of its own whose attempts stop after some checkpoints.
    let mut command = lab::worker_command(coordinator, dir.path());
    let mut doomed = Doomed(command.env("LAB_STORE", store).spawn().unwrap());
    let stored = || async {
        let rows = coordinator.client.runs(sweep).await.unwrap();
        let leased = rows.into_iter().find(|row| row.state == RunState::Leased && row.kind != Kind::Trunk)?;
        let run = leased.run_id.to_string();
        (objects(store, &run).len() == 2).then_some(run)
    };
    eventually("two checkpoints are stored", || async { stored().await.is_some() }).await;
    let run = stored().await.unwrap();
    doomed.end();
    dir.close().unwrap();
    run
}

async fn log(coordinator: &Coordinator, run: &str) -> String {
    let lines = coordinator.client.log(run, 0).await.unwrap().lines;
    lines.iter().map(|line| format!("{}: {}\n", line.attempt, line.text)).collect()
}

fn store() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_goes_on_where_one_that_is_gone_for_good_stopped() {
    let coordinator = Coordinator::start().await;
    let (_dir, store) = store();
    let sets = ["axes.params=['10k']", "train.schedule='wsd'", "retry.failures=0"];
    let sweep = coordinator.submit_with(&sets).await.sweep_id.to_string();
    let taken_over = die_with_two_stored(&coordinator, &sweep, &store).await;

    let heir = heir(&coordinator, "stages", &store).await;
    coordinator.ended(&sweep).await;
    let rows = coordinator.client.runs(&sweep).await.unwrap();
    let trunk = rows.iter().find(|row| row.kind == Kind::Trunk).expect("a trunk").run_id.to_string();
    let branches: Vec<_> = rows.iter().filter(|row| row.kind != Kind::Trunk).collect();
    assert_eq!(branches.len(), 2);
    for row in branches {
        assert_eq!(row.state, RunState::Finished, "{row:?}");
        let run = row.run_id.to_string();
        let log = log(&coordinator, &run).await;
        if run == taken_over {
            assert!(log.contains(&format!("2: goes on from {run} ")), "its own checkpoint: {log}");
            assert_eq!(row.attempts, 2);
        } else {
            assert!(log.contains(&format!("1: goes on from {trunk} ")), "the trunk's checkpoint: {log}");
        }
        eventually("only the newest stays", || async { objects(&store, &run).len() == 1 }).await;
    }
    assert_eq!(objects(&store, &trunk).len(), 2, "branch points stay");
    let fetched = std::fs::read_dir(heir.dir().join("checkpoints").join(&trunk).join("0")).unwrap().count();
    assert!(fetched >= 2, "the trunk's checkpoint and a note of it are kept here: {fetched}");
    heir.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_whose_bytes_changed_is_refused_and_the_one_before_it_taken() {
    let coordinator = Coordinator::start().await;
    let (_dir, store) = store();
    let sets = ["axes.params=['10k']", "axes.tokens=['20k']"];
    let sweep = coordinator.submit_with(&sets).await.sweep_id.to_string();
    let run = die_with_two_stored(&coordinator, &sweep, &store).await;
    let newest = objects(&store, &run).pop().unwrap();
    assert!(newest.starts_with("2-"), "{newest}");
    std::fs::write(store.join("checkpoints").join(&run).join(newest), format!("{run} 7")).unwrap();

    let heir = heir(&coordinator, "stages", &store).await;
    coordinator.ended(&sweep).await;
    let log = log(&coordinator, &run).await;
    assert!(
        log.contains("2: passed over: the artifact") && log.contains(&format!("2: goes on from {run} 1\n")),
        "{log}"
    );
    let row = coordinator.client.runs(&sweep).await.unwrap().remove(0);
    assert_eq!((row.state, row.attempts), (RunState::Finished, 2));
    heir.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_takes_an_attempt_and_no_run() {
    let coordinator = Coordinator::start().await;
    let (_dir, store) = store();
    let sets = ["axes.params=['10k']", "axes.tokens=['20k']", "retry.failures=0"];
    let sweep = coordinator.submit_with(&sets).await.sweep_id.to_string();
    let worker = heir(&coordinator, "spoiler", &store).await;
    let first_end = || async {
        let row = coordinator.client.runs(&sweep).await.unwrap().remove(0);
        let why = coordinator.client.explain(&row.run_id.to_string()).await.unwrap();
        why.attempts.first().and_then(|attempt| attempt.end.clone())
    };
    eventually("the first attempt ends", || async { first_end().await.is_some() }).await;
    let end = first_end().await.unwrap();
    assert!(end.contains("artifacts: "), "{end}");
    std::fs::remove_file(store.join("checkpoints")).unwrap();
    coordinator.ended(&sweep).await;
    let row = coordinator.client.runs(&sweep).await.unwrap().remove(0);
    assert_eq!(row.state, RunState::Finished, "{row:?}");
    assert!(row.attempts >= 2);
    worker.stop().await;
    coordinator.stop().await;
}

/// `ISOLOSS_TEST_S3=s3://bucket/prefix` with the `AWS_*` variables of a server whose bucket is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_a_store_whose_credentials_no_child_sees() {
    let Ok(url) = std::env::var("ISOLOSS_TEST_S3") else {
        return eprintln!("skipped: ISOLOSS_TEST_S3 names no bucket");
    };
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(&coordinator, "w", "stages", 1, dir.path());
    config.artifacts = Some(Artifacts::open(&url, std::env::vars()).unwrap());
    config.env.push(("LAB_BUCKET".into(), "1".into()));
    let worker = Worker::start_as(&coordinator, config, dir).await;
    let sets = ["axes.params=['10k']", "axes.tokens=['20k']", "retry.failures=0"];
    let sweep = coordinator.submit_with(&sets).await.sweep_id.to_string();
    coordinator.ended(&sweep).await;
    let row = coordinator.client.runs(&sweep).await.unwrap().remove(0);
    assert_eq!((row.state, row.attempts), (RunState::Finished, 1), "{row:?}");
    worker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_does_not_start_with_a_store_that_it_cannot_write() {
    let coordinator = Coordinator::start().await;
    let (outer, store) = store();
    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(&coordinator, "w", "finish", 1, dir.path());
    config.artifacts = Some(lab::artifacts(&store));
    outer.close().unwrap();
    std::fs::write(&store, "no folder any more").unwrap();
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    let ended = tokio::time::timeout(Duration::from_secs(60), isoloss_worker::run(config, shutdown)).await;
    let error = ended.unwrap().unwrap_err().to_string();
    std::fs::remove_file(&store).unwrap();
    assert!(error.contains("cannot be written") && error.contains("file://"), "{error}");
    coordinator.stop().await;
}
