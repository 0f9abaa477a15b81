//! `checklist.md`: what a reader must know to judge a scaling law and to fit it again, question by question, answered from
//! the record and the runs alone. What they do not say stays an open box for people to fill; nothing is guessed. The
//! subjects are those that Li et al. 2502.18969 found missing in most papers.

mod evidence;
mod runs;
mod setup;
mod text;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use isoloss_fit::{FitRecord, LawRecord};

use crate::lab::{Lab, LabRun};
use crate::markdown::plain;
use crate::plot::short_si;
use crate::repeat;

/// What is known, as Markdown, or why it is not.
type Answer = Result<String, String>;

/// A question with its answer.
struct Item {
    question: &'static str,
    answer: Answer,
}

/// Questions of one subject.
struct Group {
    title: &'static str,
    items: Vec<Item>,
}

/// The whole list.
pub fn checklist(lab: &Lab) -> String {
    let groups = [
        setup::claim(lab),
        setup::training(lab),
        text::group(lab),
        runs::group(lab),
        evidence::fitting(lab),
        evidence::uncertainty(lab),
        again(lab),
    ];
    let items = || groups.iter().flat_map(|group| &group.items);
    let (known, all) = (items().filter(|item| item.answer.is_ok()).count(), items().count());
    let mut out = format!(
        "# What the fit of {} rests on\n\n{known} of {all} questions are answered, each from the record of the fit and its \
         runs alone. An open box is what they do not say: it is left to people.\n",
        plain(&lab.name)
    );
    for group in &groups {
        let _ = write!(out, "\n## {}\n\n", group.title);
        for item in &group.items {
            let (mark, text) = match &item.answer {
                Ok(known) => ("x", known.clone()),
                Err(why) => (" ", format!("not known: {}", plain(why))),
            };
            let _ = writeln!(out, "- [{mark}] **{}** {text}", item.question);
        }
    }
    let command = lab.fit.as_ref().and_then(|fit| repeat::command(lab, fit).ok());
    if let Some(command) = command {
        // A fence inside would end the block.
        let _ = write!(out, "\n```sh\n{}\n```\n", command.replace("```", "'").replace(char::is_control, " "));
    }
    out
}

fn again(lab: &Lab) -> Group {
    Group {
        title: "How to do it again",
        items: vec![
            Item { question: "Which code fitted, trained and reported?", answer: code(lab) },
            Item { question: "Exactly which observations went in?", answer: fit(lab).map(observations) },
            Item {
                question: "Does the table of runs give these observations again?",
                answer: fit(lab).and_then(|fit| repeat::same_observations(lab, fit)),
            },
            Item { question: "Which command repeats the fit?", answer: fit(lab).and_then(|fit| repeated(lab, fit)) },
        ],
    }
}

fn code(lab: &Lab) -> Answer {
    let fit = fit(lab)?;
    let trained = distinct(finished(lab).filter_map(|run| Some(run.finished()?.provenance.code_version.clone())));
    let trained = match trained.as_slice() {
        [] => "of training it is not told".to_owned(),
        versions => format!("trained by isoloss {}", plain(&versions.join(", "))),
    };
    let (fitted, made) = (plain(&fit.settings.code_version), plain(&lab.code_version));
    Ok(format!(
        "Fitted by isoloss {fitted}, {trained}, reported by isoloss {made}; record version {}.",
        fit.schema_version
    ))
}

fn observations(fit: &FitRecord) -> String {
    let (count, digest) = (fit.observations.count, fit.observations.digest);
    format!(
        "{count}, with the digest `{digest}`: equal digests and settings give equal laws. The ids of those behind the law stand \
         beside its residuals in the record."
    )
}

fn repeated(lab: &Lab, fit: &FitRecord) -> Answer {
    repeat::command(lab, fit)?;
    let reads = if lab.runs.is_empty() { "the table" } else { "`runs.csv` of this folder" };
    Ok(format!(
        "The one below, on {reads} with the same code and platform. The digest, laws, intervals and predictions are equal to \
         the last bit; reasons of excluded runs may be worded by the line of the table."
    ))
}

/// The fit, or why there is none.
fn fit(lab: &Lab) -> Result<&FitRecord, String> {
    lab.fit.as_ref().ok_or_else(|| lab.fit_refusal.clone().unwrap_or_else(|| "no fit has been made".to_owned()))
}

/// The chosen law, or why there is none.
fn law(lab: &Lab) -> Result<(&FitRecord, &LawRecord), String> {
    let fit = fit(lab)?;
    let law = fit.chosen_law().ok_or_else(|| format!("no law could be fitted; {}", fit.reasons.join("; ")))?;
    Ok((fit, law))
}

/// Finished runs, but not those that tuning passed over.
fn finished(lab: &Lab) -> impl Iterator<Item = &LabRun> {
    let tuning = lab.fit.as_ref().and_then(|fit| fit.tuning.as_ref());
    let kept = tuning.map(|tuning| tuning.kept.iter().map(String::as_str).collect::<BTreeSet<&str>>());
    let passed = move |run: &LabRun| kept.as_ref().is_none_or(|kept| kept.contains(run.run_id.to_string().as_str()));
    lab.runs.iter().filter(move |run| run.finished().is_some() && passed(run))
}

/// All finished runs, or why none can be asked.
fn told(lab: &Lab) -> Result<Vec<&LabRun>, String> {
    let runs: Vec<&LabRun> = finished(lab).collect();
    match (lab.runs.is_empty(), runs.is_empty()) {
        (true, _) => Err("a table of runs does not say".to_owned()),
        (false, true) => Err("no run has finished".to_owned()),
        (false, false) => Ok(runs),
    }
}

/// Different texts in order.
fn distinct(texts: impl Iterator<Item = String>) -> Vec<String> {
    texts.collect::<BTreeSet<String>>().into_iter().collect()
}

/// `3.00M`, or `1.00M to 3.00M (4 values)`.
fn spread(values: impl Iterator<Item = f64>, word: impl Fn(f64) -> String) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    match values.as_slice() {
        [] => "none".to_owned(),
        [one] => word(*one),
        [first, .., last] => format!("{} to {} ({} values)", word(*first), word(*last), values.len()),
    }
}

/// Counts as people read them.
fn counts([low, high]: [f64; 2]) -> String {
    if low == high { short_si(low) } else { format!("{} to {}", short_si(low), short_si(high)) }
}

/// `1 run`, `2 runs`.
fn many(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
