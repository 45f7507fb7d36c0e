// Layers for inference that PyTorch runs slowly, or cannot capture in a CUDA graph.
// bevdepth_core/ops/deformable.py and max_pool.py specify the results.
// All pointers are device pointers. No function allocates memory, waits for the device, or reads
// device memory on the host. T is Launch::dtype: float16, bfloat16 or float32; sums are float.
// Maps are channels_last: (N, H, W, C).
#pragma once

#include "launch.h"

namespace bevdepth::layers {

struct Map {
    std::int32_t images, height, width, channels;
};

// columns (groups, N * H * W, 9, C / groups) T: the features (N, H, W, C) T at the 3x3 neighbors
// of each pixel, each moved by its offset (N, H, W, 18) T, y and x in pixels; interpolated
// bilinearly, zero outside of the map.
void deformable_columns(const Launch& launch, const Map& map, std::int32_t groups,
                        const void* features, const void* offsets, void* columns);

// pooled (N, (H + 1) / 2, (W + 1) / 2, C) T: the largest value of each 3x3 window of the features,
// stride 2, padding 1.
void max_pool(const Launch& launch, const Map& map, const void* features, void* pooled);

}  // namespace bevdepth::layers
