#include "voxel_pooling.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <limits>
#include <stdexcept>
#include <string>

namespace bevdepth {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarpsPerBlock = 8;
constexpr int kChannelsPerLane = 4;
constexpr int kChannelSlice = kWarp * kChannelsPerLane;  // channels that one warp sums in registers
constexpr int kTile = 32;                                // side of the square that a block transposes in shared memory
constexpr int kOutside = -1;                             // cell of a point outside the grid
constexpr float kIndexLimit = 2147483648.0f;             // quotients from here on are no int32

template <class T> struct AccumulatorOf { using type = float; };
template <> struct AccumulatorOf<double> { using type = double; };
template <class T> using Accumulator = typename AccumulatorOf<T>::type;

// ---- Which cell a point falls into ------------------------------------------------------------------------------------

struct Point {
    std::int64_t view;  // sample * cameras + camera
    std::int64_t bin, row, column;
};

__device__ std::int64_t flat_point(const Sizes& sizes, const Point& point) {
    return ((point.view * sizes.bins + point.bin) * sizes.height + point.row) * sizes.width + point.column;
}

// Every operation is rounded by itself, in the order of the reference: a fused multiply-add would move border points.
__device__ float cell_quotient(const Geometry& geometry, const Point& point, int axis) {
    const float* m = geometry.ego_from_frustum + (point.view * 3 + axis) * 4;
    const float d = geometry.frustum_d[point.bin];
    const float ud = __fmul_rn(geometry.frustum_u[point.column], d);
    const float vd = __fmul_rn(geometry.frustum_v[point.row], d);
    const float rotated = __fadd_rn(__fadd_rn(__fmul_rn(m[0], ud), __fmul_rn(m[1], vd)), __fmul_rn(m[2], d));
    const float metres = __fadd_rn(rotated, m[3]);
    return __fdiv_rn(__fsub_rn(metres, geometry.lower[axis]), geometry.cell[axis]);
}

struct GeometryCells {
    Geometry geometry;

    // Truncation towards zero takes (-1, 0) to cell 0; NaN fails every comparison.
    __device__ int operator()(const Sizes& sizes, const Point& point) const {
        const float x = cell_quotient(geometry, point, 0);
        const float y = cell_quotient(geometry, point, 1);
        const float z = cell_quotient(geometry, point, 2);
        const bool inside = x > -1.0f && x < static_cast<float>(sizes.nx) && y > -1.0f &&
                            y < static_cast<float>(sizes.ny) && z > -1.0f && z < 1.0f;
        return inside ? static_cast<int>(y) * static_cast<int>(sizes.nx) + static_cast<int>(x) : kOutside;
    }
};

struct IndexedCells {
    const std::int32_t* voxel_index;

    __device__ int operator()(const Sizes& sizes, const Point& point) const {
        const std::int32_t* index = voxel_index + flat_point(sizes, point) * 3;
        const bool inside = index[0] >= 0 && index[0] < sizes.nx && index[1] >= 0 && index[1] < sizes.ny && index[2] == 0;
        return inside ? index[1] * static_cast<int>(sizes.nx) + index[0] : kOutside;
    }
};

// One thread per point; each writes its own three numbers.
__global__ void write_voxel_index(Sizes sizes, Geometry geometry, std::int64_t points, std::int32_t* voxel_index) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= points) return;
    const std::int64_t line = i / sizes.width;
    const std::int64_t plane = line / sizes.height;
    const Point point{plane / sizes.bins, plane % sizes.bins, line % sizes.height, i % sizes.width};
    for (int axis = 0; axis < 3; ++axis) {
        const float quotient = cell_quotient(geometry, point, axis);
        voxel_index[i * 3 + axis] = fabsf(quotient) < kIndexLimit ? __float2int_rz(quotient) : kOutside;
    }
}

// ---- Between planes (groups, channels, positions) of T and rows (groups, positions, channels) of A --------------------

struct Planes {
    std::int64_t groups, channels, positions;

