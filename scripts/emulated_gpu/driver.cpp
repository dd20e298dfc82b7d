// CUDA's driver, as far as this program calls it, on the machine's own processor and memory: libcuda.so.1.
//
// EMULATED_GPU_MEMORY is the device's memory in bytes, 8 GiB if left out. Memory that is new or freed is full of NaNs, and so is what
// lies around each allocation; who writes there is found when somebody waits for a stream, or later. EMULATED_GPU_LOG names a file that each process adds the kernels to
// that it ran, with their counts.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cuda.h>

#include "launch.h"
#include "queue.h"

namespace {

// One call at a time; calls of one thread may wait for streams that others filled.
std::recursive_mutex everything;
using Lock = std::lock_guard<std::recursive_mutex>;

[[noreturn]] void fail(const std::string &why) {
    std::fprintf(stderr, "emulated GPU: %s\n", why.c_str());
    std::abort();
}

// Memory

constexpr size_t ALIGNMENT = 256, BORDER = 256, MOST_KEPT = size_t(256) << 20;
constexpr unsigned char NOTHING = 0xff; // NaN in f64, f32, f16 and bf16

size_t of_environment(const char *name, size_t otherwise) {
    const char *said = std::getenv(name);
    return said ? std::strtoull(said, nullptr, 10) : otherwise;
}

struct Memory {
    const size_t total = of_environment("EMULATED_GPU_MEMORY", size_t(8) << 30);
    size_t used = 0, highest = 0;
    std::map<char *, size_t> allocated; // what lies between borders
    std::deque<std::pair<char *, size_t>> freed; // full of NaNs, and kept for a while: nobody may write there
    size_t kept = 0;                             // of those

    char *allocate(size_t bytes) {
        if (bytes > total - used) return nullptr;
        void *all = nullptr;
        if (posix_memalign(&all, ALIGNMENT, bytes + 2 * BORDER) != 0) return nullptr;
        std::memset(all, NOTHING, bytes + 2 * BORDER);
        char *start = static_cast<char *>(all) + BORDER;
        allocated[start] = bytes;
        used += bytes;
        highest = std::max(highest, used);
        return start;
    }

    void free(char *start) {
        const auto found = allocated.find(start);
        if (found == allocated.end()) fail("memory is freed that is not allocated");
        const size_t bytes = found->second;
        check_borders(start, bytes);
        std::memset(start, NOTHING, bytes);
        allocated.erase(found);
        used -= bytes;
        freed.emplace_back(start, bytes);
        for (kept += bytes; kept > MOST_KEPT; freed.pop_front()) {
            const auto [oldest, size] = freed.front();
            if (!is_nothing(oldest, size)) fail("something wrote to memory after it was freed");
            kept -= size;
            std::free(oldest - BORDER);
        }
    }

    // Finds who wrote where nothing is.
    void check() const {
        for (const auto &[start, bytes] : allocated) check_borders(start, bytes);
        for (const auto &[start, bytes] : freed) {
            if (!is_nothing(start, std::min(bytes, BORDER))) fail("something wrote to memory after it was freed");
        }
    }

    static void check_borders(const char *start, size_t bytes) {
        if (is_nothing(start - BORDER, BORDER) && is_nothing(start + bytes, BORDER)) return;
        fail("something wrote past " + std::to_string(bytes) + " bytes of memory");
    }

    static bool is_nothing(const char *start, size_t bytes) {
        return std::all_of(start, start + bytes, [](char byte) { return static_cast<unsigned char>(byte) == NOTHING; });
    }
};

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

Memory &memory() {
    static Memory memory;
    return memory;
}

// Streams

// A place in a stream, and whether all before it is done.
struct Mark {
    CUstream stream;
    bool done = false;
};
using MarkHandle = std::shared_ptr<Mark>;

} // namespace

struct CUstream_st {
    std::deque<std::function<void()>> work;
};

struct CUevent_st {
    MarkHandle mark;
};

namespace {

std::set<CUstream> streams;

CUstream add_stream() {
    const Lock lock(everything);
    return *streams.insert(new CUstream_st).first;
}

// The default streams of a thread and, for all that name none, of the process.
CUstream resolved(CUstream stream) {
    static const CUstream of_process = add_stream();
    if (stream == CU_STREAM_PER_THREAD) {
        thread_local const CUstream of_thread = add_stream();
        return of_thread;
    }
    return stream == nullptr || stream == CU_STREAM_LEGACY ? of_process : stream;
}

void run_first(CUstream stream) {
    const std::function<void()> work = std::move(stream->work.front());
    stream->work.pop_front();
    work();
}

void finish(CUstream stream) {
    while (!stream->work.empty()) run_first(stream);
}

void finish(const Mark &mark) {
    while (!mark.done) run_first(mark.stream);
}

void finish_all() {
    for (CUstream stream : streams) finish(stream);
}

// Kernels

struct Library {
    std::string path;
    const emulated::Kernel *kernels;

