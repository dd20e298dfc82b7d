// What training needs beside cuDNN's convolutions: batch norms with residual and ReLU, pools, and their gradients.
//
// Maps are (N, H, W, C), of f32, bf16 or f16; a thread takes 16 bytes of neighbouring channels, so channels come in multiples of four
// or eight. Arithmetic is f32; sums over many pixels are f32 within a thread and f64 between blocks. Sums are added in an order
// that shapes alone decide: the same input gives the same bits. What leaves f16's range is infinite or NaN from there on: a ReLU stops the gradient
// of what is not above 0, and of no NaN.
//
// Kernels over rows (a row is a pixel with its channels) are started with blocks (x, y): x threads side by side over channels, y over
// rows, and as many blocks over rows as the host likes.

#include <cstdint>
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

// Adds what the threads of a block have that share a channel; the first row of threads ends with the sums.
template <int SIZE> __device__ void sum_rows(float (&values)[SIZE], float *scratch) {
    const unsigned width = blockDim.x * SIZE;
    float *mine = scratch + threadIdx.y * width + threadIdx.x * SIZE;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < SIZE; ++i) mine[i] = values[i];
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) {
#pragma unroll
            for (int i = 0; i < SIZE; ++i) mine[i] += mine[half * width + i];
        }
    }
#pragma unroll
    for (int i = 0; i < SIZE; ++i) values[i] = mine[i];
}

constexpr unsigned MOST_THREADS = 256;

// The first channel of a thread, of kernels over rows.
template <typename T> __device__ unsigned first_channel() {
    return (blockIdx.x * blockDim.x + threadIdx.x) * Pack<T>::SIZE;
}

// Of a norm, (4, C): mean, 1 / sqrt(variance + epsilon), scale, shift.
struct Statistics {
    const float *mean, *inverse, *scale, *shift;
    __device__ Statistics(const float *all, unsigned channels)
        : mean(all), inverse(all + channels), scale(all + 2 * channels), shift(all + 3 * channels) {}
};

// (blocks over rows, 2, C): sums of the distance from the first row and of its square.
template <typename T>
__device__ void norm_moments(const T *x, unsigned rows, unsigned channels, float *partial) {
    constexpr int SIZE = Pack<T>::SIZE;
    __shared__ float scratch[MOST_THREADS * SIZE];
    const unsigned channel = first_channel<T>();
    float sum[SIZE] = {}, square[SIZE] = {};
    if (channel < channels) {
        const Floats<T> centre = Floats<T>::load(x + channel);
        for (unsigned row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y) {
            const Floats<T> value = Floats<T>::load(x + size_t(row) * channels + channel);
#pragma unroll
            for (int i = 0; i < SIZE; ++i) {
                const float distance = value.values[i] - centre.values[i];
                sum[i] += distance;
                square[i] = fmaf(distance, distance, square[i]);
            }
        }
    }
    sum_rows(sum, scratch);
    sum_rows(square, scratch);
    if (threadIdx.y == 0 && channel < channels) {
        float *to = partial + size_t(blockIdx.y) * 2 * channels + channel;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            to[i] = sum[i];
            to[channels + i] = square[i];
        }
    }
}

// Adds partial sums (parts, 2, C) in blocks of 32 channels by 32 threads; true where a thread holds a channel's two sums.
__device__ bool total(const float *partial, unsigned parts, unsigned channels, double (&sums)[2]) {
    __shared__ double scratch[2][32][32];
    const unsigned channel = blockIdx.x * 32 + threadIdx.x;
    sums[0] = sums[1] = 0.0;
    if (channel < channels) {
        for (unsigned part = threadIdx.y; part < parts; part += 32) {
            sums[0] += partial[size_t(part) * 2 * channels + channel];
            sums[1] += partial[(size_t(part) * 2 + 1) * channels + channel];
        }
    }
    scratch[0][threadIdx.y][threadIdx.x] = sums[0];
    scratch[1][threadIdx.y][threadIdx.x] = sums[1];
    __syncthreads();
    if (threadIdx.y > 0 || channel >= channels) return false;
    for (unsigned part = 1; part < 32; ++part) {
        sums[0] += scratch[0][part][threadIdx.x];
        sums[1] += scratch[1][part][threadIdx.x];
    }
    return true;
}

