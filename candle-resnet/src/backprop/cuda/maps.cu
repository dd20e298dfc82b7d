// What training needs beside norms, and beside cuDNN's convolutions: pools, sums and shifts of maps, and gradients.
//
// Maps are (N, H, W, C), of f32, bf16 or f16; a thread takes 16 bytes of neighbouring channels, so channels come in multiples of four
// or eight. Arithmetic is f32.

#include <cstdint>

#include "../../cudnn/packs.cuh"

namespace {

template <typename T> __device__ void add(const T *a, const T *b, unsigned packs, T *to) {
    for (unsigned pack = blockIdx.x * blockDim.x + threadIdx.x; pack < packs; pack += gridDim.x * blockDim.x) {
        const size_t at = size_t(pack) * Pack<T>::SIZE;
        Floats<T> sum = Floats<T>::load(a + at);
        const Floats<T> other = Floats<T>::load(b + at);
#pragma unroll
        for (int i = 0; i < Floats<T>::SIZE; ++i) sum.values[i] += other.values[i];
        sum.store(to + at);
    }
}

// Where a thread is in a map (N, height, width, C).
template <typename T> struct Place {
    unsigned image, row, column, channel;
    __device__ Place(unsigned pack, unsigned height, unsigned width, unsigned channels) {
        const unsigned packs = channels / Pack<T>::SIZE;
        channel = pack % packs * Pack<T>::SIZE;
        column = pack / packs % width;
        row = pack / packs / width % height;
        image = pack / packs / width / height;
    }
};

struct Sizes {
    unsigned images, height, width, channels, out_height, out_width;
};

// Of a value in a map (N, height, width, C).
__device__ size_t offset(
    unsigned image, unsigned row, unsigned column, unsigned channel, unsigned height, unsigned width, unsigned channels) {
    return ((size_t(image) * height + row) * width + column) * channels + channel;
}

// 3x3 with a border of one pixel; `winners` (N, H', W', C) says which of the nine came out: the first of the largest, or the last NaN.
template <typename T> __device__ void max_pool(const T *x, Sizes sizes, unsigned stride, T *y, uint8_t *winners) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned packs = sizes.images * sizes.out_height * sizes.out_width * (sizes.channels / SIZE);
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    const Place<T> place(pack, sizes.out_height, sizes.out_width, sizes.channels);
    Floats<T> best;
    uint8_t winner[SIZE];
#pragma unroll
    for (int i = 0; i < SIZE; ++i) {
        best.values[i] = -INFINITY;
        winner[i] = 4;
    }
    for (int tap = 0; tap < 9; ++tap) {
        const int row = int(place.row * stride) + tap / 3 - 1, column = int(place.column * stride) + tap % 3 - 1;
        if (row < 0 || row >= int(sizes.height) || column < 0 || column >= int(sizes.width)) continue;
        const Floats<T> value = Floats<T>::load(
            x + offset(place.image, row, column, place.channel, sizes.height, sizes.width, sizes.channels));
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            if (value.values[i] > best.values[i] || value.values[i] != value.values[i]) {
                best.values[i] = value.values[i];
                winner[i] = tap;
            }
        }
    }
    const size_t at = size_t(pack) * SIZE;
    best.store(y + at);
#pragma unroll
    for (int i = 0; i < SIZE; ++i) winners[at + i] = winner[i];
}

// Each pixel gathers from the windows that it won.
template <typename T>
__device__ void max_pool_gradient(const T *gradient, const T *further, const uint8_t *winners, Sizes sizes, unsigned stride, T *to) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned packs = sizes.images * sizes.height * sizes.width * (sizes.channels / SIZE);
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    const Place<T> place(pack, sizes.height, sizes.width, sizes.channels);
    Floats<T> sum = {};
    for (int tap = 0; tap < 9; ++tap) {
        const int row = int(place.row) + 1 - tap / 3, column = int(place.column) + 1 - tap % 3;
        if (row < 0 || column < 0 || row % stride || column % stride) continue;
        const unsigned out_row = row / stride, out_column = column / stride;
        if (out_row >= sizes.out_height || out_column >= sizes.out_width) continue;
        const size_t at =
            offset(place.image, out_row, out_column, place.channel, sizes.out_height, sizes.out_width, sizes.channels);
        const Floats<T> value = Floats<T>::load(gradient + at);
        Floats<T> other = {};
        if (further) other = Floats<T>::load(further + at);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            if (winners[at + i] == tap) sum.values[i] += value.values[i] + other.values[i];
        }
    }
    sum.store(to + size_t(pack) * SIZE);
}

