// Cross-entropy of rows of logits and its gradient, in one pass over global memory where a row fits in registers.
//
// Each thread keeps exponentials against the most that it has seen itself, and corrects them by one factor once the
// row's most is known (the running softmax of Milakov & Gimelshein 1805.02867).

// Logits a thread keeps; the rest of a longer row is read again for the gradient.
constexpr int ENTROPY_KEPT = 32;
constexpr float ENTROPY_LEAST = -3.4e38f;

// A sum of exponentials against `most`.
struct EntropySum {
    float most, sum;
};

__device__ __forceinline__ EntropySum entropy_over_warp(EntropySum mine) {
    float most = warp_max(mine.most);
    return {most, warp_sum(mine.sum * expf(mine.most - most))};
}

// Every warp adds up all warps' sums alike.
__device__ __forceinline__ EntropySum entropy_over_block(EntropySum mine) {
    __shared__ EntropySum sums[32];
    mine = entropy_over_warp(mine);
    if (lane_index() == 0) {
        sums[threadIdx.x / 32] = mine;
    }
    __syncthreads();
    EntropySum other = {ENTROPY_LEAST, 0.0f};
    if (lane_index() < static_cast<int>(blockDim.x / 32)) {
        other = sums[lane_index()];
    }
    return entropy_over_warp(other);
}

// Takes more logits into the sum.
template <int STEP> __device__ __forceinline__ EntropySum entropy_more(EntropySum sum, const float (&x)[STEP]) {
    float most = sum.most;
    for (int j = 0; j < STEP; j++) {
        most = fmaxf(most, x[j]);
    }
    float total = sum.sum * expf(sum.most - most);
    for (int j = 0; j < STEP; j++) {
        total += expf(x[j] - most);
    }
    return {most, total};
}

template <int STEP>
__device__ __forceinline__ void entropy_write(float (&softmax)[STEP], int at, int target, float scale,
                                              real *__restrict__ d_logits) {
    for (int j = 0; j < STEP; j++) {
        softmax[j] -= at + j == target ? scale : 0.0f;
    }
    put(d_logits + at, softmax);
}

// One row for `warps` warps, a whole block of them if BLOCK, of which this is `warp`. A warp keeps neighbouring logits,
// so that a lane's pieces lie apart by a number known to the compiler, and one address does for all.
template <int STEP, bool BLOCK>
__device__ __forceinline__ void entropy_row(const float *__restrict__ logits, int target, float *__restrict__ nats,
                                            real *__restrict__ d_logits, int vocab, float scale, int warp,
                                            int warps) {
    const int KEPT = ENTROPY_KEPT / STEP, NEXT = 32 * STEP;
    int first = warp * KEPT * NEXT + lane_index() * STEP;
    int rest = (warps * KEPT + warp) * NEXT + lane_index() * STEP, stride = warps * NEXT;
    float kept[KEPT][STEP];
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        for (int j = 0; j < STEP; j++) {
            kept[i][j] = __uint_as_float(0xff800000u); // minus infinity
        }
        if (first + i * NEXT < vocab) {
            get(kept[i], logits + first + i * NEXT);
        }
    }
    float chosen = logits[target];
    EntropySum sum = {ENTROPY_LEAST, 0.0f};
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        for (int j = 0; j < STEP; j++) {
            sum.most = fmaxf(sum.most, kept[i][j]);
        }
    }
    float kept_most = sum.most;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        if (warp * KEPT * NEXT + i * NEXT < vocab) {
            for (int j = 0; j < STEP; j++) {
                kept[i][j] = expf(kept[i][j] - kept_most);
                sum.sum += kept[i][j];
            }
        }
    }
#pragma unroll 2
    for (int at = rest; at < vocab; at += stride) {
        float more[STEP];
        get(more, logits + at);
        sum = entropy_more<STEP>(sum, more);
    }
    sum = BLOCK ? entropy_over_block(sum) : entropy_over_warp(sum);
    if (warp == 0 && lane_index() == 0) {
        *nats = logf(sum.sum) - (chosen - sum.most);
    }
    if (!d_logits) {
        return;
    }
    float factor = scale / sum.sum, kept_factor = expf(kept_most - sum.most) * factor;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        if (first + i * NEXT < vocab) {
            for (int j = 0; j < STEP; j++) {
                kept[i][j] *= kept_factor;
            }
            entropy_write<STEP>(kept[i], first + i * NEXT, target, scale, d_logits);
        }
    }
#pragma unroll 2
    for (int at = rest; at < vocab; at += stride) {
        float more[STEP];
        get(more, logits + at);
        for (int j = 0; j < STEP; j++) {
            more[j] = expf(more[j] - sum.most) * factor;
        }
        entropy_write<STEP>(more, at, target, scale, d_logits);
    }
}

// nats [rows] = -log softmax(logits [rows, vocab])[targets [rows]]; d_logits [rows, vocab], which may be null, =
// (softmax - onehot) * scale. For vocab > 1024 (right for any); not in place.
// grid (rows), block 32 * min(ceil(vocab / 1024), 32), no dynamic shared
extern "C" __global__ void __launch_bounds__(1024) entropy(const float *__restrict__ logits,
                                                           const u32 *__restrict__ targets, float *__restrict__ nats,
                                                           real *__restrict__ d_logits, int rows, int vocab,
                                                           float scale) {
    size_t row = blockIdx.x, begin = row * vocab;
    real *to = d_logits ? d_logits + begin : nullptr;
    int target = targets[row];
    if (vocab % 4 == 0) {
        entropy_row<4, true>(logits + begin, target, nats + row, to, vocab, scale, threadIdx.x / 32,
                             blockDim.x / 32);
    } else {
        entropy_row<1, true>(logits + begin, target, nats + row, to, vocab, scale, threadIdx.x / 32,
                             blockDim.x / 32);
    }
}
EXPORT(entropy)

// The same, a warp a row: for vocab <= 1024 (right for any).
// grid (ceil(rows / 8)), block 256, no shared
extern "C" __global__ void __launch_bounds__(256)
    entropy_narrow(const float *__restrict__ logits, const u32 *__restrict__ targets, float *__restrict__ nats,
                   real *__restrict__ d_logits, int rows, int vocab, float scale) {
    int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) {
        return;
    }
    size_t begin = static_cast<size_t>(row) * vocab;
    real *to = d_logits ? d_logits + begin : nullptr;
    int target = targets[row];
    if (vocab % 4 == 0) {
        entropy_row<4, false>(logits + begin, target, nats + row, to, vocab, scale, 0, 1);
    } else {
        entropy_row<1, false>(logits + begin, target, nats + row, to, vocab, scale, 0, 1);
    }
}
EXPORT(entropy_narrow)

// *total += the sum of nats [rows], in f64.
// grid (1), block 1024, no dynamic shared
extern "C" __global__ void __launch_bounds__(1024) sum_nats(const float *__restrict__ nats, double *__restrict__ total,
                                                            int rows) {
    __shared__ double room[32];
    double sum = 0.0;
#pragma unroll 4
    for (int at = threadIdx.x * 4; at + 4 <= rows; at += 4096) {
        float x[4];
        get(x, nats + at);
        sum += static_cast<double>(x[0]) + x[1] + (static_cast<double>(x[2]) + x[3]);
    }
    int rest = rows / 4 * 4 + threadIdx.x;
    sum += rest < rows ? nats[rest] : 0.0f;
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) {
        *total += sum;
    }
}
EXPORT(sum_nats)
