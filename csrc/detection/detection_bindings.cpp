// Python bindings of detection.h. Addresses are passed as integers, so the module does not depend
// on the version of torch.
#include "detection/detection_bindings.h"

#include <pybind11/stl.h>

#include <array>

#include "detection/detection.h"

namespace py = pybind11;

namespace bevdepth::detection {
namespace {

using Address = std::uintptr_t;

// `strides` contains the strides of rows, columns and channels, in bytes. `rows` contains the
// first row that the vertical filter reads, and the number of rows that it reads.
Source make_source(Address pixels, std::array<std::int64_t, 3> strides,
                   std::array<std::int32_t, 2> rows, const Filter& horizontal,
                   const Filter& vertical) {
    return {reinterpret_cast<const std::uint8_t*>(pixels),
            strides[0],
            strides[1],
            strides[2],
            rows[0],
            rows[1],
            horizontal,
            vertical};
}

// `sizes` are height, width and channels.
Inputs make_inputs(Address pixels, std::array<std::int32_t, 3> sizes, std::array<float, 3> mean,
                   std::array<float, 3> std_dev) {
    return {reinterpret_cast<void*>(pixels),
            sizes[0],
            sizes[1],
            sizes[2],
            {mean[0], mean[1], mean[2]},
            {std_dev[0], std_dev[1], std_dev[2]}};
}

}  // namespace

void bind(py::module_& module) {
    const auto no_gil = py::call_guard<py::gil_scoped_release>();
    py::class_<Filter>(module, "Filter").def(py::init([](Address table, std::int32_t taps) {
        return Filter{reinterpret_cast<const std::int32_t*>(table), taps};
    }));
    py::class_<Source>(module, "Source").def(py::init(&make_source));
    py::class_<Inputs>(module, "Inputs").def(py::init(&make_inputs));
    module.def(
        "resize_images",
        [](const Launch& launch, const std::vector<Source>& sources, Address workspace,
           const Inputs& inputs) {
            resize_images(launch, sources, reinterpret_cast<void*>(workspace), inputs);
        },
        no_gil);
    module.def(
        "circle_nms",
        [](const Launch& launch, std::int32_t tasks, std::int32_t boxes, std::int32_t max_boxes,
           Address centers, Address valid, Address max_squared_distances, Address kept) {
            circle_nms(launch, tasks, boxes, max_boxes, reinterpret_cast<const float*>(centers),
                       reinterpret_cast<const bool*>(valid),
                       reinterpret_cast<const float*>(max_squared_distances),
                       reinterpret_cast<std::int32_t*>(kept));
        },
        no_gil);
    module.def(
        "size_aware_nms",
        [](const Launch& launch, std::int32_t tasks, std::int32_t boxes, std::int32_t max_boxes,
           Address rectangles, Address valid, Address kept) {
            size_aware_nms(
                launch, tasks, boxes, max_boxes, reinterpret_cast<const float*>(rectangles),
                reinterpret_cast<const bool*>(valid), reinterpret_cast<std::int32_t*>(kept));
        },
        no_gil);
}

}  // namespace bevdepth::detection
