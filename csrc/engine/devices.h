// Devices, and which of a machine's GPUs a process takes.
#pragma once

#include <string>

namespace dpa2md {

struct Device {
  enum class Kind { kCpu, kCuda, kCudaEmulation };  // the emulation in builds with tests
  Kind kind = Kind::kCpu;
  int number = -1;  // of the GPU; -1: none was named

  bool is_cpu() const { return kind == Kind::kCpu; }
  int gpu() const { return number < 0 ? 0 : number; }
};

// "cpu", "cuda" or "cuda:1".
std::string name(const Device& device);

// Of such a name. Throws Error for anything else, and for a device that this build lacks.
Device parse_device(const std::string& text);

// "CUDA 13.0 for sm_80, sm_90 with PTX", or "" of a build without CUDA.
std::string cuda_build();

// The device of one of several processes on a machine, which count from 0: "cuda" becomes "cuda:N", all GPUs
// in turn; what names a number or no GPU stays as it is. Throws Error without a GPU.
Device device_of_process(const Device& device, int process);

// What tells a device's GPU from the others of its machine, whatever its number is in this process; "" of the
// CPU.
std::string gpu_identity(const Device& device);

// Throws Error unless `number` is below `count`, the number of GPUs that this process sees.
void check_gpu_number(int number, int count);

// Of CUDA, and of its emulation; each defined where the build has it. They throw Error without a GPU.
int count_cuda_gpus();
std::string cuda_gpu_identity(int number);
int count_emulated_gpus();
std::string emulated_gpu_identity(int number);

}  // namespace dpa2md
