// The Python table of voxel_pooling.h. Device pointers and streams travel as integers, so that the module serves any torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "voxel_pooling.h"

namespace py = pybind11;
using namespace bevdepth;
using Address = std::uintptr_t;

namespace {

template <class T = void>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

Geometry make_geometry(Address ego_from_frustum, Address frustum_u, Address frustum_v, Address frustum_d,
                       std::array<float, 3> lower, std::array<float, 3> cell) {
    return {pointer<float>(ego_from_frustum), pointer<float>(frustum_u), pointer<float>(frustum_v), pointer<float>(frustum_d),
            {lower[0], lower[1], lower[2]},   {cell[0], cell[1], cell[2]}};
}

}  // namespace

PYBIND11_MODULE(_voxel_pooling, module) {
    using py::arg;
    const auto no_gil = py::call_guard<py::gil_scoped_release>();
    module.doc() = "Voxel pooling on CUDA; csrc/voxel_pooling.h says what each function takes.";

    py::enum_<Dtype>(module, "Dtype")
        .value("float16", Dtype::float16)
        .value("bfloat16", Dtype::bfloat16)
        .value("float32", Dtype::float32)
        .value("float64", Dtype::float64);
    py::class_<Launch>(module, "Launch")
        .def(py::init([](Dtype dtype, int device, Address stream) { return Launch{dtype, device, stream}; }), arg("dtype"), arg("device"),
             arg("stream"));
    py::class_<Sizes>(module, "Sizes")
        .def(py::init([](std::int64_t batch, std::int64_t cameras, std::int64_t bins, std::int64_t channels, std::int64_t height,
                         std::int64_t width, std::int64_t nx,
                         std::int64_t ny) { return Sizes{batch, cameras, bins, channels, height, width, nx, ny}; }),
             arg("batch"), arg("cameras"), arg("bins"), arg("channels"), arg("height"), arg("width"), arg("nx"), arg("ny"));
    py::class_<Geometry>(module, "Geometry")
        .def(py::init(&make_geometry), arg("ego_from_frustum"), arg("frustum_u"), arg("frustum_v"), arg("frustum_d"), arg("lower"),
             arg("cell"));

    module.def(
        "voxel_index",
        [](const Launch& launch, const Sizes& sizes, const Geometry& geometry, Address index) {
            voxel_index(launch, sizes, geometry, pointer<std::int32_t>(index));
        },
        arg("launch"), arg("sizes"), arg("geometry"), arg("voxel_index"), no_gil);
    module.def(
        "voxel_pooling",
        [](const Launch& launch, const Sizes& sizes, Address depth, Address context, const Geometry& geometry, Address pixel_rows,
           Address cell_rows, Address bev) {
            voxel_pooling(launch, sizes, pointer(depth), pointer(context), geometry, pointer(pixel_rows), pointer(cell_rows), pointer(bev));
        },
        arg("launch"), arg("sizes"), arg("depth"), arg("context"), arg("geometry"), arg("pixel_rows"), arg("cell_rows"), arg("bev"),
        no_gil);
    module.def(
        "voxel_pooling_indexed",
        [](const Launch& launch, const Sizes& sizes, Address depth, Address context, Address index, Address pixel_rows, Address cell_rows,
           Address bev) {
            voxel_pooling_indexed(launch, sizes, pointer(depth), pointer(context), pointer<std::int32_t>(index), pointer(pixel_rows),
                                  pointer(cell_rows), pointer(bev));
        },
        arg("launch"), arg("sizes"), arg("depth"), arg("context"), arg("voxel_index"), arg("pixel_rows"), arg("cell_rows"), arg("bev"),
        no_gil);
    module.def(
        "voxel_pooling_backward",
        [](const Launch& launch, const Sizes& sizes, Address grad_bev, Address depth, Address context, const Geometry& geometry,
           Address pixel_rows, Address cell_rows, Address grad_depth, Address grad_context) {
            voxel_pooling_backward(launch, sizes, pointer(grad_bev), pointer(depth), pointer(context), geometry, pointer(pixel_rows),
                                   pointer(cell_rows), pointer(grad_depth), pointer(grad_context));
        },
        arg("launch"), arg("sizes"), arg("grad_bev"), arg("depth"), arg("context"), arg("geometry"), arg("pixel_rows"), arg("cell_rows"),
        arg("grad_depth"), arg("grad_context"), no_gil);
    module.def(
        "voxel_pooling_indexed_backward",
        [](const Launch& launch, const Sizes& sizes, Address grad_bev, Address depth, Address context, Address index, Address pixel_rows,
           Address cell_rows, Address grad_depth, Address grad_context) {
            voxel_pooling_indexed_backward(launch, sizes, pointer(grad_bev), pointer(depth), pointer(context), pointer<std::int32_t>(index),
                                           pointer(pixel_rows), pointer(cell_rows), pointer(grad_depth), pointer(grad_context));
        },
        arg("launch"), arg("sizes"), arg("grad_bev"), arg("depth"), arg("context"), arg("voxel_index"), arg("pixel_rows"), arg("cell_rows"),
        arg("grad_depth"), arg("grad_context"), no_gil);
    module.def(
        "voxel_pooling_volume",
        [](const Launch& launch, const Sizes& sizes, Address volume, Address index, Address cell_rows, Address bev) {
            voxel_pooling_volume(launch, sizes, pointer(volume), pointer<std::int32_t>(index), pointer(cell_rows), pointer(bev));
        },
        arg("launch"), arg("sizes"), arg("volume"), arg("voxel_index"), arg("cell_rows"), arg("bev"), no_gil);
    module.def(
        "voxel_pooling_volume_backward",
        [](const Launch& launch, const Sizes& sizes, Address grad_bev, Address index, Address cell_rows, Address grad_volume) {
            voxel_pooling_volume_backward(launch, sizes, pointer(grad_bev), pointer<std::int32_t>(index), pointer(cell_rows),
                                          pointer(grad_volume));
        },
        arg("launch"), arg("sizes"), arg("grad_bev"), arg("voxel_index"), arg("cell_rows"), arg("grad_volume"), no_gil);
}
