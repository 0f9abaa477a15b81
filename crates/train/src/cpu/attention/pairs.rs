//! The same attention with every product in bf16: scores, probabilities and all gradients are summed and kept in f32 and
//! rounded only where they enter a product.

use super::{QUERIES, Saved, Scratch, Shape, divide, pulls, softmax, softmax_backward};
use crate::cpu::pairs::{Pair, flip_rows, halved, pack_columns, pack_rows};
use crate::cpu::product::{Extent, product_of_pairs, rows, transposed};
use crate::cpu::simd::Level;

/// Packed operands of one sequence and of one block of queries.
#[derive(Default)]
pub(super) struct Packed {
    /// Queries, keys and values along their rows, `[T, 3d / 2]`.
    rows: Vec<Pair>,
    /// The same along their columns, `[T / 2, 3d]`.
    columns: Vec<Pair>,
    /// The incoming gradient along its rows and its columns.
    d_rows: Vec<Pair>,
    d_columns: Vec<Pair>,
    /// One head's keys and values, transposed: `[head / 2, T]`.
    keys: Vec<Pair>,
    values: Vec<Pair>,
    /// A block of scores along its rows, and along its columns.
    block_rows: Vec<Pair>,
    block_columns: Vec<Pair>,
}

impl Packed {
    /// Grown at the first call to what `shape` takes.
    fn fit(&mut self, shape: Shape, row: usize, backward: bool) {
        let Shape { width, positions, .. } = shape;
        let (head, half) = (shape.head(), halved(positions));
        let fit = |buffer: &mut Vec<Pair>, len: usize| {
            if buffer.len() < len {
                buffer.resize(len, Pair::default());
            }
        };
        fit(&mut self.rows, positions * 3 * width / 2);
        fit(&mut self.columns, half * 3 * width);
        fit(&mut self.keys, head / 2 * row);
        fit(&mut self.block_rows, QUERIES * row / 2);
        if backward {
            fit(&mut self.d_rows, positions * width / 2);
            fit(&mut self.d_columns, half * width);
            fit(&mut self.values, head / 2 * row);
            fit(&mut self.block_columns, QUERIES / 2 * row);
        }
    }
}

/// `out [T, d]` and `lse [heads, T]` from `qkv [T, 3d]`.
pub(in crate::cpu) fn forward(
    level: Level,
    shape: Shape,
    qkv: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
    room: &mut Scratch,
) {
    let Shape { width, positions, .. } = shape;
    let (head, stride, row) = (shape.head(), 3 * width, room.row);
    room.packed.fit(shape, row, false);
    let Packed { rows: packed, columns, keys, block_rows, .. } = &mut room.packed;
    pack_rows(level, positions, stride, qkv, stride, packed, stride / 2);
    pack_columns(level, positions, stride, qkv, stride, columns, stride);
    for (h, lse) in lse.chunks_exact_mut(positions).enumerate() {
        let (q, k, v) = (h * head, width + h * head, 2 * width + h * head);
        flip_rows(level, positions, head / 2, &packed[k / 2..], stride / 2, keys, row);
        for (first, count) in shape.blocks() {
            let seen = first + count;
            let scores = Extent { m: count, n: seen, k: head / 2 };
            let queries = rows(&packed[(first * stride + q) / 2..], stride / 2);
            product_of_pairs(level, scores, queries, keys, row, &mut room.scores, row, false);
            let sums = &mut room.queries[..count];
            softmax(level, first, &mut room.scores, row, sums, &mut lse[first..seen]);
            pack_rows(level, count, seen, &room.scores, row, block_rows, row / 2);
            let mixed = Extent { m: count, n: head, k: halved(seen) };
            let out = &mut out[first * width + q..];
            let probabilities = rows(block_rows, row / 2);
            product_of_pairs(level, mixed, probabilities, &columns[v..], stride, out, width, false);
            divide(level, out, width, head, sums);
        }
    }
}

/// `d_qkv [T, 3d]`; the query part is the gradient by the scaled queries.
pub(in crate::cpu) fn backward(level: Level, shape: Shape, saved: &Saved<'_>, d_qkv: &mut [f32], room: &mut Scratch) {
    let Saved { qkv, d_out, lse, .. } = *saved;
    let Shape { width, positions, .. } = shape;
    let (head, stride, row) = (shape.head(), 3 * width, room.row);
    d_qkv.fill(0.0);
    room.packed.fit(shape, row, true);
    let packed = &mut room.packed;
    pack_rows(level, positions, stride, qkv, stride, &mut packed.rows, stride / 2);
    pack_columns(level, positions, stride, qkv, stride, &mut packed.columns, stride);
    pack_rows(level, positions, width, d_out, width, &mut packed.d_rows, width / 2);
    pack_columns(level, positions, width, d_out, width, &mut packed.d_columns, width);
    for (h, lse) in lse.chunks_exact(positions).enumerate() {
        let (k, v) = (width + h * head, 2 * width + h * head);
        let packed = &mut room.packed;
        flip_rows(level, positions, head / 2, &packed.rows[k / 2..], stride / 2, &mut packed.keys, row);
        flip_rows(level, positions, head / 2, &packed.rows[v / 2..], stride / 2, &mut packed.values, row);
        for (first, count) in shape.blocks() {
            block_backward(level, shape, saved, h, first, count, lse, d_qkv, room);
        }
    }
}

/// What one block of queries of one head adds.
fn block_backward(
    level: Level,
    shape: Shape,
    saved: &Saved<'_>,
    h: usize,
    first: usize,
    count: usize,
    lse: &[f32],
    d_qkv: &mut [f32],
    room: &mut Scratch,
) {
    let width = shape.width;
    let (head, stride, row) = (shape.head(), 3 * width, room.row);
    let (q, k, v) = (h * head, width + h * head, 2 * width + h * head);
    let seen = first + count;
    let Packed { rows: packed, columns, d_rows, d_columns, keys, values, block_rows, block_columns } = &mut room.packed;
    let (p, d) = (&mut room.scores, &mut room.d_scores);
    let scores = Extent { m: count, n: seen, k: head / 2 };
    let queries = rows(&packed[(first * stride + q) / 2..], stride / 2);
    product_of_pairs(level, scores, queries, keys, row, p, row, false);
    let incoming = rows(&d_rows[(first * width + q) / 2..], width / 2);
    product_of_pairs(level, scores, incoming, values, row, d, row, false);
    let pull = &mut room.queries[..count];
    let (out, d_out) = (&saved.out[first * width + q..], &saved.d_out[first * width + q..]);
    pulls(level, out, d_out, width, head, pull);
    softmax_backward(level, first, p, d, row, pull, &lse[first..seen]);

    pack_rows(level, count, seen, d, row, block_rows, row / 2);
    let mixed = Extent { m: count, n: head, k: halved(seen) };
    let d_q = &mut d_qkv[first * stride + q..];
    product_of_pairs(level, mixed, rows(block_rows, row / 2), &columns[k..], stride, d_q, stride, false);

    // Blocks start at an even query, so the pairs of the sequence are the block's.
    let spread = Extent { m: seen, n: head, k: halved(count) };
    pack_columns(level, count, seen, d, row, block_columns, row);
    let queries = &columns[first / 2 * stride + q..];
    product_of_pairs(level, spread, transposed(block_columns, row), queries, stride, &mut d_qkv[k..], stride, true);
    pack_columns(level, count, seen, p, row, block_columns, row);
    let incoming = &d_columns[first / 2 * width + q..];
    product_of_pairs(level, spread, transposed(block_columns, row), incoming, width, &mut d_qkv[v..], stride, true);
}
