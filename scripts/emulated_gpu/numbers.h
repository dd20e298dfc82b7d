// Values of the kinds that maps and matrices are held in, and products of matrices. What is summed is f64 for f64, else f32.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace emulated {

enum class Kind { F64, F32, F16, BF16 };

template <typename Sum> Sum load(Kind kind, const void *from, size_t at) {
    switch (kind) {
    case Kind::F64: return Sum(static_cast<const double *>(from)[at]);
    case Kind::F16: return __half2float(static_cast<const __half *>(from)[at]);
    case Kind::BF16: return __bfloat162float(static_cast<const __nv_bfloat16 *>(from)[at]);
    default: return static_cast<const float *>(from)[at];
    }
}

template <typename Sum> void store(Kind kind, void *to, size_t at, Sum value) {
    switch (kind) {
    case Kind::F64: static_cast<double *>(to)[at] = value; break;
    case Kind::F16: static_cast<__half *>(to)[at] = __float2half_rn(float(value)); break;
    case Kind::BF16: static_cast<__nv_bfloat16 *>(to)[at] = __float2bfloat16_rn(float(value)); break;
    default: static_cast<float *>(to)[at] = float(value);
    }
}

// Calls `work` with a zero of what sums of such values are.
template <typename Work> void with_sum(Kind kind, Work work) {
    if (kind == Kind::F64) work(0.0);
    else work(0.0f);
}

template <typename Sum> struct Vector;
template <> struct Vector<float> {
    typedef float Type __attribute__((vector_size(64), aligned(4)));
};
template <> struct Vector<double> {
    typedef double Type __attribute__((vector_size(64), aligned(8)));
};

// c (rows, columns) += a (rows, depth) b (depth, columns), row-major, added along `depth` in order.
template <typename Sum> void multiply(size_t rows, size_t columns, size_t depth, const Sum *a, const Sum *b, Sum *c) {
    constexpr size_t ROWS = 4, LANES = 64 / sizeof(Sum);
    using Lanes = typename Vector<Sum>::Type;
#pragma omp parallel for schedule(dynamic, 4) if (rows * columns * depth >= 1 << 18)
    for (size_t row = 0; row < rows; row += ROWS) {
        const size_t height = std::min(ROWS, rows - row);
        const Sum *lines[ROWS];
        for (size_t i = 0; i < ROWS; ++i) lines[i] = a + (row + std::min(i, height - 1)) * depth;
        size_t column = 0;
        for (; column + 2 * LANES <= columns; column += 2 * LANES) {
            Lanes sums[ROWS][2] = {};
            for (size_t k = 0; k < depth; ++k) {
                const Sum *from = b + k * columns + column;
                const Lanes left = *reinterpret_cast<const Lanes *>(from), right = *reinterpret_cast<const Lanes *>(from + LANES);
                for (size_t i = 0; i < ROWS; ++i) {
                    sums[i][0] += lines[i][k] * left;
                    sums[i][1] += lines[i][k] * right;
                }
            }
            for (size_t i = 0; i < height; ++i) {
                Sum *to = c + (row + i) * columns + column;
                for (size_t lane = 0; lane < LANES; ++lane) {
                    to[lane] += sums[i][0][lane];
                    to[LANES + lane] += sums[i][1][lane];
                }
            }
        }
        for (; column < columns; ++column) {
            for (size_t i = 0; i < height; ++i) {
                Sum sum = 0;
                for (size_t k = 0; k < depth; ++k) sum += lines[i][k] * b[k * columns + column];
                c[(row + i) * columns + column] += sum;
            }
        }
    }
}

} // namespace emulated
