// Kernels for a volume, in which every point has its own features. They compute the map, and the
// gradient of the volume.
#pragma once

#include "voxel_pooling/sums.cuh"
#include "voxel_pooling/tiling.cuh"

namespace bevdepth {
namespace {

constexpr int kVolumeColumns = 64;  // columns of one block of splat_volume

// One block per view, depth bin, kRows rows and up to 64 columns. Thread (x, y) processes column x
// of the block, and every blockDim.y-th group of V channels, beginning with group y. Adjacent
// threads read adjacent columns. As in splat, a thread adds to memory only when the cell changes,
// and uses atomics because other threads add to the same cells.
template <class T, class S, int V>
__global__ void splat_volume(Sizes sizes, Tiling tiling, IndexedCells cells, const T* volume,
                             const std::uint32_t* bounds, S* sums) {
    using A = Accumulator<T>;
    __shared__ RunTile<kVolumeColumns> tile;
    __shared__ Bounds largest;
    let_next_kernel_start();
    const Corner corner(tiling, blockIdx.x);
    const int column = corner.column + threadIdx.x,
              rows = min(kRows, static_cast<int>(sizes.height) - corner.row);
    const unsigned sample =
        static_cast<unsigned>(corner.view) / static_cast<unsigned>(sizes.cameras);
    if constexpr (kExact<S, A>) largest.clear();
    if (threadIdx.y == 0 && column < sizes.width) {
        tile.find(threadIdx.x, sizes, cells, {corner.view, corner.bin, column}, corner.row);
    }
    wait_for_earlier_kernels();
    __syncthreads();
    if constexpr (kExact<S, A>) {
        largest.read(bounds, sample);
        __syncthreads();
    }
    if (column >= sizes.width || tile.runs[threadIdx.x] == 0) return;
    const std::int64_t plane = sizes.bins * sizes.height * sizes.width;
    A ones[kRows];
    for (A& one : ones) one = 1;
    for (int channel = threadIdx.y * V; channel < sizes.channels; channel += blockDim.y * V) {
        const T* top = volume + (corner.view * sizes.channels + channel) * plane +
                       (corner.bin * sizes.height + corner.row) * sizes.width + column;
        Group<T, V> features[kRows];
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
            for (int k = 0; k < V; ++k)
                features[row].value[k] = top[k * plane + min(row, rows - 1) * sizes.width];
        }
        OpenCell<S, A, V> open(sizes, sums, largest, sample, channel);
        open.add(tile, threadIdx.x, features, ones);
        open.close();
    }
}

// One thread per point copies the gradient of the point's cell, V channels at a time; a point
// outside of the grid has the gradient 0. Adjacent threads write adjacent points.
template <class T, int V>
__global__ void gather_grad_volume(Sizes sizes, IndexedCells cells, std::int64_t points,
                                   const T* grad_map, T* grad_volume) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= points) return;
    const std::int64_t plane = sizes.bins * sizes.height * sizes.width, view = i / plane,
                       line = i / sizes.width;
    const Place place{view, static_cast<int>(line / sizes.height % sizes.bins),
                      static_cast<int>(i % sizes.width)};
    const int cell =
        IndexedColumn(sizes, cells, place).cell(sizes, static_cast<int>(line % sizes.height));
    const T* gradient =
        grad_map + (view / sizes.cameras * sizes.nx * sizes.ny + cell) * sizes.channels;
    T* target = grad_volume + view * sizes.channels * plane + i % plane;
#pragma unroll 4
    for (int channel = 0; channel < sizes.channels; channel += V) {
        Group<T, V> group = {};
        if (cell != kOutside) group = *reinterpret_cast<const Group<T, V>*>(gradient + channel);
        for (int k = 0; k < V; ++k) target[(channel + k) * plane] = group.value[k];
    }
}

}  // namespace
}  // namespace bevdepth
