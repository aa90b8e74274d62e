// The local attention of the g1 update: repformer_node_attention.h.
#include "cpu/stages/repformer_node_attention.h"

#include <algorithm>
#include <cmath>

#include "cpu/vector/lanes.h"
#include "cpu/vector/simd_math.h"
#include "model/slot_shares.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// Raw logits and softmax probabilities, (heads, np) each, of which n are meant in a row. The N - n empty
// slots keep l = -20 in the denominator; of more neighbours than slots each has its share (level > 0).
template <class T>
void LocalAttention<T>::softmax(const Neighborhood<T>& a, T level, const T* u, T* logit, T* prob) {
  const int n = a.n, np = padded(n, lanes<T>()), width = state_.rep().g1_dim;
  const T shift = state_.model.smooth ? T(kAttentionShift) : T(0);
  const int empty = state_.model.smooth && value_of(level) == 0 ? state_.rep().nsel - n : 0;
  for (int h = 0; h < state_.rep().attn1_nhead; ++h, logit += np, prob += np) {
    sum_rows<T>(n, [&](int j) { return product_lanes(width, a.gg1 + j * width, u + h * width); }, logit);
    T top = empty ? -shift : T(-INFINITY);  // of all that is in the denominator
    for (int j = 0; j < n; ++j) {
      prob[j] = state_.model.smooth ? (logit[j] + shift) * a.sw[j] - shift : logit[j];
      top = std::max(top, prob[j]);
    }
    T total = empty ? T(empty) * math::exp(-shift - top) : T(0);
    for_lanes<T>(
        n, [&](int j, auto w) { store<w>(prob + j, exp_lanes<w>(load<w>(prob + j) - spread<w>(top))); });
    total += value_of(level) > 0 ? T(0) : sum(n, prob);
    for (int j = 0; value_of(level) > 0 && j < n; ++j)
      total += prob[j] * slot_term((logit[j] + shift) * a.sw[j], level * a.sw[j]).value;
    for (int j = 0; j < n; ++j) prob[j] /= total;
  }
}

template <class T>
void LocalAttention<T>::forward(const Neighborhood<T>& a, const NodeRow<T>& row, Arena& arena) {
  const int heads = state_.rep().attn1_nhead, width = state_.rep().g1_dim, np = padded(a.n, lanes<T>());
  T* logit = arena.take<T>(static_cast<std::size_t>(heads) * np);
  T* weight = arena.take<T>(static_cast<std::size_t>(heads) * np);
  softmax(a, state_.level_of(a.n, a.sw), row.u, logit, weight);
  for (int h = 0; h < heads; ++h) {
    for (int j = 0; j < a.n; ++j) weight[h * np + j] *= a.sw[j];
  }
  gemm(heads, width, a.n, plain<T>(weight, np), a.gg1, width, row.weighted, width, false);
}

template <class T>
void LocalAttention<T>::backward(const Neighborhood<T>& a, const NodeRow<T>& row, const NodeRow<T>& d,
                                 NeighborhoodGradient<T>* g, Arena& arena) {
  const int n = a.n, np = padded(n, lanes<T>()), heads = state_.rep().attn1_nhead,
            width = state_.rep().g1_dim;
  T* logit = arena.take<T>(static_cast<std::size_t>(heads) * np);
  T* prob = arena.take<T>(static_cast<std::size_t>(heads) * np);
  T *dweight = arena.take<T>(np), *dshare = arena.zeros<T>(np);
  const T level = state_.level_of(n, a.sw);
  softmax(a, level, row.u, logit, prob);
  for (int h = 0; h < heads; ++h) {
    const T* dweighted = d.weighted + h * width;
    T *p = prob + h * np, *l = logit + h * np;
    sum_rows<T>(n, [&](int j) { return product_lanes(width, a.gg1 + j * width, dweighted); }, dweight);
    T mean(0);
    for (int j = 0; j < n; ++j) mean += dweight[j] * a.sw[j] * p[j];
    for (int j = 0; j < n; ++j) {  // p becomes the weight, l the gradient of the logit
      T taken = mean;
      if (value_of(level) > 0) {
        const SlotTerm<T> y = slot_term((l[j] + T(kAttentionShift)) * a.sw[j], level * a.sw[j]);
        taken *= y.of_logit;
        dshare[j] -= mean * p[j] * y.of_share;
      }
      T dlogit = p[j] * (dweight[j] * a.sw[j] - taken);
      g->sw[j] += dweight[j] * p[j];
      if (state_.model.smooth) {
        g->sw[j] += dlogit * (l[j] + T(kAttentionShift));
        dlogit *= a.sw[j];
      }
      l[j] = dlogit;
      p[j] *= a.sw[j];
    }
  }
  if (value_of(level) > 0) state_.slot_shares_backward(n, a.sw, level, dshare, g->sw);
  gemm(heads, width, n, plain<T>(logit, np), a.gg1, width, d.u, width, false);
  gemm(n, width, heads, transposed<T>(prob, np), d.weighted, width, g->gg1, width, true);
  gemm(n, width, heads, transposed<T>(logit, np), row.u, width, g->gg1, width, true);
}

template class LocalAttention<float>;
template class LocalAttention<double>;
template class LocalAttention<Dual<float>>;
template class LocalAttention<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
