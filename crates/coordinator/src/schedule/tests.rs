use std::sync::Arc;

use isoloss_store::sample;
use isoloss_store::{Admission, Block, Planned, Refusal, Target};
use isoloss_sweep::Outcome;
use isoloss_sweep::run::EngineKind;

use super::*;

mod bench;
mod explain;
mod health;
mod orders;
mod scale;
mod shortage;
mod simulation;
mod tenure;

use bench::{Bench, LEASE, cpu, gpu, held, on_gpu, refusals, stops};

#[test]
fn asking_again_for_a_slot_gives_the_same_lease() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1), sample::planned(2)])]);
    bench.join(cpu("w", "here", 2));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    assert_eq!(bench.acquire("w", "cpu:0").unwrap(), grant);
    assert_ne!(bench.acquire("w", "cpu:1").unwrap().run_id, grant.run_id);
}

#[test]
fn a_branch_waits_for_its_checkpoint_and_goes_only_where_it_can_be_read() {
    let mut bench = Bench::new(&[sample::admission("one", sample::trunk(7, &[20, 40]))]);
    bench.join(cpu("w", "disk-a", 1));
    bench.join(cpu("v", "disk-b", 1));
    let trunk = bench.acquire("w", "cpu:0").unwrap();
    assert!(trunk.planned.is_trunk());
    assert!(bench.acquire("v", "cpu:0").is_none(), "the branches are blocked");
    bench.publish(&trunk, 20, "disk-a");
    assert!(bench.acquire("v", "cpu:0").is_none(), "another disk");
    let branch = sample::trunk(7, &[20, 40])[1].run_id;
    assert_eq!(bench.status(branch), Status::Pending);
    assert!(bench.why(branch).contains("cannot read its trunk's checkpoint"), "{}", bench.why(branch));
    bench.settle(&trunk, sample::diverged());
    let blocked = sample::trunk(7, &[20, 40])[2].run_id;
    assert_eq!(bench.status(blocked), Status::Blocked(Block::TrunkDiverged));
    assert!(bench.why(blocked).contains("diverged before step 40"), "{}", bench.why(blocked));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    assert_eq!((grant.run_id, grant.resume.unwrap().step), (branch, 20));
    assert!(bench.acquire("v", "cpu:0").is_none());
}

#[test]
fn a_trunk_that_finishes_without_a_checkpoint_has_failed() {
    let mut bench = Bench::new(&[sample::admission("one", sample::trunk(7, &[20, 40]))]);
    bench.join(cpu("w", "here", 1));
    let trunk = bench.acquire("w", "cpu:0").unwrap();
    bench.publish(&trunk, 20, "here");
    bench.settle(&trunk, sample::finished(1.0));
    assert_eq!(bench.status(trunk.run_id), Status::Pending);
    assert!(bench.why(trunk.run_id).contains("without its checkpoint at step 40"), "{}", bench.why(trunk.run_id));
}

#[test]
fn slots_of_one_gpu_share_its_memory_and_cpu_runs_stay_away() {
    let gib = 1 << 30;
    let runs = [on_gpu(1, 6 * gib), on_gpu(2, 5 * gib), on_gpu(3, 2 * gib), sample::planned(9)];
    let mut bench = Bench::new(&[sample::admission("one", runs.clone())]);
    bench.join(gpu("g", 3, 8 * gib));
    let memory = |grant: Option<Grant>| grant.map(|grant| grant.planned.memory_bytes / gib);
    let first = bench.acquire("g", "gpu-share:0").unwrap();
    assert_eq!(first.planned.memory_bytes, 2 * gib, "the longest first");
    assert_eq!(memory(bench.acquire("g", "gpu-share:1")), Some(5));
    assert_eq!(memory(bench.acquire("g", "gpu-share:2")), None, "1 GiB is left");
    assert!(bench.why(runs[0].run_id).contains("of memory"), "{}", bench.why(runs[0].run_id));
    assert!(bench.why(runs[3].run_id).contains("not a device for the engine cpu"));
    bench.settle(&first, sample::finished(1.0));
    assert_eq!(memory(bench.acquire("g", "gpu-share:0")), None, "3 GiB are left");
}

#[test]
fn foreign_commands_go_only_to_workers_with_leave() {
    let planned = Planned { command: Some(vec!["train.py".to_owned()]), ..sample::planned(1) };
    let mut bench = Bench::new(&[sample::admission("one", [planned])]);
    bench.join(cpu("w", "here", 1));
    assert!(bench.acquire("w", "cpu:0").is_none());
    let why = bench.why(sample::planned(1).run_id);
    assert!(why.contains("needs a worker with --allow-commands for: train.py"), "{why}");
    bench.join(WorkerSpec { allow_commands: true, ..cpu("v", "here", 1) });
    assert!(bench.acquire("v", "cpu:0").is_some());
}

