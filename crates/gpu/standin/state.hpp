// All that the driver knows, and the rules that every call begins with.
#pragma once

#include <mutex>

#include "fail.hpp"
#include "work.hpp"

#define CALL extern "C" __attribute__((visibility("default"))) Code

struct Driver {
    // One call at a time, whichever thread makes it.
    std::recursive_mutex one;
    bool begun = false;
    std::vector<Device> devices;
    std::vector<std::unique_ptr<Context>> contexts;
    Handles<Stream> streams;
    Handles<Event> events;
    Handles<Graph> graphs, ready;
    Handles<Module> modules;
    Handles<Function> functions;
};

inline Driver &driver() {
    // Never destroyed: what other libraries do at the end may still come here.
    static Driver *one = new Driver();
    return *one;
}

inline thread_local void *current_handle = nullptr;

inline Context *context_of(void *handle) {
    for (auto &context : driver().contexts) {
        if (handle && context->handle == handle) {
            return context.get();
        }
    }
    return nullptr;
}

// The begin of a call: the lock, and what is wrong before anything else is looked at.
struct Entry {
    std::unique_lock<std::recursive_mutex> lock;
    Context *context = nullptr;
    Code code = SUCCESS;

    // `needs_context`: the manual's CUDA_ERROR_INVALID_CONTEXT of functions that work in the current context. An error of
    // a kernel is told by every later call ("this leaves the process in an inconsistent state").
    Entry(const char *name, bool needs_context) : lock(driver().one) {
        if (!driver().begun) {
            code = NOT_INITIALIZED;
            return;
        }
        context = context_of(current_handle);
        if (needs_context && !context) {
            code = INVALID_CONTEXT;
        } else if (context && context->broken) {
            code = context->broken;
        } else {
            code = Code(planted(name));
            if (code == LAUNCH_FAILED && context) {
                context->broken = code;
            }
        }
    }
};

#define ENTER_WITH(needs_context)                                                                                      \
    Entry entry(__func__, needs_context);                                                                              \
    if (entry.code) {                                                                                                  \
        return entry.code;                                                                                             \
    }
#define ENTER() ENTER_WITH(true)
#define ENTER_ANYWHERE() ENTER_WITH(false)

// "Stream capture", prohibited and unhandled operations: what is unsafe while a capture in the global mode runs anywhere,
// or in the mode of a thread on this one, ends that capture.
inline Code unsafe_while_capturing() {
    Code code = SUCCESS;
    driver().streams.each([&](Stream &stream) {
        bool mine = stream.captured_by == std::this_thread::get_id();
        bool heard = stream.mode == GLOBAL || (stream.mode == THREAD_LOCAL && mine);
        if (stream.capturing && heard) {
            stream.invalidated = true;
            code = CAPTURE_UNSUPPORTED;
        }
    });
    return code;
}

// Does all that was asked of the stream, up to a position.
inline Code finish(Stream &stream, uint64_t position) {
    if (stream.done >= position) {
        return SUCCESS;
    }
    Working working(driver().contexts);
    while (stream.done < position) {
        if (Code code = do_next(stream)) {
            return code;
        }
    }
    return SUCCESS;
}

inline Code finish_all(Context &context) {
    Code code = SUCCESS;
    driver().streams.each([&](Stream &stream) {
        if (stream.context == &context && !code) {
            code = finish(stream, stream.asked);
        }
    });
    return code;
}

// Puts the task into the stream's queue, or into what is being captured.
inline Code ask(Stream &stream, Task task) {
    auto pointer = std::make_shared<Task>(std::move(task));
    if (stream.invalidated) {
        return CAPTURE_INVALIDATED;
    }
    if (stream.capturing) {
        stream.captured.push_back(pointer);
        return SUCCESS;
    }
    stream.tasks.push_back(pointer);
    stream.asked++;
    return SUCCESS;
}

// The stream of a handle in the current context. The default stream is nothing that this engine may use.
inline std::shared_ptr<Stream> stream_of(void *handle, Context *context) {
    auto stream = driver().streams.find(handle);
    return stream && stream->context == context ? stream : nullptr;
}
