// CUDA operations before and after the network: image resizing and NMS.
// bevdepth_core/ops/image_resize.py and circle_nms.py specify the results.
// As in voxel_pooling.h, arguments are device pointers, a device and a stream. No function allocates memory, waits for the device, or reads
// device memory on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "launch.h"

namespace bevdepth::detection {

// One line of numbers per output pixel: index of the first source pixel, then the weights of that one and the following, scaled by 2^22.
// Source pixels with weight 0 are not read.
struct Filter {
    const std::int32_t* lines;  // (outputs, 1 + taps)
    std::int32_t taps;
};

// A source image (H, W, 3) uint8 RGB with any strides in bytes, and the rows of it that the vertical filter reads.
struct Source {
    const std::uint8_t* pixels;
    std::int64_t row, column, channel;
    std::int32_t first_row, rows;
    Filter horizontal, vertical;
};

// Network input (N, height, width, channels) of Launch::dtype: B G R, normalized, channels from the fourth on are 0.
struct Inputs {
    void* pixels;
    std::int32_t height, width, channels;
    float mean[3], deviation[3];
};

// Resizes sources as Pillow does: rows first, rounded to uint8, then columns; and normalizes them.
// rows: workspace, 4 bytes for each of images x (most rows of an image) x width.
void resize_images(const Launch& launch, const std::vector<Source>& sources, void* rows, const Inputs& inputs);

// kept (tasks, most) int32: indices of the boxes that no kept box with a better score suppresses, best first, then -1.
// Boxes come best first: centers (tasks, boxes, 2), valid (tasks, boxes); limits (tasks) squared distances up to which a box is
// suppressed.
void circle_nms(const Launch& launch, std::int32_t tasks, std::int32_t boxes, std::int32_t most, const float* centers,
                      const bool* valid, const float* limits, std::int32_t* kept);

// The same for rectangles (tasks, boxes, 4): center x and y, half of the extent along x and y; a kept one suppresses those that it touches.
void rectangle_nms(const Launch& launch, std::int32_t tasks, std::int32_t boxes, std::int32_t most, const float* rectangles,
                   const bool* valid, std::int32_t* kept);

}  // namespace bevdepth::detection
