// A stand-in for libcuda.so.1: machine code, kernels and their launch.

#include <dlfcn.h>
#include <elf.h>

#include "compile.hpp"
#include "state.hpp"

typedef int Launch(const char *, const unsigned *, const unsigned *, size_t, uint64_t, void **);
typedef int Parameters(const char *, unsigned *, int);

struct Module {
    Context *context = nullptr;
    void *library = nullptr;
    Launch *launch = nullptr;
    Parameters *parameters = nullptr;
    // Static shared memory by the function that holds it.
    std::map<std::string, uint64_t> shared;

    ~Module() {
        if (library) {
            dlclose(library);
        }
    }
};

// An image has no length but what its header says.
static uint64_t size_of(const char *image) {
    const auto *header = reinterpret_cast<const Elf64_Ehdr *>(image);
    return header->e_shoff + uint64_t(header->e_shnum) * header->e_shentsize;
}

// Kernels keep static shared memory in variables of the thread, which the symbols of the image name: `_ZZ4nameE4room`
// is `room` in the function `name`.
static std::map<std::string, uint64_t> static_shared(const char *image) {
    std::map<std::string, uint64_t> found;
    const auto *header = reinterpret_cast<const Elf64_Ehdr *>(image);
    const auto *sections = reinterpret_cast<const Elf64_Shdr *>(image + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB) {
            continue;
        }
        const auto *symbols = reinterpret_cast<const Elf64_Sym *>(image + sections[i].sh_offset);
        const char *names = image + sections[sections[i].sh_link].sh_offset;
        for (uint64_t s = 0; s < sections[i].sh_size / sizeof(Elf64_Sym); s++) {
            const char *name = names + symbols[s].st_name;
            if (ELF64_ST_TYPE(symbols[s].st_info) != STT_TLS || strncmp(name, "_ZZ", 3) != 0) {
                continue;
            }
            char *function = nullptr;
            uint64_t length = strtoul(name + 3, &function, 10);
            found[std::string(function, std::min(length, uint64_t(strlen(function))))] += symbols[s].st_size;
        }
    }
    return found;
}

// A file of a name of its own: the loader takes two of one name for the same library.
static void *open_library(const std::string &image) {
    char path[] = "/tmp/standin-XXXXXX";
    int file = mkstemp(path);
    bool whole = file >= 0 && write(file, image.data(), image.size()) == ssize_t(image.size());
    void *library = whole ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (file >= 0) {
        close(file);
        unlink(path);
    }
    return library;
}

static Code load(const std::string &image, int capability, Module &module) {
    module.library = open_library(image);
    if (!module.library) {
        const char *why = dlerror();
        fprintf(stderr, "stand-in: %s\n", why ? why : "no room for a module");
        return INVALID_IMAGE;
    }
    auto *architecture = static_cast<int *>(dlsym(module.library, "standin_architecture"));
    module.launch = reinterpret_cast<Launch *>(dlsym(module.library, "emulated_launch"));
    module.parameters = reinterpret_cast<Parameters *>(dlsym(module.library, "standin_parameters"));
    if (!architecture || !module.launch || !module.parameters) {
        return INVALID_IMAGE;
    }
    // Programming guide, "Binary Compatibility": the same major revision, and no lower minor one.
    bool runs = *architecture / 10 == capability / 10 && *architecture <= capability;
    return runs ? SUCCESS : NO_BINARY_FOR_GPU;
}

// "PTX Compatibility": it can be compiled for an equal or higher capability.
static Code finish_ptx(const char *ptx, int capability, std::string &image) {
    std::istringstream lines(ptx);
    std::string line, log;
    int architecture = 0;
    std::getline(lines, line);
    if (sscanf(line.c_str(), "// stand-in PTX %d", &architecture) != 1) {
        return INVALID_IMAGE;
    }
    if (architecture > capability) {
        return NO_BINARY_FOR_GPU;
    }
    std::vector<std::string> defines;
    std::string text;
    while (std::getline(lines, line)) {
        if (line.compare(0, 5, "// -D") == 0 && text.empty()) {
            defines.push_back(line.substr(5));
        } else {
            text += line + "\n";
        }
    }
    return compile(text, defines, capability, image, log) ? SUCCESS : INVALID_PTX;
}

