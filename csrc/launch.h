// Device, stream and number type with which callers launch a kernel.
#pragma once

#include <cstdint>

namespace bevdepth {

enum class Dtype { float16, bfloat16, float32, float64 };

struct Launch {
    Dtype dtype;
    int device;
    std::uintptr_t stream;
};

}  // namespace bevdepth
