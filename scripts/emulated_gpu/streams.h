// Streams: what is to be done on the device, in order, and when that is done.
//
// EMULATED_GPU_ORDER says when. `early`, if left out: at once, before the call returns. `late`: as late as CUDA allows, when somebody waits
// for it; then nothing has happened yet that the program did not wait for, and memory that is not written yet is full of NaNs. `never`: nothing
// is computed, and what comes back is zeros. The device is then as good as busy for EMULATED_GPU_MICROSECONDS (none, if left out) with each
// thing that it is asked for, without the processor, so that what the program itself takes can be seen.
#pragma once

#include <functional>
#include <mutex>

#include <cuda.h>

namespace emulated {

enum class Order { Early, Late, Never };
Order order();

// One call at a time; calls of one thread may wait for streams that others filled.
extern std::recursive_mutex everything;
using Lock = std::lock_guard<std::recursive_mutex>;

// Puts work of the device at the end of a stream.
void enqueue(CUstream stream, std::function<void()> work);

// Puts at the end of a stream what has to happen in every order, and takes the device no time.
void enqueue_always(CUstream stream, std::function<void()> work);

// Waits for all that a stream, or the device, was asked for. Whoever waits for a stream holds no lock.
void finish(CUstream stream);
void finish_all();

} // namespace emulated
