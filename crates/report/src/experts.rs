//! An arm of mixtures against dense models of equal active and equal total params, in a sentence.

use isoloss_fit::experts::{AgainstDense, LossRatio};

/// At equal compute, at equal memory, and at both.
pub(crate) fn sentence(against: &AgainstDense) -> String {
    let active = format!("at equal active params and tokens {} than dense", told(&against.equal_active));
    let total = against.equal_total.as_ref();
    let total = total.map(|ratio| format!("at equal total params and tokens {}", told(ratio)));
    let both = against.equal_total_and_compute.as_ref();
    let both = both.map(|ratio| format!("at equal total params and compute {}", told(ratio)));
    let mut parts = vec![active];
    parts.extend(total.into_iter().chain(both));
    if against.beyond > 0 {
        parts.push(format!(
            "dense models of equal total params are larger than all dense runs for {} of the runs",
            against.beyond
        ));
    }
    parts.join("; ")
}

/// `loss 2.10 % [1.90, 2.30] lower`, the ends by the dense law's uncertainty.
fn told(ratio: &LossRatio) -> String {
    let percent = |ratio: f64| 100.0 * (ratio - 1.0);
    let (centre, [low, high]) = (percent(ratio.ratio), ratio.interval.map(percent));
    let (word, [low, high]) = if centre <= 0.0 { ("lower", [-high, -low]) } else { ("higher", [low, high]) };
    format!("loss {:.2} % [{low:.2}, {high:.2}] {word}", centre.abs())
}
