// Memory of a GPU: pages that the host can touch only while kernels run, full of set bits at first, with guards before
// and behind that nobody may touch.
#pragma once

#include <map>
#include <sys/mman.h>

#include "device.hpp"

// Allocations start on 256 bytes and on no more: no more is promised (cuMemAlloc: "suitably aligned for any kind of
// variable"; programming guide, "Device Memory Accesses": "at least 256 bytes").
const uint64_t ALIGNMENT = 256, PAGE = 4096, GUARD = PAGE + ALIGNMENT;

struct Block {
    char *pages;
    uint64_t room, bytes;
};

class Memory {
  public:
    // Zero where the system gives none.
    uint64_t give(uint64_t bytes) {
        uint64_t room = (bytes + 2 * GUARD + PAGE - 1) / PAGE * PAGE;
        void *pages = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (pages == MAP_FAILED) {
            return 0;
        }
        Block block = {static_cast<char *>(pages), room, bytes};
        memset(pages, 0xff, room);
        uint64_t address = uint64_t(pages) + GUARD;
        blocks[address] = block;
        given += bytes;
        if (!open) {
            mprotect(pages, room, PROT_NONE);
        }
        return address;
    }

    bool take(uint64_t address) {
        auto found = blocks.find(address);
        if (found == blocks.end()) {
            return false;
        }
        munmap(found->second.pages, found->second.room);
        given -= found->second.bytes;
        blocks.erase(found);
        return true;
    }

    void take_all() {
        while (!blocks.empty()) {
            take(blocks.begin()->first);
        }
    }

    // Whether all of it lies in one allocation.
    bool holds(uint64_t address, uint64_t bytes) const {
        auto after = blocks.upper_bound(address);
        if (after == blocks.begin()) {
            return false;
        }
        auto block = std::prev(after);
        uint64_t offset = address - block->first;
        return offset <= block->second.bytes && bytes <= block->second.bytes - offset;
    }

    // Whether any of it does.
    bool touches(uint64_t address, uint64_t bytes) const {
        for (const auto &[start, block] : blocks) {
            if (address < start + block.bytes && start < address + bytes) {
                return true;
            }
        }
        return false;
    }

    bool guards_are_whole() const {
        for (const auto &[start, block] : blocks) {
            const char *end = block.pages + block.room;
            if (!untouched(block.pages, block.pages + GUARD) || !untouched((char *)start + block.bytes, end)) {
                return false;
            }
        }
        return true;
    }

    void protect(bool shut) {
        open = !shut;
        for (const auto &[start, block] : blocks) {
            mprotect(block.pages, block.room, shut ? PROT_NONE : PROT_READ | PROT_WRITE);
        }
    }

    size_t count() const { return blocks.size(); }

    uint64_t given = 0;

  private:
    std::map<uint64_t, Block> blocks;
    bool open = false;

    static bool untouched(const char *from, const char *to) {
        for (; from < to; from++) {
            if (*from != char(0xff)) {
                return false;
            }
        }
        return true;
    }
};
