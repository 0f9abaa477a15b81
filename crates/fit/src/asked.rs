//! A model and budget that somebody asks about: `params=1e9,tokens=20B,experts=8`. It predicts nothing.

use std::fmt;
use std::str::FromStr;

use isoloss_sweep::spec::parse_number;
use serde::{Deserialize, Serialize};

use crate::law::Laws;
use crate::needs::Needs;
use crate::observation::Observation;

/// What a loss is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// By the convention of the observations.
    pub params: f64,
    pub tokens: f64,
    /// All params of a mixture of experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params_total: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granularity: Option<f64>,
    /// Distinct tokens, where the budget repeats them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_unique: Option<f64>,
}

/// Not a point that can be asked about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected params=NUMBER,tokens=NUMBER, perhaps {more} too, each positive and once, got {got:?}")]
pub struct NotAsked {
    got: String,
    more: String,
}

const MORE: [&str; 5] = ["params_total", "experts", "top_k", "granularity", "tokens_unique"];

impl Asked {
    /// A dense model on data that are not repeated.
    pub fn dense(params: f64, tokens: f64) -> Self {
        Self { params, tokens, params_total: None, experts: None, top_k: None, granularity: None, tokens_unique: None }
    }

    /// As a run without a loss.
    pub fn row(&self) -> Observation {
        let count = |value: Option<f64>| value.map(|value| value.round().clamp(1.0, 1e9) as u32);
        Observation {
            params_total: self.params_total.unwrap_or(self.params),
            experts: count(self.experts),
            top_k: count(self.top_k),
            granularity: self.granularity,
            tokens_unique: self.tokens_unique,
            ..Observation::dense("asked", self.params, self.tokens, 1.0)
        }
    }

    fn more(&mut self) -> [&mut Option<f64>; 5] {
        [&mut self.params_total, &mut self.experts, &mut self.top_k, &mut self.granularity, &mut self.tokens_unique]
    }
}

impl FromStr for Asked {
    type Err = NotAsked;

    /// In any order, each at most once, with suffixes such as 20B.
    fn from_str(text: &str) -> Result<Self, NotAsked> {
        Self::of(text, Needs::default())
    }
}

impl Asked {
    /// The same for a law: what it does not read need not be said.
    pub fn for_law(text: &str, laws: Laws) -> Result<Self, NotAsked> {
        Self::of(text, Needs::of(laws))
    }

    fn of(text: &str, needs: Needs) -> Result<Self, NotAsked> {
        let not = || NotAsked { got: text.to_owned(), more: MORE.join(", ") };
        let (mut params, mut tokens, mut asked) = (None, None, Self::dense(1.0, 1.0));
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(not)?;
            let value = parse_number(value.trim()).filter(|value| value.is_finite() && *value > 0.0).ok_or_else(not)?;
            let place = match name.trim() {
                "params" => &mut params,
                "tokens" => &mut tokens,
                name => asked.more().into_iter().zip(MORE).find(|(_, known)| *known == name).ok_or_else(not)?.0,
            };
            if place.replace(value).is_some() {
                return Err(not());
            }
        }
        let unread = |read: bool| (!read).then_some(Observation::UNSAID);
        let sized = needs.params || needs.params_total || needs.flops;
        let params = params.or_else(|| unread(sized)).ok_or_else(not)?;
        let tokens = tokens.or_else(|| unread(needs.tokens || needs.flops)).ok_or_else(not)?;
        Ok(Self { params, tokens, ..asked })
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "params={:e},tokens={:e}", self.params, self.tokens)?;
        let mut copy = *self;
        for (name, value) in MORE.iter().zip(copy.more()) {
            if let Some(value) = value {
                write!(f, ",{name}={value:e}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_law_does_not_read_need_not_be_said() {
        let clark = "clark".parse().unwrap();
        assert_eq!(Asked::for_law("params=1e9,experts=8", clark).unwrap().tokens, Observation::UNSAID);
        assert!(Asked::for_law("tokens=1e9,experts=8", clark).is_err());
        let tokens = "power-tokens".parse().unwrap();
        assert_eq!(Asked::for_law("tokens=1e9", tokens).unwrap().params, Observation::UNSAID);
        assert!(Asked::for_law("params=1e9", "broken-1".parse().unwrap()).is_err());
    }

    #[test]
    fn points_are_positive_numbers_with_suffixes_and_each_is_said_once() {
        let asked: Asked = "tokens=20B,params=1e9,experts=8".parse().unwrap();
        assert_eq!((asked.params, asked.tokens, asked.experts), (1e9, 2e10, Some(8.0)));
        assert_eq!(asked.to_string().parse(), Ok(asked));
        for wrong in [
            "params=1e9",
            "params=-1,tokens=2",
            "params=1e999,tokens=2",
            "size=1,tokens=2",
            "params=1,params=2,tokens=3",
        ] {
            assert!(wrong.parse::<Asked>().is_err(), "{wrong}");
        }
    }
}
