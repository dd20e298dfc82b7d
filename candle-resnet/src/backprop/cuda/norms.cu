// Norms with residual and ReLU, attention over channels, and their gradients.
//
// Maps are (N, H, W, C), of f32, bf16 or f16; a thread takes 16 bytes of neighbouring channels, so channels come in multiples of four
// or eight. Arithmetic is f32; sums over many pixels are f32 within a thread and f64 between blocks. Sums are added in an order
// that shapes alone decide: the same input gives the same bits. What leaves f16's range is infinite or NaN from there on: a ReLU stops the gradient
// of what is not above 0, and of no NaN.
//
// Kernels over rows (a row is a pixel with its channels) are started with blocks (x, y): x threads side by side over channels, y over
// rows, and as many blocks over rows as the host likes. Segments of rows are normalised apart, a block's by its z: all rows of a batch
// are one for a batch norm, those of an image for what looks at images one by one. `rows` are those of a segment.

#include "../../cudnn/packs.cuh"

namespace {

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

// The rows of a thread, of kernels over rows: from `first` in steps up to `end`.
struct OwnRows {
    unsigned first, end, step;
    __device__ OwnRows(unsigned rows)
        : first(blockIdx.z * rows + blockIdx.y * blockDim.y + threadIdx.y), end((blockIdx.z + 1) * rows), step(gridDim.y * blockDim.y) {}
};

// Where a block's sums go, and where those of a segment's block lie: (segments, blocks over rows, 2, C).
__device__ size_t sums_of(unsigned segment, unsigned block, unsigned blocks, unsigned channels) {
    return (size_t(segment) * blocks + block) * 2 * channels;
}

// Of a norm, (segments, 4, C): mean, 1 / sqrt(variance + epsilon), scale, shift.
struct Statistics {
    const float *mean, *inverse, *scale, *shift;
    __device__ Statistics(const float *all, unsigned segment, unsigned channels)
        : mean(all + size_t(segment) * 4 * channels), inverse(mean + channels), scale(inverse + channels), shift(scale + channels) {}
};

// (segments, blocks over rows, 2, C): sums of the distance from a segment's first row and of its square.
template <typename T>
__device__ void norm_moments(const T *x, unsigned rows, unsigned channels, float *partial) {
    constexpr int SIZE = Pack<T>::SIZE;
    __shared__ float scratch[MOST_THREADS * SIZE];
    const unsigned channel = first_channel<T>();
    float sum[SIZE] = {}, square[SIZE] = {};
    if (channel < channels) {
        const Floats<T> centre = Floats<T>::load(x + size_t(blockIdx.z) * rows * channels + channel);
        const OwnRows own(rows);
        for (unsigned row = own.first; row < own.end; row += own.step) {
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
        float *to = partial + sums_of(blockIdx.z, blockIdx.y, gridDim.y, channels) + channel;
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
    const Statistics statistics(all_statistics, blockIdx.z, channels);
    float scale[SIZE], shift[SIZE];
#pragma unroll
    for (int i = 0; i < SIZE; ++i) {
        scale[i] = statistics.scale[channel + i];
        shift[i] = statistics.shift[channel + i];
    }
    const OwnRows own(rows);
    for (unsigned row = own.first; row < own.end; row += own.step) {
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

// (segments, blocks over rows, 2, C): sums of the gradient, and of it times the distance from the mean.
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
        const Statistics statistics(all_statistics, blockIdx.z, channels);
        float mean[SIZE], scale[SIZE], shift[SIZE];
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            mean[i] = statistics.mean[channel + i];
            scale[i] = statistics.scale[channel + i];
            shift[i] = statistics.shift[channel + i];
        }
        const OwnRows own(rows);
        for (unsigned row = own.first; row < own.end; row += own.step) {
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
        float *to = partial + sums_of(blockIdx.z, blockIdx.y, gridDim.y, channels) + channel;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            to[i] = sum[i];
            to[channels + i] = along[i];
        }
    }
}

// The gradient before the norm: what passes times a factor, and, where statistics follow the input, x times a slope, and a shift;
// `coefficients` (segments, 3, C).
template <typename T>
__device__ void norm_gradient(
    const T *gradient, const T *x, const float *all_statistics, const float *coefficients, const float *factors, unsigned rows,
    unsigned pixels, unsigned channels, unsigned relu, T *to) {
    constexpr int SIZE = Pack<T>::SIZE;
    const unsigned channel = first_channel<T>();
    if (channel >= channels) return;
    const Statistics statistics(all_statistics, blockIdx.z, channels);
    float scale[SIZE], shift[SIZE], factor[SIZE], slope[SIZE], constant[SIZE];
#pragma unroll
    for (int i = 0; i < SIZE; ++i) {
        const float *of_channel = coefficients + size_t(blockIdx.z) * 3 * channels + channel + i;
        scale[i] = statistics.scale[channel + i];
        shift[i] = statistics.shift[channel + i];
        factor[i] = of_channel[0];
        slope[i] = of_channel[channels];
        constant[i] = of_channel[2 * channels];
    }
    const OwnRows own(rows);
    for (unsigned row = own.first; row < own.end; row += own.step) {
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

// A sum over the threads of a block of GROUP_THREADS, as many as the host starts.
constexpr unsigned GROUP_THREADS = 128;
__device__ double sum_block(double value) {
    __shared__ double scratch[GROUP_THREADS];
    __syncthreads();
    scratch[threadIdx.x] = value;
    for (unsigned half = GROUP_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
    }
    __syncthreads();
    return scratch[0];
}

// One of the two sums of a channel of a segment.
__device__ double segment_sum(const float *partial, unsigned segment, unsigned parts, unsigned channels, unsigned which, unsigned channel) {
    double sum = 0.0;
    for (unsigned part = 0; part < parts; ++part) {
        sum += partial[sums_of(segment, part, parts, channels) + which * channels + channel];
    }
    return sum;
}

// Statistics of group norms from moments of images: a block for each group (x) of each image (y).
template <typename T>
__device__ void group_statistics(
    const float *partial, unsigned parts, const T *x, unsigned pixels, unsigned channels, const float *weight, const float *bias,
    float epsilon, float *statistics) {
    const unsigned width = channels / gridDim.x, first = blockIdx.x * width, image = blockIdx.y;
    const T *centres = x + size_t(image) * pixels * channels;
    double sum = 0.0, square = 0.0; // about 0, and about each channel's mean
    for (unsigned channel = first + threadIdx.x; channel < first + width; channel += GROUP_THREADS) {
        const double from_centre = segment_sum(partial, image, parts, channels, 0, channel) / pixels;
        sum += double(widened(centres[channel])) + from_centre;
        square += segment_sum(partial, image, parts, channels, 1, channel) / pixels - from_centre * from_centre;
    }
    const double mean = sum_block(sum) / width;
    double between = 0.0;
    for (unsigned channel = first + threadIdx.x; channel < first + width; channel += GROUP_THREADS) {
        const double from_centre = segment_sum(partial, image, parts, channels, 0, channel) / pixels;
        const double distance = double(widened(centres[channel])) + from_centre - mean;
        between += distance * distance;
    }
    const double spread = (sum_block(square) + sum_block(between)) / width;
    const double variance = spread > 0.0 ? spread : (spread == spread ? 0.0 : spread);
    for (unsigned channel = first + threadIdx.x; channel < first + width; channel += GROUP_THREADS) {
        float *to = statistics + size_t(image) * 4 * channels;
        write_statistics(mean, variance, weight[channel], bias[channel], epsilon, channel, channels, to);
    }
}

// (N, C) from moments of images.
template <typename T>
__device__ void segment_means(const float *partial, unsigned parts, const T *x, unsigned images, unsigned pixels, unsigned channels, float *means) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= images * channels) return;
    const unsigned image = index / channels, channel = index % channels;
    const double from_centre = segment_sum(partial, image, parts, channels, 0, channel) / pixels;
    means[index] = float(double(widened(x[size_t(image) * pixels * channels + channel])) + from_centre);
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
    const Statistics statistics(all_statistics, 0, channels);
    const double mean = statistics.mean[channel], inverse = statistics.inverse[channel], scale = statistics.scale[channel];
    of_weight[channel] = float(sums[1] * inverse);
    of_bias[channel] = float(sums[0]);
    const double slope = follows_batch ? -scale * inverse * inverse * sums[1] / rows : 0.0;
    coefficients[channel] = float(scale);
    coefficients[channels + channel] = float(slope);
    coefficients[2 * channels + channel] = float(follows_batch ? -scale * sums[0] / rows - slope * mean : 0.0);
}

// Sums of group norms' gradients -> the coefficients of those of their input, and what each image adds to those of bias and weight,
// (N, 2, C): a block for each group (x) of each image (y).
__global__ void group_gradient_totals(
    const float *partial, unsigned parts, unsigned pixels, unsigned channels, const float *all_statistics, float *of_images,
    float *coefficients) {
    const unsigned width = channels / gridDim.x, first = blockIdx.x * width, image = blockIdx.y;
    const Statistics statistics(all_statistics, image, channels);
    const double mean = statistics.mean[first], inverse = statistics.inverse[first];
    double sum = 0.0, along = 0.0; // of the gradient of the normalised input, and of it times that
    for (unsigned channel = first + threadIdx.x; channel < first + width; channel += GROUP_THREADS) {
        const double of_bias = segment_sum(partial, image, parts, channels, 0, channel);
        const double of_weight = segment_sum(partial, image, parts, channels, 1, channel) * inverse;
        float *to = of_images + size_t(image) * 2 * channels + channel;
        to[0] = float(of_bias);
        to[channels] = float(of_weight);
        sum += statistics.scale[channel] * of_bias;
        along += statistics.scale[channel] * of_weight;
    }
    const double values = double(width) * pixels;
    const double slope = -sum_block(along) * inverse / values, constant = -sum_block(sum) / values - slope * mean;
    for (unsigned channel = first + threadIdx.x; channel < first + width; channel += GROUP_THREADS) {
        float *to = coefficients + size_t(image) * 3 * channels + channel;
        to[0] = statistics.scale[channel];
        to[channels] = float(slope);
        to[2 * channels] = float(constant);
    }
}

// What images add, (N, 2, C) -> the gradients of bias and weight.
__global__ void group_parameter_gradients(const float *of_images, unsigned images, unsigned channels, float *of_weight, float *of_bias) {
    double sums[2];
    if (!total(of_images, images, channels, sums)) return;
    const unsigned channel = blockIdx.x * 32 + threadIdx.x;
    of_bias[channel] = float(sums[0]);
    of_weight[channel] = float(sums[1]);
}

// Statistics of a norm that weighs channels by gates (N, C) and does nothing else.
__global__ void gate_statistics(const float *gates, unsigned images, unsigned channels, float *statistics) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= images * channels) return;
    float *to = statistics + size_t(index / channels) * 4 * channels + index % channels;
    to[0] = 0.0f;
    to[channels] = 1.0f;
    to[2 * channels] = gates[index];
    to[3 * channels] = 0.0f;
}

