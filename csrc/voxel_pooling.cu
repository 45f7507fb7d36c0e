#include "voxel_pooling.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace bevdepth {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kThreads = 256;        // of a block without a shape of its own
constexpr int kRows = 16;            // feature-map rows that a thread walks down
constexpr int kRowStride = kRows + 4;  // in shared memory: keeps 16-byte accesses of neighbouring columns in different banks
constexpr int kMaxGroups = 32;       // channel groups of one block
constexpr int kSplatColumns = 8, kSplatBins = 14;  // columns and depth bins of one block of splat
constexpr int kSplatBlocks = 2;      // of the largest size that a multiprocessor should hold: caps the registers at 128
constexpr int kVolumeColumns = 64;   // columns of one block of splat_volume
constexpr int kDepthColumns = 4, kDepthBins = 4, kDepthRounds = 4;  // of one block of gather_grad_depth
constexpr int kContextBins = 32;     // depth bins that gather_grad_context looks up at a time
constexpr int kTile = 32;            // side of the square that a block transposes in shared memory
constexpr int kClearBytes = 64;      // that one thread clears
constexpr int kOutside = -1;         // cell of a point outside the grid
constexpr float kIndexLimit = 2147483648.0f;  // quotients from here on are no int32
constexpr float kSmallestCell = 0x1p-60f, kLargestCell = 0x1p60f;

template <class T> struct AccumulatorOf { using type = float; };
template <> struct AccumulatorOf<double> { using type = double; };
template <class T> using Accumulator = typename AccumulatorOf<T>::type;

// V neighbouring channels, moved as one.
template <class T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Group {
    T value[V];
};

template <class T, int V>
__device__ Group<Accumulator<T>, V> load_group(const T* source) {
    const Group<T, V> stored = *reinterpret_cast<const Group<T, V>*>(source);
    Group<Accumulator<T>, V> group;
    for (int k = 0; k < V; ++k) group.value[k] = static_cast<Accumulator<T>>(stored.value[k]);
    return group;
}

// Kernels that follow each other are launched early (see run): the next one starts while this one still works. It may read
// the op's inputs at once, but must wait before it touches what earlier kernels write.
__device__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ void wait_for_earlier_kernels() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- Which cell a point falls into ------------------------------------------------------------------------------------

// The points of one image column at one depth bin.
struct Place {
    std::int64_t view;  // sample * cameras + camera
    int bin, column;
};

struct GeometryCells {
    Geometry geometry;
    float reciprocal[3];  // of geometry.cell, rounded to nearest
};

// a / b rounded to nearest, as by __fdiv_rn where the quotient is an index: two corrections with exact remainders.
__device__ float divide(float a, float b, float reciprocal) {
    float quotient = __fmul_rn(a, reciprocal);
    quotient = __fmaf_rn(__fmaf_rn(-b, quotient, a), reciprocal, quotient);
    return __fmaf_rn(__fmaf_rn(-b, quotient, a), reciprocal, quotient);
}

// Every operation is rounded by itself, in the order of the reference: a fused multiply-add would move border points.
struct GeometryColumn {
    const GeometryCells& cells;
    float d, across[3], down[3], along[3], offset[3];  // of each axis; a row adds v d * down

    __device__ GeometryColumn(const Sizes&, const GeometryCells& cells, const Place& place) : cells(cells) {
        const Geometry& geometry = cells.geometry;
        d = geometry.frustum_d[place.bin];
        const float ud = __fmul_rn(geometry.frustum_u[place.column], d);
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) {
            const float* m = geometry.ego_from_frustum + place.view * 12 + axis * 4;
            across[axis] = __fmul_rn(m[0], ud);
            down[axis] = m[1];
            along[axis] = __fmul_rn(m[2], d);
            offset[axis] = m[3];
        }
    }

    // Metres from the low corner.
    __device__ float metres(float vd, int axis) const {
        const float rotated = __fadd_rn(__fadd_rn(across[axis], __fmul_rn(down[axis], vd)), along[axis]);
        return __fsub_rn(__fadd_rn(rotated, offset[axis]), cells.geometry.lower[axis]);
    }

    __device__ float quotient(float vd, int axis) const {
        return divide(metres(vd, axis), cells.geometry.cell[axis], cells.reciprocal[axis]);
    }

    __device__ float scaled_row(int row) const { return __fmul_rn(cells.geometry.frustum_v[row], d); }

    // Truncation towards zero takes (-1, 0) to cell 0; NaN fails every comparison. |z| / cell rounds to less than 1 just
    // where |z| < cell, so z needs no division.
    __device__ int cell(const Sizes& sizes, int row) const {
        const float vd = scaled_row(row), x = quotient(vd, 0), y = quotient(vd, 1);
        const bool inside = (x > -1.0f) & (x < static_cast<float>(sizes.nx)) & (y > -1.0f) & (y < static_cast<float>(sizes.ny)) &
                            (fabsf(metres(vd, 2)) < cells.geometry.cell[2]);
        return inside ? static_cast<int>(y) * static_cast<int>(sizes.nx) + static_cast<int>(x) : kOutside;
    }
};

struct IndexedCells {
    const std::int32_t* voxel_index;
};

struct IndexedColumn {
    const std::int32_t* top;

    __device__ IndexedColumn(const Sizes& sizes, const IndexedCells& cells, const Place& place)
        : top(cells.voxel_index + ((place.view * sizes.bins + place.bin) * sizes.height * sizes.width + place.column) * 3) {}

    __device__ int cell(const Sizes& sizes, int row) const {
        const std::int32_t* index = top + row * sizes.width * 3;
        const bool inside = index[0] >= 0 && index[0] < sizes.nx && index[1] >= 0 && index[1] < sizes.ny && index[2] == 0;
        return inside ? index[1] * static_cast<int>(sizes.nx) + index[0] : kOutside;
    }
};

