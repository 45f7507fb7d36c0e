// Defines the Python module _kernels. This file contains the bindings of voxel_pooling.h; other
// files contain the bindings of detection.h, layers.h and stereo.h. Device pointers and streams
// are passed as integers, so the module works with every version of torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "detection/detection_bindings.h"
#include "layers/layers_bindings.h"
#include "stereo/stereo_bindings.h"
#include "voxel_pooling/voxel_pooling.h"

namespace py = pybind11;
using namespace bevdepth;
using Address = std::uintptr_t;

namespace {

template <class T = void>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

Geometry make_geometry(Address ego_from_frustum, Address frustum_u, Address frustum_v,
                       Address frustum_d, std::array<float, 3> lower, std::array<float, 3> cell) {
    return {pointer<float>(ego_from_frustum), pointer<float>(frustum_u),
            pointer<float>(frustum_v),        pointer<float>(frustum_d),
            {lower[0], lower[1], lower[2]},   {cell[0], cell[1], cell[2]}};
}

// Binds a structure. Its Python constructor expects the members in the order of their declaration.
template <class T, class Make>
void bind(py::module_& module, const char* name, Make make) {
    py::class_<T>(module, name).def(py::init(make));
}

}  // namespace

PYBIND11_MODULE(_kernels, module) {
    using Count = std::int64_t;
    const auto no_gil = py::call_guard<py::gil_scoped_release>();
    module.doc() = "CUDA kernels; the headers in csrc document their structures and functions.";

    py::enum_<Dtype>(module, "Dtype")
        .value("float16", Dtype::float16)
        .value("bfloat16", Dtype::bfloat16)
        .value("float32", Dtype::float32)
        .value("float64", Dtype::float64);
    bind<Launch>(module, "Launch", [](Dtype dtype, int device, Address stream) {
        return Launch{dtype, device, stream};
    });
    bind<Sizes>(module, "Sizes",
                [](Count batch, Count cameras, Count bins, Count channels, Count height,
                   Count width, Count nx, Count ny) {
                    return Sizes{batch, cameras, bins, channels, height, width, nx, ny};
                });
    bind<Geometry>(module, "Geometry", &make_geometry);
    bind<StridedArray>(module, "StridedArray",
                       [](Address data, Count view, Count line, Count row, Count column) {
                           return StridedArray{pointer(data), view, line, row, column};
                       });
    bind<Context>(module, "Context", [](Address channels_first, Address channels_last) {
        return Context{pointer(channels_first), pointer(channels_last)};
    });
    module.attr("SUM_BOUNDS") = kSumBounds;
    bind<Sums>(module, "Sums", [](bool exact, Address cells, Address bounds) {
        return Sums{exact, pointer(cells), pointer<std::uint32_t>(bounds)};
    });

    module.def(
        "voxel_index",
        [](const Launch& launch, const Sizes& sizes, const Geometry& geometry, Address index) {
            voxel_index(launch, sizes, geometry, pointer<std::int32_t>(index));
        },
        no_gil);
    module.def("wants_channels_last", &wants_channels_last, no_gil);
    module.def(
        "voxel_pooling",
        [](const Launch& launch, const Sizes& sizes, const Geometry& geometry,
           const StridedArray& depth, const Context& context, const Sums& sums, Address bev) {
            voxel_pooling(launch, sizes, geometry, depth, context, sums, pointer(bev));
        },
        no_gil);
    module.def(
        "voxel_pooling_backward",
        [](const Launch& launch, const Sizes& sizes, const Geometry& geometry,
           const StridedArray& depth, const Context& context, Address grad_bev, Address grad_depth,
           Address grad_context) {
            voxel_pooling_backward(launch, sizes, geometry, depth, context, pointer(grad_bev),
                                   pointer(grad_depth), pointer(grad_context));
        },
        no_gil);
    module.def(
        "voxel_pooling_volume",
        [](const Launch& launch, const Sizes& sizes, Address index, Address volume,
           const Sums& sums, Address bev) {
            voxel_pooling_volume(launch, sizes, pointer<std::int32_t>(index), pointer(volume),
                                 sums, pointer(bev));
        },
        no_gil);
    module.def(
        "voxel_pooling_volume_backward",
        [](const Launch& launch, const Sizes& sizes, Address index, Address grad_bev,
           Address grad_volume) {
            voxel_pooling_volume_backward(launch, sizes, pointer<std::int32_t>(index),
                                          pointer(grad_bev), pointer(grad_volume));
        },
        no_gil);

    detection::bind(module);
    layers::bind(module);
    stereo::bind(module);
}
