// Numbers of the driver's interface as its manual gives them ("CUDA Driver API", section "Data types used by CUDA
// driver"), only those that are used here.
#pragma once

enum Code {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_PTX = 218,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
    UNKNOWN = 999,
};

// CUstreamCaptureMode.
enum Mode { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };

// CUdevice_attribute.
const int COMPUTE_CAPABILITY_MAJOR = 75, COMPUTE_CAPABILITY_MINOR = 76;
// CUfunction_attribute.
const int MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
// CUstream_flags and CUevent_flags.
const unsigned STREAM_NON_BLOCKING = 1, EVENT_FLAGS_ALL = 7;
