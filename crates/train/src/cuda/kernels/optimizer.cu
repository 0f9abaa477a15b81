// AdamW on flat buffers (Loshchilov & Hutter 1711.05101) and clipping by the global norm, as optimizer.rs computes
// them. A thread takes 4 elements, as one access of 16 bytes where all 4 are there.

// AdamW's numbers of one step, 32 bytes, little-endian: at 0 rate, 4 root, 8 epsilon, 12 decay, 16 beta1, 20 beta2, all
// f32, and at 24 clip, f64.
struct Step {
    // Learning rate over the bias correction of the first moment.
    float rate;
    // One over the root of the bias correction of the second moment.
    float root;
    float epsilon;
    // Learning rate times weight decay.
    float decay;
    float beta1;
    float beta2;
    // The most that the gradient's norm may be.
    double clip;
};
static_assert(sizeof(Step) == 32, "the host writes it byte by byte");

__device__ __forceinline__ u64 optimizer_first() { return (static_cast<u64>(blockIdx.x) * 256 + threadIdx.x) * 4; }

// to [len] = from [len], rounded. A tensor may begin anywhere among the others, so `from` may lie on 4 bytes only.
// grid (ceil(len / 1024)), block 256, no shared
extern "C" __global__ void __launch_bounds__(256) cast(const float *__restrict__ from, bf16 *__restrict__ to, u64 len) {
    u64 at = optimizer_first();
    if (at + 4 <= len && reinterpret_cast<u64>(from) % 16 == 0) {
        float x[4];
        get(x, from + at);
        put(to + at, x);
        return;
    }
    u64 end = at + 4 < len ? at + 4 : len;
    for (; at < end; at++) {
        put(to + at, from[at]);
    }
}
EXPORT(cast)

// partial [blocks] = sums of squares of gradient [len] in f64. The grid is part of the numerics.
// grid (512), block 256, no dynamic shared
extern "C" __global__ void __launch_bounds__(256) squares(const float *__restrict__ gradient,
                                                          double *__restrict__ partial, u64 len) {
    __shared__ double room[32];
    double sums[4] = {};
    u64 at = optimizer_first(), stride = static_cast<u64>(gridDim.x) * 1024;
#pragma unroll 4
    for (; at + 4 <= len; at += stride) {
        float g[4];
        get(g, gradient + at);
        for (int j = 0; j < 4; j++) {
            sums[j] += static_cast<double>(g[j]) * g[j];
        }
    }
    // At most one thread stands before the rest.
    for (; at < len; at++) {
        sums[0] += static_cast<double>(gradient[at]) * gradient[at];
    }
    double sum = block_sum(sums[0] + sums[1] + (sums[2] + sums[3]), room);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}
EXPORT(squares)

// *norm = the root of the sum of partial [blocks], in f64: the Euclidean norm of what squares has read.
// grid (1), block 512, no dynamic shared
extern "C" __global__ void __launch_bounds__(512) norm_total(const double *__restrict__ partial,
                                                             double *__restrict__ norm, int blocks) {
    __shared__ double room[32];
    double sum = 0.0;
    for (int i = threadIdx.x; i < blocks; i += blockDim.x) {
        sum += partial[i];
    }
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) {
        *norm = sqrt(sum);
    }
}
EXPORT(norm_total)

struct AdamwBuffers {
    float *params;
    const float *gradient;
    float *first, *second;
    bf16 *rounded;
};

// One step on COUNT elements from `at` on; `keep` is what decay leaves of each.
template <int COUNT>
__device__ __forceinline__ void adamw_apply(const AdamwBuffers &all, u64 at, const Step &step, float scale,
                                            const float (&g)[COUNT], const float (&keep)[COUNT], float (&p)[COUNT],
                                            float (&m)[COUNT], float (&v)[COUNT]) {
    for (int j = 0; j < COUNT; j++) {
        float scaled = g[j] * scale;
        m[j] = step.beta1 * m[j] + (1.0f - step.beta1) * scaled;
        v[j] = step.beta2 * v[j] + (1.0f - step.beta2) * scaled * scaled;
        p[j] = keep[j] * p[j] - step.rate * m[j] / (sqrtf(v[j]) * step.root + step.epsilon);
    }
    put(all.params + at, p);
    put(all.first + at, m);
    put(all.second + at, v);
}

// Which of `views` holds element `at`: the first that ends after it.
__device__ __forceinline__ int adamw_view(const u64 *__restrict__ ends, int views, u64 at) {
    int low_view = 0, high_view = views - 1;
    while (low_view < high_view) {
        int middle = (low_view + high_view) / 2;
        if (ends[middle] > at) {
            high_view = middle;
        } else {
            low_view = middle + 1;
        }
    }
    return low_view;
}

// The copy that products read, where every view starts on a boundary: neighbours in one access where they lie so.
template <int COUNT>
__device__ __forceinline__ void adamw_round(bf16 *rounded, const u64 (&place)[COUNT], const float (&p)[COUNT]) {
    if (COUNT == 4 && place[0] % 4 == 0 && place[COUNT - 1] == place[0] + COUNT - 1) {
        put(rounded + place[0], p);
        return;
    }
    for (int j = 0; j < COUNT; j++) {
        put(rounded + place[j], p[j]);
    }
}

template <int COUNT>
__device__ __forceinline__ void adamw_piece(const AdamwBuffers &all, u64 at, const u64 *__restrict__ ends,
                                            const u32 *__restrict__ decays, const u64 *__restrict__ places, int views,
                                            const Step &step, float scale) {
    float p[COUNT], g[COUNT], m[COUNT], v[COUNT], keep[COUNT];
    u64 place[COUNT];
    get(p, all.params + at);
    get(g, all.gradient + at);
    get(m, all.first + at);
    get(v, all.second + at);
    int view = adamw_view(ends, views, at);
    for (int j = 0; j < COUNT; j++) {
        while (view + 1 < views && ends[view] <= at + j) {
            view++;
        }
        keep[j] = decays[view] ? 1.0f - step.decay : 1.0f;
        place[j] = places[view] + (at + j - (view ? ends[view - 1] : 0));
    }
    adamw_apply<COUNT>(all, at, step, scale, g, keep, p, m, v);
    if (all.rounded) {
        adamw_round<COUNT>(all.rounded, place, p);
    }
}

// One AdamW step on params, first and second moments [len] by gradient [len], clipped so that *norm, its norm, is at
// most step->clip. View v of the layout ends before element ends[v] and decays if decays[v]; rounded, which may be
// null, gets its new params as bf16 from element places[v] on.
// grid (ceil(len / 1024)), block 256, no shared
extern "C" __global__ void __launch_bounds__(256)
    adamw(float *__restrict__ params, const float *__restrict__ gradient, float *__restrict__ first,
          float *__restrict__ second, bf16 *__restrict__ rounded, const u64 *__restrict__ ends,
          const u32 *__restrict__ decays, const u64 *__restrict__ places, int views, const Step *__restrict__ step,
          const double *__restrict__ norm, u64 len) {
    u64 at = optimizer_first();
    AdamwBuffers all = {params, gradient, first, second, rounded};
    Step numbers = *step;
    float scale = *norm > numbers.clip ? static_cast<float>(numbers.clip / *norm) : 1.0f;
    if (at + 4 <= len) {
        adamw_piece<4>(all, at, ends, decays, places, views, numbers, scale);
        return;
    }
    for (; at < len; at++) {
        adamw_piece<1>(all, at, ends, decays, places, views, numbers, scale);
    }
}
EXPORT(adamw)
