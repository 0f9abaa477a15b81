//! The checks of the chosen law as lines: what older methods find in the same runs, which runs carry it, and what is held
//! against it.

use std::fmt::Write as _;

use isoloss_fit::diagnosis::DiagnosisRecord;
use isoloss_fit::influence::InfluenceRecord;
use isoloss_fit::isoflop::{IsoflopRecord, Minimum};
use isoloss_fit::line::Exponent;
use isoloss_fit::replicates::{Floor, ReplicatesRecord};
use isoloss_fit::{FitRecord, LawRecord};
use isoloss_sweep::count::si;

use crate::table::digits;

pub(crate) fn lines(out: &mut String, fit: &FitRecord, law: &LawRecord) {
    let Some(diagnosis) = &fit.diagnosis else { return };
    let _ = writeln!(out, "  checks");
    for sentence in sentences(diagnosis, fit, law) {
        let _ = writeln!(out, "    {sentence}");
    }
    for warning in &diagnosis.warnings {
        let _ = writeln!(out, "    look: {warning}");
    }
}

/// One sentence for each check that was made, and for the known bias of those that have one.
pub(crate) fn sentences(diagnosis: &DiagnosisRecord, fit: &FitRecord, law: &LawRecord) -> Vec<String> {
    // On a law that is not pinned down no method's bias can be seen.
    let a = fit.allocation.as_ref().filter(|_| law.identified).map(|at| at.a);
    let influence = diagnosis.influence.as_ref().filter(|_| law.identified);
    let mut sentences = Vec::new();
    if let Some(record) = &diagnosis.isoflop {
        sentences.extend(isoflop(record, a));
    }
    if let Some(record) = &diagnosis.envelope {
        let runs = record.runs.len();
        sentences.push(format!("approach 1, envelope of {runs} runs: N* ~ {}", power(&record.a)));
        sentences.push(bias(record.a_on_law, a, "", &record.bias));
    }
    sentences.extend(influence.and_then(left_out));
    sentences.extend(influence.and_then(dropped));
    sentences.extend(diagnosis.replicates.as_ref().map(replicates));
    sentences.extend(diagnosis.mixing.iter().flat_map(isoloss_fit::mixing::sentences));
    let note = &diagnosis.convention.note;
    sentences.extend((!diagnosis.warnings.contains(note)).then(|| note.clone()));
    sentences
}

fn isoflop(record: &IsoflopRecord, a: Option<f64>) -> Vec<String> {
    let voting = record.budgets.iter().filter(|budget| budget.minimum == Minimum::Inside).count();
    let budgets = format!("approach 2, isoFLOP parabolas, {voting} of {} budgets vote", record.budgets.len());
    let Some(own) = &record.a else {
        return vec![format!("{budgets}: too few for an exponent")];
    };
    let tokens = record.b.as_ref().map(|b| format!(", D* ~ {}", power(b))).unwrap_or_default();
    let off = record.params_on_law.map(|ratio| format!(", N* {:+.1} % off", 100.0 * (ratio - 1.0)));
    let value = format!("{budgets}: N* ~ {}{tokens}", power(own));
    vec![value, bias(record.a_on_law, a, off.as_deref().unwrap_or_default(), &record.bias)]
}

fn power(a: &Exponent) -> String {
    format!("C^{:.3} [{:.3}, {:.3}]", a.value, a.interval[0], a.interval[1])
}

/// What the method finds where the truth is known, on the law's own losses, and why.
fn bias(on_law: Option<f64>, a: Option<f64>, more: &str, why: &str) -> String {
    match on_law.zip(a) {
        Some((found, a)) => {
            format!("  its bias here: C^{found:.3} on losses of the law, which has C^{a:.3}{more}; {why}")
        }
        None => format!("  its bias: {why}"),
    }
}

fn left_out(influence: &InfluenceRecord) -> Option<String> {
    let (worst, all) = (influence.worst.first()?, influence.all);
    let e = format!("E {:+.4}", worst.irreducible_change);
    let moved = match worst.tokens_per_param_ratio.zip(all.tokens_per_param) {
        Some((ratio, with)) => {
            format!("tokens per param {} to {}, a {:+.3}, {e}", si(with), si(with * ratio), worst.a_change?)
        }
        None => e,
    };
    Some(format!("without run {}, which moves the law most: {moved}", worst.name()))
}

fn dropped(influence: &InfluenceRecord) -> Option<String> {
    let last = influence.dropped.last()?;
    let split = last.law.tokens_per_param.zip(last.law.a);
    let split = split.map(|(ratio, a)| format!("tokens per param {}, a {a:.3}, ", si(ratio))).unwrap_or_default();
    Some(format!("without the {} cheapest runs: {split}E {}", last.runs, digits(last.law.irreducible)))
}

fn replicates(record: &ReplicatesRecord) -> String {
    let range = record.noise_interval.map(|[low, high]| format!(" [{:.3}, {:.3}]", 100.0 * low, 100.0 * high));
    let verdict = match record.verdict {
        Floor::AtNoise => "no more than noise",
        Floor::Misfit => "misfit",
        Floor::Open => "too few replicates to tell misfit from noise",
    };
    format!(
        "noise of a run {:.3}{} % by {} runs of {} settings, error of the law {:.3} %: {verdict}",
        100.0 * record.noise,
        range.unwrap_or_default(),
        record.runs,
        record.settings,
        100.0 * record.law_error
    )
}
