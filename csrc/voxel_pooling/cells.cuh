// Computes the cells of frustum points.
#pragma once

#include "voxel_pooling/common.cuh"

namespace bevdepth {
namespace {

constexpr int kOutside = -1;                  // cell of a point outside the grid
constexpr float kIndexLimit = 2147483648.0f;  // larger quotients do not fit into int32
constexpr float kSmallestCell = 0x1p-60f, kLargestCell = 0x1p60f;

// The points of one image column at one depth bin.
struct Place {
    std::int64_t view;  // sample * cameras + camera
    int bin, column;
};

struct GeometryCells {
    Geometry geometry;
    float reciprocal[3];  // 1 / geometry.cell, rounded to nearest
};

// Returns a / b, rounded to nearest; `reciprocal` is 1 / b. The function computes a * reciprocal
// and corrects this quotient twice, each time with an exact remainder. This is faster than
// __fdiv_rn, and gives the same result for every quotient that is small enough to be an index.
__device__ float divide(float a, float b, float reciprocal) {
    float quotient = __fmul_rn(a, reciprocal);
    quotient = __fmaf_rn(__fmaf_rn(-b, quotient, a), reciprocal, quotient);
    return __fmaf_rn(__fmaf_rn(-b, quotient, a), reciprocal, quotient);
}

// Computes the cells of the points of one image column at one depth d. On each of the axes x, y,
// z, the point in a row has the coordinate ((across + down * (v * d)) + along) + offset. Here v is
// frustum_v[row], and the other variables follow from the four numbers m of the axis in
// ego_from_frustum, and from u = frustum_u[column]: across = m[0] * (u * d), down = m[1],
// along = m[2] * d, offset = m[3].
//
// Each operation is rounded separately, in the order of the Python reference. A fused multiply-add
// would move some points at the border of a cell to a neighboring cell.
struct GeometryColumn {
    const GeometryCells& cells;
    float d, across[3], down[3], along[3], offset[3];

    __device__ GeometryColumn(const Sizes&, const GeometryCells& cells, const Place& place)
        : cells(cells) {
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

    // Returns the distance of a point from the low corner of the grid along an axis, in meters;
    // `vd` is the result of scaled_row for the row of the point.
    __device__ float meters(float vd, int axis) const {
        const float rotated =
            __fadd_rn(__fadd_rn(across[axis], __fmul_rn(down[axis], vd)), along[axis]);
        return __fsub_rn(__fadd_rn(rotated, offset[axis]), cells.geometry.lower[axis]);
    }

    // Returns the distance from the low corner in cells. Truncated, it is the index on this axis.
    __device__ float quotient(float vd, int axis) const {
        return divide(meters(vd, axis), cells.geometry.cell[axis], cells.reciprocal[axis]);
    }

    // Returns v * d.
    __device__ float scaled_row(int row) const {
        return __fmul_rn(cells.geometry.frustum_v[row], d);
    }

    // Returns the number of the cell in the map, or kOutside. Quotients are truncated towards
    // zero, as in the reference, so a quotient between -1 and 0 has the index 0. NaN makes a
    // comparison false, so the point is outside. The index of z must be 0. The rounded quotient
    // |z| / cell is less than 1 if and only if |z| < cell, so z needs no division.
    __device__ int cell(const Sizes& sizes, int row) const {
        const float vd = scaled_row(row), x = quotient(vd, 0), y = quotient(vd, 1);
        const bool inside = (x > -1.0f) & (x < static_cast<float>(sizes.nx)) & (y > -1.0f) &
                            (y < static_cast<float>(sizes.ny)) &
                            (fabsf(meters(vd, 2)) < cells.geometry.cell[2]);
        return inside ? static_cast<int>(y) * static_cast<int>(sizes.nx) + static_cast<int>(x)
                      : kOutside;
    }
};

// IndexedCells and IndexedColumn read the three indices of each point from memory, while
// GeometryCells and GeometryColumn compute the indices.
struct IndexedCells {
    const std::int32_t* voxel_index;
};

struct IndexedColumn {
    const std::int32_t* top;

    __device__ IndexedColumn(const Sizes& sizes, const IndexedCells& cells, const Place& place)
        : top(cells.voxel_index +
              ((place.view * sizes.bins + place.bin) * sizes.height * sizes.width + place.column) *
                  3) {}

    __device__ int cell(const Sizes& sizes, int row) const {
        const std::int32_t* index = top + row * sizes.width * 3;
        const bool inside = index[0] >= 0 && index[0] < sizes.nx && index[1] >= 0 &&
                            index[1] < sizes.ny && index[2] == 0;
        return inside ? index[1] * static_cast<int>(sizes.nx) + index[0] : kOutside;
    }
};

// Column<Cells> is GeometryColumn for GeometryCells, and IndexedColumn for IndexedCells.
template <class Cells>
struct ColumnOf {
    using type = GeometryColumn;
};
template <>
struct ColumnOf<IndexedCells> {
    using type = IndexedColumn;
};
template <class Cells>
using Column = typename ColumnOf<Cells>::type;

// One thread per point writes the three indices of the point.
__global__ void write_voxel_index(Sizes sizes, GeometryCells cells, std::int64_t points,
                                  std::int32_t* voxel_index) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= points) return;
    const std::int64_t line = i / sizes.width, plane = line / sizes.height;
    const Place place{plane / sizes.bins, static_cast<int>(plane % sizes.bins),
                      static_cast<int>(i % sizes.width)};
    const GeometryColumn column(sizes, cells, place);
    const float vd = column.scaled_row(static_cast<int>(line % sizes.height));
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
        const float quotient = column.quotient(vd, axis);
        voxel_index[i * 3 + axis] =
            fabsf(quotient) < kIndexLimit ? __float2int_rz(quotient) : kOutside;
    }
}

// Consecutive points of a column that lie in the same cell. Points outside of the grid do not end
// a run.
struct Run {
    int cell;
    unsigned rows;  // bit r is set if row r belongs to the run
};

// The runs of `Count` columns of kRows points, in shared memory.
template <int Count>
struct RunTile {
    Run run[Count][kRows + 1];  // one unused entry avoids bank conflicts between columns
    int runs[Count];

    // Finds the runs of the points of `place` in up to kRows rows, beginning with row `top`, and
    // stores them as column i of the tile.
    template <class Cells>
    __device__ void find(int i, const Sizes& sizes, const Cells& cells, const Place& place,
                         int top) {
        const Column<Cells> column(sizes, cells, place);
        const int rows = min(kRows, static_cast<int>(sizes.height) - top);
        int cell_of[kRows];  // all cells are computed together: independent work hides latency
#pragma unroll
        for (int row = 0; row < kRows; ++row)
            cell_of[row] = column.cell(sizes, top + min(row, rows - 1));
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

    // Stores that column i of the tile has no runs.
    __device__ void leave_out(int i) { runs[i] = 0; }
};

}  // namespace
}  // namespace bevdepth