__device__ void write_statistics(
    double mean, double variance, float weight, float bias, float epsilon, unsigned channel, unsigned channels, float *statistics) {
    const double inverse = 1.0 / sqrt(variance + double(epsilon)), scale = weight * inverse;
    statistics[channel] = float(mean);
    statistics[channels + channel] = float(inverse);
    statistics[2 * channels + channel] = float(scale);
    statistics[3 * channels + channel] = float(bias - mean * scale);
}

// Those of a batch; running ones move towards them.
template <typename T>
__device__ void norm_batch_statistics(
    const float *partial, unsigned parts, const T *x, unsigned rows, unsigned channels, const float *weight, const float *bias,
    float epsilon, float momentum, float *running_mean, float *running_variance, float *statistics) {
    double sums[2];
    if (!total(partial, parts, channels, sums)) return;
    const unsigned channel = blockIdx.x * 32 + threadIdx.x;
    const double from_centre = sums[0] / rows, mean = double(widened(x[channel])) + from_centre;
    const double spread = sums[1] / rows - from_centre * from_centre, variance = spread > 0.0 ? spread : (spread == spread ? 0.0 : spread);
    const double unbiased = variance * rows / (double(rows) - 1.0);
    running_mean[channel] = float((1.0 - momentum) * running_mean[channel] + momentum * mean);
    running_variance[channel] = float((1.0 - momentum) * running_variance[channel] + momentum * unbiased);
    write_statistics(mean, variance, weight[channel], bias[channel], epsilon, channel, channels, statistics);
}

// What an image's branch counts.
__device__ float factor_of(const float *factors, unsigned row, unsigned pixels) {
    return factors ? factors[row / pixels] : 1.0f;
}

template <typename T>
__device__ void norm_apply(
    const T *x, const T *residual, const float *all_statistics, const float *factors, unsigned rows, unsigned pixels, unsigned channels,
    unsigned relu, T *y) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned channel = first_channel<T>();
    if (channel >= channels) return;
    const Statistics statistics(all_statistics, channels);
    float scale[SIZE], shift[SIZE];
#pragma unroll
    for (int i = 0; i < SIZE; ++i) {
        scale[i] = statistics.scale[channel + i];
        shift[i] = statistics.shift[channel + i];
    }
    for (unsigned row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y) {
        const size_t at = size_t(row) * channels + channel;
        const float factor = factor_of(factors, row, pixels);
        Floats<T> value = Floats<T>::load(x + at), added = {};
        if (residual) added = Floats<T>::load(residual + at);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            const float sum = fmaf(factor, fmaf(value.values[i], scale[i], shift[i]), added.values[i]);
            value.values[i] = relu && sum < 0.0f ? 0.0f : sum;
        }
        value.store(y + at);
    }
}

