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

// Gathers the input of a deformable 3x3 convolution. For each pixel and each of its 3x3 neighbors,
// columns (groups, N * H * W, 9, C / groups) T receives the features at the position of the
// neighbor plus an offset. offsets (N, H, W, 18) T contains y and x of the offset of each
// neighbor, in pixels. The features (N, H, W, C) T are interpolated bilinearly; outside of the map
// they are zero.
void deformable_columns(const Launch& launch, const Map& map, std::int32_t groups,
                        const void* features, const void* offsets, void* columns);

// Max pooling: pooled (N, (H + 1) / 2, (W + 1) / 2, C) T receives the largest value of each 3x3
// window of the features (N, H, W, C) T, with stride 2 and padding 1.
void max_pool(const Launch& launch, const Map& map, const void* features, void* pooled);

}  // namespace bevdepth::layers
