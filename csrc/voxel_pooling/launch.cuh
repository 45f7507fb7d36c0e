// Launches kernels from the host: checks sizes, selects types and handles errors.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "device.cuh"
#include "voxel_pooling/common.cuh"

namespace bevdepth {
namespace {

// Returns the product of the factors. Throws if a factor is negative, or if an array of this many
// 8-byte numbers could not be addressed.
std::int64_t checked_product(std::initializer_list<std::int64_t> factors) {
    constexpr std::int64_t limit = std::numeric_limits<std::int64_t>::max() / 8;
    std::int64_t product = 1;
    for (const std::int64_t factor : factors) {
        if (factor < 0) throw std::invalid_argument("voxel pooling: a size is negative");
        if (factor > 0 && product > limit / factor)
            throw std::invalid_argument("voxel pooling: the arrays are too large to be addressed");
        product *= factor;
    }
    return product;
}

// Throws if sizes overflow the integers of the kernels. Numbers of channels, of points per camera
// and of cells of the grid must fit into int32; sizes of arrays must fit into int64.
void check_sizes(const Sizes& s) {
    constexpr std::int64_t limit = std::numeric_limits<std::int32_t>::max();
    checked_product(
        {s.batch, s.cameras, s.bins, s.height, s.width, std::max<std::int64_t>(s.channels, 3)});
    checked_product({s.batch, s.channels, s.nx, s.ny});
    if (checked_product({s.nx, s.ny}) > limit)
        throw std::invalid_argument("voxel pooling: the grid has more than 2^31 - 1 cells");
    if (s.channels > limit || checked_product({s.bins, s.height, s.width}) > limit) {
        throw std::invalid_argument(
            "voxel pooling: a camera has more than 2^31 - 1 points or channels");
    }
}

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

// Returns the number of multiprocessors of the current device.
std::int64_t multiprocessors() {
    int device, count;
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
          "cudaDeviceGetAttribute");
    return count;
}

// early: the kernel may start while the previous kernel runs (sm_90 and newer). This is allowed
// only for kernels that call wait_for_earlier_kernels before they use results of earlier kernels.
enum class Start { after_previous, early };

// Returns the architecture for which the code of the kernel was compiled, such as 90 for sm_90. It
// can be older than the architecture of the device.
template <class... Parameters>
int code_version(void (*kernel)(Parameters...)) {
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
    return attributes.ptxVersion;
}

// Launches the kernel, unless its grid is empty. The grid has `blocks` blocks along x; its sizes
// along y and z are others.y and others.z.
template <class... Parameters, class... Arguments>
void run(const Launch& launch, Start start, void (*kernel)(Parameters...), std::int64_t blocks,
         dim3 others, dim3 threads, Arguments... arguments) {
    if (blocks == 0 || others.y == 0 || others.z == 0) return;
    if (blocks > std::numeric_limits<std::int32_t>::max() ||
        others.y > std::numeric_limits<std::uint16_t>::max()) {
        throw std::invalid_argument("voxel pooling: the arrays are too large for one launch");
    }
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks), others.y, others.z);
    config.blockDim = threads;
    config.stream = reinterpret_cast<cudaStream_t>(launch.stream);
    config.attrs = &early;
    config.numAttrs = start == Start::early && code_version(kernel) >= 90 ? 1 : 0;
    check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...),
          "launching a kernel of voxel pooling");
}

template <class T>
struct Type {
    using type = T;
};

template <class F>
void for_dtype(Dtype dtype, F call) {
    switch (dtype) {
        case Dtype::float16:
            return call(Type<__half>{});
        case Dtype::bfloat16:
            return call(Type<__nv_bfloat16>{});
        case Dtype::float32:
            return call(Type<float>{});
        case Dtype::float64:
            return call(Type<double>{});
    }
    throw std::invalid_argument("voxel pooling: unknown dtype");
}

// Calls `call` with the number of channels that one access reads or writes: 4 if T is not double,
// the number of channels is a multiple of 4, and the arrays are aligned; otherwise 1.
template <class T, class F>
void for_group(const Sizes& sizes, std::initializer_list<const void*> arrays, F call) {
    bool aligned = sizes.channels % 4 == 0;
    for (const void* array : arrays)
        aligned = aligned && reinterpret_cast<std::uintptr_t>(array) % (4 * sizeof(T)) == 0;
    if constexpr (!std::is_same_v<T, double>) {
        if (aligned) return call(std::integral_constant<int, 4>{});
    }
    call(std::integral_constant<int, 1>{});
}

// Calls `call` with the type of the sums, which depends on T and on `exact`.
template <class T, class F>
void for_sums(bool exact, F call) {
    if constexpr (std::is_same_v<T, double>) {
        if (exact) throw std::invalid_argument("voxel pooling: float64 has no exact sums");
    } else {
        if (exact) return call(Type<double>{});
    }
    call(Type<Accumulator<T>>{});
}

}  // namespace
}  // namespace bevdepth
