// Loads float16 or bfloat16 depth and context for the tensor cores. Each number is read once. The
// numbers are transposed, so the rows of a line (depth bin or context channel) are adjacent in
// shared memory.
#pragma once

#include <cstring>

#include "voxel_pooling/tiling.cuh"

namespace bevdepth {
namespace {

constexpr int kTensorColumns = 4;  // columns of one block; each column has its own warp
constexpr int kTensorThreads = kTensorColumns * kWarp;
// Distance between lines, in numbers; avoids bank conflicts when fragments are read.
constexpr int kLinePitch = 24;

// The numbers of two neighboring rows, packed into 32 bits.
template <class T>
struct RowPairOf;
template <>
struct RowPairOf<__half> {
    using type = __half2;
};
template <>
struct RowPairOf<__nv_bfloat16> {
    using type = __nv_bfloat162;
};
template <class T>
using RowPair = typename RowPairOf<T>::type;

using Half4 = Group<unsigned, 2>;  // four numbers of a half type

// Both rows have four numbers. Returns the k-th number of the first row and the k-th number of the
// second row as a pair.
template <class T>
__device__ RowPair<T> row_pair(const Half4& first, const Half4& second, int k) {
    const unsigned bits =
        __byte_perm(first.value[k / 2], second.value[k / 2], k % 2 == 0 ? 0x5410 : 0x7632);
    RowPair<T> pair;
    memcpy(&pair, &bits, sizeof(pair));
    return pair;
}

// The lines (depth bins or channels) of each column of a block, in shared memory. A line has kRows
// numbers.
//
//   line 0 | row 0 | row 1 | ... | row 15 | 8 unused |     kLinePitch = 24 numbers per line
//   line 1 | row 0 | row 1 | ... | row 15 | 8 unused |
//   ...
//
// In global memory, the rows of a line are not adjacent. The instruction ldmatrix, which reads the
// tile, needs adjacent rows.
template <class T, int Lines>
struct LineTile {
    static constexpr int kColumnPitch = Lines * kLinePitch + 32 / sizeof(T);
    alignas(16) T value[kTensorColumns * kColumnPitch];

    __device__ T* line(int column, int line) {
        return value + column * kColumnPitch + line * kLinePitch;
    }
};

// Returns the line in which a channel is stored. A product of mma has 8 channels. In each group of
// four threads, thread t receives the columns 2t and 2t + 1 of the product. With the order below,
// the columns that thread t receives from two products are the adjacent channels 4t to 4t + 3,
// which one 16-byte atomic adds:
//
//            first product                || second product
//   line     0  1 |  2  3 |  4  5 |  6  7 ||  8  9 | 10 11 | 12 13 | 14 15
//   channel  0  1 |  4  5 |  8  9 | 12 13 ||  2  3 |  6  7 | 10 11 | 14 15
//   thread   t = 0     1       2       3       0       1       2       3
//
// This pattern is repeated for every 16 channels.
__device__ int channel_line(int channel) {
    return (channel & ~15) | (channel << 2 & 8) | (channel >> 1 & 6) | (channel & 1);
}

// An array of lines in global memory: depth or context.
struct LineSource {
    StridedArray array;
    bool along_lines;  // true if adjacent numbers belong to adjacent lines, false if they belong
                       // to adjacent columns
};

// The numbers that one thread copies from global memory through registers to shared memory: four
// adjacent numbers in each of two rows. The thread repeats this for every 16th line. Numbers
// outside of the array are zero. V is the number of numbers per access, 4 or 1.
template <class T, int Lines, int V>
struct RegisterTile {
    static constexpr int kCount = Lines / 16, kPairs = kRows / 2;
    Half4 value[kCount][2];

    struct Position {
        int line, pair, column;

        __device__ Position(bool along_lines) {
            const int thread = threadIdx.x;
            line = along_lines ? thread % 4 * 4 : thread / kPairs;
            pair = along_lines ? thread / 4 % kPairs : thread % kPairs;
            column = along_lines ? thread / (4 * kPairs) : 0;
        }
    };

    __device__ RegisterTile(const LineSource& source, const T* corner, int lines, int rows,
                            int columns) {
        static_assert(kTensorThreads == 16 * kPairs && kTensorColumns == 4);
        const StridedArray& array = source.array;
        const Position at(source.along_lines);
        const T* first = corner + at.line * array.line_stride + at.pair * 2 * array.row_stride +
                         at.column * array.column_stride;
#pragma unroll
        for (int i = 0; i < kCount; ++i, first += 16 * array.line_stride) {
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                const int line = at.line + i * 16;
                const bool exists =
                    at.pair * 2 + row < rows && line < lines && at.column < columns;
                value[i][row] = {};
                if constexpr (V == 4) {
                    if (exists)
                        value[i][row] =
                            *reinterpret_cast<const Half4*>(first + row * array.row_stride);
                } else {
                    const int count = !exists ? 0 : source.along_lines ? lines - line : columns;
                    T number[4] = {};
                    for (int k = 0; k < 4; ++k) {
                        if (k < count)
                            number[k] = first[row * array.row_stride +
                                              k * (source.along_lines ? array.line_stride
                                                                      : array.column_stride)];
                    }
                    memcpy(&value[i][row], number, sizeof(number));
                }
            }
        }
    }

    // Stores the numbers in the tile, line i of the array as line order(i) of the tile. Returns
    // true if all numbers are finite.
    template <class Order>
    __device__ bool store(const LineSource& source, LineTile<T, Lines>& tile, Order order) const {
        RowPair<T> poisoned{};  // sum of zero times each number: NaN if a number is not finite
        const Position at(source.along_lines);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            T* first = (source.along_lines ? tile.line(at.column, order(at.line + k))
                                           : tile.line(k, order(at.line))) +
                       at.pair * 2;
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
                const RowPair<T> pair = row_pair<T>(value[i][0], value[i][1], k);
                *reinterpret_cast<RowPair<T>*>(first + i * 16 * kLinePitch) = pair;
                poisoned = __hfma2(pair, RowPair<T>{}, poisoned);
            }
        }
        return !__hisnan(poisoned.x) && !__hisnan(poisoned.y);
    }
};

}  // namespace
}  // namespace bevdepth
