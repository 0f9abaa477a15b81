//! Where everything lies in the GPU's memory: one block, laid out before it is asked for, so that its size is known
//! without a GPU.

use isoloss_gpu::{Address, Kind};
use isoloss_sweep::{Experts, Model};

use super::gated::Inside;
use super::steps::Rows;
use crate::layout::{Layout, View};

/// Every buffer starts on this.
const ALIGNMENT: u64 = 256;
/// Rows and columns of a tile of our own products: each expert's rows are filled up to it.
pub(super) const TILE: usize = 128;
/// Logits held at a time, bytes with their gradient: about what a GPU's second-level cache takes.
const LOGIT_BYTES: usize = 32 << 20;
/// Positions of one token that are summed as one piece.
pub(super) const SEGMENT: usize = 64;
/// Blocks that share the gradient of a gain at most, and a global sum: part of the numerics.
pub(super) const GAIN_BLOCKS: usize = 528;
const NORM_BLOCKS: usize = 512;
/// Steps that may be made before their reports are read.
pub(super) const REPORTS: usize = 16;

/// Gives out addresses one after the other, from wherever it starts.
pub(super) struct Taker {
    next: u64,
}

impl Taker {
    pub(super) fn from(start: Address) -> Self {
        Self { next: start }
    }

    fn bytes(&mut self, bytes: u64) -> Address {
        let at = self.next;
        self.next = (at + bytes).next_multiple_of(ALIGNMENT);
        at
    }

    fn of(&mut self, count: usize, bytes: u64) -> Address {
        self.bytes(count as u64 * bytes)
    }

    fn f32s(&mut self, count: usize) -> Address {
        self.of(count, 4)
    }

    fn u32s(&mut self, count: usize) -> Address {
        self.of(count, 4)
    }

    pub(super) fn end(&self) -> Address {
        self.next
    }
}

/// Params, moments and gradient by the one layout; and the copy that products read, each tensor on a boundary.
pub(super) struct Weights {
    pub(super) layout: Layout,
    pub(super) params: Address,
    pub(super) first_moment: Address,
    pub(super) second_moment: Address,
    pub(super) gradient: Address,
    /// In bf16 runs: the rounded copy.
    pub(super) rounded: Option<Address>,
    /// First element of each view in the copy.
    pub(super) shifted: Vec<u64>,
    /// `[layers, experts]`, where the model balances by bias.
    pub(super) router_bias: Option<Address>,
    /// Tables of the optimizer: ends, decays and places in the copy of all views.
    pub(super) ends: Address,
    pub(super) decays: Address,
    pub(super) places: Address,
}

impl Weights {
    fn lay(model: &Model, kind: Kind, take: &mut Taker) -> Self {
        let layout = Layout::of(model);
        let len = layout.len();
        let mut shifted = Vec::with_capacity(layout.views().len());
        let mut copy = 0u64;
        for view in layout.views() {
            shifted.push(copy);
            copy = (copy + view.len as u64).next_multiple_of(ALIGNMENT / 2);
        }
        let views = layout.views().len();
        let balanced = model.experts.as_ref().filter(|e| e.bias_update > 0.0);
        Self {
            params: take.f32s(len),
            first_moment: take.f32s(len),
            second_moment: take.f32s(len),
            gradient: take.f32s(len),
            rounded: (kind == Kind::Bf16).then(|| take.of(copy as usize, 2)),
            router_bias: balanced.map(|e| take.f32s((model.layers * e.count) as usize)),
            ends: take.of(views, 8),
            decays: take.u32s(views),
            places: take.of(views, 8),
            shifted,
            layout,
        }
    }

    fn view(&self, name: &str) -> (usize, &View) {
        let found = self.layout.views().iter().enumerate().find(|(_, view)| view.name == name);
        found.unwrap_or_else(|| panic!("no tensor {name} in this layout"))
    }

    /// The tensor as products read it.
    pub(super) fn operand(&self, name: &str) -> Address {
        let (index, view) = self.view(name);
        match self.rounded {
            Some(rounded) => rounded + 2 * self.shifted[index],
            None => self.params + 4 * view.offset as u64,
        }
    }

    /// The tensor in f32.
    pub(super) fn exact(&self, name: &str) -> Address {
        self.params + 4 * self.view(name).1.offset as u64
    }

    pub(super) fn gradient(&self, name: &str) -> Address {
        self.gradient + 4 * self.view(name).1.offset as u64
    }
}

/// What a SwiGLU unit keeps of its forward pass: `[rows, 2f]` and `[rows, f]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gated {
    pub(super) gate_up: Address,
    pub(super) act: Address,
}

/// What a layer keeps of its routing and experts.
pub(super) struct Mixture {
    /// The normed input in f32, for the router.
    pub(super) exact: Address,
    pub(super) probabilities: Address,
    pub(super) lse: Address,
    pub(super) chosen: Address,
    pub(super) gates: Address,
    pub(super) sums: Address,
    pub(super) counts: Address,
    pub(super) first_row: Address,
    pub(super) tile_expert: Address,
    pub(super) row_of_pair: Address,
    pub(super) pair_of_row: Address,
    /// `[expert rows, d]`, `[expert rows, 2f]`, `[expert rows, f]`, `[expert rows, d]`.
    pub(super) x: Address,
    pub(super) gated: Gated,
    pub(super) y: Address,
}

