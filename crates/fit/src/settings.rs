//! What a caller may choose about a fit. Defaults are what the literature uses; nothing here is data-dependent.

use std::fmt;
use std::str::FromStr;

use isoloss_sweep::HyperParameter;

use crate::asked::Asked;
use crate::law::Laws;
use crate::observation::Observation;

/// Fewer resamples than this have no ends to read an interval of 95 % from.
pub const RESAMPLES_MIN: usize = 40;

/// Choices of a fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub laws: Laws,
    /// Level of every interval.
    pub level: f64,
    /// Bootstrap resamples of the chosen law; the others get a quarter.
    pub resamples: usize,
    pub seed: u64,
    /// Threshold of the Huber loss on residuals of ln loss (1e-3 in Hoffmann et al. 2203.15556).
    pub huber_delta: f64,
    pub holdout: Holdout,
    /// Models and budgets for which a loss is wanted.
    pub predict: Vec<Asked>,
    /// FLOPs to allocate; without it the largest observed.
    pub budget: Option<f64>,
    /// Tokens that the model will read or write when it is used, paid from the same budget.
    pub serve_tokens: Option<f64>,
    /// Largest params that memory allows.
    pub params_max: Option<f64>,
    /// Hyper-parameters of which only the best value of each arm, size and budget is fitted.
    pub best_of: Vec<HyperParameter>,
    /// Entropy of the text in the unit of the losses, where it is known.
    pub entropy: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            laws: Laws::Auto,
            level: 0.95,
            resamples: 1000,
            seed: 1,
            huber_delta: 1e-3,
            holdout: Holdout { fraction: 0.2, by: Axis::Flops },
            predict: Vec::new(),
            budget: None,
            serve_tokens: None,
            params_max: None,
            best_of: Vec::new(),
            entropy: None,
        }
    }
}

/// Which runs are kept from the fit to test it: `largest 20% by flops`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Holdout {
    fraction: f64,
    by: Axis,
}

/// What "large" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    Flops,
    Params,
    Tokens,
}

/// The rule could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected \"largest P% by flops\" (or params, tokens) with P between 1 and 50, got {0:?}")]
pub struct NotAHoldout(String);

impl Holdout {
    /// How many of `count` runs are held out: at least one.
    pub fn runs(self, count: usize) -> usize {
        ((count as f64 * self.fraction).round() as usize).max(1)
    }

    pub(crate) fn size(self, row: &Observation) -> f64 {
        match self.by {
            Axis::Flops => row.flops,
            Axis::Params => row.params,
            Axis::Tokens => row.tokens,
        }
    }
}

impl FromStr for Holdout {
    type Err = NotAHoldout;

    fn from_str(text: &str) -> Result<Self, NotAHoldout> {
        let not = || NotAHoldout(text.to_owned());
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["largest", percent, "by", axis] = words[..] else {
            return Err(not());
        };
        let percent: f64 = percent.strip_suffix('%').and_then(|p| p.parse().ok()).ok_or_else(not)?;
        let by = match axis {
            "flops" => Axis::Flops,
            "params" => Axis::Params,
            "tokens" => Axis::Tokens,
            _ => return Err(not()),
        };
        if !(1.0..=50.0).contains(&percent) {
            return Err(not());
        }
        Ok(Self { fraction: percent / 100.0, by })
    }
}

impl fmt::Display for Holdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            Axis::Flops => "flops",
            Axis::Params => "params",
            Axis::Tokens => "tokens",
        };
        write!(f, "largest {}% by {by}", self.fraction * 100.0)
    }
}

/// How far a fit is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub law: &'static str,
    /// Resamples done of the total of this law.
    pub done: usize,
    pub total: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holdout_rule_reads_and_writes() {
        let rule: Holdout = "largest 20% by flops".parse().unwrap();
        assert_eq!(rule, Settings::default().holdout);
        assert_eq!(rule.to_string(), "largest 20% by flops");
        assert_eq!((rule.runs(12), rule.runs(3)), (2, 1));
        for wrong in ["largest", "largest 20 by flops", "largest 80% by flops", "largest 20% by size"] {
            assert!(wrong.parse::<Holdout>().is_err(), "{wrong}");
        }
    }
}
