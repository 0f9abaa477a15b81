// What kernels may use, once for the GPU and once for the emulated machine. Every warp operation is for whole warps.

#ifdef __CUDACC_RTC__

#define EXPORT(name)
#define SHARED_DYNAMIC(name) extern __shared__ __align__(16) char name[]
// Before a loop that indexes what must stay in registers.
#define UNROLL _Pragma("unroll")

__device__ __forceinline__ int lane_index() { return threadIdx.x & 31; }

template <class T> __device__ __forceinline__ T shuffle(T value, int from) {
    return __shfl_sync(0xffffffffu, value, from);
}
template <class T> __device__ __forceinline__ T shuffle_xor(T value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}
// One instruction, to about 2 units in the last place; results below 2^-126 become zero.
__device__ __forceinline__ float power_of_two(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}
__device__ __forceinline__ unsigned ballot(bool value) { return __ballot_sync(0xffffffffu, value); }

// d [16, 8] += a [16, 16] b [16, 8], a by rows, b by columns, f32 sums.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ unsigned shared_address(const void *pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Four 8 x 8 matrices of bf16: lane i brings the address of row i % 8 of matrix i / 8, on 16 bytes.
__device__ __forceinline__ void load_matrix(unsigned (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void load_matrix_turned(unsigned (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// 16 bytes from global to shared memory, or 16 zeros.
__device__ __forceinline__ void copy_async(void *shared, const void *global, bool valid = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}
// The same with 4 bytes.
__device__ __forceinline__ void copy_async_word(void *shared, const void *global, bool valid = true) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :
                 : "r"(shared_address(shared)), "l"(global), "r"(valid ? 4 : 0)
                 : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most LEFT committed groups are under way.
template <int LEFT> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

#endif

typedef unsigned int u32;
typedef unsigned long long u64;

// The upper half of an f32.
struct alignas(2) bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(static_cast<u32>(x.bits) << 16); }

// To the nearest, ties to even. What is not a number stays so.
__device__ __forceinline__ bf16 to_bf16(float x) {
#ifdef __CUDACC_RTC__
    bf16 rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(x));
    return rounded;
#else
    u32 bits = __float_as_uint(x);
    if (x != x) {
        return {static_cast<unsigned short>((bits >> 16) | 0x40)};
    }
    return {static_cast<unsigned short>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
#endif
}

// Two numbers as one register of bf16, `low` in the lower half: as matrix fragments want neighbours along a row.
__device__ __forceinline__ u32 pack(float low, float high) {
#ifdef __CUDACC_RTC__
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return to_bf16(low).bits | static_cast<u32>(to_bf16(high).bits) << 16;
#endif
}
__device__ __forceinline__ float low(u32 both) { return __uint_as_float(both << 16); }
__device__ __forceinline__ float high(u32 both) { return __uint_as_float(both & 0xffff0000u); }

__device__ __forceinline__ void put(float *to, float x) { *to = x; }
__device__ __forceinline__ void put(bf16 *to, float x) { *to = to_bf16(x); }

// COUNT neighbours in memory as one access of up to 16 bytes (two where they are more): their address must be a
// multiple of their size, or of 16 bytes. COUNT is 1, 2, 4 or 8.
#ifdef __CUDACC_RTC__
#define ANY_TYPE
#else
#define ANY_TYPE [[gnu::may_alias]]
#endif
template <int COUNT> struct alignas(COUNT < 4 ? COUNT * 4 : 16) ANY_TYPE Words {
    u32 at[COUNT];
};

template <int COUNT> __device__ __forceinline__ void get(float (&to)[COUNT], const float *from) {
    const int WIDE = COUNT < 4 ? COUNT : 4;
    for (int i = 0; i < COUNT; i += WIDE) {
        Words<WIDE> words = *reinterpret_cast<const Words<WIDE> *>(from + i);
        for (int j = 0; j < WIDE; j++) {
            to[i + j] = __uint_as_float(words.at[j]);
        }
    }
}
template <int COUNT> __device__ __forceinline__ void get(float (&to)[COUNT], const bf16 *from) {
    if constexpr (COUNT == 1) {
        to[0] = to_float(*from);
    } else {
        Words<COUNT / 2> words = *reinterpret_cast<const Words<COUNT / 2> *>(from);
        for (int j = 0; j < COUNT / 2; j++) {
            to[2 * j] = low(words.at[j]);
            to[2 * j + 1] = high(words.at[j]);
        }
    }
}
template <int COUNT> __device__ __forceinline__ void put(float *to, const float (&from)[COUNT]) {
    const int WIDE = COUNT < 4 ? COUNT : 4;
    for (int i = 0; i < COUNT; i += WIDE) {
        Words<WIDE> words;
        for (int j = 0; j < WIDE; j++) {
            words.at[j] = __float_as_uint(from[i + j]);
        }
        *reinterpret_cast<Words<WIDE> *>(to + i) = words;
    }
}
template <int COUNT> __device__ __forceinline__ void put(bf16 *to, const float (&from)[COUNT]) {
    if constexpr (COUNT == 1) {
        *to = to_bf16(from[0]);
    } else {
        Words<COUNT / 2> words;
        for (int j = 0; j < COUNT / 2; j++) {
            words.at[j] = pack(from[2 * j], from[2 * j + 1]);
        }
        *reinterpret_cast<Words<COUNT / 2> *>(to) = words;
    }
}

template <class T> __device__ __forceinline__ T warp_sum(T x) {
    for (int mask = 16; mask > 0; mask >>= 1) {
        x += shuffle_xor(x, mask);
    }
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    for (int mask = 16; mask > 0; mask >>= 1) {
        x = fmaxf(x, shuffle_xor(x, mask));
    }
    return x;
}

// The sum over a whole block, for every thread of it. A second one in the same kernel needs another room.
template <class T> __device__ __forceinline__ T block_sum(T x, T (&shared_room)[32]) {
    x = warp_sum(x);
    if (lane_index() == 0) {
        shared_room[threadIdx.x / 32] = x;
    }
    __syncthreads();
    return warp_sum(lane_index() < static_cast<int>(blockDim.x / 32) ? shared_room[lane_index()] : T(0));
}

// What activations are kept in and products read: `REAL_F32` is set for runs in f32.
#ifdef REAL_F32
typedef float real;
#else
typedef bf16 real;
#endif
