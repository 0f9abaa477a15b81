//! Error on runs kept from the fit: the largest ones at once, and rolling over the order of cost. It judges
//! extrapolation, the only thing a scaling law is for.

use std::collections::BTreeMap;

use crate::fitted::Fitted;
use crate::interval::{Cloud, Plan};
use crate::law::Law;
use crate::observation::Observation;
use crate::record::HoldoutRecord;
use crate::settings::Holdout;
use crate::student;

/// Level of the intervals whose coverage is reported.
pub(crate) const COVERAGE_LEVEL: f64 = 0.9;
/// Share of the held-out runs, those that were missed most, that have no say: one wild run must not decide.
const INFLATION_TRIM: f64 = 0.05;
/// Beyond this the law is wrong there, and no interval of it means anything.
const INFLATION_MAX: f64 = 10.0;
/// Half of long-tailed errors lie closer than a normal law says; but no interval shrinks to nothing.
const INFLATION_MIN: f64 = 0.4;
/// Fewer held-out runs than this weigh as if the rest had erred just as the fit expects.
const INFLATION_PRIOR: f64 = 3.0;
/// Shares of the runs, by cost, at which the rolling fits end.
pub(crate) const WINDOWS: [f64; 5] = [0.5, 0.6, 0.7, 0.8, 0.9];

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
    let inflation = rolling(law, near, delta).map_or(1.0, |rolling| rolling.inflation(COVERAGE_LEVEL));
    let cloud = Cloud::new(&fit, near, Plan { level: COVERAGE_LEVEL, inflation, ..plan }, &mut |_| {});
    let inside = far.iter().filter(|row| {
        let [low, high] = cloud.new_run(&fit, row.params, row.tokens, COVERAGE_LEVEL);
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

/// What rolling over the order of cost found.
pub(crate) struct Rolling {
    pub(crate) record: HoldoutRecord,
    /// Squared errors over what each fit expected of them.
    squares: Vec<f64>,
}

impl Rolling {
    /// By how much errors on dearer runs exceed what the fits' own scatter and geometry allow: such errors are the law's
    /// own, and no resample shows them.
    pub(crate) fn inflation(&self, level: f64) -> f64 {
        inflation(self.squares.clone(), level)
    }
}

/// Fits the cheapest half, predicts the next tenth, goes on with that tenth, to the dearest run.
pub(crate) fn rolling(law: &'static Law, rows: &[Observation], delta: f64) -> Option<Rolling> {
    let sorted = sorted(rows, |row| row.flops);
    let end = |share: f64| (share * sorted.len() as f64).round() as usize;
    let (mut all, mut squares) = (Vec::new(), Vec::new());
    for (at, share) in WINDOWS.iter().enumerate() {
        let (from, to) = (end(*share), end(WINDOWS.get(at + 1).copied().unwrap_or(1.0)));
        if let Some(fit) = solved(law, &sorted[..from], delta) {
            all.extend(errors(&fit, &sorted[from..to]));
            squares.extend(surprises(&fit, &sorted[from..to]));
        }
    }
    let record = HoldoutRecord {
        rule: "rolling by flops from the cheapest half".to_owned(),
        runs: all.len(),
        mean_relative_error: mean(all),
        coverage: BTreeMap::new(),
    };
    (record.runs > 0).then_some(Rolling { record, squares })
}

/// By how much intervals of `level` are stretched for squared errors in units of what their fits expected: the error that
/// is met at that level over the one that a normal law would meet there. Errors have longer tails than that, so wide
/// intervals are stretched more than narrow ones. The rank is that of split conformal prediction (Vovk 2005), but the
/// worst errors have no say, and few errors are met by a prior.
pub(crate) fn inflation(mut squares: Vec<f64>, level: f64) -> f64 {
    squares.sort_by(f64::total_cmp);
    let count = squares.len();
    let silent = ((INFLATION_TRIM * count as f64).ceil() as usize).max(1);
    let rank = ((level * (count + 1) as f64).ceil() as usize).min(count.saturating_sub(silent));
    let Some(square) = rank.checked_sub(1).and_then(|at| squares.get(at)) else {
        return 1.0;
    };
    let expected = student::quantile(rank as f64 / (count + 1) as f64, usize::MAX);
    let met = square / (expected * expected);
    let count = count as f64;
    ((count * met + INFLATION_PRIOR) / (count + INFLATION_PRIOR)).sqrt().clamp(INFLATION_MIN, INFLATION_MAX)
}

/// Squared errors of ln loss over the variance that the fit expects of them, which is one on average for a law that is
/// true: sigma^2 (1 + g' (J'J)^-1 g), times the variance of Student's t with the fit's degrees of freedom.
fn surprises(fit: &Fitted, rows: &[Observation]) -> Vec<f64> {
    let degrees = fit.degrees() as f64;
    // Below three degrees of freedom t has no variance to compare with.
    if degrees < 3.0 {
        return Vec::new();
    }
    let leverage = fit.leverage();
    let variance = (fit.sigma() * fit.sigma() * degrees / (degrees - 2.0)).max(f64::MIN_POSITIVE);
    let surprise = |row: &Observation| {
        let error = (fit.law.loss(row.params, row.tokens) / row.loss).ln();
        error * error / (variance * (1.0 + leverage(fit.problem.place(row)).max(0.0)))
    };
    rows.iter().map(surprise).collect()
}

/// A fit with at least one run to spare.
fn solved(law: &'static Law, rows: &[Observation], delta: f64) -> Option<Fitted> {
    (rows.len() > law.dimension()).then(|| Fitted::new(law, rows, delta))
}

/// Ascending; the canonical order of the rows breaks ties.
pub(crate) fn sorted(rows: &[Observation], size: impl Fn(&Observation) -> f64) -> Vec<Observation> {
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
