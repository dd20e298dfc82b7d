// The table of a file's kernels: included behind its text, with KERNELS a list of `KERNEL(name)`.
#pragma once

#include <utility>

#include "launch.h"

namespace { // kernels of two files may share a name

template <auto kernel> struct Caller;
template <typename... Argument, void (*kernel)(Argument...)> struct Caller<kernel> {
    static constexpr size_t sizes[] = {sizeof(Argument)..., 0};

    template <size_t... INDEX> static void call_with(void **arguments, std::index_sequence<INDEX...>) {
        kernel(*static_cast<Argument *>(arguments[INDEX])...);
    }
    static void call(void **arguments) { call_with(arguments, std::index_sequence_for<Argument...>()); }
};

} // namespace

#define KERNEL(name) {#name, Caller<name>::call, Caller<name>::sizes},
extern "C" const emulated::Kernel emulated_kernels[];
const emulated::Kernel emulated_kernels[] = {KERNELS{nullptr, nullptr, nullptr}};
