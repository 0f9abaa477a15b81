//! What people order, and budgets.

use super::*;

#[test]
fn sweeps_take_turns_and_in_each_the_longest_run_goes_first() {
    let one = sample::admission("one", [sample::planned(1), sample::planned(5), sample::planned(3)]);
    let two = sample::admission("two", [sample::planned(9)]);
    let mut bench = Bench::new(&[one, two]);
    bench.join(cpu("w", "here", 4));
    let order: Vec<f64> = (0..4).map(|n| bench.acquire("w", &format!("cpu:{n}")).unwrap().planned.seconds).collect();
    assert_eq!(order, [5.0, 9.0, 3.0, 1.0]);
}

#[test]
fn a_held_sweep_lets_chosen_runs_go_and_holds_nobody_elses() {
    let [one, two, three] = [1, 2, 3].map(sample::planned);
    let held = Admission { held: true, ..sample::admission("held", [one.clone(), two.clone()]) };
    let choose = |runs: &[RunId]| Event::Choose { sweep_id: held.sweep_id, runs: Some(runs.to_vec()) };
    let mut bench = Bench::new(std::slice::from_ref(&held));
    bench.join(cpu("w", "here", 3));
    assert!(bench.acquire("w", "cpu:0").is_none(), "none is chosen yet");
    assert!(bench.why(one.run_id).contains("not chosen so far"), "{}", bench.why(one.run_id));
    assert_eq!(bench.tell(choose(&[])), [Effect::Ordered { runs: 0 }]);
    bench.tell(choose(&[two.run_id]));
    assert_eq!(bench.acquire("w", "cpu:0").unwrap().run_id, two.run_id);
    assert!(bench.acquire("w", "cpu:1").is_none());
    // Another sweep wants the run that was not chosen, and goes on wanting it when the choice is over.
    let other = sample::admission("other", [one.clone(), three.clone()]);
    bench.submit(&other);
    bench.tell(Event::Cancel { target: Target::Sweep(held.sweep_id) });
    let left = [bench.acquire("w", "cpu:1").unwrap().run_id, bench.acquire("w", "cpu:2").unwrap().run_id];
    assert!(left.contains(&one.run_id) && left.contains(&three.run_id));
    assert_eq!(bench.status(two.run_id), Status::Cancelled, "nobody else wants it");
    // Held again it revives and lets nothing start; handed in without the wish it lets all go.
    bench.submit(&held);
    assert_eq!(bench.status(two.run_id), Status::Pending);
    assert!(bench.acquire("w", "cpu:0").is_some(), "it was chosen before");
    let plain = Admission { held: false, ..held.clone() };
    bench.submit(&plain);
    assert!(bench.submit(&plain).is_empty(), "and once more is nothing new");
}

#[test]
fn a_chosen_branch_brings_its_trunk_which_trains_as_far_as_it_is_needed() {
    let runs = sample::trunk(7, &[20, 40, 60]);
    let ids: Vec<RunId> = runs.iter().map(|planned| planned.run_id).collect();
    let held = Admission { held: true, ..sample::admission("held", runs) };
    let choose = |runs: &[RunId]| Event::Choose { sweep_id: held.sweep_id, runs: Some(runs.to_vec()) };
    let mut bench = Bench::new(std::slice::from_ref(&held));
    bench.join(cpu("w", "here", 2));
    bench.tell(choose(&ids[1..2]));
    let trunk = bench.acquire("w", "cpu:0").unwrap();
    assert_eq!((trunk.run_id, trunk.planned.trunk_steps.as_slice()), (ids[0], &[20][..]));
    assert!(bench.acquire("w", "cpu:1").is_none());
    bench.publish(&trunk, 20, "here");
    let branch = bench.acquire("w", "cpu:1").unwrap();
    assert_eq!(branch.run_id, ids[1]);
    // Chosen while the trunk is on its way to the first: it goes on from there, and nothing has failed.
    bench.tell(choose(&ids[2..3]));
    bench.settle(&trunk, sample::finished(1.0));
    let row = bench.state.ledger().run(ids[0]).unwrap();
    assert_eq!((row.failures, row.settled.is_some()), (0, false));
    let trunk = bench.acquire("w", "cpu:0").unwrap();
    assert_eq!((trunk.run_id, trunk.planned.trunk_steps.as_slice()), (ids[0], &[20, 40][..]));
    bench.publish(&trunk, 40, "here");
    bench.settle(&trunk, sample::finished(1.0));
    assert_eq!(bench.status(ids[0]), Status::Finished);
    assert_eq!(bench.acquire("w", "cpu:0").unwrap().run_id, ids[2]);
    // Without the choice all branches go, and a trunk that had finished goes on.
    bench.settle(&branch, sample::finished(1.0));
    bench.submit(&sample::admission("held", sample::trunk(7, &[20, 40, 60])));
    let trunk = bench.acquire("w", "cpu:1").unwrap();
    assert_eq!((trunk.run_id, trunk.planned.trunk_steps.as_slice()), (ids[0], &[20, 40, 60][..]));
}

