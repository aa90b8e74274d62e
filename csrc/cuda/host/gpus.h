// The GPUs of this machine: their number, the one in use, its free memory, and an error message of one
// sentence for each failure.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "base/error.h"
#include "engine/devices.h"

namespace dpa2md {
namespace gpu {

[[noreturn]] inline void fail(cudaError_t error) {
  const std::string built =
      std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
  switch (error) {
    case cudaErrorInsufficientDriver: {
      int driver = 0;
      cudaDriverGetVersion(&driver);
      throw Error(
          driver == 0
              ? "device \"cuda\" needs an NVIDIA driver, and none is installed: install one for CUDA " +
                    built + " or newer, or use device \"cpu\"."
              : "the NVIDIA driver is for CUDA " + std::to_string(driver / 1000) +
                    " but this dpa2md needs CUDA " + built +
                    ": install a newer driver, or use device \"cpu\".");
    }
    case cudaErrorNoDevice:
      throw Error(
          "no NVIDIA GPU was found: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use device \"cpu\".");
    case cudaErrorMemoryAllocation:
      throw Error(
          "the GPU has not enough memory for this many atoms: use fewer atoms, more GPUs or precision "
          "float32.");
    case cudaErrorNoKernelImageForDevice:
      throw Error(
          "this dpa2md was not built for this GPU's architecture: build it with CMAKE_CUDA_ARCHITECTURES set "
          "to it.");
    default:
      throw Error(
          std::string("the GPU failed (") + cudaGetErrorName(error) + ": " + cudaGetErrorString(error) +
          "): results of this step are lost; start again, with compute-sanitizer if it happens once more.");
  }
}
inline void check(cudaError_t error) {
  if (error != cudaSuccess) fail(error);
}

inline int count_gpus() {
  int count = 0;
  check(cudaGetDeviceCount(&count));
  if (count == 0) fail(cudaErrorNoDevice);
  return count;
}
inline void use_device(int number) {
  check_gpu_number(number, count_gpus());
  check(cudaSetDevice(number));
}
inline int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&value, which, device));
  return value;
}
inline std::size_t free_memory() {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total));
  return free;
}
inline std::string device_name(int device) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device));
  return properties.name;
}

}  // namespace gpu
}  // namespace dpa2md
