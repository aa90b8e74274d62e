// What users call a device, and which of a machine's GPUs a process takes.
#pragma once

#include <string>

namespace dpa2md {

struct DeviceName {
  std::string kind;  // "cpu" or "cuda"; "cuda-emulation" in builds with tests
  int number = -1;   // of the GPU; -1: none was named
};

// "CUDA 13.0 for sm_80, sm_90 with PTX", or "" of a build without CUDA.
std::string cuda_build();

// Reads "cpu", "cuda" or "cuda:1". Throws Error for anything else, and for a device that this build lacks.
DeviceName parse_device(const std::string& name);

// The device of one of several processes on a machine, which count from 0: "cuda" becomes "cuda:N", all GPUs
// in turn; what names a number or no GPU stays as it is. Throws Error as parse_device, and without a GPU.
std::string device_of_process(const std::string& name, int process);

// What tells a device's GPU from the others of its machine, whatever its number is in this process; "" for
// "cpu".
std::string gpu_identity(const std::string& name);

// Throws Error unless `number` is below `count`, the number of GPUs that this process sees.
void check_gpu_number(int number, int count);

// Of CUDA, and of its emulation; each defined where the build has it. They throw Error without a GPU.
int count_cuda_gpus();
std::string cuda_gpu_identity(int number);
int count_emulated_gpus();
std::string emulated_gpu_identity(int number);

}  // namespace dpa2md
