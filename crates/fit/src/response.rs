//! Response surfaces of hyper-parameters: near its optimum the logarithm of the loss is a parabola in the logarithm of
//! the hyper-parameter x, and the optimum a power law of size, budget and batch:
//!
//! `ln L = u_cell + k/2 (ln x - ln x*)^2`, `ln x* = c + a ln N + b ln D (+ s ln B)`.
//!
//! The curvature k is shared by all cells, so that a cell tried on one side of its optimum still counts. With u_cell free
//! the model is linear in k and k times the exponents, and least squares has one solution. The power-law form of the
//! optimum is that of StepLaw (Li et al. 2503.04715, eq. 1).

use std::collections::BTreeMap;

use isoloss_sweep::HyperParameter;
use isoloss_sweep::count::si;
use serde::{Deserialize, Serialize};

use crate::law::PARAMETERS_MAX;
use crate::linear;
use crate::problem::{Matrix, Vector};
use crate::student;
use crate::tuning::Cell;

/// Losses further above the cell's best than this (in ln loss) are left out: the parabola holds near the optimum alone.
const WINDOW: f64 = 0.04;
/// An optimum whose interval spans more than a factor of ten (in logarithms) is no rule.
const COEFFICIENT_WIDTH_MAX: f64 = std::f64::consts::LN_10;
/// Level of the intervals.
const LEVEL: f64 = 0.95;

/// The optimum of one hyper-parameter as a power law, for one arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseRecord {
    pub parameter: HyperParameter,
    pub arm: String,
    /// Why there is no surface; nothing else is said then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The optimum as an expression for the `[derive]` table of a sweep file.
    pub expression: String,
    /// Where `value` holds: round numbers near the middle of the runs.
    pub at: BTreeMap<String, f64>,
    /// The optimum there.
    pub value: f64,
    pub value_interval: [f64; 2],
    pub exponents: BTreeMap<String, f64>,
    /// Jackknife over cells, Student's t.
    pub exponent_intervals: BTreeMap<String, [f64; 2]>,
    /// Relative loss that a value twice or half the optimum costs.
    pub cost_of_two: f64,
    pub cells: usize,
    pub points: usize,
    /// Root mean square of the residuals of ln loss.
    pub rms: f64,
}

/// Points of one cell: `(ln x, ln loss)`, and the covariates of its optimum in logarithms.
struct Curve {
    /// Which cell it belongs to: curves of one cell share its luck.
    cell: usize,
    covariates: Vec<f64>,
    points: Vec<(f64, f64)>,
}

