// The driver's memory, and copies between it and the host's.

#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include <cuda.h>

#include "device.h"
#include "fail.h"
#include "streams.h"

using emulated::Lock, emulated::Order;

namespace {

constexpr size_t ALIGNMENT = 256, BORDER = 256, MOST_KEPT = size_t(256) << 20;
constexpr unsigned char NOTHING = 0xff; // NaN in f64, f32, f16 and bf16

bool is_nothing(const char *start, size_t bytes) {
    return std::all_of(start, start + bytes, [](char byte) { return static_cast<unsigned char>(byte) == NOTHING; });
}

void check_borders(const char *start, size_t bytes) {
    if (is_nothing(start - BORDER, BORDER) && is_nothing(start + bytes, BORDER)) return;
    emulated::fail("something wrote past " + std::to_string(bytes) + " bytes of memory");
}

// Of the block that an address lies in, the bytes from there on; 0 if it lies in none.
size_t left(const std::map<char *, size_t> &blocks, const void *from) {
    char *at = static_cast<char *>(const_cast<void *>(from));
    auto found = blocks.upper_bound(at);
    if (found == blocks.begin()) return 0;
    --found;
    const size_t before = at - found->first;
    return before < found->second ? found->second - before : 0;
}

// Of the host, which copies read and write when their turn comes.
std::map<char *, size_t> pinned;

bool is_pinned(const void *at) { return left(pinned, at) > 0; }

// Memory that the host may change as soon as the call returns is read before that.
std::shared_ptr<std::vector<char>> now(const void *from, size_t bytes) {
    const char *start = static_cast<const char *>(from);
    return std::make_shared<std::vector<char>>(start, start + bytes);
}

} // namespace

namespace emulated {

size_t of_environment(const char *name, size_t otherwise) {
    const char *said = std::getenv(name);
    return said ? std::strtoull(said, nullptr, 10) : otherwise;
}

Memory &memory() {
    static Memory memory;
    return memory;
}

char *Memory::allocate(size_t bytes) {
    if (bytes > total - used) return nullptr;
    char *start = find(bytes);
    if (!start) return nullptr;
    allocated[start] = bytes;
    used += bytes;
    highest = std::max(highest, used);
    return start;
}

char *Memory::find(size_t bytes) {
    if (order() == Order::Never) {
        std::vector<char *> &blocks = to_be_used_again[bytes];
        if (blocks.empty()) return static_cast<char *>(std::calloc(bytes, 1));
        char *start = blocks.back();
        blocks.pop_back();
        return start;
    }
    void *all = nullptr;
    if (posix_memalign(&all, ALIGNMENT, bytes + 2 * BORDER) != 0) return nullptr;
    std::memset(all, NOTHING, bytes + 2 * BORDER);
    return static_cast<char *>(all) + BORDER;
}

void Memory::free(char *start) {
    const auto found = allocated.find(start);
    if (found == allocated.end()) fail("memory is freed that is not allocated");
    const size_t bytes = found->second;
    allocated.erase(found);
    used -= bytes;
    keep(start, bytes);
}

void Memory::keep(char *start, size_t bytes) {
    if (order() == Order::Never) return to_be_used_again[bytes].push_back(start);
    check_borders(start, bytes);
    std::memset(start, NOTHING, bytes);
    freed.emplace_back(start, bytes);
    for (kept += bytes; kept > MOST_KEPT; freed.pop_front()) {
        const auto [oldest, size] = freed.front();
        if (!is_nothing(oldest, size)) fail("something wrote to memory after it was freed");
        kept -= size;
        std::free(oldest - BORDER);
    }
}

char *Memory::place(unsigned long long at, size_t bytes) const {
    char *start = reinterpret_cast<char *>(at);
    if (left(allocated, start) < bytes) fail("a copy goes past the end of memory");
    return start;
}

void Memory::check() const {
    if (order() == Order::Never) return;
    for (const auto &[start, bytes] : allocated) check_borders(start, bytes);
    for (const auto &[start, bytes] : freed) {
        if (!is_nothing(start, std::min(bytes, BORDER))) fail("something wrote to memory after it was freed");
    }
}

} // namespace emulated

using emulated::memory;

extern "C" {

CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    const Lock lock(emulated::everything);
    emulated::finish_all();
    *free = memory().total - memory().used;
    *total = memory().total;
    return CUDA_SUCCESS;
}

static CUmemoryPool const pool = reinterpret_cast<CUmemoryPool>(0x1);

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *found, CUdevice) {
    *found = pool;
    return CUDA_SUCCESS;
}
CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void *value) {
    const Lock lock(emulated::everything);
    switch (attribute) {
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: *static_cast<cuuint64_t *>(value) = memory().used; break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: *static_cast<cuuint64_t *>(value) = memory().highest; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}
CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void *) {
    const Lock lock(emulated::everything);
    if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH) memory().highest = memory().used;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *found, size_t bytes) {
    const Lock lock(emulated::everything);
    if (!emulated::has_context()) return CUDA_ERROR_INVALID_CONTEXT;
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    char *start = memory().allocate(bytes);
    if (!start) {
        emulated::finish_all(); // what is freed is there again
        start = memory().allocate(bytes);
    }
    *found = reinterpret_cast<CUdeviceptr>(start);
    return start ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult cuMemAllocAsync(CUdeviceptr *found, size_t bytes, CUstream) { return cuMemAlloc_v2(found, bytes); }

CUresult cuMemFreeAsync(CUdeviceptr at, CUstream stream) {
    emulated::enqueue_always(stream, [=] { memory().free(reinterpret_cast<char *>(at)); });
    return CUDA_SUCCESS;
}
CUresult cuMemFree_v2(CUdeviceptr at) {
    const Lock lock(emulated::everything);
    emulated::finish_all();
    memory().free(reinterpret_cast<char *>(at));
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **found, size_t bytes, unsigned) {
    const Lock lock(emulated::everything);
    *found = std::malloc(bytes);
    std::memset(*found, NOTHING, bytes);
    pinned[static_cast<char *>(*found)] = bytes;
    return CUDA_SUCCESS;
}
// Its memory stays, full of NaNs: whoever frees it before a copy has read it gets those.
CUresult cuMemFreeHost(void *at) {
    const Lock lock(emulated::everything);
    const auto block = pinned.find(static_cast<char *>(at));
    if (block == pinned.end()) return CUDA_ERROR_INVALID_VALUE;
    std::memset(at, NOTHING, block->second);
    pinned.erase(block);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    const Lock lock(emulated::everything);
    const bool later = is_pinned(from) || emulated::order() == Order::Never;
    const std::shared_ptr<std::vector<char>> kept = later ? nullptr : now(from, bytes);
    emulated::enqueue(stream, [=] { std::memcpy(memory().place(to, bytes), kept ? kept->data() : from, bytes); });
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    if (emulated::order() == Order::Never) std::memset(to, 0, bytes);
    emulated::enqueue(stream, [=] { std::memcpy(to, memory().place(from, bytes), bytes); });
    bool waits;
    {
        const Lock lock(emulated::everything);
        waits = !is_pinned(to); // as CUDA does
    }
    if (waits) emulated::finish(stream);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    emulated::enqueue(stream, [=] { std::memmove(memory().place(to, bytes), memory().place(from, bytes), bytes); });
    return CUDA_SUCCESS;
}
CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes, CUstream stream) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    emulated::enqueue(stream, [=] { std::memset(memory().place(to, bytes), value, bytes); });
    return CUDA_SUCCESS;
}

} // extern "C"
