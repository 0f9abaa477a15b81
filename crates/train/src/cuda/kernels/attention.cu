// The kernels of causal attention on tensor cores; attention_tiles.cu, which comes before this file, has what they
// share and says how they work.

// out [rows, width] = softmax(q k^T / sqrt(HEAD)) v for each head, and lse [heads, rows], the log of each softmax's
// sum. The longest rows begin first.
// grid (ceil(positions / 128), heads, sequences), block 128, shared FORWARD_SHARED bytes:
// padded = HEAD up to a multiple of 16, tile = 64 if padded <= 96 else 32, (128 + 4 * tile) * (padded + 8) * 2.
extern "C" __global__ void __launch_bounds__(attention::THREADS, attention::BLOCKS)
    attention_forward(const real *qkv, real *out, float *lse, int positions, int width, int heads) {
    using namespace attention;
    SHARED_DYNAMIC(room);
    bf16 *queries = reinterpret_cast<bf16 *>(room);
    bf16 *keys = queries + FORWARD_ROWS * STRIDE, *values = keys + 2 * FORWARD_TILE * STRIDE;
    const Slice<const bf16> all_keys = part(qkv, 1, positions, width), all_values = part(qkv, 2, positions, width);

    int block_first = (gridDim.x - 1 - blockIdx.x) * FORWARD_ROWS;
    int own_row = threadIdx.x / 32 * 16 * FORWARD_BANDS;
    int first = block_first + own_row;
    int end = min(block_first + FORWARD_ROWS, positions);
    bring<FORWARD_ROWS>(queries, part(qkv, 0, positions, width), block_first, positions);
    bring<FORWARD_TILE>(keys, all_keys, 0, positions);
    bring<FORWARD_TILE>(values, all_values, 0, positions);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    bf16 *own_queries = queries + own_row * STRIDE;
    Own<FORWARD_BANDS, FORWARD_KEPT> own;
    own.take(own_queries);

    float sums[FORWARD_BANDS][PADDED / 8][4];
    clear(sums);
    Softmax<FORWARD_BANDS> softmax;
    softmax.begin();
    for (int key = 0, buffer = 0; key < end; key += FORWARD_TILE, buffer ^= 1) {
        // This tile is here for all, and nobody reads the other buffer any more.
        copy_wait<0>();
        __syncthreads();
        if (key + FORWARD_TILE < end) {
            int other = (buffer ^ 1) * FORWARD_TILE * STRIDE;
            bring<FORWARD_TILE>(keys + other, all_keys, key + FORWARD_TILE, positions);
            bring<FORWARD_TILE>(values + other, all_values, key + FORWARD_TILE, positions);
            copy_commit();
        }
        if (key >= first + 16 * FORWARD_BANDS) {
            continue;
        }
        float scores[FORWARD_BANDS][FORWARD_TILE / 8][4];
        clear(scores);
        add_scores(scores, own, keys + buffer * FORWARD_TILE * STRIDE);
        if (key + FORWARD_TILE - 1 > first) {
            hide<false>(scores, first - key);
        }
        softmax.add(scores, sums);
        add_mixed(sums, scores, values + buffer * FORWARD_TILE * STRIDE);
    }

    float factors[FORWARD_BANDS * 2];
    float *row_lse = lse + row_numbers(positions);
    UNROLL for (int row = 0; row < FORWARD_BANDS * 2; row++) {
        float sum = softmax.sum[row];
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        factors[row] = 1.0f / sum;
        int query = first + row * 8 + lane_index() / 4;
        if (lane_index() % 4 == 0 && query < positions) {
            row_lse[query] = softmax.base[row] / root_of_head() + logf(sum);
        }
    }
    stage(own_queries, sums, factors);
    write<FORWARD_BANDS>(plain(out, positions, width), first, positions, own_queries);
}
EXPORT(attention_forward)

// delta [heads, rows]: the sum of out * d_out over each head, which is what the softmax's gradient takes off
// (2205.14135, appendix B.2). Rows of heads follow each other in memory; a group of lanes reads one.
// grid (ceil(rows * heads * GROUP / 256)), block 256, no shared; GROUP = HEAD / 8 up to a power of two, or if HEAD % 8
// is not 0, HEAD / 2 up to a power of two and 32 at most.
extern "C" __global__ void __launch_bounds__(256)
    attention_delta(const real *out, const real *d_out, float *delta, int rows, int width, int heads) {
    constexpr int SIZE = attention::ALIGNED ? 8 : 2;
    constexpr int PIECES = HEAD / SIZE;
    constexpr int GROUP = PIECES > 16 ? 32 : PIECES > 8 ? 16 : PIECES > 4 ? 8 : PIECES > 2 ? 4 : PIECES;
    size_t count = static_cast<size_t>(rows) * heads;
    size_t item = (static_cast<size_t>(blockIdx.x) * 256 + threadIdx.x) / GROUP;
    float sum = 0.0f;
    if (item < count) {
        UNROLL for (int piece = threadIdx.x % GROUP; piece < PIECES; piece += GROUP) {
            float x[SIZE], y[SIZE];
            get<SIZE>(x, out + item * HEAD + piece * SIZE);
            get<SIZE>(y, d_out + item * HEAD + piece * SIZE);
            UNROLL for (int i = 0; i < SIZE; i++) {
                sum += x[i] * y[i];
            }
        }
    }
    UNROLL for (int mask = GROUP / 2; mask > 0; mask /= 2) {
        sum += shuffle_xor(sum, mask);
    }
    if (item < count && threadIdx.x % GROUP == 0) {
        delta[item % heads * rows + item / heads] = sum;
    }
}
EXPORT(attention_delta)

