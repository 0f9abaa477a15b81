// What streams are told to do, and the doing: nothing happens before somebody waits for it, so that whoever reuses
// memory too early is found out.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "codes.hpp"
#include "memory.hpp"

// A sum over several GPUs: it happens when all its streams have come to it.
struct Meeting;

struct Task {
    std::string name;
    std::function<Code()> work;
    // Pinned host memory that it reads or writes.
    const char *host = nullptr;
    uint64_t host_bytes = 0;
    std::shared_ptr<Meeting> meeting = nullptr;
};
typedef std::shared_ptr<Task> TaskPointer;

struct Context;

struct Stream {
    Context *context = nullptr;
    std::deque<TaskPointer> tasks;
    // Of all that were asked, how many are done.
    uint64_t asked = 0, done = 0;
    bool capturing = false, invalidated = false;
    int mode = GLOBAL;
    std::thread::id captured_by;
    std::vector<TaskPointer> captured;
};

struct Meeting {
    std::vector<Stream *> members;
    std::function<Code()> work;
};

struct Event {
    Context *context = nullptr;
    // Null where it was never recorded.
    std::shared_ptr<Stream> stream;
    uint64_t position = 0;
    bool captured = false;
};

struct Graph {
    Context *context = nullptr;
    std::vector<TaskPointer> tasks;
};

struct Module;

struct Function {
    std::shared_ptr<Module> module;
    std::string name;
    std::vector<unsigned> parameters;
    uint64_t static_shared = 0, dynamic_most = 0;
};

// Handles are numbers that are never used twice, so that one that was destroyed, or is of another kind, is known as such.
inline void *new_handle() {
    static uint64_t next = 0x5a0000000000;
    return reinterpret_cast<void *>(next += 16);
}

template <class T> class Handles {
  public:
    void *add(std::shared_ptr<T> thing) {
        void *handle = new_handle();
        all[reinterpret_cast<uint64_t>(handle)] = std::move(thing);
        return handle;
    }
    std::shared_ptr<T> find(void *handle) const {
        auto found = all.find(reinterpret_cast<uint64_t>(handle));
        return found == all.end() ? nullptr : found->second;
    }
    bool remove(void *handle) { return all.erase(reinterpret_cast<uint64_t>(handle)) == 1; }
    template <class F> void remove_if(F condition) {
        for (auto at = all.begin(); at != all.end();) {
            at = condition(*at->second) ? all.erase(at) : std::next(at);
        }
    }
    template <class F> void each(F tell) const {
        for (const auto &[handle, thing] : all) {
            tell(*thing);
        }
    }

  private:
    std::map<uint64_t, std::shared_ptr<T>> all;
};

// The primary context of a device.
struct Context {
    int device = 0;
    unsigned users = 0;
    // Of the life that it has now; a context that was destroyed is another when it comes back.
    void *handle = nullptr;
    Memory memory;
    std::map<char *, uint64_t> pinned;
    // An error that a kernel left stays until the process ends.
    Code broken = SUCCESS;
    uint64_t seed = 0;

    bool is_pinned(const void *host, uint64_t bytes) const {
        auto after = pinned.upper_bound((char *)host);
        if (after == pinned.begin()) {
            return false;
        }
        auto [start, room] = *std::prev(after);
        return (const char *)host + bytes <= start + room;
    }
};

// Opens all GPUs' memory while work is done.
class Working {
  public:
    explicit Working(std::vector<std::unique_ptr<Context>> &contexts) : contexts(contexts) {
        if (depth++ == 0) {
            protect(false);
        }
    }
    ~Working() {
        if (--depth == 0) {
            protect(true);
        }
    }

  private:
    std::vector<std::unique_ptr<Context>> &contexts;
    static inline int depth = 0;

    void protect(bool shut) {
        for (auto &context : contexts) {
            context->memory.protect(shut);
        }
    }
};

// The oldest task of the stream, which is not empty.
inline Code do_next(Stream &stream);

// All members come to the meeting, whose task is next on `first`; then it is held once for all.
inline Code meet(Stream &first, const std::shared_ptr<Meeting> &meeting) {
    for (Stream *other : meeting->members) {
        while (other != &first && !(!other->tasks.empty() && other->tasks.front()->meeting == meeting)) {
            if (other->tasks.empty()) {
                fprintf(stderr, "stand-in: a sum over GPUs waits for a stream that never comes to it\n");
                return LAUNCH_FAILED;
            }
            if (Code code = do_next(*other)) {
                return code;
            }
        }
    }
    Code code = meeting->work();
    for (Stream *member : meeting->members) {
        member->tasks.pop_front();
        member->done++;
    }
    return code;
}

inline Code do_next(Stream &stream) {
    TaskPointer task = stream.tasks.front();
    Code code;
    if (task->meeting) {
        code = meet(stream, task->meeting);
    } else {
        code = task->work();
        stream.tasks.pop_front();
        stream.done++;
    }
    if (!code && !stream.context->memory.guards_are_whole()) {
        fprintf(stderr, "stand-in: %s wrote outside of its memory\n", task->name.c_str());
        code = ILLEGAL_ADDRESS;
    }
    if (code && !stream.context->broken) {
        fprintf(stderr, "stand-in: %s ended with error %d\n", task->name.c_str(), code);
        stream.context->broken = code;
    }
    return code;
}
