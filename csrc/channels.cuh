// Selects the number type of a channels_last map, and the number of channels that a thread reads
// with one access.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <type_traits>

#include "launch.h"

namespace bevdepth {
namespace {

// Bytes that a thread reads with one access, if the number of channels and the addresses allow it.
constexpr int kBytes = 16;

// V adjacent channels of one pixel, which one access reads or writes.
template <class T, int V>
struct alignas(sizeof(T) * V) Channels {
    T value[V];
};

// Calls `call` with two arguments. The first is a zero of the C++ type of `launch.dtype`; it only
// selects this type. The second is the number of channels that one access reads or writes, as a
// std::integral_constant.
template <class F>
void for_type(const Launch& launch, std::int32_t channels,
              std::initializer_list<const void*> arrays, F call) {
    bool aligned = true;
    for (const void* array : arrays)
        aligned = aligned && reinterpret_cast<std::uintptr_t>(array) % kBytes == 0;
    const auto typed = [&](auto number) {
        using T = decltype(number);
        constexpr int wide = kBytes / sizeof(T);
        if (aligned && channels % wide == 0)
            return call(number, std::integral_constant<int, wide>{});
        call(number, std::integral_constant<int, 1>{});
    };
    switch (launch.dtype) {
        case Dtype::float16:
            return typed(__half{});
        case Dtype::bfloat16:
            return typed(__nv_bfloat16{});
        case Dtype::float32:
            return typed(float{});
        case Dtype::float64:
            break;
    }
    throw std::invalid_argument("the op supports float16, bfloat16 and float32");
}

}  // namespace
}  // namespace bevdepth
