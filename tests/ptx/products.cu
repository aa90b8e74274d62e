// Products of the dense steps (csrc/cuda/kernels/dense_product.h) on the machine, in every tiling, compared
// with doubles. Usage: products; prints for each the largest error, of the sum of |x w|, and the mean one.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "cuda/host/runtime.h"
#include "cuda/kernels/dense_steps.h"

using namespace dpa2md;
using namespace dpa2md::gpu;

namespace {

template <class U>
U* on_device(const std::vector<U>& x) {
  U* p = static_cast<U*>(allocate(x.size() * sizeof(U)));
  copy_to_device(p, x.data(), x.size() * sizeof(U));
  return p;
}

template <class Kernel>
void start(const Kernel& kernel, int threads) {
  Scratch bytes(nullptr);
  kernel.arrays(&bytes, 0);
  Items items{0, kernel.items(), nullptr, 0};
  void* arguments[] = {const_cast<Kernel*>(&kernel), &items};
  const auto function = reinterpret_cast<const void*>(run_items<Kernel>);
  check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes.used())));
  check(cudaLaunchKernel(function, dim3(items.end), dim3(threads), arguments, bytes.used(), nullptr));
  wait_for_device();
}

void compare(int rows, int k, int n) {
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  std::vector<float> x(rows * k);
  for (float& v : x) v = float(normal(generator) * std::pow(10.0, normal(generator)));
  std::vector<double> w(k * n);
  for (double& v : w) v = normal(generator);
  const HostWeight split = split_weight(w.data(), k, n);
  const SplitWeight weight{on_device(split.fragments), on_device(split.scale), k, n};
  const float* dx = on_device(x);
  const auto print = [&](const char* name, auto run) {
    std::vector<float> y(rows * n, 1.0f);
    float* dy = on_device(y);
    run(PlainProduct{0, rows, weight, dx, dy, true});
    copy_to_host(y.data(), dy, y.size() * sizeof(float));
    double worst = 0, mean = 0;
    for (int e = 0; e < rows * n; ++e) {
      double sum = 1, size = 1;
      for (int p = 0; p < k; ++p) {
        const double term = double(x[e / n * k + p]) * w[p * n + e % n];
        sum += term, size += std::fabs(term);
      }
      const double error = (y[e] - sum) / size;
      worst = std::fabs(error) <= worst ? worst : std::fabs(error);
      mean += error / y.size();
    }
    std::printf("%g %g %s of %d x %d x %d\n", worst, mean, name, rows, k, n);
  };
  for (const bool resident : {false, true}) {
    const auto tiled = [&](auto kernel) { start(kernel, kThreads); };
    const int parts = resident || weight.tiles() == 1 ? 1 : 2, stages = weight.stages();
    print("2", [&](auto op) { tiled(TiledProduct<2, PlainProduct>{op, parts, resident, stages}); });
    print("3", [&](auto op) { tiled(TiledProduct<3, PlainProduct>{op, parts, resident, stages}); });
    print("4", [&](auto op) { tiled(TiledProduct<4, PlainProduct>{op, parts, resident, stages}); });
  }
  for (const int threads : {kThreads, kDenseThreads})
    print("small", [&](auto op) { start(SmallProduct<PlainProduct>{op}, threads); });
}

}  // namespace

int main() {
  compare(5, 128, 128);
  compare(70, 136, 240);
  compare(33, 76, 40);
}
