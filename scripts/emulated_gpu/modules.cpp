// The driver's modules: files of kernels, and their launches. EMULATED_GPU_LOG names a file that each process adds the kernels to that it
// was asked to run, with their counts.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cuda.h>

#include "device.h"
#include "fail.h"
#include "launch.h"
#include "streams.h"

using emulated::Lock;

namespace {

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
    if (!entries) emulated::fail("there is no folder " + folder);
    while (const dirent *entry = readdir(entries)) {
        const std::string path = folder + entry->d_name;
        if (path.size() < 3 || path.substr(path.size() - 3) != ".so") continue;
        void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!library) emulated::fail(dlerror());
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

void count(const emulated::Kernel &kernel) {
    const Lock lock(emulated::everything);
    ++launches.counts[kernel.name];
}

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

} // namespace

extern "C" {

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    const Lock lock(emulated::everything);
    if (!emulated::has_context()) return CUDA_ERROR_INVALID_CONTEXT;
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
    if (!emulated::has_context()) return CUDA_ERROR_INVALID_CONTEXT;
    if (!fits || extra) return CUDA_ERROR_INVALID_VALUE;
    count(kernel);
    const auto arguments = std::make_shared<Arguments>(kernel, values);
    emulated::enqueue(stream, [=, &kernel] {
        std::vector<void *> pointers = arguments->pointers();
        emulated::run({kernel.name, kernel.call, pointers.data(), grid, block, shared, emulated::order() == emulated::Order::Late});
    });
    return CUDA_SUCCESS;
}

} // extern "C"
