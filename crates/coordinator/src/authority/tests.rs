use std::time::Duration;

use isoloss_store::disk::sim::{SimDisk, Tear};
use isoloss_store::{Refusal, Status, Store, StoreError, Target, sample};

use super::*;
use crate::schedule::{Config, Device, Ending, Holding, Slot, WorkerSpec};

const NOT_AT_ALL: Duration = Duration::ZERO;

fn begin(disk: &SimDisk) -> (Authority, Keeper) {
    let store = Store::open_on(Box::new(disk.clone())).unwrap();
    start(store, Config::default()).unwrap()
}

fn worker(name: &str) -> WorkerSpec {
    WorkerSpec {
        worker: name.to_owned(),
        instance: None,
        place: "somewhere".to_owned(),
        code_version: "test".to_owned(),
        gpu_names: std::collections::BTreeMap::new(),
        slots: vec![Slot { name: "cpu:0".to_owned(), device: Device::Cpu { threads: 1 }, memory_bytes: 1 << 30 }],
        storage: "here".to_owned(),
        allow_commands: false,
    }
}

async fn grant(authority: &Authority, name: &str, wait: Duration) -> Option<crate::schedule::Grant> {
    authority.acquire(name.to_owned(), None, "cpu:0".to_owned(), wait).await.unwrap()
}

fn ending(loss: f64) -> Ending {
    Ending::Outcome(Box::new(sample::finished(loss)))
}

#[tokio::test]
async fn a_sweep_is_handed_in_granted_settled_and_there_after_a_restart() {
    let disk = SimDisk::default();
    let (authority, keeper) = begin(&disk);
    let admission = sample::admission("one", [sample::planned(1), sample::planned(2)]);
    let submitted = authority.submit(admission.clone()).await.unwrap();
    assert_eq!((submitted.runs, submitted.added, submitted.reused), (2, 2, 0));
    let submitted = authority.submit(admission.clone()).await.unwrap();
    assert_eq!((submitted.runs, submitted.added), (2, 0), "handing it in again adds nothing");
    let unknown = authority.acquire("w".to_owned(), None, "cpu:0".to_owned(), NOT_AT_ALL).await;
    assert!(matches!(unknown, Err(AuthorityError::UnknownWorker(_))));
    authority.join(worker("w"), Vec::new()).await.unwrap();
    let first = grant(&authority, "w", NOT_AT_ALL).await.unwrap();
    let settle = |loss| authority.settle("w".to_owned(), first.run_id, first.attempt, ending(loss));
    assert_eq!(settle(1.5).await.unwrap(), Settlement::Recorded);
    assert_eq!(settle(1.5).await.unwrap(), Settlement::AlreadyRecorded);
    assert!(matches!(settle(1.6).await.unwrap(), Settlement::Refused(Refusal::Conflict { .. })));
    let second = grant(&authority, "w", NOT_AT_ALL).await.unwrap();
    authority.stop().await;
    keeper.ended().await.unwrap();
    assert!(authority.heads().await.is_err());

    let (authority, _keeper) = begin(&disk.crash(Tear::Lost));
    assert_eq!(authority.outcome(first.run_id).await.unwrap(), Some(sample::finished(1.5)));
    let holding = Holding { run_id: second.run_id, attempt: second.attempt, slot: second.slot.clone(), progress: None };
    let verdicts = authority.join(worker("w"), vec![holding]).await.unwrap();
    assert!(verdicts[0].keep.is_ok(), "running work does not notice the restart");
    let members = authority.part(admission.sweep_id, 0..admission.runs.len()).await.unwrap();
    let statuses: Vec<Status> = members.iter().map(|member| member.run.status).collect();
    assert!(statuses.contains(&Status::Finished) && statuses.contains(&Status::Leased), "{statuses:?}");
    assert_eq!(authority.admission(admission.sweep_id).await.unwrap().as_deref(), Some(&admission));
}

#[tokio::test]
async fn whoever_waits_for_work_gets_it_when_it_comes() {
    let (authority, _keeper) = begin(&SimDisk::default());
    authority.join(worker("w"), Vec::new()).await.unwrap();
    assert_eq!(grant(&authority, "w", NOT_AT_ALL).await, None);
    let asking = authority.clone();
    let waiting = tokio::spawn(async move { grant(&asking, "w", Duration::from_secs(600)).await });
    authority.submit(sample::admission("one", [sample::planned(1)])).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().run_id, sample::planned(1).run_id);
}

#[tokio::test]
async fn after_a_failed_fsync_nothing_is_acknowledged_and_the_daemon_is_told() {
    let disk = SimDisk::default();
    let (authority, keeper) = begin(&disk);
    authority.submit(sample::admission("one", [sample::planned(1)])).await.unwrap();
    authority.join(worker("w"), Vec::new()).await.unwrap();
    let granted = grant(&authority, "w", NOT_AT_ALL).await.unwrap();
    disk.fail_sync_at(disk.syncs() + 1);
    let answer = authority.settle("w".to_owned(), granted.run_id, granted.attempt, ending(1.0)).await;
    assert!(matches!(answer, Err(AuthorityError::Gone(_))));
    let error = keeper.ended().await.unwrap_err();
    assert!(error.is_fatal(), "{error}");
    assert!(authority.run(granted.run_id).await.is_err());
    let (authority, _keeper) = begin(&disk.crash(Tear::Lost));
    let run = authority.run(granted.run_id).await.unwrap().unwrap();
    assert_eq!(run.status, Status::Leased);
    let holding =
        Holding { run_id: granted.run_id, attempt: granted.attempt, slot: granted.slot.clone(), progress: None };
    authority.join(worker("w"), vec![holding]).await.unwrap();
    let answer = authority.settle("w".to_owned(), granted.run_id, granted.attempt, ending(1.0)).await;
    assert_eq!(answer.unwrap(), Settlement::Recorded, "the worker kept it and says it again");
}

#[tokio::test]
async fn an_outcome_that_cannot_be_written_is_refused_and_harms_nobody() {
    let (authority, _keeper) = begin(&SimDisk::default());
    authority.submit(sample::admission("one", [sample::planned(1)])).await.unwrap();
    authority.join(worker("w"), Vec::new()).await.unwrap();
    let granted = grant(&authority, "w", NOT_AT_ALL).await.unwrap();
    let answer = authority.settle("w".to_owned(), granted.run_id, granted.attempt, ending(f64::NAN)).await;
    assert!(matches!(answer, Err(AuthorityError::Store(StoreError::Unwritable(_)))));
    assert_eq!(authority.run(granted.run_id).await.unwrap().unwrap().status, Status::Leased);
}

#[tokio::test]
async fn orders_say_what_they_touched_and_watchers_hear_of_it() {
    let (authority, _keeper) = begin(&SimDisk::default());
    let admission = sample::admission("one", [sample::planned(1), sample::planned(2)]);
    authority.submit(admission.clone()).await.unwrap();
    let mut changes = authority.changes();
    let target = Target::Sweep(admission.sweep_id);
    assert_eq!(authority.cancel(target).await.unwrap(), 2);
    let heard = [changes.recv().await.unwrap(), changes.recv().await.unwrap()];
    assert!(admission.runs.iter().all(|planned| heard.contains(&planned.run_id)));
    let nobody = Target::Run(sample::planned(77).run_id);
    let refused = authority.cancel(nobody).await;
    assert!(matches!(refused, Err(AuthorityError::Refused(Refusal::UnknownRun))));
    let why = authority.explain(sample::planned(1).run_id).await.unwrap().unwrap();
    assert!(why[0].contains("an order cancelled its sweep one"), "{why:?}");
}
