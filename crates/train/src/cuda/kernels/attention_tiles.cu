// Causal attention on tensor cores (FlashAttention-2, Dao 2307.08691, after 2205.14135): scores live in registers a
// tile at a time, only the log-sum-exp of each row is kept, and the backward pass computes the probabilities again.
// For heads up to 128 wide.
//
// qkv [rows, 3 width] holds queries, keys and values, rows = sequences * positions, head h in columns h * HEAD of each
// third, already rotated; width = heads * HEAD. A block has four warps; each warp owns 16 or 32 rows of one side of the
// scores (its queries, or in attention_keys its keys), and the block walks over tiles of the other side, which arrive
// in shared memory while the tile before is worked on.

namespace attention {

static_assert(HEAD % 2 == 0 && HEAD <= 128, "wider heads are for the plain kernels");

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / 32;
// A head in whole matrix products; the columns past HEAD are zeros.
constexpr int PADDED = (HEAD + 15) / 16 * 16;
constexpr int STEPS = PADDED / 16;
// Of a row in shared memory: an odd number of 16-byte words, so that the eight rows of a matrix load lie in all banks.
constexpr int STRIDE = PADDED + 8;
// Whether rows of a head lie on 16 bytes in global memory.
constexpr bool ALIGNED = HEAD % 8 == 0;

// A band is 16 rows of a warp. Two bands share what is loaded of the other side, so that shared memory keeps up with
// the tensor cores; what fits in 255 registers decides.
constexpr int FORWARD_BANDS = 2;
constexpr int FORWARD_ROWS = WARPS * 16 * FORWARD_BANDS;
constexpr int FORWARD_TILE = PADDED <= 96 ? 64 : 32;
constexpr bool FORWARD_KEPT = PADDED <= 64;
constexpr int FORWARD_SHARED = (FORWARD_ROWS + 4 * FORWARD_TILE) * STRIDE * 2;

constexpr int BACKWARD_BANDS = PADDED <= 64 ? 2 : 1;
constexpr int BACKWARD_ROWS = WARPS * 16 * BACKWARD_BANDS;
constexpr int BACKWARD_TILE = PADDED <= 96 ? 64 : 32;
// How much of a tile a warp of attention_keys or attention_queries has in registers at once.
constexpr int KEYS_PART = 16;
constexpr int QUERIES_PART = 32;
constexpr int BACKWARD_SHARED = (2 * BACKWARD_ROWS + 4 * BACKWARD_TILE) * STRIDE * 2 + 4 * BACKWARD_TILE * 4;

static_assert(FORWARD_SHARED <= 99 * 1024 && BACKWARD_SHARED <= 99 * 1024, "more than some devices have");

// Blocks that a multiprocessor should have room for, which is what bounds a thread's registers.
constexpr int BLOCKS = PADDED <= 16 ? 3 : 2;

constexpr float LOG2_E = 1.4426950408889634f;

__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }

__device__ __forceinline__ float root_of_head() { return sqrtf(static_cast<float>(HEAD)); }
// From products of queries and keys to powers of two.
__device__ __forceinline__ float to_powers() { return LOG2_E / root_of_head(); }

// This thread's index, as if it were new: so that what follows from it is computed where it is used, and does not hold
// registers through a loop that needs them.
__device__ __forceinline__ int thread_again() {
    int thread = threadIdx.x;
#ifdef __CUDACC_RTC__
    asm volatile("" : "+r"(thread));
#endif
    return thread;
}

