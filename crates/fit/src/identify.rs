//! Whether the data determine a law's parameters, and in words what is wrong and which runs would mend it.
//!
//! The rule is about numbers that people will quote: E and the exponents. An allocation far from the data has its own
//! rule in `allocation.rs`.

use crate::fitted::Fitted;
use crate::law::{Law, Variable};
use crate::observation::Observation;
use crate::polish;
use crate::record::Intervals;

/// An exponent is known when its interval spans less than this factor.
const EXPONENT_RATIO_MAX: f64 = 6.0;
/// Beyond this root mean square error a law says nothing about the runs.
pub(crate) const DESCRIBES_MAX: f64 = 0.15;
/// E is known when its interval is narrower than this share of the smallest loss observed.
const OFFSET_WIDTH_MAX: f64 = 0.5;
/// Beyond this condition number of the unit-column Jacobian two parameters cannot be told apart in double precision
/// and real noise.
const CONDITION_MAX: f64 = 1e4;
/// Another basin this close in likelihood ratio (in units of the noise) is as good.
const RIVAL_RATIO: f64 = 1.05;
/// Tokens per parameter must span at least this factor to tell size from data.
const CORRIDOR_MIN: f64 = 3.0;

/// The verdict: identified exactly when no reason speaks against it.
pub(crate) fn reasons(fit: &Fitted, rows: &[Observation], intervals: &Intervals) -> Vec<String> {
    let mut reasons = design(fit.problem.law, rows);
    if fit.degrees() == 0 {
        let count = rows.len();
        reasons.push(format!("{count} runs for as many parameters: nothing is left to judge the fit by; add runs"));
    }
    for name in polish::boundary(&fit.problem, &fit.search.best.theta) {
        reasons.push(edge(&name));
    }
    if fit.rms() > DESCRIBES_MAX {
        reasons.push(format!("rms error {:.0} %: the law does not describe these runs", 100.0 * fit.rms()));
    }
    reasons.extend(width(fit, intervals));
    match fit.condition() {
        Some(condition) if condition <= CONDITION_MAX => {}
        Some(condition) => reasons.push(format!(
            "condition number {condition:.0}: some parameters can be traded for others; widen the grid in params and tokens"
        )),
        None => reasons.push("the runs say nothing about some parameter".to_owned()),
    }
    reasons.extend(rival(fit));
    reasons
}

fn edge(name: &str) -> String {
    match name {
        "E" => "E ends at 0: the runs do not reach the bend of the curve; add larger runs with more tokens".to_owned(),
        "A" => "A vanishes: the loss does not fall with params in these runs; add smaller and larger models".to_owned(),
        "B" => "B vanishes: the loss does not fall with tokens in these runs; add shorter and longer runs".to_owned(),
        name => format!("{name} ends on the edge of its range"),
    }
}

fn width(fit: &Fitted, intervals: &Intervals) -> Vec<String> {
    let mut reasons = Vec::new();
    let law = fit.problem.law;
    for name in law.exponents.iter().copied().chain(law.joint.then_some("q")) {
        let Some([low, high]) = intervals.get(name) else {
            continue;
        };
        if low <= 0.0 || high / low > EXPONENT_RATIO_MAX {
            let axis = match name {
                "alpha" => "more sizes, further apart",
                "beta" => "more token budgets, further apart",
                _ => "more runs off the diagonal of the grid",
            };
            reasons.push(format!("{name} lies anywhere in {low:.3} to {high:.3}; add {axis}"));
        }
    }
    let floor = fit.problem.smallest_loss() * fit.problem.loss_unit();
    if let Some([low, high]) = intervals.get("E").filter(|_| law.offset)
        && high - low > OFFSET_WIDTH_MAX * floor
    {
        reasons.push(format!(
            "E lies anywhere in {low:.3} to {high:.3}; add larger runs with more tokens, or replicates against noise"
        ));
    }
    reasons
}

/// A different optimum that fits as well.
fn rival(fit: &Fitted) -> Option<String> {
    let second = fit.search.second.as_ref()?;
    let close = second.objective <= RIVAL_RATIO * fit.search.best.objective;
    let other = fit.problem.scaling_law(&second.theta);
    let (here, there) = (fit.law.parameters(), other.parameters());
    let far = fit.problem.law.exponents.iter().find(|name| (here[**name] / there[**name]).ln().abs() > 0.5)?;
    close.then(|| {
        let (one, two) = (here[*far], there[*far]);
        format!(
            "a second optimum fits as well with {far} {two:.3} instead of {one:.3}; add runs off the grid's diagonal"
        )
    })
}

/// What the grid itself cannot tell, whatever the losses.
fn design(law: &Law, rows: &[Observation]) -> Vec<String> {
    let uses = |variable| law.terms.iter().any(|t| t.factors.iter().any(|f| f.variable == variable));
    let mut reasons = Vec::new();
    let params = distinct(rows.iter().map(|row| row.params).collect());
    let tokens = distinct(rows.iter().map(|row| row.tokens).collect());
    for (variable, name, levels) in [(Variable::Params, "params", params), (Variable::Tokens, "tokens", tokens)] {
        if uses(variable) && levels < 3 {
            reasons
                .push(format!("{levels} distinct {name}: an exponent and E need at least 3; add runs at other {name}"));
        }
    }
    if law.trades() {
        let ratios = rows.iter().map(|row| row.tokens / row.params);
        let (low, high) = ratios.fold((f64::INFINITY, 0.0_f64), |(l, h), r| (l.min(r), h.max(r)));
        if high / low < CORRIDOR_MIN {
            reasons.push(format!(
                "tokens per parameter span only {:.1} times ({low:.1} to {high:.1}): size and data move together; add runs at other ratios",
                high / low
            ));
        }
    }
    reasons
}

/// Values more than 5 % apart.
pub(crate) fn distinct(mut values: Vec<f64>) -> usize {
    values.sort_by(f64::total_cmp);
    let mut count = 0;
    let mut last = 0.0;
    for value in values {
        if value > 1.05 * last {
            count += 1;
            last = value;
        }
    }
    count
}
