#pragma once

#include <pybind11/pybind11.h>

namespace bevdepth::detection {

// Adds what detection.h declares to the Python module.
void bind(pybind11::module_& module);

}  // namespace bevdepth::detection
