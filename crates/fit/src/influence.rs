//! How much the law rests on single runs and on the cheapest ones: leave one run out, then leave the cheapest out. Every
//! number is of a law fitted again from the optimum; nothing here is sampled.

use isoloss_sweep::count::si;
use serde::{Deserialize, Serialize};

use crate::diagnosis::Chosen;
use crate::fitted::Fitted;
use crate::linear;
use crate::optimum;
use crate::polish;
use crate::problem::{self, Slope, Vector};
use crate::record::AllocationRecord;
use crate::scaling::ScalingLaw;

/// Runs that are left out by a fit of their own. Of more runs one Newton step says which these are, so that the cost
/// stays that of a few dozen fits however large the table.
const REFITS_MAX: usize = 48;
/// Runs that the record names.
const WORST_KEPT: usize = 8;
/// One run must not move tokens per param by more than this factor.
const RATIO_MAX: f64 = 1.5;
/// Points of the curve over the number of dropped runs.
const DROP_STEPS_MAX: usize = 12;
/// A share of the runs beyond which the rest is another experiment.
const DROP_SHARE_MAX: f64 = 1.0 / 3.0;
/// Fewer points than this are no curve.
const DRIFT_STEPS_MIN: usize = 3;
/// A smaller way than this share of the value is none.
const WAY_MIN: f64 = 0.01;
/// A drift may step back by this share of its whole way.
const BACK_MAX: f64 = 0.25;
/// Half an interval below this is rounding.
const WIDTH_MIN: f64 = 1e-9;
/// Logarithms of ratios beyond this say "no optimum" and must stay numbers.
const LN_RATIO_MAX: f64 = 300.0;

/// What people quote of a law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quoted {
    /// E, in the unit of the losses; 0 for a law without it.
    pub irreducible: f64,
    /// N* ~ C^a; absent for a law without a trade.
    pub a: Option<f64>,
    /// At the budget of the allocation.
    pub tokens_per_param: Option<f64>,
}

/// Leave-one-out and drop-k.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InfluenceRecord {
    /// Budget, FLOPs, at which tokens per param are compared.
    pub flops: Option<f64>,
    /// Of the law fitted to all runs.
    pub all: Quoted,
    /// The runs without which the law moves most, worst first.
    pub worst: Vec<LeftOut>,
    /// Runs that alone move tokens per param by more than half.
    pub heavy: usize,
    /// The law without its cheapest runs, by their number.
    pub dropped: Vec<Dropped>,
}

/// The law without one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    pub id: String,
    pub params: f64,
    pub tokens: f64,
    /// E without the run minus E with it.
    pub irreducible_change: f64,
    pub a_change: Option<f64>,
    /// Tokens per param without the run over those with it.
    pub tokens_per_param_ratio: Option<f64>,
}

/// The law without its cheapest runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many runs were left out.
    pub runs: usize,
    /// FLOPs of the cheapest run that stayed.
    pub flops_min: f64,
    pub law: Quoted,
}

impl LeftOut {
    /// The run by its id, digests shortened, and by its place for tables that have no ids.
    pub fn name(&self) -> String {
        let digest = self.id.len() == 64 && self.id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = if digest { &self.id[..12] } else { self.id.as_str() };
        format!("{id} ({} params, {} tokens)", si(self.params), si(self.tokens))
    }
}

impl Quoted {
    fn of(law: &ScalingLaw, allocation: Option<&AllocationRecord>) -> Self {
        let split = allocation.and_then(|at| law.allocate(at.flops, at.flops_per_param_token));
        let ln_ratio = split.map(|(params, tokens)| (tokens / params).ln().clamp(-LN_RATIO_MAX, LN_RATIO_MAX));
        Self {
            irreducible: law.irreducible(),
            a: allocation.and_then(|_| law.allocation_exponent()),
            tokens_per_param: ln_ratio.filter(|ln| ln.is_finite()).map(f64::exp),
        }
    }
}

/// Half the widths of the stated intervals, by which changes of different numbers are compared; `None` where there is no
/// width, as with losses that have no noise or a number that the law fixes.
struct Widths {
    irreducible: Option<f64>,
    ln_tokens_per_param: Option<f64>,
}

impl Widths {
    fn of(chosen: &Chosen<'_>) -> Self {
        let half =
            |[low, high]: [f64; 2]| Some(0.5 * (high - low)).filter(|half| half.is_finite() && *half > WIDTH_MIN);
        let split = chosen.allocation.map(|at| at.tokens_per_param_interval.map(f64::ln));
        Self { irreducible: chosen.record.intervals.get("E").and_then(half), ln_tokens_per_param: split.and_then(half) }
    }

    /// The greatest change from `all` to `law` in half intervals; runs that move tokens per param too far come first.
    fn strength(&self, all: &Quoted, law: &Quoted) -> (bool, f64) {
        let offset = self.irreducible.map(|half| (law.irreducible - all.irreducible).abs() / half);
        let split = self.ln_tokens_per_param.zip(ratio(all, law)).map(|(half, ratio)| ratio.ln().abs() / half);
        let far = ratio(all, law).is_some_and(outlying);
        (far, offset.unwrap_or(0.0).max(split.unwrap_or(0.0)))
    }
}

