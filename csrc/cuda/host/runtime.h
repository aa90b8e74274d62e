// The device of the CUDA backend: memory, and kernels as it runs them. Their starts are in launches.h.
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
// Locked, and at the same address for the device.
inline void* allocate_host(std::size_t bytes) {
  void* p = nullptr;
  if (bytes) check(cudaMallocHost(&p, bytes));
  return p;
}
inline void release_host(void* p) { cudaFreeHost(p); }
inline void copy_to_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}
inline void copy_to_host(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}
inline void zero(void* p, std::size_t bytes) {
  if (bytes) check(cudaMemsetAsync(p, 0, bytes));
}
inline void wait_for_device() { check(cudaDeviceSynchronize()); }

// Of a kernel's items, and where their scratch is if it does not fit into shared memory.
struct Items {
  int begin, end;
  char* slab;
  std::size_t stride;

  bool operator==(const Items& o) const {
    return begin == o.begin && end == o.end && slab == o.slab && stride == o.stride;
  }
};

template <class Kernel>
__global__ void __launch_bounds__(MostThreads<Kernel>::value, LeastBlocks<Kernel>::value)
    run_items(const __grid_constant__ Kernel kernel, const Items items) {
  extern __shared__ __align__(16) char shared[];
  const int t = threadIdx.x;
  const ThreadBlock b{t, static_cast<int>(blockDim.x), t % 32, 32, t / 32, static_cast<int>(blockDim.x) / 32};
  char* scratch = items.slab ? items.slab + blockIdx.x * items.stride : shared;
  for (int item = items.begin + blockIdx.x; item < items.end; item += gridDim.x) {
    kernel(b, item, Scratch(scratch));
    __syncthreads();
  }
}

constexpr std::size_t kSharedUnasked = 48 << 10;  // shared memory that every kernel may have

// Atoms of a chunk (gpu_chunks.h): many enough that the end of a kernel, when few of its blocks still run,
// does not matter.
inline int chunk_atoms() { return 65536; }

}  // namespace gpu
}  // namespace dpa2md
