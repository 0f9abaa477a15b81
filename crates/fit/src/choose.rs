//! Which law to use when the caller leaves it open, with the reasons. It compares; it does not fit.
//!
//! The additive law is the reference. It is left for the tied one when the runs do not identify it, and for one with a
//! joint link only when there are runs enough and both the likelihood and the rolling hold-out say so.

use crate::record::{HoldoutRecord, LawRecord};

/// Below this many runs, four for each of its six parameters, the joint link follows the noise.
const RUNS_FOR_JOINT: usize = 24;
/// Burnham and Anderson: a model this much worse in AIC has essentially no support.
const AICC_CLEAR: f64 = 10.0;
/// A rolling error must be this much smaller to count as better.
const ERROR_CLEAR: f64 = 0.95;
/// Laws within this much of the best AICc, or better in hold-out, take part in the spread.
const AICC_PLAUSIBLE: f64 = 6.0;

/// The name of the chosen law and why.
pub(crate) fn choose(laws: &[LawRecord], runs: usize) -> (Option<String>, Vec<String>) {
    let find = |name: &str| laws.iter().find(|law| law.name == name);
    let Some(mut chosen) = find("additive").or(laws.first()) else {
        return (None, Vec::new());
    };
    let mut reasons = vec![format!("{} is the reference form", chosen.name)];
    for rival in laws.iter().filter(|law| law.parameters.contains_key("q")) {
        match better(rival, chosen, runs) {
            Ok(reason) => {
                reasons.push(reason);
                chosen = rival;
            }
            Err(reason) => reasons.push(reason),
        }
    }
    if !chosen.identified
        && let Some(simple) = find("tied").filter(|law| law.identified)
    {
        reasons.push(format!("{} is not identified by these {runs} runs, tied is", chosen.name));
        chosen = simple;
    }
    (Some(chosen.name.clone()), reasons)
}

/// Whether `rival` should replace `chosen`, in words either way.
fn better(rival: &LawRecord, chosen: &LawRecord, runs: usize) -> Result<String, String> {
    let name = &rival.name;
    if runs < RUNS_FOR_JOINT {
        return Err(format!("{name} is not considered with {runs} runs (at least {RUNS_FOR_JOINT})"));
    }
    let (Some(gain), Some((theirs, ours))) = (gain(rival, chosen), errors(rival, chosen)) else {
        return Err(format!("{name} cannot be compared with so few runs"));
    };
    let compared = format!(
        "{name} against {}: AICc {gain:+.1} better, rolling error {:.2} % against {:.2} %",
        chosen.name,
        100.0 * theirs,
        100.0 * ours
    );
    if gain > AICC_CLEAR && theirs < ERROR_CLEAR * ours && rival.identified {
        Ok(compared)
    } else {
        Err(format!("{compared}: not enough to leave {}", chosen.name))
    }
}

fn gain(rival: &LawRecord, chosen: &LawRecord) -> Option<f64> {
    Some(chosen.aicc? - rival.aicc?)
}

fn errors(rival: &LawRecord, chosen: &LawRecord) -> Option<(f64, f64)> {
    let of = |law: &LawRecord| law.rolling.as_ref().map(|rolling: &HoldoutRecord| rolling.mean_relative_error);
    Some((of(rival)?, of(chosen)?))
}

/// Laws beside `chosen` that the data do not rule out: what they say widens its intervals.
pub(crate) fn plausible<'l>(laws: &'l [LawRecord], chosen: &str) -> Vec<&'l LawRecord> {
    let best = laws.iter().filter_map(|law| law.aicc).fold(f64::INFINITY, f64::min);
    let stands = |law: &&LawRecord| {
        law.name != chosen && law.identified && law.aicc.is_some_and(|aicc| aicc - best <= AICC_PLAUSIBLE)
    };
    laws.iter().filter(stands).collect()
}
