//! The model as commands: the products and kernels that both directions share, with their launches. `forward.rs`,
//! `backward.rs` and `experts.rs` put them in order. No device is needed to build them.

use isoloss_gpu::{Address, Argument, Kind, Product};
use isoloss_sweep::Model;

use super::gated::SHARED;
use super::room::{GAIN_BLOCKS, Room, TILE};
use super::steps::{Operand, Rows, Steps, at, int, or_none};

/// The plain attention kernels serve f32, and heads wider than the tensor-core ones take.
const HEAD_MOST: u32 = 128;

/// Up to this width a row of the stream is normed by the kernels that keep it all in few registers.
const NARROW: usize = 256;

/// A model, how its products are kept, and where everything lies.
pub(super) struct Network {
    pub(super) model: Model,
    pub(super) kind: Kind,
    pub(super) room: Room,
}

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pass {
    /// Losses and routing only; dropless.
    Evaluate,
    /// With gradients: of the batch's `sequences`, set or added to what is there.
    Train { batch: usize, add: bool },
}

impl Pass {
    pub(super) fn adds(self) -> bool {
        matches!(self, Self::Train { add: true, .. })
    }
}

/// Where a product's result goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Into {
    Set,
    /// On top of this, of the result's shape.
    Onto(Address),
}

/// A weight matrix `[inputs, outputs]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linear {
    weight: Operand,
    gradient: Address,
    inputs: usize,
    outputs: usize,
    /// Stored as `[outputs, inputs]`.
    turned: bool,
    /// Whether its products keep all bits of f32.
    exact: bool,
}

impl Network {
    pub(super) fn width(&self) -> usize {
        self.model.width as usize
    }

    /// Whether the tensor-core attention kernels are used.
    pub(super) fn fused_attention(model: &Model, kind: Kind) -> bool {
        kind == Kind::Bf16 && model.head_width() <= HEAD_MOST
    }

    pub(super) fn linear(&self, name: &str, inputs: usize) -> Linear {
        let weights = &self.room.weights;
        let len = weights.layout.view(name).len;
        self.matrix(weights.operand(name), weights.gradient(name), inputs, len / inputs, self.kind)
    }

    /// The router's matrix, always in f32: choices hang on small differences.
    pub(super) fn router(&self, name: &str, experts: usize) -> Linear {
        let weights = &self.room.weights;
        let matrix = self.matrix(weights.exact(name), weights.gradient(name), self.width(), experts, Kind::F32);
        Linear { exact: true, ..matrix }
    }

    /// The head, or the embedding table turned.
    pub(super) fn head(&self) -> Linear {
        let (width, vocab) = (self.width(), self.model.vocab as usize);
        if !self.model.tied {
            return self.linear("head", width);
        }
        let weights = &self.room.weights;
        let table = Operand { address: weights.operand("embedding"), columns: width, kind: self.kind };
        let gradient = weights.gradient("embedding");
        Linear { weight: table, gradient, inputs: width, outputs: vocab, turned: true, exact: false }
    }

    fn matrix(&self, weight: Address, gradient: Address, inputs: usize, outputs: usize, kind: Kind) -> Linear {
        let weight = Operand { address: weight, columns: outputs, kind };
        Linear { weight, gradient, inputs, outputs, turned: false, exact: false }
    }

    /// Rows of activations.
    pub(super) fn activations(&self, address: Address, columns: usize) -> Operand {
        Operand { address, columns, kind: self.kind }
    }

    pub(super) fn stream(&self, address: Address) -> Operand {
        Operand { address, columns: self.width(), kind: Kind::F32 }
    }

    /// `h`, `exact` (where it is wanted) and the inverse root mean squares from the stream `x`.
    pub(super) fn norm(
        &self,
        steps: &mut Steps,
        rows: usize,
        x: Address,
        gain: &str,
        [h, inverse]: [Address; 2],
        exact: Option<Address>,
    ) {
        let gain = at(self.room.weights.exact(gain));
        let arguments = [at(x), gain, at(h), or_none(exact), at(inverse), int(rows), int(self.width())];
        let kernel = if self.width() <= NARROW { "norm_forward_narrow" } else { "norm_forward" };
        steps.over(kernel, rows, 8, arguments);
    }

    /// Sends the gradient of a norm's output on to the stream's, and adds up the gain's.
    pub(super) fn norm_backward(
        &self,
        steps: &mut Steps,
        rows: usize,
        [x, inverse]: [Address; 2],
        gain: &str,
        exact: Option<Address>,
        [set, add]: [bool; 2],
    ) {
        let (room, width) = (&self.room, self.width());
        let warps = (12_288 / width).clamp(1, 8);
        let (kernel, most) =
            if width <= NARROW { ("norm_backward_narrow", GAIN_BLOCKS) } else { ("norm_backward", GAIN_BLOCKS / 2) };
        let blocks = rows.div_ceil(warps).min(most);
        let arguments = [
            at(x),
            at(room.weights.exact(gain)),
            at(inverse),
            at(room.dh),
            or_none(exact),
            at(room.dx),
            at(room.dx_real),
            at(room.gains),
            int(rows),
            int(width),
            int(usize::from(set)),
        ];
        let (threads, shared) = (32 * warps as u32, (4 * warps * width) as u32);
        steps.launch(kernel, [blocks as u32, 1, 1], threads, shared, arguments);
        let gradient = room.weights.gradient(gain);
        let arguments = [at(room.gains), at(gradient), int(blocks), int(width), int(usize::from(add))];
        steps.launch("norm_gain", [width.div_ceil(32) as u32, 1, 1], 1024, 0, arguments);
    }