    __host__ __device__ std::int64_t channel_tiles() const { return (channels + kTile - 1) / kTile; }
    __host__ __device__ std::int64_t position_tiles() const { return (positions + kTile - 1) / kTile; }
    __host__ __device__ std::int64_t tiles() const { return groups * channel_tiles() * position_tiles(); }
};

struct Tile {
    std::int64_t group, channel, position;  // channel and position of the tile's first corner

    __device__ Tile(const Planes& planes, std::int64_t tile)
        : group(tile / planes.position_tiles() / planes.channel_tiles()),
          channel(tile / planes.position_tiles() % planes.channel_tiles() * kTile),
          position(tile % planes.position_tiles() * kTile) {}
};

// One block per tile of 32 channels x 32 positions, turned over in shared memory so that reads and writes both run along
// lines. Every element has one reader and one writer: no atomics.
template <class T>
__global__ void rows_from_planes(Planes planes, const T* source, Accumulator<T>* rows) {
    __shared__ Accumulator<T> values[kTile][kTile + 1];
    const Tile tile(planes, blockIdx.x);
    for (int i = threadIdx.y; i < kTile; i += kWarpsPerBlock) {
        const std::int64_t channel = tile.channel + i, position = tile.position + threadIdx.x;
        if (channel < planes.channels && position < planes.positions) {
            values[i][threadIdx.x] = source[(tile.group * planes.channels + channel) * planes.positions + position];
        }
    }
    __syncthreads();
    for (int i = threadIdx.y; i < kTile; i += kWarpsPerBlock) {
        const std::int64_t position = tile.position + i, channel = tile.channel + threadIdx.x;
        if (channel < planes.channels && position < planes.positions) {
            rows[(tile.group * planes.positions + position) * planes.channels + channel] = values[threadIdx.x][i];
        }
    }
}

// The way back, divided alike.
template <class T>
__global__ void planes_from_rows(Planes planes, const Accumulator<T>* rows, T* target) {
    __shared__ Accumulator<T> values[kTile][kTile + 1];
    const Tile tile(planes, blockIdx.x);
    for (int i = threadIdx.y; i < kTile; i += kWarpsPerBlock) {
        const std::int64_t position = tile.position + i, channel = tile.channel + threadIdx.x;
        if (channel < planes.channels && position < planes.positions) {
            values[i][threadIdx.x] = rows[(tile.group * planes.positions + position) * planes.channels + channel];
        }
    }
    __syncthreads();
    for (int i = threadIdx.y; i < kTile; i += kWarpsPerBlock) {
        const std::int64_t channel = tile.channel + i, position = tile.position + threadIdx.x;
        if (channel < planes.channels && position < planes.positions) {
            target[(tile.group * planes.channels + channel) * planes.positions + position] = static_cast<T>(values[threadIdx.x][i]);
        }
    }
}

// ---- Depth and context ------------------------------------------------------------------------------------------------

// The sum that a warp holds for one cell: lane l has channels first + l, first + l + 32, ...
template <class A>
struct ChannelSlice {
    std::int64_t first, channels;
    A sum[kChannelsPerLane] = {};

    __device__ void add_row(A weight, const A* row) {
        for_each([&](int k, std::int64_t channel) { sum[k] += weight * row[channel]; });
    }

    __device__ void flush_to(A* row) {
        for_each([&](int k, std::int64_t channel) {
            atomicAdd(row + channel, sum[k]);
            sum[k] = 0;
        });
    }

    template <class F>
    __device__ void for_each(F visit) {
#pragma unroll
        for (int k = 0; k < kChannelsPerLane; ++k) {
            const std::int64_t channel = first + threadIdx.x + k * kWarp;
            if (channel < channels) visit(k, channel);
        }
    }
};

