// CUDA operations before and after the network: image resizing and NMS.
// bevdepth_core/ops/image_resize.py and circle_nms.py specify the results.
// All pointers are device pointers, also those inside of the structs, which are on the host. No
// function allocates device memory, waits for the device, or reads device memory on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "launch.h"

namespace bevdepth::detection {

// The weights of a filter along one axis. Each row of the table belongs to one output pixel: index
// of the first source pixel, then the weights of that pixel and of the following ones, scaled by
// 2^22. Source pixels with weight 0 are not read.
struct Filter {
    const std::int32_t* table;  // (outputs, 1 + taps)
    std::int32_t taps;
};

// A source image (H, W, 3) uint8 RGB with any strides in bytes, and the rows of it that the
// vertical filter reads.
struct Source {
    const std::uint8_t* pixels;
    std::int64_t row_stride, column_stride, channel_stride;
    std::int32_t first_row, row_count;
    Filter horizontal, vertical;
};

// Network input (N, height, width, channels) of Launch::dtype, which must not be float64: B G R,
// normalized; channels from the fourth on are 0.
struct Inputs {
    void* pixels;
    std::int32_t height, width, channels;
    float mean[3], std_dev[3];
};

// Resizes sources as Pillow does: horizontally, rounded to uint8, then vertically; and normalizes
// them. workspace: 4 bytes for each of sources x (largest row_count) x width.
void resize_images(const Launch& launch, const std::vector<Source>& sources, void* workspace,
                   const Inputs& inputs);

// kept (tasks, max_boxes) int32: indices of the boxes that no kept box with a better score
// suppresses, best first, then -1. Boxes come best first: centers (tasks, boxes, 2), valid (tasks,
// boxes); max_squared_distances (tasks): squared distances up to which a box is suppressed. Throws
// std::invalid_argument for more than 5,461 boxes per task, which exceed 48 KiB of shared memory.
void circle_nms(const Launch& launch, std::int32_t tasks, std::int32_t boxes,
                std::int32_t max_boxes, const float* centers, const bool* valid,
                const float* max_squared_distances, std::int32_t* kept);

// The same for rectangles (tasks, boxes, 4), whose extents the caller has scaled: center x and y,
// half of the extent along x and y. A kept rectangle suppresses those that it touches. Throws for
// more than 2,891 boxes per task.
void size_aware_nms(const Launch& launch, std::int32_t tasks, std::int32_t boxes,
                    std::int32_t max_boxes, const float* rectangles, const bool* valid,
                    std::int32_t* kept);

}  // namespace bevdepth::detection
