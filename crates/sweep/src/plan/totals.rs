//! Sums over a plan: work, time, warnings, and the refusal of what is over the budget.

use std::collections::{BTreeMap, BTreeSet};

use crate::corpus::TokenizerSpec;
use crate::plan::draft::Draft;
use crate::plan::gpu_speed::{Gpus, Span};
use crate::plan::{Action, Inputs, Plan, PlanError, PlannedRun, Probe, Refusal, Totals, Trunk};
use crate::plan::{gpu_jobs, packing, trunk};
use crate::run::{EngineKind, Run, RunId};
use crate::spec::SweepSpec;

pub(crate) fn estimate(runs: &mut [PlannedRun], trunks: &mut [Trunk], inputs: &Inputs<'_>) {
    let Some(probe) = inputs.probe else {
        return;
    };
    let company = gpu_jobs::company(runs, trunks, probe);
    let shared = |(span, gpus): (Span, &Gpus)| span.among(company, gpus.beside);
    for planned in runs {
        let on_cores = || probe.seconds(&planned.run, work(planned) + evaluation(planned));
        planned.seconds = gpu_jobs::span(planned, inputs).map(shared).or_else(on_cores);
    }
    for trunk in trunks {
        let on_cores = || probe.seconds(&trunk.run, trunk.flops.get());
        trunk.seconds = gpu_jobs::trunk_span(trunk, inputs).map(shared).or_else(on_cores);
    }
}

/// FLOPs of the scores of a run. Each scored byte lies in a window that is twice as long; a byte-pair token has more
/// than a byte, so this is rather too much. The points of a curve cost up to an eighth of training, half of it on average.
fn evaluation(planned: &PlannedRun) -> f64 {
    if planned.action == Action::Reuse {
        return 0.0;
    }
    let score = planned.run.model.flop_terms().forward() * 2.0 * planned.run.data.scored_bytes as f64;
    score + work(planned) / 16.0
}

/// FLOPs that are left to compute for a run.
fn work(planned: &PlannedRun) -> f64 {
    match (planned.action, planned.depends_on) {
        (Action::Reuse, _) => 0.0,
        (Action::Branch, Some(from)) => planned.flops.get() - trunk::flops_until(&planned.run, from.step).get(),
        (Action::Run | Action::Branch, _) => planned.flops.get(),
    }
}

pub(crate) fn totals(runs: &[PlannedRun], trunks: &[Trunk], inputs: &Inputs<'_>) -> Totals {
    let probe = inputs.probe;
    let of = |action: Action| runs.iter().filter(move |planned| planned.action == action);
    let distinct: BTreeSet<RunId> = runs.iter().map(|planned| planned.run_id).collect();
    let straight: f64 = runs.iter().filter(|planned| planned.action != Action::Reuse).map(|p| p.flops.get()).sum();
    let flops = runs.iter().map(work).sum::<f64>() + trunks.iter().map(|trunk| trunk.flops.get()).sum::<f64>();
    let tokens_of = |run: &Run, steps: u64| steps * u64::from(run.train.batch) * u64::from(run.model.context);
    let run_tokens = |planned: &PlannedRun| match (planned.action, planned.depends_on) {
        (Action::Reuse, _) => 0,
        (_, from) => planned.tokens.get() - from.map_or(0, |from| tokens_of(&planned.run, from.step)),
    };
    let trunk_tokens = |trunk: &Trunk| tokens_of(&trunk.run, trunk.steps.last().copied().unwrap_or(0));
    let seconds = |planned: &mut dyn Iterator<Item = Option<f64>>| planned.sum::<Option<f64>>();
    let all_seconds = seconds(&mut runs.iter().map(|p| p.seconds).chain(trunks.iter().map(|t| t.seconds)));
    let gpu_seconds = seconds(
        &mut runs
            .iter()
            .map(|p| (&p.run, p.seconds))
            .chain(trunks.iter().map(|t| (&t.run, t.seconds)))
            .filter(|(run, _)| run.numerics.engine == EngineKind::Cuda)
            .map(|(_, seconds)| seconds),
    );
    let slots = probe.map_or(1, |probe| probe.slots.max(1));
    let company = probe.map_or(1, |probe| gpu_jobs::company(runs, trunks, probe));
    // Cores and GPUs work at the same time.
    let span = || packing::best(runs, trunks, slots).1.max(gpu_jobs::makespan(runs, trunks, inputs));
    Totals {
        runs: distinct.len() as u64,
        to_run: of(Action::Run).count() as u64,
        to_branch: of(Action::Branch).count() as u64,
        reused: of(Action::Reuse).count() as u64,
        flops,
        flops_saved: straight - flops,
        tokens: runs.iter().map(run_tokens).sum::<u64>() + trunks.iter().map(trunk_tokens).sum::<u64>(),
        memory_bytes_max: runs.iter().map(|planned| planned.memory_bytes).max().unwrap_or(0),
        seconds: all_seconds.map(|_| span()),
        // An empty sum of floats is -0.0.
        gpu_hours: gpu_seconds.map(|seconds| (seconds / 3600.0 / f64::from(company)).max(0.0)),
        gpu_process_bytes: probe.and_then(|probe| probe.gpus.as_ref()?.process_bytes),
    }
}

