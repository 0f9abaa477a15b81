//! Whether a trade is to be believed, and what its reader must know beside the numbers.

use crate::allocation::{EXTRAPOLATION_MAX, RATIO_MAX};

use super::place::{Budget, best};
use super::record::{TotalRecord, TradeRecord};
use super::{Question, Runs};

/// Where the relation of active and total params misses those of the runs by more, that is said.
const RELATION_MISS: f64 = 0.02;
/// A twentieth beyond the runs is not beyond them: designs round.
const BEYOND: f64 = 1.05;

/// Why the answer is none.
pub(super) fn reasons(record: &TradeRecord, largest: f64, budget: &Budget, question: &Question<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    if record.flops > EXTRAPOLATION_MAX * largest {
        reasons.push(format!("the budget is {:.0} times the largest run; add larger runs", record.flops / largest));
    }
    let Some((kind, place)) = record.free() else {
        reasons.push("the budget pays for no model at all".to_owned());
        return reasons;
    };
    let routing = &question.kinds.iter().find(|one| one.value == kind.value).expect("records are of kinds").routing;
    let alone = budget.alone();
    if best(question.fitted.law, &question.runs.total, routing, &alone).is_some_and(|place| place.edge) {
        reasons
            .push("the law has no optimum between the smallest and the largest model that the budget pays".to_owned());
    }
    // At one budget tokens per param fall with the square of the params.
    let [low, high] = place.params_interval;
    let wide = (high / low).powi(2);
    if budget.tokens.is_none() && (wide.is_nan() || wide > RATIO_MAX) {
        reasons.push(format!(
            "the best active params lie anywhere in {low:.3e} to {high:.3e}; add runs at this budget on both sides of the \
             optimum"
        ));
    }
    reasons
}

/// What a reader must know beside the numbers.
pub(super) fn notes(record: &TradeRecord, budget: &Budget, question: &Question<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if !question.fitted.whole {
        notes.push(
            "not every parameter of the law is known; this rests on its losses among the runs, and the intervals say how \
             sure these are"
                .to_owned(),
        );
    }
    notes.extend(edge(record));
    notes.extend(beyond(record, budget, question.runs));
    if let Some(tokens) = budget.tokens {
        notes.push(format!(
            "the law reads no tokens: it holds at the {tokens:.3e} of its runs, so that the budget sets the params"
        ));
    }
    if question.kinds.iter().any(|kind| kind.routing.over > 1.0) || record.total.from_runs {
        notes.extend(relation(&record.total));
    }
    if question.kinds.iter().any(|kind| kind.mixed) {
        notes.push(
            "runs of one kind use different shares of their experts, which the law does not read: total params are of \
             their mean"
                .to_owned(),
        );
    }
    notes
}

/// Where the answer lies outside of all runs.
fn beyond(record: &TradeRecord, budget: &Budget, runs: &Runs) -> Vec<String> {
    let Some((_, place)) = record.answer().or_else(|| record.free()) else {
        return Vec::new();
    };
    let ([small, large], [_, long]) = (runs.range(|run| run.0), runs.range(|run| run.1));
    let mut notes = Vec::new();
    if place.params_active > BEYOND * large {
        notes.push(format!("the best model is larger than all runs (at most {large:.2e} active params)"));
    }
    if place.params_active * BEYOND < small {
        notes.push(format!("the best model is smaller than all runs (at least {small:.2e} active params)"));
    }
    if budget.tokens.is_none() && place.tokens > BEYOND * long {
        notes.push(format!("it is trained longer than all runs (at most {long:.2e} tokens)"));
    }
    notes
}

/// How far total params are to be trusted.
fn relation(total: &TotalRecord) -> Option<String> {
    if !total.from_runs {
        return Some(format!(
            "no run says its total params: total = {} with share {:.2}, that of a usual transformer with experts in every \
             layer; map params_total to have the runs' own",
            total.formula, total.share
        ));
    }
    let miss = total.rms_relative_error.filter(|miss| *miss > RELATION_MISS)?;
    let percent = 100.0 * miss;
    Some(format!("total params follow from active ones by a relation that misses the runs' own by {percent:.1} %"))
}

/// That the best kind is the first or the last of those seen.
fn edge(record: &TradeRecord) -> Option<String> {
    let (axis, [first, .., last]) = (record.axis?, record.kinds.as_slice()) else {
        return None;
    };
    let (kind, _) = record.answer().or_else(|| record.free())?;
    let side = match kind.value {
        value if value == last.value => "largest",
        value if value == first.value => "smallest",
        _ => return None,
    };
    Some(format!(
        "{} is the {side} {} seen: what lies beyond was not tried and is not looked at",
        kind.value,
        axis.name()
    ))
}
