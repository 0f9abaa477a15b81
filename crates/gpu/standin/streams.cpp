// A stand-in for libcuda.so.1: streams, events, capture and graphs.

#include "state.hpp"

CALL cuStreamCreate(void **handle, unsigned flags) {
    ENTER();
    if (flags > STREAM_NON_BLOCKING) {
        return INVALID_VALUE;
    }
    auto stream = std::make_shared<Stream>();
    stream->context = entry.context;
    *handle = driver().streams.add(stream);
    return SUCCESS;
}

// Waiting for a stream that captures is illegal and ends the capture ("Stream capture", prohibited operations).
static Code waitable(Stream &stream) {
    if (stream.capturing) {
        stream.invalidated = true;
        return CAPTURE_UNSUPPORTED;
    }
    return SUCCESS;
}

CALL cuStreamSynchronize(void *handle) {
    ENTER();
    auto stream = stream_of(handle, entry.context);
    if (!stream) {
        return INVALID_HANDLE;
    }
    if (Code code = waitable(*stream)) {
        return code;
    }
    return finish(*stream, stream->asked);
}

// "In case the device is still doing work in the stream, the function will return immediately and the resources will be
// released once the device has completed all work."
CALL cuStreamDestroy_v2(void *handle) {
    ENTER();
    auto stream = stream_of(handle, entry.context);
    if (!stream) {
        return INVALID_HANDLE;
    }
    Code code = finish(*stream, stream->asked);
    driver().streams.remove(handle);
    return code;
}

CALL cuEventCreate(void **handle, unsigned flags) {
    ENTER();
    if (flags > EVENT_FLAGS_ALL) {
        return INVALID_VALUE;
    }
    auto event = std::make_shared<Event>();
    event->context = entry.context;
    *handle = driver().events.add(event);
    return SUCCESS;
}

CALL cuEventRecord(void *handle, void *on) {
    ENTER();
    auto event = driver().events.find(handle);
    auto stream = stream_of(on, entry.context);
    // "hEvent and hStream must be from the same context."
    if (!event || !stream || event->context != entry.context) {
        return INVALID_HANDLE;
    }
    event->captured = stream->capturing;
    event->stream = stream;
    event->position = stream->asked;
    return SUCCESS;
}

// "If cuEventRecord() has not been called on hEvent, this function returns immediately."
CALL cuEventSynchronize(void *handle) {
    ENTER();
    auto event = driver().events.find(handle);
    if (!event) {
        return INVALID_HANDLE;
    }
    if (event->captured) {
        return CAPTURED_EVENT;
    }
    return event->stream ? finish(*event->stream, event->position) : SUCCESS;
}

CALL cuEventDestroy_v2(void *handle) {
    ENTER();
    return driver().events.remove(handle) ? SUCCESS : INVALID_HANDLE;
}

// "It may only be initiated if the stream is not already in capture mode."
CALL cuStreamBeginCapture_v2(void *handle, int mode) {
    ENTER();
    auto stream = stream_of(handle, entry.context);
    if (!stream) {
        return INVALID_HANDLE;
    }
    if (mode < GLOBAL || mode > RELAXED) {
        return INVALID_VALUE;
    }
    if (stream->capturing) {
        return ILLEGAL_STATE;
    }
    stream->capturing = true;
    stream->mode = mode;
    stream->captured_by = std::this_thread::get_id();
    return SUCCESS;
}

// "If the capture was invalidated, due to a violation of the rules of stream capture, then a NULL graph will be
// returned." In other modes than the relaxed one it ends on the thread where it began.
CALL cuStreamEndCapture(void *handle, void **graph) {
    ENTER();
    auto stream = stream_of(handle, entry.context);
    *graph = nullptr;
    if (!stream) {
        return INVALID_HANDLE;
    }
    if (!stream->capturing) {
        return ILLEGAL_STATE;
    }
    if (stream->mode != RELAXED && stream->captured_by != std::this_thread::get_id()) {
        return CAPTURE_WRONG_THREAD;
    }
    auto made = std::make_shared<Graph>();
    made->context = entry.context;
    made->tasks.swap(stream->captured);
    bool invalidated = stream->invalidated;
    stream->capturing = stream->invalidated = false;
    if (invalidated) {
        return CAPTURE_INVALIDATED;
    }
    *graph = driver().graphs.add(made);
    return SUCCESS;
}

CALL cuGraphInstantiateWithFlags(void **ready, void *graph, unsigned long long flags) {
    ENTER();
    auto found = driver().graphs.find(graph);
    if (!found || flags > 15) {
        return INVALID_VALUE;
    }
    *ready = driver().ready.add(std::make_shared<Graph>(*found));
    return SUCCESS;
}

CALL cuGraphDestroy(void *graph) {
    ENTER();
    return driver().graphs.remove(graph) ? SUCCESS : INVALID_VALUE;
}

CALL cuGraphUpload(void *ready, void *handle) {
    ENTER();
    bool known = driver().ready.find(ready) && stream_of(handle, entry.context);
    return known ? SUCCESS : INVALID_VALUE;
}

// "Each launch is ordered behind both any previous work in hStream and any previous launches of hGraphExec."
CALL cuGraphLaunch(void *ready, void *handle) {
    ENTER();
    auto graph = driver().ready.find(ready);
    auto stream = stream_of(handle, entry.context);
    if (!graph || !stream || graph->context != entry.context) {
        return INVALID_VALUE;
    }
    if (stream->capturing) {
        stream->invalidated = true;
        return CAPTURE_UNSUPPORTED;
    }
    stream->tasks.insert(stream->tasks.end(), graph->tasks.begin(), graph->tasks.end());
    stream->asked += graph->tasks.size();
    return SUCCESS;
}

CALL cuGraphExecDestroy(void *ready) {
    ENTER();
    return driver().ready.remove(ready) ? SUCCESS : INVALID_VALUE;
}

// Work of the libraries above, as a function with data that is dropped with the last graph that holds it.
static std::function<Code()> wrapped(void (*work)(void *), void *data, void (*drop)(void *)) {
    std::shared_ptr<void> kept(data, drop);
    return [work, kept] { return work(kept.get()), SUCCESS; };
}

// For their stand-ins: puts work into a stream of the current context.
CALL standin_ask(void *handle, const char *name, void (*work)(void *), void *data, void (*drop)(void *)) {
    std::function<Code()> task = wrapped(work, data, drop);
    ENTER();
    auto stream = stream_of(handle, entry.context);
    return stream ? ask(*stream, {name, task}) : INVALID_HANDLE;
}

// The same for work that waits for all these streams, each of a device of its own.
CALL standin_meet(void **handles, const int *devices, int count, const char *name, void (*work)(void *), void *data,
                  void (*drop)(void *)) {
    std::function<Code()> task = wrapped(work, data, drop);
    ENTER_ANYWHERE();
    auto meeting = std::make_shared<Meeting>();
    meeting->work = task;
    for (int i = 0; i < count; i++) {
        auto stream = driver().streams.find(handles[i]);
        if (!stream || stream->context->device != devices[i]) {
            return INVALID_HANDLE;
        }
        meeting->members.push_back(stream.get());
    }
    for (Stream *member : meeting->members) {
        if (Code code = ask(*member, {name, nullptr, nullptr, 0, meeting})) {
            return code;
        }
    }
    return SUCCESS;
}
