// The GPUs that the environment describes, and which of them a process sees.
//
//   ISOLOSS_STANDIN_GPUS        how many the machine has                            [1]
//   ISOLOSS_STANDIN_MEMORY      bytes of each                                       [8 GiB]
//   ISOLOSS_STANDIN_CAPABILITY  as in 90 for 9.0                                    [90]
//   ISOLOSS_STANDIN_BROKEN      number of one that gives nobody a context           [none]
//   CUDA_VISIBLE_DEVICES        as on a real machine
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

// What a context takes of a GPU's memory; real ones take a few hundred MiB.
const uint64_t CONTEXT_BYTES = 300ull << 20;

struct Device {
    std::array<unsigned char, 16> uuid;
    std::string name;
    int capability;
    uint64_t memory;
    bool broken;
};

inline uint64_t number(const char *variable, uint64_t otherwise) {
    const char *text = getenv(variable);
    if (!text || !*text) {
        return otherwise;
    }
    char *end = nullptr;
    uint64_t value = strtoull(text, &end, 10);
    if (*end) {
        fprintf(stderr, "stand-in: %s is no number: %s\n", variable, text);
        exit(1);
    }
    return value;
}

inline std::string written(const std::array<unsigned char, 16> &uuid) {
    std::string text = "GPU-";
    for (size_t i = 0; i < uuid.size(); i++) {
        char two[3];
        snprintf(two, sizeof two, "%02x", uuid[i]);
        text += (i == 4 || i == 6 || i == 8 || i == 10) ? std::string("-") + two : std::string(two);
    }
    return text;
}

inline std::vector<Device> all_devices() {
    std::vector<Device> all;
    for (uint64_t i = 0; i < number("ISOLOSS_STANDIN_GPUS", 1); i++) {
        Device device = {{0x5a, 0x5a, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, (unsigned char)(i + 1)},
                         "stand-in GPU",
                         int(number("ISOLOSS_STANDIN_CAPABILITY", 90)),
                         number("ISOLOSS_STANDIN_MEMORY", 8ull << 30),
                         number("ISOLOSS_STANDIN_BROKEN", UINT64_MAX) == i};
        all.push_back(device);
    }
    return all;
}

// Programming guide, "CUDA Environment Variables": a list of numbers and of UUIDs, which may be cut short where they
// stay unique; what stands behind the first that names no GPU is not seen.
inline std::vector<Device> visible_devices() {
    std::vector<Device> all = all_devices(), seen;
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (!list) {
        return all;
    }
    std::string rest = list;
    while (!rest.empty()) {
        size_t comma = rest.find(',');
        std::string word = rest.substr(0, comma);
        rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
        std::vector<Device> named;
        for (size_t i = 0; i < all.size(); i++) {
            bool by_uuid = word.size() > 4 && written(all[i].uuid).compare(0, word.size(), word) == 0;
            if (by_uuid || word == std::to_string(i)) {
                named.push_back(all[i]);
            }
        }
        if (named.size() != 1) {
            break;
        }
        seen.push_back(named[0]);
    }
    return seen;
}

// Programming guide, "Compute Capabilities", table of technical specifications: the most shared memory of a block.
inline uint64_t shared_most(int capability) {
    switch (capability) {
    case 75:
        return 64 << 10;
    case 80:
    case 87:
        return 163 << 10;
    case 86:
    case 89:
    case 120:
        return 99 << 10;
    default:
        return 227 << 10;
    }
}
