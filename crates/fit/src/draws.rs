//! The refitted laws behind the intervals, as far as a record carries them: which parameters move together.

use serde::{Deserialize, Serialize};

use crate::interval::Cloud;
use crate::scaling::ScalingLaw;

/// Draws that a record keeps: enough for a picture, few enough for a file.
const KEPT_MAX: usize = 400;
/// Digits that a picture needs.
const DIGITS: usize = 6;

/// Laws fitted to resamples of the runs, before anything stretches the intervals that are read from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrawsRecord {
    /// Resamples that were fitted; the first of them are kept.
    pub resamples: usize,
    /// The law's parameters.
    pub names: Vec<String>,
    /// Their values, draw by draw, in plain units and to six digits.
    pub values: Vec<Vec<f64>>,
}

impl DrawsRecord {
    pub(crate) fn of(law: &ScalingLaw, cloud: &Cloud) -> Self {
        let names: Vec<String> = law.parameters().into_keys().collect();
        let draw = |one: &ScalingLaw| {
            let all = one.parameters();
            names.iter().map(|name| short(all[name])).collect()
        };
        let values = cloud.draws.iter().take(KEPT_MAX).map(draw).collect();
        Self { resamples: cloud.draws.len(), names, values }
    }

    /// The values of one parameter, draw by draw.
    pub fn parameter(&self, name: &str) -> Option<Vec<f64>> {
        let at = self.names.iter().position(|known| known == name)?;
        Some(self.values.iter().map(|draw| draw[at]).collect())
    }
}

fn short(value: f64) -> f64 {
    format!("{value:.*e}", DIGITS - 1).parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_are_kept() {
        assert_eq!([short(0.347_312_345), short(-2_143.438_9), short(0.0)], [0.347_312, -2_143.44, 0.0]);
    }
}
