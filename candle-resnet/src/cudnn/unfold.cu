// Images -> squares of 2x2 pixels as channels, which tensor cores like better than three channels; and the weights for them.

#include "packs.cuh"

namespace {

// (N, C, H, W) -> (N, H', W', C'): channel (2 dy + dx) C + c holds value c of a square's pixel (dy, dx); the rest is zero. The first
// `before` rows and columns, and whatever lies behind the image, are zero. C' is a multiple of a pack.
template <typename T>
__device__ void unfold_images(
    const T *images, unsigned count, unsigned channels, unsigned height, unsigned width, unsigned before, unsigned out_height,
    unsigned out_width, unsigned out_channels, T *to) {
    constexpr unsigned SIZE = Pack<T>::SIZE;
    const unsigned square = blockIdx.x * blockDim.x + threadIdx.x;
    if (square >= count * out_height * out_width) return;
    const unsigned image = square / out_width / out_height;
    const int first_row = 2 * (int(square / out_width % out_height) - int(before));
    const int first_column = 2 * (int(square % out_width) - int(before));
    T *out = to + size_t(square) * out_channels;
    for (unsigned at = 0; at < out_channels; at += SIZE) {
        Pack<T> pack;
#pragma unroll
        for (unsigned i = 0; i < SIZE; ++i) {
            const unsigned pixel = (at + i) / channels, channel = (at + i) % channels;
            const int row = first_row + int(pixel / 2), column = first_column + int(pixel % 2);
            const bool inside = pixel < 4 && row >= 0 && row < int(height) && column >= 0 && column < int(width);
            pack.values[i] =
                inside ? images[((size_t(image) * channels + channel) * height + row) * width + column] : T(0.0f);
        }
        *reinterpret_cast<Pack<T> *>(out + at) = pack;
    }
}

// (out, in, K, K) in f32 -> (out, side, side, C'), as pixels lie above; the first lies `shift` pixels behind the first square's.
template <typename T>
__device__ void pack_weights(
    const float *from, unsigned outputs, unsigned channels, unsigned size, unsigned side, unsigned square_channels, unsigned shift,
    T *to) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= outputs * side * side * square_channels) return;
    const unsigned within = index % square_channels, pixel = within / channels, channel = within % channels;
    const unsigned square = index / square_channels, output = square / side / side;
    const int row = int(2 * (square / side % side) + pixel / 2) - int(shift);
    const int column = int(2 * (square % side) + pixel % 2) - int(shift);
    const bool inside = pixel < 4 && row >= 0 && row < int(size) && column >= 0 && column < int(size);
    to[index] = T(inside ? from[((size_t(output) * channels + channel) * size + row) * size + column] : 0.0f);
}

// The other way: (out, side, side, C') -> (out, in, K, K) in f32.
template <typename T>
__device__ void unpack_weights(
    const T *from, unsigned outputs, unsigned channels, unsigned size, unsigned side, unsigned square_channels, unsigned shift,
    float *to) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= outputs * channels * size * size) return;
    const unsigned row = index / size % size + shift, column = index % size + shift;
    const unsigned channel = index / size / size % channels, output = index / size / size / channels;
    const unsigned within = (row % 2 * 2 + column % 2) * channels + channel;
    to[index] = float(from[((size_t(output) * side + row / 2) * side + column / 2) * square_channels + within]);
}

} // namespace

extern "C" {

#define OF_TYPE(T, NAME)                                                                                                       \
    __global__ void unfold_images_##NAME(                                                                                      \
        const T *images, unsigned count, unsigned channels, unsigned height, unsigned width, unsigned before,                  \
        unsigned out_height, unsigned out_width, unsigned out_channels, T *to) {                                               \
        unfold_images(images, count, channels, height, width, before, out_height, out_width, out_channels, to);                \
    }                                                                                                                          \
    __global__ void pack_weights_##NAME(                                                                                       \
        const float *from, unsigned outputs, unsigned channels, unsigned size, unsigned side, unsigned square_channels,        \
        unsigned shift, T *to) {                                                                                               \
        pack_weights(from, outputs, channels, size, side, square_channels, shift, to);                                         \
    }                                                                                                                          \
    __global__ void unpack_weights_##NAME(                                                                                     \
        const T *from, unsigned outputs, unsigned channels, unsigned size, unsigned side, unsigned square_channels,            \
        unsigned shift, float *to) {                                                                                           \
        unpack_weights(from, outputs, channels, size, side, square_channels, shift, to);                                       \
    }

OF_TYPE(float, f32)
OF_TYPE(__nv_bfloat16, bf16)
OF_TYPE(__half, f16)
}
