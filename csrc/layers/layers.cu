#include <cmath>
#include <cstdint>
#include <limits>

#include "channels.cuh"
#include "device.cuh"
#include "layers/layers.h"

namespace bevdepth::layers {
namespace {

constexpr int kThreads = 256;
constexpr int kTaps = 9;  // pixels of a 3x3 window

// Interpolates the features at the positions that a deformable 3x3 convolution reads. A tap is one
// of the 9 neighbors of a pixel, moved by its offset. A vector is V adjacent channels.
//
// One thread per pixel, tap and vector. From thread to thread, the vector changes fastest, then
// the tap, then the pixel. `work` is the number of threads that are needed.
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    gather_columns(Map map, int groups, const Channels<T, V>* features, const T* offsets,
                   Channels<T, V>* columns, std::int64_t work) {
    const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (item >= work) return;
    const int vectors = map.channels / V, vector = static_cast<int>(item % vectors);
    const int tap = static_cast<int>(item / vectors % kTaps);
    const std::int64_t pixel = item / vectors / kTaps;
    const int column = static_cast<int>(pixel % map.width),
              row = static_cast<int>(pixel / map.width % map.height);
    const T* offset = offsets + (pixel * kTaps + tap) * 2;
    const float y = static_cast<float>(row + tap / 3 - 1) + static_cast<float>(offset[0]);
    const float x = static_cast<float>(column + tap % 3 - 1) + static_cast<float>(offset[1]);
    float sum[V] = {};
    if (y > -1 && y < map.height && x > -1 && x < map.width) {  // also false if x or y is NaN
        const int top = static_cast<int>(floorf(y)), left = static_cast<int>(floorf(x));
        const float dy = y - top, dx = x - left;
        // (pixel - row * width - column) is the first pixel of the image.
        const Channels<T, V>* image =
            features + (pixel - row * map.width - column) * vectors + vector;
        for (int corner = 0; corner < 4; ++corner) {
            const int v = top + corner / 2, u = left + corner % 2;
            if (v < 0 || v >= map.height || u < 0 || u >= map.width) continue;
            const float weight = (corner / 2 ? dy : 1 - dy) * (corner % 2 ? dx : 1 - dx);
            const Channels<T, V> read =
                image[static_cast<std::int64_t>(v * map.width + u) * vectors];
            for (int k = 0; k < V; ++k) sum[k] += weight * static_cast<float>(read.value[k]);
        }
    }
    Channels<T, V> result;
    for (int k = 0; k < V; ++k) result.value[k] = static_cast<T>(sum[k]);
    const int group_vectors = vectors / groups;
    const std::int64_t pixels = work / vectors / kTaps;
    // `columns` has the shape (groups, pixels, taps, vectors of a group).
    columns[((vector / group_vectors * pixels + pixel) * kTaps + tap) * group_vectors +
            vector % group_vectors] = result;
}

// Computes the largest value of each 3x3 window. One thread per output pixel and vector of V
// channels. `work` is the number of threads that are needed.
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    pool(Map map, const Channels<T, V>* features, Channels<T, V>* pooled, std::int64_t work) {
    const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (item >= work) return;
    const int vectors = map.channels / V, vector = static_cast<int>(item % vectors);
    const int width = (map.width + 1) / 2, height = (map.height + 1) / 2;
    const std::int64_t pixel = item / vectors;
    const int column = static_cast<int>(pixel % width),
              row = static_cast<int>(pixel / width % height);
    const std::int64_t image = pixel / width / height;
    float largest[V];
    for (int k = 0; k < V; ++k) largest[k] = -INFINITY;
    for (int v = max(2 * row - 1, 0); v <= min(2 * row + 1, map.height - 1); ++v) {
        for (int u = max(2 * column - 1, 0); u <= min(2 * column + 1, map.width - 1); ++u) {
            const Channels<T, V> read =
                features[((image * map.height + v) * map.width + u) * vectors + vector];
            for (int k = 0; k < V; ++k) {
                const float value = static_cast<float>(read.value[k]);
                // As in PyTorch, the result is NaN if any value of the window is NaN.
                if (value > largest[k] || isnan(value)) largest[k] = value;
            }
        }
    }
    Channels<T, V> result;
    for (int k = 0; k < V; ++k) result.value[k] = static_cast<T>(largest[k]);
    pooled[item] = result;
}

unsigned blocks_for(std::int64_t work) {
    const std::int64_t blocks = (work + kThreads - 1) / kThreads;
    if (blocks > std::numeric_limits<std::int32_t>::max())
        throw std::invalid_argument("a map is too large for one launch");
    return static_cast<unsigned>(blocks);
}

std::int64_t count(std::int32_t images, std::int32_t height, std::int32_t width,
                   std::int32_t channels) {
    if (images < 0 || height < 0 || width < 0 || channels < 0)
        throw std::invalid_argument("a size of a map is negative");
    return static_cast<std::int64_t>(images) * height * width * channels;
}

}  // namespace

void deformable_columns(const Launch& launch, const Map& map, std::int32_t groups,
                        const void* features, const void* offsets, void* columns) {
    const std::int64_t values = kTaps * count(map.images, map.height, map.width, map.channels);
    if (groups < 1 || map.channels % groups != 0)
        throw std::invalid_argument("channels must be a multiple of groups");
    if (values == 0) return;
    const DeviceGuard guard(launch.device);
    for_type(launch, map.channels / groups, {features, columns}, [&](auto number, auto lanes) {
        using T = decltype(number);
        using Vector = Channels<T, lanes()>;
        const std::int64_t work = values / lanes();
        gather_columns<T, lanes()>
            <<<blocks_for(work), kThreads, 0, reinterpret_cast<cudaStream_t>(launch.stream)>>>(
                map, groups, static_cast<const Vector*>(features), static_cast<const T*>(offsets),
                static_cast<Vector*>(columns), work);
        check(cudaGetLastError(), "gathering the columns of a deformable convolution");
    });
}

void max_pool(const Launch& launch, const Map& map, const void* features, void* pooled) {
    const std::int64_t values =
        count(map.images, (map.height + 1) / 2, (map.width + 1) / 2, map.channels);
    if (values == 0) return;
    const DeviceGuard guard(launch.device);
    for_type(launch, map.channels, {features, pooled}, [&](auto number, auto lanes) {
        using T = decltype(number);
        using Vector = Channels<T, lanes()>;
        const std::int64_t work = values / lanes();
        pool<T, lanes()>
            <<<blocks_for(work), kThreads, 0, reinterpret_cast<cudaStream_t>(launch.stream)>>>(
                map, static_cast<const Vector*>(features), static_cast<Vector*>(pooled), work);
        check(cudaGetLastError(), "max pooling");
    });
}

}  // namespace bevdepth::layers
