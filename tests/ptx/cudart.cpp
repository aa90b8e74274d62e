// CUDA's run-time library for the machine (machine.h): what the CUDA backend calls of it. Launches and fills
// wait until the host waits for the device, as they may on a GPU.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "machine.h"

namespace {

using ptx::u32;

// An H100's.
constexpr int kSharedBytes = 227 << 10, kSharedBytesUnasked = 48 << 10;
constexpr std::size_t kMemory = std::size_t{4} << 30;

// DPA2MD_PTX_MULTIPROCESSORS: few make kernels believe that a system is large
int multiprocessors() {
  const char* text = std::getenv("DPA2MD_PTX_MULTIPROCESSORS");
  return text ? std::atoi(text) : 132;
}

// DPA2MD_PTX_CALLS: a file for how often what costs time was called, when the program ends
void count_call(const char* function) {
  static std::map<std::string, int> calls;
  static const char* const path = std::getenv("DPA2MD_PTX_CALLS");
  if (path && calls.empty()) {
    std::atexit([] {
      std::ofstream file(path);
      for (const auto& [name, count] : calls) file << name << " " << count << "\n";
    });
  }
  ++calls[function];
}

struct Function {
  std::string name;
  std::size_t shared_bytes = kSharedBytesUnasked;
};

std::map<const void*, Function>& functions() {
  static std::map<const void*, Function> all;
  return all;
}

cudaError_t last_error = cudaSuccess;
cudaError_t lost = cudaSuccess;  // a kernel's error stays
std::deque<std::function<bool()>> queue;

cudaError_t error(cudaError_t e) { return e == cudaSuccess ? e : last_error = e; }

cudaError_t finish() {
  while (!queue.empty()) {
    if (lost == cudaSuccess && !queue.front()()) lost = cudaErrorLaunchFailure;
    queue.pop_front();
  }
  return error(lost);
}

// A kernel with copies of its arguments, as often as it is started.
using Start = std::function<bool()>;

cudaError_t prepare(const void* host, dim3 blocks, dim3 threads, void** arguments, std::size_t shared_bytes,
                    Start* start) {
  const auto at = functions().find(host);
  const ptx::Kernel* kernel = at == functions().end() ? nullptr : ptx::Kernel::find(at->second.name);
  if (!kernel) return error(cudaErrorInvalidDeviceFunction);
  if (threads.x > kernel->most_threads || blocks.x == 0 || shared_bytes > at->second.shared_bytes)
    return error(cudaErrorInvalidValue);
  const auto& sizes = kernel->parameter_bytes;
  std::vector<std::shared_ptr<unsigned char[]>> copies;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    copies.emplace_back(new unsigned char[sizes[k] + 16]);
    std::memcpy(copies.back().get(), arguments[k], sizes[k]);
  }
  *start = [=] {
    std::vector<unsigned char*> parameters;
    for (const auto& c : copies) parameters.push_back(c.get());
    return ptx::launch(*kernel, blocks.x, threads.x, shared_bytes, parameters.data());
  };
  return cudaSuccess;
}

struct Configuration {
  dim3 blocks, threads;
  std::size_t shared_bytes;
} configuration;

}  // namespace

