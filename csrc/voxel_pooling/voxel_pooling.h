// Voxel pooling on CUDA. bevdepth_core/ops/voxel_pooling_reference.py specifies the results.
//
// This code does not depend on torch: callers pass device pointers, a device and a stream. No
// function allocates memory, waits for the device, or reads device memory on the host. All
// functions can therefore be captured in a CUDA graph. They throw std::invalid_argument for sizes
// out of range and std::runtime_error for a launch that CUDA rejects.
//
// Sizes: B samples, N cameras, D depth bins, C channels, H x W feature map, nx x ny cells. T is
// the type of the features (Launch::dtype). Arrays are contiguous unless a comment says otherwise.
// "Row" and "column" always refer to the feature map, not to the grid. "Channels last" means that
// the C channels of a pixel or cell are adjacent in memory, as in torch.channels_last.
#pragma once

#include <cstdint>

#include "launch.h"

namespace bevdepth {

struct Sizes {
    std::int64_t batch, cameras, bins, channels, height, width, nx, ny;
};

// Positions of frustum points, always float: point = ego_from_frustum @ (u d, v d, d, 1).
struct Geometry {
    const float* ego_from_frustum;  // (B, N, 3, 4)
    const float* frustum_u;         // (W)
    const float* frustum_v;         // (H)
    const float* frustum_d;         // (D)
    float lower[3];                 // x, y, z of the grid's low corner, meters
    float cell[3];                  // x, y, z size of a cell, meters; from 2^-60 to 2^60
};

// An array (B * N views, lines, H, W) of T with any strides, in elements. A line is a depth bin or
// a context channel.
struct StridedArray {
    const void* data;
    std::int64_t view_stride, line_stride, row_stride, column_stride;
};

// Context features: channels_first is (B, N, C, H, W) T, channels_last is (B, N, H, W, C) T. If
// channels_first is null, channels_last contains the features. Otherwise channels_first contains
// the features, and voxel_pooling copies them to channels_last if it needs this order (see
// wants_channels_last).
struct Context {
    const void* channels_first;
    void* channels_last;
};

constexpr int kSumBounds = 128;  // numbers per sample and array in the workspace Sums::bounds

// Memory in which the cells of a map are summed before they are rounded to T in the map.
//
// If exact, the result is bitwise the same on every run. cells is (B, ny, nx, C) double, with
// channels in the order of ExactOrder; bounds is a workspace (B, 2, kSumBounds). T must not be
// double, and depth must be contiguous.
//
// If not exact, terms are added in any order, and bounds is not used. cells is (B, ny, nx, C)
// float; it is null if T is float or double, because the sums are then computed in the map itself.
struct Sums {
    bool exact;
    void* cells;
    std::uint32_t* bounds;
};

// Computes voxel_index (B, N, D, H, W, 3) int32, the cell indices x, y, z of each point.
// Launch::dtype and the number of channels have no effect.
void voxel_index(const Launch& launch, const Sizes& sizes, const Geometry& geometry,
                 std::int32_t* voxel_index);

// Returns true if voxel_pooling needs the context with channels last; otherwise it accepts both
// orders.
bool wants_channels_last(const Launch& launch, bool exact);

// Computes bev (B, ny, nx, C) T, the sum of depth * context over the points in each cell.
void voxel_pooling(const Launch& launch, const Sizes& sizes, const Geometry& geometry,
                   const StridedArray& depth, const Context& context, const Sums& sums, void* bev);

// Computes the gradients grad_depth (B, N, D, H, W) T and grad_context (B, N, H, W, C) T from
// grad_bev (B, ny, nx, C) T. The kernels read channels_last. If channels_first is not null, its
// values are copied to channels_last before the kernels start.
void voxel_pooling_backward(const Launch& launch, const Sizes& sizes, const Geometry& geometry,
                            const StridedArray& depth, const Context& context,
                            const void* grad_bev, void* grad_depth, void* grad_context);

// Computes bev (B, ny, nx, C) T, the sum of volume (B, N, C, D, H, W) T over the points in each
// cell.
void voxel_pooling_volume(const Launch& launch, const Sizes& sizes,
                          const std::int32_t* voxel_index, const void* volume, const Sums& sums,
                          void* bev);

// Computes the gradient grad_volume (B, N, C, D, H, W) T from grad_bev (B, ny, nx, C) T.
void voxel_pooling_volume_backward(const Launch& launch, const Sizes& sizes,
                                   const std::int32_t* voxel_index, const void* grad_bev,
                                   void* grad_volume);

}  // namespace bevdepth