pub(crate) fn warnings(
    spec: &SweepSpec,
    drafts: &[Draft<'_>],
    runs: &[PlannedRun],
    probe: Option<&Probe>,
    beyond: usize,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let repeats = |draft: &&Draft<'_>| {
        let offered = draft.point.count("tokens_unique").unwrap_or(u64::MAX).min(draft.manifest.train.tokens.get());
        draft.tokens.get() > offered && draft.point.get("tokens_unique").is_none()
    };
    let repeating = drafts.iter().filter(repeats).count();
    if repeating > 0 {
        warnings.push(format!(
            "{repeating} of {} points train on more tokens than the corpus has and repeat it",
            drafts.len()
        ));
    }
    if drafts.iter().any(|draft| draft.manifest.validation.bytes < 64 << 10) {
        warnings.push("the validation text is under 64 KiB: final losses will be noisy".to_owned());
    }
    warnings.extend(lexicons(drafts));
    warnings.extend(rounded(drafts));
    warnings.extend(tuned(drafts, runs));
    if beyond > 0 {
        warnings.push(format!(
            "{beyond} points train on over 5 % more tokens than asked, to fill their last step; a smaller batch would not"
        ));
    }
    let short = runs.iter().filter(|planned| planned.run.train.steps < 100).count();
    if short > 0 {
        warnings.push(format!("{short} runs have fewer than 100 steps; a smaller batch would train them better"));
    }
    if (probe.is_none() || spec.trainer.is_some())
        && (spec.budget.wall_seconds.is_some() || spec.budget.gpu_hours.is_some_and(|(hours, _)| hours > 0.0))
    {
        warnings.push("the time budget is not checked: no speed was measured".to_owned());
    }
    warnings
}

/// Tokenizers that found fewer pairs worth joining than their vocabulary has room for.
fn lexicons(drafts: &[Draft<'_>]) -> BTreeSet<String> {
    let short = drafts.iter().filter_map(|draft| match draft.manifest.spec.tokenizer {
        TokenizerSpec::Bpe { vocab } if draft.manifest.vocab < vocab => Some((vocab, draft.manifest.vocab)),
        _ => None,
    });
    let words = |(asked, found)| {
        format!("the text gives a vocabulary of {found}, {asked} were asked for; the models have {found}")
    };
    short.map(words).collect()
}

/// Factors that gave a setting which another had given already.
fn tuned(drafts: &[Draft<'_>], runs: &[PlannedRun]) -> Option<String> {
    let tried = drafts.iter().filter(|draft| draft.factors.tuned().next().is_some()).count();
    let plain = drafts.len() - tried;
    let lost = drafts.len().saturating_sub(runs.len().max(plain));
    (tried > 0 && lost > 0).then(|| {
        format!(
            "{lost} of {tried} tuned settings are equal to others and not tried twice: a batch is a whole number of \
             sequences, warmup at most 0.9 of the budget, and a factor on 0 stays 0"
        )
    })
}

/// One warning for each derived key whose value was noticeably rounded, with the first case.
fn rounded(drafts: &[Draft<'_>]) -> Vec<String> {
    let mut cases: BTreeMap<&str, (f64, u64, usize)> = BTreeMap::new();
    for (key, value, taken) in drafts.iter().flat_map(|draft| &draft.point.rounded) {
        cases.entry(key).or_insert((*value, *taken, 0)).2 += 1;
    }
    let warning = |(key, (value, taken, points)): (&str, (f64, u64, usize))| {
        format!("`{key}` is derived as {value:.3} and rounded to {taken} (such rounding at {points} points)")
    };
    cases.into_iter().map(warning).collect()
}

pub(crate) fn within_budget(spec: &SweepSpec, plan: &Plan) -> Result<(), PlanError> {
    let on_gpu = plan.runs.iter().any(|p| p.run.numerics.engine == EngineKind::Cuda && p.action != Action::Reuse);
    // Without a probe any use of a GPU is over a budget of no GPU hours.
    let gpu_hours = plan.totals.gpu_hours.or(if on_gpu { Some(f64::MIN_POSITIVE) } else { None });
    let limits = [
        ("flops", "FLOPs", spec.budget.flops, Some(plan.totals.flops)),
        ("gpu_hours", "GPU hours", spec.budget.gpu_hours, gpu_hours),
        ("wall", "seconds", spec.budget.wall_seconds, plan.totals.seconds),
    ];
    for (key, unit, limit, asked) in limits {
        if let (Some((limit, place)), Some(asked)) = (limit, asked)
            && asked > limit
        {
            let message = format!("the plan is over the budget of `{key}`");
            let refused = spec.refuse(Refusal::Budget, place, message);
            let label = match key {
                "wall" => format!("allows {limit:.0} seconds, the plan needs about {asked:.0} at the measured speed"),
                _ => format!("allows {limit:.4e} {unit}, the plan needs {asked:.4e}"),
            };
            return Err(refused.label(label));
        }
    }
    Ok(())
}
