//! Several laws that the runs do not rule out, and one interval: quantiles of their mixture. A union of their intervals would
//! cover more than its level where they overlap, and most where the level is low.

use crate::student;

/// What one law says of a new run's loss: its value, and an interval around it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opinion {
    pub(crate) centre: f64,
    pub(crate) interval: [f64; 2],
}

impl Opinion {
    /// Share of new runs below `ln_loss`: normal in ln loss, with a spread of its own on each side.
    fn below(&self, ln_loss: f64, reach: f64) -> f64 {
        let away = ln_loss - self.centre.ln();
        let end = self.interval[usize::from(away > 0.0)];
        let spread = (end / self.centre).ln().abs() / reach;
        if spread > 0.0 { student::normal_below(away / spread) } else { f64::from(u8::from(away > 0.0)) }
    }
}

/// The central interval of `level` of all laws in equal shares; one law's own where it is alone.
pub(crate) fn joined(opinions: &[Opinion], level: f64) -> [f64; 2] {
    let [one] = opinions else {
        let reach = student::quantile(level, usize::MAX);
        let below = |ln_loss: f64| {
            opinions.iter().map(|opinion| opinion.below(ln_loss, reach)).sum::<f64>() / opinions.len() as f64
        };
        let ends = opinions.iter().flat_map(|opinion| opinion.interval).map(f64::ln);
        let [low, high] = ends.fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], end| [l.min(end), h.max(end)]);
        let at = |share: f64| {
            // The quantiles of a mixture lie between those of its parts.
            let (mut low, mut high) = (low, high);
            for _ in 0..60 {
                let middle = 0.5 * (low + high);
                *(if below(middle) < share { &mut low } else { &mut high }) = middle;
            }
            (0.5 * (low + high)).exp()
        };
        return [at(0.5 * (1.0 - level)), at(0.5 * (1.0 + level))];
    };
    one.interval
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opinion(centre: f64, spread: f64, level: f64) -> Opinion {
        let reach = spread * student::quantile(level, usize::MAX);
        Opinion { centre, interval: [-reach, reach].map(|reach| centre * reach.exp()) }
    }

    #[test]
    fn equal_opinions_are_one_and_unequal_ones_lie_between_their_ends_and_their_union() {
        for level in [0.5, 0.9, 0.95] {
            let [one, other] = [opinion(2.0, 0.01, level), opinion(2.04, 0.01, level)];
            let twice = joined(&[one, one], level);
            assert!((0..2).all(|end| (twice[end] / one.interval[end] - 1.0).abs() < 1e-6), "{twice:?}");
            let [low, high] = joined(&[one, other], level);
            assert!(low > one.interval[0] && high < other.interval[1], "{low} {high}");
            // Two apart: what lies between counts for both.
            let share = |at: f64| {
                0.5 * (one.below(at.ln(), student::quantile(level, usize::MAX))
                    + other.below(at.ln(), student::quantile(level, usize::MAX)))
            };
            assert!((share(high) - share(low) - level).abs() < 1e-6);
        }
    }

    #[test]
    fn a_law_without_doubt_counts_as_a_step() {
        let sure = Opinion { centre: 2.0, interval: [2.0, 2.0] };
        let [low, high] = joined(&[sure, opinion(2.0, 0.01, 0.5)], 0.5);
        assert!((low - 2.0).abs() < 1e-9 && (high - 2.0).abs() < 1e-9);
    }
}
