//! Approach 2 of Hoffmann et al. 2203.15556 as a cross-check: at each budget a parabola of ln loss in ln params, its
//! minimum, and a power law through the minima. It is biased, and says by how much on the chosen law's own losses.

use serde::{Deserialize, Serialize};

use crate::diagnosis::Chosen;
use crate::identify;
use crate::line::{self, Exponent};
use crate::observation::Observation;
use crate::qr;
use crate::record::AllocationRecord;

/// Runs within this factor of FLOPs spent one budget: steps and sizes are whole.
const SAME_BUDGET: f64 = 1.08;
/// A parabola has three coefficients; one size more leaves something to see.
const SIZES_MIN: usize = 4;
/// Sizes over less than this factor show noise and no valley.
const SPAN_MIN: f64 = 2.0;
/// What is wrong with the method however good the runs are.
const BIAS: &str = "a parabola is symmetric, a valley of loss is not: minima are off by a few per cent, by tens where sizes \
                    lie to one side (2603.22339)";

/// Approach 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IsoflopRecord {
    /// Cheapest first.
    pub budgets: Vec<BudgetRecord>,
    /// N* ~ C^a through the budgets that vote; absent for fewer than three.
    pub a: Option<Exponent>,
    /// D* ~ C^b from parabolas in ln tokens.
    pub b: Option<Exponent>,
    /// The exponent that the same parabolas find on the chosen law's losses at the same runs; against the law's own `a` it
    /// is the method's bias for these sizes.
    pub a_on_law: Option<f64>,
    /// Params at the parabolas' minima over the optimal ones, both of the chosen law.
    pub params_on_law: Option<f64>,
    /// The known bias in words.
    pub bias: String,
}

/// One budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetRecord {
    /// Geometric mean over the runs.
    pub flops: f64,
    pub runs: usize,
    pub sizes: usize,
    pub minimum: Minimum,
    /// At the minimum; absent unless it is inside.
    pub params: Option<f64>,
    pub tokens: Option<f64>,
    pub loss: Option<f64>,
}

/// Where a budget's parabola has its minimum. Only what is inside votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Minimum {
    Inside,
    /// Below the smallest size of the budget.
    Below,
    /// Above the largest.
    Above,
    /// The parabola has a top, not a bottom.
    UpsideDown,
}

/// Approach 2; `None` for a law without a trade or where no budget was spent on enough sizes.
pub(crate) fn isoflop(chosen: &Chosen<'_>) -> Option<IsoflopRecord> {
    let allocation = chosen.allocation?;
    let rows = chosen.rows;
    let groups = groups(rows);
    if groups.is_empty() {
        return None;
    }
    let budgets = solve(rows, &groups, &|row| row.loss.ln());
    let law = &chosen.fit.law;
    let on_law = solve(rows, &groups, &|row| law.loss(row.params, row.tokens).ln());
    // The law's parabolas are those of the budgets that vote, so that both see the same runs.
    let pairs: Vec<(&BudgetRecord, &BudgetRecord)> =
        budgets.iter().zip(&on_law).filter(|(own, theirs)| own.params.is_some() && theirs.params.is_some()).collect();
    let theirs = pairs.iter().filter_map(|(_, theirs)| theirs.at(theirs.params));
    let a_on_law = line::slope(&theirs.collect::<Vec<_>>(), chosen.level).map(|a| a.value);
    let offs: Vec<f64> = pairs.iter().filter_map(|(_, theirs)| off(theirs, allocation, law)).collect();
    let slope = |of: fn(&BudgetRecord) -> Option<f64>| {
        let points: Vec<(f64, f64)> = budgets.iter().filter_map(|budget| budget.at(of(budget))).collect();
        line::slope(&points, chosen.level)
    };
    Some(IsoflopRecord {
        a: slope(|budget| budget.params),
        b: slope(|budget| budget.tokens),
        a_on_law,
        params_on_law: (!offs.is_empty()).then(|| (offs.iter().sum::<f64>() / offs.len() as f64).exp()),
        bias: BIAS.to_owned(),
        budgets,
    })
}

impl BudgetRecord {
    /// A point in logarithms for a power law of the budget.
    fn at(&self, value: Option<f64>) -> Option<(f64, f64)> {
        Some((self.flops.ln(), value?.ln()))
    }
}