/// A surface for every arm and hyper-parameter asked for, among those that settings differ in.
pub(crate) fn all(cells: &[Cell<'_>], over: &[HyperParameter], asked: &[HyperParameter]) -> Vec<ResponseRecord> {
    let mut records = Vec::new();
    for arm in cells.chunk_by(|a, b| a.rows[0].arm == b.rows[0].arm) {
        records.extend(asked.iter().map(|parameter| surface(arm, *parameter, over)));
    }
    records
}

fn surface(cells: &[Cell<'_>], parameter: HyperParameter, over: &[HyperParameter]) -> ResponseRecord {
    // The best rate depends on the batch, so each batch is a curve of its own; the best batch is asked at its best rate.
    let batch = parameter == HyperParameter::LearningRate && over.contains(&HyperParameter::Batch);
    let mut names = vec!["params_non_embedding", "tokens"];
    names.extend(batch.then_some("batch"));
    let mut curves: Vec<Curve> =
        cells.iter().enumerate().flat_map(|(at, cell)| curves(at, cell, parameter, over, batch)).collect();
    curves.retain(|curve| curve.points.len() >= 2);
    let arm = cells[0].rows[0].arm.clone();
    let at: Vec<f64> = (0..names.len()).map(|i| middle(&curves, i)).collect();
    // A covariate that never moves has no exponent.
    let moving: Vec<usize> = (0..names.len())
        .filter(|i| curves.iter().any(|curve| (curve.covariates[*i] - curves[0].covariates[*i]).abs() > 1e-6))
        .collect();
    let refuse = |reason: &str| ResponseRecord { refused: Some(reason.to_owned()), ..blank(parameter, &arm) };
    for curve in &mut curves {
        let shifted = moving.iter().map(|i| curve.covariates[*i] - at[*i].ln()).collect();
        curve.covariates = shifted;
    }
    if curves.len() < moving.len() + 2 {
        return refuse("too few sizes and budgets with two values near their best; try more");
    }
    if curves.iter().all(|curve| curve.points.len() < 3) {
        return refuse(
            "no size and budget has three values near its best, so nothing says how it bends; try more values",
        );
    }
    let Some(whole) = solve(&curves.iter().collect::<Vec<_>>(), moving.len()) else {
        return refuse("the loss does not bend around a best value; try values further apart");
    };
    let Some(jackknife) = Jackknife::of(&curves, moving.len()) else {
        return refuse(
            "without one of the sizes or budgets the loss does not bend any more; try more values near the best",
        );
    };
    let spread = |of: &dyn Fn(&Solution) -> f64| jackknife.interval(&whole, of);
    let coefficient = spread(&|one: &Solution| one.optimum[0]);
    if coefficient[1] - coefficient[0] > COEFFICIENT_WIDTH_MAX {
        return refuse("these runs do not bound it; try more values near the best of each size and budget");
    }
    let value = whole.optimum[0].exp();
    let factors = moving
        .iter()
        .enumerate()
        .map(|(i, name)| format!(" * ({} / {})^{:.3}", names[*name], si(at[*name]), whole.optimum[i + 1]));
    let exponent = |i: usize| (names[moving[i]].to_owned(), whole.optimum[i + 1]);
    let interval = |i: usize| (names[moving[i]].to_owned(), spread(&move |one: &Solution| one.optimum[i + 1]));
    ResponseRecord {
        refused: None,
        expression: format!("{value:.3e}{}", factors.collect::<String>()),
        at: names.iter().zip(&at).map(|(name, at)| ((*name).to_owned(), *at)).collect(),
        value,
        value_interval: coefficient.map(f64::exp),
        exponents: (0..moving.len()).map(exponent).collect(),
        exponent_intervals: (0..moving.len()).map(interval).collect(),
        cost_of_two: (0.5 * whole.curvature * std::f64::consts::LN_2.powi(2)).exp_m1(),
        cells: curves.len(),
        points: curves.iter().map(|curve| curve.points.len()).sum(),
        rms: whole.rms,
        ..blank(parameter, &arm)
    }
}

fn blank(parameter: HyperParameter, arm: &str) -> ResponseRecord {
    ResponseRecord {
        parameter,
        arm: arm.to_owned(),
        refused: None,
        expression: String::new(),
        at: BTreeMap::new(),
        value: 0.0,
        value_interval: [0.0, 0.0],
        exponents: BTreeMap::new(),
        exponent_intervals: BTreeMap::new(),
        cost_of_two: 0.0,
        cells: 0,
        points: 0,
        rms: 0.0,
    }
}

/// The curves of one cell: one, of the best of the others at each value, or one for each batch.
fn curves(
    number: usize,
    cell: &Cell<'_>,
    parameter: HyperParameter,
    over: &[HyperParameter],
    by_batch: bool,
) -> Vec<Curve> {
    let own = over.iter().position(|known| *known == parameter).expect("a tuned hyper-parameter");
    let batch = over.iter().position(|known| *known == HyperParameter::Batch).filter(|_| by_batch);
    let first = cell.rows[0];
    // Best first, so the first of a value is the best of the others.
    let mut seen: BTreeMap<u64, BTreeMap<u64, f64>> = BTreeMap::new();
    for (values, loss) in cell.settings(over) {
        let curve = seen.entry(batch.map_or(0, |at| values[at].to_bits())).or_default();
        curve.entry(values[own].to_bits()).or_insert(loss);
    }
    let curve = |(batch, points): (u64, BTreeMap<u64, f64>)| {
        let least = points.values().copied().fold(f64::INFINITY, f64::min).ln();
        let near = points.into_iter().map(|(x, loss)| (f64::from_bits(x).ln(), loss.ln()));
        let points = near.filter(|(x, loss)| x.is_finite() && *loss <= least + WINDOW).collect();
        let mut covariates = vec![first.params.ln(), first.tokens.ln()];
        covariates.extend(by_batch.then(|| f64::from_bits(batch).ln()));
        Curve { cell: number, covariates, points }
    };
    seen.into_iter().map(curve).collect()
}

/// A round number near the geometric middle of a covariate.
fn middle(curves: &[Curve], at: usize) -> f64 {
    let mean = curves.iter().map(|curve| curve.covariates[at]).sum::<f64>() / curves.len().max(1) as f64;
    format!("{:.0e}", mean.exp()).parse().expect("a printed float parses")
}

struct Solution {
    curvature: f64,
    /// ln of the optimum at the reference, then its exponents.
    optimum: Vec<f64>,
    rms: f64,
}

/// The surface without each cell in turn.
struct Jackknife(Vec<Solution>);

impl Jackknife {
    fn of(curves: &[Curve], moving: usize) -> Option<Self> {
        let mut cells: Vec<usize> = curves.iter().map(|curve| curve.cell).collect();
        cells.dedup();
        let without = |cell: &usize| {
            let rest: Vec<&Curve> = curves.iter().filter(|curve| curve.cell != *cell).collect();
            solve(&rest, moving)
        };
        let replicates: Vec<Solution> = cells.iter().map(without).collect::<Option<_>>()?;
        (replicates.len() > 1).then_some(Self(replicates))
    }

    /// Student's t around the whole surface's own value (Tukey 1958).
    fn interval(&self, whole: &Solution, of: &dyn Fn(&Solution) -> f64) -> [f64; 2] {
        let n = self.0.len() as f64;
        let mean = self.0.iter().map(of).sum::<f64>() / n;
        let squares: f64 = self.0.iter().map(|one| (of(one) - mean).powi(2)).sum();
        let reach = student::quantile(LEVEL, self.0.len() - 1) * ((n - 1.0) / n * squares).sqrt();
        let centre = of(whole);
        [centre - reach, centre + reach]
    }
}

/// Least squares with every cell's level projected out; `None` where the loss does not bend upwards.
fn solve(curves: &[&Curve], moving: usize) -> Option<Solution> {
    let unknowns = 2 + moving;
    let mut matrix: Matrix = [[0.0; PARAMETERS_MAX]; PARAMETERS_MAX];
    let mut right: Vector = [0.0; PARAMETERS_MAX];
    let mut lines: Vec<(Vector, f64)> = Vec::new();
    for curve in curves {
        let mut own: Vec<(Vector, f64)> = curve.points.iter().map(|(x, y)| (line(*x, &curve.covariates), *y)).collect();
        let count = own.len() as f64;
        let mean: Vector = std::array::from_fn(|i| own.iter().map(|(line, _)| line[i]).sum::<f64>() / count);
        let level = own.iter().map(|(_, y)| y).sum::<f64>() / count;
        for (line, y) in &mut own {
            *line = std::array::from_fn(|i| line[i] - mean[i]);
            *y -= level;
        }
        lines.extend(own);
    }
    for (line, y) in &lines {
        for i in 0..unknowns {
            right[i] += line[i] * y;
            for j in 0..unknowns {
                matrix[i][j] += line[i] * line[j];
            }
        }
    }
    let free: Vec<usize> = (0..unknowns).collect();
    let solution = linear::solve(&matrix, &right, &free)?;
    let curvature = 2.0 * solution[0];
    if curvature <= 0.0 {
        return None;
    }
    let residual = |(line, y): &(Vector, f64)| y - free.iter().map(|i| line[*i] * solution[*i]).sum::<f64>();
    let degrees = lines.len().saturating_sub(curves.len() + unknowns).max(1);
    let squares: f64 = lines.iter().map(|line| residual(line).powi(2)).sum();
    let optimum = (1..unknowns).map(|i| solution[i] / curvature).collect();
    Some(Solution { curvature, optimum, rms: (squares / degrees as f64).sqrt() })
}

/// `k/2 x^2 - x (k c + k a z ...)`: what each unknown multiplies.
fn line(x: f64, covariates: &[f64]) -> Vector {
    let mut line = [0.0; PARAMETERS_MAX];
    line[0] = x * x;
    line[1] = -x;
    for (i, z) in covariates.iter().enumerate() {
        line[i + 2] = -x * z;
    }
    line
}

#[cfg(test)]
mod tests {
    use isoloss_sweep::HyperParameter::{Batch, LearningRate};

    use crate::observation::{Observation, Observations};
    use crate::tuning;

    /// A sweep whose best rate is `0.01 (N/1e5)^-0.4 (D/1e6)^-0.1 (B/16)^0.5` and best batch `16 (D/1e6)^0.3`.
    fn planted(seed: u64) -> Observations {
        let mut rows = Vec::new();
        let mut noise = seed;
        for params in [2e4_f64, 1e5, 5e5] {
            for tokens in [5e5_f64, 2e6, 8e6] {
                for batch in [4.0_f64, 16.0, 64.0] {
                    for rate in [2.5e-3_f64, 5e-3, 1e-2, 2e-2, 4e-2] {
                        let best_rate =
                            0.01 * (params / 1e5).powf(-0.4) * (tokens / 1e6).powf(-0.1) * (batch / 16.0).sqrt();
                        let best_batch = 16.0 * (tokens / 1e6).powf(0.3);
                        let off = 0.006 * (rate / best_rate).ln().powi(2) + 0.004 * (batch / best_batch).ln().powi(2);
                        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let wobble =
                            if seed == 0 { 0.0 } else { 2e-3 * ((noise >> 33) as f64 / f64::from(1 << 30) - 1.0) };
                        let loss = (1.3 + 20.0 * params.powf(-0.4) + 60.0 * tokens.powf(-0.4)) * (off + wobble).exp();
                        let mut row = Observation::dense(rows.len().to_string(), params, tokens, loss);
                        row.hyper = [(LearningRate, rate), (Batch, batch)].into();
                        rows.push(row);
                    }
                }
            }
        }
        Observations::new(rows, vec![], "params")
    }

    #[test]
    fn a_planted_surface_is_found_exactly_without_noise() {
        let (kept, record) = tuning::best(&planted(0), &[LearningRate, Batch]).unwrap();
        assert_eq!((kept.rows().len(), record.cells.len()), (9, 9));
        let rate = &record.responses[0];
        assert_eq!((rate.parameter, rate.refused.as_deref()), (LearningRate, None));
        for (name, exponent) in [("params_non_embedding", -0.4), ("tokens", -0.1), ("batch", 0.5)] {
            assert!((rate.exponents[name] - exponent).abs() < 1e-9, "{name} {}", rate.exponents[name]);
        }
        let cost = (0.006 * 2.0_f64.ln().powi(2)).exp_m1();
        assert!((rate.cost_of_two / cost - 1.0).abs() < 1e-9);
        assert!(rate.expression.contains("(tokens / 2.00M)^-0.100"), "{}", rate.expression);
    }

    #[test]
    fn noise_is_covered_by_the_intervals() {
        let mut covered = 0;
        for seed in 1..=20 {
            let (_, record) = tuning::best(&planted(seed), &[LearningRate, Batch]).unwrap();
            let [low, high] = record.responses[0].exponent_intervals["params_non_embedding"];
            covered += usize::from((low..=high).contains(&-0.4));
        }
        assert!(covered >= 17, "{covered} of 20");
    }

    #[test]
    fn what_cannot_be_said_is_refused_with_what_would_help() {
        let mut bent = planted(0).rows().to_vec();
        // Loss falls with every rate: there is nothing to interpolate.
        bent.iter_mut().for_each(|row| row.loss = 2.0 - row.hyper[&LearningRate]);
        let (_, record) = tuning::best(&Observations::new(bent, vec![], "params"), &[LearningRate]).unwrap();
        let reason = record.responses[0].refused.as_deref().unwrap();
        assert!(reason.starts_with("the loss does not bend"), "{reason}");
        let one = planted(0).subset(|row| row.params < 3e4 && row.tokens < 6e5 && row.hyper[&Batch] == 4.0);
        let (kept, record) = tuning::best(&one, &[LearningRate]).unwrap();
        assert_eq!(kept.rows().len(), 1);
        let reason = record.responses[0].refused.as_deref().unwrap();
        assert!(reason.starts_with("too few sizes"), "{reason}");
        assert!(tuning::best(&one, &[]).is_none());
    }

    #[test]
    fn a_value_that_diverged_was_tried() {
        let mut rows =
            planted(0).subset(|row| row.hyper[&LearningRate] < 6e-3 && row.hyper[&Batch] == 16.0).rows().to_vec();
        let wild = rows.iter().filter(|row| row.hyper[&LearningRate] == 5e-3).cloned().map(|mut row| {
            row.loss = f64::INFINITY;
            row.hyper.insert(LearningRate, 1.0);
            row.id.push('w');
            row
        });
        rows.extend(wild.collect::<Vec<_>>());
        let set = Observations::new(rows, vec![], "params");
        let (kept, record) = tuning::best(&set, &[LearningRate]).unwrap();
        assert_eq!((kept.rows().len(), record.tried), (9, 27));
        let small = &record.cells[0];
        assert_eq!((small.edges.len(), small.settings, small.diverged), (0, 3, 1));
        // Two values near the best say nothing of a bend.
        assert!(record.responses[0].refused.as_deref().unwrap().starts_with("no size and budget has three"));
    }

    #[test]
    fn the_best_batch_is_asked_at_its_best_rate() {
        let (kept, record) = tuning::best(&planted(0), &[Batch]).unwrap();
        let (both, _) = tuning::best(&planted(0), &[LearningRate, Batch]).unwrap();
        assert_eq!(kept.rows(), both.rows());
        assert_eq!((record.responses.len(), record.responses[0].parameter), (1, Batch));
    }

    #[test]
    fn a_rate_is_at_the_edge_among_those_of_its_own_batch() {
        let rows = planted(0).subset(|row| (row.hyper[&Batch] > 16.0) == (row.hyper[&LearningRate] > 6e-3));
        let (_, record) = tuning::best(&rows, &[LearningRate, Batch]).unwrap();
        let best =
            record.cells.iter().find(|cell| cell.best[&Batch] == 16.0 && cell.best[&LearningRate] == 5e-3).unwrap();
        assert!(best.edges.contains(&LearningRate), "{best:?}");
    }

    #[test]
    fn a_best_value_at_the_edge_is_said() {
        let low = planted(0).subset(|row| row.hyper[&LearningRate] < 6e-3 && row.hyper[&Batch] == 16.0);
        let (_, record) = tuning::best(&low, &[LearningRate]).unwrap();
        let small = &record.cells[0];
        assert_eq!((small.edges.as_slice(), small.settings), ([LearningRate].as_slice(), 2));
        assert_eq!(small.range[&LearningRate], [2.5e-3, 5e-3]);
    }
}
