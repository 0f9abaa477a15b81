//! A straight line through few points: the exponent of a power law in logarithms, with Student's interval. It knows only
//! the scatter about the line; what bends the points alike it does not see.

use serde::{Deserialize, Serialize};

use crate::student;

/// An exponent of a power law of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Exponent {
    pub value: f64,
    /// From the scatter of the points alone, at the level of the fit.
    pub interval: [f64; 2],
}

/// Points that leave one degree of freedom to judge the line by.
pub(crate) const POINTS_MIN: usize = 3;

/// The slope of the least-squares line through `(x, y)`; `None` for fewer than three points or where x does not vary.
pub(crate) fn slope(points: &[(f64, f64)], level: f64) -> Option<Exponent> {
    if points.len() < POINTS_MIN {
        return None;
    }
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let value = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>() / spread;
    let square: f64 = points.iter().map(|(x, y)| (y - y_mean - value * (x - x_mean)).powi(2)).sum();
    let degrees = points.len() - 2;
    let half = student::quantile(level, degrees) * (square / degrees as f64 / spread).sqrt();
    (value.is_finite() && half.is_finite()).then_some(Exponent { value, interval: [value - half, value + half] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_and_its_interval_are_those_of_the_textbook() {
        let points = [(0.0, 0.1), (1.0, 0.9), (2.0, 2.1), (3.0, 2.9)];
        let found = slope(&points, 0.95).unwrap();
        assert!((found.value - 0.96).abs() < 1e-12);
        // Residuals of 0.032 in squares over 2 degrees, t = 4.3027, spread 5.
        let half = 4.3027 * (0.032_f64 / 2.0 / 5.0).sqrt();
        assert!((found.interval[1] - 0.96 - half).abs() < 1e-3, "{found:?}");
        assert_eq!(slope(&points[..2], 0.95), None);
        assert_eq!(slope(&[(1.0, 0.0), (1.0, 1.0), (1.0, 2.0)], 0.95), None);
    }
}
