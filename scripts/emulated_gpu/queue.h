// Streams: what is to be done on the device, in order, and when that is done.
//
// EMULATED_GPU_ORDER says when. `early`: at once, before the call returns. `late`: as late as CUDA allows, when somebody waits for it;
// then nothing has happened yet that the program did not wait for, and memory that is not written yet is full of NaNs.
#pragma once

#include <functional>

#include <cuda.h>

namespace emulated {

// Puts work at the end of a stream.
void enqueue(CUstream stream, std::function<void()> work);

// Whether EMULATED_GPU_ORDER is `late`.
bool is_late();

} // namespace emulated
