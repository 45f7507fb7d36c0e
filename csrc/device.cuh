// Converts CUDA errors to exceptions, and selects the device of a launch.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace bevdepth {
namespace {

// Throws std::runtime_error if `status` is an error. The message contains `what`, which describes
// the failed call.
void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // clears the error; otherwise the next launch would report it again
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

class DeviceGuard {
  public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        check(cudaSetDevice(device), "cudaSetDevice");
    }
    ~DeviceGuard() { cudaSetDevice(before_); }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int before_ = 0;
};

}  // namespace
}  // namespace bevdepth