template <class Cells> struct ColumnOf { using type = GeometryColumn; };
template <> struct ColumnOf<IndexedCells> { using type = IndexedColumn; };
template <class Cells> using Column = typename ColumnOf<Cells>::type;

// One thread per point; each writes its own three numbers.
__global__ void write_voxel_index(Sizes sizes, GeometryCells cells, std::int64_t points, std::int32_t* voxel_index) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= points) return;
    const std::int64_t line = i / sizes.width, plane = line / sizes.height;
    const Place place{plane / sizes.bins, static_cast<int>(plane % sizes.bins), static_cast<int>(i % sizes.width)};
    const GeometryColumn column(sizes, cells, place);
    const float vd = column.scaled_row(static_cast<int>(line % sizes.height));
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
        const float quotient = column.quotient(vd, axis);
        voxel_index[i * 3 + axis] = fabsf(quotient) < kIndexLimit ? __float2int_rz(quotient) : kOutside;
    }
}

// Successive points of a column that share a cell; points outside the grid in between do not count.
struct Run {
    int cell;
    unsigned rows;  // bit r: row r belongs to it
};

// The runs of `Count` columns in shared memory, kRows points each.
template <int Count>
struct RunTile {
    Run run[Count][kRows + 1];  // one more than needed keeps neighbours in different banks
    int runs[Count];

    // Fills in column i, for the rows from `top` on.
    template <class Cells>
    __device__ void find(int i, const Sizes& sizes, const Cells& cells, const Place& place, int top) {
        const Column<Cells> column(sizes, cells, place);
        const int rows = min(kRows, static_cast<int>(sizes.height) - top);
        int cell_of[kRows];  // found all at once: independent work hides latency
#pragma unroll
        for (int row = 0; row < kRows; ++row) cell_of[row] = column.cell(sizes, top + min(row, rows - 1));
        Run open{kOutside, 0};
        int count = 0;
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
            const int cell = cell_of[row];
            if (row >= rows || cell == kOutside) continue;
            if (cell != open.cell) {
                if (open.cell != kOutside) run[i][count++] = open;
                open = {cell, 0};
            }
            open.rows |= 1u << row;
        }
        if (open.cell != kOutside) run[i][count++] = open;
        runs[i] = count;
    }

    __device__ void leave_out(int i) { runs[i] = 0; }
};

// ---- Sums of cells ----------------------------------------------------------------------------------------------------

// Double sums of floats are exact, and so the same in any order, once every term is a multiple of one small enough quantum.
// bounds hold the bits of the largest finite |depth| and |context| of a sample.
class Quantum {
public:
    __device__ Quantum(const Sizes& sizes, const std::uint32_t* bounds, std::int64_t sample) {
        const double largest = static_cast<double>(__uint_as_float(bounds[sample * 2])) * __uint_as_float(bounds[sample * 2 + 1]);
        const std::int64_t points = sizes.cameras * sizes.bins * sizes.height * sizes.width;
        const int exponent = largest > 0 ? ilogb(largest) + 1 + 64 - __clzll(points) : 0;  // no sum exceeds 2^exponent
        shift_ = largest > 0 ? scalbn(1.5, exponent + 1) : 0;                               // its last bit is the quantum
    }

    __device__ double round(float term) const { return __dsub_rn(__dadd_rn(term, shift_), shift_); }

private:
    double shift_;
};

// How a group of channels is added to the sums of a cell, of type S. Terms of other threads arrive in any order: atomics.
template <class S, class A, int V>
struct Adder {
    __device__ Adder(const Sizes&, const std::uint32_t*, std::int64_t) {}

    __device__ static int offset(int channel) { return channel; }

    __device__ void add(S* target, const Group<A, V>& term) const {
        for (int k = 0; k < V; ++k) atomicAdd(target + k, term.value[k]);
    }
};

template <>
__device__ void Adder<float, float, 4>::add(float* target, const Group<float, 4>& term) const {
#if __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float4*>(target), make_float4(term.value[0], term.value[1], term.value[2], term.value[3]));
#else
    for (int k = 0; k < 4; ++k) atomicAdd(target + k, term.value[k]);
#endif
}

// Exact sums. There are no wider atomics of doubles, so the first channels of all groups lie side by side, then the second
// ones, and so on: neighbouring threads add to neighbouring numbers.
template <int V>
struct Adder<double, float, V> {
    Quantum quantum;
    int groups;

    __device__ Adder(const Sizes& sizes, const std::uint32_t* bounds, std::int64_t sample)
        : quantum(sizes, bounds, sample), groups(static_cast<int>(sizes.channels) / V) {}

    __device__ static int offset(int channel) { return channel / V; }

    __device__ void add(double* target, const Group<float, V>& term) const {
        for (int k = 0; k < V; ++k) atomicAdd(target + k * groups, quantum.round(term.value[k]));
    }
};

// The sum that a thread holds for a group of channels of the cell it is in.
template <class S, class A, int V>
struct OpenCell {
    S* cells;  // the group in cell 0
    int stride;
    Adder<S, A, V> adder;
    int cell = kOutside;
    Group<A, V> sum = {};

    __device__ OpenCell(const Sizes& sizes, S* sums, const std::uint32_t* bounds, unsigned sample, int channel)
        : cells(sums + sample * sizes.nx * sizes.ny * sizes.channels + Adder<S, A, V>::offset(channel)),
          stride(static_cast<int>(sizes.channels)), adder(sizes, bounds, sample) {}

    __device__ void close() {
        if (cell != kOutside) adder.add(cells + static_cast<std::int64_t>(cell) * stride, sum);
        sum = {};
    }

    __device__ void enter(int next) {
        if (next == cell) return;
        close();
        cell = next;
    }

