// Types and functions that all kernels of voxel pooling use: number types, groups of channels, and
// functions for kernels that start early.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "voxel_pooling/voxel_pooling.h"

namespace bevdepth {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kThreads = 256;  // threads of a block, unless a kernel sets another number
constexpr int kRows = 16;      // rows of the feature map that a block processes

template <class T>
struct AccumulatorOf {
    using type = float;
};
template <>
struct AccumulatorOf<double> {
    using type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

// V neighboring channels that are loaded and stored together.
template <class T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Group {
    T value[V];
};

template <class T, int V>
__device__ Group<Accumulator<T>, V> load_group(const T* source) {
    const Group<T, V> stored = *reinterpret_cast<const Group<T, V>*>(source);
    Group<Accumulator<T>, V> group;
    for (int k = 0; k < V; ++k) group.value[k] = static_cast<Accumulator<T>>(stored.value[k]);
    return group;
}

// A kernel can be launched early (see Start::early): it starts while the previous kernel still
// runs. It may read the inputs of the op immediately, but must call wait_for_earlier_kernels
// before it reads or writes memory that an earlier kernel writes.
__device__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ void wait_for_earlier_kernels() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace
}  // namespace bevdepth
