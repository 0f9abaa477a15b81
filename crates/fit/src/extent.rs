//! How far the runs behind a law reach: the counts and ranges that a reader judges a law by. It fits nothing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::observation::Observation;

/// Counts and ranges of the observations that the laws were fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extent {
    pub runs: usize,
    /// Groups of runs that are not independent of each other and are resampled together.
    pub clusters: usize,
    /// Different values of params.
    pub sizes: usize,
    /// Different values of tokens.
    pub budgets: usize,
    /// Least and largest, by the convention of the observations.
    pub params: [f64; 2],
    pub tokens: [f64; 2],
    pub tokens_per_param: [f64; 2],
    pub flops: [f64; 2],
    pub loss: [f64; 2],
}

impl Extent {
    /// `None` of no rows.
    pub(crate) fn of(rows: &[Observation]) -> Option<Self> {
        let range = |of: fn(&Observation) -> f64| {
            let ends = |[low, high]: [f64; 2], value: f64| [low.min(value), high.max(value)];
            rows.iter().map(of).fold([f64::INFINITY, f64::NEG_INFINITY], ends)
        };
        let different = |of: fn(&Observation) -> f64| rows.iter().map(|row| of(row).to_bits()).collect::<BTreeSet<_>>();
        (!rows.is_empty()).then(|| Self {
            runs: rows.len(),
            clusters: rows.iter().map(|row| row.cluster.as_str()).collect::<BTreeSet<_>>().len(),
            sizes: different(|row| row.params).len(),
            budgets: different(|row| row.tokens).len(),
            params: range(|row| row.params),
            tokens: range(|row| row.tokens),
            tokens_per_param: range(|row| row.tokens / row.params),
            flops: range(|row| row.flops),
            loss: range(|row| row.loss),
        })
    }
}
