// cuDNN, as far as this program calls it: libcudnn.so.9. Of halves sums are f32.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include <cudnn.h>

#include "numbers.h"
#include "streams.h"

using emulated::Kind;
template <typename Sum> using Values = std::vector<Sum>;

struct cudnnContext {
    CUstream stream = nullptr;
};

struct cudnnTensorStruct {
    Kind kind;
    size_t images, channels, height, width;
    size_t image_stride, channel_stride, row_stride, pixel_stride;

    size_t at(size_t image, size_t channel, size_t y, size_t x) const {
        return image * image_stride + channel * channel_stride + y * row_stride + x * pixel_stride;
    }
    size_t pixels() const { return height * width; }
};

struct cudnnFilterStruct {
    Kind kind;
    bool channels_last;
    size_t outputs, inputs, height, width;

    size_t at(size_t output, size_t input, size_t y, size_t x) const {
        return channels_last ? ((output * height + y) * width + x) * inputs + input : ((output * inputs + input) * height + y) * width + x;
    }
    size_t taps() const { return height * width * inputs; }
};

struct cudnnConvolutionStruct {
    size_t groups = 1;
    long pad_y, pad_x, stride_y, stride_x, dilation_y, dilation_x;
};

struct cudnnActivationStruct {
    cudnnActivationMode_t mode;
};

struct cudnnPoolingStruct {
    long size_y, size_x, pad_y, pad_x, stride_y, stride_x;
};

namespace {

// Bytes of scratch that every call asks for and writes, so that a caller has to bring some that nobody else reads.
constexpr size_t WORKSPACE = 1024;
void use(void *scratch) { std::memset(scratch, 0xff, WORKSPACE); }

bool kind_of(cudnnDataType_t type, Kind &kind) {
    switch (type) {
    case CUDNN_DATA_DOUBLE: kind = Kind::F64; return true;
    case CUDNN_DATA_FLOAT: kind = Kind::F32; return true;
    case CUDNN_DATA_HALF: kind = Kind::F16; return true;
    case CUDNN_DATA_BFLOAT16: kind = Kind::BF16; return true;
    default: return false;
    }
}

// A convolution's shapes, and what is done in all directions: one group of one image as a product of matrices.
struct Convolution {
    cudnnTensorStruct x;
    cudnnFilterStruct weight;
    cudnnConvolutionStruct conv;
    cudnnTensorStruct y;

    bool fits() const {
        const auto output = [](long size, long window, long pad, long stride, long dilation) {
            return (size + 2 * pad - dilation * (window - 1) - 1) / stride + 1;
        };
        return x.images == y.images && x.channels == weight.inputs * conv.groups && y.channels == weight.outputs &&
               weight.outputs % conv.groups == 0 && x.kind == weight.kind && x.kind == y.kind &&
               long(y.height) == output(x.height, weight.height, conv.pad_y, conv.stride_y, conv.dilation_y) &&
               long(y.width) == output(x.width, weight.width, conv.pad_x, conv.stride_x, conv.dilation_x);
    }

    size_t group_outputs() const { return weight.outputs / conv.groups; }

    // Calls `visit(tap, pixel, y, x)` for each tap of each output pixel; y and x are below 0 outside of the map.
    template <typename Visit> void each_tap(size_t rows_from, size_t rows_to, Visit visit) const {
        for (size_t out_y = rows_from; out_y < rows_to; ++out_y) {
            for (size_t out_x = 0; out_x < y.width; ++out_x) {
                size_t tap = 0;
                for (size_t window_y = 0; window_y < weight.height; ++window_y) {
                    for (size_t window_x = 0; window_x < weight.width; ++window_x, ++tap) {
                        const long at_y = long(out_y) * conv.stride_y - conv.pad_y + long(window_y) * conv.dilation_y;
                        const long at_x = long(out_x) * conv.stride_x - conv.pad_x + long(window_x) * conv.dilation_x;
                        const bool inside = at_y >= 0 && at_y < long(x.height) && at_x >= 0 && at_x < long(x.width);
                        visit(tap, out_y * y.width + out_x, inside ? at_y : -1, inside ? at_x : -1);
                    }
                }
            }
        }
    }

    // What each output pixel sees: (pixels, taps of the window × inputs).
    template <typename Sum> Values<Sum> seen(const void *maps, size_t image, size_t group) const {
        Values<Sum> seen(y.pixels() * weight.taps());
#pragma omp parallel for if (seen.size() >= 1 << 16)
        for (size_t row = 0; row < y.height; ++row) {
            each_tap(row, row + 1, [&](size_t tap, size_t pixel, long at_y, long at_x) {
                if (at_y < 0) return;
                Sum *to = seen.data() + pixel * weight.taps() + tap * weight.inputs;
                const size_t from = x.at(image, group * weight.inputs, at_y, at_x);
                for (size_t i = 0; i < weight.inputs; ++i) to[i] = load<Sum>(x.kind, maps, from + i * x.channel_stride);
            });
        }
        return seen;
    }

