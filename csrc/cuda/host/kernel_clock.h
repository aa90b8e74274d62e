// Times every kernel with two CUDA events.
#pragma once

#include <cxxabi.h>

#include <cstdlib>
#include <map>
#include <string>
#include <typeinfo>
#include <vector>

#include "cuda/host/gpus.h"
#include "engine/backend.h"

namespace dpa2md {
namespace gpu {

// "PairStep" of dpa2md::gpu::PairStep<float>; further template arguments stay.
template <class Kernel>
std::string kernel_name() {
  int status = 0;
  char* text = abi::__cxa_demangle(typeid(Kernel).name(), nullptr, nullptr, &status);
  std::string name = status == 0 ? text : typeid(Kernel).name();
  std::free(text);
  const auto remove = [&](const std::string& part) {
    for (auto at = name.find(part); at != std::string::npos; at = name.find(part))
      name.erase(at, part.size());
  };
  for (const char* part : {"dpa2md::gpu::", "<float>", "<double>", "float, ", "double, "}) remove(part);
  return name;
}

class KernelClock {
 public:
  KernelClock() = default;
  KernelClock(const KernelClock&) = delete;
  KernelClock& operator=(const KernelClock&) = delete;
  ~KernelClock() {
    for (const Launch& launch : launches_) forget(launch);
  }

  // Times start(), which launches the kernel.
  template <class Kernel, class Start>
  void time(const void* function, int blocks, int threads, std::size_t shared, Start start) {
    KernelTime& k = kernels_[function];
    if (k.name.empty()) k.name = kernel_name<Kernel>();
    Launch launch{&k, nullptr, nullptr};
    k.blocks = blocks, k.threads = threads, k.shared_bytes = shared;
    check(cudaEventCreate(&launch.begin));
    check(cudaEventCreate(&launch.end));
    check(cudaEventRecord(launch.begin));
    start();
    check(cudaEventRecord(launch.end));
    launches_.push_back(launch);
  }

  std::vector<KernelTime> take() {
    check(cudaDeviceSynchronize());
    for (const Launch& launch : launches_) {
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, launch.begin, launch.end));
      launch.kernel->seconds += 1e-3 * milliseconds;
      ++launch.kernel->launches;
      forget(launch);
    }
    launches_.clear();
    std::vector<KernelTime> out;
    for (auto& [function, kernel] : kernels_) {
      describe(function, &kernel);
      out.push_back(kernel);
    }
    kernels_.clear();
    return out;
  }

 private:
  struct Launch {
    KernelTime* kernel;
    cudaEvent_t begin, end;
  };

  static void forget(const Launch& launch) {  // also after a failure, so without a check
    cudaEventDestroy(launch.begin);
    cudaEventDestroy(launch.end);
  }
  // Adds the kernel's registers, local memory and occupancy.
  static void describe(const void* function, KernelTime* time) {
    cudaFuncAttributes a = {};
    check(cudaFuncGetAttributes(&a, function));
    time->registers = a.numRegs;
    time->local_bytes = a.localSizeBytes;
    int blocks = 0;
    check(
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, time->threads, time->shared_bytes));
    time->occupancy =
        static_cast<double>(blocks) * time->threads / attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  }

  std::map<const void*, KernelTime> kernels_;
  std::vector<Launch> launches_;
};

}  // namespace gpu
}  // namespace dpa2md
