//! What people are told of a run that gets nowhere.

use super::*;

fn rest(bench: &mut Bench, worker: &str, resting: Option<&str>) {
    let resting = Resting { why: resting.map(str::to_owned), gpus: Vec::new() };
    bench.tell(Event::Renew { worker: worker.to_owned(), instance: None, holding: Vec::new(), resting });
}

#[test]
fn a_worker_that_fell_silent_is_told_and_when_its_lease_ends() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1), sample::planned(2)])]);
    bench.join(cpu("w", "here", 1));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    let waits = sample::planned(1).run_id;
    bench.renew(&grant, 1);
    bench.wait(3_000);
    assert!(bench.why(grant.run_id).starts_with("attempt 1 runs on w cpu:0"), "{}", bench.why(grant.run_id));
    bench.wait(21_000);
    let why = bench.why(grant.run_id);
    assert!(why.starts_with("nothing was heard of w for 24 s: if that stays so, its lease ends in 6 s"), "{why}");
    rest(&mut bench, "w", None);
    let why = bench.why(grant.run_id);
    assert!(why.starts_with("w lives and said nothing of this attempt for 24 s"), "{why}");
    bench.renew(&grant, 2);
    assert!(bench.why(grant.run_id).starts_with("attempt 1 runs on"), "it spoke again");
    // One that is out of sight takes nothing.
    bench.wait(31_000);
    assert!(bench.why(waits).contains("nothing was heard of w for 31 s"), "{}", bench.why(waits));
}

#[test]
fn a_gpu_that_rests_is_told_with_its_reason_until_its_worker_says_otherwise() {
    let mut bench = Bench::new(&[sample::admission("one", [on_gpu(1, 1 << 30)])]);
    bench.join(gpu("w", 2, 8 << 30));
    let run = on_gpu(1, 1 << 30).run_id;
    let told = |bench: &mut Bench, gpus: Vec<GpuRest>| {
        let resting = Resting { why: None, gpus };
        bench.tell(Event::Renew { worker: "w".to_owned(), instance: None, holding: Vec::new(), resting });
        let worker = bench.state.worker("w").unwrap();
        bench.state.resting_gpus(worker, bench.now)
    };
    let rest = |uuid: &str, ms| GpuRest { uuid: uuid.to_owned(), reason: "no such GPU".to_owned(), ms };
    assert_eq!(told(&mut bench, vec![rest("GPU-x", 1), rest("GPU-w", 4_000)]), [rest("GPU-w", 4_000)], "its own alone");
    let rests =
        [(0, 4_000, "rests for 4 s"), (3_000, 1_000, "rests for 1 s"), (3_000, 0, "gets one run at a time until")];
    for (passed, left, then) in rests {
        bench.wait(passed);
        let why = bench.why(run);
        assert!(why.starts_with(&format!("w gpu-share:0: the GPU was not to be had and {then}")), "{why}");
        assert!(why.contains(": no such GPU"), "{why}");
        assert_eq!(bench.state.resting_gpus(bench.state.worker("w").unwrap(), bench.now), [rest("GPU-w", left)]);
    }
    assert!(told(&mut bench, Vec::new()).is_empty() && bench.why(run).contains("it waits for a worker to ask"));
}

#[test]
fn a_lease_from_before_a_restart_waits_for_its_worker() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1)])]);
    bench.join(cpu("w", "here", 1));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    let ledger = bench.state.ledger().clone();
    bench = Bench { state: State::restore(Config::default(), ledger, 0), now: 0 };
    bench.wait(10_000);
    let why = bench.why(grant.run_id);
    assert!(why.starts_with("w has not come back since this coordinator started 10 s ago"), "{why}");
    assert!(why.contains("its lease ends in 20 s"), "{why}");
}

#[test]
fn a_run_under_way_says_that_its_sweep_is_paused() {
    let sweep = sample::admission("one", [sample::planned(1), sample::planned(2)]);
    let mut bench = Bench::new(std::slice::from_ref(&sweep));
    bench.join(cpu("w", "here", 1));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    bench.tell(Event::Pause { target: Target::Sweep(sweep.sweep_id) });
    let paused = format!("its sweep is paused: `isoloss resume {}` lets it go on", sweep.sweep_id.short());
    assert_eq!(bench.why(sample::planned(1).run_id), paused);
    let why = bench.why(grant.run_id);
    assert!(why.contains(&format!("{paused}; this attempt goes on")), "{why}");
    bench.tell(Event::Resume { target: Target::Sweep(sweep.sweep_id) });
    assert!(!bench.why(grant.run_id).contains("paused"));
}

#[test]
fn a_worker_that_asks_for_nothing_says_why() {
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1)])]);
    let id = sample::planned(1).run_id;
    bench.join(cpu("w", "here", 1));
    assert!(bench.why(id).contains("it waits for a worker to ask"), "{}", bench.why(id));
    rest(&mut bench, "w", Some("its disk is full"));
    let why = bench.why(id);
    assert!(why.contains("w asks for no work: its disk is full") && !why.contains("waits for a worker"), "{why}");
    rest(&mut bench, "w", None);
    assert!(bench.why(id).contains("it waits for a worker to ask"), "{}", bench.why(id));
}

#[test]
fn a_failure_is_said_once_and_memory_as_people_say_it() {
    let large = Planned { memory_bytes: 900 << 40, ..sample::planned(2) };
    let large_id = large.run_id;
    let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1), large])]);
    bench.join(cpu("w", "here", 1));
    let why = bench.why(large_id);
    assert!(why.contains("needs 900 TiB of memory, 64.0 MiB are free"), "{why}");
    let grant = bench.acquire("w", "cpu:0").unwrap();
    bench.settle(&grant, sample::failed(false));
    let reason = match sample::failed(false) {
        Outcome::Failed(failed) => failed.reason,
        _ => unreachable!("it is a sample of one"),
    };
    assert_eq!(bench.why(grant.run_id).matches(&reason).count(), 1, "{}", bench.why(grant.run_id));
}
