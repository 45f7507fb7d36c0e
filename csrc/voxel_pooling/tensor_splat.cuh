// The kernel that computes the map from float16 or bfloat16 depth and context on tensor cores
// (sm_80 and newer).
//
// Terms of this file, in the order in which they are built on each other:
//
// * Point: a pixel of the feature map at one depth bin. The weight of the point is the depth
//   probability of the pixel for this bin. The features of the point are the C context channels of
//   the pixel, which do not depend on the bin.
// * Points of a warp: the 256 points that a warp processes at a time. They lie in one image
//   column, in 16 depth bins and 16 rows.
// * Selected cell of a bin: one of the cells that contain points of this bin. If all points of
//   each bin were in the selected cell of the bin, the numbers that the warp must add to the map
//   would be one matrix product, which sums over the rows:
//
//     sums (16 bins x C) = weights (16 bins x 16 rows) x features (16 rows x C)
//
// * Pass: a bin may have points in several cells, so the warp repeats the product. In each pass,
//   the warp selects for every bin the remaining cell with the lowest number, sets the weights of
//   the points in all other cells to zero, multiplies, adds row b of the product to the selected
//   cell of bin b, and marks the added points as done.
// * Lane: a thread of the warp, lane = 4 g + t with g = 0 to 7 and t = 0 to 3.
//
// The instruction mma requires that each lane has certain weights. The 32-bit registers pair[0] to
// pair[3] of a lane contain the weights of two rows each. The diagram shows the numbers of the
// lanes:
//
//        rows     0, 1    2, 3    4, 5    6, 7 |  8, 9  10, 11  12, 13  14, 15
//   ---------------------- pair[0] ------------+------------ pair[2] -----------
//   bin  0 (g = 0)   0       1       2       3 |     0       1       2       3
//   bin  1 (g = 1)   4       5       6       7 |     4       5       6       7
//   ...                                        |
//   bin  7 (g = 7)  28      29      30      31 |    28      29      30      31
//   ---------------------- pair[1] ------------+------------ pair[3] -----------
//   bin  8 (g = 0)   0       1       2       3 |     0       1       2       3
//   ...                                        |
//   bin 15 (g = 7)  28      29      30      31 |    28      29      30      31
//
// So each lane has 8 points, which lie in the bins g and g + 8. The four lanes with the same g
// have all points of these two bins.
#pragma once

#include <cstring>
#include <limits>

#include "voxel_pooling/launch.cuh"
#include "voxel_pooling/line_tiles.cuh"
#include "voxel_pooling/sums.cuh"

namespace bevdepth {
namespace {

constexpr int kTensorBins = 16;      // bins that a warp processes at a time
constexpr int kTensorBlocks = 4;     // blocks per multiprocessor
constexpr int kTensorChannels = 80;  // largest number of channels of one block
constexpr int kTensorStep = 16;      // channels multiplied at a time
// Cell of a point that lies outside of the grid or has already been added. It is larger than all
// numbers of cells, so the minimum over the points of a bin is kNowhere only if no point remains.
constexpr int kNowhere = std::numeric_limits<int>::max();

#if __CUDA_ARCH__ >= 800
// Loads four matrices of 8 x 8 numbers from shared memory. Lane i passes the address of row i % 8
// of matrix i / 8. From row g of each matrix, every lane receives the numbers 2t and 2t + 1.
__device__ void load_matrices(const void* row, unsigned (&matrix)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row))));
}

// Adds the product of weights a (16 bins x 16 rows) and features b (16 rows x 8 lines) to `sum`.
// sum[0] and sum[1] are the results of bin g for the lines 2t and 2t + 1; sum[2] and sum[3] are
// the results of bin g + 8 for the same lines. The first argument selects the type of a and b.
__device__ void multiply(__half, const unsigned (&a)[4], const unsigned* b, float (&sum)[4]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ void multiply(__nv_bfloat16, const unsigned (&a)[4], const unsigned* b,
                         float (&sum)[4]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The cells of the 8 points of a thread. The points are in the bins g and g + 8 of the 16 bins of
// a column, and in the rows 2t, 2t + 1, 2t + 8 and 2t + 9, where lane = 4 g + t.
struct PointCells {
    // Indices: bin g or g + 8; rows 0 to 7 or rows 8 to 15; first or second row of the pair.
    int cell[2][2][2];

    // Marks the points in the cell done[b] of each bin b as done.
    __device__ void leave_out(const int (&done)[2]) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            int& point = cell[i / 4][i / 2 % 2][i % 2];
            if (point == done[i / 4]) point = kNowhere;
        }
    }
};