    // Adds weight[row] * features[row] of the rows of column i that lie in the grid, cell by cell. Rows are skipped rather
    // than weighted by zero, for a dropped point may hold NaN.
    template <int Count, class F>
    __device__ void add(const RunTile<Count>& tile, int i, const Group<F, V> (&features)[kRows], const A (&weight)[kRows]) {
#pragma unroll 1
        for (int k = 0; k < tile.runs[i]; ++k) {
            const Run run = tile.run[i][k];
            enter(run.cell);
#pragma unroll
            for (int row = 0; row < kRows; ++row) {
                if (!(run.rows >> row & 1)) continue;
                for (int v = 0; v < V; ++v) sum.value[v] = fma(weight[row], static_cast<A>(features[row].value[v]), sum.value[v]);
            }
        }
    }
};

// ---- Before and after the sums ----------------------------------------------------------------------------------------

// Planes (groups, channels, positions) that become rows (groups, positions, channels).
struct Planes {
    std::int64_t groups, channels, positions;

    __host__ __device__ std::int64_t channel_tiles() const { return (channels + kTile - 1) / kTile; }
    __host__ __device__ std::int64_t position_tiles() const { return (positions + kTile - 1) / kTile; }
    __host__ __device__ std::int64_t tiles() const { return groups * channel_tiles() * position_tiles(); }
};

// The block turns one tile of 32 channels x 32 positions over in shared memory, so that reads and writes run along lines.
template <class T>
__device__ void turn_tile(const Planes& planes, unsigned tile, const T* source, T* rows) {
    __shared__ T values[kTile][kTile + 2 / sizeof(T) + 1];
    const unsigned position_tiles = planes.position_tiles(), channel_tiles = planes.channel_tiles();
    const std::int64_t group = tile / position_tiles / channel_tiles;
    const int first_channel = tile / position_tiles % channel_tiles * kTile, first_position = tile % position_tiles * kTile;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    for (int i = warp; i < kTile; i += kThreads / kWarp) {
        const int channel = first_channel + i, position = first_position + lane;
        if (channel < planes.channels && position < planes.positions) {
            values[i][lane] = source[(group * planes.channels + channel) * planes.positions + position];
        }
    }
    __syncthreads();
    for (int i = warp; i < kTile; i += kThreads / kWarp) {
        const int channel = first_channel + lane, position = first_position + i;
        if (channel < planes.channels && position < planes.positions) {
            rows[(group * planes.positions + position) * planes.channels + channel] = values[lane][i];
        }
    }
}

// Zeros this thread's share of `bytes`, a multiple of 4.
__device__ void clear_share(std::int64_t block, void* sums, std::int64_t bytes) {
    const std::int64_t vectors = bytes / sizeof(uint4);
    std::int64_t i = block * kThreads * (kClearBytes / sizeof(uint4)) + threadIdx.x;
    for (int round = 0; round < kClearBytes / sizeof(uint4); ++round, i += kThreads) {
        if (i < vectors) static_cast<uint4*>(sums)[i] = uint4{};
    }
    const std::int64_t word = vectors * 4 + threadIdx.x;
    if (block == 0 && word < bytes / 4) static_cast<unsigned*>(sums)[word] = 0;
}

// The first blocks turn the context over, one tile each; the others clear the sums.
template <class T>
__global__ void prepare(Planes context, const T* planes, T* rows, void* sums, std::int64_t bytes) {
    let_next_kernel_start();
    const std::int64_t tiles = planes == nullptr ? 0 : context.tiles();
    if (blockIdx.x < tiles) {
        turn_tile(context, blockIdx.x, planes, rows);
    } else {
        clear_share(blockIdx.x - tiles, sums, bytes);
    }
}

// Raises bounds[sample * 2 + blockIdx.z] to the largest finite |value| of the sample in the array blockIdx.z, of so many groups
// of V; without a second array its bound is one. Largest of all is the same in any order: atomics.
template <class T, int V>
__global__ void find_bounds(const T* first, std::int64_t first_count, const T* second, std::int64_t second_count, std::uint32_t* bounds) {
    let_next_kernel_start();
    const auto* values = reinterpret_cast<const Group<T, V>*>(blockIdx.z == 0 ? first : second);
    const std::int64_t count = blockIdx.z == 0 ? first_count : second_count, step = static_cast<std::int64_t>(gridDim.x) * kThreads;
    float largest = values == nullptr ? 1.0f : 0.0f;
#pragma unroll 4
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; values != nullptr && i < count; i += step) {
        const Group<T, V> group = values[blockIdx.y * count + i];
        for (int k = 0; k < V; ++k) {
            const float value = fabsf(static_cast<float>(group.value[k]));
            if (isfinite(value)) largest = fmaxf(largest, value);
        }
    }
    for (int offset = kWarp / 2; offset > 0; offset /= 2) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, offset));
    wait_for_earlier_kernels();
    if (threadIdx.x % kWarp == 0) atomicMax(bounds + blockIdx.y * 2 + blockIdx.z, __float_as_uint(largest));
}

// Rounds the sums to the type of the map, one group of V channels per thread.
template <class T, class S, int V>
__global__ void write_map(unsigned count, unsigned groups, const S* sums, T* map) {
    let_next_kernel_start();
    wait_for_earlier_kernels();
    const unsigned i = blockIdx.x * kThreads + threadIdx.x;
    if (i >= count) return;
    Group<T, V> rounded;
    if constexpr (std::is_same_v<S, double>) {  // as Adder lays them
        const S* first = sums + static_cast<std::int64_t>(i / groups) * groups * V + i % groups;
        for (int k = 0; k < V; ++k) rounded.value[k] = static_cast<T>(static_cast<float>(first[k * groups]));
    } else {
        const Group<S, V> group = reinterpret_cast<const Group<S, V>*>(sums)[i];
        for (int k = 0; k < V; ++k) rounded.value[k] = static_cast<T>(group.value[k]);
    }
    reinterpret_cast<Group<T, V>*>(map)[i] = rounded;
}

