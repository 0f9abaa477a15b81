//! Two processes of one worker's name.

use super::*;

/// A start of worker `w` on a data directory.
fn start(home: &str, start: u64) -> WorkerSpec {
    let instance = Instance { id: format!("{home}-{start}"), home: home.to_owned(), start };
    WorkerSpec { instance: Some(instance), place: format!("start {start} in {home}"), ..cpu("w", "here", 1) }
}

fn id(spec: &WorkerSpec) -> Option<String> {
    spec.instance.as_ref().map(|instance| instance.id.clone())
}

impl Bench {
    fn joins(&mut self, spec: &WorkerSpec, holding: Vec<Holding>) -> Result<(), String> {
        refused(&self.tell(Event::Join { spec: spec.clone(), holding }))
    }

    fn asks(&mut self, spec: &WorkerSpec) -> Result<Option<Grant>, String> {
        let slot = "cpu:0".to_owned();
        let effects = self.tell(Event::Acquire { worker: "w".to_owned(), instance: id(spec), slot });
        refused(&effects)?;
        Ok(effects.into_iter().find_map(|effect| match effect {
            Effect::Grant(grant) => Some(grant),
            _ => None,
        }))
    }

    fn renews(&mut self, spec: &WorkerSpec, holding: Vec<Holding>) -> Result<(), String> {
        refused(&self.tell(Event::Renew {
            worker: "w".to_owned(),
            instance: id(spec),
            holding,
            resting: Resting::default(),
        }))
    }
}

fn refused(effects: &[Effect]) -> Result<(), String> {
    let occupied = effects.iter().find_map(|effect| match effect {
        Effect::Occupied(occupied) => Some(occupied.to_string()),
        _ => None,
    });
    occupied.map_or(Ok(()), Err)
}

fn bench() -> Bench {
    Bench::new(&[sample::admission("one", [sample::planned(1), sample::planned(2)])])
}

#[test]
fn a_second_process_of_a_name_is_refused_and_told_who_has_it() {
    let mut bench = bench();
    let (first, second, nameless) = (start("a", 1), start("b", 7), cpu("w", "here", 1));
    bench.joins(&first, Vec::new()).unwrap();
    let grant = bench.asks(&first).unwrap().unwrap();
    bench.now += 5_000;
    for stranger in [&second, &nameless] {
        let why = bench.joins(stranger, Vec::new()).unwrap_err();
        let words = ["worker \"w\"", "start 1 in a", "joined 5 s ago", "spoke 5 s ago", "--name", "30 s after"];
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
        assert!(bench.asks(stranger).is_err() && bench.renews(stranger, Vec::new()).is_err());
        let leave = Event::Leave { worker: "w".to_owned(), instance: id(stranger) };
        assert!(refused(&bench.tell(leave)).is_err());
    }
    bench.joins(&first, vec![held(&grant, 1)]).unwrap();
    assert_eq!(bench.asks(&first).unwrap(), Some(grant), "it noticed nothing");
}

#[test]
fn a_name_is_free_after_a_goodbye_and_after_a_lease_of_silence() {
    let mut bench = bench();
    let (first, second) = (start("a", 1), start("b", 7));
    bench.joins(&first, Vec::new()).unwrap();
    let grant = bench.asks(&first).unwrap().unwrap();
    bench.tell(Event::Leave { worker: "w".to_owned(), instance: id(&first) });
    assert_eq!(bench.status(grant.run_id), Status::Pending, "what it held waits for nothing");
    bench.joins(&second, Vec::new()).unwrap();
    assert!(bench.joins(&first, Vec::new()).is_err());
    let may_be_gone = |bench: &mut Bench| {
        let effects = bench.tell(Event::Join { spec: first.clone(), holding: Vec::new() });
        matches!(&effects[..], [Effect::Occupied(occupied)] if occupied.may_be_gone())
    };
    assert!(!may_be_gone(&mut bench));
    bench.wait(LEASE - 1);
    assert!(may_be_gone(&mut bench), "whoever comes now may wait for the name");
    bench.wait(1);
    bench.joins(&first, Vec::new()).unwrap();
    assert!(bench.renews(&second, Vec::new()).is_err(), "it was away for too long");
    // The coordinator's own sleep is nobody's silence.
    bench.now += 2 * LEASE;
    bench.tell(Event::Tick);
    assert!(bench.joins(&second, Vec::new()).is_err());
}

#[test]
fn a_later_start_on_the_same_directory_takes_over_at_once_and_keeps_its_runs_from_the_earlier_one() {
    let mut bench = bench();
    let (old, new) = (start("a", 4), start("a", 5));
    bench.joins(&old, Vec::new()).unwrap();
    let before = bench.asks(&old).unwrap().unwrap();
    bench.joins(&new, Vec::new()).unwrap();
    assert_eq!(bench.status(before.run_id), Status::Pending, "it restarted without it");
    let grant = bench.asks(&new).unwrap().unwrap();
    // What was said before, and comes late.
    assert!(bench.joins(&old, vec![held(&before, 1)]).is_err());
    assert!(bench.asks(&old).is_err() && bench.renews(&old, vec![held(&before, 1)]).is_err());
    assert_eq!(bench.asks(&new).unwrap(), Some(grant));
    // A worker of before there were instances is an earlier life of whoever comes.
    let mut bench = self::bench();
    bench.joins(&cpu("w", "here", 1), Vec::new()).unwrap();
    bench.joins(&new, Vec::new()).unwrap();
    assert!(bench.joins(&cpu("w", "here", 1), Vec::new()).is_err());
}