// The block brings rows first.. of a slice to shared memory, zeros where there are none. Where HEAD allows it, the copy
// is only begun, by as many neighbours to a row as divide it evenly, so that a thread's offsets are constants.
template <int ROWS>
__device__ __forceinline__ void bring(bf16 *to, const Slice<const bf16> &from, int first, int positions) {
    constexpr int SIZE = ALIGNED ? 8 : 2;
    constexpr int PIECES = PADDED / SIZE;
    constexpr int SHARE = PIECES & -PIECES;
    constexpr int PASS = THREADS / SHARE;
    int thread = thread_again();
    int row = thread / SHARE, column = thread % SHARE * SIZE;
    const bf16 *source = from.start + (first + row) * from.stride + column;
    bf16 *place = to + row * STRIDE + column;
    UNROLL for (int pass = 0; pass < ROWS; pass += PASS) {
        if (pass + PASS > ROWS && pass + row >= ROWS) {
            break;
        }
        UNROLL for (int more = 0; more < PADDED; more += SHARE * SIZE) {
            bool valid = first + row + pass < positions && column + more < HEAD;
            const bf16 *piece = source + pass * from.stride + more;
            if constexpr (ALIGNED) {
                copy_async(place + pass * STRIDE + more, piece, valid);
            } else {
                Words<1> word = {{0}};
                if (valid) {
                    word = *reinterpret_cast<const Words<1> *>(piece);
                }
                *reinterpret_cast<Words<1> *>(place + pass * STRIDE + more) = word;
            }
        }
    }
}

// What a lane adds to the address of a tile for load_matrix: for the left factor of a product, 16 rows x 16 columns,
// and for a right one that is to be turned; and for a right factor whose rows are the columns of the product.
__device__ __forceinline__ int left_lane() { return lane_index() % 16 * STRIDE + lane_index() / 16 * 8; }
__device__ __forceinline__ int right_lane() {
    return (lane_index() % 8 + lane_index() / 16 * 8) * STRIDE + lane_index() / 8 % 2 * 8;
}

// The warp's own rows as left factor, kept in registers where they fit.
template <int BANDS, bool KEPT> struct Own {
    const bf16 *rows;
    u32 kept[BANDS][KEPT ? STEPS : 1][4];

    __device__ __forceinline__ void take(const bf16 *tile) {
        rows = tile + left_lane();
        if constexpr (KEPT) {
            UNROLL for (int band = 0; band < BANDS; band++) {
                UNROLL for (int step = 0; step < STEPS; step++) {
                    load_matrix(kept[band][step], rows + band * 16 * STRIDE + step * 16);
                }
            }
        }
    }
    __device__ __forceinline__ void fragment(u32 (&to)[4], int band, int step) const {
        if constexpr (KEPT) {
            UNROLL for (int i = 0; i < 4; i++) {
                to[i] = kept[band][step][i];
            }
        } else {
            load_matrix(to, rows + band * 16 * STRIDE + step * 16);
        }
    }
};

// sums [16, 16] += left [16, 16] right [16, 16], the right factor as two of mma's.
__device__ __forceinline__ void square(float (&left_sums)[4], float (&right_sums)[4], const u32 (&left)[4],
                                       const u32 (&right)[4]) {
    const u32 first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
    mma_bf16(left_sums, left, first);
    mma_bf16(right_sums, left, second);
}

// sums [16 BANDS, 8 WIDE] += own [16 BANDS, PADDED] tile [8 WIDE, PADDED]^T.
template <int BANDS, int WIDE, bool KEPT>
__device__ __forceinline__ void add_scores(float (&sums)[BANDS][WIDE][4], const Own<BANDS, KEPT> &own,
                                           const bf16 *tile) {
    const bf16 *right = tile + right_lane();
    UNROLL for (int step = 0; step < STEPS; step++) {
        u32 left[BANDS][4];
        UNROLL for (int band = 0; band < BANDS; band++) {
            own.fragment(left[band], band, step);
        }
        UNROLL for (int n = 0; n < WIDE; n += 2) {
            u32 both[4];
            load_matrix(both, right + n * 8 * STRIDE + step * 16);
            UNROLL for (int band = 0; band < BANDS; band++) {
                square(sums[band][n], sums[band][n + 1], left[band], both);
            }
        }
    }
}

