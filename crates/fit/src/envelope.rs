//! Approach 1 of Hoffmann et al. 2203.15556 as a cross-check: the lower envelope of loss against FLOPs and a power law
//! through the sizes on it. It reads only the ends of runs; their curves are not here.

use serde::{Deserialize, Serialize};

use crate::diagnosis::Chosen;
use crate::identify;
use crate::line::{self, Exponent};
use crate::observation::Observation;

/// One bin for so many runs, within bounds: a bin needs rivals, and the line needs bins.
const RUNS_PER_BIN: usize = 4;
const BINS: std::ops::RangeInclusive<usize> = 4..=24;
/// Fewer distinct sizes than this are no power law.
const SIZES_MIN: usize = 3;
/// What is wrong with the method however good the runs are.
const BIAS: &str = "sizes are those that were tried, a bin's best run sits at its dear end, and where the grid ends it has no \
                    rival";

/// Approach 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvelopeRecord {
    /// Bins of FLOPs that hold a run.
    pub bins: usize,
    /// Ids of the runs on the envelope, cheapest first.
    pub runs: Vec<String>,
    /// N* ~ C^a through them.
    pub a: Exponent,
    /// The exponent that the same bins find on the chosen law's losses; against the law's own `a` it is the method's bias
    /// for this grid.
    pub a_on_law: Option<f64>,
    /// The known bias in words.
    pub bias: String,
}

/// `None` for a law without a trade or where too few runs or sizes lie on the envelope.
pub(crate) fn envelope(chosen: &Chosen<'_>) -> Option<EnvelopeRecord> {
    chosen.allocation?;
    let rows = chosen.rows;
    let (bins, lowest) = lowest(rows, &|row| row.loss);
    let a = exponent(rows, &lowest, chosen.level)?;
    let law = &chosen.fit.law;
    let (_, on_law) = self::lowest(rows, &|row| law.loss(row.params, row.tokens));
    Some(EnvelopeRecord {
        bins,
        runs: lowest.iter().map(|at| rows[*at].id.clone()).collect(),
        a,
        a_on_law: exponent(rows, &on_law, chosen.level).map(|a| a.value),
        bias: BIAS.to_owned(),
    })
}

/// How many bins hold a run, and the best run of each bin that beats every cheaper one.
fn lowest(rows: &[Observation], loss: &dyn Fn(&Observation) -> f64) -> (usize, Vec<usize>) {
    let ln = |at: usize| rows[at].flops.ln();
    let (low, high) =
        (0..rows.len()).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), at| (l.min(ln(at)), h.max(ln(at))));
    let count = (rows.len() / RUNS_PER_BIN).clamp(*BINS.start(), *BINS.end());
    let mut best: Vec<Option<(usize, f64)>> = vec![None; count];
    for (at, row) in rows.iter().enumerate() {
        let share = if high > low { (ln(at) - low) / (high - low) } else { 0.0 };
        let bin = &mut best[((share * count as f64) as usize).min(count - 1)];
        let loss = loss(row);
        if bin.is_none_or(|(_, least)| loss < least) {
            *bin = Some((at, loss));
        }
    }
    let held = best.iter().flatten().count();
    let mut least = f64::INFINITY;
    let mut kept = Vec::new();
    for (at, loss) in best.into_iter().flatten() {
        if loss < least {
            least = loss;
            kept.push(at);
        }
    }
    (held, kept)
}

fn exponent(rows: &[Observation], lowest: &[usize], level: f64) -> Option<Exponent> {
    let sizes = identify::distinct(lowest.iter().map(|at| rows[*at].params).collect());
    let points: Vec<(f64, f64)> = lowest.iter().map(|at| (rows[*at].flops.ln(), rows[*at].params.ln())).collect();
    (sizes >= SIZES_MIN).then(|| line::slope(&points, level)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_is_the_best_of_each_bin_and_falls() {
        let row = |id: &str, params: f64, tokens: f64, loss: f64| Observation::dense(id, params, tokens, loss);
        let rows = [
            row("a", 1e6, 1e8, 4.0),
            row("a-worse", 2e6, 5e7, 4.1),
            row("b", 2e6, 2e8, 3.5),
            row("no better than b", 4e6, 4e8, 3.6),
            row("c", 8e6, 8e8, 3.0),
        ];
        let (bins, kept) = lowest(&rows, &|row| row.loss);
        assert_eq!((bins, kept), (4, vec![0, 2, 4]));
        assert!((exponent(&rows, &[0, 2, 4], 0.95).unwrap().value - 0.5).abs() < 1e-9);
        assert_eq!(exponent(&rows, &[0, 2], 0.95), None);
    }
}
