//! The whole fit, step by step: laws, intervals, hold-out, choice, predictions, allocation, experts.

use std::collections::BTreeMap;

use crate::allocation;
use crate::asked::Asked;
use crate::choose;
use crate::diagnosis::{self, Chosen};
use crate::draws::DrawsRecord;
use crate::experts;
use crate::extent::Extent;
use crate::fitted::Fitted;
use crate::formfit;
use crate::holdout;
use crate::identify;
use crate::interval::{Cloud, Plan};
use crate::law::{Law, Laws};
use crate::observation::{Observation, Observations};
use crate::opinions::{self, Opinion};
use crate::polish;
use crate::record::{
    Certificate, FitRecord, Intervals, LawRecord, ObservationsRecord, Prediction, QuestionRecord, Refusal, Residual,
    SCHEMA_VERSION, SettingsRecord,
};
use crate::settings::{Progress, RESAMPLES_MIN, Settings};
use crate::tuning;

/// Resamples of a hold-out fit and of a law that is only compared.
const RESAMPLES_SHARE: usize = 4;

/// A law with its cloud, before it is written down.
struct Solved {
    fit: Fitted,
    cloud: Cloud,
    record: LawRecord,
}

/// Fits the laws that `settings` name to the dense runs (to all, where none is dense) and chooses one.
///
/// Never fails: what cannot be fitted or is not identified stands in the record with the reason.
pub fn fit(observations: &Observations, settings: &Settings, progress: &mut dyn FnMut(Progress)) -> FitRecord {
    if let Some((best, tuning)) = tuning::best(observations, &settings.best_of) {
        let untuned = Settings { best_of: Vec::new(), ..settings.clone() };
        let mut record = FitRecord { tuning: Some(tuning), ..fit(&best, &untuned, progress) };
        record.settings.question = Some(question(settings));
        return record;
    }
    if let Laws::Form(form) = settings.laws {
        let dense = observations.subset(Observation::is_dense);
        let all = form.reads_experts() || dense.rows().is_empty();
        let fitted = if all { observations.clone() } else { dense };
        return formfit::fit(form, &fitted, settings, empty(observations, &fitted, settings), progress);
    }
    let dense = observations.subset(Observation::is_dense);
    let fitted = if dense.rows().is_empty() { observations.clone() } else { dense };
    let mut solved = Vec::new();
    let mut refused = Vec::new();
    for law in settings.laws.list() {
        let runs = fitted.rows().len();
        if runs < law.dimension() {
            let reason = format!("{runs} runs for {} parameters", law.dimension());
            refused.push(Refusal { name: law.name.to_owned(), reason });
        } else {
            solved.push(solve(law, &fitted, settings, progress));
        }
    }
    let mut laws: Vec<LawRecord> = solved.iter().map(|one| one.record.clone()).collect();
    let (chosen, reasons) = match settings.laws {
        Laws::Auto => choose::choose(&laws, fitted.rows().len()),
        Laws::One(_) | Laws::Form(_) => (laws.first().map(|law| law.name.clone()), Vec::new()),
    };
    let mut record = empty(observations, &fitted, settings);
    if let Some(name) = &chosen {
        let at = laws.iter().position(|law| law.name == *name).expect("the chosen law is one of the list");
        let spread = spread(&laws, name);
        laws[at] = widened(&laws[at], &spread);
        let others = solved.iter().filter(|one| spread.iter().any(|law| law.name == one.record.name)).collect();
        answer(&mut record, &solved[at], others, observations, &fitted, settings);
        let (fit, allocation) = (&solved[at].fit, record.allocation.as_ref());
        let chosen = Chosen { fit, record: &laws[at], allocation, rows: fitted.rows(), level: settings.level };
        record.draws = Some(DrawsRecord::of(&fit.law, &solved[at].cloud));
        record.diagnosis = Some(diagnosis::diagnosis(&chosen));
    }
    FitRecord { chosen, reasons, laws, refused, ..record }
}

/// A record of what went in and nothing else.
fn empty(observations: &Observations, fitted: &Observations, settings: &Settings) -> FitRecord {
    FitRecord {
        schema_version: SCHEMA_VERSION,
        observations: ObservationsRecord {
            count: observations.rows().len(),
            digest: observations.digest(),
            params_convention: observations.convention().to_owned(),
            fitted: Extent::of(fitted.rows()),
            excluded: observations.excluded().to_vec(),
        },
        arms: fitted.arms().into_iter().map(str::to_owned).collect(),
        chosen: None,
        reasons: Vec::new(),
        laws: Vec::new(),
        refused: Vec::new(),
        predictions: Vec::new(),
        allocation: None,
        trade: None,
        experts: Vec::new(),
        tuning: None,
        diagnosis: None,
        draws: None,
        settings: SettingsRecord {
            huber_delta: settings.huber_delta,
            seed: settings.seed,
            resamples: settings.resamples,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            question: Some(question(settings)),
        },
    }
}

fn question(settings: &Settings) -> QuestionRecord {
    QuestionRecord {
        laws: settings.laws.to_string(),
        level: settings.level,
        holdout: settings.holdout.to_string(),
        budget: settings.budget,
        serve_tokens: settings.serve_tokens,
        params_max: settings.params_max,
        best_of: settings.best_of.clone(),
        entropy: settings.entropy,
    }
}