/// Strongest first; equal ones keep their order.
fn sort_by_strength<T>(items: &mut [(T, (bool, f64))]) {
    items.sort_by(|(_, (far, one)), (_, (further, other))| further.cmp(far).then(other.total_cmp(one)));
}

/// `None` where a fit without one run has nothing left to be judged by.
pub(crate) fn influence(chosen: &Chosen<'_>) -> Option<InfluenceRecord> {
    if chosen.fit.degrees() < 2 {
        return None;
    }
    let all = Quoted::of(&chosen.fit.law, chosen.allocation);
    let widths = Widths::of(chosen);
    let fitted = candidates(chosen, &all, &widths).into_iter().map(|at| (at, without(chosen, at)));
    let mut left: Vec<_> = fitted.map(|(at, law)| ((at, law), widths.strength(&all, &law))).collect();
    sort_by_strength(&mut left);
    let heavy = left.iter().filter(|(_, (far, _))| *far).count();
    left.truncate(WORST_KEPT);
    let worst = left.iter().map(|((at, law), _)| left_out(chosen, &all, *at, law)).collect();
    let flops = chosen.allocation.map(|at| at.flops);
    Some(InfluenceRecord { flops, all, worst, heavy, dropped: dropped(chosen) })
}

fn left_out(chosen: &Chosen<'_>, all: &Quoted, at: usize, law: &Quoted) -> LeftOut {
    let row = &chosen.rows[at];
    LeftOut {
        id: row.id.clone(),
        params: row.params,
        tokens: row.tokens,
        irreducible_change: law.irreducible - all.irreducible,
        a_change: law.a.zip(all.a).map(|(here, there)| here - there),
        tokens_per_param_ratio: ratio(all, law),
    }
}

fn ratio(all: &Quoted, law: &Quoted) -> Option<f64> {
    law.tokens_per_param.zip(all.tokens_per_param).map(|(here, there)| here / there)
}

fn outlying(ratio: f64) -> bool {
    ratio.ln().abs() > RATIO_MAX.ln()
}

/// The law fitted without a row, from the optimum of all.
fn without(chosen: &Chosen<'_>, at: usize) -> Quoted {
    let mut problem = chosen.fit.problem.clone();
    problem.rows[at].weight = 0.0;
    let best = optimum::refit(&problem, &chosen.fit.search);
    Quoted::of(&problem.scaling_law(&best.theta), chosen.allocation)
}

/// Rows to fit without: all, or those that one Newton step from the optimum expects to matter most.
fn candidates(chosen: &Chosen<'_>, all: &Quoted, widths: &Widths) -> Vec<usize> {
    let count = chosen.rows.len();
    if count <= REFITS_MAX {
        return (0..count).collect();
    }
    let slope = chosen.fit.problem.slope(&chosen.fit.search.best.theta);
    let expected = |at: usize| {
        // Where the step does not exist nothing is known, so the run is fitted without.
        let Some(theta) = stepped(chosen.fit, &slope, at) else {
            return (true, f64::INFINITY);
        };
        widths.strength(all, &Quoted::of(&chosen.fit.problem.scaling_law(&theta), chosen.allocation))
    };
    let mut order: Vec<_> = (0..count).map(|at| (at, expected(at))).collect();
    sort_by_strength(&mut order);
    order.truncate(REFITS_MAX);
    order.into_iter().map(|(at, _)| at).collect()
}

/// The optimum after one Newton step on the objective without the row `at`; `slope` is that of all rows.
fn stepped(fit: &Fitted, slope: &Slope, at: usize) -> Option<Vector> {
    let (problem, theta) = (&fit.problem, &fit.search.best.theta);
    let row = &problem.rows[at];
    let point = problem::point(problem.law, theta, row.x);
    let r = (point.value - row.y) / problem.delta;
    let pull = row.weight * r.clamp(-1.0, 1.0) / problem.delta;
    let curve = if r.abs() <= 1.0 { row.weight / (problem.delta * problem.delta) } else { 0.0 };
    let p = problem.law.dimension();
    let (mut hessian, mut downhill) = (slope.hessian, slope.gradient.map(|g| -g));
    let (first, second) = (&point.gradient, &point.hessian);
    for i in 0..p {
        downhill[i] += pull * first[i];
        for k in i..p {
            hessian[i][k] -= curve * first[i] * first[k] + pull * second[i][k];
        }
    }
    linear::mirror(&mut hessian, p);
    let bounds = problem.law.bounds();
    let free: Vec<usize> = (0..p).filter(|&i| theta[i] > bounds[i].0 && theta[i] < bounds[i].1).collect();
    let step = linear::solve(&hessian, &downhill, &free)?;
    let mut end = *theta;
    for &i in &free {
        end[i] = (theta[i] + step[i]).clamp(bounds[i].0, bounds[i].1);
    }
    Some(end)
}