// ---- Depth and context ------------------------------------------------------------------------------------------------

// How the points of all views are divided: blocks of so many columns and bins, kRows rows each, columns first.
struct Tiling {
    unsigned columns, bins;                                 // in one block
    unsigned column_blocks, bin_blocks, row_blocks;
    bool empty;  // no bins; bin_blocks is one, since it divides

    Tiling(const Sizes& sizes, unsigned columns, unsigned bins)
        : columns(columns), bins(bins), column_blocks((sizes.width + columns - 1) / columns),
          bin_blocks(sizes.bins > 0 ? (sizes.bins + bins - 1) / bins : 1), row_blocks((sizes.height + kRows - 1) / kRows),
          empty(sizes.bins == 0) {}

    std::int64_t blocks_per_view() const { return static_cast<std::int64_t>(column_blocks) * bin_blocks * row_blocks * (empty ? 0 : 1); }
};

struct Corner {
    std::int64_t view;
    int bin, row, column;

    __device__ Corner(const Tiling& tiling, unsigned block)
        : view(block / tiling.column_blocks / tiling.bin_blocks / tiling.row_blocks),
          bin(block / tiling.column_blocks % tiling.bin_blocks * tiling.bins),
          row(block / tiling.column_blocks / tiling.bin_blocks % tiling.row_blocks * kRows),
          column(block % tiling.column_blocks * tiling.columns) {}
};

template <class T>
__device__ const T* depth_at(const Depth& depth, std::int64_t view, std::int64_t bin, std::int64_t row, std::int64_t column) {
    return static_cast<const T*>(depth.data) + view * depth.view + bin * depth.bin + row * depth.row + column * depth.column;
}

// The weights of `rows` points of a column, at most kRows, and copies of the last one.
template <class T>
__device__ void load_weights(const T* source, std::int64_t stride, int rows, Accumulator<T> (&weight)[kRows]) {
    T stored[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row, source += row < rows ? stride : 0) stored[row] = *source;
#pragma unroll
    for (int row = 0; row < kRows; ++row) weight[row] = static_cast<Accumulator<T>>(stored[row]);
}

// The features of `rows` pixels of a column, at most kRows, and copies of the last ones.
template <class T, int V>
__device__ void load_features(const T* source, std::int64_t stride, int rows, Group<Accumulator<T>, V> (&features)[kRows]) {
    Group<T, V> stored[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row, source += row < rows ? stride : 0) stored[row] = *reinterpret_cast<const Group<T, V>*>(source);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
        for (int k = 0; k < V; ++k) features[row].value[k] = static_cast<Accumulator<T>>(stored[row].value[k]);
    }
}

// Copies kRows numbers, 16 bytes at a time.
template <class A>
__device__ void copy_rows(const A* source, A* target) {
    constexpr int kCount = 16 / sizeof(A);
#pragma unroll
    for (int row = 0; row < kRows; row += kCount) {
        *reinterpret_cast<Group<A, kCount>*>(target + row) = *reinterpret_cast<const Group<A, kCount>*>(source + row);
    }
}

// One block per view, kRows rows, some columns, some depth bins and a slice of the channels; one thread (x, y) per group of V
// channels and column. Seen by a level camera the rows of a column at one depth fall into very few cells, as do neighbouring
// bins. So the thread keeps the features of its column in registers, walks down the rows of each bin, and adds to memory only
// when the cell changes. Columns of one ray, other cameras and other blocks meet in the same cell: atomics.
template <class T, class S, class Cells, int V>
__global__ void __launch_bounds__(kMaxGroups* kSplatColumns, kSplatBlocks) splat(Sizes sizes, Tiling tiling, Cells cells, Depth depth,
                                                                    const T* context, const std::uint32_t* bounds, S* sums) {
    using A = Accumulator<T>;
    constexpr int kPlaces = kSplatColumns * kSplatBins;
    __shared__ RunTile<kPlaces> tile;
    __shared__ alignas(16) A weights[kPlaces][kRowStride];
    let_next_kernel_start();
    const Corner corner(tiling, blockIdx.x);
    const int rows = min(kRows, static_cast<int>(sizes.height) - corner.row);
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < kPlaces; i += blockDim.x * blockDim.y) {
        const Place place{corner.view, corner.bin + i / kSplatColumns, corner.column + i % kSplatColumns};
        if (place.bin >= sizes.bins || place.column >= sizes.width) {
            tile.leave_out(i);
            continue;
        }
        alignas(16) A weight[kRows];
        load_weights(depth_at<T>(depth, place.view, place.bin, corner.row, place.column), depth.row, rows, weight);
        tile.find(i, sizes, cells, place, corner.row);
        copy_rows(weight, weights[i]);
    }
    wait_for_earlier_kernels();
    __syncthreads();
    const int column = corner.column + threadIdx.y, channel = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    if (column >= sizes.width || channel >= sizes.channels) return;
    const std::int64_t pixel = (corner.view * sizes.height + corner.row) * sizes.width + column;
    Group<A, V> features[kRows];
    load_features<T, V>(context + pixel * sizes.channels + channel, sizes.width * sizes.channels, rows, features);
    OpenCell<S, A, V> open(sizes, sums, bounds, static_cast<unsigned>(corner.view) / static_cast<unsigned>(sizes.cameras), channel);
#pragma unroll 1
    for (int bin = 0; bin < kSplatBins; ++bin) {
        const int i = bin * kSplatColumns + threadIdx.y;
        alignas(16) A weight[kRows];
        copy_rows(weights[i], weight);
        open.add(tile, i, features, weight);
    }
    open.close();
}

