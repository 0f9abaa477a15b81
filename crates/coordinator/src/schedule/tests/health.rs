//! Turns between sweeps, machines that are ill, runs that stand still.

use super::*;

fn alarms(effects: &[Effect]) -> Vec<&Alarm> {
    let mut alarms = Vec::new();
    for effect in effects {
        if let Effect::Alarm(alarm) = effect {
            alarms.push(alarm);
        }
    }
    alarms
}

fn sweep_of(grant: &Grant) -> u64 {
    grant.planned.run.train.seed / 100
}

#[test]
fn sweeps_of_higher_priority_go_first_and_a_new_submission_changes_it() {
    let one = sample::admission("one", (101..105).map(sample::planned));
    let two = Admission { priority: 60, ..sample::admission("two", (201..205).map(sample::planned)) };
    let mut bench = Bench::new(&[one.clone(), two]);
    bench.join(cpu("w", "here", 8));
    let next = |bench: &mut Bench, n: u32| sweep_of(&bench.acquire("w", &format!("cpu:{n}")).unwrap());
    assert_eq!([next(&mut bench, 0), next(&mut bench, 1)], [2, 2]);
    assert!(bench.why(sample::planned(101).run_id).contains("higher priority"));
    let effects = bench.submit(&Admission { priority: 70, ..one.clone() });
    assert!(matches!(effects[0], Effect::Record(Record::Ranked { priority: 70, .. })), "{effects:?}");
    assert!(bench.submit(&Admission { priority: 70, ..one }).is_empty(), "and once more is nothing new");
    assert_eq!([next(&mut bench, 2), next(&mut bench, 3)], [1, 1]);
}

#[test]
fn sweeps_of_one_priority_share_by_what_they_hold_and_had_of_late() {
    let one = sample::admission("one", (101..140).map(sample::planned));
    let mut bench = Bench::new(&[one]);
    bench.join(cpu("w", "here", 4));
    let grants: Vec<Grant> = (0..4).map(|n| bench.acquire("w", &format!("cpu:{n}")).unwrap()).collect();
    bench.submit(&sample::admission("two", (201..240).map(sample::planned)));
    bench.wait(20_000);
    let mut turns = Vec::new();
    for (n, grant) in grants.iter().enumerate() {
        bench.settle(grant, sample::finished(1.0));
        turns.push(sweep_of(&bench.acquire("w", &format!("cpu:{n}")).unwrap()));
    }
    assert_eq!(turns, [2, 2, 1, 1], "the late one catches up, then both hold as many");
    assert!(bench.why(sample::planned(101).run_id).contains("shares the slots with 1 of equal priority"));
}

#[test]
fn a_run_goes_to_a_slot_with_the_threads_that_it_wants() {
    let wide = Planned { threads: 4, ..sample::planned(1) };
    let id = wide.run_id;
    let mut bench = Bench::new(&[sample::admission("one", [wide])]);
    bench.join(cpu("w", "here", 2));
    assert!(bench.acquire("w", "cpu:0").is_none());
    assert!(bench.why(id).contains("needs 4 threads, it has 1"), "{}", bench.why(id));
    let slot = Slot { name: "cpu:0-3".to_owned(), device: Device::Cpu { threads: 4 }, memory_bytes: 64 << 20 };
    bench.join(WorkerSpec { slots: vec![slot], ..cpu("v", "here", 0) });
    assert_eq!(bench.acquire("v", "cpu:0-3").unwrap().run_id, id);
}

/// Takes the next run and lets it fail at once.
fn fail(bench: &mut Bench, worker: &str) -> Vec<Effect> {
    let grant = bench.acquire(worker, "cpu:0").expect("a run for it");
    bench.settle(&grant, sample::failed(true))
}

