//! The routed half of a mixture-of-experts layer on one sequence: gather rows by expert, run the experts, scatter back.

use isoloss_sweep::Experts;

use super::gated;
use super::linear::{Into, Linear, Weights};
use super::router::{DROPPED, Routing, router_softmax};
use super::simd::{Level, kernel, stream, sum_products};
use super::weights::Layer;

/// What a layer keeps of its routed experts.
pub(super) struct Routed {
    pub(super) routing: Routing,
    /// `[rows, 2f]`
    gate_up: Vec<f32>,
    /// `[rows, d]`, before the gates.
    out: Vec<f32>,
    pub(super) dropped: u64,
}

impl Routed {
    pub(super) fn new(positions: usize, width: usize, spec: &Experts) -> Self {
        let pairs = positions * spec.top_k as usize;
        Self {
            routing: Routing::new(positions, spec),
            gate_up: vec![0.0; pairs * 2 * spec.ff as usize],
            out: vec![0.0; pairs * width],
            dropped: 0,
        }
    }
}

/// Room for one expert's rows: a token comes to an expert once at most.
pub(super) struct Scratch {
    x: Vec<f32>,
    d_out: Vec<f32>,
    dx: Vec<f32>,
    d_gates: Vec<f32>,
    d_logits: Vec<f32>,
}

impl Scratch {
    pub(super) fn new(positions: usize, width: usize, spec: Option<&Experts>) -> Self {
        let sized = |of: fn(&Experts) -> u32| vec![0.0; spec.map_or(0, |e| positions * of(e) as usize)];
        let wide = || vec![0.0; spec.map_or(0, |_| positions * width)];
        Self { x: wide(), d_out: wide(), dx: wide(), d_gates: sized(|e| e.top_k), d_logits: sized(|e| e.count) }
    }
}

/// One layer's experts, and how they are to route.
#[derive(Clone, Copy)]
pub(super) struct Mixture<'a> {
    pub(super) level: Level,
    pub(super) spec: &'a Experts,
    pub(super) layer: &'a Layer,
    pub(super) weights: Weights<'a>,
    /// Balancing bias of this layer.
    pub(super) bias: Option<&'a [f32]>,
    /// Whether the capacity limit holds: in training only.
    pub(super) limited: bool,
}

impl Mixture<'_> {
    /// Most rows of one expert.
    fn capacity(&self, positions: usize) -> usize {
        let pairs = (positions * self.spec.top_k as usize) as f64;
        match self.spec.capacity_factor {
            Some(factor) if self.limited => (factor * pairs / f64::from(self.spec.count)).ceil() as usize,
            _ => positions,
        }
    }

    fn router(&self) -> &Linear {
        self.layer.router.as_ref().expect("a layer with experts has a router")
    }

    /// The weights as the router reads them: in f32 always.
    fn exact(&self) -> Weights<'_> {
        Weights { pairs: None, ..self.weights }
    }

    /// Adds the experts' weighted outputs for `h [T, d]` to `out`.
    pub(super) fn forward(
        &self,
        h: &[f32],
        out: &mut [f32],
        routed: &mut Routed,
        room: &mut Scratch,
        unit: &mut gated::Scratch,
    ) {
        let Self { level, weights, .. } = *self;
        let (e, d) = (self.layer.experts.len(), self.layer.experts[0].width);
        let t = h.len() / d;
        let routing = &mut routed.routing;
        let logits = &mut routing.probabilities[..t * e];
        self.router().forward(level, self.exact(), h, logits, Into::Set, &mut unit.pack);
        router_softmax(level, e, logits, &mut routing.lse);
        routed.dropped = routing.choose(t, self.bias, self.capacity(t));
        for (expert, gated) in self.layer.experts.iter().enumerate() {
            let span = routing.rows(expert);
            let x = &mut room.x[..span.len() * d];
            gather(routing, span.clone(), h, d, x);
            let wide = 2 * gated.ff;
            let gate_up = &mut routed.gate_up[span.start * wide..span.end * wide];
            let y = &mut routed.out[span.start * d..span.end * d];
            gated.forward(level, weights, x, gate_up, y, Into::Set, unit);
        }
        let pairs = t * routing.top_k;
        combine(level, d, routing.top_k, &routing.row_of_pair[..pairs], &routing.gates, &routed.out, out);
    }

    /// Adds the gradients of the experts, the router and their input, from that of the output, `dy [T, d]`; `scale` is
    /// one over the batch.
    pub(super) fn backward(
        &self,
        scale: f64,
        h: &[f32],
        dy: &[f32],
        dh: &mut [f32],
        routed: &Routed,
        gradient: &mut [f32],
        room: &mut Scratch,
        unit: &mut gated::Scratch,
    ) {
        let Self { level, weights, .. } = *self;
        let (e, d) = (self.layer.experts.len(), self.layer.experts[0].width);
        let t = h.len() / d;
        let routing = &routed.routing;
        let d_gates = &mut room.d_gates[..t * routing.top_k];
        gate_gradient(level, d, routing.top_k, &routing.row_of_pair, &routed.out, dy, d_gates);
        for (expert, gated) in self.layer.experts.iter().enumerate() {
            let span = routing.rows(expert);
            let [x, d_out, dx] = [&mut room.x, &mut room.d_out, &mut room.dx].map(|all| &mut all[..span.len() * d]);
            gather(routing, span.clone(), h, d, x);
            gather(routing, span.clone(), dy, d, d_out);
            let pairs = &routing.pair_of_row[span.clone()];
            weigh(level, d, pairs, &routing.gates, d_out);
            let wide = 2 * gated.ff;
            let gate_up = &routed.gate_up[span.start * wide..span.end * wide];
            gated.backward(level, weights, x, gate_up, d_out, dx, Into::Set, gradient, unit);
            scatter(level, d, routing.top_k, pairs, dx, dh);
        }
        let d_logits = &mut room.d_logits[..t * e];
        routing.backward(self.spec, t, scale, d_gates, d_logits);
        self.router().by_weight(level, self.exact(), h, d_logits, gradient, &mut unit.pack);
        self.router().by_input(level, self.exact(), d_logits, dh, Into::Add, &mut unit.pack);
    }
}

