// How callers say where and on what type of numbers a kernel runs.
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
