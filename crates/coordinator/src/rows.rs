//! The authority's views as rows of the wire. Arithmetic only.

use isoloss_store::{Block, End, RunRow as Stored, Status};
use isoloss_sweep::{Run, Tokens};
use isoloss_wire::api::{Kind, Live, Phase, RunRow, RunState, StateCounts, SweepRow};
use jiff::Timestamp;

use crate::authority::{LeaseRow, RunView, SweepView};

/// A run as a sweep's list shows it, under the arm by which that sweep knows it.
pub(crate) fn run_row(view: &RunView, arm: &str) -> RunRow {
    let planned = &view.row.planned;
    let run = &planned.run;
    let params = run.model.param_counts();
    let tokens = trained_tokens(run, &planned.trunk_steps);
    let experts = run.model.experts.as_ref();
    let mut row = RunRow {
        run_id: view.run_id,
        kind: if planned.is_trunk() { Kind::Trunk } else { Kind::Run },
        arm: arm.to_owned(),
        state: state(view.status),
        reason: reason(&view.row, view.status).or_else(|| stall(view)),
        attempts: view.row.attempt,
        params_total: params.total,
        params_non_embedding: params.non_embedding,
        params_active: params.active,
        params_active_non_embedding: params.active_non_embedding,
        layers: run.model.layers,
        width: run.model.width,
        experts: experts.map(|experts| experts.count),
        top_k: experts.map(|experts| experts.top_k),
        tokens,
        flops: run.model.training_flops(tokens),
        seed: run.train.seed,
        loss_nats: None,
        bits_per_byte: None,
        seconds: None,
        device: None,
        live: view.lease.as_ref().map(|lease| live(lease, view)),
    };
    match view.row.settled.as_ref().map(|settled| &settled.end) {
        Some(End::Finished { score, seconds, device }) => {
            // A trunk has checkpoints; its loss is nobody's result.
            if row.kind == Kind::Run {
                row.loss_nats = Some(score.loss_nats);
                row.bits_per_byte = Some(score.bits_per_byte);
            }
            row.seconds = Some(*seconds);
            row.device = Some(device.clone());
        }
        Some(End::Diverged { seconds, .. }) => row.seconds = Some(*seconds),
        Some(End::Failed { .. }) | None => {}
    }
    row
}

/// A trunk ends at its last checkpoint.
fn trained_tokens(run: &Run, trunk_steps: &[u64]) -> Tokens {
    let per_step = u64::from(run.train.batch) * u64::from(run.model.context);
    trunk_steps.last().map_or_else(|| run.tokens(), |steps| Tokens(steps * per_step))
}

/// Until its first report a live run is taken to stand where its newest known checkpoint, or its trunk's, stands.
fn live(lease: &LeaseRow, view: &RunView) -> Live {
    let progress = lease.progress;
    let run = &view.row.planned.run;
    let begun = saved(view).max(view.row.planned.branch.map_or(0, |branch| branch.step));
    let saved_tokens = begun * u64::from(run.train.batch) * u64::from(run.model.context);
    Live {
        worker: lease.worker.clone(),
        device: lease.slot.clone(),
        attempt: lease.attempt,
        step: progress.map_or(begun, |progress| progress.step),
        steps: progress.map_or_else(|| steps(view), |progress| progress.steps),
        tokens: Tokens(progress.map_or(saved_tokens, |progress| progress.tokens)),
        tokens_per_second: progress.map_or(0.0, |progress| progress.tokens_per_second),
        loss_nats: progress.and_then(|progress| progress.loss_nats),
        bits_per_byte: progress.and_then(|progress| progress.bits_per_byte),
        memory_bytes: progress.map_or(0, |progress| progress.memory_bytes),
        seconds: lease.age_ms as f64 / 1e3,
    }
}

pub(crate) fn state(status: Status) -> RunState {
    match status {
        Status::Pending => RunState::Pending,
        // A branch would have gone the way of its trunk: its setting was tried, and what came of it is known.
        Status::Blocked(Block::TrunkDiverged) => RunState::Diverged,
        Status::Blocked(_) => RunState::Blocked,
        Status::Leased => RunState::Leased,
        Status::Finished => RunState::Finished,
        Status::Diverged => RunState::Diverged,
        Status::Failed => RunState::Failed,
        Status::Cancelled => RunState::Cancelled,
        Status::Quarantined => RunState::Quarantined,
    }
}

/// What status tells of a run that lives and gets nowhere.
fn stall(view: &RunView) -> Option<String> {
    let lease = view.lease.as_ref().filter(|lease| lease.stalled)?;
    Some(format!("no step for {} s", lease.silent_ms / 1000))
}