#[test]
fn a_sweep_known_before_is_held_from_its_next_submission_on() {
    let plain = sample::admission("one", [sample::planned(1), sample::planned(2)]);
    let mut bench = Bench::new(std::slice::from_ref(&plain));
    bench.join(cpu("w", "here", 2));
    bench.tell(Event::Cancel { target: Target::Sweep(plain.sweep_id) });
    bench.submit(&Admission { held: true, ..plain.clone() });
    assert_eq!(bench.status(sample::planned(1).run_id), Status::Pending, "revived");
    assert!(bench.acquire("w", "cpu:0").is_none(), "and held before it could start");
    bench.submit(&plain);
    assert!(bench.acquire("w", "cpu:0").is_some());
}

#[test]
fn cancelling_ends_only_what_no_other_sweep_wants_and_submitting_again_revives() {
    let shared = sample::planned(1);
    let (id, own) = (shared.run_id, sample::planned(2).run_id);
    let one = sample::admission("one", [shared.clone(), sample::planned(2)]);
    let two = sample::admission("two", [shared]);
    let mut bench = Bench::new(&[one.clone(), two.clone()]);
    bench.join(cpu("w", "here", 2));
    let grants = [bench.acquire("w", "cpu:0").unwrap(), bench.acquire("w", "cpu:1").unwrap()];
    let target = Target::Sweep(one.sweep_id);
    let effects = bench.tell(Event::Cancel { target });
    assert_eq!(stops(&effects), [StopReason::Cancelled]);
    assert_eq!((bench.status(id), bench.status(own)), (Status::Leased, Status::Cancelled));
    let effects = bench.renew(grants.iter().find(|grant| grant.run_id == own).unwrap(), 3);
    assert_eq!(stops(&effects), [StopReason::Cancelled], "told again where the first word was lost");
    bench.submit(&one);
    assert_eq!((bench.status(id), bench.status(own)), (Status::Leased, Status::Pending));
    assert!(bench.submit(&one).is_empty(), "and once more is nothing new");
    bench.tell(Event::Cancel { target });
    bench.tell(Event::Cancel { target: Target::Sweep(two.sweep_id) });
    assert_eq!(bench.status(id), Status::Cancelled);
    let grant = grants.iter().find(|grant| grant.run_id == id).unwrap();
    bench.settle(grant, sample::finished(1.0));
    assert_eq!(bench.status(id), Status::Finished, "a result that came anyway is kept");
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
    assert_eq!(bench.status(grant.run_id), Status::Failed, "it said that another try is useless");
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
            ending: Ending::Yielded { reason: "preempted".to_owned(), wait: false },
        });
    }
    let id = sample::planned(1).run_id;
    assert_eq!(bench.status(id), Status::Failed);
    assert!(bench.why(id).contains("over the budget of 2"), "{}", bench.why(id));
}

fn ordered(effects: &[Effect]) -> u64 {
    let runs = effects.iter().find_map(|effect| match effect {
        Effect::Ordered { runs } => Some(*runs),
        _ => None,
    });
    runs.expect("an order says what it changed")
}