// The gradient of gates (N, C) from sums of images.
__global__ void gate_gradient(const float *partial, unsigned parts, unsigned images, unsigned channels, float *to) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= images * channels) return;
    to[index] = float(segment_sum(partial, index / channels, parts, channels, 1, index % channels));
}

// What a pixel's gradient is made of where gates weighed it that follow from means: the gradient of what came out, and a part of the mean's.
__global__ void gate_coefficients(
    const float *gates, const float *of_means, unsigned images, unsigned pixels, unsigned channels, float *coefficients) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= images * channels) return;
    float *to = coefficients + size_t(index / channels) * 3 * channels + index % channels;
    to[0] = gates[index];
    to[channels] = 0.0f;
    to[2 * channels] = of_means[index] / pixels;
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
    __global__ void __launch_bounds__(GROUP_THREADS) group_statistics_##NAME(                                                       \
        const float *partial, unsigned parts, const T *x, unsigned pixels, unsigned channels, const float *weight,                  \
        const float *bias, float epsilon, float *statistics) {                                                                      \
        group_statistics(partial, parts, x, pixels, channels, weight, bias, epsilon, statistics);                                   \
    }                                                                                                                               \
    __global__ void segment_means_##NAME(                                                                                           \
        const float *partial, unsigned parts, const T *x, unsigned images, unsigned pixels, unsigned channels, float *means) {      \
        segment_means(partial, parts, x, images, pixels, channels, means);                                                          \
    }

OF_TYPE(float, f32)
OF_TYPE(__nv_bfloat16, bf16)
OF_TYPE(__half, f16)
}
