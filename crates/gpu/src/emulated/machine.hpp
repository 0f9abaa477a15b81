// A processor of CUDA blocks in plain C++: every thread of a block is a fiber, and fibers change at barriers and warp
// operations only. It is for tests of arithmetic and of barriers; it knows nothing of speed.
//
// Fibers run in an order that a seed chooses, so that a missing barrier shows as a result that depends on the seed.
// Shared memory starts as not-a-number in every block, and asynchronous copies arrive as late as they may.

#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

struct Dim3 {
    unsigned x, y, z;
};

namespace emulated {

const int WARP = 32;
const size_t STACK_BYTES = 128 << 10;
const size_t GUARD_LINES = 256;

enum class State { Ready, AtBarrier, AtWarp, Done };

// What all lanes of a warp do together: each brings a payload, the last to arrive does the work for all.
typedef void (*Together)(void **payloads, int lanes);

struct Copy {
    void *to;
    const void *from;
    int bytes, room;
};

struct Fiber {
    jmp_buf here;
    ucontext_t first;
    std::unique_ptr<char[]> stack;
    bool begun = false;
    State state = State::Done;
    Dim3 thread = {0, 0, 0};
    int index = 0;
    void *payload = nullptr;
    Together together = nullptr;
    std::deque<std::vector<Copy>> copies;
};

struct Call {
    void (*thunk)(void **args);
    void **args;
    const char *name;
};

class Machine {
  public:
    Dim3 grid = {1, 1, 1}, block = {1, 1, 1}, at = {0, 0, 0};
    Fiber *current = nullptr;
    char *shared = nullptr;

    void run(const Call &call, Dim3 grid, Dim3 block, size_t shared_bytes, uint64_t seed) {
        this->call = call;
        this->grid = grid;
        this->block = block;
        random = seed;
        // Behind what was asked for lies a guard, so that a launch with too little shows.
        shared_room.resize((shared_bytes + 15) / 16 + GUARD_LINES);
        shared = reinterpret_cast<char *>(shared_room.data());
        size_t threads = size_t(block.x) * block.y * block.z;
        while (fibers.size() < threads) {
            fibers.emplace_back(new Fiber());
        }
        for (unsigned z = 0; z < grid.z; z++) {
            for (unsigned y = 0; y < grid.y; y++) {
                for (unsigned x = 0; x < grid.x; x++) {
                    at = {x, y, z};
                    run_block(threads);
                }
            }
        }
    }

    void barrier() {
        current->state = State::AtBarrier;
        yield();
    }

    void together(Together operation, void *payload) {
        current->payload = payload;
        current->together = operation;
        current->state = State::AtWarp;
        if (!meet(current->index / WARP)) {
            yield();
        }
    }

    void fail(const char *why) {
        fprintf(stderr, "kernel %s, block %u,%u,%u, thread %d: %s\n", call.name, at.x, at.y, at.z,
                current ? current->index : -1, why);
        abort();
    }

  private:
    struct alignas(16) Line {
        char bytes[16];
    };

    Call call = {nullptr, nullptr, nullptr};
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Line> shared_room;
    jmp_buf home;
    size_t threads = 0;
    uint64_t random = 0;

    // Splitmix (Steele 2014), enough for an order.
    uint64_t draw() {
        uint64_t x = (random += 0x9e3779b97f4a7c15u);
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        return x ^ (x >> 31);
    }

    void run_block(size_t count) {
        threads = count;
        memset(shared, 0xff, shared_room.size() * sizeof(Line));
        for (size_t i = 0; i < threads; i++) {
            Fiber &fiber = *fibers[i];
            fiber.index = int(i);
            fiber.thread = {unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y)};
            fiber.state = State::Ready;
            fiber.copies.clear();
        }
        // An odd stride over the threads visits each once where their number is a power of two; any start and either
        // direction do for other numbers.
        while (true) {
            size_t start = draw() % threads;
            bool backwards = draw() & 1;
            bool ran = false;
            for (size_t i = 0; i < threads; i++) {
                size_t index = backwards ? (start + threads - i) % threads : (start + i) % threads;
                Fiber &fiber = *fibers[index];
                if (fiber.state == State::Ready) {
                    resume(fiber);
                    ran = true;
                }
            }
            if (ran) {
                continue;
            }
            if (!release()) {
                check_guard();
                return;
            }
        }
    }