// The gradients of keys and values, into their columns of d_qkv [rows, 3 width]: with p = exp(scores - lse) and
// d_scores = p (d_out v^T - delta), d_v = p^T d_out and d_k = d_scores^T q / sqrt(HEAD), turned back by `turns` (rope.cu).
// The block owns keys and walks over the queries that see them; scores have rows for keys, so that they are left factors
// as they stand. grid (ceil(positions / ROWS), heads, sequences), block 128, shared BACKWARD_SHARED bytes:
// padded = HEAD up to a multiple of 16, ROWS = 128 if padded <= 64 else 64, tile = 64 if padded <= 96 else 32,
// (2 * ROWS + 4 * tile) * (padded + 8) * 2 + 16 * tile.
extern "C" __global__ void __launch_bounds__(attention::THREADS, attention::BLOCKS)
    attention_keys(const real *qkv, const real *d_out, const float *lse, const float *delta, const float *turns,
                   real *d_qkv, int positions, int width, int heads) {
    using namespace attention;
    SHARED_DYNAMIC(room);
    constexpr int TILE = BACKWARD_TILE, BANDS = BACKWARD_BANDS, PART = KEYS_PART;
    bf16 *keys = reinterpret_cast<bf16 *>(room), *values = keys + BACKWARD_ROWS * STRIDE;
    bf16 *queries = values + BACKWARD_ROWS * STRIDE, *d_outs = queries + 2 * TILE * STRIDE;
    // Two buffers of lse of each query, then delta of each.
    float *numbers = reinterpret_cast<float *>(d_outs + 2 * TILE * STRIDE);
    const Slice<const bf16> all_queries = part(qkv, 0, positions, width), all_d_outs = plain(d_out, positions, width);

    int block_first = blockIdx.x * BACKWARD_ROWS;
    int own_row = threadIdx.x / 32 * 16 * BANDS;
    int first = block_first + own_row;
    int begin = block_first / TILE * TILE;
    bring<BACKWARD_ROWS>(keys, part(qkv, 1, positions, width), block_first, positions);
    bring<BACKWARD_ROWS>(values, part(qkv, 2, positions, width), block_first, positions);
    bring<TILE>(queries, all_queries, begin, positions);
    bring<TILE>(d_outs, all_d_outs, begin, positions);
    bring_numbers<TILE>(numbers, lse, delta, begin, positions);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    bf16 *key_place = keys + own_row * STRIDE, *value_place = values + own_row * STRIDE;
    Own<BANDS, true> own_keys, own_values;
    own_keys.take(key_place);
    own_values.take(value_place);

    float d_keys[BANDS][PADDED / 8][4], d_values[BANDS][PADDED / 8][4];
    clear(d_keys);
    clear(d_values);
    for (int query = begin, buffer = 0; query < positions; query += TILE, buffer ^= 1) {
        // This tile is here for all, and nobody reads the other buffer any more.
        copy_wait<0>();
        __syncthreads();
        if (query + TILE < positions) {
            int other = (buffer ^ 1) * TILE * STRIDE;
            bring<TILE>(queries + other, all_queries, query + TILE, positions);
            bring<TILE>(d_outs + other, all_d_outs, query + TILE, positions);
            bring_numbers<TILE>(numbers + (buffer ^ 1) * 2 * TILE, lse, delta, query + TILE, positions);
            copy_commit();
        }
        for (int at = max(query, first); at < min(query + TILE, positions); at += PART) {
            int shift = (buffer * TILE + at - query) * STRIDE;
            const float *its = numbers + buffer * 2 * TILE + at - query + lane_index() % 4 * 2;
            float its_lse[PART / 8][2], its_delta[PART / 8][2];
            UNROLL for (int n = 0; n < PART / 8; n++) {
                get<2>(its_lse[n], its + n * 8);
                get<2>(its_delta[n], its + TILE + n * 8);
            }
            float p[BANDS][PART / 8][4], d_scores[BANDS][PART / 8][4];
            clear(p);
            each(d_scores, [&](float &x, int, int n, int i) { x = -its_delta[n][i % 2]; });
            add_scores(p, own_keys, queries + shift);
            add_scores(d_scores, own_values, d_outs + shift);
            if (at < first + 16 * BANDS - 1) {
                hide<true>(p, at - first);
            }
            each(p, [&](float &x, int band, int n, int i) {
                x = power_of_two(x * to_powers() - its_lse[n][i % 2] * LOG2_E);
                d_scores[band][n][i] *= x;
            });
            add_mixed(d_values, p, d_outs + shift);
            add_mixed(d_keys, d_scores, queries + shift);
        }
    }

    float factors[BANDS * 2], ones[BANDS * 2];
    UNROLL for (int row = 0; row < BANDS * 2; row++) {
        factors[row] = 1.0f / root_of_head();
        ones[row] = 1.0f;
    }
    stage(key_place, d_keys, factors);
    write_back<BANDS>(part(d_qkv, 1, positions, width), first, positions, key_place, turns);
    stage(value_place, d_values, ones);
    write<BANDS>(part(d_qkv, 2, positions, width), first, positions, value_place);
}
EXPORT(attention_keys)