/// What one layer keeps of its forward pass.
pub(super) struct Layer {
    /// Residual stream on entry and between the halves, `[rows, d]` f32.
    pub(super) x: Address,
    pub(super) middle: Address,
    pub(super) attention_input: Address,
    pub(super) attention_inverse: Address,
    /// Queries and keys turned.
    pub(super) qkv: Address,
    pub(super) attention_output: Address,
    /// `[heads, rows]`
    pub(super) lse: Address,
    pub(super) ff_input: Address,
    pub(super) ff_inverse: Address,
    /// Of the dense layer or the shared expert.
    pub(super) common: Option<Gated>,
    pub(super) mixture: Option<Mixture>,
}

/// Room for routing that is needed within a layer only, and for gradients by experts' rows.
pub(super) struct Routing {
    pub(super) masks: Address,
    pub(super) before: Address,
    pub(super) end_row: Address,
    pub(super) base: Address,
    pub(super) losses: Address,
    pub(super) d_gates: Address,
    pub(super) d_logits: Address,
    /// Gradient by the router's input, `[rows, d]` f32.
    pub(super) d_exact: Address,
    pub(super) d_out: Address,
    pub(super) d_act: Address,
    pub(super) d_gate_up: Address,
    pub(super) d_x: Address,
}

/// What the host writes for each pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    pub(super) tokens: Address,
    pub(super) targets: Address,
    /// Positions by token; segments as (token, begin, end); first segment of each token.
    pub(super) order: Address,
    pub(super) segments: Address,
    pub(super) first_segment: Address,
}

pub(super) struct Room {
    pub(super) weights: Weights,
    pub(super) layers: Vec<Layer>,
    pub(super) input: Input,
    /// The scalars of a step, and the slot of its report.
    pub(super) update: Address,
    pub(super) slot: Address,
    /// Cosines and sines, `[context, head / 2, 2]`.
    pub(super) turns: Address,
    pub(super) x: Address,
    pub(super) final_input: Address,
    pub(super) final_inverse: Address,
    pub(super) logits: Address,
    pub(super) d_logits: Address,
    pub(super) nats: Address,
    /// Gradient of the residual stream, in f32 and as products read it.
    pub(super) dx: Address,
    pub(super) dx_real: Address,
    /// Gradient of a norm's output.
    pub(super) dh: Address,
    pub(super) d_qkv: Address,
    pub(super) d_attention: Address,
    /// `[heads, rows]`
    pub(super) delta: Address,
    pub(super) d_gate_up: Address,
    /// Of an activation, where that is not inside of a product.
    pub(super) d_act: Address,
    /// Parts of a gain's gradient, and of the embedding's.
    pub(super) gains: Address,
    pub(super) embedded: Address,
    pub(super) squares: Address,
    pub(super) routing: Option<Routing>,
    /// Sums of the step under way, and of the last steps; see `report.rs`.
    pub(super) report: Address,
    pub(super) reports: Address,
    end: Address,
}

/// Blocks that share the sum of squares of `len` elements; a block takes 1024 at a time.
pub(super) fn norm_blocks(len: usize) -> usize {
    len.div_ceil(1024).min(NORM_BLOCKS)
}

/// Rows of logits that are held at a time.
pub(super) fn head_rows(model: &Model, rows: usize) -> usize {
    let each = model.vocab as usize * 8;
    (LOGIT_BYTES / each).next_multiple_of(TILE).min(rows)
}

/// Most segments that a batch's tokens fall into.
pub(super) fn segments(model: &Model, rows: usize) -> usize {
    model.vocab as usize + rows.div_ceil(SEGMENT)
}

/// Tiles that hold all experts' rows, however they fall.
pub(super) fn tiles(experts: &Experts, rows: usize) -> usize {
    (rows * experts.top_k as usize).div_ceil(TILE) + experts.count as usize
}

