// Kernels that compute the gradients of depth and context.
#pragma once

#include "voxel_pooling/splat.cuh"

namespace bevdepth {
namespace {

// Sizes of gather_grad_depth. A block processes kDepthColumns columns and kDepthBins *
// kDepthRounds bins; a thread processes every kDepthBins-th bin, one in each round.
constexpr int kDepthColumns = 4, kDepthBins = 4, kDepthRounds = 4;
constexpr int kContextBins = 32;  // depth bins that gather_grad_context looks up at a time

// grad_depth[point] = dot product of the features of the point's pixel and the gradient of the
// point's cell.
// One block per view, kRows rows, and some columns and bins; each thread computes kDepthRounds
// bins of one pixel. Shared memory contains the features of one slice of the channels at a time.
// Only one thread computes each result, so atomics are not needed, and the order of the sum is
// fixed.
template <class T, int V>
__global__ void gather_grad_depth(Sizes sizes, Tiling tiling, GeometryCells cells,
                                  const T* context, const T* grad_map, T* grad_depth) {
    using A = Accumulator<T>;
    constexpr int kPixels = kDepthColumns * kRows, kSlice = 384 / sizeof(A);
    __shared__ alignas(16) A features[kPixels][kSlice + V];
    let_next_kernel_start();
    const Corner corner(tiling, blockIdx.x);
    const int pixel = threadIdx.x % kPixels, column = corner.column + pixel % kDepthColumns,
              row = corner.row + pixel / kDepthColumns;
    const int first_bin = corner.bin + threadIdx.x / kPixels;
    const bool works = row < sizes.height && column < sizes.width;
    const T* sample_map =
        grad_map + corner.view / sizes.cameras * sizes.nx * sizes.ny * sizes.channels;
    const T* gradient[kDepthRounds];  // gradient of the cell of each point, or null
    A product[kDepthRounds] = {};
#pragma unroll
    for (int round = 0; round < kDepthRounds; ++round) {
        const int bin = first_bin + round * kDepthBins;
        const Place place{corner.view, bin, column};
        const int cell = works && bin < sizes.bins
                             ? GeometryColumn(sizes, cells, place).cell(sizes, row)
                             : kOutside;
        gradient[round] = cell == kOutside ? nullptr : sample_map + cell * sizes.channels;
    }
    wait_for_earlier_kernels();
    for (int slice = 0; slice < sizes.channels; slice += kSlice) {
        const int channels = min(kSlice, static_cast<int>(sizes.channels) - slice),
                  groups = channels / V;
        __syncthreads();
        for (int i = threadIdx.x; i < kPixels * groups; i += kThreads) {
            const int p = i / groups, channel = i % groups * V;
            const int x = corner.column + p % kDepthColumns, y = corner.row + p / kDepthColumns;
            if (x >= sizes.width || y >= sizes.height) continue;
            const T* source =
                context + ((corner.view * sizes.height + y) * sizes.width + x) * sizes.channels +
                slice + channel;
            *reinterpret_cast<Group<A, V>*>(&features[p][channel]) = load_group<T, V>(source);
        }
        __syncthreads();
#pragma unroll 2
        for (int channel = 0; channel < channels; channel += V) {
            const auto feature = *reinterpret_cast<const Group<A, V>*>(&features[pixel][channel]);
#pragma unroll
            for (int round = 0; round < kDepthRounds; ++round) {
                if (gradient[round] == nullptr) continue;
                const auto group = load_group<T, V>(gradient[round] + slice + channel);
                for (int k = 0; k < V; ++k) product[round] += feature.value[k] * group.value[k];
            }
        }
    }
#pragma unroll
    for (int round = 0; round < kDepthRounds; ++round) {
        const std::int64_t bin = first_bin + round * kDepthBins;
        if (!works || bin >= sizes.bins) continue;
        grad_depth[((corner.view * sizes.bins + bin) * sizes.height + row) * sizes.width +
                   column] = static_cast<T>(product[round]);
    }
}

// grad_context[pixel] = sum over the depth bins of the pixel of (depth * gradient of the cell).
// One block per view, column, kRows rows and slice of the channels; one thread (x, y) per group of
// V channels and row, which sums over the bins in order. Only one thread computes each result, so
// atomics are not needed, and the order of the sum is fixed.
template <class T, int V>
__global__ void __launch_bounds__(kMaxGroups* kRows)
    gather_grad_context(Sizes sizes, Tiling tiling, GeometryCells cells, StridedArray depth,
                        const T* grad_map, T* grad_context) {
    using A = Accumulator<T>;
    struct Point {
        A weight;
        int cell;
    };
    __shared__ Point points[kContextBins][kRows];
    let_next_kernel_start();
    const Corner corner(tiling, blockIdx.x);
    const std::int64_t row = corner.row + threadIdx.y;
    const std::int64_t channel =
        (static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * V;
    const bool works = row < sizes.height && channel < sizes.channels;
    const T* sample_map =
        grad_map + corner.view / sizes.cameras * sizes.nx * sizes.ny * sizes.channels + channel;
    Group<A, V> sum = {};
    for (int near = 0; near < sizes.bins; near += kContextBins) {
        __syncthreads();
        for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < kContextBins * kRows;
             i += blockDim.x * blockDim.y) {
            const Place place{corner.view, near + i / kRows, corner.column};
            const int y = corner.row + i % kRows;
            const bool exists = place.bin < sizes.bins && y < sizes.height;
            const int cell =
                exists ? GeometryColumn(sizes, cells, place).cell(sizes, y) : kOutside;
            const A weight =
                exists ? static_cast<A>(*element<T>(depth, place.view, place.bin, y, place.column))
                       : A(0);
            points[i / kRows][i % kRows] = {weight, cell};
        }
        __syncthreads();
        if (!works) continue;
#pragma unroll 8
        for (int bin = 0; bin < kContextBins; ++bin) {
            const Point point = points[bin][threadIdx.y];
            if (point.cell == kOutside) continue;
            const auto gradient = load_group<T, V>(sample_map + point.cell * sizes.channels);
            for (int k = 0; k < V; ++k) sum.value[k] += point.weight * gradient.value[k];
        }
    }
    if (!works) return;
    Group<T, V> rounded;
    for (int k = 0; k < V; ++k) rounded.value[k] = static_cast<T>(sum.value[k]);
    const std::int64_t pixel = (corner.view * sizes.height + row) * sizes.width + corner.column;
    *reinterpret_cast<Group<T, V>*>(grad_context + pixel * sizes.channels + channel) = rounded;
}

}  // namespace
}  // namespace bevdepth