// What one pixel of a 2x2 window counts; beyond the last row and column lie zeros, which count if `zeros` is set.
__device__ float share(unsigned row, unsigned column, Sizes sizes, unsigned zeros) {
    const unsigned rows = row + 1 < sizes.height ? 2 : 1, columns = column + 1 < sizes.width ? 2 : 1;
    return zeros ? 0.25f : 1.0f / (rows * columns);
}

template <typename T> __device__ void mean_pool(const T *x, Sizes sizes, unsigned stride, unsigned zeros, T *y) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned packs = sizes.images * sizes.out_height * sizes.out_width * (sizes.channels / SIZE);
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    const Place<T> place(pack, sizes.out_height, sizes.out_width, sizes.channels);
    const unsigned first_row = place.row * stride, first_column = place.column * stride;
    Floats<T> sum = {};
    for (unsigned row = first_row; row < min(first_row + 2, sizes.height); ++row) {
        for (unsigned column = first_column; column < min(first_column + 2, sizes.width); ++column) {
            const Floats<T> value = Floats<T>::load(
                x + offset(place.image, row, column, place.channel, sizes.height, sizes.width, sizes.channels));
#pragma unroll
            for (int i = 0; i < SIZE; ++i) sum.values[i] += value.values[i];
        }
    }
    const float part = share(first_row, first_column, sizes, zeros);
#pragma unroll
    for (int i = 0; i < SIZE; ++i) sum.values[i] *= part;
    sum.store(y + size_t(pack) * SIZE);
}

template <typename T>
__device__ void mean_pool_gradient(const T *gradient, Sizes sizes, unsigned stride, unsigned zeros, T *to) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned packs = sizes.images * sizes.height * sizes.width * (sizes.channels / SIZE);
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    const Place<T> place(pack, sizes.height, sizes.width, sizes.channels);
    Floats<T> sum = {};
    for (int tap = 0; tap < 4; ++tap) {
        const int first_row = int(place.row) - tap / 2, first_column = int(place.column) - tap % 2;
        if (first_row < 0 || first_column < 0 || first_row % stride || first_column % stride) continue;
        const unsigned out_row = first_row / stride, out_column = first_column / stride;
        if (out_row >= sizes.out_height || out_column >= sizes.out_width) continue;
        const Floats<T> value = Floats<T>::load(
            gradient + offset(place.image, out_row, out_column, place.channel, sizes.out_height, sizes.out_width, sizes.channels));
        const float part = share(first_row, first_column, sizes, zeros);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) sum.values[i] = fmaf(part, value.values[i], sum.values[i]);
    }
    sum.store(to + size_t(pack) * SIZE);
}

// Where a pixel beyond an edge is taken from: as far on the other side of the edge's own pixel.
__device__ int mirrored(int at, int size) { return at < 0 ? -at : at >= size ? 2 * size - 2 - at : at; }

// What each pixel of a row of three counts in a blur.
__device__ float blur_share(int tap) { return tap == 1 ? 0.5f : 0.25f; }

// 3x3 with shares of 1, 2, 1 on both axes.
template <typename T> __device__ void blur_pool(const T *x, Sizes sizes, unsigned stride, T *y) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned packs = sizes.images * sizes.out_height * sizes.out_width * (sizes.channels / SIZE);
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    const Place<T> place(pack, sizes.out_height, sizes.out_width, sizes.channels);
    Floats<T> sum = {};
    for (int tap = 0; tap < 9; ++tap) {
        const unsigned row = mirrored(int(place.row * stride) + tap / 3 - 1, sizes.height);
        const unsigned column = mirrored(int(place.column * stride) + tap % 3 - 1, sizes.width);
        const float part = blur_share(tap / 3) * blur_share(tap % 3);
        const Floats<T> value = Floats<T>::load(
            x + offset(place.image, row, column, place.channel, sizes.height, sizes.width, sizes.channels));
#pragma unroll
        for (int i = 0; i < SIZE; ++i) sum.values[i] = fmaf(part, value.values[i], sum.values[i]);
    }
    sum.store(y + size_t(pack) * SIZE);
}

