//! What the data leave open: a cloud of refitted laws, and intervals from it.
//!
//! With many clusters they are resampled whole. With few, resampling would drop sizes from the grid, so the design is
//! kept and the residuals of each cluster are multiplied by a random sign and size (wild bootstrap, Webb's six
//! weights), inflated by leverage and by Student's t; the result is then joined with the profile-likelihood interval.
//! An interval here knows one law; what other laws say is added in `choose.rs`.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fitted::Fitted;
use crate::law::{EXPONENT_BOUNDS, JOINT_BOUNDS};
use crate::observation::Observation;
use crate::optimum;
use crate::problem;
use crate::profile::Profile;
use crate::scaling::ScalingLaw;
use crate::student;

/// From this many clusters on they are resampled; below, the design is kept.
const CLUSTERS_MANY: usize = 30;
/// Share of the noise variance taken to be common to the runs of one trunk.
const COMMON_SHARE: f64 = 0.25;
/// No run's residual is inflated more than this by its leverage.
const LEVERAGE_MAX: f64 = 0.95;

/// A cloud of laws that the data do not exclude.
#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    pub(crate) draws: Vec<ScalingLaw>,
    /// One draw of a run's own deviation in ln loss for each law of the cloud.
    noise: Vec<f64>,
    /// Profile intervals by name, where there are few runs.
    profiles: BTreeMap<String, [f64; 2]>,
    level: f64,
    /// What the cloud is stretched by, at least 1, and what the linear interval is, which may shrink.
    inflation: f64,
    measured: f64,
    /// The smallest loss observed: no floor lies above it by much.
    floor_max: f64,
}

/// How many resamples, at which level, from which seed, and by what the intervals are stretched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) resamples: usize,
    pub(crate) level: f64,
    pub(crate) seed: u64,
    /// What rolling hold-out taught, see [`crate::holdout::Rolling`].
    pub(crate) inflation: f64,
}

impl Cloud {
    pub(crate) fn new(fit: &Fitted, rows: &[Observation], plan: Plan, tick: &mut dyn FnMut(usize)) -> Self {
        let clusters = Clusters::of(rows);
        let few = clusters.few();
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let widening = student::widening(plan.level, fit.degrees());
        let spread = few.then(|| inflated(fit, widening * clusters.design()));
        let mut draws = Vec::with_capacity(plan.resamples);
        for done in 0..plan.resamples {
            let mut problem = fit.problem.clone();
            match &spread {
                Some(spread) => clusters.wild(&mut problem, fit, spread, &mut rng),
                None => clusters.resample(&mut problem, &mut rng),
            }
            let best = optimum::refit(&problem, &fit.search);
            draws.push(problem.scaling_law(&best.theta));
            tick(done + 1);
        }
        let n = fit.residuals.len();
        let size = widening * (n as f64 / fit.degrees().max(1) as f64).sqrt();
        let noise = (0..plan.resamples).map(|_| size * fit.residuals[rng.random_range(0..n)]).collect();
        let profiles = if few { profiles(fit, plan.level, clusters.design()) } else { BTreeMap::new() };
        let floor_max = fit.problem.smallest_loss() * fit.problem.loss_unit();
        Self {
            draws,
            noise,
            profiles,
            level: plan.level,
            inflation: plan.inflation.max(1.0),
            measured: plan.inflation,
            floor_max,
        }
    }

    /// Interval of a named parameter or of `a`, the exponent of compute-optimal params.
    pub(crate) fn parameter(&self, fit: &ScalingLaw, name: &str) -> Option<[f64; 2]> {
        let of = |law: &ScalingLaw| match name {
            "a" => law.allocation_exponent(),
            name => law.parameter(name),
        };
        let centre = of(fit)?;
        let own = percentiles(self.draws.iter().map(|law| of(law).unwrap_or(f64::NAN)).collect(), self.level);
        let profile = self.profiles.get(name).copied().unwrap_or([centre, centre]);
        let ends = [own[0].min(profile[0]).min(centre), own[1].max(profile[1]).max(centre)];
        Some(match name {
            // What is positive is stretched in logarithms; E may touch zero, and the allocation exponent is a share.
            "E" => ends.map(|end| within((centre + self.inflation * (end - centre)).max(0.0), self.floor_max, end)),
            "a" => ends.map(|end| (centre + self.inflation * (end - centre)).clamp(0.0, 1.0)),
            "alpha" | "beta" => ends.map(|end| within(stretched(centre, end, self.inflation), EXPONENT_BOUNDS.1, end)),
            "q" => ends.map(|end| within(stretched(centre, end, self.inflation), JOINT_BOUNDS.1, end)),
            _ => ends.map(|end| stretched(centre, end, self.inflation)),
        })
    }

    /// Interval of something positive that a law determines, around `centre`, the fit's own value.
    pub(crate) fn interval(&self, centre: f64, of: impl Fn(&ScalingLaw) -> f64) -> [f64; 2] {
        let ends = percentiles(self.draws.iter().map(of).collect(), self.level);
        ends.map(|end| stretched(centre, end, self.inflation))
    }

    /// Interval of the loss of a new run, from the cloud and, where that is wider, from the fit's linear theory.
    pub(crate) fn new_run(&self, fit: &Fitted, params: f64, tokens: f64, level: f64) -> [f64; 2] {
        let centre = fit.law.loss(params, tokens);
        let [low, high] = self.loss(centre, params, tokens, level);
        let linear = self.measured * fit.reach(params, tokens, level);
        [low.min(centre * (-linear).exp()), high.max(centre * linear.exp())]
    }

