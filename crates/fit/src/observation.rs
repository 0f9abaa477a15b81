//! What a fit sees: one point a run, in a fixed order and with a digest. It does not know how runs are stored.

use std::collections::BTreeMap;

use isoloss_sweep::outcome::Finished;
use isoloss_sweep::{Digest, HyperParameter, Run, Tokens};
use serde::{Deserialize, Serialize};

/// One point given to a fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    pub id: String,
    pub arm: String,
    /// Points of one cluster (a trunk) are not independent and are resampled together.
    pub cluster: String,
    /// The size axis of the law, by the convention of the set.
    pub params: f64,
    /// Params used for one token, by the same convention; equal to `params_total` for dense models.
    pub params_active: f64,
    pub params_total: f64,
    pub tokens: f64,
    pub flops: f64,
    pub loss: f64,
    /// Standard error of the loss, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_se: Option<f64>,
    /// Mixture of experts only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// How many times finer than the dense feed-forward an expert is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granularity: Option<f64>,
    /// Distinct tokens, where some were seen more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_unique: Option<f64>,
    /// Hyper-parameters that a sweep may have tuned, where they are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hyper: BTreeMap<HyperParameter, f64>,
    /// What the law does not read but may not be mixed in one fit, by name: tokenizer, cooled or not, any group.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The unit in which a finished run's loss is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossUnit {
    NatsPerToken,
    /// Comparable between tokenizers.
    BitsPerByte,
}

/// A run that was kept from the fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    pub id: String,
    pub reason: String,
}

/// The observations of a fit, sorted, valid, with what was left out and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Observations {
    rows: Vec<Observation>,
    excluded: Vec<Exclusion>,
    /// Runs that were tried and ended nowhere: their loss is infinite.
    diverged: Vec<Observation>,
    convention: String,
}

impl Observation {
    /// Stands for a size or a number of tokens that a table does not say and no law asked for reads.
    pub const UNSAID: f64 = 1.0;

    /// A dense point with FLOPs by 6ND, its own cluster.
    pub fn dense(id: impl Into<String>, params: f64, tokens: f64, loss: f64) -> Self {
        let id = id.into();
        Self {
            arm: "dense".to_owned(),
            cluster: id.clone(),
            id,
            params,
            params_active: params,
            params_total: params,
            tokens,
            flops: 6.0 * params * tokens,
            loss,
            loss_se: None,
            experts: None,
            top_k: None,
            granularity: None,
            tokens_unique: None,
            hyper: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    /// A finished run: params without embeddings, active ones on the size axis, trunks as clusters.
    pub fn of_run(arm: impl Into<String>, run: &Run, finished: &Finished, unit: LossUnit) -> Self {
        let id = run.id().to_string();
        let active = finished.params.active_non_embedding.as_f64();
        let experts = run.model.experts.as_ref();
        Self {
            arm: arm.into(),
            cluster: run.trunk_id().map_or_else(|| id.clone(), |trunk| trunk.to_string()),
            id,
            params: active,
            params_active: active,
            params_total: finished.params.non_embedding.as_f64(),
            tokens: finished.tokens.as_f64(),
            flops: finished.flops.get(),
            loss: match unit {
                LossUnit::NatsPerToken => finished.score.loss_nats,
                LossUnit::BitsPerByte => finished.score.bits_per_byte,
            },
            loss_se: None,
            experts: experts.map(|e| e.count),
            top_k: experts.map(|e| e.top_k),
            granularity: None,
            tokens_unique: Some(finished.tokens_unique.as_f64()).filter(|unique| *unique < finished.tokens.as_f64()),
            hyper: hyper(run),
            labels: BTreeMap::new(),
        }
    }

    /// A run that diverged: where it stands, with an infinite loss.
    pub fn of_diverged(arm: impl Into<String>, run: &Run) -> Self {
        Self { loss: f64::INFINITY, ..Self::of_plan(arm, run) }
    }

    /// A run that has not been made: its loss is not a number.
    pub fn of_plan(arm: impl Into<String>, run: &Run) -> Self {
        let (counts, id) = (run.model.param_counts(), run.id().to_string());
        let experts = run.model.experts.as_ref();
        let tokens = run.tokens().as_f64();
        Self {
            arm: arm.into(),
            cluster: run.trunk_id().map_or_else(|| id.clone(), |trunk| trunk.to_string()),
            tokens_unique: run.data.tokens_unique.map(Tokens::as_f64).filter(|unique| *unique < tokens),
            params_active: counts.active_non_embedding.as_f64(),
            params_total: counts.non_embedding.as_f64(),
            flops: run.flops().get(),
            experts: experts.map(|e| e.count),
            top_k: experts.map(|e| e.top_k),
            hyper: hyper(run),
            ..Self::dense(id, counts.active_non_embedding.as_f64(), tokens, f64::NAN)
        }
    }

    /// Whether every weight is used for every token.
    pub fn is_dense(&self) -> bool {
        self.experts.is_none_or(|experts| experts <= 1)
    }

    /// Why the point cannot be fitted, if it cannot.
    pub(crate) fn flaw(&self) -> Option<String> {
        let counts = [
            ("params", self.params),
            ("params_active", self.params_active),
            ("params_total", self.params_total),
            ("tokens", self.tokens),
            ("flops", self.flops),
            ("loss", self.loss),
        ];
        let bad = counts.iter().find(|(_, value)| !(value.is_finite() && *value > 0.0))?;
        Some(format!("expected a positive finite {}, got {}", bad.0, bad.1))
    }

    /// Order that depends on the values alone, so that sums do not depend on the order of the input.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |o: &Self| [o.params, o.tokens, o.loss, o.flops, o.params_total];
        let pairs = key(self).into_iter().zip(key(other));
        let by_value = pairs.map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne());
        by_value.unwrap_or_else(|| (&self.arm, &self.id).cmp(&(&other.arm, &other.id)))
    }
}