extern "C" {

// ---- what nvcc's host code calls

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {
  functions()[host] = {name};
}
unsigned __cudaPushCallConfiguration(dim3 blocks, dim3 threads, std::size_t shared_bytes, cudaStream_t) {
  configuration = {blocks, threads, shared_bytes};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* blocks, dim3* threads, std::size_t* shared_bytes, void*) {
  *blocks = configuration.blocks, *threads = configuration.threads,
  *shared_bytes = configuration.shared_bytes;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 blocks, dim3 threads, void** arguments,
                               std::size_t shared_bytes, cudaStream_t stream) {
  return cudaLaunchKernel(kernel, blocks, threads, arguments, shared_bytes, stream);
}

// ---- what the backend calls

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return error(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int) {
  std::snprintf(id, length, "0000:00:00.0");
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "PTX run by the host");
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  switch (which) {
    case cudaDevAttrMultiProcessorCount:
      *value = multiprocessors();
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = kSharedBytes;
      return cudaSuccess;
    default:
      return error(cudaErrorInvalidValue);
  }
}
cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute which, int value) {
  if (which != cudaFuncAttributeMaxDynamicSharedMemorySize || value > kSharedBytes)
    return error(cudaErrorInvalidValue);
  functions().at(host).shared_bytes = value;
  return cudaSuccess;
}
// Kernels are not timed, and nothing is known of registers.
cudaError_t cudaEventCreate(cudaEvent_t* event) { return *event = nullptr, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* time, cudaEvent_t, cudaEvent_t) { return *time = 0, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  return *attributes = {}, cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, std::size_t) {
  return *blocks = 1, cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = kMemory, *free = kMemory - ptx::allocated_bytes();
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  if (bytes > kMemory - ptx::allocated_bytes()) return error(cudaErrorMemoryAllocation);
  *p = ptx::allocate(bytes, false);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, std::size_t bytes) {
  return *p = ptx::allocate(bytes, true), cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  finish();
  return error(!p || ptx::release(p) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  count_call(__func__);

  if (const cudaError_t e = finish()) return e;
  const bool up = kind == cudaMemcpyHostToDevice;
  if (up ? !ptx::host_writes(to, bytes) : !ptx::host_reads(from, bytes)) return error(cudaErrorInvalidValue);
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
// Reads the host's memory as late as a GPU may.
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  count_call(__func__);

  if (kind != cudaMemcpyHostToDevice) return error(cudaErrorInvalidValue);
  queue.push_back([=] {
    if (!ptx::host_writes(to, bytes)) return false;
    std::memcpy(to, from, bytes);
    return true;
  });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t) {
  count_call(__func__);

  queue.push_back([=] {
    if (!ptx::host_writes(p, bytes)) return false;
    std::memset(p, value, bytes);
    return true;
  });
  return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void* host, dim3 blocks, dim3 threads, void** arguments,
                             std::size_t shared_bytes, cudaStream_t) {
  count_call(__func__);

  Start start;
  if (const cudaError_t e = prepare(host, blocks, threads, arguments, shared_bytes, &start)) return e;
  queue.push_back(start);
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  count_call(__func__);
  return finish();
}
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
const char* cudaGetErrorName(cudaError_t e) {
  static std::string name;
  return (name = "error " + std::to_string(e)).c_str();
}
const char* cudaGetErrorString(cudaError_t) { return "see above"; }

// ---- graphs

struct CUgraphNode_st {
  std::size_t number;
  const void* host;
  Start start;
  std::vector<std::size_t> after;
};
struct CUgraph_st {
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
};
struct CUgraphExec_st {
  std::vector<CUgraphNode_st> nodes;
};

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) { return *graph = new CUgraph_st, cudaSuccess; }
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                   std::size_t count, const cudaKernelNodeParams* p) {
  count_call(__func__);

  std::unique_ptr<CUgraphNode_st> made(new CUgraphNode_st{graph->nodes.size(), p->func, {}, {}});
  if (const cudaError_t e =
          prepare(p->func, p->gridDim, p->blockDim, p->kernelParams, p->sharedMemBytes, &made->start))
    return e;
  for (std::size_t k = 0; k < count; ++k) made->after.push_back(after[k]->number);
  *node = made.get();
  graph->nodes.push_back(std::move(made));
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* to, cudaGraph_t graph, unsigned long long) {
  count_call(__func__);

  *to = new CUgraphExec_st;
  for (const auto& node : graph->nodes) (*to)->nodes.push_back(*node);
  return cudaSuccess;
}
cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t in, cudaGraphNode_t node,
                                             const cudaKernelNodeParams* p) {
  count_call(__func__);

  if (p->func != node->host) return error(cudaErrorInvalidValue);
  return prepare(p->func, p->gridDim, p->blockDim, p->kernelParams, p->sharedMemBytes,
                 &in->nodes[node->number].start);
}
// In the order in which nodes were added, or with DPA2MD_PTX_GRAPHS=last the last node that may start, =deep
// one that waited for the newest: what does not wait for what it needs gives other numbers then.
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  count_call(__func__);
  const char* text = std::getenv("DPA2MD_PTX_GRAPHS");
  const std::string order = text ? text : "";
  const std::size_t n = graph->nodes.size();
  std::vector<std::size_t> started(n, 0);  // the how-manieth
  for (std::size_t now = 1; now <= n; ++now) {
    const CUgraphNode_st* next = nullptr;
    std::size_t best = 0;
    for (const CUgraphNode_st& node : graph->nodes) {
      std::size_t newest = 0;
      bool ready = started[node.number] == 0;
      for (const std::size_t before : node.after) {
        ready = ready && started[before] > 0;
        newest = std::max(newest, started[before]);
      }
      const std::size_t rank = order == "last" ? node.number : order == "deep" ? newest : 0;
      if (ready && (!next || rank > best)) next = &node, best = rank;
    }
    started[next->number] = now;
    queue.push_back(next->start);
  }
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }

}  // extern "C"