#[test]
fn orders_count_what_they_changed_and_leave_an_ended_sweep_alone() {
    let admission = sample::admission("one", [sample::planned(1), sample::planned(2), sample::planned(3)]);
    let mut bench = Bench::new(std::slice::from_ref(&admission));
    bench.join(cpu("w", "here", 3));
    let target = Target::Sweep(admission.sweep_id);
    let done = bench.acquire("w", "cpu:0").unwrap();
    bench.settle(&done, sample::finished(1.0));
    assert_eq!(ordered(&bench.tell(Event::Pause { target })), 2, "the finished one is not held back");
    assert_eq!(bench.tell(Event::Pause { target }), [Effect::Ordered { runs: 0 }]);
    assert_eq!(ordered(&bench.tell(Event::Resume { target })), 2);
    assert_eq!(bench.tell(Event::Resume { target }), [Effect::Ordered { runs: 0 }]);
    assert_eq!(bench.tell(Event::Cancel { target: Target::Run(done.run_id) }), [Effect::Ordered { runs: 0 }]);
    let other = bench.acquire("w", "cpu:0").unwrap();
    assert_eq!(ordered(&bench.tell(Event::Cancel { target: Target::Run(other.run_id) })), 1);
    assert!(bench.why(other.run_id).contains("an order cancelled this run"), "{}", bench.why(other.run_id));
    assert!(bench.why(other.run_id).contains("`isoloss submit`"), "{}", bench.why(other.run_id));
    let last = bench.acquire("w", "cpu:1").unwrap();
    bench.settle(&last, sample::failed(false));
    for event in [Event::Cancel { target }, Event::Pause { target }] {
        assert_eq!(bench.tell(event), [Effect::Ordered { runs: 0 }], "nothing is written of a sweep that has ended");
    }
    assert!(!bench.state.ledger().sweep(admission.sweep_id).unwrap().cancelled);
    assert_eq!(ordered(&bench.tell(Event::Retry { target })), 1);
    let past = &bench.state.ledger().run(last.run_id).unwrap().past;
    assert_eq!(past.last().map(|past| past.attempt), Some(1), "the failed attempt is remembered");
    let unknown = Target::Sweep(sample::admission("none", []).sweep_id);
    assert_eq!(refusals(&bench.tell(Event::Cancel { target: unknown })), [&Refusal::UnknownSweep]);
}

#[test]
fn full_storage_costs_preemptions_and_time_but_no_failure() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1)])]);
    bench.join(cpu("w", "here", 1));
    for wait in [1000, 2000, 4000] {
        let grant = bench.acquire("w", "cpu:0").unwrap();
        bench.tell(Event::Settle {
            worker: "w".to_owned(),
            run_id: grant.run_id,
            attempt: grant.attempt,
            ending: Ending::Yielded { reason: "no space left on device".to_owned(), wait: true },
        });
        assert!(bench.why(grant.run_id).contains("no space left"), "{}", bench.why(grant.run_id));
        bench.wait(wait - 1);
        assert!(bench.acquire("w", "cpu:0").is_none(), "before {wait} ms");
        bench.wait(1);
    }
    let row = bench.state.ledger().run(sample::planned(1).run_id).unwrap();
    assert_eq!((row.failures, row.preemptions), (0, 3));
    assert!(bench.acquire("w", "cpu:0").is_some());
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
    bench.tell(Event::Retry { target: Target::Run(id) });
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
    let drain = |on| Event::Drain { worker: "w".to_owned(), on };
    let orders = [bench.tell(drain(true)), bench.tell(drain(true))].map(|effects| effects.len());
    assert_eq!(orders, [1, 0], "a second order changes nothing");
    assert!(bench.acquire("w", "cpu:1").is_none());
    assert!(stops(&bench.renew(&running, 2)).is_empty(), "what runs goes on");
    let why = bench.why(sample::planned(2).run_id) + &bench.why(sample::planned(1).run_id);
    assert!(why.contains("w is draining: `isoloss undrain w`"), "{why}");
    // Neither a restart of the worker nor one of the coordinator takes the order back.
    bench.state = State::restore(Config::default(), bench.state.ledger().clone(), bench.now);
    bench.tell(Event::Join { spec: cpu("w", "here", 2), holding: vec![held(&running, 2)] });
    assert!(bench.acquire("w", "cpu:1").is_none());
    assert!(matches!(bench.tell(Event::Drain { worker: "x".to_owned(), on: true })[..], [Effect::Rejoin { .. }]));
    bench.tell(drain(false));
    assert!(bench.acquire("w", "cpu:1").is_some());
    bench.tell(Event::Leave { worker: "w".to_owned(), instance: None });
    assert_eq!(bench.status(running.run_id), Status::Pending);
}

