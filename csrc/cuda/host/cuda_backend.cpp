// The CUDA backend in either precision. Each is compiled in its own file, since each takes a minute.
#include "cuda/host/gpus.h"
#include "engine/backend.h"

namespace dpa2md {

std::unique_ptr<Backend> make_cuda_float32(const Model& model, int device, bool tables);
std::unique_ptr<Backend> make_cuda_float64(const Model& model, int device, bool tables);

std::unique_ptr<Backend> make_cuda_backend(const Model& model, Precision precision, int device, bool tables) {
  return precision == Precision::kFloat32 ? make_cuda_float32(model, device, tables)
                                          : make_cuda_float64(model, device, tables);
}

int count_cuda_gpus() { return gpu::count_gpus(); }
std::string cuda_gpu_identity(int number) {
  char bus[32] = "";
  gpu::use_device(number);
  gpu::check(cudaDeviceGetPCIBusId(bus, sizeof(bus), number));
  return bus;
}

}  // namespace dpa2md
