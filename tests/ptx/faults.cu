// Kernels with one fault each: what the machine must find (test_cuda_ptx.py). Usage: faults NUMBER; 0 is
// none.
#include <cuda_runtime.h>

#include <cstdlib>

__global__ void kernel(int fault, int* memory, int n) {
  extern __shared__ int shared[];
  const int t = threadIdx.x, warp = t / 32, lane = t % 32;
  memory[blockIdx.x * blockDim.x + t] = t;
  shared[t] = t;
  __syncthreads();
  int got = shared[t ^ 32];  // of another warp
  __syncthreads();
  shared[t] = got;
  __syncwarp();
  got += shared[t ^ 1];  // of another lane
  switch (fault) {
    case 1:
      got += memory[n + t];
      break;  // reads outside
    case 2:
      memory[n + t] = got;
      break;  // writes outside
    case 3:
      shared[blockDim.x + t] = got;
      break;  // of shared memory
    case 4:
      got += *(const int*)((const char*)memory + 4 * t + 2);
      break;  // unaligned
    case 5:
      got += memory[n - 1 - t];
      break;  // never written
    case 6:
      got += shared[t ^ 64];
      break;  // of another warp, no barrier
    case 7:
      shared[lane] = got;
      break;  // by all warps
    case 8:
      shared[t] = got;
      break;  // another lane may still read it
    case 9:
      __syncwarp();
      shared[t] = got;
      got += __shfl_xor_sync(0xffffffffu, got, 1);  // orders nothing
      got += shared[t ^ 1];
      break;
    case 10:
      memory[t] = got;
      break;  // by all blocks
    case 11:
      if (warp == 0) __syncthreads();
      break;
    case 12:
      if (lane < 16) __syncwarp();
      break;
    case 13:
      if (t == 0) *(volatile char*)memory = 1;  // beside an atomic of another block
      atomicAdd(memory, 1);
      break;
    default:
      break;
  }
  __syncthreads();
  memory[blockIdx.x * blockDim.x + t] = got;
}

int main(int argc, char** argv) {
  const int blocks = 2, threads = 128, n = 2 * blocks * threads;
  const int fault = argc > 1 ? std::atoi(argv[1]) : 0;
  int* memory;
  cudaMalloc(&memory, n * sizeof(int));
  kernel<<<blocks, threads, threads * sizeof(int)>>>(fault, memory, n);
  const cudaError_t error = cudaDeviceSynchronize();
  int all[n];
  const bool read = cudaMemcpy(all, memory, (fault == 14 ? n : n / 2) * sizeof(int), cudaMemcpyDeviceToHost);
  return error != cudaSuccess || read;
}