// Finds, for each of the two bins of a thread, the remaining cell with the lowest number. The four
// lanes that share the two bins find the same cells. A bin without remaining points gets kNowhere.
// Returns true if at least one thread of the warp found a cell.
__device__ bool next_cells(const PointCells& points, int (&cell)[2]) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
        cell[b] = min(min(points.cell[b][0][0], points.cell[b][0][1]),
                      min(points.cell[b][1][0], points.cell[b][1][1]));
        cell[b] = min(cell[b], __shfl_xor_sync(kAllLanes, cell[b], 1));
        cell[b] = min(cell[b], __shfl_xor_sync(kAllLanes, cell[b], 2));
    }
    return !__all_sync(kAllLanes, min(cell[0], cell[1]) == kNowhere);
}

// The weights of the points of a thread.
template <class T>
struct Weights {
    // Index: 0 for bin g or 1 for bin g + 8, plus 0 for rows 0 to 7 or 2 for rows 8 to 15.
    unsigned pair[4];

    // Reads the weights of 16 bins, beginning with line `bin` of the tile.
    template <int Lines>
    __device__ Weights(LineTile<T, Lines>& tile, int column, int bin) {
        const int lane = threadIdx.x % kWarp;
        load_matrices(tile.line(column, bin + lane % 16) + lane / 16 * 8, pair);
    }

    // Returns a copy in which the weights of all points outside of the selected cells are zero.
    __device__ Weights select(const PointCells& points, const int (&cell)[2]) const {
        Weights selected = *this;
#pragma unroll
        for (int bin = 0; bin < 2; ++bin) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const unsigned low = points.cell[bin][half][0] == cell[bin] ? 0x0000ffffu : 0u;
                const unsigned high = points.cell[bin][half][1] == cell[bin] ? 0xffff0000u : 0u;
                selected.pair[bin + 2 * half] &= low | high;
            }
        }
        return selected;
    }

    // Returns the weight of one point. The parameters have the order of PointCells::cell.
    __device__ float at(int bin, int half, int row) const {
        RowPair<T> rows;
        memcpy(&rows, &pair[bin + 2 * half], sizeof(rows));
        return static_cast<float>(row == 0 ? rows.x : rows.y);
    }

    // Multiplies the weights by the features of the 16 channels in the lines `channel` to
    // channel + 15 of the tile. Writes four results of each of the two bins to `sum`. They belong
    // to the channels 4t to 4t + 3 of the 16 channels, see channel_line.
    template <int Lines>
    __device__ void times(LineTile<T, Lines>& tile, int column, int channel,
                          float (&sum)[2][4]) const {
        const int lane = threadIdx.x % kWarp;
        // The first two matrices are the rows 0 to 7 and 8 to 15 of the first 8 lines. The last
        // two matrices are the same rows of the next 8 lines.
        unsigned features[4];
        load_matrices(tile.line(column, channel + lane / 16 * 8 + lane % 8) + lane / 8 % 2 * 8,
                      features);
#pragma unroll
        for (int side = 0; side < 2; ++side) {
            float product[4] = {};
            multiply(T(), pair, features + side * 2, product);
#pragma unroll
            for (int bin = 0; bin < 2; ++bin) {
                sum[bin][side * 2] = product[bin * 2];
                sum[bin][side * 2 + 1] = product[bin * 2 + 1];
            }
        }
    }
};

// Returns the cells of the 8 points of a thread, in 16 bins that begin with `first_bin`, and in 16
// rows that begin with row `top`.
__device__ PointCells find_cells(const Sizes& sizes, const GeometryCells& cells, std::int64_t view,
                                 int first_bin, int column, int top) {
    PointCells all;
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int b = 0; b < 2; ++b) {
        const int bin = first_bin + b * 8 + lane / 4;
        const bool exists = bin < sizes.bins && column < sizes.width;
        const Place place{view, exists ? bin : 0, exists ? column : 0};
        const GeometryColumn points(sizes, cells, place);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = top + i / 2 * 8 + lane % 4 * 2 + i % 2;
            const int found = points.cell(sizes, min(row, static_cast<int>(sizes.height) - 1));
            all.cell[b][i / 2][i % 2] =
                exists && row < sizes.height && found != kOutside ? found : kNowhere;
        }
    }
    return all;
}

