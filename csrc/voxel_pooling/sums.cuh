// Functions for the sums of the cells: they set the sums to zero, add terms to the sums, and round
// the sums to the type of the map. This file also contains the transposition of the context.
//
// The sum of a cell consists of one number per channel. Template parameters: T is the type of
// inputs and map, A the type in which a thread computes, S the type of the sums in memory, and V
// the number of adjacent channels that are processed together (a group).
#pragma once

#include <type_traits>

#include "voxel_pooling/bounds.cuh"
#include "voxel_pooling/cells.cuh"

namespace bevdepth {
namespace {

constexpr int kTile = 32;        // side of the square that a block transposes in shared memory
constexpr int kClearBytes = 64;  // bytes that one thread clears
constexpr int kMapRounds = 2;    // groups of channels that a thread of write_map writes

// Adds a group of V channels to the sums of a cell, which have type S. Other threads add to the
// same sums at the same time, so the additions are atomic.
template <class S, class A, int V>
struct Adder {
    __device__ Adder(const Sizes&, const Bounds&) {}

    __device__ static int offset(int channel) { return channel; }

    __device__ void add(S* target, const Group<A, V>& term) const {
        for (int k = 0; k < V; ++k) atomicAdd(target + k, term.value[k]);
    }
};

template <>
__device__ void Adder<float, float, 4>::add(float* target, const Group<float, 4>& term) const {
#if __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float4*>(target),
              make_float4(term.value[0], term.value[1], term.value[2], term.value[3]));
#else
    for (int k = 0; k < 4; ++k) atomicAdd(target + k, term.value[k]);
#endif
}

// Memory order of the exact sums of a cell. An atomic addition changes only one double. Adjacent
// threads process adjacent groups of four channels, and should add to adjacent numbers at the same
// time. So the first channels of all groups are adjacent, followed by the second channels of all
// groups, and so on. If the number of channels is not a multiple of 4, the order is not changed.
struct ExactOrder {
    int channels;

    __device__ int step() const {
        return channels % 4 == 0 ? channels / 4 : 1;
    }  // distance between adjacent channels of a group
    __device__ int offset(int channel) const {
        return channels % 4 == 0 ? channel / 4 + channel % 4 * step() : channel;
    }
};

template <int V>
struct Adder<double, float, V> {
    Quantum quantum;
    ExactOrder order;

    __device__ Adder(const Sizes& sizes, const Bounds& bounds)
        : quantum(sizes, bounds), order{static_cast<int>(sizes.channels)} {}

    __device__ int offset(int channel) const { return order.offset(channel); }

    __device__ void add(double* target, const Group<float, V>& term) const {
        for (int k = 0; k < V; ++k)
            atomicAdd(target + k * order.step(), quantum.round(term.value[k]));
    }
};

// The sum that a thread keeps in registers for a group of channels of its current cell. The sum is
// added to memory only when the thread enters another cell, and at the end, so the thread needs
// far fewer atomic additions than it has points.
template <class S, class A, int V>
struct OpenCell {
    int stride;
    Adder<S, A, V> adder;
    S* cells;  // sums of the group in cell 0
    int cell = kOutside;
    Group<A, V> sum = {};

    __device__ OpenCell(const Sizes& sizes, S* sums, const Bounds& bounds, unsigned sample,
                        int channel)
        : stride(static_cast<int>(sizes.channels)), adder(sizes, bounds) {
        cells = sums + sample * sizes.nx * sizes.ny * sizes.channels + adder.offset(channel);
    }

    __device__ void close() {
        if (cell != kOutside) adder.add(cells + static_cast<std::int64_t>(cell) * stride, sum);
        sum = {};
    }

    __device__ void enter(int next) {
        if (next == cell) return;
        close();
        cell = next;
    }

    // Adds weight[row] * features[row] for the points of column i of the tile that lie in the
    // grid, run by run. Points outside of the grid are skipped. A weight of 0 for these points
    // would not be sufficient, because 0 times a feature that is NaN or infinite is NaN.
    template <int Count, class F>
    __device__ void add(const RunTile<Count>& tile, int i, const Group<F, V> (&features)[kRows],
                        const A (&weight)[kRows]) {
#pragma unroll 1
        for (int k = 0; k < tile.runs[i]; ++k) {
            const Run run = tile.run[i][k];
            enter(run.cell);
#pragma unroll
            for (int row = 0; row < kRows; ++row) {
                if (!(run.rows >> row & 1)) continue;
                for (int v = 0; v < V; ++v)
                    sum.value[v] =
                        fma(weight[row], static_cast<A>(features[row].value[v]), sum.value[v]);
            }
        }
    }
};

// Sizes of an array (groups, channels, positions) that is transposed to (groups, positions,
// channels). For the context, a group is a view, and a position is a pixel.
struct Planes {
    std::int64_t groups, channels, positions;

