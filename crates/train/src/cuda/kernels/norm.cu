// RMSNorm with gain (Zhang & Sennrich 1910.07467), forward and backward. A warp takes a row; each lane takes pieces of
// STEP neighbours, 32 * STEP apart, and keeps the first KEPT of them in registers, so that rows of up to 128 * KEPT are
// read once. STEP is 4 where rows lie on 16 bytes, else 1. Narrow rows need few registers, so that more warps are under
// way at once: what they wait for is memory.

constexpr float NORM_EPSILON = 1e-5f;
constexpr int NORM_KEPT = 8;
constexpr int NORM_KEPT_NARROW = 2;

template <int STEP>
__device__ __forceinline__ void norm_write(const float (&x)[STEP], const float *gain, float inverse, real *h,
                                           float *exact, int at) {
    float y[STEP];
    get(y, gain + at);
    for (int j = 0; j < STEP; j++) {
        y[j] *= x[j] * inverse;
    }
    put(h + at, y);
    if (exact) {
        put(exact + at, y);
    }
}

template <int STEP, int KEPT>
__device__ __forceinline__ void norm_forward_row(const float *__restrict__ x, const float *__restrict__ gain,
                                                 real *__restrict__ h, float *__restrict__ exact,
                                                 float *__restrict__ inverse, int width) {
    const int stride = 32 * STEP;
    int first = lane_index() * STEP;
    float kept[KEPT][STEP] = {};
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        if (first + i * stride < width) {
            get(kept[i], x + first + i * stride);
        }
    }
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        for (int j = 0; j < STEP; j++) {
            squares += kept[i][j] * kept[i][j];
        }
    }
#pragma unroll(KEPT / 2)
    for (int at = first + KEPT * stride; at < width; at += stride) {
        float more[STEP];
        get(more, x + at);
        for (int j = 0; j < STEP; j++) {
            squares += more[j] * more[j];
        }
    }
    float scale = 1.0f / sqrtf(warp_sum(squares) / width + NORM_EPSILON);
    if (lane_index() == 0) {
        *inverse = scale;
    }
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        if (first + i * stride < width) {
            norm_write<STEP>(kept[i], gain, scale, h, exact, first + i * stride);
        }
    }
#pragma unroll(KEPT / 2)
    for (int at = first + KEPT * stride; at < width; at += stride) {
        float more[STEP];
        get(more, x + at);
        norm_write<STEP>(more, gain, scale, h, exact, at);
    }
}

template <int KEPT>
__device__ __forceinline__ void norm_forward_rows(const float *__restrict__ x, const float *__restrict__ gain,
                                                  real *__restrict__ h, float *__restrict__ exact,
                                                  float *__restrict__ inverse, int rows, int width) {
    int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) {
        return;
    }
    size_t begin = static_cast<size_t>(row) * width;
    exact = exact ? exact + begin : nullptr;
    if (width % 4 == 0) {
        norm_forward_row<4, KEPT>(x + begin, gain, h + begin, exact, inverse + row, width);
    } else {
        norm_forward_row<1, KEPT>(x + begin, gain, h + begin, exact, inverse + row, width);
    }
}

// h [rows, width] = x * inverse * gain, where inverse [rows] is one over the root mean square of each row; `exact` is
// null or gets the same in f32. For width > 256 (right for any).
// grid (ceil(rows / 8)), block 256, no shared
extern "C" __global__ void __launch_bounds__(256, 3)
    norm_forward(const float *__restrict__ x, const float *__restrict__ gain, real *__restrict__ h,
                 float *__restrict__ exact, float *__restrict__ inverse, int rows, int width) {
    norm_forward_rows<NORM_KEPT>(x, gain, h, exact, inverse, rows, width);
}
EXPORT(norm_forward)

// The same for width <= 256 (right for any).
// grid (ceil(rows / 8)), block 256, no shared
extern "C" __global__ void __launch_bounds__(256, 5)
    norm_forward_narrow(const float *__restrict__ x, const float *__restrict__ gain, real *__restrict__ h,
                        float *__restrict__ exact, float *__restrict__ inverse, int rows, int width) {
    norm_forward_rows<NORM_KEPT_NARROW>(x, gain, h, exact, inverse, rows, width);
}
EXPORT(norm_forward_narrow)

// What norm_backward reads and writes, and the row it is at.
struct NormRow {
    const float *x, *gain;
    const real *d_h;
    const float *d_exact;
    float *d_x;
    real *d_x_real;
    bool set;
    size_t begin;
    float inverse;
};

