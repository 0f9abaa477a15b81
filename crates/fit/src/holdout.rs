//! Error on runs kept from the fit: the largest ones at once, and rolling over the order of cost. It judges
//! extrapolation, the only thing a scaling law is for.

use std::collections::BTreeMap;

use crate::fitted::Fitted;
use crate::interval::{Cloud, Plan};
use crate::law::Law;
use crate::observation::Observation;
use crate::record::HoldoutRecord;
use crate::settings::Holdout;

/// Level of the intervals whose coverage is reported.
const COVERAGE_LEVEL: f64 = 0.9;
/// Shares of the runs, by cost, at which the rolling fits end.
const WINDOWS: [f64; 5] = [0.5, 0.6, 0.7, 0.8, 0.9];

/// Fits all but the largest runs and predicts these. `None` where too few are left to fit.
pub(crate) fn largest(
    law: &'static Law,
    rows: &[Observation],
    rule: Holdout,
    delta: f64,
    plan: Plan,
) -> Option<HoldoutRecord> {
    let kept = rows.len().checked_sub(rule.runs(rows.len()))?;
    let sorted = sorted(rows, |row| rule.size(row));
    let (near, far) = sorted.split_at(kept);
    let fit = solved(law, near, delta)?;
    let cloud = Cloud::new(&fit, near, Plan { level: COVERAGE_LEVEL, ..plan }, &mut |_| {});
    let inside = far.iter().filter(|row| {
        let [low, high] = cloud.loss(row.params, row.tokens, COVERAGE_LEVEL);
        low <= row.loss && row.loss <= high
    });
    let coverage = inside.count() as f64 / far.len() as f64;
    Some(HoldoutRecord {
        rule: rule.to_string(),
        runs: far.len(),
        mean_relative_error: mean(errors(&fit, far)),
        coverage: BTreeMap::from([(COVERAGE_LEVEL.to_string(), coverage)]),
    })
}

/// Fits the cheapest half, predicts the next tenth, goes on with that tenth, to the dearest run.
pub(crate) fn rolling(law: &'static Law, rows: &[Observation], delta: f64) -> Option<HoldoutRecord> {
    let sorted = sorted(rows, |row| row.flops);
    let end = |share: f64| (share * sorted.len() as f64).round() as usize;
    let mut all = Vec::new();
    for (at, share) in WINDOWS.iter().enumerate() {
        let (from, to) = (end(*share), end(WINDOWS.get(at + 1).copied().unwrap_or(1.0)));
        if let Some(fit) = solved(law, &sorted[..from], delta) {
            all.extend(errors(&fit, &sorted[from..to]));
        }
    }
    (!all.is_empty()).then(|| HoldoutRecord {
        rule: "rolling by flops from the cheapest half".to_owned(),
        runs: all.len(),
        mean_relative_error: mean(all),
        coverage: BTreeMap::new(),
    })
}

/// A fit with at least one run to spare.
fn solved(law: &'static Law, rows: &[Observation], delta: f64) -> Option<Fitted> {
    (rows.len() > law.dimension()).then(|| Fitted::new(law, rows, delta))
}

/// Ascending; the canonical order of the rows breaks ties.
fn sorted(rows: &[Observation], size: impl Fn(&Observation) -> f64) -> Vec<Observation> {
    let mut sorted = rows.to_vec();
    sorted.sort_by(|a, b| size(a).total_cmp(&size(b)));
    sorted
}

fn errors(fit: &Fitted, rows: &[Observation]) -> Vec<f64> {
    rows.iter().map(|row| (fit.law.loss(row.params, row.tokens) / row.loss - 1.0).abs()).collect()
}

fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
