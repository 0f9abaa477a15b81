// Our own matrix product, a tile at a time, for what a library's product cannot do: rows of several owners in one launch
// (grouped.cu), and what follows a product done while it is still at hand (gated.cu, turned.cu).
//
// A block makes one 128 x 128 tile. In bf16 each of four warps has 64 x 64 of it: fewer bytes from shared memory per
// product than smaller warp tiles need, which is what binds mma.sync on Hopper. Two blocks fit a multiprocessor.

namespace tiles {

const int TILE = 128;
const int THREADS = 128;

// A matrix operand of a block's tile. ALONG: stored [tile index, depth]; otherwise stored [depth, tile index].
struct Operand {
    const real *at;
    size_t stride;
    // Valid tile indices, at most TILE where it matters.
    int limit;

    __device__ __forceinline__ bool holds(int index) const { return index < limit; }
    __device__ __forceinline__ size_t place(int index) const { return index; }
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
template <bool ALONG, bool VECTOR, class From>
__device__ __forceinline__ void load(char *to, const From &from, int first, int depth) {
    const int CHUNKS = ALONG ? DEPTH / 8 : TILE / 8;
    const int ROWS = ALONG ? TILE : DEPTH;
    int chunk = threadIdx.x % CHUNKS, top = threadIdx.x / CHUNKS;
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
        int row = top + i * (THREADS / CHUNKS);
        char *place_of = to + place<ALONG>(row, chunk);
        int index = ALONG ? row : chunk * 8, at = first + (ALONG ? chunk * 8 : row);
        const real *source = from.at + (ALONG ? row * from.stride + at : at * from.stride + from.place(index));
        if constexpr (VECTOR) {
            bool valid = from.holds(index) && at < depth;
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
template <bool LEFT_ALONG, bool RIGHT_ALONG, bool VECTOR, class Right>
__device__ __forceinline__ void multiply(Sums &sums, const Operand &left, const Right &right, int depth, char *room) {
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

// Where eight neighbours of a row of a warp's 64 x 64 lie once it is staged. Chunks are mixed as by `place`.
__device__ __forceinline__ char *staged(char *mine, int row, int chunk) {
    return mine + row * 128 + (chunk ^ (row & 7)) * 16;
}

// Puts the tile into shared memory as bf16, rows of 64 for each warp, and says where the warp's own begin.
__device__ __forceinline__ char *stage(const Sums &sums, char *room) {
    int group = lane_index() / 4, pair = lane_index() % 4;
    copy_wait<0>();
    __syncthreads();
    char *mine = room + threadIdx.x / 32 * (64 * 128);
#pragma unroll
    for (int i = 0; i < 64; i++) {
        int row = i / 16 * 16 + i % 2 * 8 + group, chunk = i / 2 % 8;
        const float *part = sums.parts[i / 16][chunk] + i % 2 * 2;
        put(reinterpret_cast<bf16 *>(staged(mine, row, chunk) + pair * 4), {part[0], part[1]});
    }
    __syncwarp();
    return mine;
}

// Writes the tile as `real`; all its rows exist.
template <bool VECTOR>
__device__ __forceinline__ void store(real *to, size_t stride, int limit, const Sums &sums, char *room) {
    int lane = lane_index();
    to += warp_row() * stride + warp_column();
    limit -= warp_column();
    if (!VECTOR) {
#pragma unroll
        for (int i = 0; i < 128; i++) {
            int row = i / 32 * 16 + i % 4 / 2 * 8 + lane / 4, column = i / 4 % 8 * 8 + lane % 4 * 2 + i % 2;
            if (column < limit) {
                put(to + row * stride + column, sums.parts[i / 32][i / 4 % 8][i % 4]);
            }
        }
        return;
    }
    char *mine = stage(sums, room);
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int row = i * 4 + lane / 8, chunk = lane % 8;
        if (chunk * 8 < limit) {
            *reinterpret_cast<Words<4> *>(to + row * stride + chunk * 8) =
                *reinterpret_cast<const Words<4> *>(staged(mine, row, chunk));
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

} // namespace tiles