// One warp per sample, camera, depth bin, image column and slice of channels; a block holds neighbouring bins of one column,
// which share their context rows in L1. Seen by a level camera the rows of a column at one depth fall into very few cells, so
// the warp walks down the column, sums in registers and adds to memory when the cell changes. Columns of one ray and other
// cameras meet in the same cell: atomics, whose order varies from run to run.
template <class T, class Cells>
__global__ void splat_columns(Sizes sizes, Cells cells, const T* depth, const Accumulator<T>* pixel_rows, Accumulator<T>* cell_rows) {
    using A = Accumulator<T>;
    const std::int64_t bin_blocks = (sizes.bins + kWarpsPerBlock - 1) / kWarpsPerBlock;
    const std::int64_t column = blockIdx.x % sizes.width;
    const std::int64_t bin = blockIdx.x / sizes.width % bin_blocks * kWarpsPerBlock + threadIdx.y;
    const std::int64_t view = blockIdx.x / sizes.width / bin_blocks;
    if (bin >= sizes.bins) return;

    const int lane = threadIdx.x;
    A* sample_cells = cell_rows + view / sizes.cameras * sizes.nx * sizes.ny * sizes.channels;
    ChannelSlice<A> slice{static_cast<std::int64_t>(blockIdx.y) * kChannelSlice, sizes.channels};
    int open_cell = kOutside;
    for (std::int64_t top = 0; top < sizes.height; top += kWarp) {
        const int rows = static_cast<int>(min(static_cast<std::int64_t>(kWarp), sizes.height - top));
        const Point point{view, bin, top + lane, column};
        const int lane_cell = lane < rows ? cells(sizes, point) : kOutside;
        const A lane_weight = lane < rows ? static_cast<A>(depth[flat_point(sizes, point)]) : A(0);
        for (int i = 0; i < rows; ++i) {
            const int cell = __shfl_sync(kAllLanes, lane_cell, i);
            const A weight = __shfl_sync(kAllLanes, lane_weight, i);
            if (cell != open_cell) {
                if (open_cell != kOutside) slice.flush_to(sample_cells + open_cell * sizes.channels);
                open_cell = cell;
            }
            const std::int64_t pixel = (view * sizes.height + top + i) * sizes.width + column;
            if (cell != kOutside) slice.add_row(weight, pixel_rows + pixel * sizes.channels);
        }
    }
    if (open_cell != kOutside) slice.flush_to(sample_cells + open_cell * sizes.channels);
}

struct Pixel {
    std::int64_t view, row, column;

    __device__ Pixel(const Sizes& sizes, std::int64_t pixel)
        : view(pixel / sizes.width / sizes.height), row(pixel / sizes.width % sizes.height), column(pixel % sizes.width) {}
};

template <class A>
__device__ A sum_over_warp(A value) {
    for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
    return value;
}

// grad_depth[point] = context row of its pixel . gradient row of its cell.
// One warp per pixel, lanes over channels, bins one after the other. Each result has one writer and a fixed order: no atomics.
template <class T, class Cells>
__global__ void gather_grad_depth(Sizes sizes, Cells cells, std::int64_t pixels, const Accumulator<T>* pixel_rows,
                                  const Accumulator<T>* cell_rows, T* grad_depth) {
    using A = Accumulator<T>;
    const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.y;
    if (index >= pixels) return;
    const Pixel pixel(sizes, index);
    const int lane = threadIdx.x;
    const A* context_row = pixel_rows + index * sizes.channels;
    const A* sample_cells = cell_rows + pixel.view / sizes.cameras * sizes.nx * sizes.ny * sizes.channels;
    for (std::int64_t near = 0; near < sizes.bins; near += kWarp) {
        const int bins = static_cast<int>(min(static_cast<std::int64_t>(kWarp), sizes.bins - near));
        const Point point{pixel.view, near + lane, pixel.row, pixel.column};
        const int lane_cell = lane < bins ? cells(sizes, point) : kOutside;
        A lane_gradient = 0;
        for (int i = 0; i < bins; ++i) {
            const int cell = __shfl_sync(kAllLanes, lane_cell, i);
            if (cell == kOutside) continue;
            const A* grad_row = sample_cells + cell * sizes.channels;
            A product = 0;
            for (std::int64_t channel = lane; channel < sizes.channels; channel += kWarp) {
                product += context_row[channel] * grad_row[channel];
            }
            const A total = sum_over_warp(product);
            if (lane == i) lane_gradient = total;
        }
        if (lane < bins) grad_depth[flat_point(sizes, point)] = static_cast<T>(lane_gradient);
    }
}

