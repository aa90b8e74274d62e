// The device of the CUDA backend: its memory, and run_items, which runs every kernel. launches.h launches it.
#pragma once

#include <cuda_runtime.h>

#include "cuda/block/block.h"
#include "cuda/host/gpus.h"

namespace dpa2md {
namespace gpu {

inline void* allocate(std::size_t bytes) {
  void* p = nullptr;
  if (bytes) check(cudaMalloc(&p, bytes));
  return p;
}
inline void release(void* p, std::size_t) { cudaFree(p); }  // also after a failure, so without a check
// Allocates page-locked host memory, which the device sees at the same address.
inline void* allocate_host(std::size_t bytes) {
  void* p = nullptr;
  if (bytes) check(cudaMallocHost(&p, bytes));
  return p;
}
inline void release_host(void* p) { cudaFreeHost(p); }
inline void copy_to_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}
// Copies after all earlier launches, without waiting. `from` is memory of allocate_host and must not change
// until wait_for_device().
inline void copy_to_device_later(void* to, const void* from, std::size_t bytes) {
  if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice));
}
inline void copy_to_host(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}
inline void zero(void* p, std::size_t bytes) {
  if (bytes) check(cudaMemsetAsync(p, 0, bytes));
}
inline void wait_for_device() { check(cudaDeviceSynchronize()); }

// The items of a launch, and its scratch in global memory: `slab`, `stride` bytes per block; null: the
// scratch is in shared memory.
struct Items {
  int begin, end;
  char* slab;
  std::size_t stride;

  bool operator==(const Items& o) const {
    return begin == o.begin && end == o.end && slab == o.slab && stride == o.stride;
  }
};

template <class Kernel>
__global__ void __launch_bounds__(MostThreads<Kernel>::value, MinBlocks<Kernel>::value)
    run_items(const __grid_constant__ Kernel kernel, const Items items) {
  extern __shared__ __align__(16) char shared[];
  const int t = threadIdx.x;
  const ThreadBlock b{t, static_cast<int>(blockDim.x), t % 32, 32, t / 32, static_cast<int>(blockDim.x) / 32};
  if constexpr (MayHaveNone<Kernel>::value) {
    if (kernel.none_left()) return;
  }
  char* scratch = items.slab ? items.slab + blockIdx.x * items.stride : shared;
  for (int item = items.begin + blockIdx.x; item < items.end; item += gridDim.x) {
    kernel(b, item, Scratch(scratch));
    __syncthreads();
  }
}

constexpr std::size_t kSharedUnasked = 48 << 10;  // shared memory that every kernel may have

// Atoms of a chunk (chunks.h): enough that a kernel's tail of few running blocks costs little.
inline int chunk_atoms() { return 65536; }

}  // namespace gpu
}  // namespace dpa2md
