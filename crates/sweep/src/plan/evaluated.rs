//! How much validation text a run is scored on, while it trains and at its end. Counts only; which text is elsewhere.

use crate::corpus::Manifest;
use crate::run::Run;

/// The first point of a curve comes when training has cost this many evaluations: points stay cheap beside training.
pub const FIRST_POINT_COST: f64 = 12.0;
/// Each further point comes this much later than the one before: about 16 up to 600 times the first.
pub const POINT_RATIO: f64 = 1.5;

/// Tokens that go through the model when `limit` bytes of the validation text are scored: windows overlap by half.
fn scored(manifest: &Manifest, limit: u64) -> f64 {
    let part = &manifest.validation;
    2.0 * limit.min(part.bytes) as f64 * part.tokens.as_f64() / part.bytes.max(1) as f64
}

/// Tokens that the run is evaluated on between two steps: points of its curve, one at the end, and the final score.
pub fn evaluated_tokens(run: &Run, manifest: &Manifest, from: u64, to: u64) -> f64 {
    let curve = scored(manifest, run.data.curve_bytes);
    let terms = run.model.flop_terms();
    let step = terms.training() * f64::from(run.train.batch) * f64::from(run.model.context);
    let first = (FIRST_POINT_COST * terms.forward() * curve / step).max(1.0);
    let points = |step: u64| match step as f64 / first {
        early if early < 1.0 => 0.0,
        late => 1.0 + late.log(POINT_RATIO).floor(),
    };
    (points(to) - points(from) + 1.0) * curve + scored(manifest, run.data.scored_bytes)
}
