// The router of a mixture of experts: choice, placement by expert, gradient, losses and balance. The product with the
// router's matrix is made elsewhere. Nothing here asks the host for a size, so that all of it runs in a graph.
//
// Pairs are numbered `token * TOP_K + slot`, the best expert first. Rows of experts lie expert after expert; each
// expert's rows start at a multiple of 128 and end with padding up to the next one. R is max_tiles * 128 with
// max_tiles = ceil(pairs / 128) + E, the most that can be needed. E is EXPERTS.
//
// The choices of 32 neighbouring positions ("a chunk") are kept as one word per expert, a bit per position: a token
// comes to an expert once at most, so the rank of a pair is a count of bits and no order of threads can show.

namespace router {

const int CHUNK = 32;
const int TILE = 128;
// A pair that the capacity dropped; a row that nobody has.
const u32 NONE = 0xffffffffu;
// Experts of one lane, neighbours, so that the lowest lane has the lowest ones.
const int EACH = (EXPERTS + 31) / 32;

__device__ __forceinline__ int chunks_of(int positions) { return (positions + CHUNK - 1) / CHUNK; }
__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }

// One token's experts in a lane; `empty` beyond the last expert.
__device__ __forceinline__ void read_row(float (&to)[EACH], const float *row, float empty) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int expert = lane_index() * EACH + i;
        to[i] = expert < EXPERTS ? row[expert] : empty;
    }
}

__device__ __forceinline__ void write_row(float *row, const float (&from)[EACH]) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int expert = lane_index() * EACH + i;
        if (expert < EXPERTS) {
            row[expert] = from[i];
        }
    }
}

// A token's logits become probabilities; the log-sum-exp is returned.
__device__ __forceinline__ float softmax(float (&row)[EACH]) {
    float most = minus_infinity(), sum = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        most = fmaxf(most, row[i]);
    }
    most = warp_max(most);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        row[i] = lane_index() * EACH + i < EXPERTS ? expf(row[i] - most) : 0.0f;
        sum += row[i];
    }
    sum = warp_sum(sum);
    float factor = 1.0f / sum;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        row[i] *= factor;
    }
    return most + logf(sum);
}

struct Choice {
    int expert;
    float probability;
};

// The best expert whose bit in the lane's `taken` is not set, by probability plus bias; ties go to the lower index, and
// to the lowest of all where no score is a number. Marks it taken.
__device__ __forceinline__ Choice best(const float (&probabilities)[EACH], const float (&bias)[EACH], u32 &taken) {
    Choice mine = {-1, 0.0f};
    float most = minus_infinity();
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int expert = lane_index() * EACH + i;
        float score = probabilities[i] + bias[i];
        bool open = expert < EXPERTS && (taken >> i & 1) == 0;
        if (open && (mine.expert < 0 || score > most)) {
            mine = {expert, probabilities[i]};
            // What is not a number loses to all that are.
            most = score == score ? score : minus_infinity();
        }
    }
    float most_of_all = warp_max(most);
    unsigned winners = ballot(mine.expert >= 0 && most == most_of_all);
    int winner = __popc((winners & (0u - winners)) - 1);
    if (lane_index() == winner) {
        taken |= 1u << (mine.expert - winner * EACH);
    }
    return {shuffle(mine.expert, winner), shuffle(mine.probability, winner)};
}

} // namespace router

