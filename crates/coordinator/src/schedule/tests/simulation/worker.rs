//! What the simulated workers do, as the real ones do it: train, renew on their own clock, ask, and say endings again
//! until they are acknowledged. A worker that cannot reach its coordinator goes on for an hour beyond the lease; a
//! stopped one misses everything, its children go on, and it comes back as stale as can be.

use isoloss_store::Checkpoint;
use isoloss_sweep::outcome::{Diverged, Outcome};

use super::clock::Clock;
use super::coverage::Fault;
use super::history::flops_of;
use super::*;

/// The process of a worker's life; its data directory is called as it is.
fn instance(worker: &str, life: u64) -> Instance {
    Instance { id: format!("{worker}-{life}"), home: worker.to_owned(), start: life }
}

/// How long an attempt goes on beyond its lease while nobody answers, as in the worker's `held.rs`.
const ORPHANED_MS: Millis = 3_600_000;
const RENEW_MS: Millis = LEASE / 10;
const ASK_MS: Millis = 2_000;
const SEND_MS: Millis = 2_000;

pub(super) struct Child {
    pub(super) grant: Grant,
    /// By the worker's clock.
    deadline: Millis,
    left_ms: u64,
    step: u64,
}

/// An ending on the worker's own disk until it is acknowledged.
struct Ended {
    grant: Grant,
    life: u64,
    stamp: Option<u64>,
    ending: Ending,
    checkpoints: Vec<Checkpoint>,
    next: Millis,
}

pub(super) struct Worker {
    pub(super) spec: WorkerSpec,
    clock: Clock,
    /// Rises when it restarts: answers to an earlier life are lost.
    pub(super) life: u64,
    /// True times: dead, or stopped, until then; the network is cut until then.
    down_until: Millis,
    stopped_until: Millis,
    pub(super) cut_until: Millis,
    children: Vec<Child>,
    outbox: Vec<Ended>,
    /// When the renewal that nobody has answered was sent.
    unanswered: Option<Millis>,
    next_renewal: Millis,
    next_ask: Millis,
    has_joined: bool,
}

impl Worker {
    /// One that is not `named` does not say which process it is.
    pub(super) fn new(spec: WorkerSpec, is_named: bool, dice: &mut Dice) -> Self {
        Self {
            spec: WorkerSpec { instance: is_named.then(|| instance(&spec.worker, 0)), ..spec },
            clock: Clock::new(970 + dice.roll(61)),
            life: 0,
            down_until: 0,
            stopped_until: 0,
            cut_until: 0,
            children: Vec::new(),
            outbox: Vec::new(),
            unanswered: None,
            next_renewal: 0,
            next_ask: 0,
            has_joined: false,
        }
    }

    fn instance(&self) -> Option<String> {
        self.spec.instance.as_ref().map(|instance| instance.id.clone())
    }

    fn holding(&self) -> Vec<Holding> {
        let children = self.children.iter().map(|child| held(&child.grant, child.step));
        let ended = self.outbox.iter().filter(|ended| ended.life == self.life).map(|ended| held(&ended.grant, 1));
        children.chain(ended).collect()
    }

    fn is_free(&self, slot: &str) -> bool {
        self.children.iter().all(|child| child.grant.slot != slot)
            && self.outbox.iter().all(|ended| ended.life != self.life || ended.grant.slot != slot)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.outbox.is_empty()
    }

    fn stop(&mut self, run_id: RunId, attempt: u64) {
        self.children.retain(|child| (child.grant.run_id, child.grant.attempt) != (run_id, attempt));
    }
}

