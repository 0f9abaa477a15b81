//! What readers see: rows of the store joined with the living side of the scheduler.

use std::sync::Arc;

use isoloss_store::{RunRow, Status, Store, StoreError, Written};
use isoloss_sweep::outcome::GpuUse;
use isoloss_sweep::{RunId, SweepId};

use crate::schedule::{Device, GpuRest, Lease, Millis, Progress, State, WorkerId, WorkerSpec};

/// A live lease.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseRow {
    pub worker: WorkerId,
    pub slot: String,
    /// The slot's GPU, as far as its worker is known.
    pub gpu: Option<GpuUse>,
    pub attempt: u64,
    pub progress: Option<Progress>,
    /// Since the grant, or since the coordinator restarted.
    pub age_ms: Millis,
    /// Since the last step that was heard of.
    pub silent_ms: Millis,
    /// Whether that is far longer than a step of it takes.
    pub stalled: bool,
}

/// A run as it stands: the store's row, where it stands and its live lease.
#[derive(Debug, Clone, PartialEq)]
pub struct RunView {
    pub run_id: RunId,
    pub row: Arc<RunRow>,
    pub status: Status,
    pub lease: Option<LeaseRow>,
}

/// A worker as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    pub spec: Arc<WorkerSpec>,
    pub draining: bool,
    /// Runs that it holds.
    pub held: Vec<RunId>,
    /// Since it was last heard of.
    pub silent_ms: Millis,
    /// How long it gets no run yet, because one after the other failed there.
    pub held_back_ms: Option<Millis>,
    /// Why it asks for no work, in its own words.
    pub resting: Option<String>,
    /// Its GPUs that were not to be had, with the time that each rests from now on.
    pub gpus_resting: Vec<GpuRest>,
}

/// The durable truth at one moment.
pub struct Truth<'a> {
    pub state: &'a State,
    pub store: &'a Store,
    pub now: Millis,
}

impl Truth<'_> {
    pub fn run(&self, run_id: RunId) -> Option<RunView> {
        let ledger = self.store.ledger();
        let row = ledger.shared_run(run_id)?;
        let lease = self.state.lease(run_id).map(|lease| LeaseRow {
            worker: lease.worker.clone(),
            slot: lease.slot.clone(),
            gpu: self.gpu(lease),
            attempt: lease.attempt,
            progress: lease.progress,
            age_ms: self.now.saturating_sub(lease.since),
            silent_ms: self.now.saturating_sub(lease.moved),
            stalled: lease.stalled,
        });
        Some(RunView { run_id, status: ledger.status(&row), row, lease })
    }

    fn gpu(&self, lease: &Lease) -> Option<GpuUse> {
        let spec = &self.state.worker(&lease.worker)?.spec;
        let slot = spec.slots.iter().find(|slot| slot.name == lease.slot)?;
        let Device::Gpu { uuid } = &slot.device else { return None };
        let mps = lease.progress.is_some_and(|progress| progress.mps);
        Some(GpuUse { uuid: uuid.clone(), name: spec.gpu_names.get(uuid).cloned(), mps, seconds: None })
    }

    pub fn workers(&self) -> Vec<WorkerView> {
        let workers = self.state.workers().map(|worker| WorkerView {
            held: self.state.held_by(&worker.spec.worker).collect(),
            spec: worker.spec.clone(),
            draining: self.state.is_draining(&worker.spec.worker),
            silent_ms: self.now.saturating_sub(worker.seen),
            held_back_ms: self.state.held_back(worker, self.now),
            resting: worker.resting.why.clone(),
            gpus_resting: self.state.resting_gpus(worker, self.now),
        });
        workers.collect()
    }

    pub fn explain(&self, run_id: RunId) -> Option<Vec<String>> {
        self.state.explain(run_id, self.now)
    }

    /// Accepted outcomes, to be read by whoever asks.
    pub fn outcomes(&self, runs: &[RunId]) -> Result<Vec<Option<Written>>, StoreError> {
        runs.iter().map(|run_id| self.store.written_outcome(*run_id)).collect()
    }

    pub fn admission(&self, sweep_id: SweepId) -> Result<Option<Written>, StoreError> {
        self.store.written_admission(sweep_id)
    }
}
