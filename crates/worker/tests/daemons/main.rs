//! Coordinator and workers as they are used, with trainers that do nothing: leases, endings, restarts, deaths.

mod artifacts;
mod foreign;
mod gpus;
mod lab;
mod mps;
mod processes;
mod reuse;
mod rogue;
mod stages;
mod trainer;

use std::process::Command;
use std::time::Duration;

use isoloss_sweep::Outcome;
use isoloss_wire::api::{Code, Ending, Event, FitQuery, Phase, RunState, Verdict};
use lab::{Coordinator, FakeWorker, Worker, eventually};
use processes::{gone_within, is_alive, read_pids};

/// Not a test but the trainer of the others: a child process is this very binary.
#[test]
fn fake_trainer() {
    trainer::run();
}

/// Not a test: a worker in a process of its own, to be killed.
#[test]
fn worker_process() {
    lab::worker_process();
}

/// Not a test: the guard in a process of its own.
#[test]
fn guard_process() {
    let words: Vec<_> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    if !words.is_empty() {
        std::process::exit(isoloss_worker::guard(&words).unwrap());
    }
    if std::env::var_os("LAB_GUARD").is_some() {
        let script = "sleep 600 & echo $! >> $LAB_PIDS; setsid sleep 601 & echo $! >> $LAB_PIDS; \
                      echo $$ >> $LAB_PIDS; exec sleep 602";
        let code = isoloss_worker::guard(&["sh".into(), "-c".into(), script.into()]).unwrap();
        std::process::exit(code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_runs_to_its_end_and_again_adds_nothing() {
    let coordinator = Coordinator::start().await;
    let worker = Worker::start(&coordinator, "w", "finish", 2).await;
    let client = &coordinator.client;
    let submitted = coordinator.submit().await;
    assert_eq!((submitted.runs, submitted.added, submitted.reused), (4, 4, 0));
    let sweep = submitted.sweep_id.to_string();

    let mut events = client.events(&sweep).await.unwrap();
    let mut last = None;
    while let Some(event) = events.next().await.unwrap() {
        last = Some(event);
    }
    let Some(Event::End { row }) = last else { panic!("the stream ends with the sweep, got {last:?}") };
    assert_eq!((row.phase, row.counts.finished, row.progress_ratio), (Phase::Ended, 4, 1.0));

    let results = client.results(&sweep).await.unwrap();
    assert_eq!(results.len(), 4);
    for result in &results {
        assert_eq!((result.row.state, result.row.attempts), (RunState::Finished, 1));
        assert!(matches!(&result.outcome, Some(Outcome::Finished(run)) if run.tokens == result.row.tokens));
        assert_eq!(result.run.id(), result.row.run_id);
        assert!(!result.curve.is_empty());
    }
    let log = client.log(&results[0].row.run_id.to_string(), 0).await.unwrap();
    assert!(log.lines.iter().any(|line| line.text.contains("this is not a line of the protocol")), "{log:?}");

    let fetched = worker.dir().join("corpora").join(results[0].run.data.corpus.to_string());
    assert!(fetched.join("manifest.json").is_file(), "the worker has the corpus under its own root");
    let fit = client.fit(&sweep, &FitQuery { resamples: Some(20), ..FitQuery::default() }).await.unwrap();
    assert_eq!(fit["observations"]["count"], 4);
    let again = coordinator.submit().await;
    assert_eq!((again.sweep_id, again.added, again.reused), (submitted.sweep_id, 0, 4));
    worker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ending_whose_answer_was_lost_is_sent_again_and_recorded_once() {
    let coordinator = Coordinator::start().await;
    coordinator.submit().await;
    let by_hand = FakeWorker::join(&coordinator, "w").await;
    let settle = by_hand.finished(&by_hand.acquire().await);
    let first = coordinator.client.settle(&settle).await.unwrap();
    assert!(!first.duplicate);

    // The answer never reached the worker's disk: its next life finds the ending in the outbox and sends it again.
    let dir = tempfile::tempdir().unwrap();
    let outbox = dir.path().join("outbox");
    std::fs::create_dir_all(&outbox).unwrap();
    let letter = outbox.join(format!("{}-{}.json", settle.run_id, settle.attempt));
    std::fs::write(&letter, serde_json::to_vec(&settle).unwrap()).unwrap();
    let worker = Worker::start_in(&coordinator, "w", "finish", 1, dir).await;
    eventually("the outbox is empty", || async { !letter.exists() }).await;
    assert!(coordinator.client.settle(&settle).await.unwrap().duplicate);
    let run = coordinator.client.run(&settle.run_id.to_string()).await.unwrap();
    assert_eq!((run.row.state, run.row.attempts), (RunState::Finished, 1));
    worker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_token_is_refused() {
    let coordinator = Coordinator::start().await;
    coordinator.submit().await;
    let worker = FakeWorker::join(&coordinator, "w").await;
    let old = worker.acquire().await;
    assert_eq!(worker.acquire().await, old, "a slot that holds a lease gets the same again");
    worker.settle(&worker.ending(&old, Ending::Yielded { reason: "preempted".to_owned(), wait: false })).await.unwrap();
    let new = worker.acquire_run(old.run_id).await;
    assert!(new.attempt > old.attempt);

    let refused = worker.settle(&worker.finished(&old)).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::StaleToken), "{refused}");
    let verdicts = worker.renew(&[&old, &new]).await;
    assert!(matches!(verdicts[&(old.run_id, old.attempt)], Verdict::Stop { .. }));
    assert!(matches!(verdicts[&(new.run_id, new.attempt)], Verdict::Keep { .. }));
    worker.settle(&worker.finished(&new)).await.unwrap();
    let run = coordinator.client.run(&new.run_id.to_string()).await.unwrap();
    assert_eq!((run.row.state, run.row.attempts), (RunState::Finished, new.attempt));
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_is_tried_again_unless_it_says_not_to() {
    let coordinator = Coordinator::start().await;
    let flaky = Worker::start(&coordinator, "flaky", "flaky", 2).await;
    let sweep = coordinator.submit().await.sweep_id.to_string();
    coordinator.ended(&sweep).await;
    for row in coordinator.client.runs(&sweep).await.unwrap() {
        assert_eq!((row.state, row.attempts), (RunState::Finished, 2));
        let why = coordinator.client.explain(&row.run_id.to_string()).await.unwrap();
        let end = why.attempts[0].end.clone().unwrap();
        assert!(end.contains("exit code 75") && end.contains("out of luck"), "{end}");
    }
    flaky.stop().await;
    let hopeless = Worker::start(&coordinator, "hopeless", "hopeless", 1).await;
    let sweep = coordinator.submit_with(&["seed=2"]).await.sweep_id.to_string();
    coordinator.ended(&sweep).await;
    for row in coordinator.client.runs(&sweep).await.unwrap() {
        assert_eq!((row.state, row.attempts), (RunState::Failed, 1));
    }
    hopeless.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_no_failure_of_the_run_and_its_words_outlive_the_coordinator() {
    let coordinator = Coordinator::start().await;
    let worker = Worker::start(&coordinator, "w", "full", 2).await;
    let sweep = coordinator.submit_with(&["retry.failures=0"]).await.sweep_id.to_string();
    coordinator.ended(&sweep).await;
    worker.stop().await;
    let coordinator = coordinator.restart().await;
    for row in coordinator.client.runs(&sweep).await.unwrap() {
        assert_eq!((row.state, row.attempts), (RunState::Finished, 2), "{row:?}");
        let run = row.run_id.to_string();
        let why = coordinator.client.explain(&run).await.unwrap();
        let ends: Vec<&str> = why.attempts.iter().filter_map(|attempt| attempt.end.as_deref()).collect();
        assert!(ends[0].contains("no space left") && ends[1].contains("finished"), "{ends:?}");
        assert!(why.attempts[1].device.starts_with("cpu:"), "{why:?}");
        let log = coordinator.client.log(&run, 0).await.unwrap();
        assert!(log.lines.iter().any(|line| line.attempt == 1 && line.text.contains("no space left")), "{log:?}");
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_work_does_not_notice_a_coordinator_that_restarts() {
    let coordinator = Coordinator::start().await;
    let worker = Worker::start(&coordinator, "w", "wait", 1).await;
    let sweep = coordinator.submit().await.sweep_id.to_string();
    coordinator.leased(&sweep).await;
    worker.child().await;
    let coordinator = coordinator.restart().await;
    worker.release();
    coordinator.ended(&sweep).await;
    for row in coordinator.client.runs(&sweep).await.unwrap() {
        assert_eq!((row.state, row.attempts), (RunState::Finished, 1), "{row:?}");
    }
    worker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_gives_its_runs_back_and_a_cancelled_run_is_stopped() {
    let coordinator = Coordinator::start().await;
    let worker = Worker::start(&coordinator, "w", "wait", 1).await;
    let sweep = coordinator.submit().await.sweep_id.to_string();
    let run = coordinator.leased(&sweep).await.run_id.to_string();
    worker.stop().await;
    let why = coordinator.client.explain(&run).await.unwrap();
    assert_eq!(why.state, RunState::Pending, "{why:?}");
    assert!(why.attempts[0].end.as_deref().unwrap().contains("the worker was stopped"), "{why:?}");

    let worker = Worker::start(&coordinator, "w", "wait", 1).await;
    coordinator.leased(&sweep).await;
    let pid = worker.child().await;
    coordinator.client.order_sweep(&sweep, "cancel").await.unwrap();
    coordinator.ended(&sweep).await;
    assert!(gone_within(&[pid], Duration::from_secs(20)).await);
    let rows = coordinator.client.runs(&sweep).await.unwrap();
    assert!(rows.iter().all(|row| row.state == RunState::Cancelled), "{rows:?}");
    worker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_child_outlives_its_worker() {
    let coordinator = Coordinator::start().await;
    for guarded in [false, true] {
        let sets: &[&str] = if guarded { &["seed=2"] } else { &[] };
        coordinator.submit_with(sets).await;
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let mut worker = lab::spawn_worker_process(&coordinator, dir.path(), &pids, guarded);
        let expected = if guarded { 3 } else { 1 };
        let count = || std::fs::read_to_string(&pids).unwrap_or_default().lines().count();
        eventually("the children run", || async { count() == expected }).await;
        let children = read_pids(&pids);
        assert!(children.iter().all(|pid| is_alive(*pid)));
        worker.kill().unwrap();
        worker.wait().unwrap();
        assert!(gone_within(&children, Duration::from_secs(2)).await, "guarded: {guarded}, {children:?}");
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_needs_the_token_and_its_directory_for_itself() {
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    let mut config = lab::config(&coordinator, "w", "finish", 1, dir.path());
    config.token = Some("guess".to_owned());
    let error = isoloss_worker::run(config, shutdown.clone()).await.unwrap_err();
    assert!(error.to_string().contains("token"), "{error}");

    let first = Worker::start_in(&coordinator, "w", "finish", 1, dir).await;
    let error = isoloss_worker::run(lab::config(&coordinator, "w", "finish", 1, &first.dir()), shutdown).await;
    assert!(error.unwrap_err().to_string().contains("another worker uses"));
    first.stop().await;
    coordinator.stop().await;
}

/// A copy of its directory was started, or another worker came while it was away: it must not fight for the name.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_name_went_to_another_process_ends_and_says_so() {
    let coordinator = Coordinator::start().await;
    let sweep = coordinator.submit().await.sweep_id.to_string();
    let dir = tempfile::tempdir().unwrap();
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    let life = tokio::spawn(isoloss_worker::run(lab::config(&coordinator, "w", "wait", 1, dir.path()), shutdown));
    coordinator.leased(&sweep).await;
    let identity = std::fs::read(dir.path().join("identity.json")).unwrap();
    let home = serde_json::from_slice::<serde_json::Value>(&identity).unwrap()["home"].as_str().unwrap().to_owned();
    FakeWorker::join_as(&coordinator, "w", "other", &home).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), life).await.expect("it ends by itself");
    let error = ended.unwrap().unwrap_err().to_string();
    assert!(error.contains("another took its name") && error.contains("the other process"), "{error}");
    coordinator.stop().await;
}

/// The command of a process group must end with it even when it is ended from outside.
#[tokio::test(flavor = "multi_thread")]
async fn the_guard_ends_with_its_input() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let mut guard = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "guard_process", "--nocapture"])
        .env("LAB_GUARD", "1")
        .env("LAB_PIDS", &pids)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the command runs", || async { read_pids(&pids).len() == 3 }).await;
    drop(guard.stdin.take());
    assert_eq!(guard.wait().unwrap().code(), Some(isoloss_wire::child::EXIT_RETRY));
    assert!(gone_within(&read_pids(&pids), Duration::from_secs(2)).await);
}
