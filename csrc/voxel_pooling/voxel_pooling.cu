// Implements voxel_pooling.h: selects and launches the kernels.
#include "voxel_pooling/backward.cuh"
#include "voxel_pooling/launch.cuh"
#include "voxel_pooling/splat.cuh"
#include "voxel_pooling/tensor_splat.cuh"
#include "voxel_pooling/volume.cuh"
#include "voxel_pooling/voxel_pooling.h"

namespace bevdepth {
namespace {

GeometryCells geometry_cells(const Geometry& geometry) {
    GeometryCells cells{geometry, {}};
    for (int axis = 0; axis < 3; ++axis) {
        const float size = geometry.cell[axis];
        if (!(size >= kSmallestCell && size <= kLargestCell)) {
            throw std::invalid_argument(
                "voxel pooling: the cell must measure from 2^-60 to 2^60 along each axis");
        }
        cells.reciprocal[axis] = 1.0f / size;
    }
    return cells;
}

// Divides the channels of a map into groups of `group` channels, and the groups evenly into
// slices. A block processes one slice.
struct Slices {
    unsigned groups, slices;  // groups per slice; number of slices

    Slices(const Sizes& sizes, int group) {
        const std::int64_t all = ceil_divide(sizes.channels, group);
        slices = static_cast<unsigned>(ceil_divide(all, kMaxGroups));
        groups = slices == 0 ? 0 : static_cast<unsigned>(ceil_divide(all, slices));
    }
};

// Returns the number of depth bins of one block of splat: `most`, or fewer if some multiprocessors
// would otherwise have too few blocks.
unsigned splat_bins(const Sizes& sizes, const Slices& slices, int most) {
    const std::int64_t warps =
        std::max<std::int64_t>(ceil_divide(slices.groups * kSplatColumns, kWarp), 1);
    const std::int64_t tiles = sizes.batch * sizes.cameras * ceil_divide(sizes.height, kRows) *
                               ceil_divide(sizes.width, kSplatColumns);
    const std::int64_t parts = multiprocessors() * (kSplatWarps / warps) /
                               std::max<std::int64_t>(tiles * slices.slices, 1);
    return static_cast<unsigned>(std::clamp<std::int64_t>(
        ceil_divide(sizes.bins, std::max<std::int64_t>(parts, 1)), 1, most));
}

Planes context_planes(const Sizes& s) {
    return {s.batch * s.cameras, s.channels, s.height * s.width};
}

// Prepares the arrays for a kernel that adds points. If `bounded.bounds` is not null, it computes
// the bounds of the arrays in `bounded`, which exact sums need. If `context.channels_first` is not
// null, it transposes the context. It sets `bytes` bytes of `sums` to zero.
template <class T>
void prepare_arrays(const Launch& launch, const Sizes& sizes, Bounded<T> bounded,
                    const Context& context, void* sums, std::int64_t bytes) {
    const Planes planes = context_planes(sizes);
    const std::int64_t tiles = context.channels_first == nullptr ? 0 : planes.tiles();
    Sizes counts = sizes;
    // In both arrays, a group of 4 values must not contain values of two samples.
    const bool fours = bounded.groups[0] % 4 == 0 && bounded.groups[1] % 4 == 0;
    counts.channels = fours ? 4 : 1;
    for_group<T>(counts, {bounded.values[0], bounded.values[1]}, [&](auto group) {
        constexpr int V = decltype(group)::value;
        for (std::int64_t& groups : bounded.groups) groups /= V;
        run(launch, Start::after_previous, prepare<T, V>,
            bounded.blocks() + tiles + ceil_divide(bytes, kClearBytes * kThreads), dim3(1, 1, 1),
            dim3(kThreads), bounded, planes, static_cast<const T*>(context.channels_first),
            static_cast<T*>(context.channels_last), sums, bytes);
    });
}

// Rounds the sums to the type of the map.
template <class T, class S>
void write_maps(const Launch& launch, const Sizes& sizes, const S* sums, T* maps) {
    for_group<T>(sizes, {maps}, [&](auto group) {
        constexpr int V = decltype(group)::value;
        const std::int64_t groups = sizes.channels / V,
                           count = sizes.batch * sizes.nx * sizes.ny * groups;
        if (count > std::numeric_limits<std::uint32_t>::max() - kThreads * kMapRounds) {
            throw std::invalid_argument("voxel pooling: the arrays are too large for one launch");
        }
        run(launch, Start::early, write_map<T, S, V>, ceil_divide(count, kThreads * kMapRounds),
            dim3(1, 1, 1), dim3(kThreads), count, groups, sums, maps);
    });
}

// prepare(target, bytes) clears the sums, and splat_all(target) adds the points. If `sums.cells`
// is null, the points are added directly to the map. Otherwise they are added to `sums.cells`, and
// these sums are then rounded to the map.
template <class T, class S, class Prepare, class SplatAll>
void sum_points(const Launch& launch, const Sizes& sizes, const Sums& sums, void* bev,
                Prepare prepare, SplatAll splat_all) {
    S* target = static_cast<S*>(sums.cells == nullptr ? bev : sums.cells);
    prepare(target, sizes.batch * sizes.nx * sizes.ny * sizes.channels *
                        static_cast<std::int64_t>(sizeof(S)));
    splat_all(target);
    if (sums.cells != nullptr) write_maps(launch, sizes, target, static_cast<T*>(bev));
}

template <class T, class S>
void splat_points(const Launch& launch, const Sizes& sizes, const GeometryCells& cells,
                  const StridedArray& depth, const T* features, const Sums& sums, S* target) {
    for_group<T>(sizes, {features}, [&](auto group) {
        constexpr int V = decltype(group)::value;
        const Slices slices(sizes, V);
        const Tiling tiling(sizes, kSplatColumns,
                            splat_bins(sizes, slices, kSplatBins<S, Accumulator<T>>));
        run(launch, Start::early, splat<T, S, V>,
            sizes.batch * sizes.cameras * tiling.blocks_per_view(), dim3(1, slices.slices, 1),
            dim3(slices.groups, kSplatColumns), sizes, tiling, cells, depth, features, sums.bounds,
            target);
    });
}

template <class T>
void splat_half_points(const Launch& launch, const Sizes& sizes, const GeometryCells& cells,
                       const StridedArray& depth, const Context& context, float* target) {
    const Tiling tiling(sizes, kTensorColumns, half_bins(sizes));
    const LineSource weights = line_source(depth),
                     features = line_source(context_array(context, sizes));
    const int slices = static_cast<int>(ceil_divide(sizes.channels, kTensorChannels));
    const int slice =
        slices == 0
            ? 0
            : static_cast<int>(ceil_divide(ceil_divide(sizes.channels, slices), kTensorStep)) *
                  kTensorStep;
    const auto launch_for = [&](auto group) {
        run(launch, Start::early, splat_half<T, decltype(group)::value>,
            sizes.batch * sizes.cameras * tiling.blocks_per_view(), dim3(1, slices, 1),
            dim3(kTensorThreads), sizes, tiling, cells, weights, features, slice, target);
    };
    const bool fours = sizes.channels % 4 == 0 && in_fours(weights, sizes.bins, sizes.width) &&
                       in_fours(features, sizes.channels, sizes.width);
    fours ? launch_for(std::integral_constant<int, 4>{})
          : launch_for(std::integral_constant<int, 1>{});
}

// Returns true if tensor cores multiply depth and context: T is float16 or bfloat16, the GPU is
// sm_80 or newer, and sums need not be exact.
template <class T>
bool on_tensor_cores(bool exact) {
    if constexpr (sizeof(T) == 2) return !exact && code_version(splat_half<T, 4>) >= 80;
    return false;
}

template <class T, class S>
void sum_features(const Launch& launch, const Sizes& sizes, const Geometry& geometry,
                  const StridedArray& depth, const Context& context, const Sums& sums, void* bev) {
    const GeometryCells cells = geometry_cells(geometry);
    const bool tensor = on_tensor_cores<T>(sums.exact);
    const std::int64_t sample_points = sizes.cameras * sizes.bins * sizes.height * sizes.width;
    const std::int64_t sample_features =
        sizes.cameras * sizes.height * sizes.width * sizes.channels;
    const auto prepare = [&](S* target, std::int64_t bytes) {
        const void* features =
            context.channels_first == nullptr ? context.channels_last : context.channels_first;
        const Bounded<T> bounded{
            {static_cast<const T*>(depth.data), static_cast<const T*>(features)},
            {sample_points, sample_features},
            sizes.batch,
            sums.exact ? sums.bounds : nullptr};
        prepare_arrays<T>(launch, sizes, bounded, tensor ? Context{} : context, target, bytes);
    };
    const auto splat_all = [&](S* target) {
        if constexpr (sizeof(T) == 2 && std::is_same_v<S, float>) {
            if (tensor) return splat_half_points<T>(launch, sizes, cells, depth, context, target);
        }
        splat_points<T, S>(launch, sizes, cells, depth,
                           static_cast<const T*>(context.channels_last), sums, target);
    };
    sum_points<T, S>(launch, sizes, sums, bev, prepare, splat_all);
}

}  // namespace

void voxel_index(const Launch& launch, const Sizes& sizes, const Geometry& geometry,
                 std::int32_t* voxel_index) {
    check_sizes(sizes);
    const DeviceGuard guard(launch.device);
    const std::int64_t points =
        sizes.batch * sizes.cameras * sizes.bins * sizes.height * sizes.width;
    run(launch, Start::after_previous, write_voxel_index, ceil_divide(points, kThreads),
        dim3(1, 1, 1), dim3(kThreads), sizes, geometry_cells(geometry), points, voxel_index);
}

bool wants_channels_last(const Launch& launch, bool exact) {
    const DeviceGuard guard(launch.device);
    bool wants = true;
    for_dtype(launch.dtype,
              [&](auto type) { wants = !on_tensor_cores<typename decltype(type)::type>(exact); });
    return wants;
}

void voxel_pooling(const Launch& launch, const Sizes& sizes, const Geometry& geometry,
                   const StridedArray& depth, const Context& context, const Sums& sums,
                   void* bev) {
    check_sizes(sizes);
    const DeviceGuard guard(launch.device);
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        for_sums<T>(sums.exact, [&](auto sum) {
            sum_features<T, typename decltype(sum)::type>(launch, sizes, geometry, depth, context,
                                                          sums, bev);
        });
    });
}

