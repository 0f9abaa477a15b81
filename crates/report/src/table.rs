//! The law and the runs as text for terminals. Plain ASCII columns; colour and paging are the caller's.

use std::fmt::Write as _;

use isoloss_fit::record::{AllocationRecord, ExpertsRecord, Prediction, ServedRecord};
use isoloss_fit::{Asked, FitRecord, LawRecord, Observation};
use isoloss_sweep::count::si;

use crate::lab::Lab;

/// The chosen law with intervals, hold-out, allocation and what experts bought; or why there is no law.
pub fn law_table(lab: &Lab) -> String {
    let Some(fit) = &lab.fit else {
        let why = lab.fit_refusal.as_deref().unwrap_or("no fit has been made");
        return format!("no law: {why}\n");
    };
    let Some(law) = fit.chosen_law() else {
        let mut out = String::from("no law could be fitted\n");
        for reason in &fit.reasons {
            let _ = writeln!(out, "  {reason}");
        }
        for refused in &fit.refused {
            let _ = writeln!(out, "  {}: {}", refused.name, refused.reason);
        }
        return out;
    };
    let mut out = heading(lab, fit, law);
    parameters(&mut out, law);
    if let Some(truth) = lab.truth() {
        let inside = law.intervals.get("E").map(|[low, high]| (low..=high).contains(&truth));
        // Where E is not identified its interval is no statement about the truth.
        let inside = inside.filter(|_| law.identified);
        let verdict =
            inside.map_or("", |inside| if inside { "  inside E's interval" } else { "  outside E's interval" });
        let _ = writeln!(out, "  true entropy of the scored bytes {truth:.4}{verdict}");
    }
    quality(&mut out, law);
    // Of a law that is not identified the split is not either, however narrow its interval.
    if let Some(allocation) = fit.allocation.as_ref().filter(|_| law.identified) {
        allocate(&mut out, allocation, lab.unit_name());
    }
    if let Some(trade) = &fit.trade {
        crate::trade::lines(&mut out, trade, lab.unit_name());
    }
    unanswered(&mut out, fit, law);
    for prediction in &fit.predictions {
        predict(&mut out, lab, prediction);
    }
    for experts in &fit.experts {
        expert_lines(&mut out, experts);
    }
    crate::diagnosis::lines(&mut out, fit, law);
    if let Some(tuning) = &fit.tuning {
        crate::tuning::lines(&mut out, tuning);
    }
    out
}

fn heading(lab: &Lab, fit: &FitRecord, law: &LawRecord) -> String {
    format!(
        "{}: L(N, D) = {}   {} runs of {}, loss in {}\n  N counts {}\n",
        law.name,
        law.formula,
        law.residuals.len(),
        fit.arms.join(", "),
        lab.unit_name(),
        fit.observations.params_convention
    )
}

/// The parameters in the order people know them.
pub(crate) fn ordered(law: &LawRecord) -> Vec<(&str, f64)> {
    let known = ["E", "A", "alpha", "B", "beta", "q"];
    let first = known.iter().filter_map(|name| law.parameters.get_key_value(*name));
    let rest = law.parameters.iter().filter(|(name, _)| !known.contains(&name.as_str()));
    first.chain(rest).map(|(name, value)| (name.as_str(), *value)).collect()
}

fn parameters(out: &mut String, law: &LawRecord) {
    let level = format!("{:.0} % interval", 100.0 * law.intervals.level);
    let _ = writeln!(out, "  {:<8} {:>12}   {level}", "", "value");
    for (name, value) in ordered(law) {
        let range = law.intervals.get(name).map(|[low, high]| format!("[{}, {}]", digits(low), digits(high)));
        let _ = writeln!(out, "  {name:<8} {:>12}   {}", digits(value), range.unwrap_or_default());
    }
}

