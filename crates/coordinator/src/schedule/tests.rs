use std::sync::Arc;

use isoloss_store::sample;
use isoloss_store::{Admission, Block, Planned, Refusal, Target};
use isoloss_sweep::Outcome;
use isoloss_sweep::run::EngineKind;

use super::*;

mod simulation;

const LEASE: Millis = 30_000;

/// A state with its clock, and shorthands for what happens to it.
struct Bench {
    state: State,
    now: Millis,
}

impl Bench {
    fn new(admissions: &[Admission]) -> Self {
        let mut bench = Self {
            state: State::restore(Config::default(), Ledger::default(), 0),
            now: 0,
        };
        for admission in admissions {
            bench.submit(admission);
        }
        bench
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        step(&mut self.state, event, self.now)
    }

    fn submit(&mut self, admission: &Admission) -> Vec<Effect> {
        let admission = Arc::new(admission.clone());
        self.tell(Event::Submit { admission })
    }

    fn join(&mut self, spec: WorkerSpec) {
        self.tell(Event::Join {
            spec,
            holding: Vec::new(),
        });
    }

    fn acquire(&mut self, worker: &str, slot: &str) -> Option<Grant> {
        let event = Event::Acquire {
            worker: worker.to_owned(),
            slot: slot.to_owned(),
        };
        self.tell(event).into_iter().find_map(|effect| match effect {
            Effect::Grant(grant) => Some(grant),
            _ => None,
        })
    }

    fn settle(&mut self, grant: &Grant, outcome: Outcome) -> Vec<Effect> {
        self.tell(Event::Settle {
            worker: grant.worker.clone(),
            run_id: grant.run_id,
            attempt: grant.attempt,
            ending: Ending::Outcome(Box::new(outcome)),
        })
    }

    fn renew(&mut self, grant: &Grant, step: u64) -> Vec<Effect> {
        let holding = vec![held(grant, step)];
        self.tell(Event::Renew {
            worker: grant.worker.clone(),
            holding,
        })
    }

    fn publish(&mut self, grant: &Grant, step: u64, storage: &str) -> Vec<Effect> {
        self.tell(Event::Publish {
            worker: grant.worker.clone(),
            run_id: grant.run_id,
            attempt: grant.attempt,
            checkpoint: sample::checkpoint(step, storage),
        })
    }

    /// Lets time pass, second by second.
    fn wait(&mut self, ms: Millis) {
        let until = self.now + ms;
        while self.now < until {
            self.now = (self.now + 1000).min(until);
            self.tell(Event::Tick);
        }
    }

    fn status(&self, run_id: RunId) -> Status {
        self.state.status(run_id).unwrap()
    }

    fn why(&self, run_id: RunId) -> String {
        self.state.explain(run_id, self.now).unwrap().join("; ")
    }
}

fn held(grant: &Grant, step: u64) -> Holding {
    let progress = (step > 0).then_some(Progress {
        step,
        steps: 100,
        tokens: step,
        tokens_per_second: 1.0,
        loss_nats: None,
        bits_per_byte: None,
        memory_bytes: 0,
    });
    Holding {
        run_id: grant.run_id,
        attempt: grant.attempt,
        slot: grant.slot.clone(),
        progress,
    }
}

fn cpu(name: &str, storage: &str, slots: u32) -> WorkerSpec {
    let slot = |n| Slot {
        name: format!("cpu:{n}"),
        device: Device::Cpu { threads: 1 },
        memory_bytes: 64 << 20,
    };
    WorkerSpec {
        worker: name.to_owned(),
        code_version: "test".to_owned(),
        slots: (0..slots).map(slot).collect(),
        storage: storage.to_owned(),
        allow_commands: false,
    }
}

/// A worker whose slots share one GPU of this memory.
fn gpu(name: &str, slots: u32, memory_bytes: u64) -> WorkerSpec {
    let slot = |n| Slot {
        name: format!("gpu-share:{n}"),
        device: Device::Gpu {
            uuid: format!("GPU-{name}"),
        },
        memory_bytes,
    };
    WorkerSpec {
        slots: (0..slots).map(slot).collect(),
        ..cpu(name, name, 0)
    }
}

fn on_gpu(seed: u64, memory_bytes: u64) -> Planned {
    let mut planned = sample::planned(seed);
    planned.run.numerics.engine = EngineKind::Cuda;
    Planned {
        run_id: planned.run.id(),
        memory_bytes,
        ..planned
    }
}

