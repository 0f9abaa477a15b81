//! What a fit cannot say of itself: which runs carry it, what older methods find in the same runs, whether the counts
//! are of one convention, and whether its error is noise. It judges the chosen law and changes nothing about it.

use serde::{Deserialize, Serialize};

use crate::convention::{self, ConventionRecord};
use crate::envelope::{self, EnvelopeRecord};
use crate::fitted::Fitted;
use crate::influence::{self, InfluenceRecord};
use crate::isoflop::{self, IsoflopRecord};
use crate::mixing::{self, MixingRecord};
use crate::observation::Observation;
use crate::record::{AllocationRecord, LawRecord};
use crate::replicates::{self, ReplicatesRecord};
use crate::rungs::{self, RungRecord};

/// Checks of the chosen law against its runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiagnosisRecord {
    /// Absent where too few runs are left once one is taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub influence: Option<InfluenceRecord>,
    /// Approach 2 of Hoffmann et al. 2203.15556; absent where no budget was spent on several sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isoflop: Option<IsoflopRecord>,
    /// Approach 1 of the same; absent where too few runs lie on the envelope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<EnvelopeRecord>,
    pub convention: ConventionRecord,
    /// Absent where no run was repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicates: Option<ReplicatesRecord>,
    /// Absent where no label tells the runs apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixing: Option<MixingRecord>,
    /// Sizes all of whose runs lie above the law.
    pub rungs: Vec<RungRecord>,
    /// What these checks hold against the law or the runs, in words; empty where nothing.
    pub warnings: Vec<String>,
}

/// What every check reads.
pub(crate) struct Chosen<'a> {
    pub(crate) fit: &'a Fitted,
    pub(crate) record: &'a LawRecord,
    /// `None` for a law without a trade between params and tokens.
    pub(crate) allocation: Option<&'a AllocationRecord>,
    pub(crate) rows: &'a [Observation],
    pub(crate) level: f64,
}

pub(crate) fn diagnosis(chosen: &Chosen<'_>) -> DiagnosisRecord {
    let influence = influence::influence(chosen);
    let isoflop = isoflop::isoflop(chosen);
    let convention = convention::convention(chosen.rows, isoflop.as_ref());
    let envelope = envelope::envelope(chosen);
    let replicates = replicates::replicates(chosen);
    let rungs = rungs::rungs(chosen);
    let mixing = mixing::mixing(chosen);
    let warnings = [
        mixing.as_ref().map_or_else(Vec::new, mixing::warnings),
        influence.as_ref().map_or_else(Vec::new, |record| influence::warnings(record, chosen)),
        rungs.iter().map(rungs::warning).collect(),
        isoflop.as_ref().map_or_else(Vec::new, |record| isoflop::warnings(record, chosen)),
        convention::warning(&convention).into_iter().collect(),
        replicates.as_ref().and_then(replicates::warning).into_iter().collect(),
        repeats(chosen.rows).into_iter().collect(),
    ];
    DiagnosisRecord { influence, isoflop, envelope, convention, replicates, mixing, rungs, warnings: warnings.concat() }
}

/// A law of params and tokens takes a token seen again for a new one, which holds for a few passes and not for many
/// (Muennighoff et al. 2305.16264).
fn repeats(rows: &[Observation]) -> Option<String> {
    const PASSES: f64 = 1.5;
    let passes = rows.iter().filter_map(|row| Some(row.tokens / row.tokens_unique?)).filter(|passes| *passes > PASSES);
    let (count, most) = passes.fold((0, 0.0_f64), |(count, most), passes| (count + 1, most.max(passes)));
    (count > 0).then(|| {
        format!(
            "{count} of {} runs see their data again, up to {most:.1} times, and the law takes every token for a new one: \
             --law data-constrained tells them apart",
            rows.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_data_under_a_law_of_fresh_tokens_are_told() {
        let mut rows: Vec<Observation> =
            (1..=4).map(|at| Observation::dense(at.to_string(), 1e6, 1e8 * f64::from(at), 3.0)).collect();
        assert_eq!(repeats(&rows), None);
        rows[3].tokens_unique = Some(1e8);
        assert!(repeats(&rows).unwrap().starts_with("1 of 4 runs see their data again, up to 4.0 times"));
        rows[3].tokens_unique = Some(3.5e8);
        assert_eq!(repeats(&rows), None);
    }
}
