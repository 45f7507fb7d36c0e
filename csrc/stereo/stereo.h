// Comparison of the features of two frames, for stereo models. bevdepth_core/ops/cost_volume.py
// specifies the results. All pointers are device pointers. No function allocates memory, waits for
// the device, or reads device memory on the host. T is Launch::dtype: float16, bfloat16 or
// float32; positions and sums are float.
#pragma once

#include "launch.h"

namespace bevdepth::stereo {

struct Maps {
    std::int32_t images, height, width, channels, groups;
    std::int32_t depths;  // of each pixel
};

struct Projection {
    const double* source_from_reference;  // (images, 3, 4): (u d, v d, d) in the source frame from
                                          // (u d, v d, d, 1)
    const float* u;                       // (width), in pixels of the network's input
    const float* v;                       // (height)
    float map_stride;                     // pixels of the network's input per cell of a map
    float nearest_depth;  // points nearer to the source camera read the lower right corner of the
                          // map
};

// costs (images, depths, height, width, groups) T: mean product of both frames' features in each
// group of channels. The features of the source frame are interpolated bilinearly at the position
// to which the reference pixel projects at each of its depths (images, depths, height, width)
// float; they are zero outside of the map. reference and source (images, height, width, channels)
// T.
void cost_volume(const Launch& launch, const Maps& maps, const Projection& projection,
                 const void* reference, const void* source, const float* depths, void* costs);

}  // namespace bevdepth::stereo