// (blocks over rows, 2, C): sums of the gradient, and of it times the distance from the mean.
//
// The gradient is the sum of one or two; it stops where y is not above 0 if y is given, where the normalised x is not if `relu` is set. What
// passes is written to `passed` where that is given.
template <typename T>
__device__ void norm_gradient_sums(
    const T *gradient, const T *further, const T *y, const T *x, const float *all_statistics, const float *factors, unsigned rows,
    unsigned pixels, unsigned channels, unsigned relu, T *passed, float *partial) {
    constexpr int SIZE = Pack<T>::SIZE;
    __shared__ float scratch[MOST_THREADS * SIZE];
    const unsigned channel = first_channel<T>();
    float sum[SIZE] = {}, along[SIZE] = {};
    if (channel < channels) {
        const Statistics statistics(all_statistics, channels);
        float mean[SIZE], scale[SIZE], shift[SIZE];
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            mean[i] = statistics.mean[channel + i];
            scale[i] = statistics.scale[channel + i];
            shift[i] = statistics.shift[channel + i];
        }
        for (unsigned row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y) {
            const size_t at = size_t(row) * channels + channel;
            const float factor = factor_of(factors, row, pixels);
            Floats<T> passing = Floats<T>::load(gradient + at);
            const Floats<T> value = Floats<T>::load(x + at);
            if (further) {
                const Floats<T> other = Floats<T>::load(further + at);
#pragma unroll
                for (int i = 0; i < SIZE; ++i) passing.values[i] += other.values[i];
            }
            if (y) {
                const Floats<T> output = Floats<T>::load(y + at);
#pragma unroll
                for (int i = 0; i < SIZE; ++i) passing.values[i] = output.values[i] <= 0.0f ? 0.0f : passing.values[i];
            } else if (relu) {
#pragma unroll
                for (int i = 0; i < SIZE; ++i) {
                    passing.values[i] = fmaf(value.values[i], scale[i], shift[i]) <= 0.0f ? 0.0f : passing.values[i];
                }
            }
            if (passed) passing.store(passed + at);
#pragma unroll
            for (int i = 0; i < SIZE; ++i) {
                const float counted = factor * passing.values[i];
                sum[i] += counted;
                along[i] = fmaf(counted, value.values[i] - mean[i], along[i]);
            }
        }
    }
    sum_rows(sum, scratch);
    sum_rows(along, scratch);
    if (threadIdx.y == 0 && channel < channels) {
        float *to = partial + size_t(blockIdx.y) * 2 * channels + channel;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            to[i] = sum[i];
            to[channels + i] = along[i];
        }
    }
}

// The gradient before the norm: what passes times a factor, and, where statistics follow the batch, x times a slope, and a shift;
// `coefficients` (3, C).
template <typename T>
__device__ void norm_gradient(
    const T *gradient, const T *x, const float *all_statistics, const float *coefficients, const float *factors, unsigned rows,
    unsigned pixels, unsigned channels, unsigned relu, T *to) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned channel = first_channel<T>();
    if (channel >= channels) return;
    const Statistics statistics(all_statistics, channels);
    float scale[SIZE], shift[SIZE], factor[SIZE], slope[SIZE], constant[SIZE];
#pragma unroll
    for (int i = 0; i < SIZE; ++i) {
        scale[i] = statistics.scale[channel + i];
        shift[i] = statistics.shift[channel + i];
        factor[i] = coefficients[channel + i];
        slope[i] = coefficients[channels + channel + i];
        constant[i] = coefficients[2 * channels + channel + i];
    }
    for (unsigned row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y) {
        const size_t at = size_t(row) * channels + channel;
        const float of_image = factor_of(factors, row, pixels);
        Floats<T> passing = Floats<T>::load(gradient + at);
        const Floats<T> value = Floats<T>::load(x + at);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            const bool stops = relu && fmaf(value.values[i], scale[i], shift[i]) <= 0.0f;
            const float counted = stops ? 0.0f : of_image * passing.values[i];
            passing.values[i] = fmaf(factor[i], counted, fmaf(slope[i], value.values[i], constant[i]));
        }
        passing.store(to + at);
    }
}

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

// (out, in, taps) in f32 -> (out, taps, in).
template <typename T> __device__ void pack_weights(const float *from, unsigned count, unsigned inputs, unsigned taps, T *to) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    const unsigned input = index % inputs, tap = index / inputs % taps, output = index / inputs / taps;
    to[index] = narrowed<T>(from[(size_t(output) * inputs + input) * taps + tap]);
}

// (out, taps, in) -> (out, in, taps) in f32.
template <typename T> __device__ void unpack_weights(const T *from, unsigned count, unsigned inputs, unsigned taps, float *to) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    const unsigned tap = index % taps, input = index / taps % inputs, output = index / taps / inputs;
    to[index] = widened(from[(size_t(output) * taps + tap) * inputs + input]);
}

} // namespace

