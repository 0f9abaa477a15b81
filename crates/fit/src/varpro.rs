//! Variable projection: every cell of an exponent grid is solved exactly for the coefficients, so the starts of the
//! polish cover the whole range. It returns starts, not optima.
//!
//! Inside a cell the law is linear: in E and the coefficients for q = 1, and for given q and E in the transformed loss
//! (L - E)^(1/q). The inner problem is least squares on relative residuals, reweighted twice toward the Huber loss.

use crate::law::{Law, PARAMETERS_MAX, TERM_BOUNDS};
use crate::linear::mirror;
use crate::nnls;
use crate::problem::{Matrix, Problem, Vector, huber};

/// Edges of the exponent grid, steps without and with a joint link: published exponents lie between 0.05 and 1.
const EXPONENT_GRID: (f64, f64) = (0.03, 2.5);
const STEPS_PLAIN: usize = 24;
const STEPS_JOINT: usize = 12;
const JOINT_GRID: [f64; 6] = [1.5, 1.0, 0.7, 0.45, 0.25, 0.12];
/// E as a share of the smallest loss.
const OFFSET_GRID: [f64; 7] = [0.0, 0.25, 0.5, 0.7, 0.85, 0.93, 0.98];
/// Starts that a law without a joint link hands on; with one it is one for each q.
const STARTS: usize = 4;
const REWEIGHTS: usize = 2;

/// What the grid found.
pub(crate) struct Grid {
    pub(crate) starts: Vec<Vector>,
    pub(crate) cells: usize,
}

/// Powers of the variables at one q: `[exponent step][variable][row]`.
type Powers = Vec<[Vec<f64>; 2]>;

/// A slice of the grid: what the rows look like at one (q, E).
struct Slice<'p> {
    problem: &'p Problem,
    powers: &'p Powers,
    q: f64,
    /// `None` where E is solved for inside.
    offset: Option<f64>,
    /// Transformed loss, and what turns its residual into one of ln loss.
    target: Vec<f64>,
    scale: Vec<f64>,
}

struct Cell {
    theta: Vector,
    objective: f64,
}

/// Solves every cell and returns the local minima, best first.
pub(crate) fn search(problem: &Problem) -> Grid {
    let law = problem.law;
    let steps = if law.joint { STEPS_JOINT } else { STEPS_PLAIN };
    let (low, high) = EXPONENT_GRID;
    let exponents: Vec<f64> = (0..steps).map(|at| low * (high / low).powf(at as f64 / (steps - 1) as f64)).collect();
    let mut grid = Grid { starts: Vec::new(), cells: 0 };
    let mut found = Vec::new();
    let joints: &[f64] = if law.joint { &JOINT_GRID } else { &[1.0] };
    for &q in joints {
        let powers = powers(problem, &exponents, q);
        let mut here: Vec<Cell> = Vec::new();
        for offset in offsets(law) {
            let slice = Slice::new(problem, &powers, q, offset.map(|share| share * problem.smallest_loss()));
            let cells = slice.cells(&exponents);
            grid.cells += cells.len();
            here.extend(local_minima(cells, steps, law.exponents.len()));
        }
        here.sort_by(|a, b| a.objective.total_cmp(&b.objective));
        here.truncate(if law.joint { 1 } else { STARTS });
        found.extend(here);
    }
    found.sort_by(|a, b| a.objective.total_cmp(&b.objective));
    grid.starts = found.into_iter().map(|cell| cell.theta).collect();
    grid
}

/// Values of E to try from outside: only a joint link needs it.
fn offsets(law: &Law) -> Vec<Option<f64>> {
    match (law.joint, law.offset) {
        (true, true) => OFFSET_GRID.iter().copied().map(Some).collect(),
        (true, false) => vec![Some(0.0)],
        (false, _) => vec![None],
    }
}

fn powers(problem: &Problem, exponents: &[f64], q: f64) -> Powers {
    let column = |exponent: f64, variable: usize| {
        problem.rows.iter().map(|row| (-exponent * row.x[variable] / q).exp()).collect()
    };
    exponents.iter().map(|&e| [column(e, 0), column(e, 1)]).collect()
}

/// Cells no neighbour of which is lower; `cells` runs over the exponents in row-major order.
fn local_minima(cells: Vec<Cell>, steps: usize, exponents: usize) -> Vec<Cell> {
    let objective: Vec<f64> = cells.iter().map(|cell| cell.objective).collect();
    let lowest = |at: usize| {
        (0..exponents).all(|axis| {
            let stride = steps.pow((exponents - 1 - axis) as u32);
            let place = at / stride % steps;
            let below = place > 0 && objective[at - stride] < objective[at];
            let above = place + 1 < steps && objective[at + stride] < objective[at];
            !below && !above
        })
    };
    cells.into_iter().enumerate().filter(|(at, _)| lowest(*at)).map(|(_, cell)| cell).collect()
}