    /// Queries, keys and values of a layer, queries and keys turned by their positions.
    pub(super) fn qkv(&self, steps: &mut Steps, rows: Rows, index: usize) {
        let (layer, count, width) = (&self.room.layers[index], rows.count(), self.width());
        let name = format!("layers.{index}.qkv");
        if !self.inside().rotation {
            let to = self.activations(layer.qkv, 3 * width);
            let input = self.activations(layer.attention_input, width);
            self.linear(&name, width).forward(steps, count, input, to, Into::Set);
            return self.rope(steps, rows, layer.qkv, 1.0);
        }
        let (weight, turns) = (at(self.room.weights.operand(&name)), at(self.room.turns));
        let arguments =
            [at(layer.attention_input), weight, turns, at(layer.qkv), int(count), int(rows.positions), int(width)];
        let grid = [(3 * width).div_ceil(TILE) as u32, count.div_ceil(TILE) as u32, 1];
        steps.launch("qkv_turned", grid, 128, SHARED, arguments);
    }

    /// Turns queries and keys by their positions, or back.
    pub(super) fn rope(&self, steps: &mut Steps, rows: Rows, qkv: Address, sign: f32) {
        let (half, width) = (self.model.head_width() as usize / 2, self.width());
        let most = if self.kind == Kind::Bf16 { 8 } else { 4 };
        let step = [8, 4, 2, 1].into_iter().find(|&step| step <= most && half.is_multiple_of(step)).expect("1 divides");
        let arguments =
            [at(qkv), at(self.room.turns), int(rows.count()), int(rows.positions), int(width), Argument::Float(sign)];
        steps.over("rope", rows.count() * width / step, 256, arguments);
    }

    /// The unit's activation from its gate and up halves.
    pub(super) fn swiglu(&self, steps: &mut Steps, rows: usize, [gate_up, act]: [Address; 2], ff: usize) {
        let arguments = [at(gate_up), at(act), Argument::Long(rows as u64), int(ff)];
        steps.over("swiglu_forward", rows * ff / self.swiglu_step(ff), 256, arguments);
    }

    pub(super) fn swiglu_backward(
        &self,
        steps: &mut Steps,
        rows: usize,
        [gate_up, d_act, d_gate_up]: [Address; 3],
        ff: usize,
    ) {
        let arguments = [at(gate_up), at(d_act), at(d_gate_up), Argument::Long(rows as u64), int(ff)];
        steps.over("swiglu_backward", rows * ff / self.swiglu_step(ff), 256, arguments);
    }

    fn swiglu_step(&self, ff: usize) -> usize {
        let most = if self.kind == Kind::Bf16 { 8 } else { 4 };
        if ff.is_multiple_of(most) { most } else { 1 }
    }

    /// Elements of a head that the tensor-core kernels hold, zeros included.
    pub(super) fn padded_head(&self) -> usize {
        (self.model.head_width() as usize).next_multiple_of(16)
    }
}

impl Linear {
    /// `y [rows, outputs] = x [rows, inputs] W`
    pub(super) fn forward(&self, steps: &mut Steps, rows: usize, x: Operand, y: Operand, into: Into) {
        let weight = self.weight.matrix();
        let right = if self.turned { weight.turned() } else { weight };
        self.push(steps, [rows, self.outputs, self.inputs], [x, y], right, into);
    }

    /// `dx [rows, inputs] = dy [rows, outputs] W^T`
    pub(super) fn by_input(&self, steps: &mut Steps, rows: usize, dy: Operand, dx: Operand, into: Into) {
        let weight = self.weight.matrix();
        let right = if self.turned { weight } else { weight.turned() };
        self.push(steps, [rows, self.inputs, self.outputs], [dy, dx], right, into);
    }

    fn push(
        &self,
        steps: &mut Steps,
        [m, n, k]: [usize; 3],
        [from, to]: [Operand; 2],
        right: isoloss_gpu::Matrix,
        into: Into,
    ) {
        let onto = match into {
            Into::Set => None,
            Into::Onto(address) => Some(address),
        };
        let [m, n, k] = [m, n, k].map(|size| size as u64);
        steps.product(Product { m, n, k, left: from.matrix(), right, to: to.matrix(), onto, exact: self.exact });
    }

    /// The gradient of the weight, `x^T dy` in f32, set or added.
    pub(super) fn by_weight(&self, steps: &mut Steps, rows: usize, x: Operand, dy: Operand, add: bool) {
        let (left, right) = if self.turned { (dy, x) } else { (x, dy) };
        let (m, n) = if self.turned { (self.outputs, self.inputs) } else { (self.inputs, self.outputs) };
        let to = Operand { address: self.gradient, columns: n, kind: Kind::F32 };
        steps.product(Product {
            m: m as u64,
            n: n as u64,
            k: rows as u64,
            left: left.matrix().turned(),
            right: right.matrix(),
            to: to.matrix(),
            onto: add.then_some(self.gradient),
            exact: self.exact,
        });
    }
}
