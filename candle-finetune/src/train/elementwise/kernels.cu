// What is done on NVIDIA GPUs to each number of many tensors at once: steps of optimisers on parameters, other tensors and what is remembered,
// and what is done to gradients, f32. The formulas of steps are those of the rules that are called so, with the constants that these hand
// over; products and sums may be fused.

namespace {
// As in cuda.rs.
constexpr unsigned MOST = 48, ROLES = 4, CONSTANTS = 8, THREADS = 256, NUMBERS = 4;

struct Table {
    float *roles[ROLES][MOST]; // parameters or gradients, other tensors, what is remembered
    float constants[MOST][CONSTANTS];
    unsigned counts[MOST], first_blocks[MOST];
    unsigned tensors;
};
static_assert(sizeof(Table) == 3464);

// The last whose first block is not behind this one.
__device__ unsigned tensor_of_block(const Table &table) {
    unsigned from = 0, to = table.tensors;
    while (to - from > 1) {
        const unsigned middle = (from + to) / 2;
        (table.first_blocks[middle] <= blockIdx.x ? from : to) = middle;
    }
    return from;
}

// Calls `step(at)` for each number of the tensor that this thread takes.
template <typename Step> __device__ void each(const Table &table, unsigned tensor, Step step) {
    const size_t first = size_t(blockIdx.x - table.first_blocks[tensor]) * (THREADS * NUMBERS) + threadIdx.x;
    for (unsigned i = 0; i < NUMBERS; ++i) {
        const size_t at = first + i * THREADS;
        if (at < table.counts[tensor]) step(at);
    }
}
} // namespace

extern "C" {

__global__ void sgd(const __grid_constant__ Table table) {
    const unsigned tensor = tensor_of_block(table);
    float *value = table.roles[0][tensor], *velocities = table.roles[2][tensor];
    const float *gradients = table.roles[1][tensor], *constants = table.constants[tensor];
    const float momentum = constants[0], nesterov = constants[1], weight_decay = constants[2], step = constants[3];
    each(table, tensor, [=](size_t at) {
        const float gradient = gradients[at] + weight_decay * value[at], velocity = gradient + momentum * velocities[at];
        velocities[at] = velocity;
        value[at] += step * (nesterov != 0.0f ? gradient + momentum * velocity : velocity);
    });
}

__global__ void adamw(const __grid_constant__ Table table) {
    const unsigned tensor = tensor_of_block(table);
    float *value = table.roles[0][tensor], *means = table.roles[2][tensor], *squares = table.roles[3][tensor];
    const float *gradients = table.roles[1][tensor], *constants = table.constants[tensor];
    const float keep_mean = constants[0], take_mean = constants[1], keep_square = constants[2], take_square = constants[3];
    const float root_scale = constants[4], epsilon = constants[5], keep_value = constants[6], step = constants[7];
    each(table, tensor, [=](size_t at) {
        const float gradient = gradients[at];
        const float mean = keep_mean * means[at] + take_mean * gradient;
        const float square = keep_square * squares[at] + take_square * (gradient * gradient);
        means[at] = mean;
        squares[at] = square;
        value[at] = keep_value * value[at] + step * (mean / (root_scale * sqrtf(square) + epsilon));
    });
}

__global__ void interpolate(const __grid_constant__ Table table) {
    const unsigned tensor = tensor_of_block(table);
    float *value = table.roles[0][tensor];
    const float *ends = table.roles[1][tensor];
    const float weight = table.constants[tensor][0];
    each(table, tensor, [=](size_t at) {
        const float start = value[at], end = ends[at], way = end - start;
        value[at] = weight < 0.5f ? start + weight * way : end + (weight - 1.0f) * way;
    });
}

// Of gradients; `overflow` becomes 1 where a number is not finite.
__global__ void unscale(const __grid_constant__ Table table, float *overflow) {
    const unsigned tensor = tensor_of_block(table);
    float *value = table.roles[0][tensor];
    const float factor = table.constants[tensor][0];
    each(table, tensor, [=](size_t at) {
        value[at] *= factor;
        if (!isfinite(value[at])) *overflow = 1.0f;
    });
}

// The sum of the squares of each block's numbers.
__global__ void sum_of_squares(const __grid_constant__ Table table, double *sums) {
    __shared__ double parts[THREADS];
    const unsigned tensor = tensor_of_block(table);
    const float *values = table.roles[0][tensor];
    double sum = 0.0;
    each(table, tensor, [&](size_t at) { sum += double(values[at]) * values[at]; });
    parts[threadIdx.x] = sum;
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = parts[0];
}
}