impl<'p> Slice<'p> {
    fn new(problem: &'p Problem, powers: &'p Powers, q: f64, offset: Option<f64>) -> Self {
        let mut slice = Self { problem, powers, q, offset, target: Vec::new(), scale: Vec::new() };
        for row in &problem.rows {
            let loss = row.y.exp();
            let reducible = loss - offset.unwrap_or(0.0);
            let target = reducible.powf(1.0 / q);
            slice.target.push(target);
            slice.scale.push(q * reducible / (target * loss));
        }
        slice
    }

    fn cells(&self, exponents: &[f64]) -> Vec<Cell> {
        let count = self.problem.law.exponents.len();
        let total = exponents.len().pow(count as u32);
        let cell = |number: usize| {
            let mut at = [0; PARAMETERS_MAX];
            let mut rest = number;
            for axis in (0..count).rev() {
                at[axis] = rest % exponents.len();
                rest /= exponents.len();
            }
            self.cell(exponents, &at[..count])
        };
        (0..total).map(cell).collect()
    }

    /// Features of every row, term by term: E, where solved for, is one more.
    fn features(&self, at: &[usize]) -> Vec<Vec<f64>> {
        let rows = self.problem.rows.len();
        let column = |factors: &[crate::law::Factor]| {
            let mut column = self.scale.clone();
            for factor in factors {
                let power = &self.powers[at[factor.exponent]][factor.variable.index()];
                column.iter_mut().zip(power).for_each(|(value, power)| *value *= power);
            }
            column
        };
        let mut features: Vec<Vec<f64>> = self.problem.law.terms.iter().map(|t| column(t.factors)).collect();
        if self.offset.is_none() && self.problem.law.offset {
            features.push(self.scale[..rows].to_vec());
        }
        features
    }

    fn cell(&self, exponents: &[f64], at: &[usize]) -> Cell {
        let features = self.features(at);
        let delta = self.problem.delta;
        let mut weights: Vec<f64> = self.problem.rows.iter().map(|row| row.weight).collect();
        let mut solution = [0.0; PARAMETERS_MAX];
        let mut residuals = vec![0.0; weights.len()];
        for pass in 0..=REWEIGHTS {
            let (gram, right) = self.normal(&features, &weights);
            solution = nnls::solve(&gram, &right, features.len());
            for (i, residual) in residuals.iter_mut().enumerate() {
                let fitted: f64 = features.iter().enumerate().map(|(j, f)| solution[j] * f[i]).sum();
                *residual = fitted - self.scale[i] * self.target[i];
            }
            if pass < REWEIGHTS {
                let mean = residuals.iter().map(|r| r.abs()).sum::<f64>() / residuals.len() as f64;
                let knee = delta.max(mean);
                for (i, weight) in weights.iter_mut().enumerate() {
                    *weight = self.problem.rows[i].weight * knee / residuals[i].abs().max(knee);
                }
            }
        }
        let rows = self.problem.rows.iter().zip(&residuals);
        let objective = rows.map(|(row, r)| row.weight * huber(r / delta)).sum();
        Cell { theta: self.theta(exponents, at, &solution), objective }
    }

    fn normal(&self, features: &[Vec<f64>], weights: &[f64]) -> (Matrix, Vector) {
        let mut gram = [[0.0; PARAMETERS_MAX]; PARAMETERS_MAX];
        let mut right = [0.0; PARAMETERS_MAX];
        for (i, weight) in weights.iter().enumerate() {
            let target = self.scale[i] * self.target[i];
            for (j, feature) in features.iter().enumerate() {
                let value = weight * feature[i];
                right[j] += value * target;
                for (k, other) in features.iter().enumerate().skip(j) {
                    gram[j][k] += value * other[i];
                }
            }
        }
        mirror(&mut gram, features.len());
        (gram, right)
    }

    fn theta(&self, exponents: &[f64], at: &[usize], solution: &Vector) -> Vector {
        let law = self.problem.law;
        let mut theta = [0.0; PARAMETERS_MAX];
        for j in 0..law.terms.len() {
            theta[j] = (self.q * solution[j].ln()).clamp(TERM_BOUNDS.0, TERM_BOUNDS.1);
        }
        for (axis, &step) in at.iter().enumerate() {
            theta[law.exponent_at(axis)] = exponents[step];
        }
        if let Some(joint) = law.joint_at() {
            theta[joint] = self.q;
        }
        if let Some(offset) = law.offset_at() {
            theta[offset] = self.offset.unwrap_or(solution[law.terms.len()]);
        }
        theta
    }
}
