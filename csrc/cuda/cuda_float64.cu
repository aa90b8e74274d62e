// The CUDA backend in float64.
#include "cuda/host/make_gpu_backend.h"

namespace dpa2md {

std::unique_ptr<Backend> make_cuda_float64(const Model& model, int device, bool tables) {
  return std::make_unique<gpu::GpuBackend<double>>(model, device, tables);
}

}  // namespace dpa2md
