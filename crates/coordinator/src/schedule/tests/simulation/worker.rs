//! What the simulated workers do: train, renew, ask, die, and say everything again until it is acknowledged.

use super::*;

impl World {
    pub(super) fn hear(&mut self, index: usize, life: u64, effect: Effect) {
        let now_s = self.now_s;
        let seconds = 2 + self.dice.roll(50);
        let worker = &mut self.workers[index];
        if worker.life != life || worker.down_until_s > now_s {
            return;
        }
        match effect {
            Effect::Grant(grant) => {
                let busy = worker.children.iter().any(|child| child.grant.slot == grant.slot);
                let ended = worker.unsettled.iter().any(|(old, _)| old.run_id == grant.run_id);
                if !busy && !ended {
                    let done_s = now_s + seconds;
                    worker.children.push(Child { grant, done_s, step: 0 });
                }
            }
            Effect::Stop { run_id, attempt, .. } => {
                worker.children.retain(|child| (child.grant.run_id, child.grant.attempt) != (run_id, attempt));
            }
            Effect::Rejoin { .. } => self.join(index),
            _ => {}
        }
    }

    fn join(&mut self, index: usize) {
        let worker = &self.workers[index];
        let spec = worker.spec.clone();
        let children = worker.children.iter().map(|child| held(&child.grant, child.step));
        let ended = worker.unsettled.iter().map(|(grant, _)| held(grant, 1));
        let holding = children.chain(ended).collect();
        self.send(index, Event::Join { spec, holding });
    }

    pub(super) fn work(&mut self, index: usize) {
        if self.workers[index].down_until_s > self.now_s {
            return;
        }
        if self.trouble() && self.dice.chance(1) {
            return self.kill(index);
        }
        self.train(index);
        let worker = &self.workers[index];
        let name = worker.spec.worker.clone();
        let mut events = Vec::new();
        if self.now_s.is_multiple_of(5) {
            let holding = worker.children.iter().map(|child| held(&child.grant, child.step)).collect();
            events.push(Event::Renew { worker: name.clone(), holding });
        }
        for (grant, ending) in &worker.unsettled {
            events.push(Event::Settle {
                worker: name.clone(),
                run_id: grant.run_id,
                attempt: grant.attempt,
                ending: ending.clone(),
            });
        }
        for slot in &worker.spec.slots {
            if worker.children.iter().all(|child| child.grant.slot != slot.name) {
                events.push(Event::Acquire { worker: name.clone(), slot: slot.name.clone() });
            }
        }
        events.into_iter().for_each(|event| self.send(index, event));
    }

    /// Killed or stopped for a while, perhaps for longer than a lease.
    fn kill(&mut self, index: usize) {
        self.history.faults += 1;
        let down_s = self.dice.roll(90);
        let stopped_only = self.dice.chance(40);
        let worker = &mut self.workers[index];
        worker.down_until_s = self.now_s + down_s;
        if !stopped_only {
            worker.children.clear();
            worker.life += 1;
        }
    }

    fn train(&mut self, index: usize) {
        let (now_s, storage) = (self.now_s, self.workers[index].spec.storage.clone());
        let children = std::mem::take(&mut self.workers[index].children);
        for mut child in children {
            child.step += 1;
            if child.done_s > now_s {
                self.workers[index].children.push(child);
                continue;
            }
            // A checkpoint may be lost on its way: the trunk's end without it counts as a failure.
            for step in child.grant.planned.trunk_steps.clone() {
                let event = Event::Publish {
                    worker: self.workers[index].spec.worker.clone(),
                    run_id: child.grant.run_id,
                    attempt: child.grant.attempt,
                    checkpoint: sample::checkpoint(step, &storage),
                };
                self.send(index, event);
            }
            let loss = (child.grant.attempt * 1000 + self.dice.roll(1000)) as f64;
            let outcome = match self.dice.roll(100) {
                0..=2 => sample::diverged(),
                3..=12 if self.now_s < TROUBLE_S => sample::failed(true),
                _ => sample::finished(loss),
            };
            self.workers[index].unsettled.push((child.grant, Ending::Outcome(Box::new(outcome))));
        }
    }
}
