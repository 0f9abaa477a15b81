//! The runs of a plan that train on GPUs, as work for them: how long each takes, and when the last one ends.

use std::collections::BTreeMap;

use crate::plan::gpu_speed::{Gpus, Span, Work};
use crate::plan::sharing::{self, Job};
use crate::plan::{Action, Inputs, PlannedRun, Probe, Trunk, evaluated_tokens, on_gpu};
use crate::run::Run;

/// Runs that share a GPU while there are enough of them.
pub(crate) fn company(runs: &[PlannedRun], trunks: &[Trunk], probe: &Probe) -> u32 {
    let runs = runs.iter().filter(|planned| planned.action != Action::Reuse).map(|planned| &planned.run);
    let jobs = runs.chain(trunks.iter().map(|trunk| &trunk.run)).filter(|run| on_gpu(run)).count();
    probe.gpus.as_ref().map_or(1, |gpus| gpus.company(jobs))
}

/// How long a run takes on the GPUs that were measured; none where it runs on cores or nothing was measured.
pub(crate) fn span<'p>(planned: &PlannedRun, inputs: &Inputs<'p>) -> Option<(Span, &'p Gpus)> {
    if planned.action == Action::Reuse {
        let gpus = inputs.probe?.gpus.as_ref().filter(|_| on_gpu(&planned.run))?;
        return Some((Span { alone: 0.0, beside: 0.0 }, gpus));
    }
    let from = planned.depends_on.map_or(0, |from| from.step);
    span_of(&planned.run, from, planned.run.train.steps, 1.0, inputs)
}

pub(crate) fn trunk_span<'p>(trunk: &Trunk, inputs: &Inputs<'p>) -> Option<(Span, &'p Gpus)> {
    span_of(&trunk.run, 0, trunk.steps.last().copied()?, trunk.steps.len() as f64, inputs)
}

fn span_of<'p>(run: &Run, from: u64, to: u64, checkpoints: f64, inputs: &Inputs<'p>) -> Option<(Span, &'p Gpus)> {
    let gpus = inputs.probe?.gpus.as_ref().filter(|_| on_gpu(run))?;
    let manifest = inputs.manifests.iter().find(|manifest| manifest.digest == run.data.corpus)?;
    let step = f64::from(run.train.batch) * f64::from(run.model.context);
    let work =
        Work { trained: (to - from) as f64 * step, evaluated: evaluated_tokens(run, manifest, from, to), checkpoints };
    Some((gpus.span(run, work)?, gpus))
}

/// When the last run on GPUs ends.
pub(crate) fn makespan(runs: &[PlannedRun], trunks: &[Trunk], inputs: &Inputs<'_>) -> f64 {
    let mut places = BTreeMap::new();
    let mut jobs = Vec::new();
    let mut shared = None;
    for trunk in trunks {
        if let Some((span, gpus)) = trunk_span(trunk, inputs) {
            places.insert(trunk.trunk_id, jobs.len());
            jobs.push(Job { span, memory_bytes: trunk.memory_bytes, after: None });
            shared = Some(gpus);
        }
    }
    for planned in runs.iter().filter(|planned| planned.action != Action::Reuse) {
        if let Some((span, gpus)) = span(planned, inputs) {
            let after = planned.depends_on.and_then(|from| places.get(&from.trunk).copied());
            jobs.push(Job { span, memory_bytes: planned.memory_bytes, after });
            shared = Some(gpus);
        }
    }
    shared.map_or(0.0, |gpus| sharing::makespan(&jobs, gpus))
}
