// The CUDA backend on the host, for tests on machines without a GPU.
#include "cuda/host/make_gpu_backend.h"
#include "engine/devices.h"

namespace dpa2md {

std::unique_ptr<Backend> make_emulated_cuda_backend(const Model& model, Precision precision, int device,
                                                    bool tables) {
  if (precision == Precision::kFloat32)
    return std::make_unique<gpu_emulated::GpuBackend<float>>(model, device, tables);
  return std::make_unique<gpu_emulated::GpuBackend<double>>(model, device, tables);
}

int count_emulated_gpus() { return gpu_emulated::count_gpus(); }
std::string emulated_gpu_identity(int number) {
  gpu_emulated::use_device(number);
  return "emulated " + std::to_string(number);
}

}  // namespace dpa2md