// Softmax of the router's logits [rows, E], choice of TOP_K by probability plus bias (null: none), gates = chosen
// probabilities over their sum. rows = sequences * positions. Gives probabilities [rows, E] (may be the logits), lse
// and sums [rows], chosen and gates [rows, TOP_K], and masks [sequences * chunks, E]: bit i says that position i of the
// chunk chose the expert.
// grid (ceil(positions / 32), sequences), block 256, no dynamic shared
extern "C" __global__ void __launch_bounds__(256)
    experts_route(const float *logits, const float *bias, float *probabilities, float *lse, u32 *chosen, float *gates,
                  float *sums, u32 *masks, int positions) {
    __shared__ u32 choosers[EXPERTS];
    for (int expert = threadIdx.x; expert < EXPERTS; expert += 256) {
        choosers[expert] = 0;
    }
    __syncthreads();
    int lane = lane_index();
    float shift[router::EACH] = {};
    if (bias) {
        router::read_row(shift, bias, 0.0f);
    }
    for (int i = threadIdx.x / 32; i < router::CHUNK; i += 8) {
        int position = blockIdx.x * router::CHUNK + i;
        if (position >= positions) {
            break;
        }
        size_t token = size_t(blockIdx.y) * positions + position;
        float row[router::EACH];
        router::read_row(row, logits + token * EXPERTS, router::minus_infinity());
        float log_sum = router::softmax(row);
        router::write_row(probabilities + token * EXPERTS, row);
        router::Choice mine = {0, 0.0f};
        float sum = 0.0f;
        u32 taken = 0;
        for (int slot = 0; slot < TOP_K; slot++) {
            router::Choice next = router::best(row, shift, taken);
            sum += next.probability;
            if (lane == slot) {
                mine = next;
            }
        }
        if (lane < TOP_K) {
            chosen[token * TOP_K + lane] = mine.expert;
            gates[token * TOP_K + lane] = mine.probability / sum;
            // Sets a bit: nobody else has it.
            atomicAdd(&choosers[mine.expert], 1u << i);
        }
        if (lane == 0) {
            lse[token] = log_sum;
            sums[token] = sum;
        }
    }
    __syncthreads();
    u32 *to = masks + (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * EXPERTS;
    for (int expert = threadIdx.x; expert < EXPERTS; expert += 256) {
        to[expert] = choosers[expert];
    }
}
EXPORT(experts_route)

// From the masks: before [sequences * chunks, E], the expert's pairs in earlier chunks of the sequence, and counts
// [sequences, E], its pairs in the sequence before drops.
// grid (ceil(E / 128), sequences), block 128, no dynamic shared
extern "C" __global__ void __launch_bounds__(128)
    experts_count(const u32 *masks, u32 *before, u32 *counts, int positions) {
    int expert = blockIdx.x * 128 + threadIdx.x;
    if (expert >= EXPERTS) {
        return;
    }
    int chunks = router::chunks_of(positions);
    size_t first = size_t(blockIdx.y) * chunks * EXPERTS + expert;
    u32 count = 0;
#pragma unroll 8
    for (int chunk = 0; chunk < chunks; chunk++) {
        before[first + size_t(chunk) * EXPERTS] = count;
        count += __popc(masks[first + size_t(chunk) * EXPERTS]);
    }
    counts[size_t(blockIdx.y) * EXPERTS + expert] = count;
}
EXPORT(experts_count)

// Where rows go: first_row [E + 1], multiples of 128; end_row [E], after the expert's last used row; base
// [sequences, E], row of the sequence's first pair; tile_expert [max_tiles], -1 beyond the end. An expert takes at most
// `capacity` pairs of a sequence. load [E] += pairs before drops, dropped [1] += drops; each may be null.
// grid (1), block 512, no dynamic shared
extern "C" __global__ void __launch_bounds__(512)
    experts_offsets(const u32 *counts, u32 *first_row, u32 *end_row, u32 *base, int *tile_expert, u64 *load,
                    u64 *dropped, int sequences, int capacity, int max_tiles) {
    __shared__ int tiles[EXPERTS], end_tile[EXPERTS];
    __shared__ u64 room[32];
    int expert = threadIdx.x;
    u64 all = 0;
    u32 kept = 0;
    if (expert < EXPERTS) {
        for (int sequence = 0; sequence < sequences; sequence++) {
            u32 count = counts[size_t(sequence) * EXPERTS + expert];
            all += count;
            kept += min(static_cast<int>(count), capacity);
        }
        tiles[expert] = (kept + router::TILE - 1) / router::TILE;
        if (load) {
            load[expert] += all;
        }
    }
    u64 drops = block_sum(all - kept, room);
    if (threadIdx.x == 0 && dropped) {
        *dropped += drops;
    }
    if (expert < EXPERTS) {
        int first = 0;
        for (int earlier = 0; earlier < expert; earlier++) {
            first += tiles[earlier];
        }
        end_tile[expert] = first + tiles[expert];
        u32 row = first * router::TILE;
        first_row[expert] = row;
        end_row[expert] = row + kept;
        if (expert == EXPERTS - 1) {
            first_row[EXPERTS] = end_tile[expert] * router::TILE;
        }
        for (int sequence = 0; sequence < sequences; sequence++) {
            size_t at = size_t(sequence) * EXPERTS + expert;
            base[at] = row;
            row += min(static_cast<int>(counts[at]), capacity);
        }
    }
    __syncthreads();
    for (int tile = threadIdx.x; tile < max_tiles; tile += 512) {
        // The first expert that ends after this tile.
        int low = 0, high = EXPERTS;
        while (low < high) {
            int middle = (low + high) / 2;
            if (end_tile[middle] > tile) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        tile_expert[tile] = low < EXPERTS ? low : -1;
    }
}
EXPORT(experts_offsets)

// row_of_pair [rows * TOP_K] and its inverse pair_of_row [R]; 0xffffffff for dropped pairs and for rows nobody has.
// Pairs of an expert come by sequence and position; the first `capacity` of a sequence are kept.
// grid (max_tiles), block 128, no dynamic shared
extern "C" __global__ void __launch_bounds__(128)
    experts_place(const u32 *chosen, const u32 *masks, const u32 *before, const u32 *base, const u32 *end_row,
                  const int *tile_expert, u32 *row_of_pair, u32 *pair_of_row, int rows, int positions, int capacity) {
    // R is no less than the number of pairs: the grid serves for both.
    u32 index = blockIdx.x * 128 + threadIdx.x;
    int owner = tile_expert[blockIdx.x];
    if (owner < 0 || index >= end_row[owner]) {
        pair_of_row[index] = router::NONE;
    }
    if (index >= static_cast<u32>(rows) * TOP_K) {
        return;
    }
    u32 token = index / TOP_K, expert = chosen[index];
    u32 sequence = token / positions, position = token % positions;
    size_t word = size_t(sequence) * router::chunks_of(positions) + position / router::CHUNK;
    u32 earlier = masks[word * EXPERTS + expert] & ((1u << position % router::CHUNK) - 1);
    u32 rank = before[word * EXPERTS + expert] + __popc(earlier);
    u32 row = router::NONE;
    if (rank < static_cast<u32>(capacity)) {
        row = base[size_t(sequence) * EXPERTS + expert] + rank;
        pair_of_row[row] = index;
    }
    row_of_pair[index] = row;
}
EXPORT(experts_place)

// d_logits [rows, E] from d_gates, those of dropped pairs (row_of_pair) being zero, plus the gradients of the balance
// loss (Fedus 2101.03961 eq. 4; f_i has none) and of the z-loss (Zoph 2202.08906 eq. 5). With each = 1 / (batch *
// positions): balance = coefficient * E / (positions * TOP_K) * each, z = 2 * coefficient * each.
// grid (ceil(rows / 8)), block 256, no dynamic shared
extern "C" __global__ void __launch_bounds__(256)
    experts_router_backward(const float *d_gates, const u32 *row_of_pair, const float *probabilities,
                            const float *gates, const u32 *chosen, const float *sums, const float *lse,
                            const u32 *counts, float *d_logits, int rows, int positions, float balance, float z) {
    size_t token = size_t(blockIdx.x) * 8 + threadIdx.x / 32;
    if (token >= static_cast<size_t>(rows)) {
        return;
    }
    float p[router::EACH], d[router::EACH];
    router::read_row(p, probabilities + token * EXPERTS, 0.0f);
    const u32 *count = counts + token / positions * EXPERTS;
#pragma unroll
    for (int i = 0; i < router::EACH; i++) {
        int expert = lane_index() * router::EACH + i;
        d[i] = expert < EXPERTS ? balance * static_cast<float>(count[expert]) : 0.0f;
    }
    size_t first = token * TOP_K;
    float gradients[TOP_K], along = 0.0f, sum = sums[token];
#pragma unroll
    for (int slot = 0; slot < TOP_K; slot++) {
        gradients[slot] = row_of_pair[first + slot] == router::NONE ? 0.0f : d_gates[first + slot];
        along += gates[first + slot] * gradients[slot];
    }
    // gate_j = p_j / sum of chosen p
#pragma unroll
    for (int slot = 0; slot < TOP_K; slot++) {
        int expert = chosen[first + slot];
#pragma unroll
        for (int i = 0; i < router::EACH; i++) {
            d[i] += lane_index() * router::EACH + i == expert ? (gradients[slot] - along) / sum : 0.0f;
        }
    }
    float mean = 0.0f;
#pragma unroll
    for (int i = 0; i < router::EACH; i++) {
        mean += p[i] * d[i];
    }
    float pull = z * lse[token] - warp_sum(mean);
#pragma unroll
    for (int i = 0; i < router::EACH; i++) {
        d[i] = p[i] * (d[i] + pull);
    }
    router::write_row(d_logits + token * EXPERTS, d);
}
EXPORT(experts_router_backward)

// partial [2 * ceil(rows / 32)]: per 32 tokens the sum of count * probability, the balance loss but for a factor, and
// of lse^2.
// grid (ceil(rows / 32)), block 256, no dynamic shared
extern "C" __global__ void __launch_bounds__(256)
    experts_losses(const float *probabilities, const float *lse, const u32 *counts, double *partial, int rows,
                   int positions) {
    __shared__ double balances[32], squares[32];
    double balance = 0.0, square = 0.0;
    for (int i = threadIdx.x / 32; i < 32; i += 8) {
        size_t token = size_t(blockIdx.x) * 32 + i;
        if (token >= static_cast<size_t>(rows)) {
            break;
        }
        const u32 *count = counts + token / positions * EXPERTS;
        for (int expert = lane_index(); expert < EXPERTS; expert += 32) {
            balance += static_cast<double>(probabilities[token * EXPERTS + expert]) * count[expert];
        }
        if (lane_index() == 0) {
            square += static_cast<double>(lse[token]) * lse[token];
        }
    }
    balance = block_sum(balance, balances);
    square = block_sum(square, squares);
    if (threadIdx.x == 0) {
        partial[2 * blockIdx.x] = balance;
        partial[2 * blockIdx.x + 1] = square;
    }
}
EXPORT(experts_losses)

// aux += balance loss, mean over the `batch` sequences; z += z-loss, mean over their tokens; before coefficients.
// grid (1), block 256, no dynamic shared
extern "C" __global__ void __launch_bounds__(256)
    experts_losses_add(const double *partial, double *aux, double *z, int rows, int positions, int batch) {
    __shared__ double balances[32], squares[32];
    double balance = 0.0, square = 0.0;
    for (int i = threadIdx.x; i < (rows + 31) / 32; i += 256) {
        balance += partial[2 * i];
        square += partial[2 * i + 1];
    }
    balance = block_sum(balance, balances);
    square = block_sum(square, squares);
    if (threadIdx.x == 0) {
        double tokens = static_cast<double>(positions) * batch;
        *aux += balance * EXPERTS / (static_cast<double>(positions) * TOP_K) / tokens;
        *z += square / tokens;
    }
}
EXPORT(experts_losses_add)

// bias [layers, E] moves by `step` against the load [layers, E] (Wang 2408.15664); it rests at exactly the mean.
// grid (layers), block 512, no dynamic shared
extern "C" __global__ void __launch_bounds__(512) experts_balance(const u64 *load, float *bias, float step) {
    __shared__ u64 room[32];
    int expert = threadIdx.x;
    u64 mine = expert < EXPERTS ? load[blockIdx.x * EXPERTS + expert] : 0;
    u64 total = block_sum(mine, room);
    if (expert < EXPERTS) {
        // Compared as integers: no rounding of the mean.
        u64 even = mine * EXPERTS;
        bias[blockIdx.x * EXPERTS + expert] += total > even ? step : total < even ? -step : 0.0f;
    }
}
EXPORT(experts_balance)