    // (taps × inputs, outputs of the group), or the other way round.
    template <typename Sum> Values<Sum> weights(const void *from, size_t group, bool outputs_first) const {
        Values<Sum> weights(weight.taps() * group_outputs());
        each_weight(group, [&](size_t tap, size_t output, size_t at) {
            weights[outputs_first ? output * weight.taps() + tap : tap * group_outputs() + output] = load<Sum>(weight.kind, from, at);
        });
        return weights;
    }

    template <typename Visit> void each_weight(size_t group, Visit visit) const {
        for (size_t output = 0; output < group_outputs(); ++output) {
            for (size_t tap = 0; tap < weight.taps(); ++tap) {
                const size_t window = tap / weight.inputs;
                visit(tap, output,
                      weight.at(group * group_outputs() + output, tap % weight.inputs, window / weight.width, window % weight.width));
            }
        }
    }

    // (pixels, outputs of the group)
    template <typename Sum> Values<Sum> outputs(const void *maps, size_t image, size_t group) const {
        Values<Sum> outputs(y.pixels() * group_outputs());
        for (size_t pixel = 0; pixel < y.pixels(); ++pixel) {
            const size_t from = y.at(image, group * group_outputs(), pixel / y.width, pixel % y.width);
            for (size_t i = 0; i < group_outputs(); ++i) {
                outputs[pixel * group_outputs() + i] = load<Sum>(y.kind, maps, from + i * y.channel_stride);
            }
        }
        return outputs;
    }

    // Calls `finished(image, channel, y, x, sum)` for every value that comes out.
    template <typename Sum, typename Finished> void forward(const void *maps, const void *filter, Finished finished) const {
        for (size_t group = 0; group < conv.groups; ++group) {
            const Values<Sum> by_output = weights<Sum>(filter, group, false);
            for (size_t image = 0; image < x.images; ++image) {
                const Values<Sum> from = seen<Sum>(maps, image, group);
                Values<Sum> to(y.pixels() * group_outputs());
                emulated::multiply(y.pixels(), group_outputs(), weight.taps(), from.data(), by_output.data(), to.data());
                for (size_t pixel = 0; pixel < y.pixels(); ++pixel) {
                    for (size_t i = 0; i < group_outputs(); ++i) {
                        finished(image, group * group_outputs() + i, pixel / y.width, pixel % y.width, to[pixel * group_outputs() + i]);
                    }
                }
            }
        }
    }

    template <typename Sum> void input_gradient(const void *filter, const void *gradient, void *to) const {
        for (size_t group = 0; group < conv.groups; ++group) {
            const Values<Sum> by_tap = weights<Sum>(filter, group, true);
            for (size_t image = 0; image < x.images; ++image) {
                const Values<Sum> from = outputs<Sum>(gradient, image, group);
                Values<Sum> seen(y.pixels() * weight.taps()), sums(x.pixels() * weight.inputs);
                emulated::multiply(y.pixels(), weight.taps(), group_outputs(), from.data(), by_tap.data(), seen.data());
                each_tap(0, y.height, [&](size_t tap, size_t pixel, long at_y, long at_x) {
                    if (at_y < 0) return;
                    const Sum *part = seen.data() + pixel * weight.taps() + tap * weight.inputs;
                    Sum *sum = sums.data() + (at_y * x.width + at_x) * weight.inputs;
                    for (size_t i = 0; i < weight.inputs; ++i) sum[i] += part[i];
                });
                for (size_t pixel = 0; pixel < x.pixels(); ++pixel) {
                    const size_t at = x.at(image, group * weight.inputs, pixel / x.width, pixel % x.width);
                    for (size_t i = 0; i < weight.inputs; ++i) {
                        store(x.kind, to, at + i * x.channel_stride, sums[pixel * weight.inputs + i]);
                    }
                }
            }
        }
    }