impl World {
    pub(super) fn hear(&mut self, index: usize, told: Told) {
        let (t, poison) = (self.t, self.poison.filter(|_| self.trouble()));
        let worker = &mut self.workers[index];
        if let Some((run_id, attempt)) = told.settled {
            worker.outbox.retain(|ended| (ended.grant.run_id, ended.grant.attempt) != (run_id, attempt));
        }
        if worker.life != told.life {
            return;
        }
        if told.is_renewal {
            worker.unanswered = None;
        }
        for effect in told.effects {
            match effect {
                Effect::Grant(grant) if worker.is_free(&grant.slot) => {
                    if Some(grant.run_id) == poison {
                        return self.kill(index, 75_000);
                    }
                    let left_ms = 2_000 + self.dice.roll(50_000);
                    let deadline = told.asked + grant.lease_ms;
                    worker.children.push(Child { grant, deadline, left_ms, step: 0 });
                }
                Effect::Keep { run_id, attempt, lease_ms, .. } => {
                    let mut own = worker.children.iter_mut();
                    if let Some(child) =
                        own.find(|child| (child.grant.run_id, child.grant.attempt) == (run_id, attempt))
                    {
                        child.deadline = child.deadline.max(told.asked + lease_ms);
                    }
                }
                Effect::Stop { run_id, attempt, .. } => worker.stop(run_id, attempt),
                Effect::Rejoin { .. } | Effect::Occupied(_) => worker.has_joined = false,
                _ => {}
            }
        }
        if !worker.has_joined && worker.down_until <= t {
            worker.next_renewal = 0;
        }
    }

    pub(super) fn is_deaf(&self, index: usize) -> bool {
        let worker = &self.workers[index];
        worker.down_until > self.t || worker.stopped_until > self.t
    }

    /// One worker's part of a quantum.
    pub(super) fn work(&mut self, index: usize) {
        if self.trouble() {
            self.trouble_worker(index);
        }
        if self.workers[index].down_until > self.t {
            return;
        }
        self.train(index);
        if self.workers[index].stopped_until > self.t {
            return;
        }
        let now = self.workers[index].clock.read(self.t);
        if now >= self.workers[index].next_renewal {
            self.renew(index, now);
        }
        self.report(index, now);
        if now >= self.workers[index].next_ask && self.workers[index].has_joined {
            self.workers[index].next_ask = now + ASK_MS;
            let worker = &self.workers[index];
            let (name, instance) = (&worker.spec.worker, worker.instance());
            let free = worker.spec.slots.iter().filter(|slot| worker.is_free(&slot.name));
            let asks = free.map(|slot| Event::Acquire {
                worker: name.clone(),
                instance: instance.clone(),
                slot: slot.name.clone(),
            });
            for ask in asks.collect::<Vec<_>>() {
                self.send(index, now, vec![ask]);
            }
        }
    }

    fn renew(&mut self, index: usize, now: Millis) {
        let worker = &mut self.workers[index];
        worker.next_renewal = now + RENEW_MS;
        if worker.unanswered.is_some() {
            // As `revoke_orphaned` does, and only where nobody answers.
            worker.children.retain(|child| now <= child.deadline + ORPHANED_MS);
        }
        worker.unanswered = Some(now);
        let (holding, name) = (worker.holding(), worker.spec.worker.clone());
        let event = if worker.has_joined {
            Event::Renew { worker: name, instance: worker.instance(), holding, resting: Resting::default() }
        } else {
            worker.has_joined = true;
            Event::Join { spec: worker.spec.clone(), holding }
        };
        self.send(index, now, vec![event]);
    }

    /// Sends what the outbox holds, checkpoints before the ending.
    fn report(&mut self, index: usize, now: Millis) {
        let worker = &mut self.workers[index];
        let name = worker.spec.worker.clone();
        let mut requests = Vec::new();
        for ended in worker.outbox.iter_mut().filter(|ended| ended.next <= now) {
            ended.next = now + SEND_MS;
            let (run_id, attempt) = (ended.grant.run_id, ended.grant.attempt);
            let publish = |checkpoint| Event::Publish { worker: name.clone(), run_id, attempt, checkpoint };
            let mut events: Vec<Event> = ended.checkpoints.iter().cloned().map(publish).collect();
            events.push(Event::Settle { worker: name.clone(), run_id, attempt, ending: ended.ending.clone() });
            requests.push((events, ended.stamp));
        }
        for (events, stamp) in requests {
            self.send_ending(index, now, events, stamp);
        }
    }

    fn trouble_worker(&mut self, index: usize) {
        let t = self.t;
        let for_ms = 1_000 + self.dice.roll(90_000);
        match self.dice.roll(2_000) {
            0..=5 => self.kill(index, for_ms),
            6..=11 => {
                self.strike(Fault::WorkerStopped);
                self.workers[index].stopped_until = t + for_ms;
            }
            12..=14 => {
                self.strike(Fault::WorkerSuspended);
                let worker = &mut self.workers[index];
                worker.clock.stand(t, for_ms);
                worker.stopped_until = t + for_ms;
            }
            15..=17 => {
                self.strike(Fault::WorkerClockJumps);
                let ahead = for_ms * self.dice.pick(&[1, 1, 100]);
                self.workers[index].clock.jump(t, ahead);
            }
            18..=20 => {
                self.strike(Fault::NetworkCut);
                self.workers[index].cut_until = t + for_ms;
            }
            21..=23 => self.twin(index),
            _ => {}
        }
    }

