//! What a fit hands to programs: `fit --json`, stored and served. Plain data with a version; it computes nothing but
//! the law it holds.

use std::collections::BTreeMap;

use isoloss_sweep::{Digest, HyperParameter};
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::asked::Asked;
use crate::diagnosis::DiagnosisRecord;
use crate::draws::DrawsRecord;
use crate::experts::AgainstDense;
use crate::extent::Extent;
use crate::law::law;
use crate::observation::Exclusion;
use crate::scaling::ScalingLaw;
use crate::settings::Settings;
use crate::trade::TradeRecord;
use crate::tuning::TuningRecord;

/// Version of the record.
pub const SCHEMA_VERSION: u32 = 1;

/// A whole fit. Equal observations and settings give equal records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitRecord {
    pub schema_version: u32,
    pub observations: ObservationsRecord,
    /// The arms whose runs the laws were fitted to.
    pub arms: Vec<String>,
    /// Name of the law to use; none where nothing could be fitted.
    pub chosen: Option<String>,
    /// Why that one.
    pub reasons: Vec<String>,
    pub laws: Vec<LawRecord>,
    /// Laws that could not be fitted, with the reason.
    pub refused: Vec<Refusal>,
    pub predictions: Vec<Prediction>,
    pub allocation: Option<AllocationRecord>,
    /// What a budget buys by a law of more than params and tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trade: Option<TradeRecord>,
    /// Mixture-of-experts arms against the dense law.
    pub experts: Vec<ExpertsRecord>,
    /// What was chosen among the hyper-parameters that the sweep tried; the laws see the chosen runs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<TuningRecord>,
    /// Checks of the chosen law; of laws of params and tokens alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<DiagnosisRecord>,
    /// Refits of the chosen law to resamples; of laws of params and tokens alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draws: Option<DrawsRecord>,
    pub settings: SettingsRecord,
}

/// What went in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservationsRecord {
    pub count: usize,
    pub digest: Digest,
    /// What the size axis counts.
    pub params_convention: String,
    /// How far the runs reach that the laws were fitted to; absent in records of versions that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fitted: Option<Extent>,
    pub excluded: Vec<Exclusion>,
}

/// How it was fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsRecord {
    pub huber_delta: f64,
    pub seed: u64,
    pub resamples: usize,
    pub code_version: String,
    /// Absent in records of versions that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<QuestionRecord>,
}

/// What was asked of the fit beside its numerics: with the numbers above, all that decides a record beside the
/// observations and the points of its predictions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuestionRecord {
    /// A law's name, or `auto`.
    pub laws: String,
    pub level: f64,
    pub holdout: String,
    /// FLOPs to allocate, where others than the largest observed were meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve_tokens: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params_max: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub best_of: Vec<HyperParameter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
}

/// One fitted law.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LawRecord {
    pub name: String,
    pub formula: String,
    pub reference: String,
    pub parameters: BTreeMap<String, f64>,
    /// Of the parameters, and of `a`, the exponent of compute-optimal params.
    pub intervals: Intervals,
    /// Sum of the Huber loss of residuals of ln loss.
    pub objective: f64,
    /// Root mean square of the residuals of ln loss.
    pub rms_relative_error: f64,
    /// Absent where the runs are too few for it.
    pub aicc: Option<f64>,
    pub holdout: Option<HoldoutRecord>,
    /// Expanding windows: fit the cheaper runs, predict the next dearer ones.
    pub rolling: Option<HoldoutRecord>,
    /// What the intervals were stretched by, learned from the errors of the rolling hold-out; 1 for not at all.
    #[serde(default = "one")]
    pub inflation: f64,
    pub identified: bool,
    /// What is wrong and what would mend it, in words.
    pub reasons: Vec<String>,
    pub certificate: Certificate,
    /// ln(observed / fitted) in the order of the sorted observations, by id.
    pub residuals: Vec<Residual>,
}

/// Proof of the optimum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Newton decrement at the optimum, objective over delta squared: what one more step could still gain is half its square.
    pub gradient_norm: f64,
    pub iterations: usize,
    /// Cells of the exponent grid that were all solved.
    pub grid_cells: usize,
    /// Objective of the best other local optimum that was found.
    pub second_basin: Option<f64>,
    /// Parameters that ended on an edge of their range.
    pub boundary: Vec<String>,
    /// Largest over smallest singular value of the Jacobian with columns of unit length.
    pub condition: Option<f64>,
}

/// A residual.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Residual {
    pub id: String,
    pub ln_ratio: f64,
}

/// A law that was not fitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub name: String,
    pub reason: String,
}

/// Error on the largest runs, kept from the fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldoutRecord {
    pub rule: String,
    pub runs: usize,
    /// Mean of |predicted / observed - 1|.
    pub mean_relative_error: f64,
    /// Share of the runs inside the interval of that level.
    pub coverage: BTreeMap<String, f64>,
}

/// Predicted loss at a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    #[serde(flatten)]
    pub at: Asked,
    pub loss: f64,
    pub level: f64,
    #[serde(deserialize_with = "open_ends")]
    pub interval: [f64; 2],
}

