//! Counted FLOPs per token by size, and the frontier that follows: the least loss the law allows for each budget. The
//! usual 6ND is not good enough here, because the head and attention weigh most in small models.

use isoloss_fit::ScalingLaw;

use crate::lab::Lab;

/// Training FLOPs per token as a function of the size on the axes, read off the runs themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    /// (ln size, ln FLOPs per token), rising in size.
    points: Vec<(f64, f64)>,
}

/// A point of the frontier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimum {
    pub flops: f64,
    pub params: f64,
    pub tokens: f64,
    pub loss: f64,
}

impl Ledger {
    /// From the runs that the law was fitted to; none where no run was.
    pub fn of(lab: &Lab) -> Option<Self> {
        let fitted = lab.runs.iter().filter(|run| lab.fitted(&run.arm));
        let mut points: Vec<(f64, f64)> =
            fitted.map(|run| (run.size().ln(), (run.flops().get() / run.tokens().as_f64()).ln())).collect();
        points.retain(|(size, cost)| size.is_finite() && cost.is_finite());
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by(|a, b| a.0 - b.0 < 1e-9);
        (!points.is_empty()).then_some(Self { points })
    }

    /// Straight lines between the sizes that were run; beyond them FLOPs grow with size.
    pub fn flops_per_token(&self, size: f64) -> f64 {
        let x = size.ln();
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        if x <= first.0 {
            return (first.1 + x - first.0).exp();
        }
        if x >= last.0 {
            return (last.1 + x - last.0).exp();
        }
        let at = self.points.partition_point(|point| point.0 <= x).max(1);
        let (low, high) = (self.points[at - 1], self.points[at]);
        (low.1 + (high.1 - low.1) * (x - low.0) / (high.0 - low.0)).exp()
    }

    /// The size whose training on `tokens` costs `flops`. Cost rises in size, so bisection is safe.
    pub fn size_for(&self, flops: f64, tokens: f64) -> f64 {
        let (mut low, mut high) = (0.0_f64, 80.0_f64);
        for _ in 0..80 {
            let middle = 0.5 * (low + high);
            if self.flops_per_token(middle.exp()) * tokens < flops {
                low = middle;
            } else {
                high = middle;
            }
        }
        (0.5 * (low + high)).exp()
    }

    /// The best size for a budget under the law, by counted FLOPs: a coarse look, then golden steps around the best.
    pub fn optimum(&self, law: &ScalingLaw, flops: f64) -> Option<Optimum> {
        law.exponents()?;
        let at = |x: f64| {
            let params = x.exp();
            let tokens = flops / self.flops_per_token(params);
            Optimum { flops, params, tokens, loss: law.loss(params, tokens) }
        };
        let centre = self.points[self.points.len() / 2].0;
        let grid = (0..=240).map(|i| at(centre - 15.0 + i as f64 * 0.125));
        let best = grid.min_by(|a, b| a.loss.total_cmp(&b.loss))?;
        let (mut low, mut high) = (best.params.ln() - 0.125, best.params.ln() + 0.125);
        for _ in 0..40 {
            let third = (high - low) / 3.0;
            if at(low + third).loss < at(high - third).loss {
                high -= third;
            } else {
                low += third;
            }
        }
        Some(at(0.5 * (low + high)))
    }
}
