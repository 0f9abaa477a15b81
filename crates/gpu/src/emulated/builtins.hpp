// What CUDA has built in, for the emulated machine: numbers, warp operations, matrix fragments, asynchronous copies.
// The prelude says what each is for; machine.hpp comes before this file.

inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}
inline float power_of_two(float x) { return exp2f(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline unsigned atomicAdd(unsigned *at, unsigned by) {
    unsigned before = *at;
    *at += by;
    return before;
}

namespace emulated {

template <class T> struct Exchange {
    T given, taken;
    int from;
    static void operate(void **payloads, int lanes) {
        for (int i = 0; i < lanes; i++) {
            auto *mine = static_cast<Exchange *>(payloads[i]);
            int from = mine->from < lanes ? mine->from : i;
            mine->taken = static_cast<Exchange *>(payloads[from])->given;
        }
    }
};

struct Ballot {
    bool given;
    unsigned taken;
    static void operate(void **payloads, int lanes) {
        unsigned all = 0;
        for (int i = 0; i < lanes; i++) {
            all |= unsigned(static_cast<Ballot *>(payloads[i])->given) << i;
        }
        for (int i = 0; i < lanes; i++) {
            static_cast<Ballot *>(payloads[i])->taken = all;
        }
    }
};

inline void nothing(void **, int) {}

inline float wide(unsigned pair, int which) { return __uint_as_float(which ? pair & 0xffff0000u : pair << 16); }

// Fragments as the PTX manual lays them out for mma.m16n8k16 with bf16 operands.
struct Mma {
    float *d;
    const unsigned *a, *b;
    static void operate(void **payloads, int lanes) {
        float a[16][16], b[16][8], d[16][8];
        if (lanes != WARP) {
            machine().fail("a matrix product needs a whole warp");
        }
        for (int lane = 0; lane < WARP; lane++) {
            auto *mine = static_cast<Mma *>(payloads[lane]);
            int group = lane / 4, pair = lane % 4 * 2;
            for (int i = 0; i < 2; i++) {
                for (int r = 0; r < 4; r++) {
                    a[group + r % 2 * 8][pair + i + r / 2 * 8] = wide(mine->a[r], i);
                }
                for (int r = 0; r < 2; r++) {
                    b[pair + i + r * 8][group] = wide(mine->b[r], i);
                    d[group + r * 8][pair + i] = mine->d[r * 2 + i];
                }
            }
        }
        for (int m = 0; m < 16; m++) {
            for (int n = 0; n < 8; n++) {
                float sum = 0;
                for (int k = 0; k < 16; k++) {
                    sum += a[m][k] * b[k][n];
                }
                d[m][n] += sum;
            }
        }
        for (int lane = 0; lane < WARP; lane++) {
            auto *mine = static_cast<Mma *>(payloads[lane]);
            int group = lane / 4, pair = lane % 4 * 2;
            for (int i = 0; i < 4; i++) {
                mine->d[i] = d[group + i / 2 * 8][pair + i % 2];
            }
        }
    }
};

// ldmatrix: lane i brings the address of row i % 8 of matrix i / 8; rows are eight bf16.
template <bool TURNED> struct LoadMatrix {
    unsigned *to;
    const void *row;
    static void operate(void **payloads, int lanes) {
        if (lanes != WARP) {
            machine().fail("a matrix load needs a whole warp");
        }
        uint16_t all[4][8][8];
        for (int lane = 0; lane < WARP; lane++) {
            const void *row = static_cast<LoadMatrix *>(payloads[lane])->row;
            if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
                machine().fail("a row of a matrix load must lie on 16 bytes");
            }
            memcpy(all[lane / 8][lane % 8], row, 16);
        }
        for (int lane = 0; lane < WARP; lane++) {
            auto *mine = static_cast<LoadMatrix *>(payloads[lane]);
            int group = lane / 4, pair = lane % 4 * 2;
            for (int m = 0; m < 4; m++) {
                unsigned low = TURNED ? all[m][pair][group] : all[m][group][pair];
                unsigned high = TURNED ? all[m][pair + 1][group] : all[m][group][pair + 1];
                mine->to[m] = low | high << 16;
            }
        }
    }
};

} // namespace emulated

template <class T> inline T shuffle(T value, int from) {
    emulated::Exchange<T> mine = {value, value, from & 31};
    emulated::machine().together(&emulated::Exchange<T>::operate, &mine);
    return mine.taken;
}
template <class T> inline T shuffle_xor(T value, int mask) { return shuffle(value, lane_index() ^ mask); }
inline unsigned ballot(bool value) {
    emulated::Ballot mine = {value, 0};
    emulated::machine().together(&emulated::Ballot::operate, &mine);
    return mine.taken;
}
inline void __syncwarp() { emulated::machine().together(&emulated::nothing, nullptr); }

inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulated::Mma mine = {d, a, b};
    emulated::machine().together(&emulated::Mma::operate, &mine);
}
inline void load_matrix(unsigned (&to)[4], const void *row) {
    emulated::LoadMatrix<false> mine = {to, row};
    emulated::machine().together(&emulated::LoadMatrix<false>::operate, &mine);
}
inline void load_matrix_turned(unsigned (&to)[4], const void *row) {
    emulated::LoadMatrix<true> mine = {to, row};
    emulated::machine().together(&emulated::LoadMatrix<true>::operate, &mine);
}

inline void copy_async(void *shared, const void *global, bool valid = true) {
    auto &copies = emulated::machine().current->copies;
    if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || (valid && reinterpret_cast<uintptr_t>(global) % 16 != 0)) {
        emulated::machine().fail("an asynchronous copy must lie on 16 bytes");
    }
    if (copies.empty()) {
        copies.emplace_back();
    }
    copies.back().push_back({shared, global, valid ? 16 : 0, 16});
}
inline void copy_async_word(void *shared, const void *global, bool valid = true) {
    auto &copies = emulated::machine().current->copies;
    if (copies.empty()) {
        copies.emplace_back();
    }
    copies.back().push_back({shared, global, valid ? 4 : 0, 4});
}
inline void copy_commit() {
    auto &copies = emulated::machine().current->copies;
    if (copies.empty()) {
        copies.emplace_back();
    }
    copies.emplace_back();
}
// Waits until at most LEFT committed groups are under way.
template <int LEFT> inline void copy_wait() {
    auto &copies = emulated::machine().current->copies;
    while (copies.size() > size_t(LEFT) + 1) {
        for (const emulated::Copy &copy : copies.front()) {
            memset(copy.to, 0, size_t(copy.room));
            memcpy(copy.to, copy.from, size_t(copy.bytes));
        }
        copies.pop_front();
    }
}