// grad_depth[point] = features of its pixel . gradient of its cell.
// One block per view, kRows rows and some columns and bins, one thread per pixel and bin, which handles kDepthRounds bins. The
// features lie in shared memory, a slice of the channels at a time. Each result has one writer and a fixed order: no atomics.
template <class T, class Cells, int V>
__global__ void gather_grad_depth(Sizes sizes, Tiling tiling, Cells cells, const T* context, const T* grad_map, T* grad_depth) {
    using A = Accumulator<T>;
    constexpr int kPixels = kDepthColumns * kRows, kSlice = 384 / sizeof(A);
    __shared__ alignas(16) A features[kPixels][kSlice + V];
    let_next_kernel_start();
    const Corner corner(tiling, blockIdx.x);
    const int pixel = threadIdx.x % kPixels, column = corner.column + pixel % kDepthColumns, row = corner.row + pixel / kDepthColumns;
    const int first_bin = corner.bin + threadIdx.x / kPixels;
    const bool works = row < sizes.height && column < sizes.width;
    const T* sample_map = grad_map + corner.view / sizes.cameras * sizes.nx * sizes.ny * sizes.channels;
    const T* gradient[kDepthRounds];  // of the cell of each point, or null
    A product[kDepthRounds] = {};
#pragma unroll
    for (int round = 0; round < kDepthRounds; ++round) {
        const int bin = first_bin + round * kDepthBins;
        const Place place{corner.view, bin, column};
        const int cell = works && bin < sizes.bins ? Column<Cells>(sizes, cells, place).cell(sizes, row) : kOutside;
        gradient[round] = cell == kOutside ? nullptr : sample_map + cell * sizes.channels;
    }
    wait_for_earlier_kernels();
    for (int slice = 0; slice < sizes.channels; slice += kSlice) {
        const int channels = min(kSlice, static_cast<int>(sizes.channels) - slice), groups = channels / V;
        __syncthreads();
        for (int i = threadIdx.x; i < kPixels * groups; i += kThreads) {
            const int p = i / groups, channel = i % groups * V;
            const int x = corner.column + p % kDepthColumns, y = corner.row + p / kDepthColumns;
            if (x >= sizes.width || y >= sizes.height) continue;
            const T* source = context + ((corner.view * sizes.height + y) * sizes.width + x) * sizes.channels + slice + channel;
            *reinterpret_cast<Group<A, V>*>(&features[p][channel]) = load_group<T, V>(source);
        }
        __syncthreads();
#pragma unroll 2
        for (int channel = 0; channel < channels; channel += V) {
            const auto feature = *reinterpret_cast<const Group<A, V>*>(&features[pixel][channel]);
#pragma unroll
            for (int round = 0; round < kDepthRounds; ++round) {
                if (gradient[round] == nullptr) continue;
                const auto group = load_group<T, V>(gradient[round] + slice + channel);
                for (int k = 0; k < V; ++k) product[round] += feature.value[k] * group.value[k];
            }
        }
    }
#pragma unroll
    for (int round = 0; round < kDepthRounds; ++round) {
        const std::int64_t bin = first_bin + round * kDepthBins;
        if (!works || bin >= sizes.bins) continue;
        grad_depth[((corner.view * sizes.bins + bin) * sizes.height + row) * sizes.width + column] = static_cast<T>(product[round]);
    }
}

// grad_context[pixel] = sum over its depth bins of depth * gradient of the cell.
// One block per view, column, kRows rows and slice of the channels; one thread (x, y) per group of V channels and row, which
// sums over the bins one after the other. Each result has one writer and a fixed order: no atomics.
template <class T, class Cells, int V>
__global__ void __launch_bounds__(kMaxGroups* kRows) gather_grad_context(Sizes sizes, Tiling tiling, Cells cells, Depth depth,
                                                                          const T* grad_map, T* grad_context) {
    using A = Accumulator<T>;
    struct Point {
        A weight;
        int cell;
    };
    __shared__ Point points[kContextBins][kRows];
    let_next_kernel_start();
    const Corner corner(tiling, blockIdx.x);
    const std::int64_t row = corner.row + threadIdx.y;
    const std::int64_t channel = (static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * V;
    const bool works = row < sizes.height && channel < sizes.channels;
    const T* sample_map = grad_map + corner.view / sizes.cameras * sizes.nx * sizes.ny * sizes.channels + channel;
    Group<A, V> sum = {};
    for (int near = 0; near < sizes.bins; near += kContextBins) {
        __syncthreads();
        for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < kContextBins * kRows; i += blockDim.x * blockDim.y) {
            const Place place{corner.view, near + i / kRows, corner.column};
            const int y = corner.row + i % kRows;
            const bool exists = place.bin < sizes.bins && y < sizes.height;
            const int cell = exists ? Column<Cells>(sizes, cells, place).cell(sizes, y) : kOutside;
            const A weight = exists ? static_cast<A>(*depth_at<T>(depth, place.view, place.bin, y, place.column)) : A(0);
            points[i / kRows][i % kRows] = {weight, cell};
        }
        __syncthreads();
        if (!works) continue;
#pragma unroll 8
        for (int bin = 0; bin < kContextBins; ++bin) {
            const Point point = points[bin][threadIdx.y];
            if (point.cell == kOutside) continue;
            const auto gradient = load_group<T, V>(sample_map + point.cell * sizes.channels);
            for (int k = 0; k < V; ++k) sum.value[k] += point.weight * gradient.value[k];
        }
    }
    if (!works) return;
    Group<T, V> rounded;
    for (int k = 0; k < V; ++k) rounded.value[k] = static_cast<T>(sum.value[k]);
    const std::int64_t pixel = (corner.view * sizes.height + row) * sizes.width + corner.column;
    *reinterpret_cast<Group<T, V>*>(grad_context + pixel * sizes.channels + channel) = rounded;
}

// ---- Points with their own features -----------------------------------------------------------------------------------