// grad_context[pixel] = sum over its depth bins of depth * gradient row of the cell.
// One warp per pixel and slice of channels, bins one after the other. Each result has one writer and a fixed order: no atomics.
template <class T, class Cells>
__global__ void gather_grad_context(Sizes sizes, Cells cells, std::int64_t pixels, const T* depth,
                                    const Accumulator<T>* cell_rows, T* grad_context) {
    using A = Accumulator<T>;
    const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.y;
    if (index >= pixels) return;
    const Pixel pixel(sizes, index);
    const int lane = threadIdx.x;
    const A* sample_cells = cell_rows + pixel.view / sizes.cameras * sizes.nx * sizes.ny * sizes.channels;
    ChannelSlice<A> slice{static_cast<std::int64_t>(blockIdx.y) * kChannelSlice, sizes.channels};
    for (std::int64_t near = 0; near < sizes.bins; near += kWarp) {
        const int bins = static_cast<int>(min(static_cast<std::int64_t>(kWarp), sizes.bins - near));
        const Point point{pixel.view, near + lane, pixel.row, pixel.column};
        const int lane_cell = lane < bins ? cells(sizes, point) : kOutside;
        const A lane_weight = lane < bins ? static_cast<A>(depth[flat_point(sizes, point)]) : A(0);
        for (int i = 0; i < bins; ++i) {
            const int cell = __shfl_sync(kAllLanes, lane_cell, i);
            const A weight = __shfl_sync(kAllLanes, lane_weight, i);
            if (cell != kOutside) slice.add_row(weight, sample_cells + cell * sizes.channels);
        }
    }
    slice.for_each([&](int k, std::int64_t channel) {
        const std::int64_t plane = pixel.view * sizes.channels + channel;
        grad_context[(plane * sizes.height + pixel.row) * sizes.width + pixel.column] = static_cast<T>(slice.sum[k]);
    });
}

// ---- Points with their own features -----------------------------------------------------------------------------------

// Has the block's first warp write the cells of a tile's points; the caller synchronises.
__device__ void find_tile_cells(const Sizes& sizes, const IndexedCells& cells, const Planes& planes, const Tile& tile, int* tile_cells) {
    if (threadIdx.y != 0) return;
    const std::int64_t position = tile.position + threadIdx.x, line = position / sizes.width;
    const Point point{tile.group, line / sizes.height, line % sizes.height, position % sizes.width};
    tile_cells[threadIdx.x] = position < planes.positions ? cells(sizes, point) : kOutside;
}

// One block per tile of 32 channels x 32 points of one camera, turned over in shared memory: the volume is read along points,
// then a warp adds the channels of one point to the row of its cell. Any two points may share a cell: atomics.
template <class T>
__global__ void splat_volume(Sizes sizes, IndexedCells cells, Planes planes, const T* volume, Accumulator<T>* cell_rows) {
    using A = Accumulator<T>;
    __shared__ A values[kTile][kTile + 1];
    __shared__ int tile_cells[kTile];
    const Tile tile(planes, blockIdx.x);
    find_tile_cells(sizes, cells, planes, tile, tile_cells);
    for (int i = threadIdx.y; i < kTile; i += kWarpsPerBlock) {
        const std::int64_t channel = tile.channel + i, position = tile.position + threadIdx.x;
        if (channel < planes.channels && position < planes.positions) {
            values[i][threadIdx.x] = volume[(tile.group * planes.channels + channel) * planes.positions + position];
        }
    }
    __syncthreads();
    A* sample_cells = cell_rows + tile.group / sizes.cameras * sizes.nx * sizes.ny * sizes.channels;
    const std::int64_t channel = tile.channel + threadIdx.x;
    for (int i = threadIdx.y; i < kTile; i += kWarpsPerBlock) {
        const int cell = tile_cells[i];
        if (cell != kOutside && channel < planes.channels) {
            atomicAdd(sample_cells + cell * sizes.channels + channel, values[threadIdx.x][i]);
        }
    }
}

