// Rows to the experts and back: gather, combination, and the gradients of both. Pairs, row_of_pair, pair_of_row, R and
// tile_expert are as experts_place and experts_offsets of the router leave them.

namespace experts {

// A pair that the capacity dropped; a row that nobody has.
const u32 NONE = 0xffffffffu;
// Columns a lane adds up at once: all slots of them are under way together, which takes registers.
const int COLUMNS = TOP_K > 8 ? 4 : 8;

// A warp's row of `width`, a lane's COUNT neighbours at a time; zeros from nowhere.
template <int COUNT> __device__ __forceinline__ void copy_row(const real *from, real *to, int width) {
    for (int i = lane_index() * COUNT; i < width; i += 32 * COUNT) {
        float row[COUNT] = {};
        if (from) {
            get(row, from + i);
        }
        put(to + i, row);
    }
}

__device__ __forceinline__ void copy_row(const real *from, real *to, int width) {
    if (width % 8 == 0) {
        copy_row<8>(from, to, width);
    } else {
        copy_row<1>(from, to, width);
    }
}

// Where the outputs of a token's experts lie, and how much of each it takes: nothing of those that were dropped.
struct Slots {
    u32 rows[TOP_K];
    float gates[TOP_K];
};

__device__ __forceinline__ Slots slots_of(size_t token, const u32 *row_of_pair, const float *gates) {
    Slots slots;
#pragma unroll
    for (int slot = 0; slot < TOP_K; slot++) {
        slots.rows[slot] = row_of_pair[token * TOP_K + slot];
        slots.gates[slot] = slots.rows[slot] == NONE ? 0.0f : gates ? gates[token * TOP_K + slot] : 1.0f;
    }
    return slots;
}

// Adds COUNT columns of the token's rows, slot after slot.
template <int COUNT>
__device__ __forceinline__ void add_slots(float (&sum)[COUNT], const Slots &slots, const real *column, int width) {
#pragma unroll
    for (int slot = 0; slot < TOP_K; slot++) {
        float row[COUNT] = {};
        if (slots.rows[slot] != NONE) {
            get(row, column + size_t(slots.rows[slot]) * width);
        }
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            sum[j] += slots.gates[slot] * row[j];
        }
    }
}

template <int COUNT>
__device__ __forceinline__ void combine_row(const real *y, const Slots &slots, const float *onto, float *x, int width) {
    for (int i = lane_index() * COUNT; i < width; i += 32 * COUNT) {
        float sum[COUNT];
        get(sum, onto + i);
        add_slots(sum, slots, y + i, width);
        put(x + i, sum);
    }
}

template <int COUNT>
__device__ __forceinline__ void scatter_row(const real *dx, const Slots &slots, float *dh, real *dh_real, bool add,
                                            int width) {
    for (int i = lane_index() * COUNT; i < width; i += 32 * COUNT) {
        float sum[COUNT] = {};
        if (add && dh) {
            get(sum, dh + i);
        } else if (add) {
            get(sum, dh_real + i);
        }
        add_slots(sum, slots, dx + i, width);
        if (dh) {
            put(dh + i, sum);
        }
        if (dh_real) {
            put(dh_real + i, sum);
        }
    }
}

// `d_out = gate * dy`; returns `y . dy`.
template <int COUNT, class T>
__device__ __forceinline__ float weigh_row(const T *dy, const real *y, float gate, real *d_out, int width) {
    float along = 0.0f;
    for (int i = lane_index() * COUNT; i < width; i += 32 * COUNT) {
        float gradient[COUNT], row[COUNT];
        get(gradient, dy + i);
        get(row, y + i);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            along += gradient[j] * row[j];
            gradient[j] *= gate;
        }
        put(d_out + i, gradient);
    }
    return warp_sum(along);
}

