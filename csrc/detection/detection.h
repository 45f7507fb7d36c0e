// CUDA operations before and after the network: image resizing and NMS.
// bevdepth_core/ops/image_resize.py and bevdepth_core/ops/circle_nms.py specify the results. The
// structs are on the host. All pointers are device pointers, also the pointers in the structs. No
// function allocates device memory, waits for the device, or reads device memory on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "launch.h"

namespace bevdepth::detection {

// The weights of a filter along one axis. The table has one row for each output pixel. The row
// contains the index of the first source pixel, and then the weights of this source pixel and of
// the following source pixels, multiplied by 2^22. Source pixels with weight 0 are not read.
struct Filter {
    const std::int32_t* table;  // (outputs, 1 + taps)
    std::int32_t taps;
};

// A source image (H, W, 3), uint8 RGB. Its strides, in bytes, may have any value. The vertical
// filter reads only row_count rows of the image, beginning with first_row.
struct Source {
    const std::uint8_t* pixels;
    std::int64_t row_stride, column_stride, channel_stride;
    std::int32_t first_row, row_count;
    Filter horizontal, vertical;
};

// Network input (N, height, width, channels). Its number type is Launch::dtype, which must not be
// float64. The first three channels are normalized B, G, R; all other channels are 0. mean and
// std_dev are in the order B, G, R, too.
struct Inputs {
    void* pixels;
    std::int32_t height, width, channels;
    float mean[3], std_dev[3];
};

// Resizes the sources as Pillow does: first horizontally, then vertically, and each time with
// rounding to uint8. Then normalizes them. workspace must have space for 4 * (number of sources) *
// (largest row_count) * (width of the input) bytes.
void resize_images(const Launch& launch, const std::vector<Source>& sources, void* workspace,
                   const Inputs& inputs);

// Circle NMS. The boxes of each task must be in order of descending score: centers (tasks, boxes,
// 2), valid (tasks, boxes). A kept box suppresses the boxes with lower scores whose squared center
// distance from it is at most max_squared_distances (tasks). kept (tasks, max_boxes) int32
// receives the indices of the kept boxes in the same order, and -1 in the remaining places. Throws
// std::invalid_argument for more than 5,461 boxes per task, which exceed 48 KiB of shared memory.
void circle_nms(const Launch& launch, std::int32_t tasks, std::int32_t boxes,
                std::int32_t max_boxes, const float* centers, const bool* valid,
                const float* max_squared_distances, std::int32_t* kept);

// Like circle_nms, but for rectangles (tasks, boxes, 4): center x, center y, half of the extent
// along x, half of the extent along y. The caller has already scaled the extents. A kept rectangle
// suppresses the rectangles with lower scores that overlap or touch it. Throws
// std::invalid_argument for more than 2,891 boxes per task.
void size_aware_nms(const Launch& launch, std::int32_t tasks, std::int32_t boxes,
                    std::int32_t max_boxes, const float* rectangles, const bool* valid,
                    std::int32_t* kept);

}  // namespace bevdepth::detection
