//! SwiGLU units with their arithmetic inside our own products, and which models have what inside of a product.

use isoloss_gpu::{Address, Kind};
use isoloss_sweep::Model;

use super::network::Network;
use super::room::TILE;
use super::steps::{Steps, at, int, or_none};

/// Up to this width a product with what follows it inside is our own, by estimate (an H100, rows of its memory and both
/// kinds of products at what they are known to reach): a library's is the faster product, and the bytes between it and the
/// next kernel weigh less the wider a model is. They weigh most where the activation's gradient is made, which reads and
/// writes three times as much as the product itself.
const FORWARD_MOST: u32 = 384;
const BACKWARD_MOST: u32 = 1024;

/// Shared memory of a block of our own products.
pub(super) const SHARED: u32 = 49_152;

/// What of a model is done inside of products.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Inside {
    /// The rotation of queries and keys.
    pub(super) rotation: bool,
    /// The activation of the dense unit or the shared expert.
    pub(super) activation: bool,
    /// The gradient of that.
    pub(super) gradient: bool,
    /// Both of the routed experts, whose products are our own in any case.
    pub(super) experts: bool,
}

impl Inside {
    /// By shape alone: which product is taken is part of a run's bits.
    pub(super) fn of(model: &Model, kind: Kind) -> Self {
        let whole = |ff: u32| kind == Kind::Bf16 && model.width.is_multiple_of(8) && ff.is_multiple_of(8);
        let (narrow, head) = (model.width <= FORWARD_MOST, model.head_width());
        let (common, experts) = match &model.experts {
            None => (model.ff, 0),
            Some(experts) => (experts.shared_ff, experts.ff),
        };
        Self {
            rotation: narrow && whole(0) && head.is_multiple_of(16) && 64 % head == 0,
            activation: narrow && common > 0 && whole(common),
            gradient: model.width <= BACKWARD_MOST && common > 0 && whole(common),
            experts: experts > 0 && whole(experts),
        }
    }
}

/// Rows that a unit works on, and whose each tile of them is, if they are not all one unit's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owned {
    pub(super) rows: usize,
    pub(super) owner: Option<Address>,
}

impl Network {
    pub(super) fn inside(&self) -> Inside {
        Inside::of(&self.model, self.kind)
    }

    /// `gate_up = x W` and the unit's activation, `W` of `[width, 2 ff]`.
    pub(super) fn gated_forward(
        &self,
        steps: &mut Steps,
        own: Owned,
        [x, weight]: [Address; 2],
        [gate_up, act]: [Address; 2],
        ff: usize,
    ) {
        let sizes = [int(own.rows), int(self.width()), int(ff)];
        let arguments = [at(x), at(weight), or_none(own.owner), at(gate_up), at(act), sizes[0], sizes[1], sizes[2]];
        let grid = [ff.div_ceil(TILE / 2) as u32, own.rows.div_ceil(TILE) as u32, 1];
        steps.launch("gated_forward", grid, 128, SHARED, arguments);
    }

    /// `d_gate_up` from `gate_up` and the gradient of the unit's output, `W` of `[ff, width]`.
    pub(super) fn gated_backward(
        &self,
        steps: &mut Steps,
        own: Owned,
        [d_y, weight]: [Address; 2],
        [gate_up, d_gate_up]: [Address; 2],
        ff: usize,
    ) {
        let sizes = [int(own.rows), int(ff), int(self.width())];
        let arguments =
            [at(d_y), at(weight), or_none(own.owner), at(gate_up), at(d_gate_up), sizes[0], sizes[1], sizes[2]];
        let grid = [ff.div_ceil(TILE) as u32, own.rows.div_ceil(TILE) as u32, 1];
        steps.launch("gated_backward", grid, 128, SHARED, arguments);
    }
}
