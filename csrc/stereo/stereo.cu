#include <cmath>

#include "channels.cuh"
#include "device.cuh"
#include "stereo/stereo.h"

namespace bevdepth::stereo {
namespace {

// A block compares one tile of the reference map with the source map. Terms of this file, in the
// order in which they are built on each other:
//
// * Tile: 8 x 4 pixels of the reference map.
// * Sample: weights and indices of the four pixels of the source map that surround the position to
//   which a pixel of the tile is projected at one depth.
// * Pass: the block processes kDepths depths at a time. In each pass, it first computes the
//   samples of all pixels and depths, and stores them in shared memory.
// * Part: V adjacent channels, which a thread reads with one access.
// * Team: threads that compute the cost of one pixel in one group of channels, for one depth after
//   the other. Each member multiplies some parts of the group; then the team adds its sums.
//
//      tile                 a warp for 256 half-precision channels in 8 groups:
//                           one pixel, 8 teams of 4 threads
//   +--------+               +-------------------+-----------------+- .. -+---------------------+
//   | 8 x 4  |  samples of   | lane 0  1   2   3 | 4   5   6   7   |      | 28   29   30   31   |
//   | pixels |  the tile in  | ch. 0-7 8- 16- 24-| 32- 40- 48- 56- |      | 224- 232- 240- 248- |
//   +--------+ shared memory | sum: group 0      | sum: group 1    |      | sum: group 7        |
//                            +-------------------+-----------------+- .. -+---------------------+
//
// Neighboring pixels of the tile read neighboring pixels of the source map. Because the tile has
// several rows and columns, most of these pixels are already in the L1 cache.
constexpr int kThreads = 256;
constexpr int kTileWidth = 8, kTileHeight = 4, kTile = kTileWidth * kTileHeight;
constexpr int kDepths = 12;  // depths per pass

struct alignas(16) Sample {
    int cell[4];
    float weight[4];  // 0 outside of the map
};

struct Tile {
    int image, row, column;  // image of the tile; row and column of its first pixel
    __device__ int row_of(int pixel) const { return row + pixel / kTileWidth; }
    __device__ int column_of(int pixel) const { return column + pixel % kTileWidth; }
};

// Returns the sample at column x and row y of the source map. Whole numbers are the centers of
// pixels.
__device__ Sample sample_at(const Maps& maps, float x, float y) {
    Sample sample = {};
    if (isnan(x) || isnan(y)) sample.weight[0] = NAN;  // the cost is NaN, too
    if (!(x > -1 && x < maps.width && y > -1 && y < maps.height)) return sample;
    const int left = static_cast<int>(floorf(x)), top = static_cast<int>(floorf(y));
    const float right = x - left, below = y - top;
    for (int corner = 0; corner < 4; ++corner) {
        const int row = top + corner / 2, column = left + corner % 2;
        if (row < 0 || row >= maps.height || column < 0 || column >= maps.width) continue;
        sample.cell[corner] = row * maps.width + column;
        sample.weight[corner] =
            (corner / 2 ? below : 1 - below) * (corner % 2 ? right : 1 - right);
    }
    return sample;
}

// Projects a pixel of the reference map at a depth into the source map. The scale factors at the
// end follow ops/warping.py: the outermost pixels of the reference map lie on the border of the
// network input, but the interpolation in the source map places this border half a pixel outside
// of the centers of the outermost pixels.
__device__ Sample project(const Maps& maps, const Projection& projection, int image, int row,
                          int column, float depth) {
    const double* matrix = projection.source_from_reference + 12 * image;
    const double u = projection.u[column], v = projection.v[row];
    float point[3];
    for (int axis = 0; axis < 3; ++axis, matrix += 4)
        point[axis] = static_cast<float>(matrix[0] * u + matrix[1] * v + matrix[2]) * depth +
                      static_cast<float>(matrix[3]);
    const bool too_near = point[2] < projection.nearest_depth;
    const float width = projection.map_stride * maps.width,
                height = projection.map_stride * maps.height;
    const float x = too_near ? width : point[0] / point[2],
                y = too_near ? height : point[1] / point[2];
    return sample_at(maps, x * (maps.width / (width - 1)) - 0.5f,
                     y * (maps.height / (height - 1)) - 0.5f);
}

// Stores the samples (count, kTile) of `count` depths, beginning with depth `first`.
__device__ void project_tile(const Maps& maps, const Projection& projection, const Tile& tile,
                             const float* depths, int first, int count, Sample* samples) {
    for (int item = threadIdx.x; item < kTile * count; item += kThreads) {
        const int row = tile.row_of(item % kTile), column = tile.column_of(item % kTile);
        if (row >= maps.height || column >= maps.width) continue;
        const std::int64_t plane =
            static_cast<std::int64_t>(tile.image) * maps.depths + first + item / kTile;
        samples[item] = project(maps, projection, tile.image, row, column,
                                depths[(plane * maps.height + row) * maps.width + column]);
    }
}

// Returns the dot product of the part `own` of the reference map and the same part of the source
// map, which is interpolated at the sample. `source` is this part of the first source pixel, and
// `parts` the number of parts of one pixel.
template <class T, int V>
__device__ float product(const Channels<T, V>& own, const Channels<T, V>* source, int parts,
                         const Sample& sample) {
    float sum = 0;
    for (int corner = 0; corner < 4; ++corner) {
        if (sample.weight[corner] == 0) continue;
        const Channels<T, V> read = source[static_cast<std::int64_t>(sample.cell[corner]) * parts];
        float dot = 0;
        for (int k = 0; k < V; ++k)
            dot += static_cast<float>(own.value[k]) * static_cast<float>(read.value[k]);
        sum += sample.weight[corner] * dot;
    }
    return sum;
}

// Returns the sum of the values of all members of the team of this thread. `team` is the number of
// members, a power of two.
__device__ float team_sum(float value, int team) {
    const unsigned first = threadIdx.x % 32 / team * team;
    const unsigned members = (0xffffffffu >> (32 - team)) << first;
    for (int step = team / 2; step > 0; step /= 2) value += __shfl_xor_sync(members, value, step);
    return value;
}

// Computes all costs of one tile. An item is one pixel of the tile and one group of channels. The
// teams of the block process the items in turn.
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    compare(Maps maps, Projection projection, int team, const Channels<T, V>* reference,
            const Channels<T, V>* source, const float* depths, T* costs) {
    __shared__ Sample samples[kDepths * kTile];
    const Tile tile{static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y) * kTileHeight,
                    static_cast<int>(blockIdx.x) * kTileWidth};
    const int parts = maps.channels / V, group_parts = parts / maps.groups,
              member = threadIdx.x % team;
    const std::int64_t cells = static_cast<std::int64_t>(maps.height) * maps.width;
    for (int first = 0; first < maps.depths; first += kDepths) {
        const int count = min(kDepths, maps.depths - first);
        project_tile(maps, projection, tile, depths, first, count, samples);
        __syncthreads();
        for (int item = threadIdx.x / team; item < kTile * maps.groups; item += kThreads / team) {
            const int pixel = item / maps.groups, group = item % maps.groups;
            const int row = tile.row_of(pixel), column = tile.column_of(pixel);
            if (row >= maps.height || column >= maps.width) continue;
            const std::int64_t cell = static_cast<std::int64_t>(row) * maps.width + column;
            const int part = group * group_parts + member;
            const Channels<T, V>* own = reference + (tile.image * cells + cell) * parts + part;
            const Channels<T, V>* other = source + tile.image * cells * parts + part;
            const Channels<T, V> own_first = *own;
            for (int depth = 0; depth < count; ++depth) {
                const Sample sample = samples[depth * kTile + pixel];
                float sum = product(own_first, other, parts, sample);
                for (int next = team; next < group_parts; next += team)
                    sum += product(own[next], other + next, parts, sample);
                sum = team_sum(sum, team);
                const std::int64_t plane =
                    static_cast<std::int64_t>(tile.image) * maps.depths + first + depth;
                if (member == 0)
                    costs[(plane * cells + cell) * maps.groups + group] =
                        static_cast<T>(sum / (group_parts * V));
            }
        }
        __syncthreads();  // before the samples are replaced
    }
}

// Returns the number of members of a team: the largest power of two up to 32 that divides the
// number of parts of a group.
int largest_team(int parts) {
    int team = 1;
    while (team < 32 && parts % (2 * team) == 0) team *= 2;
    return team;
}

void require_valid(const Maps& maps) {
    constexpr int most_blocks = 65535;
    if (maps.images < 0 || maps.height < 0 || maps.width < 0 || maps.channels < 0 ||
        maps.depths < 0)
        throw std::invalid_argument("a size of a map is negative");
    if (maps.groups < 1 || maps.channels % maps.groups != 0)
        throw std::invalid_argument("channels must be a multiple of groups");
    if (maps.images > most_blocks || maps.height / kTileHeight >= most_blocks)
        throw std::invalid_argument("a map is too large for one launch");
}

}  // namespace

void cost_volume(const Launch& launch, const Maps& maps, const Projection& projection,
                 const void* reference, const void* source, const float* depths, void* costs) {
    require_valid(maps);
    if (std::int64_t{maps.images} * maps.height * maps.width * maps.channels * maps.depths == 0)
        return;
    const DeviceGuard guard(launch.device);
    const dim3 tiles((maps.width + kTileWidth - 1) / kTileWidth,
                     (maps.height + kTileHeight - 1) / kTileHeight, maps.images);
    for_type(
        launch, maps.channels / maps.groups, {reference, source}, [&](auto number, auto count) {
            using T = decltype(number);
            constexpr int V = count();
            using Part = Channels<T, V>;
            const int team = largest_team(maps.channels / maps.groups / V);
            compare<T, V><<<tiles, kThreads, 0, reinterpret_cast<cudaStream_t>(launch.stream)>>>(
                maps, projection, team, static_cast<const Part*>(reference),
                static_cast<const Part*>(source), depths, static_cast<T*>(costs));
            check(cudaGetLastError(), "comparing the features of two frames");
        });
}

}  // namespace bevdepth::stereo