    const emulated::Kernel *find(const std::string &name) const {
        const emulated::Kernel *kernel = kernels;
        while (kernel->name && name != kernel->name) ++kernel;
        return kernel->name ? kernel : nullptr;
    }
};

// All in the folder `kernels` beside this library.
std::vector<Library> load_libraries() {
    Dl_info own;
    dladdr(reinterpret_cast<void *>(&load_libraries), &own);
    const std::string file = own.dli_fname, folder = file.substr(0, file.rfind('/')) + "/kernels/";
    std::vector<Library> libraries;
    DIR *entries = opendir(folder.c_str());
    if (!entries) fail("there is no folder " + folder);
    while (const dirent *entry = readdir(entries)) {
        const std::string path = folder + entry->d_name;
        if (path.size() < 3 || path.substr(path.size() - 3) != ".so") continue;
        void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!library) fail(dlerror());
        libraries.push_back({path, static_cast<const emulated::Kernel *>(dlsym(library, "emulated_kernels"))});
    }
    closedir(entries);
    return libraries;
}

// The names of the kernels in PTX.
std::vector<std::string> entries_of(const std::string &ptx) {
    static const std::string before = ".entry ";
    std::vector<std::string> names;
    for (size_t at = ptx.find(before); at != std::string::npos; at = ptx.find(before, at)) {
        at += before.size();
        names.push_back(ptx.substr(at, ptx.find_first_of("( \n", at) - at));
    }
    return names;
}

// The library that was made of the same file: one that has all of PTX's kernels.
const Library *library_of(const std::string &ptx) {
    static const std::vector<Library> libraries = load_libraries();
    const std::vector<std::string> names = entries_of(ptx);
    for (const Library &library : libraries) {
        const auto has = [&](const std::string &name) { return library.find(name) != nullptr; };
        if (!names.empty() && std::all_of(names.begin(), names.end(), has)) return &library;
    }
    return nullptr;
}

// How often each kernel ran, for EMULATED_GPU_LOG.
struct Launches {
    std::map<std::string, size_t> counts;

    ~Launches() {
        const char *path = std::getenv("EMULATED_GPU_LOG");
        if (!path || counts.empty()) return;
        std::string lines;
        for (const auto &[name, count] : counts) lines += name + " " + std::to_string(count) + "\n";
        const int file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
        if (file < 0 || write(file, lines.data(), lines.size()) < 0) std::perror(path);
        close(file);
    }
};
Launches launches;

// Arguments of a launch, copied.
struct Arguments {
    std::vector<std::vector<char>> bytes;

    Arguments(const emulated::Kernel &kernel, void **values) {
        for (const size_t *size = kernel.sizes; *size; ++size) {
            const char *value = static_cast<const char *>(values[size - kernel.sizes]);
            bytes.emplace_back(value, value + *size);
        }
    }

    std::vector<void *> pointers() {
        std::vector<void *> pointers;
        for (std::vector<char> &value : bytes) pointers.push_back(value.data());
        return pointers;
    }
};

// Copies between device and host

// Memory that the host may change as soon as the call returns is read before that.
std::shared_ptr<std::vector<char>> now(const void *from, size_t bytes) {
    const char *start = static_cast<const char *>(from);
    return std::make_shared<std::vector<char>>(start, start + bytes);
}

bool is_pinned(const void *at) { return left(pinned, at) > 0; }

char *on_device(CUdeviceptr at, size_t bytes) {
    char *start = reinterpret_cast<char *>(at);
    if (left(memory().allocated, start) < bytes) fail("a copy goes past the end of memory");
    return start;
}

} // namespace

namespace emulated {

bool is_late() {
    static const bool late = [] {
        const char *said = std::getenv("EMULATED_GPU_ORDER");
        if (said && std::strcmp(said, "late") && std::strcmp(said, "early")) fail("EMULATED_GPU_ORDER is early or late");
        return said && !std::strcmp(said, "late");
    }();
    return late;
}

void enqueue(CUstream stream, std::function<void()> work) {
    const Lock lock(everything);
    stream = resolved(stream);
    stream->work.push_back(std::move(work));
    if (!is_late()) finish(stream);
}

} // namespace emulated

// The driver's functions

extern "C" {

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }

CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : "an error of the emulated GPU";
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = 0;
    return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 8; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = 1; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

static CUcontext const context = reinterpret_cast<CUcontext>(0x1);
static CUmemoryPool const pool = reinterpret_cast<CUmemoryPool>(0x1);
static thread_local CUcontext current = nullptr;

