// Makes sums exact: the result does not depend on the order in which threads add terms.
//
// Terms of this file, in the order in which they are built on each other:
//
// * Product of a point: depth * context, or volume * 1. Each is a product of two numbers, one from
//   each of two arrays. If there is only one array, the second number is 1.
// * Term: the number that one atomic addition adds to a sum. It is the sum, in float and in a
//   fixed order, of the products of points that one thread processes one after the other in the
//   same cell.
// * Bound of an array: largest finite absolute value in the array. No finite product of a point is
//   larger than the product of the bounds of both arrays.
// * Quantum: a power of two that follows from the bounds. Each term is rounded to a multiple of
//   the quantum. Sums are double, and no sum exceeds 2^53 quanta, so additions cause no rounding
//   error.
#pragma once

#include "voxel_pooling/common.cuh"

namespace bevdepth {
namespace {

// Number of blocks that compute one bound. Each block processes its part of an array.
constexpr unsigned kBoundParts = kSumBounds;

// True if the sums, of type S, are exact. The type S then has more bits than the type A, which is
// the type of the terms.
template <class S, class A>
constexpr bool kExact = sizeof(S) > sizeof(A);

// The two arrays whose bounds are computed. In each sample, array i has groups[i] groups of V
// adjacent values, where V is the template parameter of find_bound. If the second array is null,
// its bound is 1. If `bounds` is null, no bound is computed.
template <class T>
struct Bounded {
    const T* values[2];
    std::int64_t groups[2], samples;
    std::uint32_t* bounds;

    __host__ __device__ std::int64_t blocks() const {
        return bounds == nullptr ? 0 : samples * 2 * kBoundParts;
    }
};

// Computes the bound of one part of one array and writes it to `bounds`. The number of the block
// selects the sample, the array and the part.
template <class T, int V>
__device__ void find_bound(const Bounded<T>& bounded, unsigned block) {
    __shared__ float found[kThreads / kWarp];
    const bool second = block / kBoundParts % 2 != 0;
    const std::int64_t count = second ? bounded.groups[1] : bounded.groups[0],
                       sample = block / kBoundParts / 2;
    const auto* values =
        reinterpret_cast<const Group<T, V>*>(second ? bounded.values[1] : bounded.values[0]);
    float largest = values == nullptr ? 1.0f : 0.0f;
#pragma unroll 4
    for (std::int64_t i = block % kBoundParts * kThreads + threadIdx.x;
         values != nullptr && i < count; i += kBoundParts * kThreads) {
        const Group<T, V> group = values[sample * count + i];
        for (int k = 0; k < V; ++k) {
            const float value = fabsf(static_cast<float>(group.value[k]));
            if (isfinite(value)) largest = fmaxf(largest, value);
        }
    }
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, offset));
    if (threadIdx.x % kWarp == 0) found[threadIdx.x / kWarp] = largest;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (const float other : found) largest = fmaxf(largest, other);
    bounded.bounds[block] = __float_as_uint(largest);
}

// The bounds of both arrays of a sample (the largest finite |depth| and |context|, or the largest
// finite |volume| and 1), in shared memory of a block that adds terms. The bounds are stored as
// the bits of a float, because atomicMax compares integers. Floats that are not negative have the
// same order as their bits.
class Bounds {
  public:
    // Must be called before `read`. The threads must be synchronized between the two calls.
    __device__ void clear() {
        if (thread() < 2) largest_[thread()] = 0;
    }

    // Computes the bound of each array, which is the largest bound of its parts. The threads must
    // be synchronized before they call `product`.
    __device__ void read(const std::uint32_t* bounds, unsigned sample) {
        const uint4* found = reinterpret_cast<const uint4*>(bounds) +
                             static_cast<std::int64_t>(sample) * 2 * kBoundParts / 4;
        const unsigned threads = min(blockDim.x * blockDim.y, kBoundParts / 4);
        for (unsigned i = thread(); thread() < threads && i < kBoundParts / 4; i += threads) {
            const uint4 first = found[i], second = found[i + kBoundParts / 4];
            atomicMax(&largest_[0], max(max(first.x, first.y), max(first.z, first.w)));
            atomicMax(&largest_[1], max(max(second.x, second.y), max(second.z, second.w)));
        }
    }

    // Returns an upper bound of the absolute values of the finite products of points.
    __device__ double product() const {
        return static_cast<double>(__uint_as_float(largest_[0])) * __uint_as_float(largest_[1]);
    }

  private:
    __device__ static unsigned thread() { return threadIdx.y * blockDim.x + threadIdx.x; }

    std::uint32_t largest_[2];
};

// Computes the quantum of a sample and rounds terms to multiples of the quantum. The last bit of
// the mantissa of shift_ has the value of the quantum. Therefore the addition term + shift_ rounds
// the term to a multiple of the quantum, and the subtraction of shift_ is exact. The factor 1.5 in
// shift_ has the effect that term + shift_ has the same exponent as shift_ for both signs of the
// term.
class Quantum {
  public:
    __device__ Quantum(const Sizes& sizes, const Bounds& bounds) {
        const double largest = bounds.product();
        const std::int64_t points = sizes.cameras * sizes.bins * sizes.height * sizes.width;
        const int exponent = largest > 0 ? ilogb(largest) + 1 + 64 - __clzll(points)
                                         : 0;  // no sum exceeds 2^exponent
        shift_ =
            largest > 0 ? scalbn(1.5, exponent + 1) : 0;  // the last bit of shift_ is the quantum
    }

    __device__ double round(float term) const {
        return __dsub_rn(__dadd_rn(term, shift_), shift_);
    }

  private:
    double shift_;
};

}  // namespace
}  // namespace bevdepth
