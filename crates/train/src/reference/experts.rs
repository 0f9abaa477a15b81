//! The mixture-of-experts layer: routing on the host, one pair of products per expert. No batching of experts.

use candle_core::{D, DType, Device, Result, Tensor};
use isoloss_sweep::Experts;

use super::decoder::{Forward, log_sum_exp, softmax};

/// Who goes where in one layer.
struct Assignment {
    /// `[tokens * top_k]` chosen expert of each (token, slot) pair, best first.
    chosen: Vec<u32>,
    /// Whether a pair found its expert full.
    dropped: Vec<bool>,
}

impl Forward<'_> {
    /// Top-k gated experts, and the shared one, on `x [sequences * len, width]`.
    pub(super) fn experts(&mut self, x: &Tensor, layer: usize) -> Result<Tensor> {
        let spec = self.model.experts.as_ref().expect("only called on a mixture of experts");
        let (count, top_k) = (spec.count as usize, spec.top_k as usize);
        let tokens = self.sequences * self.len;
        let scores = self.product(x, self.weight(layer, "router"), 1.0)?;
        let probabilities = softmax(&scores)?;
        let assignment = self.assign(&probabilities, layer, spec)?;
        self.penalize(&scores, &probabilities, &assignment.chosen, (count, top_k))?;

        let chosen = Tensor::from_slice(&assignment.chosen, (tokens, top_k), &Device::Cpu)?;
        let weights = probabilities.gather(&chosen, 1)?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        let weights = weights.reshape((tokens * top_k, 1))?;
        let mut out = x.zeros_like()?;
        for expert in 0..count {
            let pairs: Vec<u32> = (0..assignment.chosen.len())
                .filter(|&pair| assignment.chosen[pair] as usize == expert && !assignment.dropped[pair])
                .map(|pair| pair as u32)
                .collect();
            if pairs.is_empty() {
                continue;
            }
            let rows: Vec<u32> = pairs.iter().map(|pair| pair / top_k as u32).collect();
            let rows = Tensor::new(rows, &Device::Cpu)?;
            let pairs = Tensor::new(pairs, &Device::Cpu)?;
            let gate_up = &self.weights.stack(&format!("layers.{layer}.experts_gate_up"))[expert];
            let down = &self.weights.stack(&format!("layers.{layer}.experts_down"))[expert];
            let y = self.swiglu(&x.index_select(&rows, 0)?, gate_up, down)?;
            out = out.index_add(&rows, &y.broadcast_mul(&weights.index_select(&pairs, 0)?)?, 0)?;
        }
        if spec.shared_ff > 0 {
            let (gate_up, down) = (self.weight(layer, "shared_gate_up"), self.weight(layer, "shared_down"));
            out = (out + self.swiglu(x, gate_up, down)?)?;
        }
        Ok(out)
    }

    /// Chooses the top k of probability plus bias (ties to the lower index) and applies the capacity of a sequence.
    fn assign(&mut self, probabilities: &Tensor, layer: usize, spec: &Experts) -> Result<Assignment> {
        let (count, top_k) = (spec.count as usize, spec.top_k as usize);
        let rows = probabilities.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let bias: Vec<f64> = match self.router_bias {
            [] => vec![0.0; count],
            all => all[layer * count..][..count].iter().map(|&b| f64::from(b)).collect(),
        };
        let slots = match spec.capacity_factor {
            Some(factor) if self.limited => capacity(factor, self.len, top_k, count),
            _ => u64::MAX,
        };
        let mut load = vec![0u64; count];
        let mut taken = vec![0u64; count];
        let mut chosen = Vec::with_capacity(rows.len() * top_k);
        let mut dropped = Vec::with_capacity(rows.len() * top_k);
        for (position, row) in rows.iter().enumerate() {
            if position % self.len == 0 {
                taken.fill(0);
            }
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by(|&a, &b| (row[b] + bias[b]).total_cmp(&(row[a] + bias[a])).then(a.cmp(&b)));
            for &expert in &order[..top_k] {
                chosen.push(expert as u32);
                load[expert] += 1;
                taken[expert] += 1;
                dropped.push(taken[expert] > slots);
            }
        }
        self.found.dropped += dropped.iter().filter(|&&d| d).count() as u64;
        self.found.load.push(load);
        Ok(Assignment { chosen, dropped })
    }

    /// The layer's load-balance loss (per sequence, then their mean) and z-loss.
    fn penalize(
        &mut self,
        scores: &Tensor,
        probabilities: &Tensor,
        chosen: &[u32],
        shape: (usize, usize),
    ) -> Result<()> {
        let (count, top_k) = shape;
        let pairs = self.len * top_k;
        let mut share = vec![0f64; self.sequences * count];
        for (pair, &expert) in chosen.iter().enumerate() {
            share[pair / pairs * count + expert as usize] += 1.0 / pairs as f64;
        }
        let share = Tensor::from_vec(share, (self.sequences, count), &Device::Cpu)?.to_dtype(scores.dtype())?;
        let mean = probabilities.reshape((self.sequences, self.len, count))?.mean(1)?;
        let balance = ((share * mean)?.sum_all()? * (count as f64 / self.sequences as f64))?;
        let z = log_sum_exp(scores)?.sqr()?.mean_all()?;
        self.found.penalties.push((balance, z));
        Ok(())
    }
}

/// Slots of one expert for one sequence.
pub(crate) fn capacity(factor: f64, len: usize, top_k: usize, experts: usize) -> u64 {
    (factor * (len * top_k) as f64 / experts as f64).ceil() as u64
}
