//! The first runs, before any law can be fitted: cheap ones that lie far apart.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::design::voice::coordinates;
use crate::design::{Candidate, Purse, Question};
use crate::observation::Observation;

/// Of the budget, what the first runs may take together.
const SHARE: f64 = 0.25;

/// `count` runs of the pool that cost a quarter of the budget at most, each as far as can be from all others; the seed
/// picks where they begin. Fewer where the budget does not pay for them.
pub(crate) fn pilot(known: &[&Observation], pool: &[Candidate], count: usize, question: &Question) -> Vec<usize> {
    let mut purse = Purse::of(question);
    let price = |at: &usize| purse.price(&pool[*at]);
    let mut cheap: Vec<usize> = (0..pool.len()).collect();
    cheap.sort_by(|a, b| price(a).total_cmp(&price(b)));
    // Where hardly any run is that cheap, the cheapest have to do.
    let each = SHARE * question.budget / count.max(1) as f64;
    let fair = cheap.iter().filter(|at| price(at) <= each).count();
    cheap.truncate(fair.max(2 * count));
    let ranges = ranges(cheap.iter().map(|at| &pool[*at].row));
    let distance = |a: &Observation, b: &Observation| -> f64 {
        let pairs = coordinates(a).into_iter().zip(coordinates(b)).zip(ranges);
        pairs.map(|((a, b), range)| if range > 0.0 { ((a - b) / range).powi(2) } else { 0.0 }).sum()
    };
    let mut known = known.to_vec();
    let mut picks = Vec::new();
    let mut rng = ChaCha8Rng::seed_from_u64(question.seed);
    while picks.len() < count {
        cheap.retain(|at| !picks.contains(at) && purse.pays(&pool[*at]));
        let apart =
            |at: &usize| known.iter().map(|other| distance(&pool[*at].row, other)).fold(f64::INFINITY, f64::min);
        let next = match known.is_empty() {
            true if !cheap.is_empty() => Some(cheap[rng.random_range(0..cheap.len())]),
            true => None,
            false => cheap.iter().copied().max_by(|a, b| apart(a).total_cmp(&apart(b))),
        };
        let Some(at) = next else { break };
        purse.spend(&pool[at]);
        known.push(&pool[at].row);
        picks.push(at);
    }
    picks
}

fn ranges<'a>(rows: impl Iterator<Item = &'a Observation>) -> [f64; 4] {
    let mut ends = [[f64::INFINITY, f64::NEG_INFINITY]; 4];
    for row in rows {
        for (end, value) in ends.iter_mut().zip(coordinates(row)) {
            *end = [end[0].min(value), end[1].max(value)];
        }
    }
    ends.map(|[low, high]| high - low)
}
