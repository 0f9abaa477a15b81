// Products of the experts' rows with their matrices, one launch for all experts. Which tile of rows belongs to whom
// lies on the device, so that a graph needs no sizes from the host (the idea of grouped products: Gale 2211.15841).
//
// A block makes one 128 x 128 tile. In bf16 each of four warps has 64 x 64 of it: fewer bytes from shared memory per
// product than smaller warp tiles need, which is what binds mma.sync on Hopper. Two blocks fit a multiprocessor.

namespace grouped {

const int TILE = 128;
const int THREADS = 128;

// A matrix operand of a block's tile. ALONG: stored [tile index, depth]; otherwise stored [depth, tile index].
struct Operand {
    const real *at;
    size_t stride;
    // Valid tile indices, at most TILE where it matters.
    int limit;
};

__device__ __forceinline__ bool on_16_bytes(const void *pointer) {
    return (reinterpret_cast<size_t>(pointer) & 15) == 0;
}

#ifndef REAL_F32

const int DEPTH = 32;
const int STAGES = 3;
const int OPERAND_BYTES = TILE * DEPTH * 2;
const int STAGE_BYTES = 2 * OPERAND_BYTES;

// A warp's 64 x 64: four by eight fragments.
struct Sums {
    float parts[4][8][4];
};

// Where eight neighbours lie in shared memory, in bytes. Chunks of a row are mixed so that the eight rows of a matrix
// load, and the eight lanes of a store, fall on different banks.
template <bool ALONG> __device__ __forceinline__ int place(int row, int chunk) {
    return ALONG ? row * (DEPTH * 2) + (chunk ^ ((row >> 1) & 3)) * 16 : row * (TILE * 2) + (chunk ^ (row & 7)) * 16;
}

// Starts the copy of the depths [first, first + DEPTH) of an operand's tile; zeros where there is nothing.
template <bool ALONG, bool VECTOR>
__device__ __forceinline__ void load(char *to, const Operand &from, int first, int depth) {
    const int CHUNKS = ALONG ? DEPTH / 8 : TILE / 8;
    const int ROWS = ALONG ? TILE : DEPTH;
    int chunk = threadIdx.x % CHUNKS, top = threadIdx.x / CHUNKS;
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
        int row = top + i * (THREADS / CHUNKS);
        char *place_of = to + place<ALONG>(row, chunk);
        int index = ALONG ? row : chunk * 8, at = first + (ALONG ? chunk * 8 : row);
        const real *source = from.at + (ALONG ? row * from.stride + at : at * from.stride + index);
        if constexpr (VECTOR) {
            bool valid = index < from.limit && at < depth;
            copy_async(place_of, valid ? source : from.at, valid);
        } else {
            for (int j = 0; j < 8; j++) {
                bool valid = ALONG ? index < from.limit && at + j < depth : index + j < from.limit && at < depth;
                reinterpret_cast<real *>(place_of)[j] = valid ? source[j] : to_bf16(0.0f);
            }
        }
    }
}

// One operand's fragment of 16 tile indices from `index` by 16 depths from `chunk * 8`. The two middle 8 x 8 matrices
// of the left operand and of the right one lie the other way round.
template <bool ALONG, bool LEFT>
__device__ __forceinline__ void fragment(u32 (&to)[4], const char *tile, int index, int chunk) {
    int matrix = lane_index() / 8, line = lane_index() % 8;
    int next_index = LEFT ? matrix % 2 : matrix / 2, next_depth = LEFT ? matrix / 2 : matrix % 2;
    if (ALONG) {
        load_matrix(to, tile + place<true>(index + next_index * 8 + line, chunk + next_depth));
    } else {
        load_matrix_turned(to, tile + place<false>((chunk + next_depth) * 8 + line, index / 8 + next_index));
    }
}