/// Compute-optimal params and tokens at a budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllocationRecord {
    pub flops: f64,
    /// FLOPs per param and token that join the budget to the size axis; 6 by the usual convention.
    pub flops_per_param_token: f64,
    pub params: f64,
    pub tokens: f64,
    pub loss: f64,
    pub level: f64,
    #[serde(deserialize_with = "open_ends")]
    pub params_interval: [f64; 2],
    pub tokens_per_param: f64,
    #[serde(deserialize_with = "open_ends")]
    pub tokens_per_param_interval: [f64; 2],
    /// N* ~ C^a.
    pub a: f64,
    #[serde(deserialize_with = "open_ends")]
    pub a_interval: [f64; 2],
    /// D* ~ C^b.
    pub b: f64,
    #[serde(deserialize_with = "open_ends")]
    pub b_interval: [f64; 2],
    /// Sizes that lose little at this budget.
    #[serde(default)]
    pub within: Vec<Within>,
    /// The optimum where the budget pays for using the model too, or memory bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<ServedRecord>,
    /// Why that optimum does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmet: Option<String>,
    pub identified: bool,
    pub reasons: Vec<String>,
}

/// Least and largest params whose loss at the budget is at most `1 + tolerance` times the best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Within {
    pub tolerance: f64,
    #[serde(deserialize_with = "open_ends")]
    pub params: [f64; 2],
}

/// An allocation that counts the tokens a model will be used for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServedRecord {
    pub tokens_served: f64,
    /// What memory allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params_max: Option<f64>,
    pub params: f64,
    pub tokens: f64,
    pub loss: f64,
    /// Of the budget, what training takes.
    pub flops_training: f64,
}

/// One mixture-of-experts arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpertsRecord {
    pub arm: String,
    pub experts: u32,
    pub top_k: u32,
    pub runs: usize,
    /// The additive law with active params on the size axis.
    pub by_active: Option<ExpertsFit>,
    /// The additive law with total params on the size axis.
    pub by_total: Option<ExpertsFit>,
    pub effective: Vec<EffectiveSize>,
    /// The factor on active params under which the dense law fits the whole arm best.
    pub effective_over_active: Option<f64>,
    pub effective_over_active_interval: Option<[f64; 2]>,
    /// What the arm's weights are worth: its losses over those of dense models of equal active and of equal total params.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against_dense: Option<AgainstDense>,
}

/// A fit of one arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpertsFit {
    pub parameters: BTreeMap<String, f64>,
    /// Parameters taken over from the dense law because the arm has too few runs for its own.
    pub shared: Vec<String>,
    pub rms_relative_error: f64,
}

/// The dense model with the same fitted loss at the same tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffectiveSize {
    pub id: String,
    pub params_active: f64,
    pub params_total: f64,
    pub tokens: f64,
    pub loss: f64,
    /// Absent where no dense size reaches the loss.
    pub params_effective: Option<f64>,
    /// The upper end is absent where the dense law's uncertainty leaves it open.
    pub interval: Option<[Option<f64>; 2]>,
}

/// Intervals by name, all at one level: `{"level": 0.95, "E": [lo, hi], ...}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Intervals {
    pub level: f64,
    pub of: BTreeMap<String, [f64; 2]>,
}

impl Intervals {
    pub fn get(&self, name: &str) -> Option<[f64; 2]> {
        self.of.get(name).copied()
    }
}

impl Serialize for Intervals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.of.len() + 1))?;
        map.serialize_entry("level", &self.level)?;
        self.of.iter().try_for_each(|(name, interval)| map.serialize_entry(name, interval))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Intervals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut map = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        let level = map.remove("level").ok_or_else(|| D::Error::missing_field("level"))?;
        let level = serde_json::from_value(level).map_err(D::Error::custom)?;
        let interval = |(name, value)| Ok((name, open_ends(value).map_err(D::Error::custom)?));
        Ok(Self { level, of: map.into_iter().map(interval).collect::<Result<_, _>>()? })
    }
}

/// JSON knows no infinity: an end that is nowhere stands there as null.
fn open_ends<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; 2], D::Error> {
    let [low, high] = <[Option<f64>; 2]>::deserialize(deserializer)?;
    Ok([low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY)])
}

impl LawRecord {
    /// The law with its numbers, to evaluate; `None` for a law this version does not know.
    pub fn scaling_law(&self) -> Option<ScalingLaw> {
        ScalingLaw::new(law(&self.name)?, &self.parameters).ok()
    }
}

impl FitRecord {
    /// The record of the chosen law.
    pub fn chosen_law(&self) -> Option<&LawRecord> {
        let chosen = self.chosen.as_ref()?;
        self.laws.iter().find(|law| law.name == *chosen)
    }

    /// The settings that give this record again from the same observations; `None` where it does not say them all.
    pub fn settings_again(&self) -> Option<Settings> {
        let (kept, question) = (&self.settings, self.settings.question.as_ref()?);
        Some(Settings {
            laws: question.laws.parse().ok()?,
            level: question.level,
            resamples: kept.resamples,
            seed: kept.seed,
            huber_delta: kept.huber_delta,
            holdout: question.holdout.parse().ok()?,
            predict: self.predictions.iter().map(|prediction| prediction.at).collect(),
            budget: question.budget,
            serve_tokens: question.serve_tokens,
            params_max: question.params_max,
            best_of: question.best_of.clone(),
            entropy: question.entropy,
        })
    }
}

fn one() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_without_an_end_is_read_back() {
        let intervals: Intervals = serde_json::from_str(r#"{"level":0.95,"E":[null,2.0],"A":[1.0,null]}"#).unwrap();
        assert_eq!(intervals.get("E"), Some([f64::NEG_INFINITY, 2.0]));
        assert_eq!(intervals.get("A"), Some([1.0, f64::INFINITY]));
    }
}
