// Comparison of the features of two frames, for stereo models. bevdepth_core/ops/cost_volume.py
// specifies the results. All pointers are device pointers. No function allocates memory, waits for
// the device, or reads device memory on the host. T is Launch::dtype: float16, bfloat16 or
// float32; positions and sums are float.
#pragma once

#include "launch.h"

namespace bevdepth::stereo {

struct Maps {
    std::int32_t images, height, width, channels, groups;
    std::int32_t depths;  // number of depths of each pixel
};

struct Projection {
    const double* source_from_reference;  // (images, 3, 4): matrices that map (u d, v d, d, 1) of
                                          // the reference to (u d, v d, d) of the source
    const float* u;                       // (width), positions of the columns of a map, in pixels
                                          // of the network input
    const float* v;                       // (height), positions of the rows, in the same pixels
    float map_stride;                     // pixels of the network input per cell of a map
    float nearest_depth;  // points with a smaller depth in the source camera read the lower right
                          // corner of the source map instead of the pixels at their projection
};

// Compares the features reference and source (images, height, width, channels) T of two frames.
// costs (images, depths, height, width, groups) T receives, for each group of channels, the mean
// product of the features of both frames. depths (images, depths, height, width) float contains
// several depths of each reference pixel. Each depth projects the pixel to a position in the
// source map. The source features are interpolated bilinearly at this position; outside of the map
// they are zero.
void cost_volume(const Launch& launch, const Maps& maps, const Projection& projection,
                 const void* reference, const void* source, const float* depths, void* costs);

}  // namespace bevdepth::stereo
