//! Student's t with whole degrees of freedom: the factor by which few runs widen an interval.

use std::f64::consts::PI;

/// Above this many degrees of freedom the normal value is used (they agree to 0.5 % at 95 %).
const DEGREES_MAX: usize = 400;

/// Two-sided quantile: |t| is below it with probability `level`.
pub(crate) fn quantile(level: f64, degrees: usize) -> f64 {
    let degrees = degrees.clamp(1, DEGREES_MAX);
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if inside(middle, degrees) < level {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// P(T < t) where the noise is known.
pub(crate) fn normal_below(t: f64) -> f64 {
    0.5 * (1.0 + inside(t.abs(), DEGREES_MAX).copysign(t))
}

/// How much wider than with known noise.
pub(crate) fn widening(level: f64, degrees: usize) -> f64 {
    quantile(level, degrees) / quantile(level, DEGREES_MAX)
}

/// P(|T| < t): finite sums, Abramowitz and Stegun 26.7.3 and 26.7.4.
fn inside(t: f64, degrees: usize) -> f64 {
    let angle = (t / (degrees as f64).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let square = cos * cos;
    let odd = degrees % 2 == 1;
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = if degrees == 1 { 0.0 } else { term };
    let mut at = if odd { 3 } else { 2 };
    while at < degrees {
        term *= square * (at - 1) as f64 / at as f64;
        sum += term;
        at += 2;
    }
    if odd { 2.0 / PI * (angle + sin * sum) } else { sin * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_values() {
        for (degrees, value) in [(1, 12.7062), (2, 4.3027), (3, 3.1824), (7, 2.3646), (8, 2.3060), (30, 2.0423)] {
            assert!((quantile(0.95, degrees) - value).abs() < 1e-4, "{degrees}");
        }
        assert!((quantile(0.9, 5) - 2.0150).abs() < 1e-4);
        assert!(widening(0.95, 7) > 1.2 && widening(0.95, 4000) == 1.0);
    }
}
