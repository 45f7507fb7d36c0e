// The kernel that computes the map from depth and context for every type and every device.
#pragma once

#include "voxel_pooling/sums.cuh"
#include "voxel_pooling/tiling.cuh"

namespace bevdepth {
namespace {

// Distance between the weights of adjacent columns in shared memory, in numbers. With this
// distance, 16-byte accesses of adjacent columns use different banks.
constexpr int kRowStride = kRows + 4;
constexpr int kMaxGroups = 32;    // channel groups of one block
constexpr int kSplatColumns = 8;  // columns of one block of splat
// Largest number of bins of one block.
template <class S, class A>
constexpr int kSplatBins = kExact<S, A> ? 11 : 14;
// At least this number of blocks of the largest size must fit on a multiprocessor. This limits a
// thread to 128 registers.
constexpr int kSplatBlocks = 2;
constexpr int kSplatWarps = 16;  // warps of these blocks per multiprocessor

// Copies kRows numbers, 16 bytes at a time.
template <class A>
__device__ void copy_rows(const A* source, A* target) {
    constexpr int kCount = 16 / sizeof(A);
#pragma unroll
    for (int row = 0; row < kRows; row += kCount) {
        *reinterpret_cast<Group<A, kCount>*>(target + row) =
            *reinterpret_cast<const Group<A, kCount>*>(source + row);
    }
}

// One block per view, kRows rows, kSplatColumns columns, some depth bins and a slice of the
// channels. Thread (x, y) processes group x of V channels of the slice in column y of the block.
//
// If the camera is level, the points of a column at one depth lie in very few cells, and the
// points of adjacent bins often lie in the same cells. So the thread keeps the features of its
// column in registers, processes the rows of each bin, and adds to memory only when the cell
// changes. Threads of other columns, cameras and blocks add to the same cells, so the thread uses
// atomics.
template <class T, class S, int V>
__global__ void __launch_bounds__(kMaxGroups* kSplatColumns, kSplatBlocks)
    splat(Sizes sizes, Tiling tiling, GeometryCells cells, StridedArray depth, const T* context,
          const std::uint32_t* bounds, S* sums) {
    using A = Accumulator<T>;
    constexpr int kPlaces = kSplatColumns * kSplatBins<S, A>;
    __shared__ RunTile<kPlaces> tile;
    __shared__ alignas(16) A weights[kPlaces][kRowStride];
    __shared__ Bounds largest;
    let_next_kernel_start();
    const Corner corner(tiling, blockIdx.x);
    const unsigned sample =
        static_cast<unsigned>(corner.view) / static_cast<unsigned>(sizes.cameras);
    const int rows = min(kRows, static_cast<int>(sizes.height) - corner.row);
    if constexpr (kExact<S, A>) largest.clear();
    for (int i = threadIdx.y * blockDim.x + threadIdx.x;
         i < kSplatColumns * static_cast<int>(tiling.bins); i += blockDim.x * blockDim.y) {
        const Place place{corner.view, corner.bin + i / kSplatColumns,
                          corner.column + i % kSplatColumns};
        if (place.bin >= sizes.bins || place.column >= sizes.width) {
            tile.leave_out(i);
            continue;
        }
        alignas(16) A weight[kRows];
        load_weights(element<T>(depth, place.view, place.bin, corner.row, place.column),
                     depth.row_stride, rows, weight);
        tile.find(i, sizes, cells, place, corner.row);
        copy_rows(weight, weights[i]);
    }
    wait_for_earlier_kernels();
    __syncthreads();
    if constexpr (kExact<S, A>) {
        largest.read(bounds, sample);
        __syncthreads();
    }
    const int column = corner.column + threadIdx.y,
              channel = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    if (column >= sizes.width || channel >= sizes.channels) return;
    const std::int64_t pixel = (corner.view * sizes.height + corner.row) * sizes.width + column;
    Group<A, V> features[kRows];
    load_features<T, V>(context + pixel * sizes.channels + channel, sizes.width * sizes.channels,
                        rows, features);
    OpenCell<S, A, V> open(sizes, sums, largest, sample, channel);
#pragma unroll 1
    for (int bin = 0; bin < static_cast<int>(tiling.bins); ++bin) {
        const int i = bin * kSplatColumns + threadIdx.y;
        alignas(16) A weight[kRows];
        copy_rows(weights[i], weight);
        open.add(tile, i, features, weight);
    }
    open.close();
}

}  // namespace
}  // namespace bevdepth
