// cuBLAS, as far as this program calls it: libcublas.so.13. Of halves sums are f32.

#include <algorithm>

#include <cublas_v2.h>

#include "numbers.h"
#include "streams.h"

using emulated::Kind;

struct cublasContext {
    CUstream stream = nullptr;
};

namespace {

bool kind_of(cudaDataType type, Kind &kind) {
    switch (type) {
    case CUDA_R_32F: kind = Kind::F32; return true;
    case CUDA_R_16F: kind = Kind::F16; return true;
    case CUDA_R_16BF: kind = Kind::BF16; return true;
    default: return false;
    }
}

// A factor, column-major.
struct Matrix {
    Kind kind;
    const void *values;
    long leading, stride;
    bool transposed;

    // Its transpose row-major, of `rows` by `columns` without the transposing that it says itself.
    template <typename Sum> std::vector<Sum> row_major(long batch, size_t rows, size_t columns) const {
        std::vector<Sum> found(rows * columns);
        for (size_t row = 0; row < rows; ++row) {
            for (size_t column = 0; column < columns; ++column) {
                const long at = transposed ? row + column * leading : row * leading + column;
                found[row * columns + column] = load<Sum>(kind, values, batch * stride + at);
            }
        }
        return found;
    }
};

// What a call computes, for each batch: `c` (m, n) = product · a b + before · c.
struct Product {
    size_t m, n, k;
    double product, before;
    Matrix a, b;
    Kind kind;
    void *c;
    long leading, stride;

    template <typename Sum> void compute(long batch) const {
        // Column-major c is row-major its transpose: bᵀ aᵀ.
        const std::vector<Sum> rows = b.row_major<Sum>(batch, n, k), columns = a.row_major<Sum>(batch, k, m);
        std::vector<Sum> sums(m * n);
        emulated::multiply(n, m, k, rows.data(), columns.data(), sums.data());
        for (size_t column = 0; column < n; ++column) {
            for (size_t row = 0; row < m; ++row) {
                const size_t at = batch * stride + column * leading + row;
                const Sum old = before == 0.0 ? Sum(0) : Sum(before) * load<Sum>(kind, c, at);
                store(kind, c, at, Sum(product) * sums[column * m + row] + old);
            }
        }
    }
};

void enqueue(cublasHandle_t handle, int batches, const Product &product) {
    emulated::enqueue(handle->stream, [=] {
        for (long batch = 0; batch < batches; ++batch) {
            emulated::with_sum(product.kind, [&](auto zero) { product.compute<decltype(zero)>(batch); });
        }
    });
}

} // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle) {
    *handle = new cublasContext;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmStridedBatchedEx(
    cublasHandle_t handle, cublasOperation_t a_operation, cublasOperation_t b_operation, int m, int n, int k, const void *alpha,
    const void *a, cudaDataType a_type, int a_leading, long long a_stride, const void *b, cudaDataType b_type, int b_leading,
    long long b_stride, const void *beta, void *c, cudaDataType c_type, int c_leading, long long c_stride, int batches,
    cublasComputeType_t compute, cublasGemmAlgo_t) {
    Matrix left{{}, a, a_leading, long(a_stride), a_operation != CUBLAS_OP_N};
    Matrix right{{}, b, b_leading, long(b_stride), b_operation != CUBLAS_OP_N};
    Kind kind;
    if (!kind_of(a_type, left.kind) || !kind_of(b_type, right.kind) || !kind_of(c_type, kind)) return CUBLAS_STATUS_NOT_SUPPORTED;
    // What the factors are held in follows from what is computed in.
    const bool halves = compute == CUBLAS_COMPUTE_16F || compute == CUBLAS_COMPUTE_16F_PEDANTIC;
    const Kind factors = halves ? Kind::F16 : Kind::F32;
    const double product = load<float>(factors, alpha, 0), before = load<float>(factors, beta, 0);
    enqueue(handle, batches, {size_t(m), size_t(n), size_t(k), product, before, left, right, kind, c, c_leading, long(c_stride)});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDgemmStridedBatched(
    cublasHandle_t handle, cublasOperation_t a_operation, cublasOperation_t b_operation, int m, int n, int k, const double *alpha,
    const double *a, int a_leading, long long a_stride, const double *b, int b_leading, long long b_stride, const double *beta, double *c,
    int c_leading, long long c_stride, int batches) {
    const Matrix left{Kind::F64, a, a_leading, long(a_stride), a_operation != CUBLAS_OP_N};
    const Matrix right{Kind::F64, b, b_leading, long(b_stride), b_operation != CUBLAS_OP_N};
    enqueue(
        handle, batches,
        {size_t(m), size_t(n), size_t(k), *alpha, *beta, left, right, Kind::F64, c, c_leading, long(c_stride)});
    return CUBLAS_STATUS_SUCCESS;
}

} // extern "C"