impl Room {
    /// Lays everything out from `start` on, for this many sequences of the model's context at a time.
    pub(super) fn lay(model: &Model, kind: Kind, sequences: usize, start: Address) -> Self {
        let rows = Rows { sequences, positions: model.context as usize };
        let mut take = Taker::from(start);
        let weights = Weights::lay(model, kind, &mut take);
        let layers = (0..model.layers).map(|_| Layer::lay(model, kind, rows, &mut take)).collect();
        let routing = model.experts.as_ref().map(|e| Routing::lay(model, e, kind, rows, &mut take));
        let (t, d, vocab) = (rows.count(), model.width as usize, model.vocab as usize);
        let common = model.experts.as_ref().map_or(model.ff, |e| e.shared_ff) as usize;
        let (real, inside) = (kind.bytes(), Inside::of(model, kind));
        let held = head_rows(model, t);
        let parts = segments(model, t);
        let words = super::report::words(model);
        let mut room = Self {
            weights,
            layers,
            routing,
            input: Input {
                tokens: take.u32s(t),
                targets: take.u32s(t),
                order: take.u32s(t),
                segments: take.u32s(3 * parts),
                first_segment: take.u32s(vocab + 1),
            },
            update: take.bytes(ALIGNMENT),
            slot: take.bytes(ALIGNMENT),
            turns: take.f32s(rows.positions * model.head_width() as usize),
            x: take.f32s(t * d),
            final_input: take.of(t * d, real),
            final_inverse: take.f32s(t),
            logits: take.f32s(held * vocab),
            d_logits: take.of(held * vocab, real),
            nats: take.f32s(t),
            dx: take.f32s(t * d),
            dx_real: take.of(t * d, real),
            dh: take.of(t * d, real),
            d_qkv: take.of(t * 3 * d, real),
            d_attention: take.of(t * d, real),
            delta: take.f32s(t * model.heads as usize),
            d_gate_up: take.of(t * 2 * common, real),
            d_act: take.of(if inside.gradient { 0 } else { t * common }, real),
            gains: take.f32s(GAIN_BLOCKS * d),
            embedded: take.f32s(parts * d),
            squares: take.of(NORM_BLOCKS, 8),
            report: take.of(words, 8),
            reports: take.of(REPORTS * words, 8),
            end: 0,
        };
        room.end = take.end();
        room
    }

    /// Bytes of the whole.
    pub(super) fn bytes(model: &Model, kind: Kind, sequences: usize) -> u64 {
        Self::lay(model, kind, sequences, 0).end
    }
}

impl Layer {
    fn lay(model: &Model, kind: Kind, rows: Rows, take: &mut Taker) -> Self {
        let (t, d, real) = (rows.count(), model.width as usize, kind.bytes());
        let common = model.experts.as_ref().map_or(model.ff, |e| e.shared_ff) as usize;
        Self {
            x: take.f32s(t * d),
            middle: take.f32s(t * d),
            attention_input: take.of(t * d, real),
            attention_inverse: take.f32s(t),
            qkv: take.of(t * 3 * d, real),
            attention_output: take.of(t * d, real),
            lse: take.f32s(t * model.heads as usize),
            ff_input: take.of(t * d, real),
            ff_inverse: take.f32s(t),
            common: (common > 0).then(|| Gated::lay(t, common, real, take)),
            mixture: model.experts.as_ref().map(|e| Mixture::lay(model, e, kind, rows, take)),
        }
    }
}

impl Gated {
    fn lay(rows: usize, ff: usize, real: u64, take: &mut Taker) -> Self {
        Self { gate_up: take.of(rows * 2 * ff, real), act: take.of(rows * ff, real) }
    }
}

impl Mixture {
    fn lay(model: &Model, experts: &Experts, kind: Kind, rows: Rows, take: &mut Taker) -> Self {
        let (t, d, real) = (rows.count(), model.width as usize, kind.bytes());
        let (e, k) = (experts.count as usize, experts.top_k as usize);
        let tiles = tiles(experts, t);
        Self {
            exact: take.f32s(t * d),
            probabilities: take.f32s(t * e),
            lse: take.f32s(t),
            chosen: take.u32s(t * k),
            gates: take.f32s(t * k),
            sums: take.f32s(t),
            counts: take.u32s(rows.sequences * e),
            first_row: take.u32s(e + 1),
            tile_expert: take.u32s(tiles),
            row_of_pair: take.u32s(t * k),
            pair_of_row: take.u32s(tiles * TILE),
            x: take.of(tiles * TILE * d, real),
            gated: Gated::lay(tiles * TILE, experts.ff as usize, real, take),
            y: take.of(tiles * TILE * d, real),
        }
    }
}

impl Routing {
    fn lay(model: &Model, experts: &Experts, kind: Kind, rows: Rows, take: &mut Taker) -> Self {
        let (t, d, real) = (rows.count(), model.width as usize, kind.bytes());
        let (e, k, f) = (experts.count as usize, experts.top_k as usize, experts.ff as usize);
        let chunks = rows.sequences * rows.positions.div_ceil(32);
        let expert_rows = tiles(experts, t) * TILE;
        Self {
            masks: take.u32s(chunks * e),
            before: take.u32s(chunks * e),
            end_row: take.u32s(e),
            base: take.u32s(rows.sequences * e),
            losses: take.of(2 * t.div_ceil(32), 8),
            d_gates: take.f32s(t * k),
            d_logits: take.f32s(t * e),
            d_exact: take.f32s(t * d),
            d_out: take.of(expert_rows * d, real),
            d_act: take.of(if Inside::of(model, kind).experts { 0 } else { expert_rows * f }, real),
            d_gate_up: take.of(expert_rows * 2 * f, real),
            d_x: take.of(expert_rows * d, real),
        }
    }
}
