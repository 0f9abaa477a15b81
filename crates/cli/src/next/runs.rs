//! Runs of a sweep as the design sees them: those with a loss, and those to choose from.

use std::collections::{BTreeMap, BTreeSet};

use isoloss_fit::design::Candidate;
use isoloss_fit::{LossUnit, Observation, Observations, Pool};
use isoloss_sweep::{Digest, Outcome, RunId};
use isoloss_wire::api::{Kind, RunDetail, RunState};

/// Dense runs, all runs where none is dense.
pub(crate) fn sorted(results: &[RunDetail]) -> Pool {
    let (mut rows, mut open, mut spent, mut trunks) = (Vec::new(), Vec::new(), 0.0, BTreeMap::new());
    for detail in choosable(results) {
        match (&detail.outcome, detail.row.state) {
            (Some(Outcome::Finished(finished)), _) => {
                rows.push(Observation::of_run(&detail.row.arm, &detail.run, finished, LossUnit::BitsPerByte));
                spent += candidate(detail).price(&trunks);
                candidate(detail).extend(&mut trunks);
            }
            (None, RunState::Pending | RunState::Blocked | RunState::Leased | RunState::Cancelled) => {
                open.push(candidate(detail));
            }
            // What ended without a loss was paid too.
            _ => spent += candidate(detail).price(&trunks),
        }
    }
    let known = Observations::new(rows, Vec::new(), "params_active_non_embedding");
    Pool { known, open, spent, trunks }
}

/// The runs that a choice is made among.
pub(crate) fn choosable(results: &[RunDetail]) -> impl Iterator<Item = &RunDetail> {
    let any = any_dense(results);
    all(results).filter(move |detail| !any || is_dense(detail))
}

/// The runs that it leaves alone.
pub(crate) fn others(results: &[RunDetail]) -> impl Iterator<Item = &RunDetail> {
    let any = any_dense(results);
    all(results).filter(move |detail| any && !is_dense(detail))
}

fn all(results: &[RunDetail]) -> impl Iterator<Item = &RunDetail> {
    results.iter().filter(|detail| detail.row.kind == Kind::Run)
}

fn is_dense(detail: &RunDetail) -> bool {
    detail.run.model.experts.is_none()
}

fn any_dense(results: &[RunDetail]) -> bool {
    all(results).any(is_dense)
}

/// Clusters of branches whose trunk has ended without what they need: these will never be made.
pub(crate) fn dead_trunks(results: &[RunDetail]) -> BTreeSet<String> {
    let ended = |detail: &&RunDetail| detail.row.kind == Kind::Trunk && is_dead(detail.row.state);
    results.iter().filter(ended).filter_map(|detail| detail.run.trunk_id()).map(|id| id.to_string()).collect()
}

/// Whether a run in this state gives its branches nothing more.
pub(crate) fn is_dead(state: RunState) -> bool {
    matches!(state, RunState::Failed | RunState::Diverged | RunState::Quarantined | RunState::Cancelled)
}

/// The run behind a candidate.
pub(crate) fn id(candidate: &Candidate) -> Option<RunId> {
    candidate.row.id.parse::<Digest>().ok().map(RunId)
}

/// A branch pays for its decay and for the part of its trunk that is not there yet.
fn candidate(detail: &RunDetail) -> Candidate {
    let row = Observation::of_plan(&detail.row.arm, &detail.run);
    let step = row.flops / detail.run.train.steps.max(1) as f64;
    let own = match (&detail.run.train.schedule, detail.run.trunk_id()) {
        (isoloss_sweep::run::Schedule::Wsd { decay_steps }, Some(_)) => step * *decay_steps as f64,
        _ => row.flops,
    };
    Candidate { cost: own, trunk: row.flops - own, row }
}
