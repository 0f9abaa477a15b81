//! What a budget buys by a law that reads experts: the best kind of model, and every kind seen with its active and total
//! params, as text.

use std::fmt::Write as _;

use isoloss_fit::form::Variable;
use isoloss_fit::trade::{Axis, KindRecord, PlaceRecord, TradeRecord};
use isoloss_fit::{Law, LawRecord, form};
use isoloss_sweep::count::si;

/// The trade in lines for terminals.
pub(crate) fn lines(out: &mut String, trade: &TradeRecord, unit: &str) {
    if !trade.identified {
        let _ = writeln!(out, "  compute-optimal allocation: not identified");
        for reason in &trade.reasons {
            let _ = writeln!(out, "    {reason}");
        }
        return;
    }
    if let Some((kind, place)) = trade.free() {
        let _ = writeln!(
            out,
            "  compute-optimal at {:.2e} FLOPs, {:.2} per active param and token:",
            trade.flops, trade.flops_per_param_token
        );
        let _ = writeln!(out, "    {}", sentence(trade, kind, place, unit));
    }
    // One table where nothing else was asked; with bounds the second is the answer, and both show what the bounds cost.
    table(out, trade, |kind| kind.alone.as_ref(), !trade.bounds());
    if trade.bounds() {
        bounded(out, trade, unit);
    }
    if let Some(between) = &trade.between {
        let _ = writeln!(
            out,
            "  between those seen the law falls lowest at {}: {} active params, {} in all, {} tokens, loss {:.4}",
            named(trade.axis, between.value),
            si(between.params_active),
            si(between.params_total),
            si(between.tokens),
            between.loss
        );
    }
    for note in &trade.notes {
        let _ = writeln!(out, "    {note}");
    }
}

fn bounded(out: &mut String, trade: &TradeRecord, unit: &str) {
    let _ = writeln!(out, "  {}:", bounds(trade));
    if let Some(unmet) = &trade.unmet {
        let _ = writeln!(out, "    {unmet}");
    }
    if let Some((kind, place)) = trade.answer() {
        let training = format!("{:.2e} FLOPs for training", place.flops_training);
        let _ = writeln!(out, "    {}, {training}", sentence(trade, kind, place, unit));
        table(out, trade, |kind| kind.bounded.as_ref(), true);
    }
}

/// Why a law splits no budget.
pub(crate) fn none(law: &LawRecord) -> String {
    let name = &law.name;
    let by_form = || form(name).is_some_and(|form| !form.reads.contains(&Variable::Flops));
    match isoloss_fit::law::law(name).map_or_else(by_form, Law::trades) {
        true => format!("the law {name} is not identified"),
        false => format!("the law {name} trades no params against tokens"),
    }
}

/// What was asked beside the budget.
pub(crate) fn bounds(trade: &TradeRecord) -> String {
    let served = trade.tokens_served.map(|tokens| format!("with {} tokens of use paid from it", si(tokens)));
    let most = trade.params_max.map(|most| format!("with {} total params at most", si(most)));
    served.into_iter().chain(most).collect::<Vec<_>>().join(" and ")
}

/// `8 experts`.
pub(crate) fn named(axis: Option<Axis>, value: f64) -> String {
    match axis {
        Some(Axis::Experts) if value == 1.0 => "dense".to_owned(),
        Some(Axis::Experts) => format!("{value} experts"),
        Some(Axis::Granularity) => format!("granularity {}", short(value)),
        Some(Axis::ActiveShare) => format!("active share {}", short(value)),
        None => "one kind".to_owned(),
    }
}

/// Four digits at most.
pub(crate) fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn sentence(trade: &TradeRecord, kind: &KindRecord, place: &PlaceRecord, unit: &str) -> String {
    let ([low, high], [least, most]) = (place.params_interval, place.loss_interval);
    let kind = trade.axis.map(|axis| format!("{}, ", named(Some(axis), kind.value))).unwrap_or_default();
    format!(
        "{kind}{} active params [{}, {}], {} in all, {} tokens, loss {:.4} [{least:.4}, {most:.4}] {unit}",
        si(place.params_active),
        si(low),
        si(high),
        si(place.params_total),
        si(place.tokens),
        place.loss
    )
}

/// Every kind at the budget: active against total params. `wins` belong to what was asked last.
fn table(out: &mut String, trade: &TradeRecord, of: impl Fn(&KindRecord) -> Option<&PlaceRecord>, wins: bool) {
    let least = trade.kinds.iter().filter_map(|kind| Some(of(kind)?.loss)).fold(f64::INFINITY, f64::min);
    let head = match trade.axis {
        Some(Axis::Experts) => "experts",
        Some(Axis::Granularity) => "granularity",
        Some(Axis::ActiveShare) => "active share",
        None => "",
    };
    let head = format!(
        "    {head:>12} {:>8} {:>8} {:>8} {:>8} {:>8}  {:<17} {:<17}  {}",
        "active",
        "total",
        "tokens",
        "loss",
        "over",
        "sizes to 0.1 %",
        "sizes to 1 %",
        if wins { "best in" } else { "" }
    );
    let _ = writeln!(out, "{}", head.trim_end());
    for kind in &trade.kinds {
        let value = if trade.axis.is_some() { short(kind.value) } else { String::new() };
        let Some(place) = of(kind) else {
            let _ = writeln!(out, "    {value:>12} no model of this kind is paid and fits");
            continue;
        };
        let sizes: Vec<String> =
            place.within.iter().map(|w| format!("{} to {}", si(w.params[0]), si(w.params[1]))).collect();
        let wins = if wins { format!("  {:>5.0} %", 100.0 * kind.best_share) } else { String::new() };
        let line = format!(
            "    {value:>12} {:>8} {:>8} {:>8} {:>8.4} {:>6.2} %  {:<17} {:<17}{wins}",
            si(place.params_active),
            si(place.params_total),
            si(place.tokens),
            place.loss,
            100.0 * (place.loss / least - 1.0),
            sizes.first().map_or("", String::as_str),
            sizes.get(1).map_or("", String::as_str)
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
}
