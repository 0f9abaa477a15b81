// A stand-in for libnvrtc.so.13: a "cubin" is a shared library of the emulated machine, "PTX" is the source itself. What
// it answers and refuses is what the manual "NVRTC" says; whether the real compiler takes a source is no matter of this.

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "compile.hpp"
#include "fail.hpp"

enum Result {
    SUCCESS = 0,
    INVALID_INPUT = 3,
    INVALID_PROGRAM = 4,
    INVALID_OPTION = 5,
    COMPILATION = 6,
};

#define CALL extern "C" __attribute__((visibility("default"))) Result

// Those of 13.0 (release notes: 75 is the least).
static const int ARCHITECTURES[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

struct Program {
    std::string text, log, image, ptx;
};

static std::mutex one;
static std::map<uint64_t, std::shared_ptr<Program>> programs;

static std::shared_ptr<Program> find(void *handle) {
    std::unique_lock<std::mutex> lock(one);
    auto found = programs.find(reinterpret_cast<uint64_t>(handle));
    return found == programs.end() ? nullptr : found->second;
}

CALL nvrtcVersion(int *major, int *minor) {
    PLANTED(Result);
    *major = 13;
    *minor = 0;
    return SUCCESS;
}

CALL nvrtcGetNumSupportedArchs(int *count) {
    PLANTED(Result);
    *count = int(std::size(ARCHITECTURES));
    return SUCCESS;
}

CALL nvrtcGetSupportedArchs(int *all) {
    PLANTED(Result);
    std::copy(std::begin(ARCHITECTURES), std::end(ARCHITECTURES), all);
    return SUCCESS;
}

CALL nvrtcCreateProgram(void **handle, const char *text, const char *, int headers, const char *const *,
                        const char *const *) {
    PLANTED(Result);
    if (!handle || !text || headers < 0) {
        return INVALID_INPUT;
    }
    auto program = std::make_shared<Program>();
    program->text = text;
    std::unique_lock<std::mutex> lock(one);
    static uint64_t next = 0x5b0000000000;
    next += 16;
    programs[next] = program;
    *handle = reinterpret_cast<void *>(next);
    return SUCCESS;
}

CALL nvrtcDestroyProgram(void **handle) {
    PLANTED(Result);
    std::unique_lock<std::mutex> lock(one);
    if (!handle || programs.erase(reinterpret_cast<uint64_t>(*handle)) != 1) {
        return INVALID_PROGRAM;
    }
    *handle = nullptr;
    return SUCCESS;
}

static bool starts(const std::string &text, const std::string &with) { return text.compare(0, with.size(), with) == 0; }

struct Options {
    int architecture = 75;
    bool is_virtual = true;
    std::vector<std::string> defines;
};

// "Supported Compile Options"; only those that are of use here.
static bool read(const std::string &option, Options &options, std::string &log) {
    const std::string architecture = "--gpu-architecture=", standard = "--std=c++", define = "-D";
    if (starts(option, architecture)) {
        std::string name = option.substr(architecture.size());
        for (int known : ARCHITECTURES) {
            for (const char *kind : {"sm_", "compute_"}) {
                if (name == kind + std::to_string(known)) {
                    options.architecture = known;
                    options.is_virtual = kind[0] == 'c';
                    return true;
                }
            }
        }
        log += "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
        return false;
    }
    if (starts(option, standard) && (option.substr(standard.size()) == "17" || option.substr(standard.size()) == "20")) {
        return true;
    }
    if (starts(option, define) && option.size() > define.size()) {
        options.defines.push_back(option.substr(define.size()));
        return true;
    }
    log += "nvrtc: error: unrecognized option " + option + " found\n";
    return false;
}

// There are no headers of the host.
static bool includes(const std::string &text, std::string &log) {
    for (size_t at = text.find('#'); at != std::string::npos; at = text.find('#', at + 1)) {
        size_t word = text.find_first_not_of(" \t", at + 1);
        if (word != std::string::npos && starts(text.substr(word, 7), "include")) {
            log += "catastrophic error: cannot open source file\n";
            return true;
        }
    }
    return false;
}

CALL nvrtcCompileProgram(void *handle, int count, const char *const *words) {
    PLANTED(Result);
    auto program = find(handle);
    if (!program) {
        return INVALID_PROGRAM;
    }
    Options options;
    program->log.clear();
    program->image.clear();
    program->ptx.clear();
    for (int i = 0; i < count; i++) {
        if (!read(words[i], options, program->log)) {
            return INVALID_OPTION;
        }
    }
    if (includes(program->text, program->log)) {
        return COMPILATION;
    }
    std::string image;
    if (!compile(program->text, options.defines, options.architecture, image, program->log)) {
        return COMPILATION;
    }
    if (options.is_virtual) {
        program->ptx = "// stand-in PTX " + std::to_string(options.architecture) + "\n";
        for (const std::string &define : options.defines) {
            program->ptx += "// -D" + define + "\n";
        }
        program->ptx += program->text;
    } else {
        program->image = image;
    }
    return SUCCESS;
}

// "If log is empty the size is 1": the zero byte at the end counts.
CALL nvrtcGetProgramLogSize(void *handle, size_t *size) {
    PLANTED(Result);
    auto program = find(handle);
    if (!program) {
        return INVALID_PROGRAM;
    }
    *size = program->log.size() + 1;
    return SUCCESS;
}

CALL nvrtcGetProgramLog(void *handle, char *log) {
    PLANTED(Result);
    auto program = find(handle);
    if (!program) {
        return INVALID_PROGRAM;
    }
    memcpy(log, program->log.c_str(), program->log.size() + 1);
    return SUCCESS;
}

// Zero "if the value specified to -arch is a virtual architecture".
CALL nvrtcGetCUBINSize(void *handle, size_t *size) {
    PLANTED(Result);
    auto program = find(handle);
    if (!program) {
        return INVALID_PROGRAM;
    }
    *size = program->image.size();
    return SUCCESS;
}

CALL nvrtcGetCUBIN(void *handle, char *image) {
    PLANTED(Result);
    auto program = find(handle);
    if (!program) {
        return INVALID_PROGRAM;
    }
    memcpy(image, program->image.data(), program->image.size());
    return SUCCESS;
}

// With the zero byte at its end.
CALL nvrtcGetPTXSize(void *handle, size_t *size) {
    PLANTED(Result);
    auto program = find(handle);
    if (!program || program->ptx.empty()) {
        return INVALID_PROGRAM;
    }
    *size = program->ptx.size() + 1;
    return SUCCESS;
}

CALL nvrtcGetPTX(void *handle, char *ptx) {
    PLANTED(Result);
    auto program = find(handle);
    if (!program || program->ptx.empty()) {
        return INVALID_PROGRAM;
    }
    memcpy(ptx, program->ptx.c_str(), program->ptx.size() + 1);
    return SUCCESS;
}
