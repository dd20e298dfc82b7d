// cuRAND, as far as this program calls it: libcurand.so.10. Other numbers than cuRAND's, of the same distributions.

#include <random>

#include <curand.h>

#include "streams.h"

struct curandGenerator_st {
    CUstream stream = nullptr;
    std::mt19937_64 random;
};

namespace {

template <typename T, typename Distribution>
curandStatus_t generate(curandGenerator_t generator, T *to, size_t count, Distribution distribution) {
    emulated::enqueue(generator->stream, [=]() mutable {
        for (size_t i = 0; i < count; ++i) to[i] = distribution(generator->random);
    });
    return CURAND_STATUS_SUCCESS;
}

template <typename T> curandStatus_t normal(curandGenerator_t generator, T *to, size_t count, T mean, T deviation) {
    if (count % 2) return CURAND_STATUS_LENGTH_NOT_MULTIPLE; // it makes them in pairs
    return generate(generator, to, count, std::normal_distribution<T>(mean, deviation));
}

} // namespace

extern "C" {

curandStatus_t curandCreateGenerator(curandGenerator_t *generator, curandRngType_t) {
    *generator = new curandGenerator_st;
    return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandDestroyGenerator(curandGenerator_t generator) {
    emulated::enqueue_always(generator->stream, [=] { delete generator; });
    return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandSetStream(curandGenerator_t generator, cudaStream_t stream) {
    generator->stream = stream;
    return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t generator, unsigned long long seed) {
    emulated::enqueue_always(generator->stream, [=] { generator->random.seed(seed); });
    return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandGenerateUniform(curandGenerator_t generator, float *to, size_t count) {
    return generate(generator, to, count, std::uniform_real_distribution<float>());
}
curandStatus_t curandGenerateUniformDouble(curandGenerator_t generator, double *to, size_t count) {
    return generate(generator, to, count, std::uniform_real_distribution<double>());
}
curandStatus_t curandGenerateNormal(curandGenerator_t generator, float *to, size_t count, float mean, float deviation) {
    return normal(generator, to, count, mean, deviation);
}
curandStatus_t curandGenerateNormalDouble(curandGenerator_t generator, double *to, size_t count, double mean, double deviation) {
    return normal(generator, to, count, mean, deviation);
}

} // extern "C"
