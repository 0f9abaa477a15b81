//! Causal attention of one sequence, by blocks of queries (after Dao 2205.14135): only the log-sum-exp of each row is
//! kept, and the backward pass computes the probabilities again.
//!
//! Queries come scaled by one over the root of the head width, so scores are plain products.

pub(super) mod pairs;

use super::product::{Extent, product, rows, transposed};
use super::simd::{Level, exp, exp_sum, kernel, maximum, stream, sum_products};
use super::transpose::transpose;

/// Queries that share a block of scores: small enough that the block stays in the first-level cache and little is
/// computed above the diagonal, and a multiple of every tile height and of two, for pairs.
const QUERIES: usize = 24;

/// What attention needs to know of the model and of this sequence.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) positions: usize,
}

impl Shape {
    fn head(self) -> usize {
        self.width / self.heads
    }

    /// First query and number of queries of each block.
    fn blocks(self) -> impl Iterator<Item = (usize, usize)> {
        let positions = self.positions;
        let block = move |first| (first, QUERIES.min(positions - first));
        (0..positions).step_by(QUERIES).map(block)
    }
}

/// Room for one head's transposed keys and values and one block of scores and of their gradient.
pub(super) struct Scratch {
    /// Room for a row of scores.
    row: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    /// One number a query of the block: one over the sum, or the pull of the softmax's gradient.
    queries: Vec<f32>,
    packed: pairs::Packed,
}

impl Scratch {
    pub(super) fn new(context: usize, head: usize) -> Self {
        // Whole vectors of the widest kind; plus one cache line, so that rows do not share their cache set.
        let row = context.next_multiple_of(16) + 16;
        Self {
            row,
            keys: vec![0.0; head * row],
            values: vec![0.0; head * row],
            scores: vec![0.0; QUERIES * row],
            d_scores: vec![0.0; QUERIES * row],
            queries: vec![0.0; QUERIES],
            packed: pairs::Packed::default(),
        }
    }
}

/// `out [T, d]` and `lse [heads, T]` from `qkv [T, 3d]`.
pub(super) fn forward(level: Level, shape: Shape, qkv: &[f32], out: &mut [f32], lse: &mut [f32], room: &mut Scratch) {
    let Shape { width, positions, .. } = shape;
    let (head, stride) = (shape.head(), 3 * width);
    let row = room.row;
    for (h, lse) in lse.chunks_exact_mut(positions).enumerate() {
        let (q, k, v) = (h * head, width + h * head, 2 * width + h * head);
        transpose(level, positions, head, &qkv[k..], stride, &mut room.keys, row);
        for (first, count) in shape.blocks() {
            let seen = first + count;
            let queries = rows(&qkv[first * stride + q..], stride);
            let scores = Extent { m: count, n: seen, k: head };
            product(level, scores, queries, &room.keys, row, &mut room.scores, row, false);
            let sums = &mut room.queries[..count];
            softmax(level, first, &mut room.scores, row, sums, &mut lse[first..seen]);
            let mixed = Extent { m: count, n: head, k: seen };
            let out = &mut out[first * width + q..];
            product(level, mixed, rows(&room.scores, row), &qkv[v..], stride, out, width, false);
            divide(level, out, width, head, sums);
        }
    }
}

kernel! {
    /// Rows of scores become exponentials, zero above the diagonal; `inverse` gets one over their sums.
    fn softmax(
        simd, first: usize, scores: &'a mut [f32], stride: usize, inverse: &'a mut [f32], lse: &'a mut [f32],
    ) {
        let end = (first + inverse.len()).next_multiple_of(16);
        for (i, ((row, inverse), lse)) in scores.chunks_mut(stride).zip(inverse).zip(lse).enumerate() {
            let seen = first + i + 1;
            // Whole vectors need no tail: what lies above the diagonal becomes exp(-inf) = 0.
            let padded = seen.next_multiple_of(16);
            row[seen..padded].fill(f32::NEG_INFINITY);
            let most = maximum(simd, &row[..padded]);
            let sum = exp_sum(simd, &mut row[..padded], most);
            row[padded..end].fill(0.0);
            *inverse = 1.0 / sum;
            *lse = most + sum.ln();
        }
    }
}

