//! The split of a budget as LaTeX: the optimum, what it becomes when the model is used or must fit in memory, and for laws of
//! experts every kind of model that was seen.

use std::fmt::Write as _;

use isoloss_fit::record::{AllocationRecord, ServedRecord};
use isoloss_fit::trade::{Axis, KindRecord, PlaceRecord, TradeRecord};
use isoloss_fit::{FitRecord, LawRecord};

use super::words::{comment, escape, interval, number};
use crate::lab::Lab;

/// The split of a budget; where the runs do not show it, a comment says why there is none.
pub(super) fn tables(out: &mut String, lab: &Lab, fit: &FitRecord) {
    let unit = lab.scored().next().map(|_| format!(", {}", lab.unit_name())).unwrap_or_default();
    match (fit.chosen_law(), &fit.allocation, &fit.trade) {
        (Some(law), Some(at), _) => allocation(out, law, at, &unit),
        (Some(law), None, Some(trade)) => trade_table(out, law, trade, &unit),
        (Some(law), None, None) => out.push_str(&comment(&format!("no allocation: {}", crate::trade::none(law)))),
        (None, ..) => {}
    }
}

/// Why there is no table, where the runs do not show one.
fn refuse(out: &mut String, reasons: &[&String]) {
    let reasons: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
    out.push_str(&comment(&format!("no allocation, it is not identified: {}", reasons.join("; "))));
}

fn allocation(out: &mut String, law: &LawRecord, at: &AllocationRecord, unit: &str) {
    if !(law.identified && at.identified) {
        refuse(out, &law.reasons.iter().chain(&at.reasons).collect::<Vec<_>>());
        return;
    }
    let [a0, a1] = at.a_interval;
    let by_form = if a0 == a1 { " The exponents follow from the form of the law, not from the runs." } else { "" };
    let _ = write!(
        out,
        "\\begin{{table}}\n  \\centering\n  \\caption{{Compute-optimal allocation of ${}$ FLOPs by the {} law, at {} FLOPs per \
         param and token.{by_form}}}\n  \\label{{tab:allocation}}\n  \\begin{{tabular}}{{lrl}}\n    \\toprule\n     & Value & \
         {:.0}\\,\\% interval \\\\\n    \\midrule\n",
        number(at.flops).trim_matches('$'),
        escape(&law.name),
        number(at.flops_per_param_token),
        100.0 * at.level
    );
    for (name, value, range) in allocation_rows(at, unit) {
        let _ = writeln!(out, "    {name} & {} & {} \\\\", number(value), interval(range));
    }
    if let Some(served) = &at.served {
        served_rows(out, served, unit);
    }
    out.push_str("    \\bottomrule\n  \\end{tabular}\n\\end{table}\n");
    if let Some(unmet) = &at.unmet {
        out.push_str(&comment(&format!("no optimum with use: {unmet}")));
    }
}

/// The optimum with use paid from the budget and within memory, below the free one.
fn served_rows(out: &mut String, at: &ServedRecord, unit: &str) {
    let served = (at.tokens_served > 0.0).then_some(at.tokens_served);
    let _ = writeln!(out, "    \\midrule\n    \\multicolumn{{3}}{{l}}{{{}}} \\\\", bounds(served, at.params_max));
    for (name, value) in [
        ("Params $N$".to_owned(), at.params),
        ("Tokens $D$".to_owned(), at.tokens),
        (format!("Loss{unit}"), at.loss),
        ("FLOPs of training".to_owned(), at.flops_training),
    ] {
        let _ = writeln!(out, "    {name} & {} & -- \\\\", number(value));
    }
}

/// What bounds an optimum beside the budget.
fn bounds(served: Option<f64>, most: Option<f64>) -> String {
    let served = served.map(|tokens| format!("{} tokens of use paid from it", number(tokens)));
    let most = most.map(|most| format!("{} params in all at most", number(most)));
    format!("With {}", served.into_iter().chain(most).collect::<Vec<_>>().join(" and "))
}

/// Every kind of model seen, with what the budget makes of it; the best one in bold.
fn trade_table(out: &mut String, law: &LawRecord, trade: &TradeRecord, unit: &str) {
    if !trade.identified {
        refuse(out, &trade.reasons.iter().collect::<Vec<_>>());
        return;
    }
    for note in trade.notes.iter().chain(&trade.unmet) {
        out.push_str(&comment(note));
    }
    let head = match trade.axis {
        Some(Axis::Experts) => "Experts",
        Some(Axis::Granularity) => "Granularity",
        Some(Axis::ActiveShare) => "Active share",
        None => "",
    };
    let _ = write!(
        out,
        "\\begin{{table}}\n  \\centering\n  \\caption{{What ${}$ FLOPs buy by the {} law, at {} FLOPs per active param and \
         token, for each kind of model seen; the best in bold.}}\n  \\label{{tab:allocation}}\n  \
         \\begin{{tabular}}{{rrrrrl}}\n    \\toprule\n    {head} & Active params & Total params & Tokens & Loss{unit} & \
         {:.0}\\,\\% interval of the loss \\\\\n    \\midrule\n",
        number(trade.flops).trim_matches('$'),
        escape(&law.name),
        number(trade.flops_per_param_token),
        100.0 * trade.level
    );
    kind_rows(out, trade, trade.best, |kind| kind.alone.as_ref());
    if trade.best_bounded.is_some() {
        let bounds = bounds(trade.tokens_served, trade.params_max);
        let _ = writeln!(out, "    \\midrule\n    \\multicolumn{{6}}{{l}}{{{bounds}}} \\\\");
        kind_rows(out, trade, trade.best_bounded, |kind| kind.bounded.as_ref());
    }
    out.push_str("    \\bottomrule\n  \\end{tabular}\n\\end{table}\n");
}

fn kind_rows(
    out: &mut String,
    trade: &TradeRecord,
    best: Option<usize>,
    of: impl Fn(&KindRecord) -> Option<&PlaceRecord>,
) {
    for (at, kind) in trade.kinds.iter().enumerate() {
        let Some(place) = of(kind) else { continue };
        let value = if trade.axis.is_some() { crate::trade::short(kind.value) } else { "--".to_owned() };
        let value = if best == Some(at) { format!("\\textbf{{{value}}}") } else { value };
        let _ = writeln!(
            out,
            "    {value} & {} & {} & {} & {} & {} \\\\",
            number(place.params_active),
            number(place.params_total),
            number(place.tokens),
            number(place.loss),
            interval(Some(place.loss_interval))
        );
    }
}

fn allocation_rows(at: &AllocationRecord, unit: &str) -> [(String, f64, Option<[f64; 2]>); 6] {
    // Exponents that the form alone gives have no interval from the runs.
    let exponent = |range: [f64; 2]| (range[0] != range[1]).then_some(range);
    [
        ("Params $N^*$".to_owned(), at.params, Some(at.params_interval)),
        ("Tokens $D^*$".to_owned(), at.tokens, None),
        ("Tokens per param $D^*/N^*$".to_owned(), at.tokens_per_param, Some(at.tokens_per_param_interval)),
        (format!("Loss{unit}"), at.loss, None),
        ("$a$ in $N^* \\propto C^a$".to_owned(), at.a, exponent(at.a_interval)),
        ("$b$ in $D^* \\propto C^b$".to_owned(), at.b, exponent(at.b_interval)),
    ]
}