extern "C" {

// Those that do not follow the batch.
__global__ void norm_running_statistics(
    const float *mean, const float *variance, const float *weight, const float *bias, float epsilon, unsigned channels,
    float *statistics) {
    const unsigned channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    write_statistics(mean[channel], variance[channel], weight[channel], bias[channel], epsilon, channel, channels, statistics);
}

// Sums of a norm's gradient -> the gradients of weight and bias, and the coefficients of that of its input.
__global__ void norm_gradient_totals(
    const float *partial, unsigned parts, unsigned rows, unsigned channels, const float *all_statistics, unsigned follows_batch,
    float *of_weight, float *of_bias, float *coefficients) {
    double sums[2];
    if (!total(partial, parts, channels, sums)) return;
    const unsigned channel = blockIdx.x * 32 + threadIdx.x;
    const Statistics statistics(all_statistics, channels);
    const double mean = statistics.mean[channel], inverse = statistics.inverse[channel], scale = statistics.scale[channel];
    of_weight[channel] = float(sums[1] * inverse);
    of_bias[channel] = float(sums[0]);
    const double slope = follows_batch ? -scale * inverse * inverse * sums[1] / rows : 0.0;
    coefficients[channel] = float(scale);
    coefficients[channels + channel] = float(slope);
    coefficients[2 * channels + channel] = float(follows_batch ? -scale * sums[0] / rows - slope * mean : 0.0);
}

#define OF_TYPE(T, NAME)                                                                                                            \
    __global__ void __launch_bounds__(MOST_THREADS) norm_moments_##NAME(                                                            \
        const T *x, unsigned rows, unsigned channels, float *partial) {                                                             \
        norm_moments(x, rows, channels, partial);                                                                                   \
    }                                                                                                                               \
    __global__ void norm_batch_statistics_##NAME(                                                                                   \
        const float *partial, unsigned parts, const T *x, unsigned rows, unsigned channels, const float *weight, const float *bias, \
        float epsilon, float momentum, float *running_mean, float *running_variance, float *statistics) {                           \
        norm_batch_statistics(                                                                                                      \
            partial, parts, x, rows, channels, weight, bias, epsilon, momentum, running_mean, running_variance, statistics);        \
    }                                                                                                                               \
    __global__ void __launch_bounds__(MOST_THREADS) norm_apply_##NAME(                                                              \
        const T *x, const T *residual, const float *statistics, const float *factors, unsigned rows, unsigned pixels,               \
        unsigned channels, unsigned relu, T *y) {                                                                                   \
        norm_apply(x, residual, statistics, factors, rows, pixels, channels, relu, y);                                              \
    }                                                                                                                               \
    __global__ void __launch_bounds__(MOST_THREADS) norm_gradient_sums_##NAME(                                                      \
        const T *gradient, const T *further, const T *y, const T *x, const float *statistics, const float *factors, unsigned rows,  \
        unsigned pixels, unsigned channels, unsigned relu, T *passed, float *partial) {                                             \
        norm_gradient_sums(                                                                                                         \
            gradient, further, y, x, statistics, factors, rows, pixels, channels, relu, passed, partial);                           \
    }                                                                                                                               \
    __global__ void __launch_bounds__(MOST_THREADS) norm_gradient_##NAME(                                                           \
        const T *gradient, const T *x, const float *statistics, const float *coefficients, const float *factors, unsigned rows,     \
        unsigned pixels, unsigned channels, unsigned relu, T *to) {                                                                 \
        norm_gradient(gradient, x, statistics, coefficients, factors, rows, pixels, channels, relu, to);                            \
    }                                                                                                                               \
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
    }                                                                                                                               \
    __global__ void pack_weights_##NAME(const float *from, unsigned count, unsigned inputs, unsigned taps, T *to) {                 \
        pack_weights(from, count, inputs, taps, to);                                                                                \
    }                                                                                                                               \
    __global__ void unpack_weights_##NAME(const T *from, unsigned count, unsigned inputs, unsigned taps, float *to) {               \
        unpack_weights(from, count, inputs, taps, to);                                                                              \
    }

OF_TYPE(float, f32)
OF_TYPE(__nv_bfloat16, bf16)
OF_TYPE(__half, f16)
}
