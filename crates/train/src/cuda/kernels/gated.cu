// The products of a SwiGLU unit with the unit's own arithmetic in them, so that its activation's gradient never goes
// through memory and its gate and up go once: of a narrow model these bytes bind, not the products. In bf16, with
// sizes that are multiples of 8. What is rounded where is as in swiglu.cu.
//
// The rows are experts' (tile_expert [R / 128] says whose each tile is, or -1: such a tile stays as it is), or all one
// unit's (tile_expert is null, and the last tile may lack rows).

namespace gated {

using namespace tiles;

// Gate columns, and as many of up, that a block of the forward product makes.
const int COLUMNS = TILE / 2;

// The rows of this block's tile, `count` of them, and whose matrix they meet: none if `owner` is negative.
struct Rows {
    size_t top;
    int count, owner;
};
__device__ __forceinline__ Rows rows_of_block(const int *tile_expert, int rows) {
    int top = blockIdx.y * TILE;
    return {size_t(top), rows - top, tile_expert ? tile_expert[blockIdx.y] : 0};
}

// A right operand of [depth, 2 ff]: by turns 32 columns of gate and the same ones of up, so that a warp has both.
struct Pairs {
    const real *at;
    size_t stride;
    // Columns of gate from `at` on, and the way to up.
    int limit, ff;

    __device__ __forceinline__ int column(int index) const { return index / 64 * 32 + index % 32; }
    __device__ __forceinline__ bool holds(int index) const { return column(index) < limit; }
    __device__ __forceinline__ size_t place(int index) const { return column(index) + index / 32 % 2 * ff; }
};

// Eight neighbours that are staged, or that lie in memory.
__device__ __forceinline__ Words<4> eight(const void *from) { return *static_cast<const Words<4> *>(from); }

} // namespace gated

// gate_up [R, 2 ff] = x [R, k] W_e [k, 2 ff] and act [R, ff] = silu(gate) * up, gate the first ff columns.
// grid (ceil(ff / 64), ceil(R / 128)), block 128, shared 49152
extern "C" __global__ void __launch_bounds__(128)
    gated_forward(const real *x, const real *w, const int *tile_expert, real *gate_up, real *act, int rows, int k,
                  int ff) {
    using namespace gated;
    SHARED_DYNAMIC(room);
    Rows own = rows_of_block(tile_expert, rows);
    if (own.owner < 0) {
        return;
    }
    int first = blockIdx.x * COLUMNS;
    Operand left = {x + own.top * k, size_t(k), own.count};
    Pairs right = {w + own.owner * (size_t(k) * 2 * ff) + first, size_t(ff) * 2, ff - first, ff};
    Sums sums;
    multiply<true, false, true>(sums, left, right, k, room);
    char *mine = stage(sums, room);
    first += warp_column() / 2;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int row = i * 8 + lane_index() / 4, chunk = lane_index() % 4, column = first + chunk * 8;
        if (warp_row() + row >= own.count || column >= ff) {
            continue;
        }
        const char *gate_at = staged(mine, row, chunk), *up_at = staged(mine, row, chunk + 4);
        size_t line = own.top + warp_row() + row;
        real *to = gate_up + line * 2 * ff + column;
        *reinterpret_cast<Words<4> *>(to) = eight(gate_at);
        *reinterpret_cast<Words<4> *>(to + ff) = eight(up_at);
        float gate[8], up[8];
        get(gate, reinterpret_cast<const bf16 *>(gate_at));
        get(up, reinterpret_cast<const bf16 *>(up_at));
        swiglu_act(gate, up);
        put(act + line * ff + column, up);
    }
}
EXPORT(gated_forward)

// d_gate_up [R, 2 ff] from gate_up and d_act [R, ff] = d_y [R, n] W_e^T, W [E, ff, n], the unit's last matrix.
// grid (ceil(ff / 128), ceil(R / 128)), block 128, shared 49152
extern "C" __global__ void __launch_bounds__(128)
    gated_backward(const real *d_y, const real *w, const int *tile_expert, const real *gate_up, real *d_gate_up,
                   int rows, int ff, int n) {
    using namespace gated;
    SHARED_DYNAMIC(room);
    Rows own = rows_of_block(tile_expert, rows);
    if (own.owner < 0) {
        return;
    }
    int first = blockIdx.x * TILE;
    Operand left = {d_y + own.top * n, size_t(n), own.count};
    Operand right = {w + own.owner * (size_t(ff) * n) + size_t(first) * n, size_t(n), ff - first};
    Sums sums;
    multiply<true, true, true>(sums, left, right, n, room);
    char *mine = stage(sums, room);
    first += warp_column();
#pragma unroll 4
    for (int i = 0; i < 16; i++) {
        int row = i * 4 + lane_index() / 8, chunk = lane_index() % 8, column = first + chunk * 8;
        if (warp_row() + row >= own.count || column >= ff) {
            continue;
        }
        size_t at = (own.top + warp_row() + row) * 2 * ff + column;
        float gate[8], up[8], d[8];
        get(gate, gate_up + at);
        get(up, gate_up + at + ff);
        get(d, reinterpret_cast<const bf16 *>(staged(mine, row, chunk)));
        swiglu_gradients(gate, up, d);
        put(d_gate_up + at, gate);
        put(d_gate_up + at + ff, up);
    }
}
EXPORT(gated_backward)
