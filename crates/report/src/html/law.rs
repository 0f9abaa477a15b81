//! The law on the page: the numbers that matter first, then the whole table, what was refused, and a calculator.

use std::fmt::Write as _;

use isoloss_fit::record::{AllocationRecord, ServedRecord};
use isoloss_fit::{FitRecord, LawRecord};

use crate::lab::{Lab, LabRun};
use crate::plot::{escape, power, short_si};
use crate::table::{digits, ordered};

fn card(out: &mut String, name: &str, value: &str, note: &str) {
    let (name, value, note) = (escape(name), escape(value), escape(note));
    let _ = writeln!(
        out,
        "<div class=\"card\"><p class=\"name\">{name}</p><p class=\"value\">{value}</p><p class=\"note\">{note}</p></div>"
    );
}

/// The answers of the sweep as numbers.
pub(super) fn cards(out: &mut String, lab: &Lab) {
    out.push_str("<section class=\"cards\">\n");
    if let Some((run, loss)) = lab.best(|_| true) {
        let note = format!("{}, {} active params, {} tokens", run.arm, short_si(run.size()), run.tokens());
        card(out, &format!("best loss, {}", lab.unit_name()), &format!("{loss:.3}"), &note);
    }
    match lab.fit.as_ref().and_then(|fit| Some((fit, fit.chosen_law()?))) {
        Some((fit, law)) => law_cards(out, lab, fit, law),
        None => {
            let why = lab.fit_refusal.as_deref().unwrap_or("fitting needs more finished runs");
            card(out, "law", "none yet", why);
        }
    }
    out.push_str("</section>\n");
}

fn law_cards(out: &mut String, lab: &Lab, fit: &FitRecord, law: &LawRecord) {
    let range = |name: &str| law.intervals.get(name).map(|[low, high]| format!("[{low:.3}, {high:.3}]"));
    let level = format!("{:.0} % interval", 100.0 * law.intervals.level);
    // It rests on losses among the runs, which may be known where a parameter is not.
    if let Some(trade) = fit.trade.as_ref().filter(|trade| trade.identified) {
        super::trade::card(trade).into_iter().for_each(|(name, value, note)| card(out, &name, &value, &note));
    }
    if !law.identified {
        // Numbers that the data do not pin down would be read all the same; the table below has them with their intervals.
        let why = law.reasons.first().map_or("the runs do not pin it down", String::as_str);
        card(out, "law", "not identified", why);
        return;
    }
    if let Some(floor) = law.parameters.get("E") {
        let truth = lab.truth().map(|truth| format!(", truth {truth:.3}")).unwrap_or_default();
        let note = format!("{}{truth}", range("E").unwrap_or(level));
        card(out, "irreducible loss E", &format!("{floor:.3}"), &note);
    }
    for (name, of) in [("alpha", "size exponent alpha"), ("beta", "data exponent beta")] {
        if let Some(value) = law.parameters.get(name) {
            card(out, of, &format!("{value:.3}"), &range(name).unwrap_or_default());
        }
    }
    if let Some(at) = fit.allocation.as_ref().filter(|at| at.identified) {
        card(out, "optimal tokens per param", &format!("{:.1}", at.tokens_per_param), &optimum(lab, at));
    }
    for experts in &fit.experts {
        if let Some(gain) = experts.effective_over_active {
            let range = experts.effective_over_active_interval;
            let range = range.map(|[low, high]| format!(" [{low:.2}, {high:.2}]")).unwrap_or_default();
            let equal =
                experts.against_dense.as_ref().map(|against| format!("; {}", crate::experts::sentence(against)));
            let note = format!("effective dense over active params{range}{}", equal.unwrap_or_default());
            card(out, &experts.arm, &format!("{gain:.2}\u{d7}"), &note);
        }
    }
    if let Some(holdout) = &law.holdout {
        let note = format!("mean error on the {}, kept from the fit", holdout.rule);
        card(out, "hold-out", &format!("{:.2} %", 100.0 * holdout.mean_relative_error), &note);
    }
}

/// The split of the budget in words, its interval, and whether it lies where no run has been.
fn optimum(lab: &Lab, at: &AllocationRecord) -> String {
    let [low, high] = at.tokens_per_param_interval;
    let mut note = format!(
        "[{low:.1}, {high:.1}]; at {} FLOPs: {} params, {} tokens",
        power(at.flops),
        short_si(at.params),
        short_si(at.tokens)
    );
    let fitted = || lab.scored().map(|(run, _)| run).filter(|run| lab.fitted(&run.arm));
    let tokens = fitted().map(|run| run.tokens().as_f64()).fold(0.0, f64::max);
    let params = fitted().map(LabRun::size).fold(0.0, f64::max);
    // A design rounds sizes and batches: a twentieth more is not beyond it.
    for (wanted, most, what) in [(at.params, params, "largest model"), (at.tokens, tokens, "longest run")] {
        if wanted > 1.05 * most {
            note.push_str(&format!("; beyond the {what} ({})", short_si(most)));
        }
    }
    if let Some(served) = &at.served {
        note.push_str(&format!("; {}", used(served)));
    }
    note.extend(at.unmet.iter().map(|unmet| format!("; {unmet}")));
    note
}

