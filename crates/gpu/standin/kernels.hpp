// Behind the emulated machine and its builtins in every program that the compiler's stand-in makes: what the driver's
// stand-in must know of a kernel, as the driver reads it from machine code.

namespace standin {

inline std::map<std::string, std::vector<unsigned>> &parameters() {
    static std::map<std::string, std::vector<unsigned>> all;
    return all;
}

struct Described {
    template <class... A> Described(const char *name, void (*)(A...)) { parameters()[name] = {unsigned(sizeof(A))...}; }
};

} // namespace standin

extern "C" __attribute__((visibility("default"))) int standin_architecture = STANDIN_ARCHITECTURE;

// Sizes of the kernel's parameters; their number, or -1 where there is no such kernel.
extern "C" __attribute__((visibility("default"))) int standin_parameters(const char *name, unsigned *sizes, int room) {
    auto found = standin::parameters().find(name);
    if (found == standin::parameters().end() || int(found->second.size()) > room) {
        return -1;
    }
    memcpy(sizes, found->second.data(), found->second.size() * sizeof(unsigned));
    return int(found->second.size());
}

#undef EXPORT
#define EXPORT(name)                                                                                                   \
    static emulated::Registered registered_##name(#name, &emulated::Thunk<&name>::run);                                \
    static standin::Described described_##name(#name, &name);