/// The law without its cheapest runs, one to a third of them.
fn dropped(chosen: &Chosen<'_>) -> Vec<Dropped> {
    let rows = chosen.rows;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| rows[*a].flops.total_cmp(&rows[*b].flops));
    let most = (DROP_SHARE_MAX * rows.len() as f64) as usize;
    let most = most.min(chosen.fit.degrees().saturating_sub(1));
    let steps = most.min(DROP_STEPS_MAX);
    let mut problem = chosen.fit.problem.clone();
    let mut last = chosen.fit.search.best.clone();
    let mut curve = Vec::with_capacity(steps);
    for step in 1..=steps {
        let runs = (step * most).div_ceil(steps);
        order[..runs].iter().for_each(|at| problem.rows[*at].weight = 0.0);
        // From the optimum of all runs, and on from the last point: the curve must not end in a basin of its past.
        let (fresh, onward) =
            (optimum::refit(&problem, &chosen.fit.search), polish::polish(&problem, &last.theta, None));
        last = if onward.objective < fresh.objective { onward } else { fresh };
        let law = Quoted::of(&problem.scaling_law(&last.theta), chosen.allocation);
        curve.push(Dropped { runs, flops_min: rows[order[runs]].flops, law });
    }
    curve
}

pub(crate) fn warnings(record: &InfluenceRecord, chosen: &Chosen<'_>) -> Vec<String> {
    // A law that the runs do not pin down moves with any of them, and its verdict says so already.
    if !chosen.record.identified {
        return Vec::new();
    }
    [one_run(record), drift(record, chosen)].into_iter().flatten().collect()
}

fn one_run(record: &InfluenceRecord) -> Option<String> {
    let worst = record.worst.first()?;
    let (all, ratio) = (record.all.tokens_per_param?, worst.tokens_per_param_ratio?);
    outlying(ratio).then(|| {
        let others = match record.heavy {
            0 | 1 => String::new(),
            more => format!(", and {} more move it by half or more", more - 1),
        };
        format!(
            "the run {} alone moves tokens per param: {} with it, {} without{others}; see whether it went right, or add \
             runs beside it",
            worst.name(),
            si(all),
            si(all * ratio)
        )
    })
}

/// What moves one way, and out of its interval, as the cheapest runs go.
fn drift(record: &InfluenceRecord, chosen: &Chosen<'_>) -> Option<String> {
    let path = |of: &dyn Fn(&Quoted) -> Option<f64>| -> Option<Vec<f64>> {
        std::iter::once(&record.all).chain(record.dropped.iter().map(|dropped| &dropped.law)).map(of).collect()
    };
    let offset = chosen.record.intervals.get("E").filter(|_| chosen.fit.problem.law.offset);
    let digits = |value: f64| if value < 10.0 { format!("{value:.3}") } else { si(value) };
    let told = |name: &str, values: Option<Vec<f64>>, interval: Option<[f64; 2]>| {
        let (values, interval) = (values?, interval?);
        let (first, last) = (values[0], *values.last()?);
        drifts(&values, interval).then(|| format!("{name} from {} to {}", digits(first), digits(last)))
    };
    let drifting: Vec<String> = [
        told("E", path(&|law| Some(law.irreducible)), offset),
        told("a", path(&|law| law.a), chosen.allocation.map(|at| at.a_interval)),
        told(
            "tokens per param",
            path(&|law| law.tokens_per_param),
            chosen.allocation.map(|at| at.tokens_per_param_interval),
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    let last = record.dropped.last()?;
    (!drifting.is_empty()).then(|| {
        format!(
            "without the {} cheapest runs the law moves one way and out of its interval, {}: small runs follow another law \
             than large ones, or the interval is too narrow",
            last.runs,
            drifting.join(" and ")
        )
    })
}

/// Whether values move one way, with small steps back, and end outside the interval.
fn drifts(values: &[f64], [low, high]: [f64; 2]) -> bool {
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        return false;
    };
    let way = last - first;
    let back = |pair: &[f64]| (pair[1] - pair[0]) * way.signum() < -BACK_MAX * way.abs();
    let moved = way.abs() > WAY_MIN * first.abs();
    moved && values.len() > DRIFT_STEPS_MIN && !(low..=high).contains(last) && !values.windows(2).any(back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_way_out_of_the_interval_is_a_drift() {
        let interval = [0.9, 1.1];
        assert!(drifts(&[1.0, 1.1, 1.2, 1.19, 1.3], interval));
        assert!(drifts(&[1.0, 0.9, 0.8, 0.7], interval));
        assert!(!drifts(&[1.0, 1.02, 1.05, 1.08], interval), "inside");
        assert!(!drifts(&[1.0, 1.5, 0.7, 1.2], interval), "to and fro");
        assert!(!drifts(&[1.0, 1.2, 1.3], interval), "too few");
    }
}
