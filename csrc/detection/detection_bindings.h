#pragma once

#include <pybind11/pybind11.h>

namespace bevdepth::detection {

// Adds the types and functions of detection.h to the Python module.
void bind(pybind11::module_& module);

}  // namespace bevdepth::detection
