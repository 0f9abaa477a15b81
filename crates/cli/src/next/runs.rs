//! Runs of a sweep as the design sees them: those with a loss, and those to choose from.

use isoloss_fit::design::Candidate;
use isoloss_fit::{LossUnit, Observation, Observations};
use isoloss_sweep::Outcome;
use isoloss_wire::api::{Kind, RunDetail, RunState};

/// Dense runs, all runs where none is dense. What has ended without a loss is neither.
pub(crate) fn sorted(results: &[RunDetail]) -> (Observations, Vec<Candidate>) {
    let (mut rows, mut pool) = (Vec::new(), Vec::new());
    for detail in choosable(results) {
        match (&detail.outcome, detail.row.state) {
            (Some(Outcome::Finished(finished)), _) => {
                rows.push(Observation::of_run(&detail.row.arm, &detail.run, finished, LossUnit::BitsPerByte));
            }
            (None, RunState::Pending | RunState::Blocked | RunState::Leased | RunState::Cancelled) => {
                pool.push(candidate(detail));
            }
            _ => {}
        }
    }
    (Observations::new(rows, Vec::new(), "params_active_non_embedding"), pool)
}

/// The runs that a choice is made among.
pub(crate) fn choosable(results: &[RunDetail]) -> impl Iterator<Item = &RunDetail> {
    let dense = |detail: &&RunDetail| detail.run.model.experts.is_none();
    let runs = move || results.iter().filter(|detail| detail.row.kind == Kind::Run);
    let any = runs().any(|detail| dense(&detail));
    runs().filter(move |detail| !any || dense(detail))
}

/// A branch pays for its decay and for the part of its trunk that is not there yet.
pub(crate) fn candidate(detail: &RunDetail) -> Candidate {
    let row = Observation::of_plan(&detail.row.arm, &detail.run);
    let step = row.flops / detail.run.train.steps.max(1) as f64;
    let own = match (&detail.run.train.schedule, detail.run.trunk_id()) {
        (isoloss_sweep::run::Schedule::Wsd { decay_steps }, Some(_)) => step * *decay_steps as f64,
        _ => row.flops,
    };
    Candidate { cost: own, trunk: row.flops - own, row }
}