// Sixteen depths of a stage from `chunk * 8`, for the warp's tile at (row, column).
template <bool LEFT_ALONG, bool RIGHT_ALONG>
__device__ __forceinline__ void multiply_chunks(Sums &sums, const char *stage, int row, int column, int chunk) {
    u32 left[4][4], right[8][2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        fragment<LEFT_ALONG, true>(left[i], stage, row + i * 16, chunk);
    }
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        u32 both[4];
        fragment<RIGHT_ALONG, false>(both, stage + OPERAND_BYTES, column + i * 8, chunk);
        right[i][0] = both[0], right[i][1] = both[1];
        right[i + 1][0] = both[2], right[i + 1][1] = both[3];
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            mma_bf16(sums.parts[i][j], left[i], right[j]);
        }
    }
}

__device__ __forceinline__ int warp_row() { return threadIdx.x / 64 * 64; }
__device__ __forceinline__ int warp_column() { return threadIdx.x / 32 % 2 * 64; }

// The tile's sums over depths [0, depth).
template <bool LEFT_ALONG, bool RIGHT_ALONG, bool VECTOR>
__device__ __forceinline__ void multiply(Sums &sums, const Operand &left, const Operand &right, int depth, char *room) {
    sums = {};
    auto start = [&](int step) {
        char *stage = room + step % STAGES * STAGE_BYTES;
        // Zeros past the end: a branch here would keep the compiler from spreading this among the products.
        load<LEFT_ALONG, VECTOR>(stage, left, step * DEPTH, depth);
        load<RIGHT_ALONG, VECTOR>(stage + OPERAND_BYTES, right, step * DEPTH, depth);
        copy_commit();
    };
    for (int step = 0; step < STAGES - 1; step++) {
        start(step);
    }
    for (int step = 0; step * DEPTH < depth; step++) {
        copy_wait<STAGES - 2>();
        // Also says that everyone is done with the stage that is filled next.
        __syncthreads();
        const char *stage = room + step % STAGES * STAGE_BYTES;
        multiply_chunks<LEFT_ALONG, RIGHT_ALONG>(sums, stage, warp_row(), warp_column(), 0);
        // Here rather than before: its addresses are worked out while the tensor cores are busy.
        start(step + STAGES - 1);
        multiply_chunks<LEFT_ALONG, RIGHT_ALONG>(sums, stage, warp_row(), warp_column(), 2);
    }
}

// Writes the tile as `real`; all its rows exist. Warps turn fragments into rows of 128 bytes in their own room.
template <bool VECTOR>
__device__ __forceinline__ void store(real *to, size_t stride, int limit, const Sums &sums, char *room) {
    int lane = lane_index();
    int group = lane / 4, pair = lane % 4;
    to += warp_row() * stride + warp_column();
    limit -= warp_column();
    if (!VECTOR) {
#pragma unroll
        for (int i = 0; i < 128; i++) {
            int row = i / 32 * 16 + i % 4 / 2 * 8 + group, column = i / 4 % 8 * 8 + pair * 2 + i % 2;
            if (column < limit) {
                put(to + row * stride + column, sums.parts[i / 32][i / 4 % 8][i % 4]);
            }
        }
        return;
    }
    copy_wait<0>();
    __syncthreads();
    char *mine = room + threadIdx.x / 32 * (64 * 128);
#pragma unroll
    for (int i = 0; i < 64; i++) {
        int row = i / 16 * 16 + i % 2 * 8 + group, column = i / 2 % 8;
        const float *part = sums.parts[i / 16][column] + i % 2 * 2;
        char *at = mine + row * 128 + (column ^ (row & 7)) * 16 + pair * 4;
        put(reinterpret_cast<bf16 *>(at), {part[0], part[1]});
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int row = i * 4 + lane / 8, column = lane % 8;
        if (column * 8 < limit) {
            const char *from = mine + row * 128 + (column ^ (row & 7)) * 16;
            *reinterpret_cast<Words<4> *>(to + row * stride + column * 8) = *reinterpret_cast<const Words<4> *>(from);
        }
    }
}

