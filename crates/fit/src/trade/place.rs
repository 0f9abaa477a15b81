//! The size of least loss on a budget, for one kind of model: a grid over the logarithm of the active params, then golden
//! section around its lowest cell. It knows no runs.

use crate::form::{FittedForm, Point};
use crate::record::Within;
use crate::serving::{FORWARD_SHARE, TOLERANCES, least};

use super::total::{Total, bisect};

/// Cells of the grid; a law that turns more than once between two of them has no meaning.
const CELLS: usize = 96;
/// How far below the largest size that the budget pays a size is looked for, in ln params.
const REACH_LN: f64 = 30.0;

/// What may be spent, and what bounds the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) flops: f64,
    /// FLOPs per active param and token.
    pub(crate) factor: f64,
    /// Tokens of use.
    pub(crate) served: f64,
    /// Total params.
    pub(crate) params_max: Option<f64>,
    /// Tokens of training of a law that reads none: those of its runs.
    pub(crate) tokens: Option<f64>,
}

/// A kind of model as the law reads it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Routing {
    pub(crate) experts: f64,
    pub(crate) granularity: f64,
    pub(crate) active_share: f64,
    /// All experts over those that a token uses.
    pub(crate) over: f64,
}

/// A model and its training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) active: f64,
    pub(crate) total: f64,
    pub(crate) tokens: f64,
    pub(crate) loss: f64,
    pub(crate) flops_training: f64,
    /// Whether the least and the largest size that were looked at bound it: the law has no optimum between.
    pub(crate) edge: bool,
}

impl Budget {
    /// Without use and memory.
    pub(crate) fn alone(self) -> Self {
        Self { served: 0.0, params_max: None, ..self }
    }

    /// Tokens of training that the budget leaves a model.
    fn tokens(&self, active: f64) -> f64 {
        self.tokens.unwrap_or(self.flops / (self.factor * active) - FORWARD_SHARE * self.served)
    }

    /// The largest model that is paid and fits.
    fn most(&self, total: &Total, over: f64) -> f64 {
        let paid = self.flops / (self.factor * (self.tokens.unwrap_or(1.0) + FORWARD_SHARE * self.served));
        self.params_max.map_or(paid, |most| total.most_active(most, over).min(paid))
    }
}

fn loss(law: &FittedForm, total: &Total, routing: &Routing, budget: &Budget, ln_active: f64) -> f64 {
    let active = ln_active.exp();
    let tokens = budget.tokens(active);
    if tokens <= 0.0 {
        return f64::INFINITY;
    }
    let loss = law.loss_of(&Point {
        params: active,
        params_total: total.total(active, routing.over),
        tokens,
        experts: routing.experts,
        granularity: routing.granularity,
        active_share: routing.active_share,
    });
    if loss.is_nan() { f64::INFINITY } else { loss }
}

/// The place of least loss; `None` where not even one param is paid.
pub(crate) fn best(law: &FittedForm, total: &Total, routing: &Routing, budget: &Budget) -> Option<Place> {
    let high = budget.most(total, routing.over).ln();
    if !(high.is_finite() && high >= 0.0) {
        return None;
    }
    let low = (high - REACH_LN).max(0.0);
    let of = |ln: f64| loss(law, total, routing, budget, ln);
    let step = (high - low) / CELLS as f64;
    let at = |cell: usize| if cell == CELLS { high } else { low + step * cell as f64 };
    let cell = (0..=CELLS).min_by(|a, b| of(at(*a)).total_cmp(&of(at(*b))))?;
    let ln = least(of, at(cell.saturating_sub(1)), at((cell + 1).min(CELLS)));
    let found = of(ln);
    let (active, tokens) = (ln.exp(), budget.tokens(ln.exp()));
    // At the upper end a law of fixed tokens or a bound of memory is met, which is an answer.
    let open = budget.tokens.is_none() && budget.params_max.is_none();
    found.is_finite().then(|| Place {
        active,
        total: total.total(active, routing.over),
        tokens,
        loss: found,
        flops_training: budget.factor * active * tokens,
        edge: ln - low < 1e-3 || (open && high - ln < 1e-3),
    })
}

/// The sizes around a place that lose little against it.
pub(crate) fn within(
    law: &FittedForm,
    total: &Total,
    routing: &Routing,
    budget: &Budget,
    place: &Place,
) -> Vec<Within> {
    let centre = place.active.ln();
    let ends = [(centre - REACH_LN).max(0.0), budget.most(total, routing.over).ln().max(centre)];
    let sizes = |tolerance: f64| {
        let limit = place.loss * (1.0 + tolerance);
        let edge = |end: f64| bisect(centre, end, |ln| loss(law, total, routing, budget, ln) <= limit).exp();
        Within { tolerance, params: ends.map(edge) }
    };
    TOLERANCES.into_iter().map(sizes).collect()
}