/// What the chosen law says where it was asked.
fn answer(
    record: &mut FitRecord,
    chosen: &Solved,
    others: Vec<&Solved>,
    observations: &Observations,
    fitted: &Observations,
    settings: &Settings,
) {
    let law = &chosen.fit.law;
    let predict = |asked: &Asked| {
        let (params, tokens) = (asked.params, asked.tokens);
        let loss = law.loss(params, tokens);
        let opinion = |one: &Solved| Opinion {
            centre: one.fit.law.loss(params, tokens),
            interval: one.cloud.new_run(&one.fit, params, tokens, settings.level),
        };
        let opinions: Vec<Opinion> =
            std::iter::once(opinion(chosen)).chain(others.iter().map(|o| opinion(o))).collect();
        let [low, high] = opinions::joined(&opinions, settings.level);
        Prediction { at: *asked, loss, level: settings.level, interval: [low.min(loss), high.max(loss)] }
    };
    record.predictions = settings.predict.iter().map(predict).collect();
    let allocate = |one: &Solved| allocation::allocation(&one.fit.law, &one.cloud, fitted.rows(), settings);
    let theirs: Vec<_> = others.iter().filter_map(|other| allocate(other)).collect();
    record.allocation = allocate(chosen).map(|own| allocation::stretched(own, &theirs));
    let dense = fitted.rows().iter().all(Observation::is_dense).then_some((law, &chosen.cloud));
    record.experts = experts::arms(observations, dense, settings.huber_delta, settings.level);
}

fn spread(laws: &[LawRecord], chosen: &str) -> Vec<LawRecord> {
    choose::plausible(laws, chosen).into_iter().cloned().collect()
}

/// The intervals of E and the exponents stretched to those of the other laws that the runs do not rule out: which law
/// holds is one of the things that are not known.
fn widened(chosen: &LawRecord, spread: &[LawRecord]) -> LawRecord {
    let mut widened = chosen.clone();
    for other in spread {
        for name in ["E", "alpha", "beta"] {
            let (Some(interval), Some(reach)) = (widened.intervals.of.get_mut(name), other.intervals.get(name)) else {
                continue;
            };
            let [low, high] = [interval[0].min(reach[0]), interval[1].max(reach[1])];
            if [low, high] != *interval {
                *interval = [low, high];
                widened.reasons.push(format!("interval of {name} reaches to {low:.4} and {high:.4} by {}", other.name));
            }
        }
    }
    widened
}

/// One law: optimum, cloud, intervals, verdicts.
fn solve(law: &'static Law, fitted: &Observations, settings: &Settings, progress: &mut dyn FnMut(Progress)) -> Solved {
    let rows = fitted.rows();
    let fit = Fitted::new(law, rows, settings.huber_delta);
    // The law that is most often chosen, or the only one, gets all resamples.
    let full = law.name == "additive" || settings.laws != Laws::Auto;
    let total = if full { settings.resamples } else { settings.resamples / RESAMPLES_SHARE };
    let rolling = holdout::rolling(law, rows, settings.huber_delta);
    let inflation = rolling.as_ref().map_or(1.0, |rolling| rolling.inflation(settings.level));
    let plan = Plan { resamples: total, level: settings.level, seed: settings.seed, inflation };
    let mut tick = |done| {
        progress(Progress { law: law.name, done, total });
    };
    let cloud = Cloud::new(&fit, rows, plan, &mut tick);
    let names = law.names().into_iter().chain(law.trades().then_some("a"));
    let of: BTreeMap<String, [f64; 2]> =
        names.filter_map(|name| Some((name.to_owned(), cloud.parameter(&fit.law, name)?))).collect();
    let intervals = Intervals { level: settings.level, of };
    let mut reasons = identify::reasons(&fit, rows, &intervals);
    if settings.resamples < RESAMPLES_MIN {
        let got = settings.resamples;
        reasons.push(format!("{got} resamples are too few for an interval; take {RESAMPLES_MIN} or more"));
    }
    let held = Plan { resamples: settings.resamples / RESAMPLES_SHARE, ..plan };
    let record = LawRecord {
        name: law.name.to_owned(),
        formula: law.formula.to_owned(),
        reference: law.reference.to_owned(),
        parameters: fit.law.parameters(),
        intervals,
        objective: fit.search.best.objective * settings.huber_delta * settings.huber_delta,
        rms_relative_error: fit.rms(),
        aicc: fit.aicc(),
        holdout: holdout::largest(law, rows, settings.holdout, settings.huber_delta, held),
        rolling: rolling.map(|rolling| rolling.record),
        inflation: inflation.max(1.0),
        identified: reasons.is_empty(),
        reasons,
        certificate: certificate(&fit, settings.huber_delta),
        residuals: rows
            .iter()
            .zip(&fit.residuals)
            .map(|(row, r)| Residual { id: row.id.clone(), ln_ratio: -r })
            .collect(),
    };
    Solved { fit, cloud, record }
}

fn certificate(fit: &Fitted, delta: f64) -> Certificate {
    let best = &fit.search.best;
    Certificate {
        gradient_norm: best.decrement,
        iterations: best.steps,
        grid_cells: fit.search.cells,
        second_basin: fit.search.second.as_ref().map(|other| other.objective * delta * delta),
        boundary: polish::boundary(&fit.problem, &best.theta),
        condition: fit.condition(),
    }
}