#[test]
fn a_machine_on_which_every_run_fails_at_once_is_held_back_for_longer_and_longer() {
    let mut bench = Bench::new(&[sample::admission("one", (1..=20).map(sample::planned))]);
    bench.join(cpu("ill", "here", 2));
    bench.join(cpu("well", "here", 1));
    for _ in 0..2 {
        assert!(alarms(&fail(&mut bench, "ill")).is_empty());
    }
    let effects = fail(&mut bench, "ill");
    assert!(matches!(alarms(&effects)[..], [Alarm::HeldBack { runs: 3, ms: 30_000, .. }]), "{effects:?}");
    assert!(bench.acquire("ill", "cpu:0").is_none());
    let good = bench.acquire("well", "cpu:0").unwrap();
    assert!(bench.why(sample::planned(1).run_id).contains("ill gets no run for 30 s more"));
    for _ in 0..6 {
        bench.renew(&good, 1);
        bench.tell(Event::Renew {
            worker: "ill".to_owned(),
            instance: None,
            holding: Vec::new(),
            resting: Resting::default(),
        });
        bench.wait(5_000);
    }
    let trial = bench.acquire("ill", "cpu:0").unwrap();
    assert!(bench.acquire("ill", "cpu:1").is_none(), "one at a time until one ends well");
    let effects = bench.settle(&trial, sample::failed(true));
    assert!(matches!(alarms(&effects)[..], [Alarm::HeldBack { ms: 60_000, .. }]), "{effects:?}");
    // The only one left in sight must try whatever it is like.
    bench.tell(Event::Drain { worker: "well".to_owned(), on: true });
    let last = bench.acquire("ill", "cpu:0").unwrap();
    bench.settle(&last, sample::finished(1.0));
    bench.tell(Event::Drain { worker: "well".to_owned(), on: false });
    assert!(bench.acquire("ill", "cpu:0").is_some() && bench.acquire("ill", "cpu:1").is_some(), "it has recovered");
}

#[test]
fn a_run_that_fails_everywhere_holds_no_machine_back() {
    let poison = sample::planned(99);
    let retry = isoloss_store::Retry { failures: 50, preemptions: 100 };
    let mut bench = Bench::new(&[Admission { retry, ..sample::admission("one", [poison]) }]);
    for worker in ["a", "b"] {
        bench.join(cpu(worker, "here", 1));
    }
    for turn in 0..20 {
        let effects = fail(&mut bench, ["a", "b"][turn % 2]);
        assert!(alarms(&effects).is_empty(), "{effects:?}");
        bench.now += 60_000;
        for worker in ["a", "b"] {
            bench.tell(Event::Renew {
                worker: worker.to_owned(),
                instance: None,
                holding: Vec::new(),
                resting: Resting::default(),
            });
        }
        bench.tell(Event::Tick);
    }
}

#[test]
fn a_run_that_breathes_without_a_step_is_told_of_once_and_ended_only_where_that_is_wished() {
    for end in [None, Some(900_000)] {
        let mut bench = Bench::new(&[sample::admission("one", [sample::planned(1)])]);
        let config = Config { stall_end_ms: end, ..Config::default() };
        bench.state = State::restore(config, bench.state.ledger().clone(), 0);
        bench.join(cpu("w", "here", 1));
        let grant = bench.acquire("w", "cpu:0").unwrap();
        let mut told = Vec::new();
        let mut step = 0;
        for second in 0..2000 {
            bench.now += 1000;
            // A step in 10 s for some minutes, and then none.
            step = if second < 400 { 1 + second / 10 } else { step };
            bench.renew(&grant, step);
            let effects = bench.tell(Event::Tick);
            told.extend(alarms(&effects).into_iter().map(|_| second));
        }
        assert_eq!(told, [690], "300 s after the last step, which is more than 20 usual ones");
        let why = bench.why(grant.run_id);
        match end {
            None => assert!(why.contains("it lives and made no step for"), "{why}"),
            Some(_) => {
                assert!(why.contains("made no step for 900 s"), "{why}");
                assert_eq!(bench.status(grant.run_id), Status::Pending);
                assert_eq!(stops(&bench.renew(&grant, step)), [StopReason::GivenUp]);
            }
        }
    }
}