    fn kill(&mut self, index: usize, for_ms: Millis) {
        self.strike(Fault::WorkerDies);
        let worker = &mut self.workers[index];
        worker.down_until = self.t + for_ms;
        worker.children.clear();
        worker.life += 1;
        if let Some(own) = &mut worker.spec.instance {
            *own = instance(&worker.spec.worker, worker.life);
        }
        worker.has_joined = false;
        worker.unanswered = None;
        (worker.next_renewal, worker.next_ask) = (0, 0);
    }

    /// The process of the last life was not dead: it joins and asks as if it were still the worker. No dice are rolled for
    /// it, so that a seed stays what it is wherever it is refused.
    fn twin(&mut self, index: usize) {
        let spec = &self.workers[index].spec;
        let Some(life) = self.workers[index].life.checked_sub(1) else {
            return;
        };
        let (worker, own) = (spec.worker.clone(), spec.instance.as_ref().map(|_| instance(&spec.worker, life)));
        let acquire = |slot: &Slot| Event::Acquire {
            worker: worker.clone(),
            instance: own.as_ref().map(|own| own.id.clone()),
            slot: slot.name.clone(),
        };
        let asks: Vec<Event> = spec.slots.iter().map(acquire).collect();
        let join = Event::Join { spec: WorkerSpec { instance: own, ..spec.clone() }, holding: Vec::new() };
        let events = [join].into_iter().chain(asks).collect();
        self.strike(Fault::TwinReturns);
        self.letters.push((self.t + 1, Letter::Request(Asked { worker: index, life, at: 0, events, stamp: None })));
    }

    /// Children go on while their worker is stopped.
    fn train(&mut self, index: usize) {
        for mut child in std::mem::take(&mut self.workers[index].children) {
            child.step += 1;
            child.left_ms = child.left_ms.saturating_sub(QUANTUM_MS);
            if child.left_ms > 0 {
                self.workers[index].children.push(child);
            } else {
                self.end(index, child.grant);
            }
        }
    }

    fn end(&mut self, index: usize, grant: Grant) {
        let storage = self.workers[index].spec.storage.clone();
        let mut steps = grant.planned.trunk_steps.clone();
        if self.trouble() && self.dice.chance(5) {
            // A checkpoint that is lost: the trunk's end without it counts as a failure.
            steps.pop();
        }
        // Even marks finish, odd ones diverge.
        self.stamps += 2;
        let odds = self.dice.roll(100);
        let (outcome, stamp) = match odds {
            0..=2 => {
                let stamp = self.stamps + 1;
                let Outcome::Diverged(diverged) = sample::diverged() else { unreachable!("it is a sample of one") };
                (Outcome::Diverged(Diverged { step: stamp, ..diverged }), Some(stamp))
            }
            3..=12 if self.trouble() => (sample::failed(odds != 3), None),
            _ => {
                let Outcome::Finished(mut finished) = sample::finished(self.stamps as f64) else {
                    unreachable!("it is a sample of one")
                };
                finished.flops_spent = isoloss_sweep::Flops(flops_of(self.stamps));
                (Outcome::Finished(finished), Some(self.stamps))
            }
        };
        if let Some(stamp) = stamp {
            self.history.produce(stamp, grant.run_id, grant.attempt);
        }
        let ending = if self.trouble() && self.dice.chance(3) {
            Ending::Yielded { reason: "no space left on device".to_owned(), wait: self.dice.chance(50) }
        } else {
            Ending::Outcome(Box::new(outcome))
        };
        // A trunk's end may count as a failure: no promise is given for it.
        let is_promised = matches!(ending, Ending::Outcome(_)) && !grant.planned.is_trunk();
        let stamp = stamp.filter(|_| is_promised);
        let checkpoints = steps.into_iter().map(|step| sample::checkpoint(step, &storage)).collect();
        let life = self.workers[index].life;
        self.workers[index].outbox.push(Ended { grant, life, stamp, ending, checkpoints, next: 0 });
    }
}
