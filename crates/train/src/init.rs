//! Seeded initial weights: the same for every engine, independent of the order in which tensors are drawn.

use isoloss_sweep::Model;
use rand::RngCore;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::engine::State;
use crate::layout::{Init, Layout};

/// The state before the first step of a run with this seed.
pub fn initial_state(model: &Model, seed: u64) -> State {
    let mut state = State::zeros(model);
    for view in Layout::of(model).views() {
        let values = &mut state.params[view.range()];
        match view.init {
            Init::Ones => values.fill(1.0),
            Init::Normal(deviation) => normal(values, deviation, &mut stream(seed, &view.name)),
        }
    }
    state
}

/// Each tensor has a stream of its own, so adding one to a model leaves the others as they were.
fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let mut key = blake3::Hasher::new_derive_key("isoloss initial weights 1");
    key.update(&seed.to_le_bytes());
    key.update(name.as_bytes());
    ChaCha8Rng::from_seed(*key.finalize().as_bytes())
}

/// Box and Muller's pairs, computed in f64.
fn normal(values: &mut [f32], deviation: f64, rng: &mut impl RngCore) {
    // In (0, 1], so that its logarithm is finite.
    let mut uniform = || ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
    for pair in values.chunks_mut(2) {
        let radius = deviation * (-2.0 * uniform().ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * uniform()).sin_cos();
        for (value, side) in pair.iter_mut().zip([cos, sin]) {
            *value = (radius * side) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_stated_spread_and_depend_on_seed_and_name() {
        let draw = |seed, name| {
            let mut values = vec![0.0; 40_001];
            normal(&mut values, 0.02, &mut stream(seed, name));
            values
        };
        let values = draw(1, "head");
        assert_eq!(values, draw(1, "head"));
        assert_ne!(values, draw(2, "head"));
        assert_ne!(values, draw(1, "embedding"));
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let square = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
        // Four standard errors.
        assert!(mean.abs() < 4.0 * 0.02 / n.sqrt(), "{mean}");
        assert!((square.sqrt() / 0.02 - 1.0).abs() < 4.0 / (2.0 * n).sqrt(), "{square}");
    }
}
