//! What a report is made from: the runs of one sweep, what is known of their text, and the fit. Plain data, filled by
//! whoever has it; it reads no store and computes no law.

use isoloss_fit::{FitRecord, LossUnit, ScalingLaw};
use isoloss_sweep::outcome::{CurvePoint, Finished, GpuUse, Score};
use isoloss_sweep::{Flops, Manifest, Outcome, ParamCounts, Run, RunId, Tokens};
use serde::{Deserialize, Serialize};

use crate::point::{Point, differences};

/// Version of [`Lab`] as JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// One sweep, as far as it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lab {
    pub schema_version: u32,
    /// Name of the sweep.
    pub name: String,
    pub sweep_id: Option<String>,
    /// When the report was asked for, RFC 3339 UTC; reports without it are equal for equal results.
    pub made_at: Option<String>,
    /// Version of the code that made the report.
    pub code_version: String,
    /// Unit of the loss that was fitted and is drawn.
    pub unit: LossUnit,
    /// In the order of the sweep file.
    pub arms: Vec<String>,
    pub runs: Vec<LabRun>,
    /// Usually one; the first one's codecs and truth are drawn.
    pub manifests: Vec<Manifest>,
    pub fit: Option<FitRecord>,
    /// Of a fit of a table: what `--map` said of its columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<String>,
    /// Why there is no fit.
    pub fit_refusal: Option<String>,
}

/// A run and how it ended, if it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabRun {
    pub run_id: RunId,
    pub arm: String,
    /// `pending`, `leased`, ... as `status --json` has it.
    pub state: String,
    pub attempts: Option<u64>,
    /// Axis name to value, as on the grid; empty where nobody knows.
    #[serde(default)]
    pub point: Point,
    pub run: Run,
    pub outcome: Option<Outcome>,
}

impl LabRun {
    /// A run whose state follows from its outcome.
    pub fn new(arm: impl Into<String>, run: Run, outcome: Option<Outcome>) -> Self {
        let state = match &outcome {
            None => "pending",
            Some(Outcome::Finished(_)) => "finished",
            Some(Outcome::Diverged(_)) => "diverged",
            Some(Outcome::Failed(_)) => "failed",
        };
        Self {
            run_id: run.id(),
            arm: arm.into(),
            state: state.to_owned(),
            attempts: None,
            point: Point::new(),
            run,
            outcome,
        }
    }

    pub fn finished(&self) -> Option<&Finished> {
        match &self.outcome {
            Some(Outcome::Finished(finished)) => Some(finished),
            Some(Outcome::Diverged(_) | Outcome::Failed(_)) | None => None,
        }
    }

    pub fn score(&self) -> Option<&Score> {
        self.finished().map(|finished| &finished.score)
    }

    /// The training curve, of a diverged run too.
    pub fn curve(&self) -> &[CurvePoint] {
        match &self.outcome {
            Some(Outcome::Finished(finished)) => &finished.curve,
            Some(Outcome::Diverged(diverged)) => &diverged.curve,
            Some(Outcome::Failed(_)) | None => &[],
        }
    }

    /// What it had of a GPU; nothing for runs on cores.
    pub fn gpu(&self) -> Option<&GpuUse> {
        match &self.outcome {
            Some(Outcome::Finished(finished)) => finished.gpu.as_ref(),
            Some(Outcome::Diverged(diverged)) => diverged.gpu.as_ref(),
            Some(Outcome::Failed(_)) | None => None,
        }
    }

    /// Where a finished run was trained, for people: the GPU, or the slot of cores.
    pub fn device(&self) -> Option<String> {
        let finished = self.finished()?;
        Some(finished.gpu.as_ref().map_or_else(|| finished.provenance.device.clone(), GpuUse::words))
    }

    /// Why it diverged or failed.
    pub fn reason(&self) -> Option<&str> {
        match &self.outcome {
            Some(Outcome::Diverged(diverged)) => Some(&diverged.reason),
            Some(Outcome::Failed(failed)) => Some(&failed.reason),
            Some(Outcome::Finished(_)) | None => None,
        }
    }

    pub fn params(&self) -> ParamCounts {
        self.run.model.param_counts()
    }

    /// The size that stands on axes: active and without embeddings, as the fit has it.
    pub fn size(&self) -> f64 {
        self.params().active_non_embedding.as_f64()
    }

