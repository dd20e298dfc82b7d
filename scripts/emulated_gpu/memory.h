// The device's memory.
//
// EMULATED_GPU_MEMORY says how much there is in bytes, 8 GiB if left out. Memory that is new or freed is full of NaNs, and so is what
// lies around each allocation; who writes there is found when somebody waits for a stream, or later. Where nothing is computed (streams.h), none
// of that is done.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <utility>
#include <vector>

namespace emulated {

size_t of_environment(const char *name, size_t otherwise);

class Memory {
public:
    const size_t total = of_environment("EMULATED_GPU_MEMORY", size_t(8) << 30);
    size_t used = 0, highest = 0;

    // Nothing, if there is too little.
    char *allocate(size_t bytes);
    void free(char *start);

    // Ends the process if `bytes` from there on are not allocated.
    char *place(unsigned long long at, size_t bytes) const;

    // Finds who wrote where nothing is.
    void check() const;

private:
    std::map<char *, size_t> allocated; // what lies between borders
    std::deque<std::pair<char *, size_t>> freed; // full of NaNs, and kept for a while: nobody may write there
    size_t kept = 0;                             // of those
    std::map<size_t, std::vector<char *>> to_be_used_again; // where nothing is computed

    char *find(size_t bytes);
    void keep(char *start, size_t bytes);
};

Memory &memory();

} // namespace emulated
