// Kernels with one fault each: what the machine must find (test_cuda_ptx.py). Usage: faults NUMBER; 0 is
// none.
#include <cuda_runtime.h>

#include <cstdlib>

// A lane's part of a matrix of 8 rows of 16 bytes.
__device__ int matrix_row(const int* matrix) {
  int out;
  const auto row = static_cast<unsigned>(__cvta_generic_to_shared(matrix + threadIdx.x % 8 * 4));
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(out) : "r"(row) : "memory");
  return out;
}

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
    case 15:
      __syncwarp();
      shared[t] = got;
      got += matrix_row(shared + 32 * warp);  // all of the warp reads what one lane each has written
      break;
    case 16:
      __syncwarp();
      got += matrix_row(shared + 32 * warp);
      shared[t] = got;  // other lanes may still read it
      break;
    case 17:
      if (warp < 2) asm volatile("bar.sync 1, 64;" : : : "memory");
      got += shared[(t + 96) % blockDim.x];  // warps 2 and 3 read what 1 and 2 write
      if (warp < 2) asm volatile("bar.sync 1, 64;" : : : "memory");
      shared[t] = got;
      break;
    case 18:
      if (warp < 2) asm volatile("bar.sync 1, 96;" : : : "memory");
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