// One block per view, depth bin, kRows rows and up to 64 columns; one thread (x, y) per column, for every blockDim.y-th group
// of V channels. Reads run along the columns; each thread walks down the rows as splat does. Atomics for the same reason.
template <class T, class S, int V>
__global__ void splat_volume(Sizes sizes, Tiling tiling, IndexedCells cells, const T* volume, const std::uint32_t* bounds, S* sums) {
    using A = Accumulator<T>;
    __shared__ RunTile<kVolumeColumns> tile;
    let_next_kernel_start();
    const Corner corner(tiling, blockIdx.x);
    const int column = corner.column + threadIdx.x, rows = min(kRows, static_cast<int>(sizes.height) - corner.row);
    if (threadIdx.y == 0 && column < sizes.width) {
        tile.find(threadIdx.x, sizes, cells, {corner.view, corner.bin, column}, corner.row);
    }
    wait_for_earlier_kernels();
    __syncthreads();
    if (column >= sizes.width || tile.runs[threadIdx.x] == 0) return;
    const unsigned sample = static_cast<unsigned>(corner.view) / static_cast<unsigned>(sizes.cameras);
    const std::int64_t plane = sizes.bins * sizes.height * sizes.width;
    A ones[kRows];
    for (A& one : ones) one = 1;
    for (int channel = threadIdx.y * V; channel < sizes.channels; channel += blockDim.y * V) {
        const T* top = volume + (corner.view * sizes.channels + channel) * plane +
                       (corner.bin * sizes.height + corner.row) * sizes.width + column;
        Group<T, V> features[kRows];
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
            for (int k = 0; k < V; ++k) features[row].value[k] = top[k * plane + min(row, rows - 1) * sizes.width];
        }
        OpenCell<S, A, V> open(sizes, sums, bounds, sample, channel);
        open.add(tile, threadIdx.x, features, ones);
        open.close();
    }
}

// One thread per point, which copies the gradient of its cell channel by channel; writes run along the points.
template <class T, int V>
__global__ void gather_grad_volume(Sizes sizes, IndexedCells cells, std::int64_t points, const T* grad_map, T* grad_volume) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= points) return;
    const std::int64_t plane = sizes.bins * sizes.height * sizes.width, view = i / plane, line = i / sizes.width;
    const Place place{view, static_cast<int>(line / sizes.height % sizes.bins), static_cast<int>(i % sizes.width)};
    const int cell = IndexedColumn(sizes, cells, place).cell(sizes, static_cast<int>(line % sizes.height));
    const T* gradient = grad_map + (view / sizes.cameras * sizes.nx * sizes.ny + cell) * sizes.channels;
    T* target = grad_volume + view * sizes.channels * plane + i % plane;
#pragma unroll 4
    for (int channel = 0; channel < sizes.channels; channel += V) {
        Group<T, V> group = {};
        if (cell != kOutside) group = *reinterpret_cast<const Group<T, V>*>(gradient + channel);
        for (int k = 0; k < V; ++k) target[(channel + k) * plane] = group.value[k];
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

// Refuses what the kernels could not count: a size, a camera's points or the grid's cells beyond int32, an array beyond int64.
void check_sizes(const Sizes& s) {
    constexpr std::int64_t limit = std::numeric_limits<std::int32_t>::max();
    checked_product({s.batch, s.cameras, s.bins, s.height, s.width, std::max<std::int64_t>(s.channels, 3)});
    checked_product({s.batch, s.channels, s.nx, s.ny});
    if (checked_product({s.nx, s.ny}) > limit) throw std::invalid_argument("voxel pooling: the grid has more than 2^31 - 1 cells");
    if (s.channels > limit || checked_product({s.bins, s.height, s.width}) > limit) {
        throw std::invalid_argument("voxel pooling: a camera has more than 2^31 - 1 points or channels");
    }
}

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Early: the kernel may start while the one before it runs (sm_90 on; code without the wait must not).
enum class Start { after_previous, early };

template <class... Parameters>
bool can_wait(void (*kernel)(Parameters...)) {
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
    return attributes.ptxVersion >= 90;
}

// Launches the kernel, or nothing when there is no work.
template <class... Parameters, class... Arguments>
void run(const Launch& launch, Start start, void (*kernel)(Parameters...), std::int64_t blocks, dim3 others, dim3 threads,
         Arguments... arguments) {
    if (blocks == 0 || others.y == 0 || others.z == 0) return;
    if (blocks > std::numeric_limits<std::int32_t>::max() || others.y > std::numeric_limits<std::uint16_t>::max()) {
        throw std::invalid_argument("voxel pooling: the arrays are too large for one launch");
    }
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks), others.y, others.z);
    config.blockDim = threads;
    config.stream = reinterpret_cast<cudaStream_t>(launch.stream);
    config.attrs = &early;
    config.numAttrs = start == Start::early && can_wait(kernel) ? 1 : 0;
    check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), "kernel launch");
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

// Calls with the number of channels that one access moves: 4 where number and addresses of the channels allow, else 1.
template <class T, class F>
void for_group(const Sizes& sizes, std::initializer_list<const void*> rows, F call) {
    bool aligned = sizes.channels % 4 == 0;
    for (const void* row : rows) aligned = aligned && reinterpret_cast<std::uintptr_t>(row) % (4 * sizeof(T)) == 0;
    if constexpr (!std::is_same_v<T, double>) {
        if (aligned) return call(std::integral_constant<int, 4>{});
    }
    call(std::integral_constant<int, 1>{});
}

// Calls with the type of the sums.
template <class T, class F>
void for_sums(bool exact, F call) {
    if constexpr (std::is_same_v<T, double>) {
        if (exact) throw std::invalid_argument("voxel pooling: float64 has no exact sums");
    } else {
        if (exact) return call(Type<double>{});
    }
    call(Type<Accumulator<T>>{});
}

