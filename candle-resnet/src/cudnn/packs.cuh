// 16 bytes of neighbouring values, in f32 while they are computed with.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace {

template <typename T> __device__ float widened(T value);
template <> __device__ float widened(float value) { return value; }
template <> __device__ float widened(__nv_bfloat16 value) { return __bfloat162float(value); }
template <> __device__ float widened(__half value) { return __half2float(value); }

template <typename T> __device__ T narrowed(float value);
template <> __device__ float narrowed(float value) { return value; }
template <> __device__ __nv_bfloat16 narrowed(float value) { return __float2bfloat16_rn(value); }
template <> __device__ __half narrowed(float value) { return __float2half_rn(value); }

// 16 bytes of neighbouring values.
template <typename T> struct alignas(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    T values[SIZE];
};

template <typename T> struct Floats {
    static constexpr int SIZE = Pack<T>::SIZE;
    float values[SIZE];

    static __device__ Floats load(const T *from) {
        const Pack<T> pack = *reinterpret_cast<const Pack<T> *>(from);
        Floats floats;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) floats.values[i] = widened(pack.values[i]);
        return floats;
    }

    __device__ void store(T *to) const {
        Pack<T> pack;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) pack.values[i] = narrowed<T>(values[i]);
        *reinterpret_cast<Pack<T> *>(to) = pack;
    }
};

} // namespace
