// A kernel and what it is started with.
#pragma once

#include "threads.h"

namespace emulated {

// Of a library of kernels, in its `emulated_kernels`; the last has no name.
struct Kernel {
    const char *name;
    Call call;
    // Bytes of each argument; 0 behind the last.
    const size_t *sizes;
};

struct Launch {
    const char *name;
    Call call;
    void **arguments;
    dim3 grid, block;
    // Bytes of dynamic shared memory.
    size_t shared;
    bool from_last;
};

// Runs it to its end.
void run(const Launch &launch);

} // namespace emulated
