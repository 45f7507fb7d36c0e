// Comparison of the features of two frames, for stereo models. bevdepth_core/ops/cost_volume.py specifies the results.
// As in voxel_pooling.h, arguments are device pointers. No function allocates memory, waits for the device, or reads device memory on the
// host. T is Launch::dtype: float16, bfloat16 or float32; positions and sums are float.
#pragma once

#include "launch.h"

namespace bevdepth::stereo {

struct Maps {
    std::int32_t images, height, width, channels, groups;
    std::int32_t depths;  // of each pixel
};

struct Projection {
    const double* source_from_reference;  // (images, 3, 4): (u d, v d, d) in the source frame from (u d, v d, d, 1)
    const float* u;                       // (width), in pixels of the network's input
    const float* v;                       // (height)
    float map_stride;                     // pixels of the network's input per cell of a map
    float nearest_depth;                  // a point nearer to the source camera reads the corner of the map
};

// costs (images, depths, height, width, groups) T: mean product of both frames' features in each group of channels. The feature of the
// source frame is interpolated bilinearly where the reference pixel appears at each of its depths (images, depths, height, width) float;
// it is zero outside of the map. reference and source (images, height, width, channels) T.
void cost_volume(const Launch& launch, const Maps& maps, const Projection& projection, const void* reference, const void* source,
                 const float* depths, void* costs);

}  // namespace bevdepth::stereo
