//! Sizes that lie above the law as a whole: a rung of the ladder that was trained worse than the others bends the
//! exponents, and no interval shows it.

use isoloss_sweep::count::si;
use serde::{Deserialize, Serialize};

use crate::diagnosis::Chosen;
use crate::identify;

/// Fewer runs of one size may lie above by chance.
const RUNS_MIN: usize = 3;
/// A rung's middle run lies above by so many typical residuals.
const ABOVE_MIN: f64 = 2.0;
/// A rung less than this above bends nothing that anybody reads.
const LN_RATIO_MIN: f64 = 1e-3;
/// The median of the size of normal residuals over their standard deviation.
const MEDIAN_TO_SIGMA: f64 = 1.4826;
/// Sizes within this factor are one rung.
const SAME_SIZE: f64 = 1.05;

/// A size whose runs all lie above the law.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RungRecord {
    pub params: f64,
    pub runs: usize,
    /// Median of ln(observed / fitted).
    pub ln_ratio: f64,
    /// The same over the typical residual of all runs.
    pub in_residuals: f64,
}

pub(crate) fn rungs(chosen: &Chosen<'_>) -> Vec<RungRecord> {
    // Of a law that does not describe the runs every size lies somewhere.
    if chosen.fit.rms() > identify::DESCRIBES_MAX {
        return Vec::new();
    }
    let above: Vec<f64> = chosen.fit.residuals.iter().map(|r| -r).collect();
    let typical = MEDIAN_TO_SIGMA * median(above.iter().map(|r| r.abs()).collect());
    let mut order: Vec<usize> = (0..above.len()).collect();
    order.sort_by(|a, b| chosen.rows[*a].params.total_cmp(&chosen.rows[*b].params));
    let same = |a: &usize, b: &usize| chosen.rows[*b].params <= SAME_SIZE * chosen.rows[*a].params;
    let rung = |rows: &[usize]| {
        let ratios: Vec<f64> = rows.iter().map(|at| above[*at]).collect();
        let all = rows.len() >= RUNS_MIN && ratios.iter().all(|ratio| *ratio > 0.0);
        let ln_ratio = median(ratios);
        (all && typical > 0.0 && ln_ratio > LN_RATIO_MIN.max(ABOVE_MIN * typical)).then(|| RungRecord {
            params: chosen.rows[rows[0]].params,
            runs: rows.len(),
            ln_ratio,
            in_residuals: ln_ratio / typical,
        })
    };
    order.chunk_by(same).filter_map(rung).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

pub(crate) fn warning(rung: &RungRecord) -> String {
    format!(
        "all {} runs of {} params lie above the law, by {:.2} % in the middle ({:.1} typical residuals): see whether their \
         learning rate, batch and warmup suit them; one undertuned size bends the exponents",
        rung.runs,
        si(rung.params),
        100.0 * rung.ln_ratio.exp_m1(),
        rung.in_residuals
    )
}