fn stops(effects: &[Effect]) -> Vec<StopReason> {
    let reason = |effect: &Effect| match effect {
        Effect::Stop { reason, .. } => Some(*reason),
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

fn refusals(effects: &[Effect]) -> Vec<&Refusal> {
    let mut refusals = Vec::new();
    for effect in effects {
        if let Effect::Refused(refusal) = effect {
            refusals.push(refusal);
        }
    }
    refusals
}

#[test]
fn earlier_sweeps_go_first_and_in_each_the_longest_run() {
    let one = sample::admission("one", [sample::planned(1), sample::planned(5), sample::planned(3)]);
    let two = sample::admission("two", [sample::planned(9)]);
    let mut bench = Bench::new(&[one, two]);
    bench.join(cpu("w", "here", 4));
    let order: Vec<f64> = (0..4)
        .map(|n| bench.acquire("w", &format!("cpu:{n}")).unwrap().planned.seconds)
        .collect();
    assert_eq!(order, [5.0, 3.0, 1.0, 9.0]);
}

#[test]
fn asking_again_for_a_slot_gives_the_same_lease() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1), sample::planned(2)])]);
    bench.join(cpu("w", "here", 2));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    assert_eq!(bench.acquire("w", "cpu:0").unwrap(), grant);
    assert_ne!(bench.acquire("w", "cpu:1").unwrap().run_id, grant.run_id);
}

#[test]
fn cancelling_ends_only_what_no_other_sweep_wants_and_submitting_again_revives() {
    let shared = sample::planned(1);
    let (id, own) = (shared.run_id, sample::planned(2).run_id);
    let one = sample::admission("one", [shared.clone(), sample::planned(2)]);
    let two = sample::admission("two", [shared]);
    let mut bench = Bench::new(&[one.clone(), two.clone()]);
    bench.join(cpu("w", "here", 2));
    let grants = [
        bench.acquire("w", "cpu:0").unwrap(),
        bench.acquire("w", "cpu:1").unwrap(),
    ];
    let target = Target::Sweep(one.sweep_id);
    let effects = bench.tell(Event::Cancel { target });
    assert_eq!(stops(&effects), [StopReason::Cancelled]);
    assert_eq!(
        (bench.status(id), bench.status(own)),
        (Status::Leased, Status::Cancelled)
    );
    let effects = bench.renew(grants.iter().find(|grant| grant.run_id == own).unwrap(), 3);
    assert_eq!(
        stops(&effects),
        [StopReason::Cancelled],
        "told again where the first word was lost"
    );
    bench.submit(&one);
    assert_eq!((bench.status(id), bench.status(own)), (Status::Leased, Status::Pending));
    assert!(bench.submit(&one).is_empty(), "and once more is nothing new");
    bench.tell(Event::Cancel { target });
    bench.tell(Event::Cancel {
        target: Target::Sweep(two.sweep_id),
    });
    assert_eq!(bench.status(id), Status::Cancelled);
    let grant = grants.iter().find(|grant| grant.run_id == id).unwrap();
    bench.settle(grant, sample::finished(1.0));
    assert_eq!(bench.status(id), Status::Finished, "a result that came anyway is kept");
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
    assert!(
        bench.why(branch).contains("cannot read its trunk's checkpoint"),
        "{}",
        bench.why(branch)
    );
    bench.settle(&trunk, sample::diverged());
    let blocked = sample::trunk(7, &[20, 40])[2].run_id;
    assert_eq!(bench.status(blocked), Status::Blocked(Block::TrunkDiverged));
    assert!(
        bench.why(blocked).contains("diverged before step 40"),
        "{}",
        bench.why(blocked)
    );
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
    assert!(
        bench.why(trunk.run_id).contains("without its checkpoint at step 40"),
        "{}",
        bench.why(trunk.run_id)
    );
}

#[test]
fn slots_of_one_gpu_share_its_memory_and_cpu_runs_stay_away() {
    let gib = 1 << 30;
    let runs = [
        on_gpu(1, 6 * gib),
        on_gpu(2, 5 * gib),
        on_gpu(3, 2 * gib),
        sample::planned(9),
    ];
    let mut bench = Bench::new(&[sample::admission("one", runs.clone())]);
    bench.join(gpu("g", 3, 8 * gib));
    let memory = |grant: Option<Grant>| grant.map(|grant| grant.planned.memory_bytes / gib);
    let first = bench.acquire("g", "gpu-share:0").unwrap();
    assert_eq!(first.planned.memory_bytes, 2 * gib, "the longest first");
    assert_eq!(memory(bench.acquire("g", "gpu-share:1")), Some(5));
    assert_eq!(memory(bench.acquire("g", "gpu-share:2")), None, "1 GiB is left");
    assert!(
        bench.why(runs[0].run_id).contains("of memory"),
        "{}",
        bench.why(runs[0].run_id)
    );
    assert!(bench.why(runs[3].run_id).contains("not a device for the engine cpu"));
    bench.settle(&first, sample::finished(1.0));
    assert_eq!(memory(bench.acquire("g", "gpu-share:0")), None, "3 GiB are left");
}

