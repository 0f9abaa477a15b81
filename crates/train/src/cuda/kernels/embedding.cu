// The embedding table: rows looked up, and the table's gradient, summed in a fixed order without atomics.
//
// The gradient goes by segments: the rows of d_x sorted by (token, row) are cut into spans of one token and at most
// EMBED_MOST rows. A warp takes a span or a token, and 32 * STEP columns at a time; STEP is 4 where rows lie on 16
// bytes, else 1.

constexpr int EMBED_MOST = 64;
constexpr u32 EMBED_NONE = 0xffffffffu;
// Rows under way at once.
constexpr int EMBED_GROUP = 16;

template <int STEP>
__device__ __forceinline__ void embed_row(const float *__restrict__ from, float *__restrict__ to, int width) {
#pragma unroll 4
    for (int at = lane_index() * STEP; at < width; at += 32 * STEP) {
        float x[STEP];
        get(x, from + at);
        put(to + at, x);
    }
}

// x [rows, width]: for each of tokens [rows] its row of table [vocab, width].
// grid (ceil(rows / 8)), block 256, no shared
extern "C" __global__ void __launch_bounds__(256) embed(const u32 *__restrict__ tokens, const float *__restrict__ table,
                                                        float *__restrict__ x, int rows, int width) {
    int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) {
        return;
    }
    const float *from = table + static_cast<size_t>(tokens[row]) * width;
    float *to = x + static_cast<size_t>(row) * width;
    if (width % 4 == 0) {
        embed_row<4>(from, to, width);
    } else {
        embed_row<1>(from, to, width);
    }
}
EXPORT(embed)

// The sum of `count` rows of d_x, in the order of the lanes' `rows`: lane i has the rows i and i + 32 of the span.
template <int STEP>
__device__ __forceinline__ void embed_span(const float *__restrict__ d_x, const u32 (&rows)[2], int count,
                                           float *__restrict__ to, int width) {
    for (int from = blockIdx.y * 32 * STEP; from < width; from += gridDim.y * 32 * STEP) {
        int column = from + lane_index() * STEP;
        float sum[STEP] = {};
        for (int i = 0; i < count; i += EMBED_GROUP) {
            float group[EMBED_GROUP][STEP] = {};
#pragma unroll
            for (int k = 0; k < EMBED_GROUP; k++) {
                size_t row = shuffle(i < 32 ? rows[0] : rows[1], (i + k) % 32);
                if (i + k < count && column < width) {
                    get(group[k], d_x + row * width + column);
                }
            }
#pragma unroll
            for (int k = 0; k < EMBED_GROUP; k++) {
                for (int j = 0; j < STEP; j++) {
                    sum[j] += group[k][j];
                }
            }
        }
        if (column < width) {
            put(to + column, sum);
        }
    }
}

// partial [max_segments, width] = each segment's sum of rows of d_x [rows, width], in their order. order [rows] holds
// the rows sorted by (token, row); segments [max_segments, 3] = (token, begin, end) are spans of it of at most 64, the
// unused ones with token 0xffffffff, whose partial sums are left as they are.
// grid (ceil(max_segments / 8), ceil(width / 128)), block 256, no shared
extern "C" __global__ void __launch_bounds__(256)
    embed_sum(const float *__restrict__ d_x, const u32 *__restrict__ order, const u32 *__restrict__ segments,
              float *__restrict__ partial, int max_segments, int width) {
    int segment = blockIdx.x * 8 + threadIdx.x / 32;
    if (segment >= max_segments || segments[3 * segment] == EMBED_NONE) {
        return;
    }
    u32 begin = segments[3 * segment + 1];
    int count = min(static_cast<int>(segments[3 * segment + 2] - begin), EMBED_MOST);
    u32 rows[2];
    for (int half = 0; half < 2; half++) {
        int i = half * 32 + lane_index();
        rows[half] = i < count ? order[begin + i] : 0;
    }
    float *to = partial + static_cast<size_t>(segment) * width;
    if (width % 4 == 0) {
        embed_span<4>(d_x, rows, count, to, width);
    } else {
        embed_span<1>(d_x, rows, count, to, width);
    }
}
EXPORT(embed_sum)

template <int STEP>
__device__ __forceinline__ void embed_add_row(const float *__restrict__ partial, u32 begin, u32 end,
                                              float *__restrict__ to, int width, bool add) {
    int stride = gridDim.y * 32 * STEP;
    for (int column = (blockIdx.y * 32 + lane_index()) * STEP; column < width; column += stride) {
        float sum[STEP] = {};
        if (add) {
            get(sum, to + column);
        }
        u32 segment = begin;
        for (; segment + EMBED_GROUP <= end; segment += EMBED_GROUP) {
            float group[EMBED_GROUP][STEP];
#pragma unroll
            for (int k = 0; k < EMBED_GROUP; k++) {
                get(group[k], partial + static_cast<size_t>(segment + k) * width + column);
            }
#pragma unroll
            for (int k = 0; k < EMBED_GROUP; k++) {
                for (int j = 0; j < STEP; j++) {
                    sum[j] += group[k][j];
                }
            }
        }
        for (; segment < end; segment++) {
            float more[STEP];
            get(more, partial + static_cast<size_t>(segment) * width + column);
            for (int j = 0; j < STEP; j++) {
                sum[j] += more[j];
            }
        }
        put(to + column, sum);
    }
}

// d_table [vocab, width]: the sum of each token's segments of partial, in order, or that much more if `add`. A token's
// segments are first_segment[token] to first_segment[token + 1], without the last; one with none gets zeros, or is left
// alone if `add`.
// grid (ceil(vocab / 8), ceil(width / 128)), block 256, no shared
extern "C" __global__ void __launch_bounds__(256, 2)
    embed_add(const float *__restrict__ partial, const u32 *__restrict__ first_segment, float *__restrict__ d_table,
              int vocab, int width, int add) {
    int token = blockIdx.x * 8 + threadIdx.x / 32;
    if (token >= vocab) {
        return;
    }
    u32 begin = first_segment[token], end = first_segment[token + 1];
    float *to = d_table + static_cast<size_t>(token) * width;
    if (add && begin == end) {
        return;
    }
    if (width % 4 == 0) {
        embed_add_row<4>(partial, begin, end, to, width, add != 0);
    } else {
        embed_add_row<1>(partial, begin, end, to, width, add != 0);
    }
}
EXPORT(embed_add)