    void check_guard() {
        for (size_t i = shared_room.size() - GUARD_LINES; i < shared_room.size(); i++) {
            for (char byte : shared_room[i].bytes) {
                if (byte != char(0xff)) {
                    fail("writes past its shared memory");
                }
            }
        }
    }

    // Nobody can run: opens the block's barrier, or ends the block.
    bool release() {
        bool done = true;
        for (size_t i = 0; i < threads; i++) {
            if (fibers[i]->state == State::AtWarp) {
                current = fibers[i].get();
                fail("lanes of one warp wait for each other at different places");
            }
            done = done && fibers[i]->state == State::Done;
        }
        for (size_t i = 0; i < threads; i++) {
            if (fibers[i]->state == State::AtBarrier) {
                fibers[i]->state = State::Ready;
            }
        }
        return !done;
    }

    void resume(Fiber &fiber) {
        current = &fiber;
        if (_setjmp(home) != 0) {
            return;
        }
        if (fiber.begun) {
            _longjmp(fiber.here, 1);
        }
        fiber.begun = true;
        fiber.stack.reset(new char[STACK_BYTES]);
        getcontext(&fiber.first);
        fiber.first.uc_stack.ss_sp = fiber.stack.get();
        fiber.first.uc_stack.ss_size = STACK_BYTES;
        fiber.first.uc_link = nullptr;
        makecontext(&fiber.first, reinterpret_cast<void (*)()>(&Machine::live), 0);
        setcontext(&fiber.first);
    }

    void yield() {
        if (_setjmp(current->here) == 0) {
            _longjmp(home, 1);
        }
    }

    // A fiber's life: one thread of one block after another.
    static void live();

    // Does the warp's common work if all its living lanes have come.
    bool meet(int warp) {
        void *payloads[WARP] = {};
        Together operation = nullptr;
        size_t first = size_t(warp) * WARP, last = first + WARP < threads ? first + WARP : threads;
        for (size_t i = first; i < last; i++) {
            Fiber &lane = *fibers[i];
            if (lane.state != State::AtWarp) {
                return false;
            }
            if (operation && operation != lane.together) {
                fail("lanes of one warp meet in different operations");
            }
            operation = lane.together;
            payloads[i - first] = lane.payload;
        }
        operation(payloads, int(last - first));
        for (size_t i = first; i < last; i++) {
            fibers[i]->state = State::Ready;
        }
        // The one that did the work goes on at once; the others are ready.
        return true;
    }
};

inline Machine &machine() {
    static thread_local Machine one;
    return one;
}

inline void Machine::live() {
    Machine &self = machine();
    while (true) {
        self.call.thunk(self.call.args);
        self.current->state = State::Done;
        self.yield();
    }
}

typedef std::map<std::string, void (*)(void **)> Kernels;

inline Kernels &kernels() {
    static Kernels all;
    return all;
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void **args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A> *>(args[I])...);
}

template <auto kernel> struct Thunk;

template <class... A, void (*kernel)(A...)> struct Thunk<kernel> {
    static void run(void **args) { call(kernel, args, std::index_sequence_for<A...>()); }
};

struct Registered {
    Registered(const char *name, void (*thunk)(void **)) { kernels()[name] = thunk; }
};

} // namespace emulated

// 0: done; 1: no such kernel.
extern "C" __attribute__((visibility("default"))) int emulated_launch(const char *name, const unsigned *grid, const unsigned *block, size_t shared_bytes,
                               uint64_t seed, void **args) {
    auto found = emulated::kernels().find(name);
    if (found == emulated::kernels().end()) {
        return 1;
    }
    emulated::Call call = {found->second, args, found->first.c_str()};
    emulated::machine().run(call, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared_bytes, seed);
    return 0;
}

#define EXPORT(name) static emulated::Registered registered_##name(#name, &emulated::Thunk<&name>::run);

#define UNROLL

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define SHARED_DYNAMIC(name) char *name = emulated::machine().shared

#define threadIdx (emulated::machine().current->thread)
#define blockIdx (emulated::machine().at)
#define blockDim (emulated::machine().block)
#define gridDim (emulated::machine().grid)

inline void __syncthreads() { emulated::machine().barrier(); }
inline int lane_index() { return emulated::machine().current->index % emulated::WARP; }

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