// What a pixel counts, on one axis, in what comes out at `out`.
__device__ float blur_part(unsigned pixel, unsigned out, unsigned size, unsigned stride) {
    float part = 0.0f;
    for (int tap = 0; tap < 3; ++tap) {
        if (mirrored(int(out * stride) + tap - 1, size) == int(pixel)) part += blur_share(tap);
    }
    return part;
}

// Each pixel gathers from what it is part of: nothing that lies more than a pixel from it, mirrored or not.
template <typename T> __device__ void blur_pool_gradient(const T *gradient, Sizes sizes, unsigned stride, T *to) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned packs = sizes.images * sizes.height * sizes.width * (sizes.channels / SIZE);
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    const Place<T> place(pack, sizes.height, sizes.width, sizes.channels);
    const unsigned first_row = (max(place.row, 1u) - 1 + stride - 1) / stride;
    const unsigned first_column = (max(place.column, 1u) - 1 + stride - 1) / stride;
    const unsigned end_row = min((place.row + 1) / stride + 1, sizes.out_height);
    const unsigned end_column = min((place.column + 1) / stride + 1, sizes.out_width);
    Floats<T> sum = {};
    for (unsigned row = first_row; row < end_row; ++row) {
        const float of_row = blur_part(place.row, row, sizes.height, stride);
        for (unsigned column = first_column; column < end_column; ++column) {
            const float part = of_row * blur_part(place.column, column, sizes.width, stride);
            const Floats<T> value = Floats<T>::load(
                gradient + offset(place.image, row, column, place.channel, sizes.out_height, sizes.out_width, sizes.channels));
#pragma unroll
            for (int i = 0; i < SIZE; ++i) sum.values[i] = fmaf(part, value.values[i], sum.values[i]);
        }
    }
    sum.store(to + size_t(pack) * SIZE);
}

// Every stride-th pixel, with `padding` channels of zeros on both sides.
template <typename T> __device__ void shift_channels(const T *x, Sizes sizes, unsigned stride, unsigned padding, T *y) {
    const unsigned channels = sizes.channels + 2 * padding;
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= sizes.images * sizes.out_height * sizes.out_width * channels) return;
    const unsigned channel = at % channels, pixel = at / channels;
    const unsigned column = pixel % sizes.out_width, row = pixel / sizes.out_width % sizes.out_height;
    const unsigned image = pixel / sizes.out_width / sizes.out_height;
    const bool inside = channel >= padding && channel - padding < sizes.channels;
    y[at] = inside ? x[offset(
                         image, row * stride, column * stride, channel - padding, sizes.height, sizes.width, sizes.channels)]
                   : narrowed<T>(0.0f);
}

template <typename T>
__device__ void shift_channels_gradient(const T *gradient, Sizes sizes, unsigned stride, unsigned padding, T *to) {
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= sizes.images * sizes.height * sizes.width * sizes.channels) return;
    const unsigned channel = at % sizes.channels, pixel = at / sizes.channels;
    const unsigned column = pixel % sizes.width, row = pixel / sizes.width % sizes.height;
    const unsigned image = pixel / sizes.width / sizes.height;
    const bool taken = row % stride == 0 && column % stride == 0;
    to[at] = taken ? gradient[offset(
                         image, row / stride, column / stride, channel + padding, sizes.out_height, sizes.out_width,
                         sizes.channels + 2 * padding)]
                   : narrowed<T>(0.0f);
}

// (N, pixels, C) -> means (N, C) in f32.
template <typename T>
__device__ void global_mean(const T *x, unsigned images, unsigned pixels, unsigned channels, float *features) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= images * (channels / SIZE)) return;
    const unsigned image = pack / (channels / SIZE), channel = pack % (channels / SIZE) * SIZE;
    float sum[SIZE] = {};
    for (unsigned pixel = 0; pixel < pixels; ++pixel) {
        const Floats<T> value = Floats<T>::load(x + (size_t(image) * pixels + pixel) * channels + channel);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) sum[i] += value.values[i];
    }
#pragma unroll
    for (int i = 0; i < SIZE; ++i) features[size_t(pack) * SIZE + i] = sum[i] / pixels;
}

template <typename T>
__device__ void global_mean_gradient(const float *features, unsigned images, unsigned pixels, unsigned channels, T *to) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned packs = images * pixels * (channels / SIZE);
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    const unsigned image = pack / (channels / SIZE) / pixels, channel = pack % (channels / SIZE) * SIZE;
    Floats<T> value;
