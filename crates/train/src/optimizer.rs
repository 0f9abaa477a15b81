//! AdamW on flat buffers, global-norm clipping and the router-bias step: shared by the engines that update on the host.
//!
//! No schedule (that is `Run::learning_rate`) and no threads: each element's arithmetic is independent of all others.

use crate::engine::{State, Update};
use crate::layout::Layout;

/// Sums of squares kept apart, so that the loop vectorises; part of the numerics.
const LANES: usize = 16;

/// Euclidean norm of the whole gradient, summed in f64 in a fixed order.
pub fn global_norm(gradient: &[f32]) -> f64 {
    let mut sums = [0f64; LANES];
    let chunks = gradient.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, &g) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(g) * f64::from(g);
        }
    }
    for (sum, &g) in sums.iter_mut().zip(rest) {
        *sum += f64::from(g) * f64::from(g);
    }
    sums.iter().sum::<f64>().sqrt()
}

/// AdamW's scalars of one step, decay aside.
#[derive(Debug, Clone, Copy)]
pub struct Factors {
    /// What clipping leaves of the gradient.
    pub scale: f32,
    pub beta1: f32,
    pub beta2: f32,
    /// Learning rate over the bias correction of the first moment.
    pub rate: f32,
    /// One over the root of the bias correction of the second moment.
    pub root: f32,
    pub epsilon: f32,
    /// Learning rate times weight decay.
    pub decay: f32,
}

impl Factors {
    /// `norm` is the gradient's global norm.
    pub fn of(update: &Update, norm: f64) -> Self {
        let made = (update.step + 1) as i32;
        let scale = if norm > update.clip { update.clip / norm } else { 1.0 };
        Self {
            scale: scale as f32,
            beta1: update.beta1 as f32,
            beta2: update.beta2 as f32,
            rate: (update.learning_rate / (1.0 - update.beta1.powi(made))) as f32,
            root: (1.0 / (1.0 - update.beta2.powi(made)).sqrt()) as f32,
            epsilon: update.epsilon as f32,
            decay: (update.learning_rate * update.weight_decay) as f32,
        }
    }

    /// One step on any range of elements; all slices have equal length, `decayed` says whether weight decay acts.
    pub fn apply(&self, decayed: bool, params: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let keep = if decayed { 1.0 - self.decay } else { 1.0 };
        let moments = first.iter_mut().zip(second.iter_mut());
        for ((p, &g), (m, v)) in params.iter_mut().zip(gradient).zip(moments) {
            let g = g * self.scale;
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
            *p = keep * *p - self.rate * *m / (v.sqrt() * self.root + self.epsilon);
        }
    }
}

impl Factors {
    /// One step on the elements of the flat buffers from `from` on.
    fn apply_from(
        &self,
        layout: &Layout,
        from: usize,
        params: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let end = from + params.len();
        for view in layout.views() {
            let (begin, end) = (view.offset.max(from), (view.offset + view.len).min(end));
            if begin < end {
                let range = begin - from..end - from;
                self.apply(
                    view.decay,
                    &mut params[range.clone()],
                    &gradient[range.clone()],
                    &mut first[range.clone()],
                    &mut second[range],
                );
            }
        }
    }
}

/// Elements that are worth a thread of their own: fewer are updated before it has started.
const PIECE_LEAST: usize = 1 << 16;

/// One AdamW step on the whole state (its step count is the caller's to raise), by up to `threads` threads: no element
/// depends on another, so the bits do not depend on how many there are.
pub fn adamw(layout: &Layout, update: &Update, norm: f64, gradient: &[f32], state: &mut State, threads: usize) {
    let factors = Factors::of(update, norm);
    let piece = layout.len().div_ceil(threads.max(1)).max(PIECE_LEAST);
    let moments = state.first_moment.chunks_mut(piece).zip(state.second_moment.chunks_mut(piece));
    let pieces = state.params.chunks_mut(piece).zip(gradient.chunks(piece)).zip(moments);
    std::thread::scope(|scope| {
        for (at, ((params, gradient), (first, second))) in pieces.enumerate() {
            let mut work = move || factors.apply_from(layout, at * piece, params, gradient, first, second);
            if (at + 1) * piece < layout.len() {
                scope.spawn(work);
            } else {
                work();
            }
        }
    });
}

/// Moves each expert's routing bias towards even load (Wang 2408.15664, algorithm 1): up where the step's load was under
/// the layer's mean, down where it was over.
pub fn balance(bias_update: f64, load: &[Vec<u64>], router_bias: &mut [f32]) {
    if bias_update == 0.0 {
        return;
    }
    let biases = router_bias.chunks_exact_mut(load.first().map_or(1, Vec::len));
    for (layer, biases) in load.iter().zip(biases) {
        let (total, count) = (layer.iter().sum::<u64>(), layer.len() as u64);
        for (bias, &routed) in biases.iter_mut().zip(layer) {
            // Compared as integers, times the number of experts: no rounding of the mean.
            *bias += match total.cmp(&(routed * count)) {
                std::cmp::Ordering::Greater => bias_update as f32,
                std::cmp::Ordering::Less => -bias_update as f32,
                std::cmp::Ordering::Equal => 0.0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(step: u64) -> Update {
        Update { step, learning_rate: 0.1, weight_decay: 0.5, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, clip: 1e9 }
    }

    #[test]
    fn first_step_moves_by_the_learning_rate_and_decays_by_rate_times_decay() {
        // With bias correction the first step is lr * sign(g), whatever the size of g.
        let (mut p, mut m, mut v) = ([1.0, 1.0], [0.0; 2], [0.0; 2]);
        let gradient = [1e-3, -7.0];
        Factors::of(&update(0), 7.0).apply(true, &mut p, &gradient, &mut m, &mut v);
        assert!((p[0] - (0.95 - 0.1)).abs() < 1e-5, "{p:?}");
        assert!((p[1] - (0.95 + 0.1)).abs() < 1e-5, "{p:?}");
        assert!((m[1] + 0.7).abs() < 1e-6 && (v[1] - 0.49).abs() < 1e-6);
    }

    #[test]
    fn clipping_scales_to_the_limit_and_splitting_changes_no_bit() {
        let gradient: Vec<f32> = (0..100).map(|i| (i as f32 * 0.37).sin()).collect();
        let norm = global_norm(&gradient);
        let exact: f64 = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        assert!((norm - exact).abs() < 1e-12);
        let clipped = Update { clip: norm / 4.0, ..update(3) };
        let factors = Factors::of(&clipped, norm);
        assert!((factors.scale - 0.25).abs() < 1e-7);
        let start = || (vec![0.5f32; 100], vec![0.1f32; 100], vec![0.2f32; 100]);
        let (mut p, mut m, mut v) = start();
        factors.apply(true, &mut p, &gradient, &mut m, &mut v);
        let (mut q, mut n, mut w) = start();
        for range in [0..33, 33..100] {
            let r = || range.clone();
            factors.apply(true, &mut q[r()], &gradient[r()], &mut n[r()], &mut w[r()]);
        }
        assert_eq!((p, m, v), (q, n, w));
    }

    #[test]
    fn bias_moves_against_the_load_and_rests_at_balance() {
        let mut bias = vec![0.0; 6];
        balance(0.5, &[vec![4, 1, 1], vec![2, 2, 2]], &mut bias);
        assert_eq!(bias, [-0.5, 0.5, 0.5, 0.0, 0.0, 0.0]);
    }
}
