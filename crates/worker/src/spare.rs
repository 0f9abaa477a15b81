//! A child that has ended a run well and waits for the next one of its slot. It is kept from one attempt to the next and no
//! longer, and nothing of it may reach another run: one that spoke meanwhile, left processes behind or may hold too much
//! memory is ended, and the run gets a child of its own.

use isoloss_sweep::Trainer;
use isoloss_sweep::plan::memory_bytes;
use isoloss_wire::api::{Lease, Slot};
use isoloss_wire::child::ToChild;

use crate::child::Child;
use crate::mps::{Seat, Variable};
use crate::strays;

/// A command gives memory back or does not: its next run is to need at least this share of the most that one needed.
const MEMORY_SHARE: f64 = 0.5;

/// What a child has behind it.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    trainer: Option<Trainer>,
    /// In the environment of all that it starts.
    mark: String,
    /// Runs that it took, the present one included.
    runs: u32,
    /// The most that one of them needs by the plan.
    bytes: u64,
    /// How it shares its GPU.
    sharing: Vec<Variable>,
}

/// A child without a run.
#[derive(Debug)]
pub(crate) struct Spare {
    child: Child,
    past: Past,
}

impl Past {
    /// Of a child that is started for `lease`.
    pub(crate) fn new(lease: &Lease, slot: &Slot, seat: &Seat, mark: String) -> Self {
        let bytes = memory_bytes(&lease.run.model, slot.threads);
        Self { trainer: lease.run.trainer.clone(), mark, runs: 1, bytes, sharing: seat.environment().to_vec() }
    }

    /// Whether the present run is its first.
    pub(crate) fn is_fresh(&self) -> bool {
        self.runs == 1
    }

    /// Runs that it took, the present one included.
    pub(crate) fn runs(&self) -> u32 {
        self.runs
    }
}

impl Spare {
    pub(crate) fn new(child: Child, past: Past) -> Self {
        Self { child, past }
    }

    /// Gives it the run of `lease`, if it may take it; else it is gone when this returns. Of the same slot: device, threads
    /// and what is in its environment are those that it was started with.
    pub(crate) async fn take_up(
        mut self,
        lease: &Lease,
        slot: &Slot,
        seat: &Seat,
        order: &ToChild,
    ) -> Option<(Child, Past)> {
        let bytes = memory_bytes(&lease.run.model, slot.threads);
        if let Err(why) = self.suits(lease, seat, bytes).await {
            tracing::debug!(run = lease.run_id.short(), why, "the child before is not used again");
            self.end().await;
            return None;
        }
        self.child.order(order);
        let past = Past { runs: self.past.runs + 1, bytes: self.past.bytes.max(bytes), ..self.past };
        Some((self.child, past))
    }

    async fn suits(&mut self, lease: &Lease, seat: &Seat, bytes: u64) -> Result<(), &'static str> {
        // A process keeps the limit of GPU memory that it was started with.
        if self.past.sharing != seat.environment() {
            return Err("it shares the GPU in another way");
        }
        if self.past.trainer != lease.run.trainer {
            return Err("another command");
        }
        // Ours gives its memory back before it says that it can go on.
        if self.past.trainer.is_some() {
            if (bytes as f64) < MEMORY_SHARE * self.past.bytes as f64 {
                return Err("it had a run that needs far more memory");
            }
            let Some(leader) = self.child.leader() else { return Err("it is gone") };
            let mark = self.past.mark.clone();
            let alone = tokio::task::spawn_blocking(move || strays::is_alone(leader, &mark)).await;
            if !alone.unwrap_or(false) {
                return Err("it left processes behind");
            }
        }
        // Last, so that as little time as can be is left to speak in.
        if self.child.is_silent() { Ok(()) } else { Err("it spoke, or ended, after its outcome") }
    }

    /// Returns when the child is gone with all that it started.
    pub(crate) async fn end(self) {
        self.child.end().await;
    }
}
