// Python bindings of stereo.h. Addresses and streams are passed as integers, so that the module
// works with every version of torch.
#include "stereo/stereo_bindings.h"

#include "stereo/stereo.h"

namespace py = pybind11;

namespace bevdepth::stereo {

using Address = std::uintptr_t;

void bind(py::module_& module) {
    py::class_<Maps>(module, "StereoMaps")
        .def(py::init([](std::int32_t images, std::int32_t height, std::int32_t width,
                         std::int32_t channels, std::int32_t groups, std::int32_t depths) {
            return Maps{images, height, width, channels, groups, depths};
        }));
    py::class_<Projection>(module, "StereoProjection")
        .def(py::init([](Address source_from_reference, Address u, Address v, float map_stride,
                         float nearest_depth) {
            return Projection{reinterpret_cast<const double*>(source_from_reference),
                              reinterpret_cast<const float*>(u), reinterpret_cast<const float*>(v),
                              map_stride, nearest_depth};
        }));
    module.def(
        "cost_volume",
        [](const Launch& launch, const Maps& maps, const Projection& projection, Address reference,
           Address source, Address depths, Address costs) {
            cost_volume(launch, maps, projection, reinterpret_cast<const void*>(reference),
                        reinterpret_cast<const void*>(source),
                        reinterpret_cast<const float*>(depths), reinterpret_cast<void*>(costs));
        },
        py::call_guard<py::gil_scoped_release>());
}

}  // namespace bevdepth::stereo