// Adds four adjacent channels to the sum of a cell. `left` is the number of channels of the block
// from the first of the four on. If `left` is less than 4, only that many channels are added; none
// if `left` is not positive. If V is 4, `left` is a multiple of 4.
template <int V>
__device__ void add_channels(const Adder<float, float, V>& adder, float* target, int left,
                             const float (&value)[4]) {
    if constexpr (V == 4) {
        if (left > 0) adder.add(target, {value[0], value[1], value[2], value[3]});
    } else {
        for (int k = 0; k < 4; ++k) {
            if (k < left) adder.add(target + k, {value[k]});
        }
    }
}

// Adds the points of each thread one after the other, if depth or context contain a number that is
// not finite. A matrix product would add NaN to the cells of other points, because zero times such
// a number is NaN.
template <class T, int V, int Lines>
__device__ void add_points(const PointCells& points, const Weights<T>& weights,
                           LineTile<T, Lines>& context, int column, int channels,
                           const Adder<float, float, V>& adder, float* map, int stride) {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int cell = points.cell[i / 4][i / 2 % 2][i % 2],
                  row = i / 2 % 2 * 8 + lane % 4 * 2 + i % 2;
        if (cell == kNowhere) continue;
#pragma unroll 1
        for (int channel = 0; channel < channels; channel += V) {
            Group<float, V> term;
            for (int k = 0; k < V; ++k) {
                const T feature = context.line(column, channel_line(channel + k))[row];
                term.value[k] = weights.at(i / 4, i / 2 % 2, i % 2) * static_cast<float>(feature);
            }
            adder.add(map + static_cast<std::int64_t>(cell) * stride + channel, term);
        }
    }
}

// Adds all points of a warp with matrix products. Each iteration of the outer loop is one pass.
template <class T, int V, int Lines>
__device__ void add_products(PointCells& points, const Weights<T>& weights,
                             LineTile<T, Lines>& context, int column, int channels,
                             const Adder<float, float, V>& adder, float* map, int stride) {
    const int first = threadIdx.x % 4 * 4;  // channel 4t, the first of each four channels
    int cell[2];
    while (next_cells(points, cell)) {
        const Weights<T> selected = weights.select(points, cell);
        points.leave_out(cell);
        float* target[2];
#pragma unroll
        for (int b = 0; b < 2; ++b)
            target[b] = map + static_cast<std::int64_t>(cell[b]) * stride + first;
#pragma unroll
        for (int step = 0; step < Lines; step += kTensorStep) {
            if (step >= channels) break;
            float sum[2][4];
            selected.times(context, column, step, sum);
#pragma unroll
            for (int b = 0; b < 2; ++b) {
                if (cell[b] != kNowhere)
                    add_channels<V>(adder, target[b] + step, channels - step - first, sum[b]);
            }
        }
    }
}
#endif

