// Causal attention in plain f32 arithmetic, under the names and with the arguments of the kernels on tensor cores: for
// runs in f32 and for heads wider than 128. Scores are computed a tile at a time and never stored (after Dao
// 2205.14135); the backward pass computes the probabilities again from the log-sum-exp of each row.
//
// qkv [rows, 3 width] holds queries, keys and values, rows = sequences * positions, head h in columns h * HEAD of each
// third, already rotated; width = heads * HEAD. A warp owns a few rows of one side of the scores. Of the other side, 32
// rows at a time lie in shared memory, one for each lane while scores are computed; for the sums over them a lane owns
// every 32nd column of the head.

namespace attention {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
// Rows of a warp, as many as shared memory has room for.
constexpr int OWN = HEAD <= 128 ? 4 : 2;
constexpr int ROWS = WARPS * OWN;
constexpr int TILE = 32;
// Columns of a lane.
constexpr int COLUMNS = (HEAD + 31) / 32;
// Of a row in shared memory: odd, so that lanes that each read their own row meet no bank twice.
constexpr int STRIDE = HEAD + 1;
constexpr int SHARED = (2 * TILE * STRIDE + 2 * ROWS * HEAD) * 4;
static_assert(HEAD % 2 == 0 && HEAD <= 256 && SHARED <= 99 * 1024, "more shared memory than some devices have");

__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }
__device__ __forceinline__ float scale() { return 1.0f / sqrtf(static_cast<float>(HEAD)); }

// The block brings COUNT rows from `first` on to shared memory, zeros where there are none.
template <int COUNT>
__device__ __forceinline__ void bring(float *to, int to_stride, const Slice<const real> &from, int first,
                                      int positions) {
    for (int i = threadIdx.x; i < COUNT * HEAD; i += THREADS) {
        int row = i / HEAD, column = i % HEAD;
        bool valid = first + row < positions;
        to[row * to_stride + column] = valid ? to_float(from.start[(first + row) * from.stride + column]) : 0.0f;
    }
}

// products[i] = this lane's row of the tile times row i of the warp's own.
__device__ __forceinline__ void products(float (&to)[OWN], const float *own, const float *tile) {
    const float *row = tile + lane_index() * STRIDE;
    UNROLL for (int i = 0; i < OWN; i++) {
        to[i] = 0.0f;
    }
    for (int column = 0; column < HEAD; column++) {
        UNROLL for (int i = 0; i < OWN; i++) {
            to[i] += own[i * HEAD + column] * row[column];
        }
    }
}

// sums[i] += the rows of the tile, each times the weight that its lane has for row i of the warp's own.
__device__ __forceinline__ void add_mixed(float (&sums)[OWN][COLUMNS], const float (&weights)[OWN], const float *tile) {
    for (int from = 0; from < TILE; from++) {
        float weight[OWN];
        UNROLL for (int i = 0; i < OWN; i++) {
            weight[i] = shuffle(weights[i], from);
        }
        UNROLL for (int j = 0; j < COLUMNS; j++) {
            int column = j * 32 + lane_index();
            float value = column < HEAD ? tile[from * STRIDE + column] : 0.0f;
            UNROLL for (int i = 0; i < OWN; i++) {
                sums[i][j] += weight[i] * value;
            }
        }
    }
}

__device__ __forceinline__ void clear(float (&sums)[OWN][COLUMNS]) {
    UNROLL for (int i = 0; i < OWN; i++) {
        UNROLL for (int j = 0; j < COLUMNS; j++) {
            sums[i][j] = 0.0f;
        }
    }
}

// Writes the warp's own rows, each times its factor.
__device__ __forceinline__ void write(const Slice<real> &to, const float (&sums)[OWN][COLUMNS],
                                      const float (&factors)[OWN], int first, int positions) {
    UNROLL for (int i = 0; i < OWN; i++) {
        UNROLL for (int j = 0; j < COLUMNS; j++) {
            int column = j * 32 + lane_index();
            if (first + i < positions && column < HEAD) {
                put(to.start + (first + i) * to.stride + column, sums[i][j] * factors[i]);
            }
        }
    }
}

} // namespace attention

