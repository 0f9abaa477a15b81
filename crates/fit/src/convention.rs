//! Whether FLOPs, params and tokens are counted by one convention: one k with C = k N D for all runs. It knows nothing of
//! losses.

use serde::{Deserialize, Serialize};

use crate::isoflop::IsoflopRecord;
use crate::observation::Observation;

/// Whole steps and rounded columns move k by this much.
const ONE_FACTOR: f64 = 1.04;
/// Exponents that sum to one within this agree: parabolas in ln params and in ln tokens are no closer.
const SUM_TOLERANCE: f64 = 0.01;
/// A smaller exponent of k in params is scatter.
const DRIFT_MIN: f64 = 0.02;

/// The ledger of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConventionRecord {
    /// FLOPs per param and token by the table's own columns: least, geometric mean, greatest.
    pub flops_per_param_token: [f64; 3],
    /// Whether one value fits all runs.
    pub one_factor: bool,
    /// How the value changes with params, as an exponent.
    pub drift: f64,
    /// Sum of the exponents of N* and D* by isoFLOP parabolas: 1 where one value fits all runs.
    pub exponent_sum: Option<f64>,
    /// The same in words.
    pub note: String,
}

pub(crate) fn convention(rows: &[Observation], isoflop: Option<&IsoflopRecord>) -> ConventionRecord {
    let points: Vec<(f64, f64)> =
        rows.iter().map(|row| (row.params.ln(), (row.flops / row.params / row.tokens).ln())).collect();
    let count = points.len().max(1) as f64;
    let (x_mean, mean) =
        (points.iter().map(|p| p.0).sum::<f64>() / count, points.iter().map(|p| p.1).sum::<f64>() / count);
    let low = points.iter().map(|point| point.1).fold(mean, f64::min);
    let high = points.iter().map(|point| point.1).fold(mean, f64::max);
    let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let tilt: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - mean)).sum();
    let mut record = ConventionRecord {
        flops_per_param_token: [low, mean, high].map(f64::exp),
        one_factor: high - mean <= ONE_FACTOR.ln() && mean - low <= ONE_FACTOR.ln(),
        drift: if spread > 0.0 { tilt / spread } else { 0.0 },
        exponent_sum: isoflop.and_then(|isoflop| Some(isoflop.a?.value + isoflop.b?.value)),
        note: String::new(),
    };
    record.note = note(&record);
    record
}

fn note(record: &ConventionRecord) -> String {
    let [low, mean, high] = record.flops_per_param_token;
    if record.one_factor {
        return format!("FLOPs are {mean:.2} N D in all runs");
    }
    let whence = match record.drift {
        drift if drift < -DRIFT_MIN => ", more in small models, as attention, head or embeddings make it",
        drift if drift > DRIFT_MIN => ", more in large models",
        _ => "",
    };
    let sum = match record.exponent_sum {
        Some(sum) => {
            format!("by isoFLOP parabolas the exponents of N* and D* add to {sum:.3} where one k would make it 1")
        }
        None => "so exponents of N* and D* need not add to 1".to_owned(),
    };
    format!("FLOPs do not fit one k N D: {low:.2} to {high:.2} per param and token (mean {mean:.2}{whence}); {sum}")
}

/// Counts by several conventions are a fault only where they show in the exponents.
pub(crate) fn warning(record: &ConventionRecord) -> Option<String> {
    let off = record.exponent_sum.is_some_and(|sum| (sum - 1.0).abs() > SUM_TOLERANCE);
    (!record.one_factor && off).then(|| record.note.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(flops: impl Fn(f64, f64) -> f64) -> Vec<Observation> {
        let pair = |at: i32| (1e6 * 3f64.powi(at % 4), 1e8 * 4f64.powi(at / 4));
        let row = |at: i32| {
            let (params, tokens) = pair(at);
            Observation { flops: flops(params, tokens), ..Observation::dense(at.to_string(), params, tokens, 3.0) }
        };
        (0..12).map(row).collect()
    }

    #[test]
    fn one_factor_is_seen_and_another_convention_is_told() {
        let same = convention(&rows(|n, d| 6.1 * n * d * (1.0 + 0.01 * (d / n).sin())), None);
        assert!(same.one_factor && (same.flops_per_param_token[1] - 6.1).abs() < 0.05, "{same:?}");
        assert_eq!((same.note.as_str(), warning(&same)), ("FLOPs are 6.10 N D in all runs", None));
        // A head and embeddings of half a million weights that the params leave out.
        let other = convention(&rows(|n, d| 6.0 * (n + 5e5) * d), None);
        assert!(!other.one_factor && other.drift < -0.05, "{other:?}");
        let said = &other.note;
        assert!(said.contains("6.11 to 9.00 per param and token") && said.contains("more in small models"), "{said}");
    }
}