// One block per view, kRows rows, four columns, some depth bins and a slice of the channels; one
// warp per column. The warp processes 16 bins at a time, while the depth of the next 16 bins is
// being loaded to registers. Two depth tiles are used in turn, so that a warp can store the next
// bins while a slower warp still reads the current bins. The context does not depend on the bin
// and is stored once. Other blocks add to the same cells, so the kernel uses atomics.
template <class T, int V>
__global__ void __launch_bounds__(kTensorThreads, kTensorBlocks)
    splat_half(Sizes sizes, Tiling tiling, GeometryCells cells, LineSource depth,
               LineSource context, int slice, float* sums) {
#if __CUDA_ARCH__ >= 800
    __shared__ LineTile<T, kTensorBins> depth_tiles[2];
    __shared__ LineTile<T, kTensorChannels> context_tile;
    let_next_kernel_start();
    const Corner corner(tiling, blockIdx.x);
    const int first_channel = blockIdx.y * slice,
              channels = min(slice, static_cast<int>(sizes.channels) - first_channel);
    const int rows = static_cast<int>(sizes.height) - corner.row,
              columns = static_cast<int>(sizes.width) - corner.column;
    const int bins = min(static_cast<int>(sizes.bins) - corner.bin, static_cast<int>(tiling.bins)),
              column = threadIdx.x / kWarp;
    const T* depth_corner =
        element<T>(depth.array, corner.view, corner.bin, corner.row, corner.column);
    RegisterTile<T, kTensorBins, V> depth_registers(depth, depth_corner, bins, rows, columns);
    const RegisterTile<T, kTensorChannels, V> context_registers(
        context, element<T>(context.array, corner.view, first_channel, corner.row, corner.column),
        channels, rows, columns);
    const unsigned sample =
        static_cast<unsigned>(corner.view) / static_cast<unsigned>(sizes.cameras);
    bool finite = true;
    for (int bin = 0; bin < bins; bin += kTensorBins) {
        LineTile<T, kTensorBins>& depth_tile = depth_tiles[bin / kTensorBins % 2];
        PointCells points = find_cells(sizes, cells, corner.view, corner.bin + bin,
                                       corner.column + column, corner.row);
        if (bin == 0) finite = context_registers.store(context, context_tile, channel_line);
        const bool depth_finite =
            depth_registers.store(depth, depth_tile, [](int line) { return line; });
        if (bin + kTensorBins < bins) {
            depth_corner += kTensorBins * depth.array.line_stride;
            depth_registers = RegisterTile<T, kTensorBins, V>(
                depth, depth_corner, bins - bin - kTensorBins, rows, columns);
        }
        const bool has_non_finite = __syncthreads_or(!(finite && depth_finite));
        if (bin == 0) wait_for_earlier_kernels();
        const Adder<float, float, V> adder(sizes, Bounds());
        float* map = sums + sample * sizes.nx * sizes.ny * sizes.channels + first_channel;
        const Weights<T> weights(depth_tile, column, 0);
        if (has_non_finite) {
            add_points(points, weights, context_tile, column, channels, adder, map,
                       static_cast<int>(sizes.channels));
        } else {
            add_products(points, weights, context_tile, column, channels, adder, map,
                         static_cast<int>(sizes.channels));
        }
    }
#endif
}

// Returns the number of depth bins of one block. The number is a multiple of kTensorBins. It is so
// small that each multiprocessor gets kTensorBlocks blocks, if there are enough bins.
unsigned half_bins(const Sizes& sizes) {
    const std::int64_t tiles = sizes.batch * sizes.cameras * ceil_divide(sizes.height, kRows) *
                               ceil_divide(sizes.width, kTensorColumns);
    const std::int64_t steps = std::max<std::int64_t>(ceil_divide(sizes.bins, kTensorBins), 1);
    const std::int64_t wanted = multiprocessors() * kTensorBlocks;
    const std::int64_t parts =
        std::clamp<std::int64_t>(ceil_divide(wanted, std::max<std::int64_t>(tiles, 1)), 1, steps);
    return static_cast<unsigned>(ceil_divide(steps, parts)) * kTensorBins;
}

// Returns the context in the order of channels in which it is stored.
StridedArray context_array(const Context& context, const Sizes& s) {
    if (context.channels_first == nullptr)
        return {context.channels_last, s.height * s.width * s.channels, 1, s.width * s.channels,
                s.channels};
    return {context.channels_first, s.channels * s.height * s.width, s.height * s.width, s.width,
            1};
}

LineSource line_source(const StridedArray& array) {
    return {array, array.line_stride == 1 && array.column_stride != 1};
}

// Returns true if RegisterTile can read four adjacent 16-bit numbers with one access. `lines` and
// `columns` are the sizes of the array.
bool in_fours(const LineSource& source, std::int64_t lines, std::int64_t columns) {
    const StridedArray& array = source.array;
    const std::int64_t step = source.along_lines ? array.line_stride : array.column_stride,
                       across = source.along_lines ? array.column_stride : array.line_stride;
    return step == 1 && (source.along_lines ? lines : columns) % 4 == 0 && across % 4 == 0 &&
           array.row_stride % 4 == 0 && array.view_stride % 4 == 0 &&
           reinterpret_cast<std::uintptr_t>(array.data) % sizeof(Half4) == 0;
}

}  // namespace
}  // namespace bevdepth