// A lane's piece of a row: x, the two gradients of the norm's output, and d_x as it was.
template <int STEP> struct NormPiece {
    float x[STEP], d[STEP], d_exact[STEP], before[STEP];
};

template <int STEP> __device__ __forceinline__ NormPiece<STEP> norm_read(const NormRow &row, int at) {
    NormPiece<STEP> piece = {};
    get(piece.x, row.x + row.begin + at);
    get(piece.d, row.d_h + row.begin + at);
    if (!row.set) {
        get(piece.before, row.d_x + row.begin + at);
    }
    if (row.d_exact) {
        get(piece.d_exact, row.d_exact + row.begin + at);
    }
    return piece;
}

// Adds a piece's part of the gain's gradient to `sums` where that is not null, makes `before` the new d_x but for what
// all of the row gives, and returns the piece's part of that: sum_i dy_i g_i x_i.
template <int STEP>
__device__ __forceinline__ float norm_along(const NormRow &row, int at, NormPiece<STEP> &piece, float *sums) {
    float gain[STEP], sum[STEP], along = 0.0f;
    get(gain, row.gain + at);
    for (int j = 0; j < STEP; j++) {
        float d = piece.d[j] + piece.d_exact[j];
        sum[j] = piece.x[j] * d;
        along += sum[j] * gain[j];
        piece.before[j] += d * gain[j] * row.inverse;
    }
    if (sums) {
        float sum_before[STEP];
        get(sum_before, sums + at);
        for (int j = 0; j < STEP; j++) {
            sum[j] = sum[j] * row.inverse + sum_before[j];
        }
        put(sums + at, sum);
    }
    return along;
}

template <int STEP>
__device__ __forceinline__ void norm_finish(const NormRow &row, int at, const float (&x)[STEP],
                                            const float (&before)[STEP], float pull) {
    float d_x[STEP];
    for (int j = 0; j < STEP; j++) {
        d_x[j] = x[j] * pull + before[j];
    }
    put(row.d_x + row.begin + at, d_x);
    if (row.d_x_real) {
        put(row.d_x_real + row.begin + at, d_x);
    }
}

// With y = x r g and r = inverse: dx_j = r g_j dy_j - x_j r^3 / width * sum_i dy_i g_i x_i.
template <int STEP, int KEPT>
__device__ __forceinline__ void norm_backward_row(const NormRow &row, float *sums, int width) {
    const int stride = 32 * STEP, rest = KEPT * stride, GROUP = 2;
    int first = lane_index() * STEP;
    float x[KEPT][STEP], before[KEPT][STEP], along = 0.0f;
#pragma unroll
    for (int i = 0; i < KEPT; i += GROUP) {
        if (i * stride >= width) {
            break;
        }
        // Past the row's end its start stands in: without branches all loads of a group are under way at once.
        NormPiece<STEP> group[GROUP];
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            int at = first + (i + k) * stride;
            group[k] = norm_read<STEP>(row, at < width ? at : 0);
        }
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            int at = first + (i + k) * stride;
            float part = norm_along<STEP>(row, at < width ? at : 0, group[k], at < width ? sums : nullptr);
            along += at < width ? part : 0.0f;
            for (int j = 0; j < STEP; j++) {
                x[i + k][j] = group[k].x[j];
                before[i + k][j] = group[k].before[j];
            }
        }
    }
#pragma unroll 1
    for (int at = first + rest; at < width; at += stride) {
        NormPiece<STEP> piece = norm_read<STEP>(row, at);
        along += norm_along<STEP>(row, at, piece, sums);
    }
    float pull = -warp_sum(along) * row.inverse * row.inverse * row.inverse / width;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        if (first + i * stride < width) {
            norm_finish<STEP>(row, first + i * stride, x[i], before[i], pull);
        }
    }
#pragma unroll 1
    for (int at = first + rest; at < width; at += stride) {
        NormPiece<STEP> piece = norm_read<STEP>(row, at);
        norm_along<STEP>(row, at, piece, nullptr);
        norm_finish<STEP>(row, at, piece.x, piece.before, pull);
    }
}

