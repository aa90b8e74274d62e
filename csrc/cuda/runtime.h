// The device of the CUDA backend: memory, launches, and what goes wrong in one sentence each.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <string>

#include "../error.h"
#include "block.h"

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
    case cudaErrorInvalidDevice:
      throw Error("there is no GPU of that number: check CUDA_VISIBLE_DEVICES and the device's number.");
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

inline void* allocate(std::size_t bytes) {
  void* p = nullptr;
  if (bytes) check(cudaMalloc(&p, bytes));
  return p;
}
inline void release(void* p) { cudaFree(p); }  // also after a failure, so without a check
inline void copy_to_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}
inline void copy_to_host(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}
inline void wait_for_device() { check(cudaDeviceSynchronize()); }
inline void use_device(int device) {
  int count = 0;
  check(cudaGetDeviceCount(&count));
  if (device >= count) fail(cudaErrorInvalidDevice);
  check(cudaSetDevice(device));
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

template <class Kernel>
__global__ void __launch_bounds__(kThreads)
    run_items(const __grid_constant__ Kernel kernel, int items, char* slab, std::size_t stride) {
  extern __shared__ __align__(16) char shared[];
  const int t = threadIdx.x;
  const ThreadBlock b{t, static_cast<int>(blockDim.x), t % 32, 32, t / 32, static_cast<int>(blockDim.x) / 32};
  char* scratch = slab ? slab + blockIdx.x * stride : shared;
  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    kernel(b, item, Scratch(scratch));
    __syncthreads();
  }
}

// Scratch of the kernels whose items do not fit into shared memory.
class Slab {
 public:
  Slab() = default;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab() { release(data_); }
  char* at_least(std::size_t bytes) {
    if (bytes > size_) {
      release(data_);  // waits for the kernels that use it
      data_ = nullptr, size_ = 0;
      data_ = static_cast<char*>(allocate(bytes));
      size_ = bytes;
    }
    return data_;
  }

 private:
  char* data_ = nullptr;
  std::size_t size_ = 0;
};

// kernel(block, item, scratch) for every item; `bytes` of scratch. Does not wait.
template <class Kernel>
void launch(const Kernel& kernel, int items, std::size_t bytes, Slab* slab) {
  if (items == 0) return;
  const auto run = run_items<Kernel>;
  const std::size_t most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  if (bytes <= most) {
    check(cudaFuncSetAttribute(run, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
    run<<<items, kThreads, bytes>>>(kernel, items, nullptr, 0);
  } else {
    const int blocks = std::min(items, 4 * attribute(cudaDevAttrMultiProcessorCount));
    run<<<blocks, kThreads>>>(kernel, items, slab->at_least(blocks * bytes), bytes);
  }
  check(cudaGetLastError());
}

}  // namespace gpu
}  // namespace dpa2md
