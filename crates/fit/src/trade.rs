//! What a budget buys by a law of more than params and tokens: which active params, tokens and kind of experts lose least,
//! how many params memory then holds, and what a bound on these costs. The law's cloud says how sure that is.
//!
//! A budget pays 6 FLOPs per active param and token of training (or what the runs say) and a third of that per token of
//! use. Kinds are those of the runs: a number of experts that no run has is not extrapolated to.

mod kind;
mod place;
mod record;
mod total;
mod verdict;

use crate::form::{FittedForm, Form, Variable};
use crate::observation::Observation;
use crate::settings::Settings;

use kind::Kind;
use place::{Budget, Place, best, within};
pub use record::{Axis, BetweenRecord, KindRecord, PlaceRecord, TotalRecord, TradeRecord};
use total::Total;
use verdict::{notes, reasons};

/// Runs of one budget of tokens: steps are whole, so that budgets differ a little.
const SAME_TOKENS: f64 = 1.05;
/// A value between those seen is worth telling from this much less loss on.
const BETWEEN_GAIN: f64 = 1e-5;

/// The end of an interval that has none.
const ENDLESS: f64 = 1e260;

/// A form's fit as its trade needs it.
pub(crate) struct Law<'a> {
    pub(crate) law: &'a FittedForm,
    pub(crate) draws: &'a [FittedForm],
    /// An interval around a centre from what the draws say.
    pub(crate) interval: &'a dyn Fn(f64, Vec<f64>) -> [f64; 2],
    /// Whether every parameter is known.
    pub(crate) whole: bool,
}

/// The runs as the budget sees them.
struct Runs {
    /// Dearest first: active params, tokens, FLOPs.
    sorted: Vec<(f64, f64, f64)>,
    total: Total,
}

impl Runs {
    fn of(form: &Form, rows: &[Observation]) -> Self {
        let total = Total::of(form, rows);
        let cost = |row: &Observation| {
            let active = total.active(form, row);
            let counted = (row.flops / (6.0 * row.params * row.tokens) - 1.0).abs() > 1e-9;
            (active, row.tokens, if counted { row.flops } else { 6.0 * active * row.tokens })
        };
        let mut sorted: Vec<(f64, f64, f64)> = rows.iter().map(cost).collect();
        sorted.sort_by(|a, b| b.2.total_cmp(&a.2).then(b.0.total_cmp(&a.0)));
        Self { sorted, total }
    }

    /// As for laws of params and tokens: the geometric mean over the dearer half.
    fn factor(&self) -> f64 {
        let half = &self.sorted[..self.sorted.len().div_ceil(2)];
        let sum: f64 = half.iter().map(|(active, tokens, flops)| (flops / (active * tokens)).ln()).sum();
        (sum / half.len() as f64).exp()
    }

    fn range(&self, of: fn(&(f64, f64, f64)) -> f64) -> [f64; 2] {
        let ends = |[low, high]: [f64; 2], value: f64| [low.min(value), high.max(value)];
        self.sorted.iter().map(of).fold([f64::INFINITY, f64::NEG_INFINITY], ends)
    }
}

/// The trade under a form; `None` where a budget says nothing to it.
pub(crate) fn trade(fitted: &Law<'_>, rows: &[Observation], settings: &Settings) -> Option<TradeRecord> {
    let form = fitted.law.form;
    let sized = form.reads.iter().any(|variable| matches!(variable, Variable::Params | Variable::ParamsTotal));
    if !sized || form.reads.contains(&Variable::Flops) || rows.is_empty() {
        return None;
    }
    let axis = Axis::of(form);
    let runs = Runs::of(form, rows);
    let largest = runs.sorted[0].2;
    let budget = Budget {
        flops: settings.budget.unwrap_or(largest),
        factor: runs.factor(),
        served: settings.serve_tokens.unwrap_or(0.0),
        params_max: settings.params_max,
        tokens: None,
    };
    let mut record = TradeRecord {
        flops: budget.flops,
        flops_per_param_token: budget.factor,
        level: settings.level,
        tokens_served: settings.serve_tokens,
        params_max: settings.params_max,
        axis,
        total: runs.total.record(),
        kinds: Vec::new(),
        best: None,
        best_bounded: None,
        between: None,
        unmet: None,
        notes: Vec::new(),
        identified: false,
        reasons: Vec::new(),
    };
    let reads_tokens = form.reads.iter().any(|one| matches!(one, Variable::Tokens | Variable::TokensUnique));
    let budget = match fixed(reads_tokens, &runs) {
        Ok(tokens) => Budget { tokens, ..budget },
        Err(reason) => return Some(TradeRecord { reasons: vec![reason], ..record }),
    };
    let kinds = kind::kinds(axis, rows);
    record.unmet = unpaid(&budget, &runs);
    let question = Question { fitted, runs: &runs, kinds: &kinds, budget, bounds: record.bounds() };
    question.answer(&mut record);
    record.reasons = reasons(&record, largest, &budget, &question);
    record.notes = notes(&record, &budget, &question);
    record.identified = record.reasons.is_empty();
    Some(record)
}