// out [rows, width] = softmax(q k^T / sqrt(HEAD)) v for each head, and lse [heads, rows], the log of each softmax's
// sum. grid (ceil(positions / ROWS), heads, sequences), block 256, ROWS = 32 if HEAD <= 128 else 16,
// shared (64 * (HEAD + 1) + 2 * ROWS * HEAD) * 4 bytes.
extern "C" __global__ void __launch_bounds__(attention::THREADS, 2)
    attention_forward(const real *qkv, real *out, float *lse, int positions, int width, int heads) {
    using namespace attention;
    SHARED_DYNAMIC(room);
    float *keys = reinterpret_cast<float *>(room), *values = keys + TILE * STRIDE, *queries = values + TILE * STRIDE;
    int block_first = (gridDim.x - 1 - blockIdx.x) * ROWS;
    int own_row = threadIdx.x / 32 * OWN;
    int first = block_first + own_row;
    bring<ROWS>(queries, HEAD, part(qkv, 0, positions, width), block_first, positions);

    float sums[OWN][COLUMNS], most[OWN], total[OWN];
    clear(sums);
    UNROLL for (int i = 0; i < OWN; i++) {
        most[i] = minus_infinity();
        total[i] = 0.0f;
    }
    for (int key = 0; key < min(block_first + ROWS, positions); key += TILE) {
        __syncthreads();
        bring<TILE>(keys, STRIDE, part(qkv, 1, positions, width), key, positions);
        bring<TILE>(values, STRIDE, part(qkv, 2, positions, width), key, positions);
        __syncthreads();
        float p[OWN];
        products(p, queries + own_row * HEAD, keys);
        UNROLL for (int i = 0; i < OWN; i++) {
            float score = key + lane_index() <= first + i ? p[i] * scale() : minus_infinity();
            // Key 0 is in the first tile, so that this is finite from then on.
            float now = fmaxf(most[i], warp_max(score));
            float shrink = expf(most[i] - now);
            most[i] = now;
            p[i] = expf(score - now);
            total[i] = total[i] * shrink + warp_sum(p[i]);
            UNROLL for (int j = 0; j < COLUMNS; j++) {
                sums[i][j] *= shrink;
            }
        }
        add_mixed(sums, p, values);
    }
    UNROLL for (int i = 0; i < OWN; i++) {
        if (lane_index() == 0 && first + i < positions) {
            lse[row_numbers(positions) + first + i] = most[i] + logf(total[i]);
        }
        total[i] = 1.0f / total[i];
    }
    write(plain(out, positions, width), sums, total, first, positions);
}
EXPORT(attention_forward)

// delta [heads, rows]: the sum of out * d_out over each head, which is what the softmax's gradient takes off
// (2205.14135, appendix B.2). Rows of heads follow each other in memory; a warp reads one.
// grid (ceil(rows * heads / 8)), block 256, no shared.
extern "C" __global__ void __launch_bounds__(attention::THREADS, 2)
    attention_delta(const real *out, const real *d_out, float *delta, int rows, int width, int heads) {
    size_t item = static_cast<size_t>(blockIdx.x) * attention::WARPS + threadIdx.x / 32;
    if (item >= static_cast<size_t>(rows) * heads) {
        return;
    }
    float sum = 0.0f;
    for (int column = lane_index(); column < HEAD; column += 32) {
        sum += to_float(out[item * HEAD + column]) * to_float(d_out[item * HEAD + column]);
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) {
        delta[item % heads * rows + item / heads] = sum;
    }
}
EXPORT(attention_delta)

