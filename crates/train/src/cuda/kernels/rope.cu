// Rotary positions (Su 2104.09864): elements i and i + HEAD / 2 of each head turn by an angle of their own.

constexpr int ROPE_HALF = HEAD / 2;
constexpr int ROPE_MOST = sizeof(real) == 2 ? 8 : 4;
// Pairs a thread turns: as many as 16 bytes hold, where the heads' halves split so.
constexpr int ROPE_STEP = ROPE_MOST == 8 && ROPE_HALF % 8 == 0 ? 8
                          : ROPE_HALF % 4 == 0                 ? 4
                          : ROPE_HALF % 2 == 0                 ? 2
                                                               : 1;

// Turns pairs `i` and the next ones of a head: (a, b) -> (a cos - b sin, b cos + a sin), with turns
// [positions, HEAD / 2, 2] = (cos, sin). sign is 1, or -1 for the gradient.
template <int STEP>
__device__ __forceinline__ void rope_turn(float (&a)[STEP], float (&b)[STEP], const float *turns, int position, int i,
                                          float sign) {
    float turn[2 * STEP];
    get(turn, turns + (static_cast<size_t>(position) * ROPE_HALF + i) * 2);
    for (int j = 0; j < STEP; j++) {
        float cosine = turn[2 * j], sine = turn[2 * j + 1] * sign, before = a[j];
        a[j] = before * cosine - b[j] * sine;
        b[j] = b[j] * cosine + before * sine;
    }
}

// Turns in place the q and k columns of qkv [rows, 3 * width], with row % positions as position. sign is 1, or -1 for the gradient.
// step = the largest of 8 (bf16 only), 4, 2, 1 that divides HEAD / 2;
// grid (ceil(rows * width / step / 256)), block 256, no shared; rows * width / step < 2^32
extern "C" __global__ void __launch_bounds__(256) rope(real *__restrict__ qkv, const float *__restrict__ turns,
                                                       int rows, int positions, int width, float sign) {
    u32 index = blockIdx.x * 256 + threadIdx.x, in_row = width / ROPE_STEP, row = index / in_row;
    if (row >= static_cast<u32>(rows)) {
        return;
    }
    // Of the width / 2 pairs of q and then as many of k, head by head.
    u32 pair = index % in_row * ROPE_STEP, i = pair % ROPE_HALF, position = row % positions;
    real *here = qkv + static_cast<size_t>(row) * 3 * width + pair / ROPE_HALF * HEAD + i;
    float a[ROPE_STEP], b[ROPE_STEP];
    get(a, here);
    get(b, here + ROPE_HALF);
    rope_turn(a, b, turns, position, i, sign);
    put(here, a);
    put(here + ROPE_HALF, b);
}
EXPORT(rope)
