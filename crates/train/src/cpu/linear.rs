//! A weight matrix `[inputs, outputs]` and its three products: forward, gradient by the input, gradient by the weight.
//!
//! In f32 the products read the weights and their transposes as they are; in bf16 both operands are rounded and packed
//! into pairs and only the sums are f32. It knows no layer and keeps nothing but scratch.

use std::ops::Range;

use super::pairs::{Pair, flip_rows, halved, pack_columns, pack_rows};
use super::product::{Extent, product, product_of_pairs, rows, transposed};
use super::simd::Level;
use super::transpose::transpose;

/// Parameters and what the products read beside them: transposes at equal offsets, or all matrices in pairs.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) params: &'a [f32],
    pub(super) flipped: &'a [f32],
    /// Set when the products are in bf16.
    pub(super) pairs: Option<&'a [Pair]>,
}

/// Where a matrix lies in the flat buffers.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub(super) range: Range<usize>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Stored as `[outputs, inputs]`, as an embedding table that serves as head is.
    turned: bool,
    /// Pairs of the forward product and of the gradient by the input.
    pairs: [Range<usize>; 2],
}

/// Where a product's result goes: into place, or on top of what is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Set,
    Add,
}

/// Room for packed operands, grown to the largest at its first use.
#[derive(Default)]
pub(super) struct Pack {
    left: Vec<Pair>,
    right: Vec<Pair>,
}

fn grown(buffer: &mut Vec<Pair>, len: usize) -> &mut [Pair] {
    if buffer.len() < len {
        buffer.resize(len, Pair::default());
    }
    &mut buffer[..len]
}

impl Linear {
    /// The matrix at `range`; `pairs` counts the pairs given out so far.
    pub(super) fn new(range: Range<usize>, inputs: usize, turned: bool, pairs: &mut usize) -> Self {
        let outputs = range.len() / inputs;
        let mut take = |count: usize| {
            *pairs += count;
            *pairs - count..*pairs
        };
        let pairs = [take(halved(inputs) * outputs), take(halved(outputs) * inputs)];
        Self { range, inputs, outputs, turned, pairs }
    }

    /// Writes the transpose of the matrix among `params` to `flipped`, which has its length.
    pub(super) fn flip(&self, level: Level, params: &[f32], flipped: &mut [f32]) {
        let (height, across) = self.stored();
        transpose(level, height, across, &params[self.range.clone()], across, flipped, height);
    }

    /// Where both packed forms lie among all pairs, one after the other.
    pub(super) fn pairs(&self) -> Range<usize> {
        self.pairs[0].start..self.pairs[1].end
    }

    /// Writes both packed forms of the matrix among `params` to `pairs`, the matrix's own.
    pub(super) fn pack(&self, level: Level, params: &[f32], pairs: &mut [Pair], room: &mut Pack) {
        let (height, across) = self.stored();
        let stored = &params[self.range.clone()];
        let (forward, by_input) = pairs.split_at_mut(self.pairs[0].len());
        let (along, against) = if self.turned { (by_input, forward) } else { (forward, by_input) };
        pack_columns(level, height, across, stored, across, along, across);
        let half = halved(across);
        let packed = grown(&mut room.left, height * half);
        pack_rows(level, height, across, stored, across, packed, half);
        flip_rows(level, height, half, packed, half, against, height);
    }

    fn stored(&self) -> (usize, usize) {
        if self.turned { (self.outputs, self.inputs) } else { (self.inputs, self.outputs) }
    }

    /// `y [m, outputs] (+)= x [m, inputs] W`
    pub(super) fn forward(
        &self,
        level: Level,
        weights: Weights<'_>,
        x: &[f32],
        y: &mut [f32],
        into: Into,
        room: &mut Pack,
    ) {
        let weight = if self.turned { weights.flipped } else { weights.params };
        let operand = Right { weight: &weight[self.range.clone()], pairs: self.packed(weights, 0) };
        operand.times(level, [self.inputs, self.outputs], x, y, into, room);
    }

    /// `dx [m, inputs] (+)= dy [m, outputs] W^T`
    pub(super) fn by_input(
        &self,
        level: Level,
        weights: Weights<'_>,
        dy: &[f32],
        dx: &mut [f32],
        into: Into,
        room: &mut Pack,
    ) {
        let weight = if self.turned { weights.params } else { weights.flipped };
        let operand = Right { weight: &weight[self.range.clone()], pairs: self.packed(weights, 1) };
        operand.times(level, [self.outputs, self.inputs], dy, dx, into, room);
    }

    fn packed<'w>(&self, weights: Weights<'w>, form: usize) -> Option<&'w [Pair]> {
        weights.pairs.map(|pairs| &pairs[self.pairs[form].clone()])
    }

    /// Adds `x^T dy` into the flat `gradient`.
    pub(super) fn by_weight(
        &self,
        level: Level,
        weights: Weights<'_>,
        x: &[f32],
        dy: &[f32],
        gradient: &mut [f32],
        room: &mut Pack,
    ) {
        let to = &mut gradient[self.range.clone()];
        let positions = x.len() / self.inputs;
        let (left, m, right, n) =
            if self.turned { (dy, self.outputs, x, self.inputs) } else { (x, self.inputs, dy, self.outputs) };
        if weights.pairs.is_none() {
            return product(level, Extent { m, n, k: positions }, transposed(left, m), right, n, to, n, true);
        }
        let half = halved(positions);
        let left_pairs = grown(&mut room.left, half * m);
        pack_columns(level, positions, m, left, m, left_pairs, m);
        let right_pairs = grown(&mut room.right, half * n);
        pack_columns(level, positions, n, right, n, right_pairs, n);
        let extent = Extent { m, n, k: half };
        product_of_pairs(level, extent, transposed(left_pairs, m), right_pairs, n, to, n, true);
    }
}

/// A matrix `[k, n]` on the right of a product, as it is and, in bf16, in pairs.
struct Right<'w> {
    weight: &'w [f32],
    pairs: Option<&'w [Pair]>,
}

impl Right<'_> {
    /// `to [m, n] (+)= from [m, k]` times the matrix.
    fn times(self, level: Level, [k, n]: [usize; 2], from: &[f32], to: &mut [f32], into: Into, room: &mut Pack) {
        let (m, add) = (from.len() / k, into == Into::Add);
        let Some(pairs) = self.pairs else {
            return product(level, Extent { m, n, k }, rows(from, k), self.weight, n, to, n, add);
        };
        let half = halved(k);
        let left = grown(&mut room.left, m * half);
        pack_rows(level, m, k, from, k, left, half);
        product_of_pairs(level, Extent { m, n, k: half }, rows(left, half), pairs, n, to, n, add);
    }
}
