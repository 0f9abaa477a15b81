//! The global optimum of a law on its rows: grid, then polish of every basin found. It does not judge the answer.

use crate::polish::{Optimum, polish};
use crate::problem::Problem;
use crate::varpro;

/// Objectives closer than this are one optimum.
const SAME_RELATIVE: f64 = 1e-7;

/// The best optimum, with what else there is.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    pub(crate) best: Optimum,
    pub(crate) second: Option<Optimum>,
    pub(crate) cells: usize,
}

/// Searches the whole grid.
pub(crate) fn search(problem: &Problem) -> Search {
    let grid = varpro::search(problem);
    let mut optima: Vec<Optimum> = grid.starts.iter().map(|start| polish(problem, start, None)).collect();
    optima.sort_by(|a, b| a.objective.total_cmp(&b.objective));
    let mut optima = optima.into_iter();
    let best = optima.next().expect("a grid always has a lowest cell");
    let apart = |other: &Optimum| other.objective - best.objective > SAME_RELATIVE * best.objective + 1e-9;
    let second = optima.find(apart);
    Search { best, second, cells: grid.cells }
}

/// From known basins: what a resample needs.
pub(crate) fn refit(problem: &Problem, from: &Search) -> Optimum {
    let best = polish(problem, &from.best.theta, None);
    match &from.second {
        None => best,
        Some(second) => {
            let other = polish(problem, &second.theta, None);
            if other.objective < best.objective { other } else { best }
        }
    }
}

#[cfg(test)]
#[path = "optimum_tests.rs"]
mod tests;