    __host__ __device__ std::int64_t channel_tiles() const {
        return (channels + kTile - 1) / kTile;
    }
    __host__ __device__ std::int64_t position_tiles() const {
        return (positions + kTile - 1) / kTile;
    }
    __host__ __device__ std::int64_t tiles() const {
        return groups * channel_tiles() * position_tiles();
    }
};

// The block transposes one tile of 32 channels x 32 positions in shared memory, so that both reads
// and writes are coalesced.
template <class T>
__device__ void transpose_tile(const Planes& planes, unsigned tile, const T* source,
                               T* transposed) {
    __shared__ T values[kTile][kTile + 2 / sizeof(T) + 1];
    const unsigned position_tiles = planes.position_tiles(),
                   channel_tiles = planes.channel_tiles();
    const std::int64_t group = tile / position_tiles / channel_tiles;
    const int first_channel = tile / position_tiles % channel_tiles * kTile,
              first_position = tile % position_tiles * kTile;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    for (int i = warp; i < kTile; i += kThreads / kWarp) {
        const int channel = first_channel + i, position = first_position + lane;
        if (channel < planes.channels && position < planes.positions) {
            values[i][lane] =
                source[(group * planes.channels + channel) * planes.positions + position];
        }
    }
    __syncthreads();
    for (int i = warp; i < kTile; i += kThreads / kWarp) {
        const int channel = first_channel + lane, position = first_position + i;
        if (channel < planes.channels && position < planes.positions) {
            transposed[(group * planes.positions + position) * planes.channels + channel] =
                values[lane][i];
        }
    }
}

// Sets the part of the sums that belongs to this thread to zero, 16 bytes at a time. The sums have
// `bytes` bytes, a multiple of 4. Block 0 also clears the last words if `bytes` is not a multiple
// of 16.
__device__ void clear_share(std::int64_t block, void* sums, std::int64_t bytes) {
    const std::int64_t vectors = bytes / sizeof(uint4);
    std::int64_t i = block * kThreads * (kClearBytes / sizeof(uint4)) + threadIdx.x;
    for (int round = 0; round < kClearBytes / sizeof(uint4); ++round, i += kThreads) {
        if (i < vectors) static_cast<uint4*>(sums)[i] = uint4{};
    }
    const std::int64_t word = vectors * 4 + threadIdx.x;
    if (block == 0 && word < bytes / 4) static_cast<unsigned*>(sums)[word] = 0;
}

// The first blocks compute bounds, each of the next blocks transposes one tile of the context, and
// the last blocks clear the sums.
template <class T, int V>
__global__ void prepare(Bounded<T> bounded, Planes context, const T* channels_first,
                        T* channels_last, void* sums, std::int64_t bytes) {
    let_next_kernel_start();
    const std::int64_t tiles = channels_first == nullptr ? 0 : context.tiles(),
                       block = blockIdx.x - bounded.blocks();
    if (block < 0) {
        find_bound<T, V>(bounded, blockIdx.x);
    } else if (block < tiles) {
        transpose_tile(context, block, channels_first, channels_last);
    } else {
        clear_share(block - tiles, sums, bytes);
    }
}

// Rounds the sums to the type of the map. Each thread rounds kMapRounds groups of V channels.
// `groups` is the number of groups of one cell, and `count` the number of groups of all cells.
template <class T, class S, int V>
__global__ void write_map(unsigned count, unsigned groups, const S* sums, T* map) {
    let_next_kernel_start();
    wait_for_earlier_kernels();
    Group<S, V> sum[kMapRounds];
    const unsigned start = blockIdx.x * kThreads * kMapRounds + threadIdx.x;
#pragma unroll
    for (int round = 0; round < kMapRounds; ++round) {
        const unsigned i = start + round * kThreads;
        if (i >= count) continue;
        if constexpr (std::is_same_v<S, double>) {  // Adder stores the sums in ExactOrder
            const ExactOrder order{static_cast<int>(groups) * V};
            const S* first = sums + static_cast<std::int64_t>(i / groups) * order.channels +
                             order.offset(i % groups * V);
            for (int k = 0; k < V; ++k) sum[round].value[k] = first[k * order.step()];
        } else {
            sum[round] = reinterpret_cast<const Group<S, V>*>(sums)[i];
        }
    }
#pragma unroll
    for (int round = 0; round < kMapRounds; ++round) {
        const unsigned i = start + round * kThreads;
        if (i >= count) continue;
        Group<T, V> rounded;
        for (int k = 0; k < V; ++k)
            rounded.value[k] = static_cast<T>(static_cast<float>(sum[round].value[k]));
        reinterpret_cast<Group<T, V>*>(map)[i] = rounded;
    }
}

}  // namespace
}  // namespace bevdepth
