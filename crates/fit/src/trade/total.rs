//! From active to total params. What runs say of both is kept; what they do not say is a usual transformer's.
//!
//! A token uses top_k of the experts, so that the experts that idle add `experts / top_k - 1` times the active ones:
//! `total = active (1 + share (experts / top_k - 1))`, share being that of the active experts in the active params. The
//! share hardly moves with size, so it is a power of it.

use crate::form::{Form, Variable};
use crate::observation::Observation;

use super::record::TotalRecord;

/// The feed-forward part of the params without embeddings where its width is four times the model's: 8 of 12 squares.
const SHARE_USUAL: f64 = 2.0 / 3.0;
/// Total params this close to the active ones are the same number.
const SAME: f64 = 1e-9;
/// Sizes from which on a slope is asked of them.
const SIZES_FOR_SLOPE: usize = 3;

/// The relation, ready to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Total {
    from_runs: bool,
    /// Whether runs say how many times the active experts there are; else every sparse run has one excess.
    counted: bool,
    ln_share: f64,
    slope: f64,
    middle: f64,
    /// ln of the least and largest size behind it; it is not drawn out beyond.
    range: [f64; 2],
    rms: Option<f64>,
}

/// All experts over those that a token uses.
pub(crate) fn over(row: &Observation) -> f64 {
    1.0 / Variable::ActiveShare.of(row)
}

/// Active and total params of a run, each where the run says it.
fn said(form: &Form, row: &Observation) -> (Option<f64>, Option<f64>) {
    let above = |low: f64, high: f64| high > low * (1.0 + SAME);
    let (size, all) = (row.params, row.params_total);
    if above(size, all) || over(row) == 1.0 {
        return (Some(size), Some(all));
    }
    // A law of total params is fitted to what the table calls params where it names no total.
    if form.reads.contains(&Variable::ParamsTotal) {
        let active = Some(row.params_active).filter(|active| above(*active, all));
        return (active, Some(all));
    }
    (Some(size), None)
}

impl Total {
    pub(crate) fn of(form: &Form, rows: &[Observation]) -> Self {
        let both = |row: &Observation| match said(form, row) {
            (Some(active), Some(total)) if total > active * (1.0 + SAME) => Some((active, total, over(row))),
            _ => None,
        };
        let known: Vec<(f64, f64, f64)> = rows.iter().filter_map(both).collect();
        let usual = Self {
            from_runs: false,
            counted: true,
            ln_share: SHARE_USUAL.ln(),
            slope: 0.0,
            middle: 0.0,
            range: [f64::NEG_INFINITY, f64::INFINITY],
            rms: None,
        };
        if known.is_empty() {
            return usual;
        }
        let counted = known.iter().any(|(.., over)| *over > 1.0);
        let excess = |over: f64| if counted { over - 1.0 } else { 1.0 };
        let points: Vec<(f64, f64)> = known
            .iter()
            .filter(|(.., over)| excess(*over) > 0.0)
            .map(|(active, total, over)| (active.ln(), ((total / active - 1.0) / excess(*over)).ln()))
            .collect();
        let (middle, ln_share, slope) = line(&points);
        let ends = |[low, high]: [f64; 2], (x, _): &(f64, f64)| [low.min(*x), high.max(*x)];
        let range = points.iter().fold([f64::INFINITY, f64::NEG_INFINITY], ends);
        let bare = Self { from_runs: true, counted, ln_share, slope, middle, range, rms: None };
        let square = |(active, total, over): &(f64, f64, f64)| (bare.total(*active, *over) / total).ln().powi(2);
        let rms = (known.iter().map(square).sum::<f64>() / known.len() as f64).sqrt();
        Self { rms: Some(rms), ..bare }
    }

    /// Total params of a model with that many active ones.
    pub(crate) fn total(&self, active: f64, over: f64) -> f64 {
        let excess = if self.counted { (over - 1.0).max(0.0) } else { 1.0 };
        let at = active.ln().clamp(self.range[0], self.range[1]);
        active * (1.0 + excess * (self.ln_share + self.slope * (at - self.middle)).exp())
    }

    /// Active params of a run, by the relation where the run does not say them.
    pub(crate) fn active(&self, form: &Form, row: &Observation) -> f64 {
        match said(form, row) {
            (Some(active), _) => active,
            (None, total) => {
                let (total, over) = (total.unwrap_or(row.params), over(row));
                bisect(total.ln() - (over * 2.0).ln() - 1.0, total.ln(), |ln| self.total(ln.exp(), over) <= total).exp()
            }
        }
    }

    /// The most active params whose total is at most `most`.
    pub(crate) fn most_active(&self, most: f64, over: f64) -> f64 {
        bisect(most.ln() - (over * 2.0).ln() - 10.0, most.ln(), |ln| self.total(ln.exp(), over) <= most).exp()
    }

    pub(crate) fn record(&self) -> TotalRecord {
        let formula = match self.counted {
            true => "active (1 + share (experts / top_k - 1))",
            false => "active (1 + share)",
        };
        TotalRecord {
            from_runs: self.from_runs,
            share: self.ln_share.exp(),
            slope: self.slope,
            rms_relative_error: self.rms,
            formula: formula.to_owned(),
        }
    }
}

/// The last place from `low` on at which `holds` still holds, for one that holds at `low` and then no more.
pub(super) fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if holds(high) {
        return high;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        *(if holds(middle) { &mut low } else { &mut high }) = middle;
    }
    low
}

/// Middle, height there and slope of the least-squares line; no slope of few sizes.
fn line(points: &[(f64, f64)]) -> (f64, f64, f64) {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (middle, height) = (mean(|point| point.0), mean(|point| point.1));
    let mut sizes: Vec<f64> = points.iter().map(|(x, _)| *x).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup_by(|a, b| (*a - *b).abs() < SAME);
    let spread: f64 = points.iter().map(|(x, _)| (x - middle).powi(2)).sum();
    let slope = points.iter().map(|(x, y)| (x - middle) * (y - height)).sum::<f64>() / spread;
    (middle, height, if sizes.len() < SIZES_FOR_SLOPE || !slope.is_finite() { 0.0 } else { slope })
}