    /// Interval of the loss of a new run there, its own deviation included; `centre` is the fit's own value.
    pub(crate) fn loss(&self, centre: f64, params: f64, tokens: f64, level: f64) -> [f64; 2] {
        let pairs = self.draws.iter().zip(&self.noise);
        let ends = percentiles(pairs.map(|(law, noise)| law.loss(params, tokens) * noise.exp()).collect(), level);
        ends.map(|end| stretched(centre, end, self.inflation))
    }
}

/// `value`, but beyond `most` only as far as the interval reached before it was stretched.
fn within(value: f64, most: f64, end: f64) -> f64 {
    value.min(most.max(end))
}

/// `end` moved away from `centre` by `factor` in logarithms.
fn stretched(centre: f64, end: f64, factor: f64) -> f64 {
    if end > 0.0 && centre > 0.0 { centre * (end / centre).powf(factor) } else { end }
}

/// Central percentiles with linear interpolation; values that are not numbers are left out.
pub(crate) fn percentiles(mut values: Vec<f64>, level: f64) -> [f64; 2] {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * values.len().saturating_sub(1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        match (values.get(low), values.get(high)) {
            (Some(a), Some(b)) if a == b => *a,
            (Some(a), Some(b)) => a + (b - a) * place.fract(),
            _ => f64::NAN,
        }
    };
    [at(0.5 * (1.0 - level)), at(0.5 * (1.0 + level))]
}

/// Which cluster each row belongs to.
pub(crate) struct Clusters {
    of_row: Vec<usize>,
    count: usize,
}

impl Clusters {
    pub(crate) fn of(rows: &[Observation]) -> Self {
        let mut known = BTreeMap::new();
        let mut number = |name| {
            let next = known.len();
            *known.entry(name).or_insert(next)
        };
        let of_row = rows.iter().map(|row| number(row.cluster.as_str())).collect();
        Self { of_row, count: known.len() }
    }

    /// By how much common noise inside clusters widens an interval: Kish's design effect. The fit absorbs most of
    /// what is common to a size, so the residuals of few clusters cannot show it and a share is assumed.
    fn design(&self) -> f64 {
        let size = self.of_row.len() as f64 / self.count as f64;
        (1.0 + (size - 1.0) * COMMON_SHARE).sqrt()
    }

    /// Whether they are too few to leave any out.
    pub(crate) fn few(&self) -> bool {
        self.count < CLUSTERS_MANY
    }

    /// How often each row is drawn when as many clusters as there are are drawn with replacement.
    pub(crate) fn multiplicities(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let mut times = vec![0.0; self.count];
        for _ in 0..self.count {
            times[rng.random_range(0..self.count)] += 1.0;
        }
        self.of_row.iter().map(|cluster| times[*cluster]).collect()
    }

    fn resample(&self, problem: &mut problem::Problem, rng: &mut ChaCha8Rng) {
        problem.rows.iter_mut().zip(self.multiplicities(rng)).for_each(|(row, times)| row.weight *= times);
    }

    /// One of Webb's weights (variance one, six values) for each cluster, by row.
    pub(crate) fn webb(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let weight = |draw: usize| [0.5_f64, 1.0, 1.5][draw % 3].sqrt() * if draw < 3 { 1.0 } else { -1.0 };
        let weights: Vec<f64> = (0..self.count).map(|_| weight(rng.random_range(0..6))).collect();
        self.of_row.iter().map(|cluster| weights[*cluster]).collect()
    }

    /// The fitted losses with each cluster's residuals times one of Webb's weights.
    fn wild(&self, problem: &mut problem::Problem, fit: &Fitted, spread: &[f64], rng: &mut ChaCha8Rng) {
        for (i, (row, weight)) in problem.rows.iter_mut().zip(self.webb(rng)).enumerate() {
            row.y += fit.residuals[i] + weight * spread[i];
        }
    }
}

/// Residuals as if their runs had not been fitted: over sqrt(1 - leverage), in a sum of squares no less than the
/// noise over all degrees of freedom says, times Student's widening.
fn inflated(fit: &Fitted, widening: f64) -> Vec<f64> {
    let weight = fit.leverage();
    let leverage = |row: &problem::Row| weight(row.x).clamp(0.0, LEVERAGE_MAX);
    let rows = fit.problem.rows.iter().zip(&fit.residuals);
    let raw: Vec<f64> = rows.map(|(row, r)| r / (1.0 - leverage(row)).sqrt()).collect();
    let mean_square = raw.iter().map(|r| r * r).sum::<f64>() / raw.len() as f64;
    // A robust fit passes exactly through as many runs as it has parameters, which leverage alone does not undo.
    let short = if mean_square > 0.0 { (fit.sigma() / mean_square.sqrt()).max(1.0) } else { 1.0 };
    raw.into_iter().map(|r| r * short * widening).collect()
}

/// Profile intervals in plain units.
fn profiles(fit: &Fitted, level: f64, design: f64) -> BTreeMap<String, [f64; 2]> {
    let law = fit.problem.law;
    let Some(profile) = Profile::new(fit) else {
        return BTreeMap::new();
    };
    let unit = |at: usize| {
        if Some(at) == law.offset_at() { fit.problem.loss_unit() } else { 1.0 }
    };
    let names = law.names().into_iter().enumerate().skip(law.terms.len());
    names.map(|(at, name)| (name.to_owned(), profile.interval(at, level, design).map(|end| end * unit(at)))).collect()
}

#[cfg(test)]
#[path = "interval_tests.rs"]
mod tests;