// Divided alike, the other way: a warp reads the gradient row of one point's cell, the tile is written along points.
// Each result has one writer: no atomics.
template <class T>
__global__ void gather_grad_volume(Sizes sizes, IndexedCells cells, Planes planes, const Accumulator<T>* cell_rows, T* grad_volume) {
    using A = Accumulator<T>;
    __shared__ A values[kTile][kTile + 1];
    __shared__ int tile_cells[kTile];
    const Tile tile(planes, blockIdx.x);
    find_tile_cells(sizes, cells, planes, tile, tile_cells);
    __syncthreads();
    const A* sample_cells = cell_rows + tile.group / sizes.cameras * sizes.nx * sizes.ny * sizes.channels;
    for (int i = threadIdx.y; i < kTile; i += kWarpsPerBlock) {
        const int cell = tile_cells[i];
        const std::int64_t channel = tile.channel + threadIdx.x;
        const bool has_gradient = cell != kOutside && channel < planes.channels;
        values[i][threadIdx.x] = has_gradient ? sample_cells[cell * sizes.channels + channel] : A(0);
    }
    __syncthreads();
    for (int i = threadIdx.y; i < kTile; i += kWarpsPerBlock) {
        const std::int64_t channel = tile.channel + i, position = tile.position + threadIdx.x;
        if (channel < planes.channels && position < planes.positions) {
            grad_volume[(tile.group * planes.channels + channel) * planes.positions + position] = static_cast<T>(values[threadIdx.x][i]);
        }
    }
}

// ---- Host -------------------------------------------------------------------------------------------------------------

void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // forget it, or the next launch would report it again
    throw std::runtime_error(std::string("voxel pooling, ") + what + ": " + cudaGetErrorString(status));
}

class DeviceGuard {
public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        check(cudaSetDevice(device), "cudaSetDevice");
    }
    ~DeviceGuard() { cudaSetDevice(before_); }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

private:
    int before_ = 0;
};

// The product of sizes, refused when an array of that many 8-byte numbers could not be addressed.
std::int64_t checked_product(std::initializer_list<std::int64_t> factors) {
    constexpr std::int64_t limit = std::numeric_limits<std::int64_t>::max() / 8;
    std::int64_t product = 1;
    for (const std::int64_t factor : factors) {
        if (factor < 0) throw std::invalid_argument("voxel pooling: a size is negative");
        if (factor > 0 && product > limit / factor) throw std::invalid_argument("voxel pooling: the arrays are too large to be addressed");
        product *= factor;
    }
    return product;
}

std::int64_t cell_count(const Sizes& s) {
    const std::int64_t cells = checked_product({s.nx, s.ny});
    if (cells > std::numeric_limits<std::int32_t>::max()) {
        throw std::invalid_argument("voxel pooling: the grid has more than 2^31 - 1 cells");
    }
    return cells;
}

std::int64_t point_count(const Sizes& s) { return checked_product({s.batch, s.cameras, s.bins, s.height, s.width}); }

std::int64_t pixel_count(const Sizes& s) { return checked_product({s.batch, s.cameras, s.height, s.width}); }

Planes context_planes(const Sizes& s) {
    checked_product({pixel_count(s), s.channels});
    return {s.batch * s.cameras, s.channels, s.height * s.width};
}

Planes volume_planes(const Sizes& s) {
    checked_product({point_count(s), s.channels});
    return {s.batch * s.cameras, s.channels, s.bins * s.height * s.width};
}

