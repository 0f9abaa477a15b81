//! The authority's views as rows of the wire. Arithmetic only.

use std::collections::BTreeMap;

use isoloss_store::{Block, End, RunRow as Stored, Status};
use isoloss_sweep::{Run, RunId, Tokens};
use isoloss_wire::api::{Kind, Live, Phase, RunRow, RunState, StateCounts, SweepRow};

use crate::authority::{Head, LeaseRow, MemberView, RunView};

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
        gpu: None,
        live: view.lease.as_ref().map(|lease| live(lease, view)),
    };
    match view.row.settled.as_ref().map(|settled| &settled.end) {
        Some(End::Finished { score, seconds, device, gpu }) => {
            // A trunk has checkpoints; its loss is nobody's result.
            if row.kind == Kind::Run {
                row.loss_nats = Some(score.loss_nats);
                row.bits_per_byte = Some(score.bits_per_byte);
            }
            row.seconds = Some(*seconds);
            row.device = Some(device.clone());
            row.gpu = gpu.as_deref().cloned();
        }
        Some(End::Diverged { seconds, gpu, .. }) => {
            row.seconds = Some(*seconds);
            row.gpu = gpu.as_deref().cloned();
        }
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
        gpu: lease.gpu.clone(),
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

/// Rows of members of a sweep.
pub(crate) fn run_rows(members: &[MemberView]) -> Vec<RunRow> {
    members.iter().map(|member| run_row(&member.run, &member.arm)).collect()
}

/// What the runs of a sweep add up to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: StateCounts,
    pub(crate) best_by_arm: BTreeMap<String, f64>,
    /// In the order of the plan.
    pub(crate) arms: Vec<String>,
    /// Finished mixtures of experts.
    pub(crate) routed: Vec<RunId>,
    flops: f64,
    flops_done: f64,
    flops_per_second: f64,
    tokens_per_second: f64,
    best: Option<f64>,
    /// Members of which something may still come.
    open: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, member: &MemberView) {
        let (view, arm) = (&member.run, &*member.arm);
        let (planned, state) = (&view.row.planned, state(view.status));
        self.open += usize::from(!view.status.is_final());
        if !planned.is_trunk() {
            count(&mut self.counts, state);
            if let Some(End::Finished { score, .. }) = view.row.settled.as_ref().map(|settled| &settled.end) {
                self.best(arm, score.bits_per_byte);
            }
            if state == RunState::Finished && planned.run.model.experts.is_some() {
                self.routed.push(view.run_id);
            }
        }
        if !self.arms.iter().any(|known| known == arm) {
            self.arms.push(arm.to_owned());
        }
        let tokens = trained_tokens(&planned.run, &planned.trunk_steps);
        let flops = planned.run.model.training_flops(tokens).get();
        let live = view.lease.as_ref().map(|lease| live(lease, view));
        self.flops += flops;
        self.flops_done += flops * done(state, live.as_ref(), view);
        if let Some(live) = live {
            self.tokens_per_second += live.tokens_per_second;
            self.flops_per_second += live.tokens_per_second * flops / tokens.as_f64().max(1.0);
        }
    }

    fn best(&mut self, arm: &str, bits: f64) {
        self.best = Some(self.best.map_or(bits, |best| best.min(bits)));
        match self.best_by_arm.get_mut(arm) {
            Some(best) => *best = best.min(bits),
            None => drop(self.best_by_arm.insert(arm.to_owned(), bits)),
        }
    }

    /// Where its sweep stands.
    pub(crate) fn phase(&self, head: &Head) -> Phase {
        if head.cancelled {
            Phase::Cancelled
        } else if self.open == 0 {
            Phase::Ended
        } else if head.paused {
            Phase::Paused
        } else {
            Phase::Active
        }
    }

    /// The sweep in short.
    pub(crate) fn row(&self, head: &Head) -> SweepRow {
        let left = self.flops - self.flops_done;
        SweepRow {
            sweep_id: head.sweep_id,
            name: head.name.clone(),
            phase: self.phase(head),
            submitted_at: head.submitted_at,
            counts: self.counts,
            progress_ratio: if self.flops > 0.0 { self.flops_done / self.flops } else { 1.0 },
            eta_seconds: (self.flops_per_second > 0.0).then(|| left / self.flops_per_second),
            best_bits_per_byte: self.best,
            tokens_per_second: self.tokens_per_second,
        }
    }
}

/// Share of a run's work that is behind it; a run that will do no more has none before it.
fn done(state: RunState, live: Option<&Live>, view: &RunView) -> f64 {
    let share = |step: u64| step as f64 / steps(view).max(1) as f64;
    match (state, live) {
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
