// Loads float16 or bfloat16 depth and context into shared memory for the tensor cores. A line is
// one depth bin of the depth, or one channel of the context. A block processes kRows rows and
// kTensorColumns columns of the feature map, and its threads read each number once.
//
//   global memory ---RegisterTile()---> registers ---RegisterTile::store---> shared memory
//   (depth, context)                    (RegisterTile)                       (LineTile)
//
// In global memory, the numbers of adjacent columns or of adjacent lines follow each other. The
// tensor cores need an order in which the numbers of adjacent rows of a line follow each other. So
// the numbers are transposed on the way through the registers.
#pragma once

#include <cstring>

#include "voxel_pooling/tiling.cuh"

namespace bevdepth {
namespace {

constexpr int kTensorColumns = 4;  // columns of one block; each column has its own warp
constexpr int kTensorThreads = kTensorColumns * kWarp;
// Distance between the lines of a LineTile, in numbers. With this distance, the instruction
// ldmatrix, which reads eight lines at the same time, has no bank conflicts.
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
// The instruction ldmatrix, which reads the tile, needs adjacent rows.
template <class T, int Lines>
struct LineTile {
    static constexpr int kColumnPitch = Lines * kLinePitch + 32 / sizeof(T);
    alignas(16) T value[kTensorColumns * kColumnPitch];

    __device__ T* line(int column, int line) {
        return value + column * kColumnPitch + line * kLinePitch;
    }
};

// Returns the line of the tile in which a channel is stored. The instruction mma multiplies 8
// lines at a time. In each group of four threads, thread t (0 to 3) receives the results of the
// lines 2t and 2t + 1. Two instructions multiply 16 lines. With the order below, the four results
// that thread t receives belong to the adjacent channels 4t to 4t + 3, which one 16-byte atomic
// adds:
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

// The numbers that one thread copies from global memory to shared memory: in each of two adjacent
// rows (a pair), four numbers that are adjacent in global memory. They belong to four lines of one
// column if source.along_lines is true, otherwise to the four columns of one line. The threads of
// the block together copy 16 lines at a time, so each thread repeats this for every 16th line.
// V is the number of numbers that one access reads, 4 or 1.
template <class T, int Lines, int V>
struct RegisterTile {
    static constexpr int kCount = Lines / 16, kPairs = kRows / 2;
    Half4 value[kCount][2];

    // The first line, the pair of rows and the first column that this thread copies.
    struct Position {
        int line, pair, column;

        __device__ Position(bool along_lines) {
            const int thread = threadIdx.x;
            line = along_lines ? thread % 4 * 4 : thread / kPairs;
            pair = along_lines ? thread / 4 % kPairs : thread % kPairs;
            column = along_lines ? thread / (4 * kPairs) : 0;
        }
    };

    // Reads the numbers of this thread. `corner` is the address of the first number of the block.
    // From this number on, at most `lines` lines, `rows` rows and `columns` columns are read; the
    // numbers beyond are set to zero.
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

    // Stores the numbers in the tile: line i of the array becomes line order(i) of the tile.
    // order(i + 16) must be order(i) + 16. Returns true if all numbers of this thread are finite.
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