// Writes or adds the tile as f32, down to row `rows`. Four lanes fill a sector of 32 bytes.
template <bool VECTOR>
__device__ __forceinline__ void store(float *to, size_t stride, int rows, int limit, const Sums &sums, bool add) {
    int top = warp_row() + lane_index() / 4, first = warp_column() + lane_index() % 4 * 2;
#pragma unroll
    for (int i = 0; i < 64; i++) {
        int row = top + i / 16 * 16 + i % 2 * 8, column = first + i / 2 % 8 * 8;
        const float *part = sums.parts[i / 16][i / 2 % 8] + i % 2 * 2;
        float *at = to + row * stride + column;
        if (row >= rows || column >= limit) {
            continue;
        }
        if (VECTOR) {
            float old[2] = {0.0f, 0.0f};
            if (add) {
                get(old, at);
            }
            put(at, {old[0] + part[0], old[1] + part[1]});
            continue;
        }
        at[0] = (add ? at[0] : 0.0f) + part[0];
        if (column + 1 < limit) {
            at[1] = (add ? at[1] : 0.0f) + part[1];
        }
    }
}

#else

const int DEPTH = 16;
// Padded: threads that fill a column of depths then meet on few banks.
const int LINE = TILE + 4;

// A thread's rows are 4 from `thread / 8 * 4` and 4 from there + 64; its columns 4 from `thread % 8 * 4`, every 32.
struct Sums {
    float parts[8][16];
};

__device__ __forceinline__ int row_of(int i) { return threadIdx.x / 8 * 4 + i / 4 * 64 + i % 4; }
__device__ __forceinline__ int column_of(int j) { return threadIdx.x % 8 * 4 + j / 4 * 32 + j % 4; }

template <bool ALONG> __device__ __forceinline__ void load(float *to, const Operand &from, int first, int depth) {
    for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
        int index = ALONG ? i / DEPTH : i % TILE, line = ALONG ? i % DEPTH : i / TILE;
        int at = first + line;
        bool valid = index < from.limit && at < depth;
        to[line * LINE + index] = valid ? from.at[ALONG ? index * from.stride + at : at * from.stride + index] : 0.0f;
    }
}

template <bool LEFT_ALONG, bool RIGHT_ALONG, bool VECTOR>
__device__ __forceinline__ void multiply(Sums &sums, const Operand &left, const Operand &right, int depth, char *room) {
    float *lefts = reinterpret_cast<float *>(room), *rights = lefts + DEPTH * LINE;
    sums = {};
    for (int first = 0; first < depth; first += DEPTH) {
        __syncthreads();
        load<LEFT_ALONG>(lefts, left, first, depth);
        load<RIGHT_ALONG>(rights, right, first, depth);
        __syncthreads();
        for (int line = 0; line < DEPTH; line++) {
            float a[8], b[16];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                a[i] = lefts[line * LINE + row_of(i)];
            }
#pragma unroll
            for (int j = 0; j < 16; j++) {
                b[j] = rights[line * LINE + column_of(j)];
            }
#pragma unroll
            for (int i = 0; i < 128; i++) {
                sums.parts[i / 16][i % 16] += a[i / 16] * b[i % 16];
            }
        }
    }
}

template <bool VECTOR>
__device__ __forceinline__ void store(float *to, size_t stride, int rows, int limit, const Sums &sums, bool add) {
#pragma unroll
    for (int i = 0; i < 128; i++) {
        int row = row_of(i / 16), column = column_of(i % 16);
        if (row < rows && column < limit) {
            float *at = to + row * stride + column;
            *at = (add ? *at : 0.0f) + sums.parts[i / 16][i % 16];
        }
    }
}

template <bool VECTOR>
__device__ __forceinline__ void store(real *to, size_t stride, int limit, const Sums &sums, char *) {
    store<VECTOR>(to, stride, TILE, limit, sums, false);
}

#endif

// A tile of `y [R, n] = x [R, depth] W`, with W of this tile's expert stored `[depth, n]`, or `[n, depth]` if ALONG.
template <bool ALONG, bool VECTOR>
__device__ __forceinline__ void rows_times_matrix(const real *x, const real *w, real *y, int depth, int n, char *room) {
    int first = blockIdx.x * TILE;
    size_t top = size_t(blockIdx.y) * TILE;
    Operand left = {x + top * depth, size_t(depth), TILE};
    Operand right = {ALONG ? w + size_t(first) * depth : w + first, size_t(ALONG ? depth : n), n - first};
    Sums sums;
    multiply<true, ALONG, VECTOR>(sums, left, right, depth, room);
    store<VECTOR>(y + top * n + first, size_t(n), n - first, sums, room);
}