    template <typename Sum> void weight_gradient(const void *maps, const void *gradient, void *to) const {
        for (size_t group = 0; group < conv.groups; ++group) {
            Values<Sum> sums(weight.taps() * group_outputs());
            for (size_t image = 0; image < x.images; ++image) {
                const Values<Sum> from = seen<Sum>(maps, image, group), by_pixel = outputs<Sum>(gradient, image, group);
                Values<Sum> by_tap(from.size());
#pragma omp parallel for if (from.size() >= 1 << 16)
                for (size_t tap = 0; tap < weight.taps(); ++tap) {
                    for (size_t pixel = 0; pixel < y.pixels(); ++pixel) {
                        by_tap[tap * y.pixels() + pixel] = from[pixel * weight.taps() + tap];
                    }
                }
                emulated::multiply(weight.taps(), group_outputs(), y.pixels(), by_tap.data(), by_pixel.data(), sums.data());
            }
            each_weight(group, [&](size_t tap, size_t output, size_t at) {
                store(weight.kind, to, at, sums[tap * group_outputs() + output]);
            });
        }
    }
};

// A factor of a call, f64 for maps of f64, else f32.
double factor(Kind kind, const void *at) {
    return kind == Kind::F64 ? *static_cast<const double *>(at) : *static_cast<const float *>(at);
}

// This program asks for the result alone, and adds it to nothing.
bool is_plain(Kind kind, const void *alpha, const void *beta) {
    return factor(kind, alpha) == 1.0 && factor(kind, beta) == 0.0;
}

template <typename Algorithm, typename Result>
cudnnStatus_t only(Algorithm algorithm, int asked, int *found, Result *results) {
    if (asked < 1) return CUDNN_STATUS_BAD_PARAM;
    *found = 1;
    results[0] = {};
    results[0].algo = algorithm;
    results[0].status = CUDNN_STATUS_SUCCESS;
    results[0].memory = WORKSPACE;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t workspace(bool there_is, size_t *bytes) {
    *bytes = WORKSPACE;
    return there_is ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}

} // namespace

extern "C" {

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
    *handle = new cudnnContext;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    delete handle;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *tensor) {
    *tensor = new cudnnTensorStruct{};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t tensor) {
    delete tensor;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetTensor4dDescriptorEx(
    cudnnTensorDescriptor_t tensor, cudnnDataType_t type, int images, int channels, int height, int width, int image_stride,
    int channel_stride, int row_stride, int pixel_stride) {
    if (!kind_of(type, tensor->kind)) return CUDNN_STATUS_NOT_SUPPORTED;
    if (images < 1 || channels < 1 || height < 1 || width < 1) return CUDNN_STATUS_BAD_PARAM;
    *tensor = {tensor->kind, size_t(images), size_t(channels), size_t(height), size_t(width),
               size_t(image_stride), size_t(channel_stride), size_t(row_stride), size_t(pixel_stride)};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetTensor4dDescriptor(
    cudnnTensorDescriptor_t tensor, cudnnTensorFormat_t format, cudnnDataType_t type, int images, int channels, int height, int width) {
    const int pixels = height * width;
    const bool last = format == CUDNN_TENSOR_NHWC;
    return cudnnSetTensor4dDescriptorEx(
        tensor, type, images, channels, height, width, channels * pixels, last ? 1 : pixels, last ? channels * width : width,
        last ? channels : 1);
}

cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *filter) {
    *filter = new cudnnFilterStruct{};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t filter) {
    delete filter;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetFilter4dDescriptor(
    cudnnFilterDescriptor_t filter, cudnnDataType_t type, cudnnTensorFormat_t format, int outputs, int inputs, int height, int width) {
    if (!kind_of(type, filter->kind)) return CUDNN_STATUS_NOT_SUPPORTED;
    *filter = {filter->kind, format == CUDNN_TENSOR_NHWC, size_t(outputs), size_t(inputs), size_t(height), size_t(width)};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *conv) {
    *conv = new cudnnConvolutionStruct{};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t conv) {
    delete conv;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolution2dDescriptor(
    cudnnConvolutionDescriptor_t conv, int pad_y, int pad_x, int stride_y, int stride_x, int dilation_y, int dilation_x,
    cudnnConvolutionMode_t mode, cudnnDataType_t type) {
    const bool is_known = type == CUDNN_DATA_FLOAT || type == CUDNN_DATA_DOUBLE;
    if (mode != CUDNN_CROSS_CORRELATION || !is_known) return CUDNN_STATUS_NOT_SUPPORTED;
    *conv = {conv->groups, pad_y, pad_x, stride_y, stride_x, dilation_y, dilation_x};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t conv, int groups) {
    conv->groups = groups;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t, cudnnMathType_t) { return CUDNN_STATUS_SUCCESS; }

cudnnStatus_t cudnnCreateActivationDescriptor(cudnnActivationDescriptor_t *activation) {
    *activation = new cudnnActivationStruct{};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetActivationDescriptor(
    cudnnActivationDescriptor_t activation, cudnnActivationMode_t mode, cudnnNanPropagation_t, double) {
    if (mode != CUDNN_ACTIVATION_RELU && mode != CUDNN_ACTIVATION_IDENTITY) return CUDNN_STATUS_NOT_SUPPORTED;
    activation->mode = mode;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreatePoolingDescriptor(cudnnPoolingDescriptor_t *pooling) {
    *pooling = new cudnnPoolingStruct{};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetPoolingNdDescriptor(
    cudnnPoolingDescriptor_t pooling, cudnnPoolingMode_t mode, cudnnNanPropagation_t, int dimensions, const int *sizes, const int *pads,
    const int *strides) {
    if (mode != CUDNN_POOLING_MAX || dimensions != 2) return CUDNN_STATUS_NOT_SUPPORTED;
    *pooling = {sizes[0], sizes[1], pads[0], pads[1], strides[0], strides[1]};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(
    cudnnHandle_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t, cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, int asked,
    int *found, cudnnConvolutionFwdAlgoPerf_t *results) {
    return only(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, asked, found, results);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(
    cudnnHandle_t, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t, cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, int asked,
    int *found, cudnnConvolutionBwdDataAlgoPerf_t *results) {
    return only(CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, asked, found, results);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(
    cudnnHandle_t, cudnnTensorDescriptor_t, cudnnTensorDescriptor_t, cudnnConvolutionDescriptor_t, cudnnFilterDescriptor_t, int asked,
    int *found, cudnnConvolutionBwdFilterAlgoPerf_t *results) {
    return only(CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, asked, found, results);
}

cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(
    cudnnHandle_t, cudnnTensorDescriptor_t x, cudnnFilterDescriptor_t weight, cudnnConvolutionDescriptor_t conv, cudnnTensorDescriptor_t y,
    cudnnConvolutionFwdAlgo_t algorithm, size_t *bytes) {
    if (!Convolution{*x, *weight, *conv, *y}.fits()) return CUDNN_STATUS_BAD_PARAM;
    return workspace(algorithm == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, bytes);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(
    cudnnHandle_t, cudnnFilterDescriptor_t weight, cudnnTensorDescriptor_t y, cudnnConvolutionDescriptor_t conv, cudnnTensorDescriptor_t x,
    cudnnConvolutionBwdDataAlgo_t algorithm, size_t *bytes) {
    if (!Convolution{*x, *weight, *conv, *y}.fits()) return CUDNN_STATUS_BAD_PARAM;
    return workspace(algorithm == CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, bytes);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(
    cudnnHandle_t, cudnnTensorDescriptor_t x, cudnnTensorDescriptor_t y, cudnnConvolutionDescriptor_t conv, cudnnFilterDescriptor_t weight,
    cudnnConvolutionBwdFilterAlgo_t algorithm, size_t *bytes) {
    if (!Convolution{*x, *weight, *conv, *y}.fits()) return CUDNN_STATUS_BAD_PARAM;
    return workspace(algorithm == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, bytes);
}

cudnnStatus_t cudnnConvolutionForward(
    cudnnHandle_t handle, const void *alpha, cudnnTensorDescriptor_t x, const void *maps, cudnnFilterDescriptor_t weight,
    const void *filter, cudnnConvolutionDescriptor_t conv, cudnnConvolutionFwdAlgo_t, void *scratch, size_t given, const void *beta,
    cudnnTensorDescriptor_t y, void *to) {
    const Convolution convolution{*x, *weight, *conv, *y};
    if (!convolution.fits() || given < WORKSPACE || !is_plain(x->kind, alpha, beta)) return CUDNN_STATUS_BAD_PARAM;
    emulated::enqueue(handle->stream, [=] {
        use(scratch);
        emulated::with_sum(convolution.y.kind, [&](auto zero) {
            using Sum = decltype(zero);
            const cudnnTensorStruct &y = convolution.y;
            convolution.forward<Sum>(maps, filter, [&](size_t image, size_t channel, size_t row, size_t column, Sum sum) {
                store(y.kind, to, y.at(image, channel, row, column), sum);
            });
        });
    });
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionBiasActivationForward(
    cudnnHandle_t handle, const void *alpha, cudnnTensorDescriptor_t x, const void *maps, cudnnFilterDescriptor_t weight,
    const void *filter, cudnnConvolutionDescriptor_t conv, cudnnConvolutionFwdAlgo_t, void *scratch, size_t given, const void *counts,
    cudnnTensorDescriptor_t z, const void *residual, cudnnTensorDescriptor_t bias, const void *biases,
    cudnnActivationDescriptor_t activation, cudnnTensorDescriptor_t y, void *to) {
    const Convolution convolution{*x, *weight, *conv, *y};
    const float counted = factor(y->kind, counts);
    if (!convolution.fits() || given < WORKSPACE || y->kind == Kind::F64 || factor(y->kind, alpha) != 1.0 || bias->channels != y->channels) {
        return CUDNN_STATUS_BAD_PARAM;
    }
    const bool relu = activation->mode == CUDNN_ACTIVATION_RELU;
    const cudnnTensorStruct added = *z, per_channel = *bias;
    emulated::enqueue(handle->stream, [=] {
        use(scratch);
        const cudnnTensorStruct &y = convolution.y;
        convolution.forward<float>(maps, filter, [&](size_t image, size_t channel, size_t row, size_t column, float sum) {
            sum += load<float>(per_channel.kind, biases, channel);
            if (counted != 0.0f) sum += counted * load<float>(added.kind, residual, added.at(image, channel, row, column));
            store(y.kind, to, y.at(image, channel, row, column), relu && sum < 0.0f ? 0.0f : sum);
        });
    });
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionBackwardData(
    cudnnHandle_t handle, const void *alpha, cudnnFilterDescriptor_t weight, const void *filter, cudnnTensorDescriptor_t y,
    const void *gradient, cudnnConvolutionDescriptor_t conv, cudnnConvolutionBwdDataAlgo_t, void *scratch, size_t given, const void *beta,
    cudnnTensorDescriptor_t x, void *to) {
    const Convolution convolution{*x, *weight, *conv, *y};
    if (!convolution.fits() || given < WORKSPACE || !is_plain(x->kind, alpha, beta)) return CUDNN_STATUS_BAD_PARAM;
    emulated::enqueue(handle->stream, [=] {
        use(scratch);
        emulated::with_sum(convolution.x.kind, [&](auto zero) { convolution.input_gradient<decltype(zero)>(filter, gradient, to); });
    });
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionBackwardFilter(
    cudnnHandle_t handle, const void *alpha, cudnnTensorDescriptor_t x, const void *maps, cudnnTensorDescriptor_t y, const void *gradient,
    cudnnConvolutionDescriptor_t conv, cudnnConvolutionBwdFilterAlgo_t, void *scratch, size_t given, const void *beta,
    cudnnFilterDescriptor_t weight, void *to) {
    const Convolution convolution{*x, *weight, *conv, *y};
    if (!convolution.fits() || given < WORKSPACE || !is_plain(x->kind, alpha, beta)) return CUDNN_STATUS_BAD_PARAM;
    emulated::enqueue(handle->stream, [=] {
        use(scratch);
        emulated::with_sum(convolution.x.kind, [&](auto zero) { convolution.weight_gradient<decltype(zero)>(maps, gradient, to); });
    });
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnPoolingForward(
    cudnnHandle_t handle, cudnnPoolingDescriptor_t pooling, const void *alpha, cudnnTensorDescriptor_t x, const void *maps,
    const void *beta, cudnnTensorDescriptor_t y, void *to) {
    if (x->kind == Kind::F64 || !is_plain(x->kind, alpha, beta) || x->images != y->images || x->channels != y->channels) return CUDNN_STATUS_BAD_PARAM;
    const cudnnPoolingStruct window = *pooling;
    const cudnnTensorStruct from = *x, out = *y;
    emulated::enqueue(handle->stream, [=] {
#pragma omp parallel for collapse(2)
        for (size_t image = 0; image < out.images; ++image) {
            for (size_t row = 0; row < out.height; ++row) {
                for (size_t column = 0; column < out.width; ++column) {
                    const long top = long(row) * window.stride_y - window.pad_y, left = long(column) * window.stride_x - window.pad_x;
                    const long bottom = std::min(top + window.size_y, long(from.height)), right = std::min(left + window.size_x, long(from.width));
                    for (size_t channel = 0; channel < out.channels; ++channel) {
                        float most = -INFINITY;
                        for (long at_y = std::max(top, 0L); at_y < bottom; ++at_y) {
                            for (long at_x = std::max(left, 0L); at_x < right; ++at_x) {
                                const float value = load<float>(from.kind, maps, from.at(image, channel, at_y, at_x));
                                if (!(value <= most)) most = value; // a NaN stays
                                if (std::isnan(most)) goto known;
                            }
                        }
                    known:
                        store(out.kind, to, out.at(image, channel, row, column), most);
                    }
                }
            }
        }
    });
    return CUDNN_STATUS_SUCCESS;
}

} // extern "C"