void voxel_pooling_backward(const Launch& launch, const Sizes& sizes, const Geometry& geometry,
                            const StridedArray& depth, const Context& context,
                            const void* grad_bev, void* grad_depth, void* grad_context) {
    check_sizes(sizes);
    const DeviceGuard guard(launch.device);
    const std::int64_t views = sizes.batch * sizes.cameras;
    const GeometryCells cells = geometry_cells(geometry);
    const Tiling depth_tiling(sizes, kDepthColumns, kDepthBins * kDepthRounds);
    const Tiling context_tiling(sizes, 1,
                                static_cast<unsigned>(std::max<std::int64_t>(sizes.bins, 1)));
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        const T* features = static_cast<const T*>(context.channels_last);
        const T* gradient = static_cast<const T*>(grad_bev);
        prepare_arrays<T>(launch, sizes, Bounded<T>{}, context, nullptr, 0);
        for_group<T>(sizes, {features, gradient}, [&](auto group) {
            constexpr int V = decltype(group)::value;
            const Slices slices(sizes, V);
            run(launch, Start::early, gather_grad_depth<T, V>,
                views * depth_tiling.blocks_per_view(), dim3(1, 1, 1), dim3(kThreads), sizes,
                depth_tiling, cells, features, gradient, static_cast<T*>(grad_depth));
            run(launch, Start::after_previous, gather_grad_context<T, V>,
                views * context_tiling.row_blocks * context_tiling.column_blocks,
                dim3(1, slices.slices, 1), dim3(slices.groups, kRows), sizes, context_tiling,
                cells, depth, gradient, static_cast<T*>(grad_context));
        });
    });
}