Planes bev_planes(const Sizes& s) {
    const std::int64_t cells = cell_count(s);
    checked_product({s.batch, s.channels, cells});
    return {s.batch, s.channels, cells};
}

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t channel_slices(const Sizes& sizes) { return ceil_divide(sizes.channels, kChannelSlice); }

const dim3 kBlock(kWarp, kWarpsPerBlock);

// Launches kernel on blocks x slices, or nothing when there is no work.
template <class... Parameters, class... Arguments>
void run(const Launch& launch, void (*kernel)(Parameters...), dim3 threads, std::int64_t blocks, std::int64_t slices,
         Arguments... arguments) {
    if (blocks == 0 || slices == 0) return;
    if (blocks > std::numeric_limits<std::int32_t>::max() || slices > std::numeric_limits<std::uint16_t>::max()) {
        throw std::invalid_argument("voxel pooling: the arrays are too large for one launch");
    }
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(slices));
    kernel<<<grid, threads, 0, reinterpret_cast<cudaStream_t>(launch.stream)>>>(arguments...);
    check(cudaGetLastError(), "kernel launch");
}

template <class T>
void clear(const Launch& launch, const Planes& planes, T* rows) {
    const std::int64_t bytes = planes.groups * planes.channels * planes.positions * sizeof(T);
    if (bytes == 0) return;
    check(cudaMemsetAsync(rows, 0, bytes, reinterpret_cast<cudaStream_t>(launch.stream)), "clearing the sums");
}

template <class T>
void to_rows(const Launch& launch, const Planes& planes, const void* source, void* rows) {
    run(launch, rows_from_planes<T>, kBlock, planes.tiles(), 1, planes, static_cast<const T*>(source), static_cast<Accumulator<T>*>(rows));
}

template <class T>
void to_planes(const Launch& launch, const Planes& planes, const void* rows, void* target) {
    run(launch, planes_from_rows<T>, kBlock, planes.tiles(), 1, planes, static_cast<const Accumulator<T>*>(rows), static_cast<T*>(target));
}

template <class T> struct Type { using type = T; };

template <class F>
void for_dtype(Dtype dtype, F call) {
    switch (dtype) {
        case Dtype::float16: return call(Type<__half>{});
        case Dtype::bfloat16: return call(Type<__nv_bfloat16>{});
        case Dtype::float32: return call(Type<float>{});
        case Dtype::float64: return call(Type<double>{});
    }
    throw std::invalid_argument("voxel pooling: unknown dtype");
}

template <class Cells>
void forward(const Launch& launch, const Sizes& sizes, const void* depth, const void* context, const Cells& cells,
             void* pixel_rows, void* cell_rows, void* bev) {
    const DeviceGuard guard(launch.device);
    const Planes bev_shape = bev_planes(sizes), context_shape = context_planes(sizes);
    const std::int64_t columns =
        checked_product({sizes.batch, sizes.cameras, sizes.width, ceil_divide(sizes.bins, kWarpsPerBlock)});
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        using A = Accumulator<T>;
        clear(launch, bev_shape, static_cast<A*>(cell_rows));
        to_rows<T>(launch, context_shape, context, pixel_rows);
        run(launch, splat_columns<T, Cells>, kBlock, columns, channel_slices(sizes), sizes, cells, static_cast<const T*>(depth),
            static_cast<const A*>(pixel_rows), static_cast<A*>(cell_rows));
        to_planes<T>(launch, bev_shape, cell_rows, bev);
    });
}