fn reason(row: &Stored, status: Status) -> Option<String> {
    if let Status::Blocked(block) = status {
        let why = match block {
            Block::Waiting => "waits for its trunk's checkpoint",
            Block::TrunkDiverged => "its trunk diverged",
            Block::TrunkFailed => "its trunk failed",
            Block::TrunkCancelled => "its trunk was cancelled",
        };
        return Some(why.to_owned());
    }
    match row.settled.as_ref().map(|settled| &settled.end) {
        Some(End::Diverged { step, reason, .. }) => Some(format!("step {step}: {reason}")),
        Some(End::Failed { reason }) => Some(reason.clone()),
        Some(End::Finished { .. }) => None,
        None => row.quarantined.clone(),
    }
}

/// All rows of a sweep in the order of its plan. Views come in the order of the members.
pub(crate) fn run_rows(view: &SweepView) -> Vec<RunRow> {
    let pairs = view.row.members.iter().zip(&view.runs);
    pairs.map(|(member, run)| run_row(run, &member.arm)).collect()
}

/// A sweep in short, from its rows.
pub(crate) fn sweep_row(view: &SweepView, submitted_at: Timestamp, rows: &[RunRow]) -> SweepRow {
    let mut counts = StateCounts::default();
    let (mut flops, mut flops_done, mut flops_per_second, mut tokens_per_second) = (0.0, 0.0, 0.0, 0.0);
    let mut best: Option<f64> = None;
    for (row, run) in rows.iter().zip(&view.runs) {
        if row.kind == Kind::Run {
            count(&mut counts, row.state);
            best = row.bits_per_byte.map_or(best, |bits| Some(best.map_or(bits, |best| best.min(bits))));
        }
        flops += row.flops.get();
        flops_done += row.flops.get() * done(row, run);
        if let Some(live) = &row.live {
            tokens_per_second += live.tokens_per_second;
            flops_per_second += live.tokens_per_second * row.flops.get() / row.tokens.as_f64().max(1.0);
        }
    }
    SweepRow {
        sweep_id: view.sweep_id,
        name: view.row.name.clone(),
        phase: phase(view),
        submitted_at,
        counts,
        progress_ratio: if flops > 0.0 { flops_done / flops } else { 1.0 },
        eta_seconds: (flops_per_second > 0.0).then(|| (flops - flops_done) / flops_per_second),
        best_bits_per_byte: best,
        tokens_per_second,
    }
}

/// Where a sweep stands.
pub(crate) fn phase(view: &SweepView) -> Phase {
    if view.row.cancelled {
        Phase::Cancelled
    } else if view.is_final() {
        Phase::Ended
    } else if view.row.paused {
        Phase::Paused
    } else {
        Phase::Active
    }
}

/// Share of a run's work that is behind it; a run that will do no more has none before it.
fn done(row: &RunRow, view: &RunView) -> f64 {
    let share = |step: u64| step as f64 / steps(view).max(1) as f64;
    match (row.state, &row.live) {
        (RunState::Leased, Some(live)) => share(live.step),
        (RunState::Pending | RunState::Blocked | RunState::Leased, _) => share(saved(view)),
        _ => 1.0,
    }
}

/// The step after which a run ends; a trunk ends at its last checkpoint.
fn steps(view: &RunView) -> u64 {
    let planned = &view.row.planned;
    planned.trunk_steps.last().copied().unwrap_or(planned.run.train.steps)
}

/// The step from which the next attempt can go on: the run's newest checkpoint that is known.
fn saved(view: &RunView) -> u64 {
    view.row.checkpoints.last_key_value().map_or(0, |(step, _)| *step).min(steps(view))
}

fn count(counts: &mut StateCounts, state: RunState) {
    let field = match state {
        RunState::Pending => &mut counts.pending,
        RunState::Blocked => &mut counts.blocked,
        RunState::Leased => &mut counts.leased,
        RunState::Finished => &mut counts.finished,
        RunState::Diverged => &mut counts.diverged,
        RunState::Failed => &mut counts.failed,
        RunState::Cancelled => &mut counts.cancelled,
        RunState::Quarantined => &mut counts.quarantined,
    };
    *field += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_of_a_trunk_that_diverged_has_diverged_and_one_that_waits_is_blocked() {
        assert_eq!(state(Status::Blocked(Block::TrunkDiverged)), RunState::Diverged);
        for block in [Block::Waiting, Block::TrunkFailed, Block::TrunkCancelled] {
            assert_eq!(state(Status::Blocked(block)), RunState::Blocked);
        }
    }
}
