#pragma once

#include <pybind11/pybind11.h>

namespace bevdepth::layers {

// Adds the types and functions of layers.h to the Python module.
void bind(pybind11::module_& module);

}  // namespace bevdepth::layers
