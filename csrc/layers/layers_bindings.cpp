// Python bindings of layers.h. Addresses are passed as integers, so that the module works with
// every version of torch.
#include "layers/layers_bindings.h"

#include "layers/layers.h"

namespace py = pybind11;

namespace bevdepth::layers {

using Address = std::uintptr_t;

void bind(py::module_& module) {
    const auto no_gil = py::call_guard<py::gil_scoped_release>();
    py::class_<Map>(module, "Map")
        .def(py::init([](std::int32_t images, std::int32_t height, std::int32_t width,
                         std::int32_t channels) { return Map{images, height, width, channels}; }));
    module.def(
        "deformable_columns",
        [](const Launch& launch, const Map& map, std::int32_t groups, Address features,
           Address offsets, Address columns) {
            deformable_columns(launch, map, groups, reinterpret_cast<const void*>(features),
                               reinterpret_cast<const void*>(offsets),
                               reinterpret_cast<void*>(columns));
        },
        no_gil);
    module.def(
        "max_pool",
        [](const Launch& launch, const Map& map, Address features, Address pooled) {
            max_pool(launch, map, reinterpret_cast<const void*>(features),
                     reinterpret_cast<void*>(pooled));
        },
        no_gil);
}

}  // namespace bevdepth::layers