template <bool ALONG>
__device__ __forceinline__ void rows_times_matrix(const real *x, const real *w, const int *tile_expert, real *y,
                                                  int depth, int n, char *room) {
    int expert = tile_expert[blockIdx.y];
    if (expert < 0) {
        return;
    }
    w += size_t(expert) * depth * n;
    if (depth % 8 == 0 && n % 8 == 0 && on_16_bytes(x) && on_16_bytes(w) && on_16_bytes(y)) {
        rows_times_matrix<ALONG, true>(x, w, y, depth, n, room);
    } else {
        rows_times_matrix<ALONG, false>(x, w, y, depth, n, room);
    }
}

// A tile of `dw [k, n] (+)= x^T dy` over the rows [first, last).
template <bool VECTOR>
__device__ __forceinline__ void columns_times_columns(const real *x, const real *dy, float *dw, int k, int n, u32 first,
                                                      u32 last, bool add, char *room) {
    int row = blockIdx.y * TILE, column = blockIdx.x * TILE;
    Operand left = {x + size_t(first) * k + row, size_t(k), k - row};
    Operand right = {dy + size_t(first) * n + column, size_t(n), n - column};
    Sums sums;
    multiply<false, false, VECTOR>(sums, left, right, int(last - first), room);
    store<VECTOR>(dw + size_t(row) * n + column, size_t(n), k - row, n - column, sums, add);
}

} // namespace grouped

// y [R, n] = x [R, k] W_e [k, n] for the rows of every expert e, W [E, k, n]; R = max_tiles * 128. Tiles that belong to
// nobody (tile_expert < 0) stay as they are.
// grid (ceil(n / 128), max_tiles), block 128, shared 49152
extern "C" __global__ void __launch_bounds__(128)
    grouped_forward(const real *x, const real *w, const int *tile_expert, real *y, int k, int n) {
    SHARED_DYNAMIC(room);
    grouped::rows_times_matrix<false>(x, w, tile_expert, y, k, n, room);
}
EXPORT(grouped_forward)

// dx [R, k] = dy [R, n] W_e^T for the rows of every expert e, W [E, k, n]; R = max_tiles * 128.
// grid (ceil(k / 128), max_tiles), block 128, shared 49152
extern "C" __global__ void __launch_bounds__(128)
    grouped_by_input(const real *dy, const real *w, const int *tile_expert, real *dx, int k, int n) {
    SHARED_DYNAMIC(room);
    grouped::rows_times_matrix<true>(dy, w, tile_expert, dx, n, k, room);
}
EXPORT(grouped_by_input)

// dw [E, k, n] = (or += with `add`) x_e^T dy_e over the rows first_row[e] .. first_row[e + 1] of x [R, k], dy [R, n],
// in order. Padding rows are read: they must be zero in both. An expert without rows gets zeros, or nothing with `add`.
// grid (ceil(n / 128), ceil(k / 128), E), block 128, shared 49152
extern "C" __global__ void __launch_bounds__(128)
    grouped_by_weight(const real *x, const real *dy, const u32 *first_row, float *dw, int k, int n, int add) {
    SHARED_DYNAMIC(room);
    int expert = blockIdx.z;
    u32 first = first_row[expert], last = first_row[expert + 1];
    if (add && first == last) {
        return;
    }
    dw += size_t(expert) * k * n;
    bool aligned = grouped::on_16_bytes(x) && grouped::on_16_bytes(dy) && grouped::on_16_bytes(dw);
    if (k % 8 == 0 && n % 8 == 0 && aligned) {
        grouped::columns_times_columns<true>(x, dy, dw, k, n, first, last, add != 0, room);
    } else {
        grouped::columns_times_columns<false>(x, dy, dw, k, n, first, last, add != 0, room);
    }
}
EXPORT(grouped_by_weight)