CALL cuModuleLoadData(void **handle, const void *data) {
    ENTER();
    if (Code code = unsafe_while_capturing()) {
        return code;
    }
    const char *bytes = static_cast<const char *>(data);
    int capability = driver().devices[size_t(entry.context->device)].capability;
    std::string image;
    if (memcmp(bytes, ELFMAG, SELFMAG) == 0) {
        image.assign(bytes, size_of(bytes));
    } else if (Code code = finish_ptx(bytes, capability, image)) {
        return code;
    }
    auto module = std::make_shared<Module>();
    module->context = entry.context;
    if (Code code = load(image, capability, *module)) {
        return code;
    }
    module->shared = static_shared(image.data());
    *handle = driver().modules.add(module);
    return SUCCESS;
}

CALL cuModuleUnload(void *handle) {
    ENTER();
    auto module = driver().modules.find(handle);
    if (!module) {
        return INVALID_HANDLE;
    }
    if (Code code = finish_all(*entry.context)) {
        return code;
    }
    driver().functions.remove_if([&](Function &function) { return function.module == module; });
    driver().modules.remove(handle);
    return SUCCESS;
}

CALL cuModuleGetFunction(void **handle, void *of, const char *name) {
    ENTER();
    auto module = driver().modules.find(of);
    if (!module || module->context != entry.context) {
        return INVALID_HANDLE;
    }
    unsigned sizes[64];
    int count = module->parameters(name, sizes, 64);
    if (count < 0) {
        return NOT_FOUND;
    }
    auto function = std::make_shared<Function>();
    function->module = module;
    function->name = name;
    function->parameters.assign(sizes, sizes + count);
    for (auto [holder, bytes] : module->shared) {
        // What a device function holds counts for every kernel that may call it: for all, to be on the safe side.
        unsigned none[64];
        bool is_other_kernel = holder != name && module->parameters(holder.c_str(), none, 64) >= 0;
        function->static_shared += is_other_kernel ? 0 : bytes;
    }
    // "The default is CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK minus CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES."
    function->dynamic_most = (48 << 10) - std::min<uint64_t>(48 << 10, function->static_shared);
    *handle = driver().functions.add(function);
    return SUCCESS;
}

// "The sum of this value and the function attribute SHARED_SIZE_BYTES cannot exceed the device attribute
// MAX_SHARED_MEMORY_PER_BLOCK_OPTIN."
CALL cuFuncSetAttribute(void *handle, int attribute, int value) {
    ENTER();
    auto function = driver().functions.find(handle);
    if (!function) {
        return INVALID_HANDLE;
    }
    int capability = driver().devices[size_t(entry.context->device)].capability;
    bool fits = value >= 0 && uint64_t(value) + function->static_shared <= shared_most(capability);
    if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES || !fits) {
        return INVALID_VALUE;
    }
    function->dynamic_most = uint64_t(value);
    return SUCCESS;
}

// Programming guide, "Compute Capabilities": the largest grids and blocks.
static bool is_grid(unsigned x, unsigned y, unsigned z) {
    return x > 0 && y > 0 && z > 0 && x <= 0x7fffffff && y <= 0xffff && z <= 0xffff;
}

static bool is_block(unsigned x, unsigned y, unsigned z) {
    return x > 0 && y > 0 && z > 0 && z <= 64 && uint64_t(x) * y * z <= 1024;
}

CALL cuLaunchKernel(void *handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                    unsigned block_z, unsigned shared, void *on, void **arguments, void **extra) {
    ENTER();
    auto function = driver().functions.find(handle);
    auto stream = stream_of(on, entry.context);
    if (!function || !stream || function->module->context != entry.context) {
        return INVALID_HANDLE;
    }
    bool fits = is_grid(grid_x, grid_y, grid_z) && is_block(block_x, block_y, block_z);
    if (!fits || shared > function->dynamic_most || extra || (!arguments && !function->parameters.empty())) {
        return INVALID_VALUE;
    }
    // Parameters are copied now, as many and as large as the kernel has.
    std::vector<uint64_t> values;
    for (size_t i = 0; i < function->parameters.size(); i++) {
        uint64_t value = 0;
        memcpy(&value, arguments[i], function->parameters[i]);
        values.push_back(value);
    }
    Context *context = entry.context;
    auto work = [=]() mutable {
        std::vector<void *> pointers;
        for (uint64_t &value : values) {
            pointers.push_back(&value);
        }
        unsigned grid[] = {grid_x, grid_y, grid_z}, block[] = {block_x, block_y, block_z};
        int missing = function->module->launch(function->name.c_str(), grid, block, shared, ++context->seed, pointers.data());
        return missing ? LAUNCH_FAILED : SUCCESS;
    };
    return ask(*stream, {"kernel " + function->name, work});
}
