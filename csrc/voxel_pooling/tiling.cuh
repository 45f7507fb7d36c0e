// Divides the points of all views among blocks, and reads depth and context.
#pragma once

#include "voxel_pooling/common.cuh"

namespace bevdepth {
namespace {

// Divides the points of every view into blocks of `columns` columns, `bins` bins and kRows rows.
// From block to block, the columns change fastest, then the bins, the rows and the views.
struct Tiling {
    unsigned columns, bins;  // in one block
    unsigned column_blocks, bin_blocks, row_blocks;
    bool empty;  // true if there are no bins; bin_blocks is then 1, because Corner divides by it

    Tiling(const Sizes& sizes, unsigned columns, unsigned bins)
        : columns(columns),
          bins(bins),
          column_blocks((sizes.width + columns - 1) / columns),
          bin_blocks(sizes.bins > 0 ? (sizes.bins + bins - 1) / bins : 1),
          row_blocks((sizes.height + kRows - 1) / kRows),
          empty(sizes.bins == 0) {}

    std::int64_t blocks_per_view() const {
        return static_cast<std::int64_t>(column_blocks) * bin_blocks * row_blocks *
               (empty ? 0 : 1);
    }
};

// The view of a block, and the first bin, row and column of the block.
struct Corner {
    std::int64_t view;
    int bin, row, column;

    __device__ Corner(const Tiling& tiling, unsigned block)
        : view(block / tiling.column_blocks / tiling.bin_blocks / tiling.row_blocks),
          bin(block / tiling.column_blocks % tiling.bin_blocks * tiling.bins),
          row(block / tiling.column_blocks / tiling.bin_blocks % tiling.row_blocks * kRows),
          column(block % tiling.column_blocks * tiling.columns) {}
};

template <class T>
__device__ const T* element(const StridedArray& array, std::int64_t view, std::int64_t line,
                            std::int64_t row, std::int64_t column) {
    return static_cast<const T*>(array.data) + view * array.view_stride +
           line * array.line_stride + row * array.row_stride + column * array.column_stride;
}

// Loads the weights of `rows` points of a column. If `rows` is less than kRows, the last weight is
// repeated.
template <class T>
__device__ void load_weights(const T* source, std::int64_t stride, int rows,
                             Accumulator<T> (&weight)[kRows]) {
    T stored[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row, source += row < rows ? stride : 0) stored[row] = *source;
#pragma unroll
    for (int row = 0; row < kRows; ++row) weight[row] = static_cast<Accumulator<T>>(stored[row]);
}

// Loads the features of `rows` pixels of a column. If `rows` is less than kRows, the features of
// the last pixel are repeated.
template <class T, int V>
__device__ void load_features(const T* source, std::int64_t stride, int rows,
                              Group<Accumulator<T>, V> (&features)[kRows]) {
    Group<T, V> stored[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row, source += row < rows ? stride : 0)
        stored[row] = *reinterpret_cast<const Group<T, V>*>(source);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
        for (int k = 0; k < V; ++k)
            features[row].value[k] = static_cast<Accumulator<T>>(stored[row].value[k]);
    }
}

}  // namespace
}  // namespace bevdepth
