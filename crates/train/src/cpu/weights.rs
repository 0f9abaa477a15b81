//! Where each layer's tensors lie in the flat buffer, and their transposes, which the backward products read.

use std::ops::Range;

use isoloss_sweep::Model;

use super::simd::Level;
use super::transpose::transpose;
use crate::layout::Layout;

/// The tensors of one SwiGLU unit: a dense layer, one expert or the shared expert.
#[derive(Debug, Clone)]
pub(super) struct Gated {
    pub(super) width: usize,
    pub(super) ff: usize,
    pub(super) gate_up: Range<usize>,
    pub(super) down: Range<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) attention_norm: Range<usize>,
    pub(super) qkv: Range<usize>,
    pub(super) attention_out: Range<usize>,
    pub(super) ff_norm: Range<usize>,
    pub(super) router: Option<Range<usize>>,
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
    /// `None` when the embedding table serves as head.
    pub(super) head: Option<Range<usize>>,
}

/// Parameters and the transposes of their matrices, at equal offsets.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) params: &'a [f32],
    pub(super) flipped: &'a [f32],
}

impl Map {
    pub(super) fn of(model: &Model, layout: &Layout) -> Self {
        Self {
            embedding: layout.view("embedding").range(),
            layers: (0..model.layers).map(|layer| Layer::of(model, layout, layer)).collect(),
            final_norm: layout.view("final_norm").range(),
            head: (!model.tied).then(|| layout.view("head").range()),
        }
    }

    /// Brings `flipped` up to date with `params`.
    pub(super) fn flip(&self, level: Level, width: usize, params: &[f32], flipped: &mut [f32]) {
        let mut flip = |range: &Range<usize>, height: usize| {
            let across = range.len() / height;
            let (from, to) = (&params[range.clone()], &mut flipped[range.clone()]);
            transpose(level, height, across, from, across, to, height);
        };
        for layer in &self.layers {
            flip(&layer.qkv, width);
            flip(&layer.attention_out, width);
            if let Some(router) = &layer.router {
                flip(router, width);
            }
            for unit in layer.experts.iter().chain(&layer.common) {
                flip(&unit.gate_up, width);
                flip(&unit.down, unit.ff);
            }
        }
        match &self.head {
            Some(head) => flip(head, width),
            None => flip(&self.embedding, self.embedding.len() / width),
        }
    }
}

impl Layer {
    fn of(model: &Model, layout: &Layout, layer: u32) -> Self {
        let view = |part: &str| layout.view(&format!("layers.{layer}.{part}")).range();
        let width = model.width as usize;
        let unit = |gate_up, down, ff: u32| Gated { width, ff: ff as usize, gate_up, down };
        let (router, experts, common) = match &model.experts {
            None => (None, Vec::new(), Some(unit(view("gate_up"), view("down"), model.ff))),
            Some(e) => {
                let (ups, downs) = (view("experts_gate_up"), view("experts_down"));
                let down = width * e.ff as usize;
                let experts = (0..e.count as usize).map(|i| {
                    let (ups, downs) = (ups.start + 2 * i * down, downs.start + i * down);
                    unit(ups..ups + 2 * down, downs..downs + down, e.ff)
                });
                let shared = (e.shared_ff > 0).then(|| unit(view("shared_gate_up"), view("shared_down"), e.shared_ff));
                (Some(view("router")), experts.collect(), shared)
            }
        };
        Self {
            attention_norm: view("attention_norm"),
            qkv: view("qkv"),
            attention_out: view("attention_out"),
            ff_norm: view("ff_norm"),
            router,
            experts,
            common,
        }
    }
}
