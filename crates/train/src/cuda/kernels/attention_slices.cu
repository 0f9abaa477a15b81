// Where a block of the attention kernels finds its head and sequence: shared by those on tensor cores and the plain ones,
// and before them in their programs. The grid is (blocks of rows, heads, sequences).

namespace attention {

// One head of one sequence: rows of HEAD numbers, `stride` apart.
template <class T> struct Slice {
    T *start;
    size_t stride;
};

// Queries, keys or values (part 0, 1, 2) of this block's head and sequence.
template <class T> __device__ __forceinline__ Slice<T> part(T *qkv, int part, int positions, int width) {
    size_t stride = static_cast<size_t>(width) * 3;
    return {qkv + blockIdx.z * (positions * stride) + part * static_cast<size_t>(width) + blockIdx.y * HEAD, stride};
}

// The same of a matrix [rows, width].
template <class T> __device__ __forceinline__ Slice<T> plain(T *matrix, int positions, int width) {
    size_t stride = width;
    return {matrix + blockIdx.z * (positions * stride) + blockIdx.y * HEAD, stride};
}

// Where this block's head and sequence begin in [heads, rows].
__device__ __forceinline__ size_t row_numbers(int positions) {
    return (static_cast<size_t>(blockIdx.y) * gridDim.z + blockIdx.z) * positions;
}

} // namespace attention
