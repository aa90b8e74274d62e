// The local attention of the g1 update (update_g1_has_attn), forward and backward. With the folded query u_h
// of an atom (Wq Wk^T / sqrt(nd), see cpu_backend.cpp):
//   l_jh = gg1_j . u_h     a_jh = softmax_j((l + 20) sw - 20) sw_j     weighted_h = sum_j a_jh gg1_j
// The values' projection and head_map act on `weighted`, for a whole block of atoms at once.
#include <algorithm>
#include <cmath>

#include "repformer_node.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// Softmax probabilities (n, heads) and the raw logits. The N - n empty slots keep l = -20 in the denominator.
template <class T>
void CpuBackend<T>::local_softmax(const Neighborhood& a, const T* u, T* logit, T* prob) {
  const int heads = rep().attn1_nhead, width = rep().g1_dim;
  const bool smooth = model_.smooth;
  const int empty = smooth ? rep().nsel - a.n : 0;
  for (int h = 0; h < heads; ++h) {
    T top = empty ? T(-kAttentionShift) : T(-INFINITY);  // of all that is in the denominator
    for (int j = 0; j < a.n; ++j) {
      const T l = logit[j * heads + h] =
          dot(width, a.gg1 + static_cast<std::size_t>(j) * width, u + h * width);
      prob[j * heads + h] = smooth ? (l + T(kAttentionShift)) * a.sw[j] - T(kAttentionShift) : l;
      top = std::max(top, prob[j * heads + h]);
    }
    T sum = empty ? T(empty) * std::exp(T(-kAttentionShift) - top) : T(0);
    for (int j = 0; j < a.n; ++j) sum += prob[j * heads + h] = std::exp(prob[j * heads + h] - top);
    for (int j = 0; j < a.n; ++j) prob[j * heads + h] /= sum;
  }
}

template <class T>
void CpuBackend<T>::local_attention(const Neighborhood& a, const NodeRow& row, Arena& arena) {
  const int heads = rep().attn1_nhead, width = rep().g1_dim;
  T* logit = arena.take<T>(static_cast<std::size_t>(a.n) * heads);
  T* weight = arena.take<T>(static_cast<std::size_t>(a.n) * heads);
  local_softmax(a, row.u, logit, weight);
  for (int k = 0; k < a.n * heads; ++k) weight[k] *= a.sw[k / heads];
  gemm(heads, width, a.n, transposed(weight, heads), a.gg1, width, row.weighted, width, false);
}

// Adds to d gg1, assigns d u.
template <class T>
void CpuBackend<T>::local_attention_backward(const Neighborhood& a, const NodeRow& row, const NodeRow& d,
                                             NeighborhoodGradient* g, Arena& arena) {
  const int heads = rep().attn1_nhead, width = rep().g1_dim;
  T* logit = arena.take<T>(static_cast<std::size_t>(a.n) * heads);
  T* prob = arena.take<T>(static_cast<std::size_t>(a.n) * heads);
  T* dprob = arena.take<T>(a.n);
  local_softmax(a, row.u, logit, prob);
  std::fill_n(d.u, static_cast<std::size_t>(heads) * width, T(0));
  for (int h = 0; h < heads; ++h) {
    const T* u = row.u + h * width;
    const T* dweighted = d.weighted + h * width;
    T mean = 0;
    for (int j = 0; j < a.n; ++j) {
      const T dweight = dot(width, a.gg1 + static_cast<std::size_t>(j) * width, dweighted);
      const T p = prob[j * heads + h];
      g->sw[j] += dweight * p;
      dprob[j] = dweight * a.sw[j];
      mean += dprob[j] * p;
    }
    for (int j = 0; j < a.n; ++j) {
      const T p = prob[j * heads + h];
      T dlogit = p * (dprob[j] - mean);
      if (model_.smooth) {
        g->sw[j] += dlogit * (logit[j * heads + h] + T(kAttentionShift));
        dlogit *= a.sw[j];
      }
      const T* x = a.gg1 + static_cast<std::size_t>(j) * width;
      T* dx = g->gg1 + static_cast<std::size_t>(j) * width;
      axpy(width, p * a.sw[j], dweighted, dx);
      axpy(width, dlogit, u, dx);
      axpy(width, dlogit, x, d.u + h * width);
    }
  }
}

#define DPA2MD_INSTANTIATE(T)                                                                                \
  template void CpuBackend<T>::local_attention(const Neighborhood&, const NodeRow&, Arena&);                 \
  template void CpuBackend<T>::local_attention_backward(const Neighborhood&, const NodeRow&, const NodeRow&, \
                                                        NeighborhoodGradient*, Arena&);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