// The gradient of queries, into their columns of d_qkv: d_q = d_scores k / sqrt(HEAD), turned back. The block owns
// queries and walks over the keys that they see. That both backward kernels compute the scores is the price of sums in
// a fixed order. Grid, block and shared bytes as for attention_keys. The longest rows begin first.
extern "C" __global__ void __launch_bounds__(attention::THREADS, attention::BLOCKS)
    attention_queries(const real *qkv, const real *d_out, const float *lse, const float *delta, const float *turns,
                      real *d_qkv, int positions, int width, int heads) {
    using namespace attention;
    SHARED_DYNAMIC(room);
    constexpr int TILE = BACKWARD_TILE, BANDS = BACKWARD_BANDS, PART = QUERIES_PART;
    bf16 *queries = reinterpret_cast<bf16 *>(room), *d_outs = queries + BACKWARD_ROWS * STRIDE;
    bf16 *keys = d_outs + BACKWARD_ROWS * STRIDE, *values = keys + 2 * TILE * STRIDE;
    const Slice<const bf16> all_keys = part(qkv, 1, positions, width), all_values = part(qkv, 2, positions, width);

    int block_first = (gridDim.x - 1 - blockIdx.x) * BACKWARD_ROWS;
    int own_row = threadIdx.x / 32 * 16 * BANDS;
    int first = block_first + own_row;
    int end = min(block_first + BACKWARD_ROWS, positions);
    bring<BACKWARD_ROWS>(queries, part(qkv, 0, positions, width), block_first, positions);
    bring<BACKWARD_ROWS>(d_outs, plain(d_out, positions, width), block_first, positions);
    bring<TILE>(keys, all_keys, 0, positions);
    bring<TILE>(values, all_values, 0, positions);
    copy_commit();
    // -log2(e) lse and -delta of this lane's rows.
    float row_lse[BANDS * 2], row_delta[BANDS * 2];
    UNROLL for (int row = 0; row < BANDS * 2; row++) {
        int query = first + row * 8 + lane_index() / 4;
        size_t at = row_numbers(positions) + query;
        row_lse[row] = query < positions ? lse[at] * -LOG2_E : 0.0f;
        row_delta[row] = query < positions ? -delta[at] : 0.0f;
    }
    copy_wait<0>();
    __syncthreads();
    bf16 *own_place = queries + own_row * STRIDE;
    Own<BANDS, true> own_queries, own_d_outs;
    own_queries.take(own_place);
    own_d_outs.take(d_outs + own_row * STRIDE);

    float d_queries[BANDS][PADDED / 8][4];
    clear(d_queries);
    for (int key = 0, buffer = 0; key < end; key += TILE, buffer ^= 1) {
        // This tile is here for all, and nobody reads the other buffer any more.
        copy_wait<0>();
        __syncthreads();
        if (key + TILE < end) {
            int other = (buffer ^ 1) * TILE * STRIDE;
            bring<TILE>(keys + other, all_keys, key + TILE, positions);
            bring<TILE>(values + other, all_values, key + TILE, positions);
            copy_commit();
        }
        for (int at = key; at < min(key + TILE, first + 16 * BANDS); at += PART) {
            int shift = (buffer * TILE + at - key) * STRIDE;
            float p[BANDS][PART / 8][4], d_scores[BANDS][PART / 8][4];
            clear(p);
            each(d_scores, [&](float &x, int band, int, int i) { x = row_delta[band * 2 + i / 2]; });
            add_scores(p, own_queries, keys + shift);
            add_scores(d_scores, own_d_outs, values + shift);
            if (at + PART - 1 > first) {
                hide<false>(p, first - at);
            }
            each(d_scores, [&](float &x, int band, int n, int i) {
                x *= power_of_two(p[band][n][i] * to_powers() + row_lse[band * 2 + i / 2]);
            });
            add_mixed(d_queries, d_scores, keys + shift);
        }
    }

    float factors[BANDS * 2];
    UNROLL for (int row = 0; row < BANDS * 2; row++) {
        factors[row] = 1.0f / root_of_head();
    }
    stage(own_place, d_queries, factors);
    write_back<BANDS>(part(d_qkv, 0, positions, width), first, positions, own_place, turns);
}
EXPORT(attention_queries)