template <class T>
__device__ __forceinline__ void weigh_rows(const T *dy, const real *y, const float *gates, const u32 *pair_of_row,
                                           const int *tile_expert, real *d_out, float *d_gates, int width) {
    if (tile_expert[blockIdx.x / 16] < 0) {
        return;
    }
    size_t row = size_t(blockIdx.x) * 8 + threadIdx.x / 32;
    u32 pair = pair_of_row[row];
    d_out += row * width;
    if (pair == NONE) {
        copy_row(nullptr, d_out, width);
        return;
    }
    dy += size_t(pair / TOP_K) * width;
    y += row * width;
    float gate = gates[pair];
    float along = width % 8 == 0 ? weigh_row<8>(dy, y, gate, d_out, width) : weigh_row<1>(dy, y, gate, d_out, width);
    if (lane_index() == 0) {
        d_gates[pair] = along;
    }
}

} // namespace experts

// x [R, width]: each used row is its token's row of h [rows, width], padding is zero; tiles beyond the end stay.
// grid (max_tiles * 16), block 256, no dynamic shared
extern "C" __global__ void __launch_bounds__(256)
    experts_gather(const real *h, const u32 *pair_of_row, const int *tile_expert, real *x, int width) {
    if (tile_expert[blockIdx.x / 16] < 0) {
        return;
    }
    size_t row = size_t(blockIdx.x) * 8 + threadIdx.x / 32;
    u32 pair = pair_of_row[row];
    const real *from = pair == experts::NONE ? nullptr : h + size_t(pair / TOP_K) * width;
    experts::copy_row(from, x + row * width, width);
}
EXPORT(experts_gather)

// x [rows, width] = onto + sum over the token's slots, in order, of gate * y[row], y [R, width]; dropped pairs are left
// out. x may be onto.
// grid (ceil(rows / 8)), block 256, no dynamic shared
extern "C" __global__ void __launch_bounds__(256)
    experts_combine(const real *y, const float *gates, const u32 *row_of_pair, const float *onto, float *x, int rows,
                    int width) {
    size_t token = size_t(blockIdx.x) * 8 + threadIdx.x / 32;
    if (token >= static_cast<size_t>(rows)) {
        return;
    }
    experts::Slots slots = experts::slots_of(token, row_of_pair, gates);
    if (width % 8 == 0) {
        experts::combine_row<experts::COLUMNS>(y, slots, onto + token * width, x + token * width, width);
    } else {
        experts::combine_row<1>(y, slots, onto + token * width, x + token * width, width);
    }
}
EXPORT(experts_combine)

// From dy [rows, width], the gradient of the combined output, and y [R, width]: d_out [R, width] = gate * dy[token],
// zero for padding; d_gates [rows * TOP_K] = y[row] . dy[token] of kept pairs; those of dropped pairs are not written.
// grid (max_tiles * 16), block 256, no dynamic shared
extern "C" __global__ void __launch_bounds__(256, 4)
    experts_d_out(const float *dy, const real *y, const float *gates, const u32 *pair_of_row, const int *tile_expert,
                  real *d_out, float *d_gates, int width) {
    experts::weigh_rows(dy, y, gates, pair_of_row, tile_expert, d_out, d_gates, width);
}
EXPORT(experts_d_out)

// Sum over the token's slots, in order, of dx[row], dx [R, width], with `add` on top of what dh holds (of what dh_real
// holds if dh is null); goes to dh and dh_real [rows, width], one of which may be null.
// grid (ceil(rows / 8)), block 256, no dynamic shared
extern "C" __global__ void __launch_bounds__(256)
    experts_scatter(const real *dx, const u32 *row_of_pair, float *dh, real *dh_real, int add, int rows, int width) {
    size_t token = size_t(blockIdx.x) * 8 + threadIdx.x / 32;
    if (token >= static_cast<size_t>(rows)) {
        return;
    }
    experts::Slots slots = experts::slots_of(token, row_of_pair, nullptr);
    dh = dh ? dh + token * width : nullptr;
    dh_real = dh_real ? dh_real + token * width : nullptr;
    if (width % 8 == 0) {
        experts::scatter_row<experts::COLUMNS>(dx, slots, dh, dh_real, add != 0, width);
    } else {
        experts::scatter_row<1>(dx, slots, dh, dh_real, add != 0, width);
    }
}
EXPORT(experts_scatter)
