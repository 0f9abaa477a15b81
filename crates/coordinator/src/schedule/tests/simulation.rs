//! Whole sweeps in one thread: the scheduler over a real store on a simulated disk, four workers, a network that loses,
//! repeats and delays, and faults from a seed. Workers here never stop by themselves when a lease ends, so every
//! zombie does its worst.

use isoloss_store::disk::sim::{SimDisk, Tear};
use isoloss_store::sample::Dice;
use isoloss_store::{End, Store};

use super::*;

mod history;
mod worker;

use history::History;

const SEEDS: u64 = 200;
/// Faults happen in this many simulated seconds; then the world heals.
const TROUBLE_S: u64 = 300;
const END_S: u64 = 5000;

struct Child {
    grant: Grant,
    done_s: u64,
    step: u64,
}

struct Worker {
    spec: WorkerSpec,
    /// Rises when it restarts: answers to an earlier life are lost.
    life: u64,
    down_until_s: u64,
    children: Vec<Child>,
    /// Outcomes on its own disk, until they are acknowledged.
    unsettled: Vec<(Grant, Ending)>,
}

enum Letter {
    ToCoordinator { worker: usize, life: u64, event: Event },
    ToWorker { worker: usize, life: u64, effect: Effect },
    Acknowledged { worker: usize, run_id: RunId, attempt: u64 },
}

