//! Where each layer's tensors lie in the flat buffer.

use std::ops::Range;
use std::sync::Mutex;

use isoloss_sweep::Model;

use super::lanes::{self, Worker};
use super::linear::Linear;
use super::pairs::Pair;
use super::simd::Level;
use crate::layout::Layout;

/// The tensors of one SwiGLU unit: a dense layer, one expert or the shared expert.
#[derive(Debug, Clone)]
pub(super) struct Gated {
    pub(super) width: usize,
    pub(super) ff: usize,
    pub(super) gate_up: Linear,
    pub(super) down: Linear,
}

#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) attention_norm: Range<usize>,
    pub(super) qkv: Linear,
    pub(super) attention_out: Linear,
    pub(super) ff_norm: Range<usize>,
    /// Always multiplied in f32: choices hang on small differences.
    pub(super) router: Option<Linear>,
    pub(super) experts: Vec<Gated>,
    /// The dense layer, or the expert that every token passes.
    pub(super) common: Option<Gated>,
}

/// All tensors of a model.
#[derive(Debug, Clone)]
pub(super) struct Map {
    pub(super) embedding: Range<usize>,
    pub(super) layers: Vec<Layer>,
    pub(super) final_norm: Range<usize>,
    /// The head, or the embedding table turned.
    pub(super) head: Linear,
    /// Pairs that all matrices take.
    pub(super) pairs: usize,
}

impl Map {
    pub(super) fn of(model: &Model, layout: &Layout) -> Self {
        let width = model.width as usize;
        let mut pairs = 0;
        let embedding = layout.view("embedding").range();
        let layers = (0..model.layers).map(|layer| Layer::of(model, layout, layer, &mut pairs)).collect();
        let head = if model.tied { embedding.clone() } else { layout.view("head").range() };
        let head = Linear::new(head, width, model.tied, &mut pairs);
        Self { embedding, layers, final_norm: layout.view("final_norm").range(), head, pairs }
    }

    /// Brings `flipped`, and `pairs` in bf16, up to date with `params`, a matrix at a time on any of the workers. In bf16
    /// only the routers are flipped.
    pub(super) fn refresh(
        &self,
        level: Level,
        params: &[f32],
        flipped: &mut [f32],
        pairs: Option<&mut [Pair]>,
        workers: &mut [Worker],
    ) {
        let routers = || self.layers.iter().filter_map(|layer| layer.router.as_ref());
        let matrices = self.layers.iter().flat_map(Layer::matrices).chain([&self.head]);
        let Some(pairs) = pairs else {
            let all = matrices.chain(routers()).map(|matrix| (matrix.range.clone(), matrix));
            let jobs = Jobs::of(flipped, all.collect());
            return lanes::each(workers, jobs.count, |_| jobs.work(|matrix, to| matrix.flip(level, params, to)));
        };
        let jobs = Jobs::of(pairs, matrices.map(|matrix| (matrix.pairs(), matrix)).collect());
        lanes::each(workers, jobs.count, |worker| {
            jobs.work(|matrix, to| matrix.pack(level, params, to, &mut worker.room.gated.pack));
        });
        let jobs = Jobs::of(flipped, routers().map(|router| (router.range.clone(), router)).collect());
        jobs.work(|router, to| router.flip(level, params, to));
    }
}

/// Matrices with the part of a buffer that each fills, to be taken by whoever is free.
struct Jobs<'a, T> {
    count: usize,
    left: Mutex<Vec<(&'a Linear, &'a mut [T])>>,
}

impl<'a, T> Jobs<'a, T> {
    /// The ranges must not overlap.
    fn of(mut buffer: &'a mut [T], mut parts: Vec<(Range<usize>, &'a Linear)>) -> Self {
        parts.sort_by_key(|(range, _)| range.start);
        let (mut left, mut passed) = (Vec::with_capacity(parts.len()), 0);
        for (range, matrix) in parts {
            let (_, rest) = buffer.split_at_mut(range.start - passed);
            let (part, rest) = rest.split_at_mut(range.len());
            (buffer, passed) = (rest, range.end);
            left.push((matrix, part));
        }
        Self { count: left.len(), left: Mutex::new(left) }
    }

    fn work(&self, mut fill: impl FnMut(&Linear, &mut [T])) {
        loop {
            let taken = self.left.lock().expect("taking a matrix does not panic").pop();
            let Some((matrix, part)) = taken else { return };
            fill(matrix, part);
        }
    }
}

impl Layer {
    fn of(model: &Model, layout: &Layout, layer: u32, pairs: &mut usize) -> Self {
        let view = |part: &str| layout.view(&format!("layers.{layer}.{part}")).range();
        let width = model.width as usize;
        let mut linear = |range, inputs| Linear::new(range, inputs, false, pairs);
        let (qkv, attention_out) = (linear(view("qkv"), width), linear(view("attention_out"), width));
        let mut unit = |gate_up, down, ff: u32| {
            let ff = ff as usize;
            Gated { width, ff, gate_up: linear(gate_up, width), down: linear(down, ff) }
        };
        let (router, experts, common) = match &model.experts {
            None => (None, Vec::new(), Some(unit(view("gate_up"), view("down"), model.ff))),
            Some(e) => {
                let (ups, downs) = (view("experts_gate_up"), view("experts_down"));
                let down = width * e.ff as usize;
                let experts = (0..e.count as usize).map(|i| {
                    let (ups, downs) = (ups.start + 2 * i * down, downs.start + i * down);
                    unit(ups..ups + 2 * down, downs..downs + down, e.ff)
                });
                let experts = experts.collect();
                let shared = (e.shared_ff > 0).then(|| unit(view("shared_gate_up"), view("shared_down"), e.shared_ff));
                (Some(linear(view("router"), width)), experts, shared)
            }
        };
        Self {
            attention_norm: view("attention_norm"),
            qkv,
            attention_out,
            ff_norm: view("ff_norm"),
            router,
            experts,
            common,
        }
    }

    /// All but the router.
    fn matrices(&self) -> impl Iterator<Item = &Linear> {
        let units = self.experts.iter().chain(&self.common);
        [&self.qkv, &self.attention_out].into_iter().chain(units.flat_map(|unit| [&unit.gate_up, &unit.down]))
    }
}
