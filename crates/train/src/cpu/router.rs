//! Routing of one sequence: softmax over experts, top-k, gates, capacity, and their gradients. No expert runs here.

use isoloss_sweep::Experts;

use super::simd::{exp_sum, kernel, maximum, stream};

/// Marks a (token, slot) pair that the capacity limit dropped.
pub(super) const DROPPED: u32 = u32::MAX;

/// Where the tokens of a sequence go. Pairs are numbered `token * top_k + slot`, best score first.
pub(super) struct Routing {
    pub(super) experts: usize,
    pub(super) top_k: usize,
    /// `[T, experts]`: the router's product, then its softmax.
    pub(super) probabilities: Vec<f32>,
    /// Log-sum-exp of each token's router logits.
    pub(super) lse: Vec<f32>,
    /// Expert of each pair.
    chosen: Vec<u32>,
    /// Weight of each pair.
    pub(super) gates: Vec<f32>,
    /// Sum of each token's chosen probabilities.
    sums: Vec<f32>,
    /// Row of each pair among the gathered rows, expert after expert; or [`DROPPED`].
    pub(super) row_of_pair: Vec<u32>,
    /// First row of each expert, and the end.
    pub(super) first: Vec<usize>,
    /// Pair of each gathered row.
    pub(super) pair_of_row: Vec<u32>,
    /// Pairs of each expert before drops.
    pub(super) load: Vec<u64>,
}

impl Routing {
    pub(super) fn new(positions: usize, spec: &Experts) -> Self {
        let (experts, top_k) = (spec.count as usize, spec.top_k as usize);
        Self {
            experts,
            top_k,
            probabilities: vec![0.0; positions * experts],
            lse: vec![0.0; positions],
            chosen: vec![0; positions * top_k],
            gates: vec![0.0; positions * top_k],
            sums: vec![0.0; positions],
            row_of_pair: vec![DROPPED; positions * top_k],
            first: vec![0; experts + 1],
            pair_of_row: vec![0; positions * top_k],
            load: vec![0; experts],
        }
    }

    /// Chooses and weighs, from the probabilities and the balancing bias, where there is one; returns the drops.
    pub(super) fn choose(&mut self, positions: usize, bias: Option<&[f32]>, capacity: usize) -> u64 {
        let Self { experts, top_k, .. } = *self;
        self.load.fill(0);
        for token in 0..positions {
            let scores = &self.probabilities[token * experts..][..experts];
            let pairs = token * top_k..(token + 1) * top_k;
            let chosen = &mut self.chosen[pairs.clone()];
            for slot in 0..top_k {
                let (taken, rest) = chosen.split_at_mut(slot);
                rest[0] = best(scores, bias, taken);
            }
            let gates = &mut self.gates[pairs];
            for (gate, &expert) in gates.iter_mut().zip(&*chosen) {
                *gate = scores[expert as usize];
                self.load[expert as usize] += 1;
            }
            let sum: f32 = gates.iter().sum();
            self.sums[token] = sum;
            gates.iter_mut().for_each(|gate| *gate /= sum);
        }
        self.place(positions, capacity)
    }

    /// Gives every kept pair its row; pairs come in order of position, so the first ones fill an expert's slots.
    fn place(&mut self, positions: usize, capacity: usize) -> u64 {
        let mut dropped = 0;
        self.first[0] = 0;
        for (expert, &load) in self.load.iter().enumerate() {
            let kept = load.min(capacity as u64);
            dropped += load - kept;
            self.first[expert + 1] = self.first[expert] + kept as usize;
        }
        let mut next = self.first.clone();
        for pair in 0..positions * self.top_k {
            let expert = self.chosen[pair] as usize;
            let row = &mut self.row_of_pair[pair];
            *row = DROPPED;
            if next[expert] < self.first[expert + 1] {
                *row = next[expert] as u32;
                self.pair_of_row[next[expert]] = pair as u32;
                next[expert] += 1;
            }
        }
        dropped
    }

    /// Rows of an expert.
    pub(super) fn rows(&self, expert: usize) -> std::ops::Range<usize> {
        self.first[expert]..self.first[expert + 1]
    }

    /// Load-balance loss and router z-loss of the sequence, before their coefficients.
    pub(super) fn losses(&self, positions: usize) -> (f64, f64) {
        let mut balance = 0.0;
        for expert in 0..self.experts {
            let column = self.probabilities[expert..].iter().step_by(self.experts).take(positions);
            let mean = column.map(|&p| f64::from(p)).sum::<f64>() / positions as f64;
            balance += self.experts as f64 * self.share(expert, positions) * mean;
        }
        let squares = self.lse[..positions].iter().map(|&z| f64::from(z) * f64::from(z));
        (balance, squares.sum::<f64>() / positions as f64)
    }

    /// Share of the sequence's pairs that chose this expert.
    fn share(&self, expert: usize, positions: usize) -> f64 {
        self.load[expert] as f64 / (positions * self.top_k) as f64
    }

    /// Gradient by the router logits, `[T, experts]`, from that by the gates; `scale` is one over the batch.
    pub(super) fn backward(&self, spec: &Experts, positions: usize, scale: f64, d_gates: &[f32], d_logits: &mut [f32]) {
        let Self { experts, top_k, .. } = *self;
        let each = scale / positions as f64;
        let balance: Vec<f32> = (0..experts)
            .map(|i| (spec.aux_loss_coef * experts as f64 * self.share(i, positions) * each) as f32)
            .collect();
        let z = (2.0 * spec.router_z_loss_coef * each) as f32;
        let tokens = self.probabilities.chunks_exact(experts).zip(d_logits.chunks_exact_mut(experts));
        for (token, (p, d)) in tokens.take(positions).enumerate() {
            d.copy_from_slice(&balance);
            let pairs = token * top_k..(token + 1) * top_k;
            let (gates, d_gates) = (&self.gates[pairs.clone()], &d_gates[pairs.clone()]);
            // gate_j = p_j / sum of chosen p
            let along: f32 = gates.iter().zip(d_gates).map(|(g, d)| g * d).sum();
            for (&expert, d_gate) in self.chosen[pairs].iter().zip(d_gates) {
                d[expert as usize] += (d_gate - along) / self.sums[token];
            }
            let mean: f32 = p.iter().zip(&*d).map(|(p, d)| p * d).sum();
            let pull = z * self.lse[token] - mean;
            d.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d + pull));
        }
    }
}

/// The best expert not yet taken, by probability plus bias; ties go to the lower index.
fn best(scores: &[f32], bias: Option<&[f32]>, taken: &[u32]) -> u32 {
    let mut found: Option<(u32, f32)> = None;
    for (expert, &score) in scores.iter().enumerate() {
        let score = score + bias.map_or(0.0, |bias| bias[expert]);
        let expert = expert as u32;
        // Written so that the first candidate stands even when every score is not a number.
        if !taken.contains(&expert) && found.is_none_or(|(_, most)| score > most) {
            found = Some((expert, score));
        }
    }
    found.expect("top_k is at most the number of experts").0
}

kernel! {
    /// Rows of router logits become probabilities.
    fn router_softmax(simd, experts: usize, logits: &'a mut [f32], lse: &'a mut [f32]) {
        for (row, lse) in logits.chunks_exact_mut(experts).zip(lse) {
            let most = maximum(simd, row);
            let sum = exp_sum(simd, row, most);
            *lse = most + sum.ln();
            let factor = simd.splat(1.0 / sum);
            stream(simd, [], [row], #[inline(always)] |[], [e]| [simd.mul(e, factor)]);
        }
    }
}
