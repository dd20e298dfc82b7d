// Weights in cuDNN's order, and gradients in that of the network: of many convolutions at once.

#include "../../cudnn/packs.cuh"

namespace {

// As in weights.rs.
constexpr unsigned MOST = 96, THREADS = 256, NUMBERS = 4;

struct Table {
    const void *from[MOST];
    void *to[MOST];
    unsigned counts[MOST], inputs[MOST], taps[MOST], first_blocks[MOST];
    unsigned tensors;
};
static_assert(sizeof(Table) == 3080);

// The last whose first block is not behind this one.
__device__ unsigned tensor_of_block(const Table &table) {
    unsigned from = 0, to = table.tensors;
    while (to - from > 1) {
        const unsigned middle = (from + to) / 2;
        (table.first_blocks[middle] <= blockIdx.x ? from : to) = middle;
    }
    return from;
}

// (out, from_rows, from_columns) -> (out, from_columns, from_rows).
template <typename From, typename To> __device__ void turn(const Table &table, unsigned tensor, unsigned rows, unsigned columns) {
    const From *from = static_cast<const From *>(table.from[tensor]);
    To *to = static_cast<To *>(table.to[tensor]);
    const size_t first = size_t(blockIdx.x - table.first_blocks[tensor]) * (THREADS * NUMBERS) + threadIdx.x;
    for (unsigned i = 0; i < NUMBERS; ++i) {
        const size_t index = first + i * THREADS;
        if (index >= table.counts[tensor]) return;
        const unsigned at = unsigned(index), row = at % rows, column = at / rows % columns, output = at / rows / columns;
        to[index] = narrowed<To>(widened(from[(size_t(output) * rows + row) * columns + column]));
    }
}

// (out, in, taps) in f32 -> (out, taps, in).
template <typename T> __device__ void pack_weights(const Table &table) {
    const unsigned tensor = tensor_of_block(table);
    turn<float, T>(table, tensor, table.inputs[tensor], table.taps[tensor]);
}

// (out, taps, in) -> (out, in, taps) in f32.
template <typename T> __device__ void unpack_weights(const Table &table) {
    const unsigned tensor = tensor_of_block(table);
    turn<T, float>(table, tensor, table.taps[tensor], table.inputs[tensor]);
}

} // namespace

extern "C" {

#define OF_TYPE(T, NAME)                                                                                        \
    __global__ void pack_weights_##NAME(const __grid_constant__ Table table) { pack_weights<T>(table); }     \
    __global__ void unpack_weights_##NAME(const __grid_constant__ Table table) { unpack_weights<T>(table); }

OF_TYPE(float, f32)
OF_TYPE(__nv_bfloat16, bf16)
OF_TYPE(__half, f16)
}
