#pragma once

#include <pybind11/pybind11.h>

namespace bevdepth::stereo {

// Adds the types and functions of stereo.h to the Python module.
void bind(pybind11::module_& module);

}  // namespace bevdepth::stereo
