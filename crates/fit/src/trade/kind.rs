//! The kinds of model that runs show a law: as many as there are different values of what it reads beside sizes and tokens.

use crate::form::{Form, Variable};
use crate::observation::Observation;

use super::place::Routing;
use super::record::Axis;
use super::total::over;

/// Values that kinds between those seen are looked for at, at most.
const BETWEEN_MAX: usize = 128;
/// Beyond the values seen by less than this is not beyond.
const SAME: f64 = 1e-9;

/// One kind.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) value: f64,
    pub(crate) routing: Routing,
    pub(crate) runs: usize,
    /// Whether its runs differ in how many of the experts a token uses, although the law does not read it.
    pub(crate) mixed: bool,
}

impl Axis {
    /// What kinds differ by under a form; none under one that reads no experts.
    pub(crate) fn of(form: &Form) -> Option<Self> {
        let reads = |variable| form.reads.contains(&variable);
        match () {
            () if reads(Variable::Experts) => Some(Self::Experts),
            () if reads(Variable::Granularity) => Some(Self::Granularity),
            () if reads(Variable::ActiveShare) => Some(Self::ActiveShare),
            () => None,
        }
    }

    fn variable(self) -> Variable {
        match self {
            Self::Experts => Variable::Experts,
            Self::Granularity => Variable::Granularity,
            Self::ActiveShare => Variable::ActiveShare,
        }
    }

    /// Where a run lies on it.
    pub(crate) fn value(self, row: &Observation) -> f64 {
        self.variable().of(row)
    }

    /// As sentences call it.
    pub fn name(self) -> &'static str {
        self.variable().name()
    }
}

/// The kinds of the rows, in the order of the axis.
pub(crate) fn kinds(axis: Option<Axis>, rows: &[Observation]) -> Vec<Kind> {
    let value = |row: &Observation| axis.map_or(1.0, |axis| axis.value(row));
    let mut values: Vec<f64> = rows.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let kind = |at: &f64| {
        let own: Vec<&Observation> = rows.iter().filter(|row| value(row) == *at).collect();
        let ln = |row: &&Observation| over(row).ln();
        let mean = own.iter().map(ln).sum::<f64>() / own.len() as f64;
        let routing = routing(axis, *at, mean.exp());
        Kind { value: *at, routing, runs: own.len(), mixed: own.iter().any(|row| (over(row).ln() - mean).abs() > SAME) }
    };
    values.iter().map(kind).collect()
}

fn routing(axis: Option<Axis>, value: f64, over: f64) -> Routing {
    let on = |wanted: Axis, other: f64| if axis == Some(wanted) { value } else { other };
    Routing {
        experts: on(Axis::Experts, 1.0),
        granularity: on(Axis::Granularity, 1.0),
        active_share: on(Axis::ActiveShare, 1.0 / over),
        over: if axis == Some(Axis::ActiveShare) { 1.0 / value } else { over },
    }
}

/// Values between the least and the largest seen, and never beyond: whole numbers of experts, finer steps of the others.
pub(crate) fn between(axis: Option<Axis>, kinds: &[Kind]) -> Vec<(f64, Routing)> {
    let (Some(axis), [first, .., last]) = (axis, kinds) else {
        return Vec::new();
    };
    let step = (last.value / first.value).ln() / (BETWEEN_MAX - 1) as f64;
    let mut values: Vec<f64> = (0..BETWEEN_MAX).map(|at| first.value * (step * at as f64).exp()).collect();
    if axis == Axis::Experts {
        values.iter_mut().for_each(|value| *value = value.round());
        values.dedup();
    }
    values.into_iter().map(|value| (value, routing(Some(axis), value, over_at(kinds, value)))).collect()
}

/// All experts over active ones at a value between those seen, straight between neighbours in logarithms.
fn over_at(kinds: &[Kind], value: f64) -> f64 {
    let above = kinds.iter().position(|kind| kind.value >= value).unwrap_or(kinds.len() - 1);
    let (low, high) = (&kinds[above.saturating_sub(1)], &kinds[above]);
    let span = (high.value / low.value).ln();
    if span <= 0.0 {
        return high.routing.over;
    }
    let share = (value / low.value).ln() / span;
    let ln = |kind: &Kind| kind.routing.over.ln();
    (ln(low) + share * (ln(high) - ln(low))).exp()
}