struct World {
    dice: Dice,
    disk: SimDisk,
    store: Store,
    state: State,
    now_s: u64,
    workers: Vec<Worker>,
    letters: Vec<(u64, Letter)>,
    history: History,
    sweeps: Vec<Admission>,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::default();
        let store = Store::open_on(Box::new(disk.clone())).unwrap();
        let specs = [cpu("a", "one", 2), cpu("b", "one", 1), cpu("c", "two", 2), gpu("d", 2, 8 << 20)];
        let worker = |spec| Worker { spec, life: 0, down_until_s: 0, children: Vec::new(), unsettled: Vec::new() };
        let first = (1..=12).map(sample::planned).chain(sample::trunk(30, &[20, 40, 60]));
        let first = first.chain((50..54).map(|seed| on_gpu(seed, 5 << 20)));
        let second = (7..=16).map(sample::planned).chain(sample::trunk(30, &[40, 80]));
        let mut world = Self {
            dice: Dice(seed),
            disk,
            state: State::restore(Config::default(), store.ledger().clone(), 0),
            store,
            now_s: 0,
            workers: specs.into_iter().map(worker).collect(),
            letters: Vec::new(),
            history: History::default(),
            sweeps: vec![sample::admission("first", first), sample::admission("second", second)],
        };
        for admission in world.sweeps.clone() {
            let admission = Arc::new(admission);
            let event = || Event::Submit { admission: Arc::clone(&admission) };
            while world.apply(event()).is_none() {}
        }
        world
    }

    fn trouble(&self) -> bool {
        self.now_s < TROUBLE_S
    }

    /// One step of the coordinator, durable before anybody hears of it; `None` when it dies in between.
    fn apply(&mut self, event: Event) -> Option<Vec<Effect>> {
        let effects = step(&mut self.state, event, self.now_s * 1000);
        let records: Vec<&Record> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Record(record) => Some(record),
                _ => None,
            })
            .collect();
        for record in &records {
            self.store.append(record).expect("the store's gate and the scheduler judge alike");
        }
        if !records.is_empty() && self.trouble() && self.dice.chance(1) {
            return self.die(true);
        }
        self.store.commit().unwrap();
        for record in records {
            self.history.check(record);
        }
        assert_eq!(self.store.ledger(), self.state.ledger());
        if self.trouble() && self.dice.roll(400) == 0 {
            return self.die(false);
        }
        Some(effects)
    }

    /// The coordinator dies, before or after the commit, and comes back from its disk.
    fn die(&mut self, before_commit: bool) -> Option<Vec<Effect>> {
        self.history.faults += 1;
        if before_commit && self.dice.chance(50) {
            // The group reached the disk but its fsync never returned.
            self.disk.fail_sync_at(self.disk.syncs() + 1);
            assert!(self.store.commit().is_err());
        }
        let tear = *self.dice.pick(&[Tear::Lost, Tear::Prefix(500), Tear::Kept, Tear::Zeros]);
        self.disk = self.disk.crash(tear);
        self.store = Store::open_on(Box::new(self.disk.clone())).unwrap();
        self.state = State::restore(Config::default(), self.store.ledger().clone(), self.now_s * 1000);
        // What was durable though nobody was told counts as much as what was acknowledged.
        for (run_id, row) in self.store.ledger().runs() {
            self.history.granted.insert(run_id, row.attempt);
            if let Some(settled) = &row.settled {
                self.history.accepted.entry(run_id).or_insert((settled.attempt, settled.end.clone()));
            }
        }
        self.letters.retain(|(_, letter)| matches!(letter, Letter::ToCoordinator { .. }));
        None
    }

    fn post(&mut self, letter: Letter) {
        let delay = if self.trouble() && self.dice.chance(10) { self.dice.roll(60) } else { 0 };
        if self.trouble() && self.dice.chance(5) {
            self.history.faults += 1;
            return;
        }
        self.letters.push((self.now_s + delay, letter));
    }

    fn send(&mut self, worker: usize, event: Event) {
        let life = self.workers[worker].life;
        if self.trouble() && self.dice.chance(5) {
            let event = event.clone();
            self.post(Letter::ToCoordinator { worker, life, event });
        }
        self.post(Letter::ToCoordinator { worker, life, event });
    }

    fn deliver(&mut self) {
        let now_s = self.now_s;
        let (due, later) = std::mem::take(&mut self.letters).into_iter().partition(|(at, _)| *at <= now_s);
        self.letters = later;
        let mut due: Vec<(u64, Letter)> = due;
        while !due.is_empty() {
            let next = usize::try_from(self.dice.roll(due.len() as u64)).unwrap();
            match due.swap_remove(next).1 {
                Letter::ToCoordinator { worker, life, event } => self.coordinate(worker, life, event),
                Letter::ToWorker { worker, life, effect } => self.hear(worker, life, effect),
                Letter::Acknowledged { worker, run_id, attempt } => {
                    let kept = |(grant, _): &(Grant, Ending)| (grant.run_id, grant.attempt) != (run_id, attempt);
                    self.workers[worker].unsettled.retain(kept);
                }
            }
        }
    }

    fn coordinate(&mut self, worker: usize, life: u64, event: Event) {
        let settles = match &event {
            Event::Settle { run_id, attempt, .. } => Some((*run_id, *attempt)),
            _ => None,
        };
        let Some(effects) = self.apply(event) else {
            return;
        };
        if let Some((run_id, attempt)) = settles {
            self.history.stale += u64::from(refusals(&effects).iter().any(|r| matches!(r, Refusal::Stale { .. })));
            self.post(Letter::Acknowledged { worker, run_id, attempt });
        }
        let told = |effect: &Effect| matches!(effect, Effect::Grant(_) | Effect::Stop { .. } | Effect::Rejoin { .. });
        for effect in effects.into_iter().filter(told) {
            self.post(Letter::ToWorker { worker, life, effect });
        }
    }

    fn order(&mut self) {
        let admission = self.dice.clone().pick(&self.sweeps).clone();
        let target = Target::Sweep(admission.sweep_id);
        let event = match self.dice.roll(200) {
            0 => Event::Cancel { target },
            1 => Event::Pause { target },
            2 => Event::Resume { target },
            3..=6 => Event::Submit { admission: Arc::new(admission) },
            _ => return,
        };
        self.apply(event);
    }

    fn run(mut self) -> History {
        while self.now_s < END_S {
            self.now_s += 1;
            if self.now_s == TROUBLE_S {
                for admission in self.sweeps.clone() {
                    let target = Target::Sweep(admission.sweep_id);
                    self.apply(Event::Submit { admission: Arc::new(admission) });
                    self.apply(Event::Resume { target });
                }
            }
            if self.trouble() {
                self.order();
            }
            self.deliver();
            (0..self.workers.len()).for_each(|index| self.work(index));
            self.apply(Event::Tick);
            self.check_memory();
            if !self.trouble() && self.is_quiet() {
                self.check_end();
                return self.history;
            }
        }
        let stuck = self.state.ledger().runs().filter(|(_, row)| !self.state.ledger().status(row).is_final());
        let why: Vec<String> = stuck.map(|(id, _)| self.state.explain(id, END_S * 1000).unwrap().join("; ")).collect();
        panic!("stuck: {why:#?}");
    }

    fn is_quiet(&self) -> bool {
        let ledger = self.state.ledger();
        self.workers.iter().all(|worker| worker.unsettled.is_empty())
            && ledger.runs().all(|(_, row)| ledger.status(row).is_final())
    }

    fn check_memory(&self) {
        for worker in self.state.workers() {
            let gpu = worker.spec.slots.iter().filter(|slot| matches!(slot.device, Device::Gpu { .. }));
            let Some(total) = gpu.map(|slot| slot.memory_bytes).max() else {
                continue;
            };
            let leases = self.state.leases().filter(|(_, lease)| lease.worker == worker.spec.worker);
            let used: u64 = leases.map(|(id, _)| self.state.ledger().run(id).unwrap().planned.memory_bytes).sum();
            assert!(used <= total, "{used} bytes reserved of {total}");
        }
    }

    /// What was accepted is what is served.
    fn check_end(&self) {
        for (run_id, row) in self.store.ledger().runs() {
            let accepted = self.history.accepted.get(&run_id);
            assert_eq!(row.settled.as_ref().map(|s| (s.attempt, s.end.clone())).as_ref(), accepted);
            let outcome = self.store.outcome(run_id).unwrap();
            assert_eq!(outcome.is_some(), accepted.is_some());
        }
        assert!(self.store.verify().unwrap().is_sound());
    }
}

#[test]
fn no_run_is_lost_doubled_or_stuck_whatever_fails() {
    let (mut faults, mut stale) = (0, 0);
    for seed in 0..SEEDS {
        let result = std::panic::catch_unwind(|| World::new(seed).run());
        let history = result.unwrap_or_else(|_| panic!("seed {seed} fails"));
        assert!(history.faults >= 10, "seed {seed}: only {} faults", history.faults);
        faults += history.faults;
        stale += history.stale;
    }
    assert!(stale > 0, "no stale outcome in {faults} faults: fencing was never tried");
}
