//! What a budget buys, on the page: the best kind as a card, every kind seen as a table. The numbers are the record's.

use std::fmt::Write as _;

use isoloss_fit::trade::{KindRecord, PlaceRecord, TradeRecord};

use crate::plot::{escape, power, short_si};
use crate::trade::{bounds, named, short};

/// Name, value and note of the card; none where nothing was found.
pub(super) fn card(trade: &TradeRecord) -> Option<(String, String, String)> {
    let (kind, place) = trade.answer().or_else(|| trade.free())?;
    let value = match trade.axis {
        Some(_) => named(trade.axis, kind.value),
        None => format!("{} params", short_si(place.params_active)),
    };
    let bounds = if trade.answer().is_some() && trade.bounds() { format!(" {}", bounds(trade)) } else { String::new() };
    let mut note = format!(
        "at {} FLOPs{bounds}: {} active params, {} in all, {} tokens, loss {:.3}; the best by {:.0} % of resampled laws",
        power(trade.flops),
        short_si(place.params_active),
        short_si(place.params_total),
        short_si(place.tokens),
        place.loss,
        100.0 * kind.best_share
    );
    note.extend(trade.unmet.iter().map(|unmet| format!("; {unmet}")));
    Some(("best for the budget".to_owned(), value, note))
}

/// Active against total params for every kind.
pub(super) fn section(out: &mut String, trade: &TradeRecord) {
    out.push_str("<h3>What a budget buys</h3>\n");
    if !trade.identified {
        let _ = writeln!(out, "<p class=\"note\">Not identified: {}.</p>", escape(&trade.reasons.join("; ")));
        return;
    }
    let per = format!("{:.2} per active param and token", trade.flops_per_param_token);
    let _ = writeln!(out, "<p class=\"note\">{} FLOPs of training, {per}.</p>", escape(&power(trade.flops)));
    table(out, trade, trade.best, |kind| kind.alone.as_ref());
    if trade.bounds() {
        let _ = writeln!(out, "<p class=\"note\">The same budget {}:</p>", escape(&bounds(trade)));
        match &trade.unmet {
            Some(unmet) => {
                let _ = writeln!(out, "<p class=\"note\">{}.</p>", escape(unmet));
            }
            None => table(out, trade, trade.best_bounded, |kind| kind.bounded.as_ref()),
        }
    }
    for note in &trade.notes {
        let _ = writeln!(out, "<p class=\"note\">{}.</p>", escape(note));
    }
}

fn table(out: &mut String, trade: &TradeRecord, best: Option<usize>, of: impl Fn(&KindRecord) -> Option<&PlaceRecord>) {
    let axis = trade.axis.map_or("kind", |axis| axis.name());
    let _ = writeln!(
        out,
        "<div class=\"scroll\"><table><thead><tr><th class=\"n\">{axis}</th><th class=\"n\">active params</th>\
         <th class=\"n\">total params</th><th class=\"n\">tokens</th><th class=\"n\">loss</th><th>{:.0} % interval</th>\
         <th>sizes that lose 0.1 %</th><th>sizes that lose 1 %</th></tr></thead>\n<tbody>",
        100.0 * trade.level
    );
    for (at, kind) in trade.kinds.iter().enumerate() {
        let value = if trade.axis.is_some() { short(kind.value) } else { String::new() };
        let Some(place) = of(kind) else {
            let _ =
                writeln!(out, "<tr><td class=\"n\">{value}</td><td colspan=\"7\">not paid, or does not fit</td></tr>");
            continue;
        };
        let range =
            |at: usize| place.within.get(at).map(|w| format!("{} to {}", short_si(w.params[0]), short_si(w.params[1])));
        let [low, high] = place.loss_interval;
        let _ = writeln!(
            out,
            "<tr{}><td class=\"n\">{value}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{:.4}</td><td>[{low:.4}, {high:.4}]</td><td>{}</td><td>{}</td></tr>",
            if best == Some(at) { " class=\"chosen\"" } else { "" },
            short_si(place.params_active),
            short_si(place.params_total),
            short_si(place.tokens),
            place.loss,
            range(0).unwrap_or_default(),
            range(1).unwrap_or_default()
        );
    }
    out.push_str("</tbody></table></div>\n");
}