// Every warp sums the gain's gradient over its own rows in `sums` [width], in their order; a lane touches its own
// elements only.
template <int STEP, int KEPT>
__device__ __forceinline__ void norm_backward_rows(const NormRow &all, const float *inverse, float *sums, int rows,
                                                   int width) {
    float zeros[STEP] = {};
    for (int at = lane_index() * STEP; at < width; at += 32 * STEP) {
        put(sums + at, zeros);
    }
    int warps = blockDim.x / 32;
    for (int row = blockIdx.x * warps + threadIdx.x / 32; row < rows; row += gridDim.x * warps) {
        NormRow one = all;
        one.begin = static_cast<size_t>(row) * width;
        one.inverse = inverse[row];
        norm_backward_row<STEP, KEPT>(one, sums, width);
    }
}

template <int KEPT>
__device__ __forceinline__ void norm_backward_block(const NormRow &all, const float *inverse, float *partial, int rows,
                                                    int width) {
    SHARED_DYNAMIC(room);
    float *sums = reinterpret_cast<float *>(room), *mine = sums + threadIdx.x / 32 * width;
    if (width % 4 == 0) {
        norm_backward_rows<4, KEPT>(all, inverse, mine, rows, width);
    } else {
        norm_backward_rows<1, KEPT>(all, inverse, mine, rows, width);
    }
    __syncthreads();
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float sum = 0.0f;
        for (int warp = 0; warp < static_cast<int>(blockDim.x / 32); warp++) {
            sum += sums[warp * width + column];
        }
        partial[static_cast<size_t>(blockIdx.x) * width + column] = sum;
    }
}

// The gradient d_h (+ d_exact, which may be null) [rows, width] of norm_forward's result, sent on to x: added to d_x
// [rows, width], or put there if `set`; d_x_real, which may be null, gets the new d_x rounded. partial [blocks, width]
// gets each block's sum of the gain's gradient, for norm_gain. For width > 256 (right for any).
// warps = clamp(12288 / width, 1, 8); grid (blocks), any number, best min(ceil(rows / warps), 264); block 32 * warps;
// shared 4 * warps * width (48 KiB at most up to width 12288)
extern "C" __global__ void __launch_bounds__(256, 2)
    norm_backward(const float *__restrict__ x, const float *__restrict__ gain, const float *__restrict__ inverse,
                  const real *__restrict__ d_h, const float *__restrict__ d_exact, float *__restrict__ d_x,
                  real *__restrict__ d_x_real, float *__restrict__ partial, int rows, int width, int set) {
    NormRow all = {x, gain, d_h, d_exact, d_x, d_x_real, set != 0, 0, 0.0f};
    norm_backward_block<NORM_KEPT>(all, inverse, partial, rows, width);
}
EXPORT(norm_backward)

// The same for width <= 256 (right for any).
// warps, block and shared as for norm_backward; grid (blocks), any number, best min(ceil(rows / warps), 528)
extern "C" __global__ void __launch_bounds__(256, 4)
    norm_backward_narrow(const float *__restrict__ x, const float *__restrict__ gain, const float *__restrict__ inverse,
                         const real *__restrict__ d_h, const float *__restrict__ d_exact, float *__restrict__ d_x,
                         real *__restrict__ d_x_real, float *__restrict__ partial, int rows, int width, int set) {
    NormRow all = {x, gain, d_h, d_exact, d_x, d_x_real, set != 0, 0, 0.0f};
    norm_backward_block<NORM_KEPT_NARROW>(all, inverse, partial, rows, width);
}
EXPORT(norm_backward_narrow)

// d_gain [width] = the sum of partial [blocks, width], or that much more if `add`: 32 columns a block, and 32 threads a
// column, as there are few columns.
// grid (ceil(width / 32)), block 1024, no dynamic shared
extern "C" __global__ void __launch_bounds__(1024) norm_gain(const float *__restrict__ partial,
                                                             float *__restrict__ d_gain, int blocks, int width,
                                                             int add) {
    __shared__ float sums[32][32];
    int column = blockIdx.x * 32 + lane_index(), part = threadIdx.x / 32;
    float sum = 0.0f;
    if (column < width) {
#pragma unroll 8
        for (int block = part; block < blocks; block += 32) {
            sum += partial[static_cast<size_t>(block) * width + column];
        }
    }
    sums[part][lane_index()] = sum;
    __syncthreads();
    if (part == 0 && column < width) {
        float total = 0.0f;
        for (int i = 0; i < 32; i++) {
            total += sums[i][lane_index()];
        }
        d_gain[column] = add ? d_gain[column] + total : total;
    }
}
EXPORT(norm_gain)