kernel! {
    fn divide(simd, out: &'a mut [f32], stride: usize, head: usize, inverse: &'a [f32]) {
        for (row, &inverse) in out.chunks_mut(stride).zip(inverse) {
            let factor = simd.splat(inverse);
            stream(simd, [], [&mut row[..head]], #[inline(always)] |[], [x]| [simd.mul(x, factor)]);
        }
    }
}

/// The saved forward pass and the gradient that comes in.
pub(super) struct Saved<'a> {
    pub(super) qkv: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) lse: &'a [f32],
    pub(super) d_out: &'a [f32],
}

/// `d_qkv [T, 3d]`; the query part is the gradient by the scaled queries.
pub(super) fn backward(level: Level, shape: Shape, saved: &Saved<'_>, d_qkv: &mut [f32], room: &mut Scratch) {
    let Saved { qkv, out, lse, d_out } = *saved;
    let Shape { width, positions, .. } = shape;
    let (head, stride) = (shape.head(), 3 * width);
    let row = room.row;
    d_qkv.fill(0.0);
    for (h, lse) in lse.chunks_exact(positions).enumerate() {
        let (q, k, v) = (h * head, width + h * head, 2 * width + h * head);
        transpose(level, positions, head, &qkv[k..], stride, &mut room.keys, row);
        transpose(level, positions, head, &qkv[v..], stride, &mut room.values, row);
        for (first, count) in shape.blocks() {
            let seen = first + count;
            let queries = &qkv[first * stride + q..];
            let (o, d_o) = (&out[first * width + q..], &d_out[first * width + q..]);
            let scores = Extent { m: count, n: seen, k: head };
            product(level, scores, rows(queries, stride), &room.keys, row, &mut room.scores, row, false);
            product(level, scores, rows(d_o, width), &room.values, row, &mut room.d_scores, row, false);
            let pull = &mut room.queries[..count];
            pulls(level, o, d_o, width, head, pull);
            softmax_backward(level, first, &mut room.scores, &mut room.d_scores, row, pull, &lse[first..seen]);
            let mixed = Extent { m: count, n: head, k: seen };
            let d_q = &mut d_qkv[first * stride + q..];
            product(level, mixed, rows(&room.d_scores, row), &qkv[k..], stride, d_q, stride, false);
            let spread = Extent { m: seen, n: head, k: count };
            let d_scores = transposed(&room.d_scores, row);
            product(level, spread, d_scores, queries, stride, &mut d_qkv[k..], stride, true);
            let scores = transposed(&room.scores, row);
            product(level, spread, scores, d_o, width, &mut d_qkv[v..], stride, true);
        }
    }
}

kernel! {
    /// Each query's `sum out * d_out`, which is also the sum of probability times its gradient.
    fn pulls(simd, out: &'a [f32], d_out: &'a [f32], stride: usize, head: usize, pull: &'a mut [f32]) {
        for ((out, d_out), pull) in out.chunks(stride).zip(d_out.chunks(stride)).zip(pull) {
            *pull = sum_products(simd, &out[..head], &d_out[..head]);
        }
    }
}

kernel! {
    /// Scores become probabilities, and their gradient `p * (d_p - pull)` takes the place of `d_p`; zero above the diagonal.
    fn softmax_backward(
        simd, first: usize, scores: &'a mut [f32], d_scores: &'a mut [f32], stride: usize, pull: &'a [f32],
        lse: &'a [f32],
    ) {
        let end = (first + pull.len()).next_multiple_of(16);
        let blocks = scores.chunks_mut(stride).zip(d_scores.chunks_mut(stride));
        for (i, (((p, d), &pull), &lse)) in blocks.zip(pull).zip(lse).enumerate() {
            let seen = first + i + 1;
            let padded = seen.next_multiple_of(16);
            p[seen..padded].fill(f32::NEG_INFINITY);
            let (lse, pull) = (simd.splat(lse), simd.splat(pull));
            stream(simd, [], [&mut p[..padded], &mut d[..padded]], #[inline(always)] |[], [s, d]| {
                let p = exp(simd, simd.sub(s, lse));
                [p, simd.mul(p, simd.sub(d, pull))]
            });
            p[padded..end].fill(0.0);
            d[seen..end].fill(0.0);
        }
    }
}
