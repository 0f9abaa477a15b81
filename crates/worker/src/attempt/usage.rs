//! What an attempt has of a GPU, as its worker knows it and its child does not: which GPU, whether through MPS, and how much of
//! its time, for others share it. It measures no work.

use std::time::Duration;

use isoloss_sweep::Outcome;
use isoloss_sweep::outcome::GpuUse;
use isoloss_wire::api::{Ending, Slot};
use tokio::time::Instant;

use crate::daemon::Context;
use crate::mps::Seat;

/// From the attempt's begin on.
pub(super) struct Usage {
    gpu: GpuUse,
    begun: Instant,
    /// The GPU's clock then.
    clock: Duration,
}

impl Usage {
    /// None on cores.
    pub(super) fn begin(context: &Context, slot: &Slot, seat: &Seat) -> Option<Self> {
        let uuid = slot.gpu.clone()?;
        let name = context.config.gpu_names.get(&uuid).cloned();
        let gpu = GpuUse { uuid, name, mps: seat.is_client(), seconds: None };
        let begun = Instant::now();
        Some(Self { gpu, begun, clock: context.gpus.clock(slot, begun) })
    }

    pub(super) fn gpu(&self) -> GpuUse {
        self.gpu.clone()
    }

    /// GPUs over the runs on them, mean since the begin.
    fn share(&self, context: &Context, slot: &Slot) -> f64 {
        let now = Instant::now();
        let had = context.gpus.clock(slot, now).saturating_sub(self.clock);
        let gpus = self.gpu.uuid.split(',').count() as f64;
        gpus * had.as_secs_f64() / (now - self.begun).as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Writes it into the outcome, whatever the child said there. Earlier attempts at the run are taken to have had the same
/// share.
pub(super) fn tell(usage: Option<&Usage>, context: &Context, slot: &Slot, ending: &mut Ending) {
    let Ending::Outcome(outcome) = ending else { return };
    let of = |seconds: f64| {
        let usage = usage?;
        Some(GpuUse { seconds: Some(seconds * usage.share(context, slot)), ..usage.gpu() })
    };
    match &mut **outcome {
        Outcome::Finished(finished) => finished.gpu = of(finished.cost.seconds),
        Outcome::Diverged(diverged) => diverged.gpu = of(diverged.seconds),
        Outcome::Failed(_) => {}
    }
}