#[test]
fn an_expired_lease_is_granted_anew_and_its_late_outcome_is_fenced() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1)])]);
    bench.join(cpu("w", "here", 1));
    bench.join(cpu("v", "here", 1));
    let first = bench.acquire("w", "cpu:0").unwrap();
    bench.wait(LEASE - 1);
    assert_eq!(bench.status(first.run_id), Status::Leased);
    bench.renew(&first, 5);
    bench.wait(LEASE - 1);
    assert_eq!(bench.status(first.run_id), Status::Leased, "renewed");
    bench.wait(2);
    assert_eq!(bench.status(first.run_id), Status::Pending);
    let second = bench.acquire("v", "cpu:0").unwrap();
    assert_eq!(second.attempt, 2);
    assert_eq!(stops(&bench.renew(&first, 9)), [StopReason::Superseded]);
    let effects = bench.settle(&first, sample::finished(1.0));
    assert_eq!(refusals(&effects), [&Refusal::Stale { newest: 2 }]);
    assert!(refusals(&bench.settle(&second, sample::finished(2.0))).is_empty());
    let again = bench.settle(&second, sample::finished(2.0));
    assert_eq!(refusals(&again), [&Refusal::AlreadyRecorded]);
}

#[test]
fn a_worker_that_was_out_of_sight_keeps_its_run_if_nothing_newer_was_granted() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1)])]);
    bench.join(cpu("w", "here", 1));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    bench.wait(LEASE + 1);
    assert_eq!(bench.status(grant.run_id), Status::Pending);
    assert!(stops(&bench.renew(&grant, 50)).is_empty());
    assert_eq!(bench.status(grant.run_id), Status::Leased);
    let row = bench.state.ledger().run(grant.run_id).unwrap();
    assert_eq!((row.attempt, row.preemptions), (1, 0), "the lapse was none");
}

#[test]
fn a_run_that_comes_back_late_does_not_overbook_the_memory_of_its_gpu() {
    let mut bench = Bench::new(&[sample::admission("one", [on_gpu(1, 5 << 20), on_gpu(2, 5 << 20)])]);
    bench.join(gpu("g", 2, 8 << 20));
    let late = bench.acquire("g", "gpu-share:0").unwrap();
    bench.wait(LEASE + 1);
    let target = Target::Run(late.run_id);
    bench.tell(Event::Pause { target });
    assert_ne!(bench.acquire("g", "gpu-share:1").unwrap().run_id, late.run_id);
    bench.tell(Event::Resume { target });
    assert_eq!(stops(&bench.renew(&late, 5)), [StopReason::GivenUp]);
    assert_eq!(bench.status(late.run_id), Status::Pending);
}

#[test]
fn a_trunk_without_its_checkpoint_counts_as_one_failure_however_often_it_is_said() {
    let mut bench = Bench::new(&[sample::admission("one", sample::trunk(7, &[20]))]);
    bench.join(cpu("w", "here", 1));
    let trunk = bench.acquire("w", "cpu:0").unwrap();
    for _ in 0..3 {
        bench.settle(&trunk, sample::finished(1.0));
    }
    assert_eq!(bench.state.ledger().run(trunk.run_id).unwrap().failures, 1);
}

#[test]
fn a_restarted_coordinator_gives_every_lease_its_time_again() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1), sample::planned(2)])]);
    bench.join(cpu("w", "here", 2));
    let grants = [bench.acquire("w", "cpu:0").unwrap(), bench.acquire("w", "cpu:1").unwrap()];
    bench.state = State::restore(Config::default(), bench.state.ledger().clone(), bench.now);
    let unknown = bench.renew(&grants[0], 5);
    assert_eq!(unknown, [Effect::Rejoin { worker: "w".to_owned() }]);
    let holding = vec![held(&grants[0], 5)];
    let effects = bench.tell(Event::Join { spec: cpu("w", "here", 2), holding });
    assert!(stops(&effects).is_empty());
    assert_eq!(bench.status(grants[0].run_id), Status::Leased);
    assert_eq!(bench.status(grants[1].run_id), Status::Pending, "the worker lost that child meanwhile");
    assert_eq!(bench.acquire("w", "cpu:1").unwrap().attempt, 2);
}

#[test]
fn the_coordinators_own_sleep_is_no_silence_of_workers() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1)])]);
    bench.join(cpu("w", "here", 1));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    bench.wait(1000);
    bench.now += 10 * LEASE;
    bench.tell(Event::Tick);
    assert_eq!(bench.status(grant.run_id), Status::Leased);
    bench.wait(LEASE + 1);
    assert_eq!(bench.status(grant.run_id), Status::Pending);
}
