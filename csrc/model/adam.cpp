#include "model/adam.h"

#include <algorithm>
#include <cmath>

namespace dpa2md {
namespace {

void change(const AdamStep& s, std::size_t n, double* x, double* m, double* v, const double* g) {
  const double kept = s.decoupled ? 1 - s.rate * s.weight_decay : 1;
  const double added = s.decoupled ? 0 : s.weight_decay;
  const double by_mean = s.rate / (1 - std::pow(s.beta1, s.count));
  const double by_square = 1 / (1 - std::pow(s.beta2, s.count));
#pragma omp simd
  for (std::size_t i = 0; i < n; ++i) {
    const double old = x[i] * kept;
    const double slope = s.factor * g[i] + added * old;
    m[i] = s.beta1 * m[i] + (1 - s.beta1) * slope;
    v[i] = s.beta2 * v[i] + (1 - s.beta2) * (slope * slope);
    x[i] = old - by_mean * m[i] / (std::sqrt(by_square * v[i]) + s.epsilon);
  }
}

}  // namespace

void adam_step(const AdamStep& step, std::size_t n, double* x, double* m, double* v, const double* g) {
  constexpr std::size_t part = 4096;
#pragma omp parallel for schedule(static) if (n > 4 * part)
  for (std::size_t k = 0; k < n; k += part) change(step, std::min(part, n - k), x + k, m + k, v + k, g + k);
}

}  // namespace dpa2md
