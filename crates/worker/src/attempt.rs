//! One attempt at a run, from its lease to its acknowledged ending. It knows neither pipes nor HTTP.

mod ending;
mod ladder;
mod listen;
mod lost;
mod minder;
mod origin;
mod start;
mod told;
mod upload;
mod usage;

use std::sync::Arc;

use isoloss_sweep::Outcome;
use isoloss_wire::api::{CheckpointRef, Ending, Lease, Settle, Slot};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attempt::ending::{Cause, End};
use crate::attempt::listen::Heard;
use crate::attempt::minder::{Minder, Over};
use crate::attempt::start::start;
use crate::attempt::usage::Usage;
use crate::daemon::{Context, has_room};
use crate::delivery::{BRIEF_ATTEMPT, deliver};
use crate::meter::{Meter, millis};
use crate::retention::clear_up;
use crate::spare::Spare;

/// Sees an attempt through. When it returns, the child is gone or is the slot's `spare` one, and the attempt's ending is
/// acknowledged, or on disk because the worker ends too. Gives the slot's next work, where the answer to the ending brought
/// some.
pub(crate) async fn attempt(
    context: &Arc<Context>,
    slot: &Slot,
    lease: &Lease,
    asked: Instant,
    meter: &mut Meter,
    spare: &mut Option<Spare>,
    shutdown: watch::Receiver<bool>,
) -> Option<(Box<Lease>, Instant)> {
    meter.grant();
    let begun = Instant::now();
    let span = (lease.run_id.short(), lease.attempt);
    tracing::info!(run = span.0, attempt = span.1, slot = slot.name, "attempt begins");
    let seat = context.mps.seat(slot, lease);
    let usage = Usage::begin(context, slot, &seat);
    let gpu = usage.as_ref().map(Usage::gpu);
    let revoked = context.held.insert(&context.config.name, &slot.name, gpu, lease, asked);
    let end = loop {
        let started = match start(context, slot, lease, &seat, spare.take(), revoked.clone(), shutdown.clone()).await {
            Ok(started) => started,
            Err(end) => break end,
        };
        let heard = Heard::new(context, slot, lease, &seat, &started, meter);
        match Minder::new(heard, started, revoked.clone(), shutdown.clone()).supervise().await {
            Over::End(end) => break end,
            Over::Kept(end, kept) => {
                *spare = Some(kept);
                break end;
            }
            // Once at most: now there is none to spare.
            Over::Afresh => {}
        }
    };
    drop(seat);
    let [start_ms, first_step_ms, idle_ms] = [meter.start(), meter.stepped(), meter.idle()].map(millis);
    let (run, attempt) = span;
    let (name, reason) = (end.name(), end.reason());
    tracing::info!(run, attempt, end = name, reason, start_ms, first_step_ms, idle_ms, "attempt ends");
    match end.cause() {
        Cause::Storage => context.room.lost(lease),
        Cause::Device => context.gpus.lost(slot, begun, reason.unwrap_or_default()),
        Cause::Other => context.room.kept(),
    }
    let next = match end {
        End::Settle { mut ending, checkpoints, .. } => {
            usage::tell(usage.as_ref(), context, slot, &mut ending);
            let brief = begun.elapsed() < BRIEF_ATTEMPT;
            settle(context, slot, lease, ending, checkpoints, brief, shutdown).await
        }
        End::Revoked => None,
    };
    // Only now: a lease that is renewed until its ending is acknowledged cannot run out in between.
    context.held.remove((lease.run_id, lease.attempt));
    next
}

/// Reports the ending, and clears up after a run that is over.
async fn settle(
    context: &Arc<Context>,
    slot: &Slot,
    lease: &Lease,
    ending: Ending,
    checkpoints: Vec<CheckpointRef>,
    brief: bool,
    shutdown: watch::Receiver<bool>,
) -> Option<(Box<Lease>, Instant)> {
    let over = is_result(&ending);
    let settle = Settle {
        worker: context.config.name.clone(),
        instance: Some(context.instance.id.clone()),
        run_id: lease.run_id,
        attempt: lease.attempt,
        key: lease.key.clone(),
        device: slot.name.clone(),
        // A slot whose attempt broke or was given back asks for itself: it may have to wait.
        next: over && !*shutdown.borrow() && has_room(context) && context.gpus.may_go_on(slot),
        ending,
        checkpoints,
        log: context.held.take_log((lease.run_id, lease.attempt)),
    };
    let delivered = deliver(&context.client, &context.outbox, settle, brief, shutdown).await;
    if delivered.recorded && over {
        // Digests are compared on the way: nobody waits for that.
        let (context, run_id, is_trunk) = (context.clone(), lease.run_id, !lease.trunk_steps.is_empty());
        tokio::spawn(async move { clear_up(&context, run_id, is_trunk).await });
    }
    delivered.next
}

/// Whether nobody goes on from here: a failed attempt may be followed by one that starts at its checkpoint.
fn is_result(ending: &Ending) -> bool {
    match ending {
        Ending::Outcome(outcome) => matches!(**outcome, Outcome::Finished(_) | Outcome::Diverged(_)),
        Ending::Yielded { .. } => false,
    }
}