// The gradients of keys and values, into their columns of d_qkv [rows, 3 width]: with p = exp(scores - lse) and
// d_scores = p (d_out v^T - delta), d_v = p^T d_out and d_k = d_scores^T q / sqrt(HEAD). The block owns keys and walks
// over the queries that see them.
// Grid, block and shared bytes as for attention_forward.
extern "C" __global__ void __launch_bounds__(attention::THREADS, 2)
    attention_keys(const real *qkv, const real *d_out, const float *lse, const float *delta, real *d_qkv, int positions,
                   int width, int heads) {
    using namespace attention;
    SHARED_DYNAMIC(room);
    float *queries = reinterpret_cast<float *>(room), *d_outs = queries + TILE * STRIDE;
    float *keys = d_outs + TILE * STRIDE, *values = keys + ROWS * HEAD;
    int block_first = blockIdx.x * ROWS;
    int own_row = threadIdx.x / 32 * OWN;
    int first = block_first + own_row;
    bring<ROWS>(keys, HEAD, part(qkv, 1, positions, width), block_first, positions);
    bring<ROWS>(values, HEAD, part(qkv, 2, positions, width), block_first, positions);

    float d_keys[OWN][COLUMNS], d_values[OWN][COLUMNS];
    clear(d_keys);
    clear(d_values);
    for (int tile = block_first; tile < positions; tile += TILE) {
        __syncthreads();
        bring<TILE>(queries, STRIDE, part(qkv, 0, positions, width), tile, positions);
        bring<TILE>(d_outs, STRIDE, plain(d_out, positions, width), tile, positions);
        __syncthreads();
        float p[OWN], d_scores[OWN];
        products(p, keys + own_row * HEAD, queries);
        products(d_scores, values + own_row * HEAD, d_outs);
        int query = tile + lane_index();
        float its_lse = query < positions ? lse[row_numbers(positions) + query] : 0.0f;
        float its_delta = query < positions ? delta[row_numbers(positions) + query] : 0.0f;
        UNROLL for (int i = 0; i < OWN; i++) {
            bool seen = first + i <= query && query < positions;
            p[i] = seen ? expf(p[i] * scale() - its_lse) : 0.0f;
            d_scores[i] = p[i] * (d_scores[i] - its_delta);
        }
        add_mixed(d_values, p, d_outs);
        add_mixed(d_keys, d_scores, queries);
    }
    float factors[OWN], ones[OWN];
    UNROLL for (int i = 0; i < OWN; i++) {
        factors[i] = scale();
        ones[i] = 1.0f;
    }
    write(part(d_qkv, 1, positions, width), d_keys, factors, first, positions);
    write(part(d_qkv, 2, positions, width), d_values, ones, first, positions);
}
EXPORT(attention_keys)

// The gradient of queries, into their columns of d_qkv: d_q = d_scores k / sqrt(HEAD). The block owns queries and walks
// over the keys that they see.
// Grid, block and shared bytes as for attention_forward.
extern "C" __global__ void __launch_bounds__(attention::THREADS, 2)
    attention_queries(const real *qkv, const real *d_out, const float *lse, const float *delta, real *d_qkv,
                      int positions, int width, int heads) {
    using namespace attention;
    SHARED_DYNAMIC(room);
    float *keys = reinterpret_cast<float *>(room), *values = keys + TILE * STRIDE;
    float *queries = values + TILE * STRIDE, *d_outs = queries + ROWS * HEAD;
    int block_first = (gridDim.x - 1 - blockIdx.x) * ROWS;
    int own_row = threadIdx.x / 32 * OWN;
    int first = block_first + own_row;
    bring<ROWS>(queries, HEAD, part(qkv, 0, positions, width), block_first, positions);
    bring<ROWS>(d_outs, HEAD, plain(d_out, positions, width), block_first, positions);

    float d_queries[OWN][COLUMNS], own_lse[OWN], own_delta[OWN], factors[OWN];
    clear(d_queries);
    UNROLL for (int i = 0; i < OWN; i++) {
        size_t at = row_numbers(positions) + first + i;
        own_lse[i] = first + i < positions ? lse[at] : 0.0f;
        own_delta[i] = first + i < positions ? delta[at] : 0.0f;
        factors[i] = scale();
    }
    for (int tile = 0; tile < min(block_first + ROWS, positions); tile += TILE) {
        __syncthreads();
        bring<TILE>(keys, STRIDE, part(qkv, 1, positions, width), tile, positions);
        bring<TILE>(values, STRIDE, part(qkv, 2, positions, width), tile, positions);
        __syncthreads();
        float p[OWN], d_scores[OWN];
        products(p, queries + own_row * HEAD, keys);
        products(d_scores, d_outs + own_row * HEAD, values);
        UNROLL for (int i = 0; i < OWN; i++) {
            bool seen = tile + lane_index() <= first + i && first + i < positions;
            float power = seen ? expf(p[i] * scale() - own_lse[i]) : 0.0f;
            d_scores[i] = power * (d_scores[i] - own_delta[i]);
        }
        add_mixed(d_queries, d_scores, keys);
    }
    write(part(d_qkv, 0, positions, width), d_queries, factors, first, positions);
}
EXPORT(attention_queries)