/// Tokens of a law that reads none: it holds at those of its runs.
fn fixed(reads_tokens: bool, runs: &Runs) -> Result<Option<f64>, String> {
    if reads_tokens {
        return Ok(None);
    }
    let [low, high] = runs.range(|run| run.1);
    if high == Observation::UNSAID {
        return Err("the law reads no tokens and the table says none, so that no budget can be split; say them, for \
                    example with --map tokens=130B"
            .to_owned());
    }
    if high > low * SAME_TOKENS {
        return Err(format!(
            "the law reads no tokens, but its runs have from {low:.3e} to {high:.3e}: it holds at none"
        ));
    }
    Ok(Some((low * high).sqrt()))
}

/// Why use alone takes the budget, where it does.
fn unpaid(budget: &Budget, runs: &Runs) -> Option<String> {
    let [least, _] = runs.range(|run| run.0);
    crate::serving::unpaid(budget.flops, budget.factor, budget.served, least)
}

/// What is asked of each kind.
struct Question<'a> {
    fitted: &'a Law<'a>,
    runs: &'a Runs,
    kinds: &'a [Kind],
    budget: Budget,
    bounds: bool,
}

impl Question<'_> {
    fn answer(&self, record: &mut TradeRecord) {
        let (own, alone) = (self.fitted.law, self.budget.alone());
        let bounded = self.bounds && record.unmet.is_none();
        let asked = if bounded { self.budget } else { alone };
        let wins = self.wins(&asked);
        let kind = |(kind, best_share): (&Kind, f64)| KindRecord {
            value: kind.value,
            runs: kind.runs,
            alone: self.place(kind, &alone),
            bounded: if bounded { self.place(kind, &self.budget) } else { None },
            best_share,
        };
        record.kinds = self.kinds.iter().zip(wins).map(kind).collect();
        record.best = lowest(record.kinds.iter().map(|kind| kind.alone.as_ref()));
        record.best_bounded = lowest(record.kinds.iter().map(|kind| kind.bounded.as_ref()));
        if self.bounds && record.unmet.is_none() && record.best_bounded.is_none() {
            record.unmet = Some("no model of any kind is paid and fits".to_owned());
        }
        let seen = if bounded { record.best_bounded } else { record.best };
        let seen = seen.and_then(|at| best(own, &self.runs.total, &self.kinds[at].routing, &asked));
        record.between = seen.and_then(|seen| self.between(record.axis, &asked, &seen));
    }

    fn place(&self, kind: &Kind, budget: &Budget) -> Option<PlaceRecord> {
        let (law, total, routing) = (self.fitted.law, &self.runs.total, &kind.routing);
        let place = best(law, total, routing, budget)?;
        let draws: Vec<Place> =
            self.fitted.draws.iter().filter_map(|draw| best(draw, total, routing, budget)).collect();
        let interval = |centre: f64, of: fn(&Place) -> f64| {
            let [low, high] = (self.fitted.interval)(centre, draws.iter().map(of).collect());
            // Numbers of JSON are finite: e^600 says as well that there is no end.
            [low.min(centre).max(f64::MIN_POSITIVE), high.max(centre).min(ENDLESS)]
        };
        // Stretched intervals end where the budget and memory do.
        let most = within_reach(budget, total, routing.over);
        let params_interval = interval(place.active, |place| place.active).map(|end| end.min(most.max(place.active)));
        Some(PlaceRecord {
            params_active: place.active,
            params_total: place.total,
            tokens: place.tokens,
            loss: place.loss,
            flops_training: place.flops_training,
            params_interval,
            loss_interval: interval(place.loss, |place| place.loss),
            within: within(law, total, routing, budget, &place),
        })
    }

    /// In which share of the draws each kind is the best.
    fn wins(&self, budget: &Budget) -> Vec<f64> {
        let mut wins = vec![0.0; self.kinds.len()];
        let mut count = 0.0;
        for draw in self.fitted.draws {
            let places = self.kinds.iter().map(|kind| best(draw, &self.runs.total, &kind.routing, budget));
            let losses: Vec<(usize, f64)> =
                places.enumerate().filter_map(|(at, place)| Some((at, place?.loss))).collect();
            if let Some((at, _)) = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)) {
                wins[*at] += 1.0;
                count += 1.0;
            }
        }
        wins.into_iter().map(|won| if count > 0.0 { won / count } else { 0.0 }).collect()
    }

    fn between(&self, axis: Option<Axis>, budget: &Budget, seen: &Place) -> Option<BetweenRecord> {
        let places = kind::between(axis, self.kinds).into_iter().filter_map(|(value, routing)| {
            best(self.fitted.law, &self.runs.total, &routing, budget).map(|place| (value, place))
        });
        let (value, place) = places.min_by(|a, b| a.1.loss.total_cmp(&b.1.loss))?;
        (place.loss < seen.loss * (1.0 - BETWEEN_GAIN)).then_some(BetweenRecord {
            value,
            params_active: place.active,
            params_total: place.total,
            tokens: place.tokens,
            loss: place.loss,
        })
    }
}

fn within_reach(budget: &Budget, total: &Total, over: f64) -> f64 {
    budget.params_max.map_or(f64::INFINITY, |most| total.most_active(most, over))
}

fn lowest<'a>(places: impl Iterator<Item = Option<&'a PlaceRecord>>) -> Option<usize> {
    let losses = places.enumerate().filter_map(|(at, place)| Some((at, place?.loss)));
    losses.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
}

#[cfg(test)]
#[path = "trade/tests.rs"]
mod tests;
