// Voxel pooling on CUDA. bevdepth_core/ops/voxel_pooling_reference.py specifies the numbers.
//
// Nothing here knows torch: callers pass device pointers to contiguous arrays, a device and a stream. No function allocates,
// waits or reads device memory on the host, so all can be captured in a CUDA graph. Each throws std::invalid_argument for
// sizes out of range and std::runtime_error for a launch that CUDA refuses.
//
// Sizes: B samples, N cameras, D depth bins, C channels, H x W feature map, nx x ny cells, P = N * H * W pixels.
// T is the type of the features (Launch::dtype); A, in which sums are taken, is double for double and float otherwise.
#pragma once

#include <cstdint>

namespace bevdepth {

enum class Dtype { float16, bfloat16, float32, float64 };

struct Launch {
    Dtype dtype;
    int device;
    std::uintptr_t stream;
};

struct Sizes {
    std::int64_t batch, cameras, bins, channels, height, width, nx, ny;
};

// Where frustum points lie, always float: point = ego_from_frustum @ (u d, v d, d, 1).
struct Geometry {
    const float* ego_from_frustum;  // (B, N, 3, 4)
    const float* frustum_u;         // (W)
    const float* frustum_v;         // (H)
    const float* frustum_d;         // (D)
    float lower[3];                 // x, y, z of the grid's low corner, metres
    float cell[3];                  // x, y, z size of a cell, metres
};

// voxel_index (B, N, D, H, W, 3), int32: x, y, z. Launch::dtype and the channels play no part.
void voxel_index(const Launch& launch, const Sizes& sizes, const Geometry& geometry, std::int32_t* voxel_index);

// bev (B, C, ny, nx) T = sum of depth (B, N, D, H, W) T * context (B, N, C, H, W) T over the points in each cell.
// Workspaces, whatever they hold: pixel_rows (B, P, C) A, cell_rows (B, ny * nx, C) A.
void voxel_pooling(const Launch& launch, const Sizes& sizes, const void* depth, const void* context, const Geometry& geometry,
                   void* pixel_rows, void* cell_rows, void* bev);

// The same for given indices (B, N, D, H, W, 3).
void voxel_pooling_indexed(const Launch& launch, const Sizes& sizes, const void* depth, const void* context,
                           const std::int32_t* voxel_index, void* pixel_rows, void* cell_rows, void* bev);

// grad_depth (B, N, D, H, W) T and grad_context (B, N, C, H, W) T from grad_bev (B, C, ny, nx) T. Workspaces as above.
void voxel_pooling_backward(const Launch& launch, const Sizes& sizes, const void* grad_bev, const void* depth,
                            const void* context, const Geometry& geometry, void* pixel_rows, void* cell_rows,
                            void* grad_depth, void* grad_context);

// The same for given indices.
void voxel_pooling_indexed_backward(const Launch& launch, const Sizes& sizes, const void* grad_bev, const void* depth,
                                    const void* context, const std::int32_t* voxel_index, void* pixel_rows,
                                    void* cell_rows, void* grad_depth, void* grad_context);

// bev (B, C, ny, nx) T = sum of volume (B, N, C, D, H, W) T over the points in each cell. Workspace: cell_rows.
void voxel_pooling_volume(const Launch& launch, const Sizes& sizes, const void* volume, const std::int32_t* voxel_index,
                          void* cell_rows, void* bev);

// grad_volume (B, N, C, D, H, W) T from grad_bev (B, C, ny, nx) T. Workspace: cell_rows.
void voxel_pooling_volume_backward(const Launch& launch, const Sizes& sizes, const void* grad_bev,
                                   const std::int32_t* voxel_index, void* cell_rows, void* grad_volume);

}  // namespace bevdepth
