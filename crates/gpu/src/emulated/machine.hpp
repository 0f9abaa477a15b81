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
extern "C" __attribute__((visibility("default"))) int emulated_launch(const char *name, const unsigned *grid,
                                                                      const unsigned *block, size_t shared_bytes,
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