CUresult cuDevicePrimaryCtxRetain(CUcontext *found, CUdevice) {
    *found = context;
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxDestroy_v2(CUcontext) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext wanted) {
    current = wanted;
    return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *found) {
    *found = current;
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    const Lock lock(everything);
    finish_all();
    *free = memory().total - memory().used;
    *total = memory().total;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *found, CUdevice) {
    *found = pool;
    return CUDA_SUCCESS;
}
CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void *value) {
    const Lock lock(everything);
    switch (attribute) {
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: *static_cast<cuuint64_t *>(value) = memory().used; break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: *static_cast<cuuint64_t *>(value) = memory().highest; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}
CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void *) {
    const Lock lock(everything);
    if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH) memory().highest = memory().used;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *found, size_t bytes) {
    const Lock lock(everything);
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    char *start = memory().allocate(bytes);
    if (!start) {
        finish_all(); // what is freed is there again
        start = memory().allocate(bytes);
    }
    *found = reinterpret_cast<CUdeviceptr>(start);
    return start ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult cuMemAllocAsync(CUdeviceptr *found, size_t bytes, CUstream) { return cuMemAlloc_v2(found, bytes); }

CUresult cuMemFreeAsync(CUdeviceptr at, CUstream stream) {
    emulated::enqueue(stream, [=] { memory().free(reinterpret_cast<char *>(at)); });
    return CUDA_SUCCESS;
}
CUresult cuMemFree_v2(CUdeviceptr at) {
    const Lock lock(everything);
    finish_all();
    memory().free(reinterpret_cast<char *>(at));
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **found, size_t bytes, unsigned) {
    const Lock lock(everything);
    *found = std::malloc(bytes);
    std::memset(*found, NOTHING, bytes);
    pinned[static_cast<char *>(*found)] = bytes;
    return CUDA_SUCCESS;
}
// Its memory stays, full of NaNs: whoever frees it before a copy has read it gets those.
CUresult cuMemFreeHost(void *at) {
    const Lock lock(everything);
    const auto block = pinned.find(static_cast<char *>(at));
    if (block == pinned.end()) return CUDA_ERROR_INVALID_VALUE;
    std::memset(at, NOTHING, block->second);
    pinned.erase(block);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    const Lock lock(everything);
    const std::shared_ptr<std::vector<char>> kept = is_pinned(from) ? nullptr : now(from, bytes);
    emulated::enqueue(stream, [=] { std::memcpy(on_device(to, bytes), kept ? kept->data() : from, bytes); });
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    const Lock lock(everything);
    emulated::enqueue(stream, [=] { std::memcpy(to, on_device(from, bytes), bytes); });
    if (!is_pinned(to)) finish(resolved(stream)); // as CUDA does
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    emulated::enqueue(stream, [=] { std::memmove(on_device(to, bytes), on_device(from, bytes), bytes); });
    return CUDA_SUCCESS;
}
CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes, CUstream stream) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    emulated::enqueue(stream, [=] { std::memset(on_device(to, bytes), value, bytes); });
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *found, unsigned) {
    *found = add_stream();
    return CUDA_SUCCESS;
}
CUresult cuStreamDestroy_v2(CUstream stream) {
    const Lock lock(everything);
    finish(stream);
    streams.erase(stream); // its memory stays: events may know it
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
    const Lock lock(everything);
    finish(resolved(stream));
    memory().check();
    return CUDA_SUCCESS;
}
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus *status) {
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    const Lock lock(everything);
    if (const MarkHandle mark = event->mark) emulated::enqueue(stream, [=] { finish(*mark); });
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *event, unsigned) {
    *event = new CUevent_st;
    return CUDA_SUCCESS;
}
CUresult cuEventDestroy_v2(CUevent event) {
    const Lock lock(everything);
    delete event;
    return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
    const Lock lock(everything);
    const MarkHandle mark = std::make_shared<Mark>(Mark{resolved(stream)});
    event->mark = mark;
    emulated::enqueue(stream, [=] { mark->done = true; });
    return CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent event) {
    const Lock lock(everything);
    if (const MarkHandle mark = event->mark) finish(*mark);
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    const Lock lock(everything);
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    const Library *library = library_of(static_cast<const char *>(image));
    *module = reinterpret_cast<CUmodule>(const_cast<Library *>(library));
    return library ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}
CUresult cuModuleLoad(CUmodule *, const char *) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    const emulated::Kernel *kernel = reinterpret_cast<const Library *>(module)->find(name);
    *function = reinterpret_cast<CUfunction>(const_cast<emulated::Kernel *>(kernel));
    return kernel ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuLaunchKernel(
    CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
    unsigned shared, CUstream stream, void **values, void **extra) {
    const emulated::Kernel &kernel = *reinterpret_cast<const emulated::Kernel *>(function);
    const dim3 grid(grid_x, grid_y, grid_z), block(block_x, block_y, block_z);
    const size_t threads = size_t(block_x) * block_y * block_z;
    const bool fits = grid_x > 0 && grid_x <= INT32_MAX && grid_y > 0 && grid_y <= 65535 && grid_z > 0 && grid_z <= 65535 && threads > 0 &&
                      threads <= 1024 && block_z <= 64 && shared <= 48 << 10;
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    if (!fits || extra) return CUDA_ERROR_INVALID_VALUE;
    const auto arguments = std::make_shared<Arguments>(kernel, values);
    emulated::enqueue(stream, [=, &kernel] {
        std::vector<void *> pointers = arguments->pointers();
        ++launches.counts[kernel.name];
        emulated::run({kernel.name, kernel.call, pointers.data(), grid, block, shared, emulated::is_late()});
    });
    return CUDA_SUCCESS;
}

} // extern "C"
