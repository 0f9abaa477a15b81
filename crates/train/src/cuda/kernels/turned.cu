// The product that makes queries, keys and values, with the rotation (rope.cu) of the first two in it: of a narrow model
// the bytes that it saves bind, not the product. In bf16, for widths that are multiples of 8 and heads of 16, 32 or 64,
// so that both halves of a head are one warp's. Products are rounded before they turn, as where rope.cu turns them.

static_assert(HEAD % 16 == 0 && 64 % HEAD == 0, "a head is whole within a warp's columns");

// qkv [rows, 3 width] = x [rows, width] W [width, 3 width], queries and keys turned by their row % positions.
// grid (ceil(3 * width / 128), ceil(rows / 128)), block 128, shared 49152
extern "C" __global__ void __launch_bounds__(128)
    qkv_turned(const real *x, const real *w, const float *turns, real *qkv, int rows, int positions, int width) {
    using namespace tiles;
    SHARED_DYNAMIC(room);
    const int CHUNKS = ROPE_HALF / 8;
    int first = blockIdx.x * TILE, top = blockIdx.y * TILE, wide = 3 * width;
    Operand left = {x + size_t(top) * width, size_t(width), rows - top};
    Operand right = {w + first, size_t(wide), wide - first};
    Sums sums;
    multiply<true, false, true>(sums, left, right, width, room);
    char *mine = stage(sums, room);
    first += warp_column();
    top += warp_row();
#pragma unroll
    for (int i = 0; i < 8; i++) {
        // One of four pairs of chunks in a row.
        int row = top + i * 8 + lane_index() / 4, pair = lane_index() % 4, step = pair % CHUNKS;
        int chunk = pair / CHUNKS * 2 * CHUNKS + step, column = first + chunk * 8;
        if (row >= rows || column >= wide) {
            continue;
        }
        float a[8], b[8];
        get(a, reinterpret_cast<const bf16 *>(staged(mine, row - top, chunk)));
        get(b, reinterpret_cast<const bf16 *>(staged(mine, row - top, chunk + CHUNKS)));
        if (column < 2 * width) {
            rope_turn(a, b, turns, row % positions, step * 8, 1.0f);
        }
        real *to = qkv + size_t(row) * wide + column;
        put(to, a);
        put(to + ROPE_HALF, b);
    }
}
EXPORT(qkv_turned)
