// Devices, and the choice of a process's GPU.
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

// Reads such a name. Throws Error for anything else; whether this build has the device shows where it is
// used.
Device parse_device(const std::string& text);

// "CUDA 13.0 for sm_80, sm_90 with PTX", or "" of a build without CUDA.
std::string cuda_build();

// The device of process number `process`, from 0, on a machine: "cuda" becomes "cuda:N", with N round-robin
// over the GPUs; other devices stay. Throws Error without a GPU.
Device device_of_process(const Device& device, int process);

// An identifier of the device's GPU, unique on its machine and the same in every process; "" for the CPU.
std::string gpu_identity(const Device& device);

// Throws Error unless `number` is below `count`, the number of GPUs that this process sees.
void check_gpu_number(int number, int count);

// The GPUs of CUDA and of its emulation; each defined if the build has it. They throw Error without a GPU.
int count_cuda_gpus();
std::string cuda_gpu_identity(int number);
int count_emulated_gpus();
std::string emulated_gpu_identity(int number);

}  // namespace dpa2md