fn quality(out: &mut String, law: &LawRecord) {
    let _ = writeln!(out, "  rms error {:.2} %", 100.0 * law.rms_relative_error);
    if law.inflation > 1.0 {
        let note = "errors of rolling hold-out against what the fit expects";
        let _ = writeln!(out, "  intervals stretched {:.2} times ({note})", law.inflation);
    }
    if let Some(holdout) = &law.holdout {
        let error = 100.0 * holdout.mean_relative_error;
        let _ = writeln!(out, "  hold-out ({}, {} runs): {error:.2} % mean error", holdout.rule, holdout.runs);
    }
    let _ = writeln!(out, "  identified: {}", if law.identified { "yes" } else { "no" });
    for reason in &law.reasons {
        let _ = writeln!(out, "    {reason}");
    }
}

fn allocate(out: &mut String, at: &AllocationRecord, unit: &str) {
    if !at.identified {
        let _ = writeln!(out, "  compute-optimal allocation: not identified");
        for reason in &at.reasons {
            let _ = writeln!(out, "    {reason}");
        }
        return;
    }
    let [low, high] = at.params_interval;
    let _ = writeln!(
        out,
        "  compute-optimal at {:.2e} FLOPs: {} params [{}, {}], {} tokens, {:.1} tokens per param, loss {:.4} {unit}",
        at.flops,
        si(at.params),
        si(low),
        si(high),
        si(at.tokens),
        at.tokens_per_param,
        at.loss
    );
    let within: Vec<String> = at
        .within
        .iter()
        .map(|w| format!("{} to {} lose {} % at most", si(w.params[0]), si(w.params[1]), 100.0 * w.tolerance))
        .collect();
    if !within.is_empty() {
        let _ = writeln!(out, "  sizes around it: {}", within.join(", "));
    }
    if let Some(served) = &at.served {
        serve(out, served, unit);
    }
    if let Some(unmet) = &at.unmet {
        let _ = writeln!(out, "  {unmet}");
    }
    let ([a0, a1], [b0, b1]) = (at.a_interval, at.b_interval);
    if a0 == a1 {
        let _ = writeln!(out, "  N* ~ C^{:.3}, D* ~ C^{:.3} by the form of the law, not by the runs", at.a, at.b);
        return;
    }
    let _ = writeln!(out, "  N* ~ C^{:.3} [{a0:.3}, {a1:.3}], D* ~ C^{:.3} [{b0:.3}, {b1:.3}]", at.a, at.b);
}

/// That a budget was named to a law to which it says nothing.
fn unanswered(out: &mut String, fit: &FitRecord, law: &LawRecord) {
    let Some(question) = &fit.settings.question else { return };
    let asked = question.budget.is_some() || question.serve_tokens.is_some() || question.params_max.is_some();
    if !asked {
        return;
    }
    let known = fit.allocation.is_some() && law.identified;
    if !known && fit.trade.is_none() {
        let _ = writeln!(out, "  no allocation: {}", crate::trade::none(law));
    }
}

/// The optimum of a budget that pays for more than training, or under a bound.
fn serve(out: &mut String, served: &ServedRecord, unit: &str) {
    let mut why = Vec::new();
    if served.tokens_served > 0.0 {
        why.push(format!("with {} tokens of use paid from it", si(served.tokens_served)));
    }
    why.extend(served.params_max.map(|most| format!("with {} params at most", si(most))));
    let _ = writeln!(
        out,
        "  {}: {} params, {} tokens, loss {:.4} {unit}, {:.2e} FLOPs for training",
        why.join(" and "),
        si(served.params),
        si(served.tokens),
        served.loss,
        served.flops_training
    );
}

/// What the law says of one point, and how far beyond the runs that is.
fn predict(out: &mut String, lab: &Lab, at: &Prediction) {
    let [low, high] = at.interval;
    let _ = writeln!(
        out,
        "  predicted at {}{}: loss {:.4} [{low:.4}, {high:.4}] {}",
        sizes(&at.at),
        further(&at.at),
        at.loss,
        lab.unit_name()
    );
    let trade = lab.fit.as_ref().and_then(|fit| fit.trade.as_ref());
    if let Some(beyond) = trade.and_then(|trade| trade.beyond(&at.at)) {
        let _ = writeln!(out, "    {beyond}: no run says what the law does there");
    }
    if let Some(truth) = lab.truth().filter(|truth| at.loss < *truth) {
        let _ = writeln!(out, "    below the true entropy {truth:.4}: the law is wrong there");
    }
}