template <class T, class S>
void sum_volume(const Launch& launch, const Sizes& sizes, const std::int32_t* voxel_index,
                const void* volume, const Sums& sums, void* bev) {
    const std::int64_t sample_points = sizes.cameras * sizes.bins * sizes.height * sizes.width;
    const auto prepare = [&](S* target, std::int64_t bytes) {
        const Bounded<T> bounded{{static_cast<const T*>(volume), nullptr},
                                 {sample_points * sizes.channels, 0},
                                 sizes.batch,
                                 sums.exact ? sums.bounds : nullptr};
        prepare_arrays<T>(launch, sizes, bounded, {nullptr, nullptr}, target, bytes);
    };
    const auto splat_all = [&](S* target) {
        const unsigned columns =
            static_cast<unsigned>(std::clamp<std::int64_t>(sizes.width, 1, kVolumeColumns));
        const Tiling tiling(sizes, columns, 1);
        for_group<T>(sizes, {}, [&](auto group) {
            constexpr int V = decltype(group)::value;
            run(launch, Start::early, splat_volume<T, S, V>,
                sizes.batch * sizes.cameras * tiling.blocks_per_view(), dim3(1, 1, 1),
                dim3(columns, kThreads / columns), sizes, tiling, IndexedCells{voxel_index},
                static_cast<const T*>(volume), sums.bounds, target);
        });
    };
    sum_points<T, S>(launch, sizes, sums, bev, prepare, splat_all);
}

void voxel_pooling_volume(const Launch& launch, const Sizes& sizes,
                          const std::int32_t* voxel_index, const void* volume, const Sums& sums,
                          void* bev) {
    check_sizes(sizes);
    const DeviceGuard guard(launch.device);
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        for_sums<T>(sums.exact, [&](auto sum) {
            sum_volume<T, typename decltype(sum)::type>(launch, sizes, voxel_index, volume, sums,
                                                        bev);
        });
    });
}

void voxel_pooling_volume_backward(const Launch& launch, const Sizes& sizes,
                                   const std::int32_t* voxel_index, const void* grad_bev,
                                   void* grad_volume) {
    check_sizes(sizes);
    const DeviceGuard guard(launch.device);
    const std::int64_t points =
        sizes.batch * sizes.cameras * sizes.bins * sizes.height * sizes.width;
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        const T* gradient = static_cast<const T*>(grad_bev);
        for_group<T>(sizes, {gradient}, [&](auto group) {
            run(launch, Start::after_previous, gather_grad_volume<T, decltype(group)::value>,
                ceil_divide(points, kThreads), dim3(1, 1, 1), dim3(kThreads), sizes,
                IndexedCells{voxel_index}, points, gradient, static_cast<T*>(grad_volume));
        });
    });
}

}  // namespace bevdepth
