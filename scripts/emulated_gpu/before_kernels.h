// What CUDA C++ has and C++ has not, for kernels that g++ compiles: included before a kernel file's own text.
//
// A thread of a block is a fibre (threads.h); `__shared__` memory is that of the thread of the system that runs the block, which runs
// one at a time.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <vector_types.h>

#include "threads.h"

// Host compilers get the types above in their portable form; from here on the text is compiled as for Ampere.
#define __CUDA_ARCH__ 800
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __forceinline__
#undef __launch_bounds__
#define __global__ __attribute__((used, noinline)) // build.sh knows kernels by this
#define __device__
#define __host__
#define __shared__ static thread_local
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

constexpr int warpSize = emulated::WARP;

inline void __syncthreads() { emulated::meet_block(); }

template <typename T> T __shfl_xor_sync(unsigned, T value, int lanes, int = warpSize) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    T other;
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = emulated::swap_lanes(bits, lanes);
    std::memcpy(&other, &bits, sizeof(T));
    return other;
}

// Blocks run at the same time, so atomics are.
template <typename T, typename Update> T atomically(T *address, Update update) {
    using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
    static_assert(sizeof(T) == sizeof(Bits));
    Bits *at = reinterpret_cast<Bits *>(address), expected = __atomic_load_n(at, __ATOMIC_SEQ_CST), wanted;
    T old;
    do {
        std::memcpy(&old, &expected, sizeof(T));
        const T updated = update(old);
        std::memcpy(&wanted, &updated, sizeof(T));
    } while (!__atomic_compare_exchange_n(at, &expected, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return old;
}

template <typename T> struct Same { using Type = T; }; // what is not deduced is converted
template <typename T> T atomicAdd(T *address, typename Same<T>::Type value) {
    return atomically(address, [=](T old) { return T(old + value); });
}
template <typename T> T atomicMax(T *address, typename Same<T>::Type value) {
    return atomically(address, [=](T old) { return old < value ? value : old; });
}
template <typename T> T atomicMin(T *address, typename Same<T>::Type value) {
    return atomically(address, [=](T old) { return value < old ? value : old; });
}
template <typename T> T atomicCAS(T *address, typename Same<T>::Type expected, typename Same<T>::Type wanted) {
    return atomically(address, [=](T old) { return old == expected ? wanted : old; });
}

template <typename T> T __ldg(const T *from) { return *from; }

template <typename To, typename From> To of_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &value, sizeof(To));
    return to;
}
inline int __float_as_int(float value) { return of_bits<int>(value); }
inline unsigned __float_as_uint(float value) { return of_bits<unsigned>(value); }
inline float __int_as_float(int value) { return of_bits<float>(value); }
inline float __uint_as_float(unsigned value) { return of_bits<float>(value); }
inline long long __double_as_longlong(double value) { return of_bits<long long>(value); }
inline double __longlong_as_double(long long value) { return of_bits<double>(value); }

using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;
using std::signbit;
template <typename A, typename B> std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
template <typename A, typename B> std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }

inline double normcdf(double x) { return 0.5 * std::erfc(-x * M_SQRT1_2); }
inline float normcdff(float x) { return float(normcdf(double(x))); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

#define HALF_FUNCTION(NAME, FUNCTION)                                                                                                     \
    inline __half NAME(__half x) { return __float2half_rn(FUNCTION(__half2float(x))); }                                                   \
    inline __nv_bfloat16 NAME(__nv_bfloat16 x) { return __float2bfloat16_rn(FUNCTION(__bfloat162float(x))); }
HALF_FUNCTION(hsqrt, std::sqrt)
HALF_FUNCTION(hrsqrt, rsqrtf)
HALF_FUNCTION(hsin, std::sin)
HALF_FUNCTION(hcos, std::cos)
HALF_FUNCTION(hexp, std::exp)
HALF_FUNCTION(hlog, std::log)
HALF_FUNCTION(hceil, std::ceil)
HALF_FUNCTION(hfloor, std::floor)
#undef HALF_FUNCTION