/// ln of a minimum's params over the optimal ones of the law that the losses came from.
fn off(budget: &BudgetRecord, allocation: &AllocationRecord, law: &crate::scaling::ScalingLaw) -> Option<f64> {
    // The budget's own FLOPs per param and token, as its parabolas see them; the allocation's at the large end.
    let factor = budget.flops / (budget.params? * budget.tokens?);
    let factor = if factor.is_finite() { factor } else { allocation.flops_per_param_token };
    let (params, _) = law.allocate(budget.flops, factor)?;
    Some((budget.params? / params).ln())
}

/// Windows of equal FLOPs with enough sizes, the most populous first where they overlap; by rising FLOPs.
fn groups(rows: &[Observation]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| rows[*a].flops.total_cmp(&rows[*b].flops));
    let flops = |place: usize| rows[order[place]].flops;
    let window = |from: usize| {
        let ends = (from..order.len()).take_while(|place| flops(*place) <= SAME_BUDGET * flops(from));
        let end = ends.last().map_or(from, |last| last + 1);
        let params: Vec<f64> = order[from..end].iter().map(|at| rows[*at].params).collect();
        let (low, high) = params.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), p| (l.min(*p), h.max(*p)));
        (if high < SPAN_MIN * low { 0 } else { identify::distinct(params) }, from..end)
    };
    let mut windows: Vec<_> = (0..order.len()).map(window).filter(|(sizes, _)| *sizes >= SIZES_MIN).collect();
    let width = |range: &std::ops::Range<usize>| flops(range.end - 1) / flops(range.start);
    windows.sort_by(|(many, one), (more, two)| more.cmp(many).then(width(one).total_cmp(&width(two))));
    let mut taken: Vec<std::ops::Range<usize>> = Vec::new();
    for (_, range) in windows {
        if taken.iter().all(|other| range.end <= other.start || other.end <= range.start) {
            taken.push(range);
        }
    }
    taken.sort_by_key(|range| range.start);
    taken.into_iter().map(|range| order[range].to_vec()).collect()
}

/// The parabolas of all groups. Budgets of a group differ a little, which tilts its valley: a first pass shows how the
/// least loss falls with the budget, and a second levels each group by that slope (right at the minimum, where size does
/// not matter).
fn solve(rows: &[Observation], groups: &[Vec<usize>], ln_loss: &dyn Fn(&Observation) -> f64) -> Vec<BudgetRecord> {
    let pass = |slope: f64| -> Vec<BudgetRecord> {
        groups
            .iter()
            .map(|group| budget(&group.iter().map(|at| &rows[*at]).collect::<Vec<_>>(), slope, ln_loss))
            .collect()
    };
    let first = pass(0.0);
    let points: Vec<(f64, f64)> = first.iter().filter_map(|budget| budget.at(budget.loss)).collect();
    line::slope(&points, 0.5).map_or(first, |fall| pass(fall.value))
}

fn budget(rows: &[&Observation], fall: f64, ln_loss: &dyn Fn(&Observation) -> f64) -> BudgetRecord {
    let ln_flops = rows.iter().map(|row| row.flops.ln()).sum::<f64>() / rows.len() as f64;
    let level = |row: &Observation| ln_loss(row) - fall * (row.flops.ln() - ln_flops);
    let along =
        |of: fn(&Observation) -> f64| parabola(&rows.iter().map(|row| (of(row).ln(), level(row))).collect::<Vec<_>>());
    let (by_params, by_tokens) = (along(|row| row.params), along(|row| row.tokens));
    // Few tokens go with many params; where FLOPs are no product of both the two parabolas may disagree, and neither votes.
    let minimum = match (by_params.minimum, by_tokens.minimum) {
        (Minimum::UpsideDown, _) | (_, Minimum::UpsideDown) => Minimum::UpsideDown,
        (Minimum::Inside, Minimum::Below) => Minimum::Above,
        (Minimum::Inside, Minimum::Above) => Minimum::Below,
        (by_params, _) => by_params,
    };
    let inside = minimum == Minimum::Inside;
    BudgetRecord {
        flops: ln_flops.exp(),
        runs: rows.len(),
        sizes: identify::distinct(rows.iter().map(|row| row.params).collect()),
        minimum,
        params: inside.then(|| by_params.x.exp()),
        tokens: inside.then(|| by_tokens.x.exp()),
        loss: inside.then(|| by_params.y.exp()),
    }
}

/// A least-squares parabola's extreme.
struct Extreme {
    x: f64,
    y: f64,
    minimum: Minimum,
}

