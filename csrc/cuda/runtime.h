// The device of the CUDA backend: memory and launches.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "block.h"
#include "gpus.h"

namespace dpa2md {
namespace gpu {

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
