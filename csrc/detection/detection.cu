#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "detection/detection.h"
#include "device.cuh"

namespace bevdepth::detection {
namespace {

constexpr int kThreads = 128;  // threads per block of the kernels that resize images
constexpr int kNmsThreads = 512;
// Sources are passed as a kernel argument, which is limited to 4 KiB.
constexpr int kImagesPerLaunch = 16;
// Fractional bits of a weight, as in Pillow: of 32 bits, 8 are for the pixel value, and 2 for sums
// of weights above 1.
constexpr int kWeightBits = 22;
constexpr int kSharedBytes = 48 * 1024;

struct Sources {
    Source image[kImagesPerLaunch];
};

__device__ int rounded_pixel(int sum) {
    return min(max(sum >> kWeightBits, 0), 255);
}

// Resizes images horizontally. The axes of the grid are blocks of output columns, source rows (as
// many as the largest row_count), and images.
__global__ void __launch_bounds__(kThreads)
    resize_width(const __grid_constant__ Sources sources, int max_rows, int width,
                 uchar4* resized) {
    const Source& source = sources.image[blockIdx.z];
    const int column = blockIdx.x * kThreads + threadIdx.x, row = blockIdx.y;
    if (column >= width || row >= source.row_count) return;
    const int* weights =
        source.horizontal.table +
        column * (1 + source.horizontal.taps);  // weights[0]: index of the first source column
    const std::uint8_t* pixel = source.pixels + (source.first_row + row) * source.row_stride +
                                weights[0] * source.column_stride;
    int sum[3];
    for (int channel = 0; channel < 3; ++channel) sum[channel] = 1 << (kWeightBits - 1);
    for (int tap = 1; tap <= source.horizontal.taps; ++tap, pixel += source.column_stride) {
        const int weight = weights[tap];
        if (weight == 0) continue;
        for (int channel = 0; channel < 3; ++channel)
            sum[channel] += weight * pixel[channel * source.channel_stride];
    }
    resized[(static_cast<std::int64_t>(blockIdx.z) * max_rows + row) * width + column] =
        make_uchar4(rounded_pixel(sum[0]), rounded_pixel(sum[1]), rounded_pixel(sum[2]), 0);
}

// Resizes the result of resize_width vertically, and normalizes the pixels. The axes of the grid
// are blocks of output columns, output rows, and images.
template <class T>
__global__ void __launch_bounds__(kThreads)
    resize_height(const __grid_constant__ Sources sources, int max_rows, const uchar4* resized,
                  const __grid_constant__ Inputs inputs) {
    const Source& source = sources.image[blockIdx.z];
    const int column = blockIdx.x * kThreads + threadIdx.x, row = blockIdx.y;
    if (column >= inputs.width) return;
    const int* weights = source.vertical.table + row * (1 + source.vertical.taps);
    const std::int64_t first_row =
        static_cast<std::int64_t>(blockIdx.z) * max_rows + weights[0] - source.first_row;
    const uchar4* pixel = resized + first_row * inputs.width + column;
    int sum[3];
    for (int channel = 0; channel < 3; ++channel) sum[channel] = 1 << (kWeightBits - 1);
    for (int tap = 1; tap <= source.vertical.taps; ++tap, pixel += inputs.width) {
        const int weight = weights[tap];
        if (weight == 0) continue;
        sum[0] += weight * pixel->x;
        sum[1] += weight * pixel->y;
        sum[2] += weight * pixel->z;
    }
    T* input =
        static_cast<T*>(inputs.pixels) +
        ((static_cast<std::int64_t>(blockIdx.z) * inputs.height + row) * inputs.width + column) *
            inputs.channels;
    for (int channel = 0; channel < 3; ++channel) {
        const float value = static_cast<float>(rounded_pixel(sum[2 - channel]));
        input[channel] =
            static_cast<T>(__fdiv_rn(value - inputs.mean[channel], inputs.std_dev[channel]));
    }
    for (int channel = 3; channel < inputs.channels; ++channel)
        input[channel] = static_cast<T>(0.0f);
}

// Returns true if the squared distance between the centers (x, y) of the two boxes is at most
// `limit`, or is NaN. Each operation is rounded separately (no fused multiply-add), as in the
// reference.
__device__ bool suppresses(const float2& best, const float2& box, float limit) {
    const float x = box.x - best.x, y = box.y - best.y;
    return !(__fadd_rn(__fmul_rn(x, x), __fmul_rn(y, y)) > limit);
}

// Returns true if the two rectangles overlap or touch. A rectangle consists of its center (x, y),
// half of its extent along x, and half of its extent along y.
__device__ bool suppresses(const float4& best, const float4& box, float) {
    return fabsf(box.x - best.x) <= box.z + best.z && fabsf(box.y - best.y) <= box.w + best.w;
}

// One block per task processes the boxes in order of descending score. For each box that is not
// suppressed, all threads together mark the boxes that this box suppresses. The threads change
// only entries of `alive` after `best`, so all threads read the same value of alive[best].
template <class Box>
__global__ void __launch_bounds__(kNmsThreads)
    nms_kernel(int count, int max_boxes, const Box* all_boxes, const bool* valid,
               const float* max_squared_distances, int* kept) {
    extern __shared__ float4 nms_memory[];
    Box* const boxes = reinterpret_cast<Box*>(nms_memory);
    volatile bool* alive = reinterpret_cast<volatile bool*>(boxes + count);
    const int task = blockIdx.x;
    for (int box = threadIdx.x; box < count; box += kNmsThreads) {
        boxes[box] = all_boxes[task * count + box];
        alive[box] = valid[task * count + box];
    }
    const float limit = max_squared_distances ? max_squared_distances[task] : 0;
    __syncthreads();
    int found = 0;
    for (int best = 0; best < count && found < max_boxes; ++best) {
        if (!alive[best]) continue;
        if (threadIdx.x == 0) kept[task * max_boxes + found] = best;
        ++found;
        for (int box = best + 1 + threadIdx.x; box < count; box += kNmsThreads)
            if (suppresses(boxes[best], boxes[box], limit)) alive[box] = false;
        __syncthreads();
    }
    for (int place = found + threadIdx.x; place < max_boxes; place += kNmsThreads)
        kept[task * max_boxes + place] = -1;
}

template <class Box>
void nms(const Launch& launch, std::int32_t tasks, std::int32_t count, std::int32_t max_boxes,
         const float* boxes, const bool* valid, const float* max_squared_distances,
         std::int32_t* kept) {
    constexpr std::size_t box_bytes = sizeof(Box) + sizeof(bool);
    if (count < 0 || count * box_bytes > kSharedBytes)
        throw std::invalid_argument(
            "NMS on a GPU supports at most " + std::to_string(kSharedBytes / box_bytes) +
            " candidates per task; reduce decode.candidates of the model config");
    if (tasks < 1 || max_boxes < 1) return;
    const DeviceGuard guard(launch.device);
    nms_kernel<Box>
        <<<tasks, kNmsThreads, count * box_bytes, reinterpret_cast<cudaStream_t>(launch.stream)>>>(
            count, max_boxes, reinterpret_cast<const Box*>(boxes), valid, max_squared_distances,
            kept);
    check(cudaGetLastError(), "NMS");
}

template <class T>
void resize_some(cudaStream_t stream, const Source* sources, int images, void* workspace,
                 const Inputs& inputs) {
    Sources argument{};
    std::copy(sources, sources + images, argument.image);
    int max_rows = 1;
    for (int image = 0; image < images; ++image)
        max_rows = std::max(max_rows, sources[image].row_count);
    const int blocks = (inputs.width + kThreads - 1) / kThreads;
    auto* const resized = static_cast<uchar4*>(workspace);
    resize_width<<<dim3(blocks, max_rows, images), kThreads, 0, stream>>>(argument, max_rows,
                                                                          inputs.width, resized);
    check(cudaGetLastError(), "resizing the width of images");
    resize_height<T><<<dim3(blocks, inputs.height, images), kThreads, 0, stream>>>(
        argument, max_rows, resized, inputs);
    check(cudaGetLastError(), "resizing the height of images");
}

template <class T>
void resize_all(cudaStream_t stream, const std::vector<Source>& sources, void* workspace,
                Inputs inputs) {
    for (std::size_t first = 0; first < sources.size(); first += kImagesPerLaunch) {
        const int images =
            static_cast<int>(std::min<std::size_t>(kImagesPerLaunch, sources.size() - first));
        resize_some<T>(stream, sources.data() + first, images, workspace, inputs);
        inputs.pixels = static_cast<T*>(inputs.pixels) + static_cast<std::int64_t>(images) *
                                                             inputs.height * inputs.width *
                                                             inputs.channels;
    }
}

}  // namespace

void resize_images(const Launch& launch, const std::vector<Source>& sources, void* workspace,
                   const Inputs& inputs) {
    if (inputs.channels < 3 || inputs.width < 1 || inputs.height < 1)
        throw std::invalid_argument("network inputs need at least 3 channels and 1x1 pixels");
    const DeviceGuard guard(launch.device);
    const auto handle = reinterpret_cast<cudaStream_t>(launch.stream);
    switch (launch.dtype) {
        case Dtype::float16:
            return resize_all<__half>(handle, sources, workspace, inputs);
        case Dtype::bfloat16:
            return resize_all<__nv_bfloat16>(handle, sources, workspace, inputs);
        case Dtype::float32:
            return resize_all<float>(handle, sources, workspace, inputs);
        case Dtype::float64:
            break;
    }
    throw std::invalid_argument("network inputs must be float16, bfloat16 or float32");
}

void circle_nms(const Launch& launch, std::int32_t tasks, std::int32_t boxes,
                std::int32_t max_boxes, const float* centers, const bool* valid,
                const float* max_squared_distances, std::int32_t* kept) {
    nms<float2>(launch, tasks, boxes, max_boxes, centers, valid, max_squared_distances, kept);
}

void size_aware_nms(const Launch& launch, std::int32_t tasks, std::int32_t boxes,
                    std::int32_t max_boxes, const float* rectangles, const bool* valid,
                    std::int32_t* kept) {
    nms<float4>(launch, tasks, boxes, max_boxes, rectangles, valid, nullptr, kept);
}

}  // namespace bevdepth::detection
