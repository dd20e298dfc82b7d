// Images -> squares of 2x2 pixels as channels, which tensor cores like better than three channels.

#include <cuda_bf16.h>

// (N, C, H, W) -> (N, H', W', C'): channel (2 dy + dx) C + c holds value c of a square's pixel (dy, dx); the rest is zero. The first
// `before` rows and columns, and whatever lies behind the image, are zero.
extern "C" __global__ void unfold_images(
    const __nv_bfloat16 *images, unsigned count, unsigned channels, unsigned height, unsigned width, unsigned before,
    unsigned out_height, unsigned out_width, unsigned out_channels, __nv_bfloat16 *to) {
    const unsigned square = blockIdx.x * blockDim.x + threadIdx.x;
    if (square >= count * out_height * out_width) return;
    const unsigned image = square / out_width / out_height;
    const int first_row = 2 * (int(square / out_width % out_height) - int(before));
    const int first_column = 2 * (int(square % out_width) - int(before));
    __nv_bfloat16 *out = to + size_t(square) * out_channels;
    for (unsigned pack = 0; pack < out_channels; pack += 8) {
        union {
            uint4 whole;
            __nv_bfloat16 values[8];
        } packed;
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            const unsigned pixel = (pack + i) / channels, channel = (pack + i) % channels;
            const int row = first_row + int(pixel / 2), column = first_column + int(pixel % 2);
            const bool inside = pixel < 4 && row >= 0 && row < int(height) && column >= 0 && column < int(width);
            packed.values[i] = inside ? images[((size_t(image) * channels + channel) * height + row) * width + column]
                                      : __float2bfloat16_rn(0.0f);
        }
        *reinterpret_cast<uint4 *>(out + pack) = packed.whole;
    }
}