GeometryCells geometry_cells(const Geometry& geometry) {
    GeometryCells cells{geometry, {}};
    for (int axis = 0; axis < 3; ++axis) {
        const float size = geometry.cell[axis];
        if (!(size >= kSmallestCell && size <= kLargestCell)) {
            throw std::invalid_argument("voxel pooling: the cell must measure from 2^-60 to 2^60 along each axis");
        }
        cells.reciprocal[axis] = 1.0f / size;
    }
    return cells;
}

template <class F>
void for_cells(const Points& points, F call) {
    if (points.indexed) return call(IndexedCells{points.voxel_index});
    call(geometry_cells(points.geometry));
}

// How the channels of a map are divided: blocks of equal numbers of groups of V.
struct Slices {
    unsigned groups, slices;  // in one block; blocks

    Slices(const Sizes& sizes, int group) {
        const std::int64_t all = ceil_divide(sizes.channels, group);
        slices = static_cast<unsigned>(ceil_divide(all, kMaxGroups));
        groups = slices == 0 ? 0 : static_cast<unsigned>(ceil_divide(all, slices));
    }
};

Planes context_planes(const Sizes& s) { return {s.batch * s.cameras, s.channels, s.height * s.width}; }

// Turns the context over, where it comes as planes, and clears `bytes` of sums.
template <class T>
void prepare_arrays(const Launch& launch, const Sizes& sizes, const Context& context, void* sums, std::int64_t bytes) {
    const Planes planes = context_planes(sizes);
    const std::int64_t blocks = (context.planes == nullptr ? 0 : planes.tiles()) + ceil_divide(bytes, kClearBytes * kThreads);
    run(launch, Start::after_previous, prepare<T>, blocks, dim3(1, 1, 1), dim3(kThreads), planes, static_cast<const T*>(context.planes),
        static_cast<T*>(context.rows), sums, bytes);
}

void clear_bounds(const Launch& launch, const Sizes& sizes, std::uint32_t* bounds) {
    if (sizes.batch == 0) return;
    check(cudaMemsetAsync(bounds, 0, sizes.batch * 2 * sizeof(*bounds), reinterpret_cast<cudaStream_t>(launch.stream)), "clearing bounds");
}

// Raises the cleared bounds of exact sums to the largest values of two arrays, each with so many numbers per sample.
template <class T>
void raise_bounds(const Launch& launch, const Sizes& sizes, const void* first, std::int64_t first_count, const void* second,
                  std::int64_t second_count, std::uint32_t* bounds) {
    Sizes counts = sizes;
    counts.channels = first_count % 4 + second_count % 4;  // groups of 4 where both are multiples of 4
    for_group<T>(counts, {first, second}, [&](auto group) {
        constexpr int V = decltype(group)::value;
        const std::int64_t blocks = std::clamp<std::int64_t>(std::max(first_count, second_count) / (kThreads * 4 * V), 1, 1024);
        run(launch, Start::early, find_bounds<T, V>, blocks, dim3(1, sizes.batch, 2), dim3(kThreads), static_cast<const T*>(first),
            first_count / V, static_cast<const T*>(second), second_count / V, bounds);
    });
}

// Rounds the sums to the type of the map.
template <class T, class S>
void write_maps(const Launch& launch, const Sizes& sizes, const S* sums, T* maps) {
    for_group<T>(sizes, {maps}, [&](auto group) {
        constexpr int V = decltype(group)::value;
        const std::int64_t groups = sizes.channels / V, count = sizes.batch * sizes.nx * sizes.ny * groups;
        if (count > std::numeric_limits<std::uint32_t>::max() - kThreads) {
            throw std::invalid_argument("voxel pooling: the arrays are too large for one launch");
        }
        run(launch, Start::early, write_map<T, S, V>, ceil_divide(count, kThreads), dim3(1, 1, 1), dim3(kThreads), count, groups, sums, maps);
    });
}

// prepare(sums, bytes) clears the sums, splat_all(sums) adds the points; then the sums are rounded, unless the map holds them.
template <class T, class S, class Prepare, class SplatAll>
void sum_points(const Launch& launch, const Sizes& sizes, const Sums& sums, void* bev, Prepare prepare, SplatAll splat_all) {
    S* rows = static_cast<S*>(sums.rows == nullptr ? bev : sums.rows);
    prepare(rows, sizes.batch * sizes.nx * sizes.ny * sizes.channels * static_cast<std::int64_t>(sizeof(S)));
    splat_all(rows);
    if (sums.rows != nullptr) write_maps(launch, sizes, rows, static_cast<T*>(bev));
}

}  // namespace

void voxel_index(const Launch& launch, const Sizes& sizes, const Geometry& geometry, std::int32_t* voxel_index) {
    check_sizes(sizes);
    const DeviceGuard guard(launch.device);
    const std::int64_t points = sizes.batch * sizes.cameras * sizes.bins * sizes.height * sizes.width;
    run(launch, Start::after_previous, write_voxel_index, ceil_divide(points, kThreads), dim3(1, 1, 1), dim3(kThreads), sizes,
        geometry_cells(geometry), points, voxel_index);
}

