// The threads of a block, as kernels see them.
#pragma once

#include <cstdint>

#include <vector_types.h>

// Of the thread that runs; where a fibre goes on, they are its own again. The library that has them is there from the start.
#define FROM_THE_START __attribute__((tls_model("initial-exec")))
extern thread_local uint3 threadIdx FROM_THE_START, blockIdx FROM_THE_START;
extern thread_local dim3 blockDim FROM_THE_START, gridDim FROM_THE_START;

namespace emulated {

constexpr int WARP = 32;

// Waits for all threads of the block that have not ended.
void meet_block();

// Gives the value that the thread `lane ^ lanes` of the warp brings at the same point.
uint64_t swap_lanes(uint64_t value, int lanes);

// Memory of the block, of the size that the launch named.
void *dynamic_shared();

// One kernel with a pointer to each of its arguments.
using Call = void (*)(void **arguments);

} // namespace emulated
