// A stand-in for libcuda.so.1: devices, primary contexts, memory and copies. See README.md for what it is and is not.

#include "state.hpp"

// "Initialization": CUDA_ERROR_NO_DEVICE where no device is there or seen.
CALL cuInit(unsigned flags) {
    std::unique_lock<std::recursive_mutex> lock(driver().one);
    if (flags != 0) {
        return INVALID_VALUE;
    }
    PLANTED(Code);
    Driver &all = driver();
    if (all.begun) {
        return SUCCESS;
    }
    all.devices = visible_devices();
    if (all.devices.empty()) {
        return NO_DEVICE;
    }
    for (size_t i = 0; i < all.devices.size(); i++) {
        all.contexts.emplace_back(new Context());
        all.contexts.back()->device = int(i);
    }
    all.begun = true;
    return SUCCESS;
}

static bool is_device(int device) { return device >= 0 && size_t(device) < driver().devices.size(); }

CALL cuDeviceGetCount(int *count) {
    ENTER_ANYWHERE();
    *count = int(driver().devices.size());
    return SUCCESS;
}

CALL cuDeviceGet(int *device, int ordinal) {
    ENTER_ANYWHERE();
    if (!is_device(ordinal)) {
        return INVALID_DEVICE;
    }
    *device = ordinal;
    return SUCCESS;
}

CALL cuDeviceGetName(char *name, int room, int device) {
    ENTER_ANYWHERE();
    if (!is_device(device)) {
        return INVALID_DEVICE;
    }
    snprintf(name, size_t(room), "%s", driver().devices[size_t(device)].name.c_str());
    return SUCCESS;
}

CALL cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    ENTER_ANYWHERE();
    if (!is_device(device)) {
        return INVALID_DEVICE;
    }
    memcpy(uuid, driver().devices[size_t(device)].uuid.data(), 16);
    return SUCCESS;
}

CALL cuDeviceGetAttribute(int *value, int attribute, int device) {
    ENTER_ANYWHERE();
    if (!is_device(device)) {
        return INVALID_DEVICE;
    }
    int capability = driver().devices[size_t(device)].capability;
    switch (attribute) {
    case COMPUTE_CAPABILITY_MAJOR:
        *value = capability / 10;
        return SUCCESS;
    case COMPUTE_CAPABILITY_MINOR:
        *value = capability % 10;
        return SUCCESS;
    default:
        fprintf(stderr, "stand-in: nobody was expected to ask for device attribute %d\n", attribute);
        return INVALID_VALUE;
    }
}

CALL cuDevicePrimaryCtxRetain(void **handle, int device) {
    ENTER_ANYWHERE();
    if (!is_device(device)) {
        return INVALID_DEVICE;
    }
    if (driver().devices[size_t(device)].broken) {
        return UNKNOWN;
    }
    Context &context = *driver().contexts[size_t(device)];
    if (context.users == 0 && driver().devices[size_t(device)].memory < CONTEXT_BYTES) {
        return OUT_OF_MEMORY;
    }
    if (context.users++ == 0) {
        context.handle = new_handle();
    }
    *handle = context.handle;
    return SUCCESS;
}

// The last release destroys the context with all that is in it. Whoever leaves something there is told so.
static void destroy(Context &context) {
    Driver &all = driver();
    size_t left = context.memory.count() + context.pinned.size();
    auto here = [&](auto &thing) { return thing.context == &context; };
    auto count = [&](auto &thing) { left += here(thing); };
    all.streams.each(count);
    all.events.each(count);
    all.graphs.each(count);
    all.ready.each(count);
    if (left > 0) {
        fprintf(stderr, "stand-in: %zu things are left in a context that is destroyed\n", left);
    }
    all.events.remove_if(here);
    all.graphs.remove_if(here);
    all.ready.remove_if(here);
    all.streams.remove_if(here);
    context.memory.take_all();
    for (auto [host, bytes] : context.pinned) {
        munmap(host, bytes);
    }
    context.pinned.clear();
    context.handle = nullptr;
}

CALL cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER_ANYWHERE();
    if (!is_device(device)) {
        return INVALID_DEVICE;
    }
    Context &context = *driver().contexts[size_t(device)];
    if (context.users == 0) {
        return INVALID_CONTEXT;
    }
    if (--context.users == 0) {
        destroy(context);
    }
    return SUCCESS;
}

CALL cuCtxSetCurrent(void *handle) {
    ENTER_ANYWHERE();
    if (handle && !context_of(handle)) {
        return INVALID_CONTEXT;
    }
    current_handle = handle;
    return SUCCESS;
}

static uint64_t free_bytes(const Context &context) {
    uint64_t taken = context.memory.given + CONTEXT_BYTES, all = driver().devices[size_t(context.device)].memory;
    return taken < all ? all - taken : 0;
}

CALL cuMemGetInfo_v2(size_t *free, size_t *total) {
    ENTER();
    *free = free_bytes(*entry.context);
    *total = driver().devices[size_t(entry.context->device)].memory;
    return SUCCESS;
}

