// Steps of optimisers on NVIDIA GPUs: one pass over a parameter, another tensor and what is remembered, f32. The formulas are those of
// the rules that are called so, with the constants that these hand over; products and sums may be fused.

namespace {
__device__ unsigned place() { return blockIdx.x * blockDim.x + threadIdx.x; }
} // namespace

extern "C" {

__global__ void sgd(
    float *value, const float *gradients, unsigned count, float *velocities, float momentum, float nesterov, float weight_decay,
    float step) {
    const unsigned at = place();
    if (at >= count) return;
    const float gradient = gradients[at] + weight_decay * value[at], velocity = gradient + momentum * velocities[at];
    velocities[at] = velocity;
    value[at] += step * (nesterov != 0.0f ? gradient + momentum * velocity : velocity);
}

__global__ void adamw(
    float *value, const float *gradients, unsigned count, float *means, float *squares, float keep_mean, float take_mean,
    float keep_square, float take_square, float root_scale, float epsilon, float keep_value, float step) {
    const unsigned at = place();
    if (at >= count) return;
    const float gradient = gradients[at];
    const float mean = keep_mean * means[at] + take_mean * gradient;
    const float square = keep_square * squares[at] + take_square * (gradient * gradient);
    means[at] = mean;
    squares[at] = square;
    value[at] = keep_value * value[at] + step * (mean / (root_scale * sqrtf(square) + epsilon));
}

// Of a gradient; `overflow` becomes 1 where a number is not finite.
__global__ void unscale(float *value, unsigned count, float factor, float *overflow) {
    const unsigned at = place();
    if (at >= count) return;
    value[at] *= factor;
    if (!isfinite(value[at])) *overflow = 1.0f;
}

__global__ void interpolate(float *value, const float *ends, unsigned count, float weight) {
    const unsigned at = place();
    if (at >= count) return;
    const float start = value[at], end = ends[at], way = end - start;
    value[at] = weight < 0.5f ? start + weight * way : end + (weight - 1.0f) * way;
}
}
