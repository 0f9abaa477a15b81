//! A scheduler with a clock, workers of two kinds, and shorthands for what happens to them.

use super::*;

pub(super) const LEASE: Millis = 30_000;

/// A state with its clock, and shorthands for what happens to it.
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) now: Millis,
}

impl Bench {
    pub(super) fn new(admissions: &[Admission]) -> Self {
        let mut bench = Self { state: State::restore(Config::default(), Ledger::default(), 0), now: 0 };
        for admission in admissions {
            bench.submit(admission);
        }
        bench
    }

    pub(super) fn tell(&mut self, event: Event) -> Vec<Effect> {
        step(&mut self.state, event, self.now)
    }

    pub(super) fn submit(&mut self, admission: &Admission) -> Vec<Effect> {
        let admission = Arc::new(admission.clone());
        self.tell(Event::Submit { admission })
    }

    pub(super) fn join(&mut self, spec: WorkerSpec) {
        self.tell(Event::Join { spec, holding: Vec::new() });
    }

    pub(super) fn acquire(&mut self, worker: &str, slot: &str) -> Option<Grant> {
        let event = Event::Acquire { worker: worker.to_owned(), instance: None, slot: slot.to_owned() };
        self.tell(event).into_iter().find_map(|effect| match effect {
            Effect::Grant(grant) => Some(grant),
            _ => None,
        })
    }

    pub(super) fn settle(&mut self, grant: &Grant, outcome: Outcome) -> Vec<Effect> {
        self.tell(Event::Settle {
            worker: grant.worker.clone(),
            run_id: grant.run_id,
            attempt: grant.attempt,
            ending: Ending::Outcome(Box::new(outcome)),
        })
    }

    pub(super) fn renew(&mut self, grant: &Grant, step: u64) -> Vec<Effect> {
        let holding = vec![held(grant, step)];
        self.tell(Event::Renew { worker: grant.worker.clone(), instance: None, holding, resting: Resting::default() })
    }

    pub(super) fn publish(&mut self, grant: &Grant, step: u64, storage: &str) -> Vec<Effect> {
        self.tell(Event::Publish {
            worker: grant.worker.clone(),
            run_id: grant.run_id,
            attempt: grant.attempt,
            checkpoint: sample::checkpoint(step, storage),
        })
    }

    /// Lets time pass, second by second.
    pub(super) fn wait(&mut self, ms: Millis) {
        let until = self.now + ms;
        while self.now < until {
            self.now = (self.now + 1000).min(until);
            self.tell(Event::Tick);
        }
    }

    pub(super) fn status(&self, run_id: RunId) -> Status {
        self.state.status(run_id).unwrap()
    }

    pub(super) fn why(&self, run_id: RunId) -> String {
        self.state.explain(run_id, self.now).unwrap().join("; ")
    }
}

pub(super) fn held(grant: &Grant, step: u64) -> Holding {
    let progress = (step > 0).then_some(Progress {
        step,
        steps: 100,
        tokens: step,
        tokens_per_second: 1.0,
        loss_nats: None,
        bits_per_byte: None,
        memory_bytes: 0,
        mps: false,
    });
    Holding { run_id: grant.run_id, attempt: grant.attempt, slot: grant.slot.clone(), progress }
}

pub(super) fn cpu(name: &str, storage: &str, slots: u32) -> WorkerSpec {
    let slot = |n| Slot { name: format!("cpu:{n}"), device: Device::Cpu { threads: 1 }, memory_bytes: 64 << 20 };
    WorkerSpec {
        worker: name.to_owned(),
        instance: None,
        place: "somewhere".to_owned(),
        code_version: "test".to_owned(),
        slots: (0..slots).map(slot).collect(),
        gpu_names: std::collections::BTreeMap::new(),
        storage: storage.to_owned(),
        allow_commands: false,
    }
}

/// A worker whose slots share one GPU of this memory.
pub(super) fn gpu(name: &str, slots: u32, memory_bytes: u64) -> WorkerSpec {
    let slot =
        |n| Slot { name: format!("gpu-share:{n}"), device: Device::Gpu { uuid: format!("GPU-{name}") }, memory_bytes };
    WorkerSpec { slots: (0..slots).map(slot).collect(), ..cpu(name, name, 0) }
}

pub(super) fn on_gpu(seed: u64, memory_bytes: u64) -> Planned {
    let mut planned = sample::planned(seed);
    planned.run.numerics.engine = EngineKind::Cuda;
    Planned { run_id: planned.run.id(), memory_bytes, ..planned }
}

pub(super) fn stops(effects: &[Effect]) -> Vec<StopReason> {
    let reason = |effect: &Effect| match effect {
        Effect::Stop { reason, .. } => Some(*reason),
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

pub(super) fn refusals(effects: &[Effect]) -> Vec<&Refusal> {
    let mut refusals = Vec::new();
    for effect in effects {
        if let Effect::Refused(refusal) = effect {
            refusals.push(refusal);
        }
    }
    refusals
}