#[test]
fn a_run_that_wants_a_gpu_says_so_where_none_is_offered() {
    let wanted = on_gpu(1, 1 << 30);
    let mut bench = Bench::new(&[sample::admission("one", [wanted.clone()])]);
    bench.join(cpu("w", "here", 1));
    let why = bench.why(wanted.run_id);
    assert!(why.starts_with("it wants a GPU and no worker offers one: start `isoloss worker --gpu auto`"), "{why}");
    bench.join(gpu("g", 1, 1 << 29));
    let why = bench.why(wanted.run_id);
    assert!(!why.contains("no worker offers") && why.contains("512 MiB are free"), "{why}");
}

#[test]
fn a_sweep_that_was_cancelled_is_not_retried_before_it_is_revived() {
    let sweep = sample::admission("one", [sample::planned(1), sample::planned(2)]);
    let target = Target::Sweep(sweep.sweep_id);
    let mut bench = Bench::new(std::slice::from_ref(&sweep));
    bench.join(cpu("w", "here", 1));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    bench.settle(&grant, sample::failed(false));
    bench.tell(Event::Cancel { target });
    for target in [target, Target::Run(grant.run_id)] {
        let effects = bench.tell(Event::Retry { target });
        assert_eq!(refusals(&effects), [&Refusal::Unwanted], "{effects:?}");
        assert_eq!(bench.status(grant.run_id), Status::Failed, "how it failed is still told");
    }
    bench.submit(&sweep);
    assert_eq!(ordered(&bench.tell(Event::Retry { target })), 1);
    assert_eq!(bench.status(grant.run_id), Status::Pending);
    // A run alone, while another sweep of it lives.
    bench.wait(1000);
    let again = std::iter::from_fn(|| bench.acquire("w", "cpu:0")).next().unwrap();
    bench.settle(&again, sample::failed(false));
    assert_eq!(ordered(&bench.tell(Event::Retry { target: Target::Run(again.run_id) })), 1);
    assert_eq!(bench.status(again.run_id), Status::Pending);
}

#[test]
fn what_runs_need_is_said_anew_by_another_submission() {
    let with = |memory_bytes, threads| {
        let runs = [1, 2, 3].map(|seed| Planned { memory_bytes, threads, ..sample::planned(seed) });
        sample::admission("one", runs)
    };
    let needs = |bench: &Bench, seed| {
        let row = bench.state.ledger().run(sample::planned(seed).run_id).unwrap();
        (row.planned.memory_bytes, row.planned.threads)
    };
    let (large, small) = (with(1 << 50, 0), with(10 << 20, 1));
    let mut bench = Bench::new(std::slice::from_ref(&large));
    bench.join(cpu("w", "here", 2));
    assert!(bench.acquire("w", "cpu:0").is_none());
    let effects = bench.submit(&small);
    assert!(matches!(&effects[0], Effect::Record(Record::Amended { needs }) if needs.len() == 3), "{effects:?}");
    assert!(bench.submit(&small).is_empty(), "and once more is nothing new");
    let grant = bench.acquire("w", "cpu:0").unwrap();
    assert_eq!((grant.planned.memory_bytes, grant.planned.threads), (10 << 20, 1));
    // One that failed may be given more; one that is under way keeps what its child was told.
    bench.settle(&grant, sample::failed(false));
    let under_way = bench.acquire("w", "cpu:0").unwrap();
    bench.submit(&with(20 << 20, 1));
    let seed = |grant: &Grant| grant.planned.run.train.seed;
    assert_eq!(needs(&bench, seed(&grant)), (20 << 20, 1));
    assert_eq!(needs(&bench, seed(&under_way)), (10 << 20, 1));
    bench.settle(&under_way, sample::finished(1.0));
    bench.submit(&with(30 << 20, 1));
    assert_eq!(needs(&bench, seed(&under_way)), (10 << 20, 1), "a result is of what it had");
    // Another sweep that shares a run, and is new, says it too.
    let other = sample::admission("two", [Planned { memory_bytes: 5 << 20, ..sample::planned(1) }]);
    bench.submit(&other);
    let open = needs(&bench, 1) == (5 << 20, 0);
    assert!(open || seed(&under_way) == 1, "{:?}", needs(&bench, 1));
}