/// Params and tokens, as far as they were said.
fn sizes(at: &Asked) -> String {
    let said = [(at.params, "params"), (at.tokens, "tokens")];
    let said = said.into_iter().filter(|(value, _)| *value != Observation::UNSAID);
    said.map(|(value, name)| format!("{} {name}", si(value))).collect::<Vec<_>>().join(", ")
}

/// What was asked beside params and tokens.
fn further(at: &Asked) -> String {
    let named = [
        ("total params", at.params_total),
        ("experts", at.experts),
        ("top_k", at.top_k),
        ("granularity", at.granularity),
        ("distinct tokens", at.tokens_unique),
    ];
    named.into_iter().filter_map(|(name, value)| Some(format!(", {} {name}", si(value?)))).collect()
}

fn expert_lines(out: &mut String, experts: &ExpertsRecord) {
    let name = format!("{} ({} experts, top-{}, {} runs)", experts.arm, experts.experts, experts.top_k, experts.runs);
    match (experts.effective_over_active, experts.effective_over_active_interval) {
        (Some(gain), range) => {
            let range = range.map(|[low, high]| format!(" [{low:.2}, {high:.2}]")).unwrap_or_default();
            let _ = writeln!(out, "  {name}: effective dense size {gain:.2}{range} times the active params");
        }
        (None, _) => {
            let _ = writeln!(out, "  {name}: no dense size of the law has the same loss");
        }
    }
    if let Some(against) = &experts.against_dense {
        let _ = writeln!(out, "    {}", crate::experts::sentence(against));
    }
    const SIZES_SHOWN: usize = 8;
    for size in experts.effective.iter().take(SIZES_SHOWN) {
        let effective = size.params_effective.map_or_else(|| "none".to_owned(), si);
        let _ = writeln!(
            out,
            "    {:>7} active {:>7} total {:>7} tokens  loss {:.4}  like dense {effective}",
            si(size.params_active),
            si(size.params_total),
            si(size.tokens),
            size.loss
        );
    }
    if experts.effective.len() > SIZES_SHOWN {
        let _ = writeln!(out, "    and {} more runs; --json has them all", experts.effective.len() - SIZES_SHOWN);
    }
}

/// Five significant digits, without an exponent where that is readable.
pub(crate) fn digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor();
    if (-4.0..7.0).contains(&magnitude) {
        let decimals = (4.0 - magnitude).clamp(0.0, 8.0) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.4e}")
    }
}

/// One line a run: what it is, where it stands, what it reached.
pub fn runs_table(lab: &Lab) -> String {
    let arm_width = lab.runs.iter().map(|run| run.arm.chars().count()).max().unwrap_or(3).max(3);
    let mut out = format!(
        "{:<12}  {:<arm_width$}  {:<11} {:>7} {:>7} {:>8} {:>9} {:>9} {:>8} {:>8}\n",
        "run", "arm", "state", "active", "total", "tokens", "flops", "bits/byte", "off law", "seconds"
    );
    let differences = lab.differences();
    if differences.iter().any(|difference| !difference.is_empty()) {
        out.truncate(out.trim_end().len());
        out.push_str("  differs\n");
    }
    let law = lab.law();
    for (run, differs) in lab.runs.iter().zip(&differences) {
        let params = run.params();
        let bits = run.score().map(|score| format!("{:.4}", score.bits_per_byte));
        let law = law.as_ref().filter(|_| lab.fitted(&run.arm));
        let off =
            law.zip(run.loss(lab.unit)).map(|(law, loss)| loss / law.loss(run.size(), run.tokens().as_f64()) - 1.0);
        let line = format!(
            "{:<12}  {:<arm_width$}  {:<11} {:>7} {:>7} {:>8} {:>9} {:>9} {:>8} {:>8}  {differs}",
            run.run_id.short(),
            run.arm,
            run.state,
            params.active_non_embedding,
            params.non_embedding,
            run.tokens(),
            run.flops(),
            bits.unwrap_or_else(|| "-".to_owned()),
            off.map_or_else(|| "-".to_owned(), |off| format!("{:+.2} %", 100.0 * off)),
            run.finished().map_or_else(|| "-".to_owned(), |finished| format!("{:.1}", finished.cost.seconds)),
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