fn hyper(run: &Run) -> BTreeMap<HyperParameter, f64> {
    HyperParameter::ALL.into_iter().map(|parameter| (parameter, parameter.of(&run.train))).collect()
}

impl Observations {
    /// Sorts the rows and keeps out, with a reason, those that cannot be fitted. `convention` says what `params` counts.
    pub fn new(rows: Vec<Observation>, excluded: Vec<Exclusion>, convention: impl Into<String>) -> Self {
        let mut set = Self {
            rows: Vec::with_capacity(rows.len()),
            excluded,
            diverged: Vec::new(),
            convention: convention.into(),
        };
        for row in rows {
            if row.loss == f64::INFINITY {
                set.diverged.push(row);
                continue;
            }
            match row.flaw() {
                None => set.rows.push(row),
                Some(reason) => set.excluded.push(Exclusion { id: row.id, reason }),
            }
        }
        set.rows.sort_by(Observation::order);
        set.excluded.sort_by(|a, b| (&a.id, &a.reason).cmp(&(&b.id, &b.reason)));
        set
    }

    pub fn rows(&self) -> &[Observation] {
        &self.rows
    }

    /// Runs with an infinite loss: no observations, but values that tuning has tried.
    pub fn diverged(&self) -> &[Observation] {
        &self.diverged
    }

    pub fn excluded(&self) -> &[Exclusion] {
        &self.excluded
    }

    /// What `params` counts, for example `params_active_non_embedding`.
    pub fn convention(&self) -> &str {
        &self.convention
    }

    /// Digest of the rows and their convention: equal digests, equal fits.
    pub fn digest(&self) -> Digest {
        Digest::of_json(&(&self.convention, &self.rows))
    }

    /// Whether any row says its value of a hyper-parameter.
    pub fn knows(&self, parameter: HyperParameter) -> bool {
        self.rows.iter().any(|row| row.hyper.contains_key(&parameter))
    }

    /// The rows that pass `keep`, in order.
    pub fn subset(&self, keep: impl Fn(&Observation) -> bool) -> Self {
        Self {
            rows: self.rows.iter().filter(|row| keep(row)).cloned().collect(),
            excluded: Vec::new(),
            diverged: self.diverged.iter().filter(|row| keep(row)).cloned().collect(),
            convention: self.convention.clone(),
        }
    }

    pub(crate) fn set_excluded(&mut self, excluded: Vec<Exclusion>) {
        self.excluded = excluded;
    }

    /// Names of the arms, sorted.
    pub fn arms(&self) -> Vec<&str> {
        let mut arms: Vec<&str> = self.rows.iter().map(|row| row.arm.as_str()).collect();
        arms.sort_unstable();
        arms.dedup();
        arms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_input_does_not_reach_the_digest_and_flaws_are_named() {
        let a = Observation::dense("a", 1e6, 1e8, 3.0);
        let b = Observation::dense("b", 2e6, 1e8, 2.9);
        let bad = Observation::dense("c", 2e6, 1e8, f64::NAN);
        let one = Observations::new(vec![a.clone(), b.clone(), bad], vec![], "params");
        let two = Observations::new(vec![b, a], vec![], "params");
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one.excluded()[0].reason, "expected a positive finite loss, got NaN");
    }
}