template <class Cells>
void backward(const Launch& launch, const Sizes& sizes, const void* grad_bev, const void* depth, const void* context,
              const Cells& cells, void* pixel_rows, void* cell_rows, void* grad_depth, void* grad_context) {
    const DeviceGuard guard(launch.device);
    const Planes bev_shape = bev_planes(sizes), context_shape = context_planes(sizes);
    const std::int64_t pixels = pixel_count(sizes), blocks = ceil_divide(pixels, kWarpsPerBlock);
    point_count(sizes);
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        using A = Accumulator<T>;
        to_rows<T>(launch, bev_shape, grad_bev, cell_rows);
        to_rows<T>(launch, context_shape, context, pixel_rows);
        run(launch, gather_grad_depth<T, Cells>, kBlock, blocks, 1, sizes, cells, pixels, static_cast<const A*>(pixel_rows),
            static_cast<const A*>(cell_rows), static_cast<T*>(grad_depth));
        run(launch, gather_grad_context<T, Cells>, kBlock, blocks, channel_slices(sizes), sizes, cells, pixels,
            static_cast<const T*>(depth), static_cast<const A*>(cell_rows), static_cast<T*>(grad_context));
    });
}

}  // namespace

void voxel_index(const Launch& launch, const Sizes& sizes, const Geometry& geometry, std::int32_t* voxel_index) {
    constexpr int threads = kWarp * kWarpsPerBlock;
    const DeviceGuard guard(launch.device);
    const std::int64_t points = point_count(sizes);
    run(launch, write_voxel_index, dim3(threads), ceil_divide(points, threads), 1, sizes, geometry, points, voxel_index);
}

void voxel_pooling(const Launch& launch, const Sizes& sizes, const void* depth, const void* context, const Geometry& geometry,
                   void* pixel_rows, void* cell_rows, void* bev) {
    forward(launch, sizes, depth, context, GeometryCells{geometry}, pixel_rows, cell_rows, bev);
}

void voxel_pooling_indexed(const Launch& launch, const Sizes& sizes, const void* depth, const void* context,
                           const std::int32_t* voxel_index, void* pixel_rows, void* cell_rows, void* bev) {
    forward(launch, sizes, depth, context, IndexedCells{voxel_index}, pixel_rows, cell_rows, bev);
}

void voxel_pooling_backward(const Launch& launch, const Sizes& sizes, const void* grad_bev, const void* depth,
                            const void* context, const Geometry& geometry, void* pixel_rows, void* cell_rows,
                            void* grad_depth, void* grad_context) {
    backward(launch, sizes, grad_bev, depth, context, GeometryCells{geometry}, pixel_rows, cell_rows, grad_depth, grad_context);
}

void voxel_pooling_indexed_backward(const Launch& launch, const Sizes& sizes, const void* grad_bev, const void* depth,
                                    const void* context, const std::int32_t* voxel_index, void* pixel_rows,
                                    void* cell_rows, void* grad_depth, void* grad_context) {
    backward(launch, sizes, grad_bev, depth, context, IndexedCells{voxel_index}, pixel_rows, cell_rows, grad_depth, grad_context);
}

void voxel_pooling_volume(const Launch& launch, const Sizes& sizes, const void* volume, const std::int32_t* voxel_index,
                          void* cell_rows, void* bev) {
    const DeviceGuard guard(launch.device);
    const Planes bev_shape = bev_planes(sizes), volume_shape = volume_planes(sizes);
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        using A = Accumulator<T>;
        clear(launch, bev_shape, static_cast<A*>(cell_rows));
        run(launch, splat_volume<T>, kBlock, volume_shape.tiles(), 1, sizes, IndexedCells{voxel_index}, volume_shape,
            static_cast<const T*>(volume), static_cast<A*>(cell_rows));
        to_planes<T>(launch, bev_shape, cell_rows, bev);
    });
}

void voxel_pooling_volume_backward(const Launch& launch, const Sizes& sizes, const void* grad_bev,
                                   const std::int32_t* voxel_index, void* cell_rows, void* grad_volume) {
    const DeviceGuard guard(launch.device);
    const Planes bev_shape = bev_planes(sizes), volume_shape = volume_planes(sizes);
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        to_rows<T>(launch, bev_shape, grad_bev, cell_rows);
        run(launch, gather_grad_volume<T>, kBlock, volume_shape.tiles(), 1, sizes, IndexedCells{voxel_index}, volume_shape,
            static_cast<const Accumulator<T>*>(cell_rows), static_cast<T*>(grad_volume));
    });
}

}  // namespace bevdepth
