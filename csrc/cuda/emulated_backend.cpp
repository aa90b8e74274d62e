// The CUDA backend on the host, for tests on machines without a GPU.
#include "make_gpu_backend.h"

namespace dpa2md {

std::unique_ptr<Backend> make_emulated_cuda_backend(const Model& model, const std::string& precision,
                                                    bool tables) {
  if (precision == "float32") return std::make_unique<gpu_emulated::GpuBackend<float>>(model, 0, tables);
  return std::make_unique<gpu_emulated::GpuBackend<double>>(model, 0, tables);
}

}  // namespace dpa2md