/// The optimum with use paid from the budget and within memory.
fn used(served: &ServedRecord) -> String {
    let mut why = Vec::new();
    if served.tokens_served > 0.0 {
        why.push(format!("{} tokens of use paid from it", short_si(served.tokens_served)));
    }
    why.extend(served.params_max.map(|most| format!("{} params at most", short_si(most))));
    let (params, tokens) = (short_si(served.params), short_si(served.tokens));
    format!("with {}: {params} params, {tokens} tokens, loss {:.3}", why.join(" and "), served.loss)
}

/// Every law with its numbers, and the calculator.
pub(super) fn section(out: &mut String, lab: &Lab) {
    let Some(fit) = &lab.fit else { return };
    out.push_str("<section id=\"law\"><h2>The law</h2>\n");
    let identified = fit.chosen_law().is_some_and(|law| law.identified);
    if identified && lab.law().is_some_and(|law| law.exponents().is_some()) {
        calculator(out, lab);
    }
    out.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>law</th><th>parameters</th><th class=\"n\">rms</th>\
         <th class=\"n\">AICc</th><th class=\"n\">hold-out</th><th>identified</th></tr></thead>\n<tbody>\n",
    );
    for law in &fit.laws {
        law_row(out, law, fit.chosen.as_deref() == Some(law.name.as_str()));
    }
    for refused in &fit.refused {
        let (name, why) = (escape(&refused.name), escape(&refused.reason));
        let _ = writeln!(out, "<tr><td>{name}</td><td colspan=\"5\">not fitted: {why}</td></tr>");
    }
    out.push_str("</tbody></table></div>\n");
    for reason in &fit.reasons {
        let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(reason));
    }
    if let Some(trade) = &fit.trade {
        super::trade::section(out, trade);
    }
    if let (Some(diagnosis), Some(law)) = (&fit.diagnosis, fit.chosen_law()) {
        for sentence in crate::diagnosis::sentences(diagnosis, fit, law).iter().chain(&diagnosis.warnings) {
            let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(sentence.trim_start()));
        }
    }
    let observed = &fit.observations;
    let _ = writeln!(
        out,
        "<p class=\"note\">{} observations, laws fitted to {}; N counts {}; Huber delta {}, {} bootstrap resamples, seed {}; data <code>{}</code>.</p>",
        observed.count,
        escape(&fit.arms.join(", ")),
        escape(&observed.params_convention),
        fit.settings.huber_delta,
        fit.settings.resamples,
        fit.settings.seed,
        observed.digest.short()
    );
    if !observed.excluded.is_empty() {
        out.push_str("<p class=\"note\">Kept from the fit: ");
        for excluded in &observed.excluded {
            let id: String = excluded.id.chars().take(12).collect();
            let _ = write!(out, "<code>{}</code> ({}) ", escape(&id), escape(&excluded.reason));
        }
        out.push_str("</p>\n");
    }
    out.push_str("</section>\n");
}

fn law_row(out: &mut String, law: &LawRecord, chosen: bool) {
    let mut parameters = String::new();
    for (name, value) in ordered(law) {
        let range = law.intervals.get(name).map(|[low, high]| format!(" [{}, {}]", digits(low), digits(high)));
        let range = range.unwrap_or_default();
        let _ =
            write!(parameters, "<span class=\"p\">{} = {}<small>{range}</small></span> ", escape(name), digits(value));
    }
    let percent = |value: f64| format!("{:.2} %", 100.0 * value);
    let verdict = if law.identified { "yes".to_owned() } else { format!("no: {}", escape(&law.reasons.join("; "))) };
    let _ = writeln!(
        out,
        "<tr{}><td><b>{}</b><br><code>{}</code></td><td>{parameters}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{}</td><td class=\"verdict\">{verdict}</td></tr>",
        if chosen { " class=\"chosen\"" } else { "" },
        escape(&law.name),
        escape(&law.formula),
        percent(law.rms_relative_error),
        law.aicc.map(|aicc| format!("{aicc:.1}")).unwrap_or_default(),
        law.holdout.as_ref().map(|holdout| percent(holdout.mean_relative_error)).unwrap_or_default()
    );
}

/// Asks the law for a loss; the script answers.
fn calculator(out: &mut String, lab: &Lab) {
    let (params, tokens) =
        lab.best(|run| lab.fitted(&run.arm)).map_or((1e6, 2e7), |(run, _)| (run.size(), run.tokens().as_f64()));
    let _ = writeln!(
        out,
        "<form id=\"ask\" class=\"ask\"><label>params <input name=\"params\" value=\"{}\" inputmode=\"text\"></label>\
         <label>tokens <input name=\"tokens\" value=\"{}\" inputmode=\"text\"></label>\
         <output name=\"loss\"></output><p class=\"note\" id=\"caution\"></p></form>",
        short_si(params * 10.0),
        short_si(tokens * 10.0)
    );
}