// sums [16 BANDS, PADDED] += weights [16 BANDS, 8 WIDE] tile [8 WIDE, PADDED], the weights rounded to bf16: sums of one
// product lie in registers as the left factor of the next wants them.
template <int BANDS, int WIDE>
__device__ __forceinline__ void add_mixed(float (&sums)[BANDS][PADDED / 8][4], const float (&weights)[BANDS][WIDE][4],
                                          const bf16 *tile) {
    const bf16 *right = tile + left_lane();
    UNROLL for (int k = 0; k < WIDE; k += 2) {
        u32 left[BANDS][4];
        UNROLL for (int band = 0; band < BANDS; band++) {
            UNROLL for (int i = 0; i < 4; i++) {
                const float *two = &weights[band][k + i / 2][i % 2 * 2];
                left[band][i] = pack(two[0], two[1]);
            }
        }
        UNROLL for (int n = 0; n < PADDED / 8; n += 2) {
            u32 both[4];
            load_matrix_turned(both, right + k * 8 * STRIDE + n * 8);
            UNROLL for (int band = 0; band < BANDS; band++) {
                square(sums[band][n], sums[band][n + 1], left[band], both);
            }
        }
    }
}

// Calls change(sum, band, n, i) for each number that this lane has of a warp's sums: row
// lane / 4 + band * 16 + i / 2 * 8, column lane % 4 * 2 + n * 8 + i % 2.
template <int BANDS, int WIDE, class Change>
__device__ __forceinline__ void each(float (&sums)[BANDS][WIDE][4], Change change) {
    UNROLL for (int band = 0; band < BANDS; band++) {
        UNROLL for (int n = 0; n < WIDE; n++) {
            UNROLL for (int i = 0; i < 4; i++) {
                change(sums[band][n][i], band, n, i);
            }
        }
    }
}

template <int BANDS, int WIDE> __device__ __forceinline__ void clear(float (&sums)[BANDS][WIDE][4]) {
    each(sums, [](float &sum, int, int, int) { sum = 0.0f; });
}

// Takes out of a warp's scores what no query may see: keys after it. `ahead` is the position of the first query less
// that of the first key; the rows are queries, or keys.
template <bool ROWS_ARE_KEYS, int BANDS, int WIDE>
__device__ __forceinline__ void hide(float (&scores)[BANDS][WIDE][4], int ahead) {
    int first = lane_index() % 4 * 2 - lane_index() / 4;
    each(scores, [&](float &score, int band, int n, int i) {
        int right = first + n * 8 + i % 2 - band * 16 - i / 2 * 8;
        if ((ROWS_ARE_KEYS ? -right : right) > ahead) {
            score = minus_infinity();
        }
    });
}

// Puts a warp's rows, times the factor of each, into shared memory that only this warp uses.
template <int BANDS>
__device__ __forceinline__ void stage(bf16 *place, const float (&sums)[BANDS][PADDED / 8][4],
                                      const float (&factors)[BANDS * 2]) {
    bf16 *corner = place + lane_index() / 4 * STRIDE + lane_index() % 4 * 2;
    __syncwarp();
    UNROLL for (int row = 0; row < BANDS * 2; row++) {
        UNROLL for (int n = 0; n < PADDED / 8; n++) {
            const float *two = &sums[row / 2][n][row % 2 * 2];
            put<2>(corner + row * 8 * STRIDE + n * 8, {two[0] * factors[row], two[1] * factors[row]});
        }
    }
    __syncwarp();
}

// Writes what a warp has staged, `first` the first of its rows.
template <int BANDS>
__device__ __forceinline__ void write(const Slice<bf16> &to, int first, int positions, const bf16 *place) {
    constexpr int SIZE = ALIGNED ? 8 : 2;
    constexpr int PIECES = HEAD / SIZE;
    for (int i = lane_index(); i < BANDS * 16 * PIECES && first + i / PIECES < positions; i += 32) {
        int at = i / PIECES, from = i % PIECES * SIZE;
        *reinterpret_cast<Words<SIZE / 2> *>(to.start + (first + at) * to.stride + from) =
            *reinterpret_cast<const Words<SIZE / 2> *>(place + at * STRIDE + from);
    }
}

