//! Which runs stand behind the law, and which do not.

use std::collections::BTreeMap;

use isoloss_fit::extent::Extent;
use isoloss_fit::mixing::sentences;

use super::{Answer, Group, Item, counts, fit, many};
use crate::lab::Lab;
use crate::markdown::plain;
use crate::plot::power;
use crate::table::digits;

/// Reasons and ids that are listed; the rest is counted.
const REASONS_SHOWN: usize = 12;
const IDS_SHOWN: usize = 3;

pub(super) fn group(lab: &Lab) -> Group {
    Group {
        title: "Which runs",
        items: vec![
            Item { question: "How many runs, over which sizes and budgets?", answer: extent(lab).map(ranges) },
            Item { question: "Are the runs independent of each other?", answer: extent(lab).map(independence) },
            Item { question: "Do runs of different kinds stand in one fit?", answer: kinds(lab) },
            Item { question: "Which runs were left out, and why?", answer: left_out(lab) },
            Item {
                question: "Were law, hold-out and exclusions settled before the losses were seen?",
                answer: Err("no record can say what somebody had seen".to_owned()),
            },
        ],
    }
}

/// How far the fitted runs reach, or why that is not known.
pub(super) fn extent(lab: &Lab) -> Result<&Extent, String> {
    let old =
        || "the record has no ranges: it is of a version that did not keep them, or no run could be fitted".to_owned();
    fit(lab)?.observations.fitted.as_ref().ok_or_else(old)
}

fn ranges(extent: &Extent) -> String {
    let [least, most] = extent.tokens_per_param;
    let ([cheapest, dearest], [best, worst]) = (extent.flops, extent.loss);
    format!(
        "{}: N {} ({} values), D {} ({} values), D/N {} to {}, {} to {} FLOPs, losses {} to {}.",
        many(extent.runs, "run"),
        counts(extent.params),
        extent.sizes,
        counts(extent.tokens),
        extent.budgets,
        digits(least),
        digits(most),
        power(cheapest),
        power(dearest),
        digits(best),
        digits(worst)
    )
}

fn independence(extent: &Extent) -> String {
    if extent.clusters == extent.runs {
        return format!("Each of the {} is taken as independent of the others.", many(extent.runs, "run"));
    }
    format!(
        "Not all: {} share the beginning of their training in {}, and what is resampled is the group.",
        many(extent.runs, "run"),
        many(extent.clusters, "group")
    )
}

/// Tokenizers, schedules, arms: what the fit found between groups that it can tell apart.
fn kinds(lab: &Lab) -> Answer {
    let diagnosis = fit(lab)?.diagnosis.as_ref().ok_or("the fit was not checked for it")?;
    let mixing = diagnosis.mixing.as_ref().ok_or("nothing in the runs tells groups apart")?;
    let found = mixing.labels.iter().filter(|label| label.found()).map(|label| plain(&label.label));
    let found: Vec<String> = found.collect();
    let mut said: Vec<String> = sentences(mixing).iter().map(|sentence| plain(sentence)).collect();
    if !found.is_empty() {
        said.insert(0, format!("yes, by {}: see the warnings of the fit", found.join(", ")));
    }
    Ok(format!("{}.", said.join("; ")))
}

fn left_out(lab: &Lab) -> Answer {
    let fit = fit(lab)?;
    let mut said: Vec<String> = reasons(&fit.observations.excluded);
    let open = lab.runs.iter().filter(|run| run.outcome.is_none()).count();
    if open > 0 {
        said.push(format!("{} without an outcome", many(open, "run")));
    }
    if let Some(tuning) = &fit.tuning {
        said.push(format!("{} that were not the best of their cell", many(tuning.tried - tuning.kept.len(), "run")));
    }
    if let Some(extent) = &fit.observations.fitted
        && fit.observations.count > extent.runs
    {
        let beside = many(fit.observations.count - extent.runs, "run");
        said.push(format!("{beside} of other arms than {}, which stand beside the law", plain(&fit.arms.join(", "))));
    }
    Ok(if said.is_empty() { "None.".to_owned() } else { format!("{}.", said.join("; ")) })
}

/// Runs by the reason why they are not in the fit.
fn reasons(excluded: &[isoloss_fit::Exclusion]) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in excluded {
        by_reason.entry(&one.reason).or_default().push(&one.id);
    }
    let more = by_reason.len().saturating_sub(REASONS_SHOWN);
    let line = |(reason, ids): (&str, Vec<&str>)| {
        let shown: Vec<String> =
            ids.iter().take(IDS_SHOWN).map(|id| plain(&id.chars().take(12).collect::<String>())).collect();
        let rest = if ids.len() > IDS_SHOWN { ", ..." } else { "" };
        format!("{} ({}{rest}): {}", many(ids.len(), "run"), shown.join(", "), plain(reason))
    };
    let mut lines: Vec<String> = by_reason.into_iter().take(REASONS_SHOWN).map(line).collect();
    if more > 0 {
        lines.push(format!("{} more in `fit.json`", many(more, "reason")));
    }
    lines
}
