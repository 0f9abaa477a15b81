//! SwiGLU: `silu(gate) * up`, where a row holds the gate's columns first (Shazeer 2002.05202).

use super::simd::{Simd, exp, kernel, stream};

#[inline(always)]
fn sigmoid<S: Simd>(simd: S, x: S::V) -> S::V {
    let one = simd.splat(1.0);
    simd.div(one, simd.add(one, exp(simd, simd.sub(simd.splat(0.0), x))))
}

kernel! {
    /// `out [rows, f]` from `gate_up [rows, 2f]`.
    fn swiglu_forward(simd, f: usize, gate_up: &'a [f32], out: &'a mut [f32]) {
        for (row, out) in gate_up.chunks_exact(2 * f).zip(out.chunks_exact_mut(f)) {
            let (gate, up) = row.split_at(f);
            stream(simd, [gate, up], [out], #[inline(always)] |[gate, up], [_]| {
                [simd.mul(simd.mul(gate, sigmoid(simd, gate)), up)]
            });
        }
    }
}

kernel! {
    /// `d_gate_up` from `gate_up` and the gradient in `act`, which is replaced by the forward result: the product that
    /// follows needs it and keeping it from the forward pass would cost more memory than the recomputation costs time.
    fn swiglu_backward(simd, f: usize, gate_up: &'a [f32], act: &'a mut [f32], d_gate_up: &'a mut [f32]) {
        let rows = gate_up.chunks_exact(2 * f).zip(act.chunks_exact_mut(f)).zip(d_gate_up.chunks_exact_mut(2 * f));
        for ((row, act), d_row) in rows {
            let (gate, up) = row.split_at(f);
            let (d_gate, d_up) = d_row.split_at_mut(f);
            let one = simd.splat(1.0);
            stream(simd, [gate, up], [act, d_gate, d_up], #[inline(always)] |[gate, up], [d_act, _, _]| {
                let sigmoid = sigmoid(simd, gate);
                let silu = simd.mul(gate, sigmoid);
                // d silu / d gate = sigmoid * (1 + gate * (1 - sigmoid)) = sigmoid + silu * (1 - sigmoid)
                let slope = simd.fma(silu, simd.sub(one, sigmoid), sigmoid);
                let d_gate = simd.mul(simd.mul(d_act, up), slope);
                [simd.mul(silu, up), d_gate, simd.mul(d_act, silu)]
            });
        }
    }
}
