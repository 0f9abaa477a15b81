//! What a budget buys, as data: places, kinds and the whole trade. It computes nothing.

use serde::{Deserialize, Serialize};

use crate::asked::Asked;
use crate::record::Within;

/// Active params, tokens and experts of least loss at a budget, by a law of more than params and tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TradeRecord {
    pub flops: f64,
    /// FLOPs per active param and token of training; 6 where the runs do not say their FLOPs. Use costs a third of it.
    pub flops_per_param_token: f64,
    pub level: f64,
    /// Tokens of use, where the budget pays for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_served: Option<f64>,
    /// Total params that memory holds, where it is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params_max: Option<f64>,
    /// What tells kinds apart; none for a law that reads nothing but sizes and tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<Axis>,
    pub total: TotalRecord,
    /// The kinds of model seen in the runs, in the order of the axis. No other is extrapolated to.
    pub kinds: Vec<KindRecord>,
    /// The kind of least loss for the budget alone, by position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<usize>,
    /// The same with use paid and within memory, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_bounded: Option<usize>,
    /// A value between those seen that the law puts below all of them, under the bounds that were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<BetweenRecord>,
    /// Why the bounds cannot be met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmet: Option<String>,
    /// What a reader must know beside the numbers: edges of what was seen, approximations.
    pub notes: Vec<String>,
    pub identified: bool,
    pub reasons: Vec<String>,
}

/// What kinds differ by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    Experts,
    Granularity,
    ActiveShare,
}

/// How total params follow from active ones: `total = active (1 + share (experts / top_k - 1))`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TotalRecord {
    /// Whether the runs gave the share; else it is that of a usual transformer.
    pub from_runs: bool,
    /// One set of active experts over the active params, at the middle of the sizes.
    pub share: f64,
    /// Share ~ active params to this power.
    pub slope: f64,
    /// Root mean square of ln of the relation over the runs' own total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rms_relative_error: Option<f64>,
    pub formula: String,
}

/// One kind of model at the budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindRecord {
    /// On the axis: experts, granularity or active share; 1 where there is none.
    pub value: f64,
    pub runs: usize,
    /// With the budget for training alone; absent where not even one param can be paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<PlaceRecord>,
    /// With use paid from the budget and within memory, where that was asked and can be met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounded: Option<PlaceRecord>,
    /// Share of the resampled laws by which this kind is the best, under the bounds that were asked.
    pub best_share: f64,
}

/// A model and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceRecord {
    pub params_active: f64,
    pub params_total: f64,
    pub tokens: f64,
    pub loss: f64,
    pub flops_training: f64,
    pub params_interval: [f64; 2],
    pub loss_interval: [f64; 2],
    /// Active params that lose little against this place.
    pub within: Vec<Within>,
}

/// A value between those of the runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BetweenRecord {
    pub value: f64,
    pub params_active: f64,
    pub params_total: f64,
    pub tokens: f64,
    pub loss: f64,
}

impl TradeRecord {
    /// The best kind under the bounds that were asked, with its place there.
    pub fn answer(&self) -> Option<(&KindRecord, &PlaceRecord)> {
        if self.bounds() {
            let kind = &self.kinds[self.best_bounded?];
            return Some((kind, kind.bounded.as_ref()?));
        }
        self.free()
    }

    /// The best kind for the budget alone.
    pub fn free(&self) -> Option<(&KindRecord, &PlaceRecord)> {
        let kind = &self.kinds[self.best?];
        Some((kind, kind.alone.as_ref()?))
    }

    /// Whether use is paid or memory is bounded.
    pub fn bounds(&self) -> bool {
        self.tokens_served.is_some() || self.params_max.is_some()
    }

    /// That a model asked about lies beyond the kinds that runs were made of.
    pub fn beyond(&self, asked: &Asked) -> Option<String> {
        let (axis, [first, .., last]) = (self.axis?, self.kinds.as_slice()) else {
            return None;
        };
        let value = axis.value(&asked.row());
        let inside = value >= first.value * (1.0 - 1e-9) && value <= last.value * (1.0 + 1e-9);
        (!inside)
            .then(|| format!("a {} of {value} lies beyond the {} to {} seen", axis.name(), first.value, last.value))
    }
}