#pragma unroll
    for (int i = 0; i < SIZE; ++i) value.values[i] = features[size_t(image) * channels + channel + i] / pixels;
    value.store(to + size_t(pack) * SIZE);
}

} // namespace

extern "C" {

#define OF_TYPE(T, NAME)                                                                                                            \
    __global__ void add_##NAME(const T *a, const T *b, unsigned packs, T *to) { add(a, b, packs, to); }                             \
    __global__ void max_pool_##NAME(                                                                                                \
        const T *x, unsigned images, unsigned height, unsigned width, unsigned channels, unsigned out_height, unsigned out_width,   \
        unsigned stride, T *y, uint8_t *winners) {                                                                                  \
        max_pool(x, Sizes{images, height, width, channels, out_height, out_width}, stride, y, winners);                             \
    }                                                                                                                               \
    __global__ void max_pool_gradient_##NAME(                                                                                       \
        const T *gradient, const T *further, const uint8_t *winners, unsigned images, unsigned height, unsigned width,              \
        unsigned channels, unsigned out_height, unsigned out_width, unsigned stride, T *to) {                                       \
        const Sizes sizes = {images, height, width, channels, out_height, out_width};                                               \
        max_pool_gradient(gradient, further, winners, sizes, stride, to);                                                           \
    }                                                                                                                               \
    __global__ void mean_pool_##NAME(                                                                                               \
        const T *x, unsigned images, unsigned height, unsigned width, unsigned channels, unsigned out_height, unsigned out_width,   \
        unsigned stride, unsigned zeros, T *y) {                                                                                    \
        mean_pool(x, Sizes{images, height, width, channels, out_height, out_width}, stride, zeros, y);                              \
    }                                                                                                                               \
    __global__ void mean_pool_gradient_##NAME(                                                                                      \
        const T *gradient, unsigned images, unsigned height, unsigned width, unsigned channels, unsigned out_height,                \
        unsigned out_width, unsigned stride, unsigned zeros, T *to) {                                                               \
        mean_pool_gradient(gradient, Sizes{images, height, width, channels, out_height, out_width}, stride, zeros, to);             \
    }                                                                                                                               \
    __global__ void blur_pool_##NAME(                                                                                               \
        const T *x, unsigned images, unsigned height, unsigned width, unsigned channels, unsigned out_height, unsigned out_width,   \
        unsigned stride, T *y) {                                                                                                    \
        blur_pool(x, Sizes{images, height, width, channels, out_height, out_width}, stride, y);                                     \
    }                                                                                                                               \
    __global__ void blur_pool_gradient_##NAME(                                                                                      \
        const T *gradient, unsigned images, unsigned height, unsigned width, unsigned channels, unsigned out_height,                \
        unsigned out_width, unsigned stride, T *to) {                                                                               \
        blur_pool_gradient(gradient, Sizes{images, height, width, channels, out_height, out_width}, stride, to);                    \
    }                                                                                                                               \
    __global__ void shift_channels_##NAME(                                                                                          \
        const T *x, unsigned images, unsigned height, unsigned width, unsigned channels, unsigned out_height, unsigned out_width,   \
        unsigned stride, unsigned padding, T *y) {                                                                                  \
        shift_channels(x, Sizes{images, height, width, channels, out_height, out_width}, stride, padding, y);                       \
    }                                                                                                                               \
    __global__ void shift_channels_gradient_##NAME(                                                                                 \
        const T *gradient, unsigned images, unsigned height, unsigned width, unsigned channels, unsigned out_height,                \
        unsigned out_width, unsigned stride, unsigned padding, T *to) {                                                             \
        const Sizes sizes = {images, height, width, channels, out_height, out_width};                                               \
        shift_channels_gradient(gradient, sizes, stride, padding, to);                                                              \
    }                                                                                                                               \
    __global__ void global_mean_##NAME(const T *x, unsigned images, unsigned pixels, unsigned channels, float *features) {          \
        global_mean(x, images, pixels, channels, features);                                                                         \
    }                                                                                                                               \
    __global__ void global_mean_gradient_##NAME(                                                                                    \
        const float *features, unsigned images, unsigned pixels, unsigned channels, T *to) {                                        \
        global_mean_gradient(features, images, pixels, channels, to);                                                               \
    }

OF_TYPE(float, f32)
OF_TYPE(__nv_bfloat16, bf16)
OF_TYPE(__half, f16)
}