// The same, turned back: gradients of queries or keys as they were before rope.cu turned them.
template <int BANDS>
__device__ __forceinline__ void write_back(const Slice<bf16> &to, int first, int positions, const bf16 *place,
                                           const float *turns) {
    constexpr int PIECES = ROPE_HALF / ROPE_STEP;
    for (int i = lane_index(); i < BANDS * 16 * PIECES && first + i / PIECES < positions; i += 32) {
        int at = i / PIECES, from = i % PIECES * ROPE_STEP;
        float a[ROPE_STEP], b[ROPE_STEP];
        get(a, place + at * STRIDE + from);
        get(b, place + at * STRIDE + from + ROPE_HALF);
        rope_turn(a, b, turns, first + at, from, -1.0f);
        bf16 *there = to.start + (first + at) * to.stride + from;
        put(there, a);
        put(there + ROPE_HALF, b);
    }
}

// The softmax of a warp's rows as its tiles come by. Row lane / 4 + r * 8 belongs to the four lanes of a group.
template <int BANDS> struct Softmax {
    // A score that is subtracted from all of the row: its largest so far, or one not much smaller.
    float base[BANDS * 2];
    // Of this lane's columns.
    float sum[BANDS * 2];

    __device__ __forceinline__ void begin() {
        UNROLL for (int row = 0; row < BANDS * 2; row++) {
            base[row] = minus_infinity();
            sum[row] = 0.0f;
        }
    }

    // Scores become exponentials. While no row has grown by more than 2^8 over its base, all keep theirs, which loses
    // nothing in floating point and saves scaling what was summed (the rule of FlashAttention-4).
    template <int WIDE>
    __device__ __forceinline__ void add(float (&scores)[BANDS][WIDE][4], float (&out)[BANDS][PADDED / 8][4]) {
        float most[BANDS * 2];
        bool grown = false;
        UNROLL for (int row = 0; row < BANDS * 2; row++) {
            float largest = minus_infinity();
            UNROLL for (int n = 0; n < WIDE; n++) {
                const float *two = &scores[row / 2][n][row % 2 * 2];
                largest = fmaxf(largest, fmaxf(two[0], two[1]));
            }
            largest = fmaxf(largest, shuffle_xor(largest, 1));
            most[row] = fmaxf(largest, shuffle_xor(largest, 2));
            grown = grown || (most[row] - base[row]) * to_powers() > 8.0f;
        }
        if (ballot(grown) != 0) {
            rebase(most, out);
        }
        float offset[BANDS * 2];
        UNROLL for (int row = 0; row < BANDS * 2; row++) {
            offset[row] = -base[row] * to_powers();
        }
        each(scores, [&](float &score, int band, int, int i) {
            score = power_of_two(score * to_powers() + offset[band * 2 + i / 2]);
            sum[band * 2 + i / 2] += score;
        });
    }

    // A row has seen a key in its first tile, so that no base stays infinite.
    __device__ __forceinline__ void rebase(const float (&most)[BANDS * 2], float (&out)[BANDS][PADDED / 8][4]) {
        float shrink[BANDS * 2];
        UNROLL for (int row = 0; row < BANDS * 2; row++) {
            float before = base[row];
            base[row] = fmaxf(before, most[row]);
            shrink[row] = power_of_two((before - base[row]) * to_powers());
            sum[row] *= shrink[row];
        }
        each(out, [&](float &x, int band, int, int i) { x *= shrink[band * 2 + i / 2]; });
    }
};

// Begins to bring what attention_keys needs of each query of a tile: TILE times lse, then TILE times delta.
template <int TILE>
__device__ __forceinline__ void bring_numbers(float *to, const float *lse, const float *delta, int first,
                                              int positions) {
    int thread = thread_again();
    int query = first + thread % TILE;
    if (thread < 2 * TILE) {
        copy_async_word(to + thread, (thread < TILE ? lse : delta) + row_numbers(positions) + query, query < positions);
    }
}

} // namespace attention