#[test]
fn foreign_commands_go_only_to_workers_with_leave() {
    let planned = Planned {
        command: Some(vec!["train.py".to_owned()]),
        ..sample::planned(1)
    };
    let mut bench = Bench::new(&[sample::admission("one", [planned])]);
    bench.join(cpu("w", "here", 1));
    assert!(bench.acquire("w", "cpu:0").is_none());
    bench.join(WorkerSpec {
        allow_commands: true,
        ..cpu("v", "here", 1)
    });
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
fn a_restarted_coordinator_gives_every_lease_its_time_again() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1), sample::planned(2)])]);
    bench.join(cpu("w", "here", 2));
    let grants = [
        bench.acquire("w", "cpu:0").unwrap(),
        bench.acquire("w", "cpu:1").unwrap(),
    ];
    bench.state = State::restore(Config::default(), bench.state.ledger().clone(), bench.now);
    let unknown = bench.renew(&grants[0], 5);
    assert_eq!(unknown, [Effect::Rejoin { worker: "w".to_owned() }]);
    let holding = vec![held(&grants[0], 5)];
    let effects = bench.tell(Event::Join {
        spec: cpu("w", "here", 2),
        holding,
    });
    assert!(stops(&effects).is_empty());
    assert_eq!(bench.status(grants[0].run_id), Status::Leased);
    assert_eq!(
        bench.status(grants[1].run_id),
        Status::Pending,
        "the worker lost that child meanwhile"
    );
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

#[test]
fn failures_wait_and_end_with_their_budget_and_retry_begins_afresh() {
    let admission = sample::admission("one", [sample::planned(1)]);
    let mut bench = Bench::new(std::slice::from_ref(&admission));
    bench.join(cpu("w", "here", 1));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    bench.settle(&grant, sample::failed(true));
    let again = bench.settle(&grant, sample::failed(true));
    assert_eq!(refusals(&again), [&Refusal::AlreadyRecorded], "counted once");
    assert!(bench.acquire("w", "cpu:0").is_none(), "it waits a little");
    bench.wait(1000);
    let grant = bench.acquire("w", "cpu:0").unwrap();
    bench.settle(&grant, sample::failed(true));
    assert_eq!(bench.status(grant.run_id), Status::Failed, "the budget was one");
    let target = Target::Sweep(admission.sweep_id);
    bench.tell(Event::Retry { target });
    let grant = bench.acquire("w", "cpu:0").unwrap();
    assert_eq!(grant.attempt, 3, "tokens never repeat");
    bench.settle(&grant, sample::failed(false));
    assert_eq!(
        bench.status(grant.run_id),
        Status::Failed,
        "it said that another try is useless"
    );
}

#[test]
fn preemption_has_a_budget_of_its_own() {
    let mut admission = sample::admission("one", [sample::planned(1)]);
    admission.retry.preemptions = 2;
    let mut bench = Bench::new(&[admission]);
    bench.join(cpu("w", "here", 1));
    for _ in 0..3 {
        let grant = bench.acquire("w", "cpu:0").unwrap();
        bench.renew(&grant, 1);
        bench.tell(Event::Settle {
            worker: "w".to_owned(),
            run_id: grant.run_id,
            attempt: grant.attempt,
            ending: Ending::Yielded {
                reason: "preempted".to_owned(),
            },
        });
    }
    let id = sample::planned(1).run_id;
    assert_eq!(bench.status(id), Status::Failed);
    assert!(bench.why(id).contains("over the budget of 2"), "{}", bench.why(id));
}

#[test]
fn a_run_that_takes_workers_down_is_quarantined() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1)])]);
    for worker in ["a", "b", "c"] {
        bench.join(cpu(worker, "here", 1));
        bench.acquire(worker, "cpu:0").unwrap();
        bench.wait(LEASE + 1);
    }
    let id = sample::planned(1).run_id;
    assert_eq!(bench.status(id), Status::Quarantined);
    bench.tell(Event::Retry {
        target: Target::Run(id),
    });
    assert_eq!(bench.status(id), Status::Pending);
}

#[test]
fn paused_sweeps_and_draining_workers_get_no_grants() {
    let admission = sample::admission("one", [sample::planned(1), sample::planned(2)]);
    let mut bench = Bench::new(std::slice::from_ref(&admission));
    bench.join(cpu("w", "here", 2));
    let target = Target::Sweep(admission.sweep_id);
    let running = bench.acquire("w", "cpu:0").unwrap();
    bench.tell(Event::Pause { target });
    assert!(bench.acquire("w", "cpu:1").is_none());
    assert!(stops(&bench.renew(&running, 1)).is_empty(), "what runs goes on");
    assert!(bench.why(sample::planned(1).run_id).contains("paused"));
    bench.tell(Event::Resume { target });
    bench.tell(Event::Drain {
        worker: "w".to_owned(),
        on: true,
    });
    assert!(bench.acquire("w", "cpu:1").is_none());
    bench.tell(Event::Drain {
        worker: "w".to_owned(),
        on: false,
    });
    assert!(bench.acquire("w", "cpu:1").is_some());
    bench.tell(Event::Leave { worker: "w".to_owned() });
    assert_eq!(bench.status(running.run_id), Status::Pending);
}