// "If bytesize is 0, cuMemAlloc() returns CUDA_ERROR_INVALID_VALUE."
CALL cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    ENTER();
    if (Code code = unsafe_while_capturing()) {
        return code;
    }
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    if (bytes > free_bytes(*entry.context)) {
        return OUT_OF_MEMORY;
    }
    *address = entry.context->memory.give(bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

// All that was asked is done before memory goes away.
CALL cuMemFree_v2(uint64_t address) {
    ENTER();
    if (Code code = unsafe_while_capturing()) {
        return code;
    }
    if (Code code = finish_all(*entry.context)) {
        return code;
    }
    return entry.context->memory.take(address) ? SUCCESS : INVALID_VALUE;
}

CALL cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
    ENTER();
    if (Code code = unsafe_while_capturing()) {
        return code;
    }
    if (bytes == 0 || flags > 7) {
        return INVALID_VALUE;
    }
    void *pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        return OUT_OF_MEMORY;
    }
    memset(pages, 0xff, bytes);
    entry.context->pinned[static_cast<char *>(pages)] = bytes;
    *host = pages;
    return SUCCESS;
}

static bool is_in_use(const char *host, uint64_t bytes) {
    bool used = false;
    driver().streams.each([&](Stream &stream) {
        for (const TaskPointer &task : stream.tasks) {
            used |= task->host && task->host < host + bytes && host < task->host + task->host_bytes;
        }
    });
    return used;
}

// The manual does not say that it waits for copies, so it must not be needed.
CALL cuMemFreeHost(void *host) {
    ENTER();
    auto found = entry.context->pinned.find(static_cast<char *>(host));
    if (found == entry.context->pinned.end()) {
        return INVALID_VALUE;
    }
    if (is_in_use(found->first, found->second)) {
        fprintf(stderr, "stand-in: pinned memory is freed while a copy of it waits\n");
        return INVALID_VALUE;
    }
    munmap(host, found->second);
    entry.context->pinned.erase(found);
    return SUCCESS;
}

// What the bytes of a waiting copy were when it was asked for (FNV-1a).
static uint64_t digest(const char *bytes, uint64_t count) {
    uint64_t hash = 0xcbf29ce484222325;
    for (uint64_t i = 0; i < count; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3;
    }
    return hash;
}

static Code copy_in(Stream &stream, uint64_t to, const char *from, uint64_t bytes, bool pinned) {
    if (!pinned) {
        // "API synchronization behavior": from pageable memory it may return once the bytes are staged.
        std::string staged(from, bytes);
        return ask(stream, {"a copy to the GPU", [=] { return memcpy((void *)to, staged.data(), bytes), SUCCESS; }});
    }
    uint64_t before = digest(from, bytes);
    auto work = [=] {
        if (digest(from, bytes) != before) {
            fprintf(stderr, "stand-in: pinned bytes changed while a copy of them waited\n");
            return LAUNCH_FAILED;
        }
        memcpy((void *)to, from, bytes);
        return SUCCESS;
    };
    return ask(stream, {"a copy to the GPU", work, from, bytes, nullptr});
}

CALL cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *handle) {
    ENTER();
    auto stream = stream_of(handle, entry.context);
    if (!stream) {
        return INVALID_HANDLE;
    }
    if (stream->capturing) {
        // A graph would read host memory at every replay: nothing here may want that.
        stream->invalidated = true;
        return CAPTURE_UNSUPPORTED;
    }
    if (!entry.context->memory.holds(to, bytes)) {
        return INVALID_VALUE;
    }
    return copy_in(*stream, to, static_cast<const char *>(from), bytes, entry.context->is_pinned(from, bytes));
}

// "API synchronization behavior": to pageable memory it returns once the copy is done.
CALL cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *handle) {
    ENTER();
    auto stream = stream_of(handle, entry.context);
    if (!stream) {
        return INVALID_HANDLE;
    }
    if (stream->capturing) {
        stream->invalidated = true;
        return CAPTURE_UNSUPPORTED;
    }
    bool to_device = entry.context->memory.touches(uint64_t(to), bytes);
    if (!entry.context->memory.holds(from, bytes) || to_device) {
        return INVALID_VALUE;
    }
    bool pinned = entry.context->is_pinned(to, bytes);
    auto work = [=] { return memcpy(to, (const void *)from, bytes), SUCCESS; };
    Code code = ask(*stream, {"a copy from the GPU", work, pinned ? (const char *)to : nullptr, bytes, nullptr});
    return code || pinned ? code : finish(*stream, stream->asked);
}

// For the stand-ins of the libraries above: whether all of it lies in memory that the current context gave.
extern "C" __attribute__((visibility("default"))) int standin_holds(uint64_t address, uint64_t bytes) {
    std::unique_lock<std::recursive_mutex> lock(driver().one);
    Context *context = context_of(current_handle);
    return context && context->memory.holds(address, bytes);
}

// The number of the current context's device; -1 without one.
extern "C" __attribute__((visibility("default"))) int standin_device() {
    std::unique_lock<std::recursive_mutex> lock(driver().one);
    Context *context = context_of(current_handle);
    return context ? context->device : -1;
}
