// The SwiGLU unit over rows that a library's product made (swiglu_terms.cu comes before this file). A thread takes 16
// bytes of a row, or one element where rows do not lie on 16 bytes.

constexpr int SWIGLU_STEP = 16 / sizeof(real);

// The first of this thread's `step` elements of [rows, ff], as a row and a column. `row` may be past the end.
struct SwigluPlace {
    u64 row;
    u32 column;
};
__device__ __forceinline__ SwigluPlace swiglu_place(int ff, int step) {
    u64 index = static_cast<u64>(blockIdx.x) * 256 + threadIdx.x;
    u32 in_row = ff / step;
    // A division in 64 bits takes many times as long.
    u64 row = index >> 32 ? index / in_row : static_cast<u32>(index) / in_row;
    return {row, static_cast<u32>(index - row * in_row) * step};
}

template <int STEP>
__device__ __forceinline__ void swiglu_forward_piece(const real *__restrict__ gate_up, real *__restrict__ act, u64 rows,
                                                     int ff) {
    SwigluPlace place = swiglu_place(ff, STEP);
    if (place.row >= rows) {
        return;
    }
    const real *from = gate_up + place.row * 2 * ff + place.column;
    float gate[STEP], up[STEP];
    get(gate, from);
    get(up, from + ff);
    swiglu_act(gate, up);
    put(act + place.row * ff + place.column, up);
}

// act [rows, ff] from gate_up [rows, 2 * ff], the gate's columns first.
// step = 8 (4 in f32) if it divides ff, else 1; grid (ceil(rows * ff / step / 256)), block 256, no shared
extern "C" __global__ void __launch_bounds__(256) swiglu_forward(const real *__restrict__ gate_up,
                                                                 real *__restrict__ act, u64 rows, int ff) {
    if (ff % SWIGLU_STEP == 0) {
        swiglu_forward_piece<SWIGLU_STEP>(gate_up, act, rows, ff);
    } else {
        swiglu_forward_piece<1>(gate_up, act, rows, ff);
    }
}
EXPORT(swiglu_forward)

template <int STEP>
__device__ __forceinline__ void swiglu_backward_piece(const real *__restrict__ gate_up, const real *__restrict__ d_act,
                                                      real *__restrict__ d_gate_up, u64 rows, int ff) {
    SwigluPlace place = swiglu_place(ff, STEP);
    if (place.row >= rows) {
        return;
    }
    size_t at = place.row * 2 * ff + place.column;
    float gate[STEP], up[STEP], d[STEP];
    get(gate, gate_up + at);
    get(up, gate_up + at + ff);
    get(d, d_act + place.row * ff + place.column);
    swiglu_gradients(gate, up, d);
    put(d_gate_up + at, gate);
    put(d_gate_up + at + ff, up);
}

// d_gate_up [rows, 2 * ff] from gate_up and the gradient d_act [rows, ff] of act.
// grid, block and shared as for swiglu_forward
extern "C" __global__ void __launch_bounds__(256)
    swiglu_backward(const real *__restrict__ gate_up, const real *__restrict__ d_act, real *__restrict__ d_gate_up,
                    u64 rows, int ff) {
    if (ff % SWIGLU_STEP == 0) {
        swiglu_backward_piece<SWIGLU_STEP>(gate_up, d_act, d_gate_up, rows, ff);
    } else {
        swiglu_backward_piece<1>(gate_up, d_act, d_gate_up, rows, ff);
    }
}
EXPORT(swiglu_backward)
