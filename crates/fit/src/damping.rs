//! How much a damped Newton step trusts its model of the objective.

/// By what the damping changes after a step that fell by `fell` where the model promised `gain` (Fletcher 1971).
pub(crate) fn factor(fell: f64, gain: f64) -> f64 {
    if fell > 0.75 * gain {
        0.1
    } else if fell < 0.25 * gain {
        2.0
    } else {
        1.0
    }
}
