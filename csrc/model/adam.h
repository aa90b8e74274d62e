// One step of Adam (Kingma and Ba, arXiv 1412.6980) or AdamW (Loshchilov and Hutter, arXiv 1711.05101).
#pragma once

#include <cstddef>

namespace dpa2md {

struct AdamStep {
  double rate, beta1, beta2, epsilon;
  double weight_decay;
  bool decoupled;  // AdamW: the decay is apart from the gradient
  double factor;   // of the gradient, before all else
  int count;       // how many steps these numbers have had, with this one
};

// Changes x and its moments m and v, all (n); g (n) is the gradient. In OpenMP's threads, whose number does
// not matter to the last bit.
void adam_step(const AdamStep& step, std::size_t n, double* x, double* m, double* v, const double* g);

}  // namespace dpa2md
