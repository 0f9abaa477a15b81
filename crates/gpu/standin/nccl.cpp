// A stand-in for libnccl.so.2: sums over the GPUs of one process, as the manual "NCCL" describes them, in the order of
// ranks. It knows nothing of links, rings or speed.

#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "device.hpp"
#include "fail.hpp"

// ncclResult_t.
enum Result { SUCCESS = 0, UNHANDLED_CUDA_ERROR = 1, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };

#define CALL extern "C" __attribute__((visibility("default"))) Result

extern "C" int standin_meet(void **, const int *, int, const char *, void (*)(void *), void *, void (*)(void *));
extern "C" int cuDeviceGetCount(int *);
extern "C" int cuInit(unsigned);

// ncclDataType_t and ncclRedOp_t.
const int UINT64 = 5, FLOAT32 = 7, FLOAT64 = 8, SUM = 0;

struct Clique {
    int size;
};

struct Communicator {
    std::shared_ptr<Clique> clique;
    int rank, device;
};

struct Part {
    const void *from;
    void *to;
    uint64_t count;
    int type, rank, device;
    void *stream;
};

static std::mutex one;
static std::map<void *, Communicator> communicators;
// What a thread asked for since its group began, by clique and order.
static thread_local int depth = 0;
static thread_local std::map<Clique *, std::map<int, std::vector<Part>>> asked;
static thread_local Result wrong = SUCCESS;

CALL ncclGetVersion(int *version) {
    PLANTED(Result);
    *version = 22809;
    return SUCCESS;
}

extern "C" __attribute__((visibility("default"))) const char *ncclGetErrorString(int result) {
    switch (result) {
    case SUCCESS:
        return "no error";
    case UNHANDLED_CUDA_ERROR:
        return "unhandled cuda error";
    case INVALID_ARGUMENT:
        return "invalid argument";
    case INVALID_USAGE:
        return "invalid usage";
    default:
        return "unknown result code";
    }
}

// "devlist: set to NULL for 0..ndev-1"; a device has one rank of a clique.
CALL ncclCommInitAll(void **made, int count, const int *devices) {
    PLANTED(Result);
    int seen = 0;
    if (cuInit(0) || cuDeviceGetCount(&seen)) {
        return UNHANDLED_CUDA_ERROR;
    }
    std::set<int> distinct;
    for (int i = 0; i < count; i++) {
        int device = devices ? devices[i] : i;
        if (device < 0 || device >= seen || !distinct.insert(device).second) {
            return INVALID_USAGE;
        }
    }
    if (!made || count < 1) {
        return INVALID_ARGUMENT;
    }
    auto clique = std::make_shared<Clique>(Clique{count});
    std::unique_lock<std::mutex> lock(one);
    static uint64_t next = 0x5d0000000000;
    for (int i = 0; i < count; i++) {
        made[i] = reinterpret_cast<void *>(next += 16);
        communicators[made[i]] = {clique, i, devices ? devices[i] : i};
    }
    return SUCCESS;
}

CALL ncclCommDestroy(void *communicator) {
    PLANTED(Result);
    std::unique_lock<std::mutex> lock(one);
    return communicators.erase(communicator) == 1 ? SUCCESS : INVALID_ARGUMENT;
}

template <class T> static void sum(const std::vector<Part> &parts) {
    std::vector<T> sums(parts[0].count, T(0));
    for (const Part &part : parts) {
        const T *from = static_cast<const T *>(part.from);
        for (uint64_t i = 0; i < part.count; i++) {
            sums[i] += from[i];
        }
    }
    for (const Part &part : parts) {
        memcpy(part.to, sums.data(), sums.size() * sizeof(T));
    }
}

static void reduce(void *data) {
    const auto &parts = *static_cast<std::vector<Part> *>(data);
    switch (parts[0].type) {
    case UINT64:
        return sum<uint64_t>(parts);
    case FLOAT32:
        return sum<float>(parts);
    default:
        return sum<double>(parts);
    }
}

// The same operation of every rank.
static Result launch(const Clique &clique, std::vector<Part> parts) {
    std::vector<void *> streams;
    std::vector<int> devices;
    for (int rank = 0; rank < clique.size; rank++) {
        const Part &part = parts[size_t(rank)];
        if (part.rank != rank || part.count != parts[0].count || part.type != parts[0].type) {
            fprintf(stderr, "stand-in: the ranks of a sum do not ask for the same\n");
            return INVALID_USAGE;
        }
        streams.push_back(part.stream);
        devices.push_back(part.device);
    }
    auto drop = [](void *data) { delete static_cast<std::vector<Part> *>(data); };
    auto *kept = new std::vector<Part>(std::move(parts));
    int code = standin_meet(streams.data(), devices.data(), clique.size, "a sum over GPUs", reduce, kept, drop);
    return code == 0 ? SUCCESS : UNHANDLED_CUDA_ERROR;
}

static Result launch_asked() {
    for (auto &[clique, by_rank] : asked) {
        size_t operations = by_rank.begin()->second.size();
        for (size_t i = 0; i < operations; i++) {
            std::vector<Part> parts;
            for (auto &[rank, own] : by_rank) {
                if (own.size() != operations || int(by_rank.size()) != clique->size) {
                    // A real one would wait for the others for ever.
                    fprintf(stderr, "stand-in: a group lacks the call of a rank\n");
                    return INVALID_USAGE;
                }
                parts.push_back(own[i]);
            }
            if (Result result = launch(*clique, std::move(parts))) {
                return result;
            }
        }
    }
    return SUCCESS;
}

static Result end() {
    if (depth == 0) {
        return INVALID_USAGE;
    }
    if (--depth > 0) {
        return SUCCESS;
    }
    Result result = wrong ? wrong : launch_asked();
    asked.clear();
    wrong = SUCCESS;
    return result;
}

CALL ncclGroupStart() {
    PLANTED(Result);
    depth++;
    return SUCCESS;
}

CALL ncclGroupEnd() {
    // A group ends either way.
    Result result = end();
    PLANTED(Result);
    return result;
}

static Result ask(const void *from, void *to, size_t count, int type, int operation, void *handle, void *stream) {
    std::unique_lock<std::mutex> lock(one);
    auto found = communicators.find(handle);
    bool known = operation == SUM && (type == UINT64 || type == FLOAT32 || type == FLOAT64);
    if (found == communicators.end() || !known || count == 0 || !from || !to) {
        return INVALID_ARGUMENT;
    }
    const Communicator &mine = found->second;
    asked[mine.clique.get()][mine.rank].push_back({from, to, count, type, mine.rank, mine.device, stream});
    return SUCCESS;
}

// "When a single thread manages multiple devices", calls stand in a group; one that does not is a group of its own, and
// can only be the whole of a clique of one.
CALL ncclAllReduce(const void *from, void *to, size_t count, int type, int operation, void *communicator, void *stream) {
    PLANTED(Result);
    depth++;
    Result result = ask(from, to, count, type, operation, communicator, stream);
    wrong = wrong ? wrong : result;
    Result ended = end();
    return result ? result : ended;
}