fn parabola(points: &[(f64, f64)]) -> Extreme {
    let count = points.len() as f64;
    let middle = points.iter().map(|point| point.0).sum::<f64>() / count;
    let line = |(x, y): &(f64, f64)| {
        let x = x - middle;
        let mut line = [0.0; crate::real::UNKNOWNS_MAX + 1];
        line[..4].copy_from_slice(&[1.0, x, x * x, *y]);
        line
    };
    let bent =
        qr::solve(points.iter().map(line).collect(), 3).filter(|c| c[2] > 0.0 && c.iter().all(|c| c.is_finite()));
    let Some(c) = bent else {
        return Extreme { x: f64::NAN, y: f64::NAN, minimum: Minimum::UpsideDown };
    };
    let (x, y) = (middle - 0.5 * c[1] / c[2], c[0] - 0.25 * c[1] * c[1] / c[2]);
    let low = points.iter().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    let minimum = match x {
        x if x < low => Minimum::Below,
        x if x > high => Minimum::Above,
        _ => Minimum::Inside,
    };
    Extreme { x, y, minimum }
}

pub(crate) fn warnings(record: &IsoflopRecord, chosen: &Chosen<'_>) -> Vec<String> {
    let of = |minimum: Minimum| record.budgets.iter().filter(move |budget| budget.minimum == minimum);
    let list =
        |minimum: Minimum| of(minimum).map(|budget| format!("{:.1e}", budget.flops)).collect::<Vec<_>>().join(", ");
    let told = [
        (Minimum::Below, "the least loss lies below the smallest size: add smaller ones"),
        (Minimum::Above, "the least loss lies above the largest size: add larger ones"),
        (Minimum::UpsideDown, "the loss has a top and no bottom along size: add sizes or seeds"),
    ];
    let mut warnings: Vec<String> = told
        .into_iter()
        .filter(|(minimum, _)| of(*minimum).next().is_some())
        .map(|(minimum, what)| format!("at {} FLOPs {what}; no vote in approach 2", list(minimum)))
        .collect();
    warnings.extend(disagreement(record, chosen));
    warnings
}

/// The method without its bias against the law.
fn disagreement(record: &IsoflopRecord, chosen: &Chosen<'_>) -> Option<String> {
    let (own, law) = (record.a?, chosen.allocation.filter(|_| chosen.record.identified)?);
    let bias = record.a_on_law? - law.a;
    let [low, high] = own.interval.map(|end| end - bias);
    let apart = low > law.a_interval[1] || high < law.a_interval[0];
    apart.then(|| {
        format!(
            "isoFLOP parabolas, freed of their bias, say N* ~ C^{:.3} [{low:.3}, {high:.3}] and the law says C^{:.3} \
             [{:.3}, {:.3}]: one of them is wrong about these runs",
            own.value - bias,
            law.a,
            law.a_interval[0],
            law.a_interval[1]
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parabola_comes_back_and_a_top_is_no_minimum() {
        let points = |bend: f64| -> Vec<(f64, f64)> {
            (0..5).map(f64::from).map(|x: f64| (x, 1.0 + bend * (x - 1.5).powi(2))).collect()
        };
        let found = parabola(&points(0.3));
        assert!((found.x - 1.5).abs() < 1e-12 && (found.y - 1.0).abs() < 1e-12);
        assert_eq!(found.minimum, Minimum::Inside);
        assert_eq!(parabola(&points(-0.3)).minimum, Minimum::UpsideDown);
        let shifted: Vec<(f64, f64)> =
            points(0.3).into_iter().map(|(x, y)| (x + 2.0, y)).filter(|p| p.0 > 3.9).collect();
        assert_eq!(parabola(&shifted).minimum, Minimum::Below);
    }

    #[test]
    fn budgets_are_found_among_runs_of_other_designs() {
        let mut rows = Vec::new();
        for (budget, flops) in [1e18_f64, 1e19].into_iter().enumerate() {
            for size in 0..5_i32 {
                let params = 1e8 * 2f64.powi(size);
                let jitter = 1.0 + 0.01 * f64::from(size % 3);
                rows.push(Observation::dense(format!("{budget}-{size}"), params, jitter * flops / (6.0 * params), 3.0));
            }
        }
        rows.push(Observation::dense("alone", 3e8, 3e9, 3.0));
        rows.push(Observation::dense("near", 1e8, 0.96 * 1e18 / 6e8, 3.0));
        let found = groups(&rows);
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5]);
        assert!(found.iter().flatten().all(|at| *at < 10), "neither the run beside a budget nor the one between them");
    }
}
