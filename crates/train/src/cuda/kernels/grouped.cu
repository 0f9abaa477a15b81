// Products of the experts' rows with their matrices, one launch for all experts. Which tile of rows belongs to whom
// lies on the device, so that a graph needs no sizes from the host (the idea of grouped products: Gale 2211.15841).

namespace grouped {

using namespace tiles;

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