template <class T, class S>
void sum_features(const Launch& launch, const Sizes& sizes, const Points& points, const Depth& depth, const Context& context,
                  const Sums& sums, void* bev) {
    const std::int64_t sample_points = sizes.cameras * sizes.bins * sizes.height * sizes.width;
    const std::int64_t sample_features = sizes.cameras * sizes.height * sizes.width * sizes.channels;
    const auto prepare = [&](S* rows, std::int64_t bytes) {
        if (sums.exact) clear_bounds(launch, sizes, sums.bounds);
        prepare_arrays<T>(launch, sizes, context, rows, bytes);
        const void* features = context.planes == nullptr ? context.rows : context.planes;
        if (sums.exact) raise_bounds<T>(launch, sizes, depth.data, sample_points, features, sample_features, sums.bounds);
    };
    const auto splat_all = [&](S* rows) {
        const T* features = static_cast<const T*>(context.rows);
        const Tiling tiling(sizes, kSplatColumns, kSplatBins);
        for_cells(points, [&](const auto& cells) {
            for_group<T>(sizes, {features}, [&](auto group) {
                using Cells = std::decay_t<decltype(cells)>;
                constexpr int V = decltype(group)::value;
                const Slices slices(sizes, V);
                run(launch, Start::early, splat<T, S, Cells, V>, sizes.batch * sizes.cameras * tiling.blocks_per_view(),
                    dim3(1, slices.slices, 1), dim3(slices.groups, kSplatColumns), sizes, tiling, cells, depth, features, sums.bounds,
                    rows);
            });
        });
    };
    sum_points<T, S>(launch, sizes, sums, bev, prepare, splat_all);
}

void voxel_pooling(const Launch& launch, const Sizes& sizes, const Points& points, const Depth& depth, const Context& context,
                   const Sums& sums, void* bev) {
    check_sizes(sizes);
    const DeviceGuard guard(launch.device);
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        for_sums<T>(sums.exact, [&](auto sum) {
            sum_features<T, typename decltype(sum)::type>(launch, sizes, points, depth, context, sums, bev);
        });
    });
}

void voxel_pooling_backward(const Launch& launch, const Sizes& sizes, const Points& points, const Depth& depth,
                            const Context& context, const void* grad_bev, void* grad_depth, void* grad_context) {
    check_sizes(sizes);
    const DeviceGuard guard(launch.device);
    const std::int64_t views = sizes.batch * sizes.cameras;
    const Tiling depth_tiling(sizes, kDepthColumns, kDepthBins * kDepthRounds);
    const Tiling context_tiling(sizes, 1, static_cast<unsigned>(std::max<std::int64_t>(sizes.bins, 1)));
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        const T* features = static_cast<const T*>(context.rows);
        const T* gradient = static_cast<const T*>(grad_bev);
        prepare_arrays<T>(launch, sizes, context, nullptr, 0);
        for_cells(points, [&](const auto& cells) {
            for_group<T>(sizes, {features, gradient}, [&](auto group) {
                using Cells = std::decay_t<decltype(cells)>;
                constexpr int V = decltype(group)::value;
                const Slices slices(sizes, V);
                run(launch, Start::early, gather_grad_depth<T, Cells, V>, views * depth_tiling.blocks_per_view(), dim3(1, 1, 1),
                    dim3(kThreads), sizes, depth_tiling, cells, features, gradient, static_cast<T*>(grad_depth));
                run(launch, Start::after_previous, gather_grad_context<T, Cells, V>,
                    views * context_tiling.row_blocks * context_tiling.column_blocks, dim3(1, slices.slices, 1),
                    dim3(slices.groups, kRows), sizes, context_tiling, cells, depth, gradient, static_cast<T*>(grad_context));
            });
        });
    });
}

template <class T, class S>
void sum_volume(const Launch& launch, const Sizes& sizes, const std::int32_t* voxel_index, const void* volume, const Sums& sums,
                void* bev) {
    const std::int64_t sample_points = sizes.cameras * sizes.bins * sizes.height * sizes.width;
    const auto prepare = [&](S* rows, std::int64_t bytes) {
        if (sums.exact) clear_bounds(launch, sizes, sums.bounds);
        prepare_arrays<T>(launch, sizes, {nullptr, nullptr}, rows, bytes);
        if (sums.exact) raise_bounds<T>(launch, sizes, volume, sample_points * sizes.channels, nullptr, 0, sums.bounds);
    };
    const auto splat_all = [&](S* rows) {
        const unsigned columns = static_cast<unsigned>(std::clamp<std::int64_t>(sizes.width, 1, kVolumeColumns));
        const Tiling tiling(sizes, columns, 1);
        for_group<T>(sizes, {}, [&](auto group) {
            constexpr int V = decltype(group)::value;
            run(launch, Start::early, splat_volume<T, S, V>, sizes.batch * sizes.cameras * tiling.blocks_per_view(), dim3(1, 1, 1),
                dim3(columns, kThreads / columns), sizes, tiling, IndexedCells{voxel_index}, static_cast<const T*>(volume), sums.bounds,
                rows);
        });
    };
    sum_points<T, S>(launch, sizes, sums, bev, prepare, splat_all);
}

void voxel_pooling_volume(const Launch& launch, const Sizes& sizes, const std::int32_t* voxel_index, const void* volume,
                          const Sums& sums, void* bev) {
    check_sizes(sizes);
    const DeviceGuard guard(launch.device);
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        for_sums<T>(sums.exact, [&](auto sum) {
            sum_volume<T, typename decltype(sum)::type>(launch, sizes, voxel_index, volume, sums, bev);
        });
    });
}

void voxel_pooling_volume_backward(const Launch& launch, const Sizes& sizes, const std::int32_t* voxel_index,
                                   const void* grad_bev, void* grad_volume) {
    check_sizes(sizes);
    const DeviceGuard guard(launch.device);
    const std::int64_t points = sizes.batch * sizes.cameras * sizes.bins * sizes.height * sizes.width;
    for_dtype(launch.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        const T* gradient = static_cast<const T*>(grad_bev);
        for_group<T>(sizes, {gradient}, [&](auto group) {
            run(launch, Start::after_previous, gather_grad_volume<T, decltype(group)::value>, ceil_divide(points, kThreads),
                dim3(1, 1, 1), dim3(kThreads), sizes, IndexedCells{voxel_index}, points, gradient, static_cast<T*>(grad_volume));
        });
    });
}

}  // namespace bevdepth