/// The tokens' rows of `from` that belong to an expert's `span`.
fn gather(routing: &Routing, span: std::ops::Range<usize>, from: &[f32], width: usize, to: &mut [f32]) {
    for (&pair, to) in routing.pair_of_row[span].iter().zip(to.chunks_exact_mut(width)) {
        let token = pair as usize / routing.top_k;
        to.copy_from_slice(&from[token * width..][..width]);
    }
}

kernel! {
    /// Adds each token's gated expert outputs to its row, slot by slot.
    fn combine(
        simd, width: usize, top_k: usize, row_of_pair: &'a [u32], gates: &'a [f32], out: &'a [f32], to: &'a mut [f32],
    ) {
        let pairs = row_of_pair.chunks_exact(top_k).zip(gates.chunks_exact(top_k));
        for (to, (taken, gates)) in to.chunks_exact_mut(width).zip(pairs) {
            for (&row, &gate) in taken.iter().zip(gates).filter(|(row, _)| **row != DROPPED) {
                let gate = simd.splat(gate);
                stream(simd, [&out[row as usize * width..][..width]], [&mut *to], #[inline(always)] |[y], [to]| [simd.fma(y, gate, to)]);
            }
        }
    }
}

kernel! {
    /// Gradient by each pair's gate: its expert's output along the gradient of the sum; zero where dropped.
    fn gate_gradient(
        simd, width: usize, top_k: usize, row_of_pair: &'a [u32], out: &'a [f32], dy: &'a [f32], d_gates: &'a mut [f32],
    ) {
        for (pair, (d_gate, &row)) in d_gates.iter_mut().zip(row_of_pair).enumerate() {
            *d_gate = 0.0;
            if row != DROPPED {
                let dy = &dy[pair / top_k * width..][..width];
                *d_gate = sum_products(simd, dy, &out[row as usize * width..][..width]);
            }
        }
    }
}

kernel! {
    /// Multiplies each gathered row by its pair's gate.
    fn weigh(simd, width: usize, pairs: &'a [u32], gates: &'a [f32], x: &'a mut [f32]) {
        for (row, &pair) in x.chunks_exact_mut(width).zip(pairs) {
            let gate = simd.splat(gates[pair as usize]);
            stream(simd, [], [row], #[inline(always)] |[], [x]| [simd.mul(x, gate)]);
        }
    }
}

kernel! {
    /// Adds each gathered row to its token's.
    fn scatter(simd, width: usize, top_k: usize, pairs: &'a [u32], from: &'a [f32], to: &'a mut [f32]) {
        for (from, &pair) in from.chunks_exact(width).zip(pairs) {
            let to = &mut to[pair as usize / top_k * width..][..width];
            stream(simd, [from], [to], #[inline(always)] |[x], [to]| [simd.add(to, x)]);
        }
    }
}