    pub fn tokens(&self) -> Tokens {
        self.run.tokens()
    }

    pub fn flops(&self) -> Flops {
        self.run.flops()
    }

    /// `8x top-2` for a mixture of experts.
    pub fn experts(&self) -> Option<String> {
        let experts = self.run.model.experts.as_ref()?;
        Some(format!("{}\u{d7} top-{}", experts.count, experts.top_k))
    }

    pub fn loss(&self, unit: LossUnit) -> Option<f64> {
        self.score().map(|score| match unit {
            LossUnit::NatsPerToken => score.loss_nats,
            LossUnit::BitsPerByte => score.bits_per_byte,
        })
    }
}

impl Lab {
    /// GPU hours of the runs that have ended, as far as their outcomes tell; none where no outcome does.
    pub fn gpu_hours(&self) -> Option<f64> {
        let seconds = self.runs.iter().filter_map(|run| run.gpu()?.seconds);
        seconds.reduce(|sum, seconds| sum + seconds).map(|seconds| seconds / 3600.0)
    }

    /// Where the runs were trained and what they took of GPUs, a space before each sentence; empty where nothing is known.
    pub(crate) fn trained(&self) -> String {
        let mut devices: Vec<String> = self.runs.iter().filter_map(LabRun::device).collect();
        devices.sort_unstable();
        devices.dedup();
        let mut words = if devices.is_empty() { String::new() } else { format!(" Trained on {}.", devices.join("; ")) };
        if let Some(hours) = self.gpu_hours() {
            words.push_str(&format!(" Runs that ended took {hours:.3} GPU hours."));
        }
        words
    }

    /// Finished runs with their loss, in the order of the plan.
    pub fn scored(&self) -> impl Iterator<Item = (&LabRun, f64)> {
        self.runs.iter().filter_map(|run| run.loss(self.unit).map(|loss| (run, loss)))
    }

    /// What tells each run apart beside size and tokens; all empty where nothing does.
    pub fn differences(&self) -> Vec<String> {
        let points: Vec<(&str, &Point)> = self.runs.iter().map(|run| (run.arm.as_str(), &run.point)).collect();
        differences(&points)
    }

    /// The best finished run among those that `keep` keeps.
    pub fn best(&self, keep: impl Fn(&LabRun) -> bool) -> Option<(&LabRun, f64)> {
        self.scored().filter(|(run, _)| keep(run)).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The chosen law with its numbers.
    pub fn law(&self) -> Option<ScalingLaw> {
        self.fit.as_ref()?.chosen_law()?.scaling_law()
    }

    /// Whether the law was fitted to this arm's runs.
    pub fn fitted(&self, arm: &str) -> bool {
        self.fit.as_ref().is_some_and(|fit| fit.arms.iter().any(|fitted| fitted == arm))
    }

    /// True entropy of exactly the scored bytes in the drawn unit, where the generator knows it.
    pub fn truth(&self) -> Option<f64> {
        let scored = self.runs.iter().filter_map(LabRun::score);
        let of_runs = scored.filter_map(|score| self.in_unit(score.true_bits_per_byte?, score)).next();
        of_runs.or_else(|| {
            let part = &self.manifests.first()?.validation;
            let bits = part.true_bits? / part.bytes as f64;
            (self.unit == LossUnit::BitsPerByte).then_some(bits)
        })
    }

    /// Bits per byte in the drawn unit; nats per token needs the bytes a token of the scored text has.
    fn in_unit(&self, bits_per_byte: f64, score: &Score) -> Option<f64> {
        match self.unit {
            LossUnit::BitsPerByte => Some(bits_per_byte),
            LossUnit::NatsPerToken if score.tokens == 0 => None,
            LossUnit::NatsPerToken => {
                Some(bits_per_byte * std::f64::consts::LN_2 * score.bytes as f64 / score.tokens as f64)
            }
        }
    }

    /// The drawn unit in words.
    pub fn unit_name(&self) -> &'static str {
        match self.unit {
            LossUnit::BitsPerByte => "bits per byte",
            LossUnit::NatsPerToken => "nats per token",
        }
    }

    /// The position of an arm, which decides its shape and colour everywhere.
    pub fn arm_index(&self, arm: &str) -> usize {
        self.arms.iter().position(|known| known == arm).unwrap_or(self.arms.len())
    }
}
