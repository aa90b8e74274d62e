// The local attention of the g1 update (update_g1_has_attn), forward and backward. With the folded query u_h
// of an atom (Wq Wk^T / sqrt(nd), see cpu_backend.cpp):
//   l_jh = gg1_j . u_h     a_jh = softmax_j((l + 20) sw - 20) sw_j     weighted_h = sum_j a_jh gg1_j
// The values' projection and head_map act on `weighted`, for a whole block of atoms at once.
#include <algorithm>
#include <cmath>

#include "cpu/stages/repformer_node.h"
#include "cpu/vector/lanes.h"
#include "cpu/vector/simd_math.h"
#include "model/slot_shares.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// The level of shares (slot_shares.h) of an atom with more neighbours than slots; 0 for other atoms.
template <class T>
T Repformers<T>::level_of(int n, const T* sw) const {
  if (!model_.all_neighbors || !model_.smooth || n <= rep().nsel) return T(0);
  const double level = slot_level(rep().nsel, [&](auto f) {
    double sum = 0;
    for (int k = 0; k < n; ++k) sum += f(double(value_of(sw[k])));
    return sum;
  });
  if constexpr (is_dual<T>) {  // the shares of slots sum to their number whatever sw
    double of_level = 0, of_sw = 0;
    for (int k = 0; k < n; ++k) {
      const double slope = slot_share(level * sw[k].value).slope;
      of_level += slope * sw[k].value, of_sw += slope * level * sw[k].tangent;
    }
    return {Real<T>(level), of_level > 0 ? Real<T>(-of_sw / of_level) : Real<T>(0)};
  } else {
    return T(level);
  }
}

// Adds the shares' gradient to d sw.
template <class T>
void Repformers<T>::slot_shares_backward(int n, const T* sw, T level, const T* dshare, T* dsw) const {
  const T mean = slot_gradient_mean(level, [&](auto f) {
    T sum(0);
    for (int k = 0; k < n; ++k) sum += f(sw[k], dshare[k]);
    return sum;
  });
  for (int k = 0; k < n; ++k) dsw[k] += slot_gradient(level, sw[k], dshare[k], mean);
}

// Raw logits and softmax probabilities, (heads, np) each, of which n are meant in a row. The N - n empty
// slots keep l = -20 in the denominator; of more neighbours than slots each has its share (level > 0).
template <class T>
void Repformers<T>::local_softmax(const Neighborhood& a, T level, const T* u, T* logit, T* prob) {
  const int n = a.n, np = padded(n, lanes<T>()), width = rep().g1_dim;
  const T shift = model_.smooth ? T(kAttentionShift) : T(0);
  const int empty = model_.smooth && value_of(level) == 0 ? rep().nsel - n : 0;
  for (int h = 0; h < rep().attn1_nhead; ++h, logit += np, prob += np) {
    sum_rows<T>(n, [&](int j) { return product_lanes(width, a.gg1 + j * width, u + h * width); }, logit);
    T top = empty ? -shift : T(-INFINITY);  // of all that is in the denominator
    for (int j = 0; j < n; ++j) {
      prob[j] = model_.smooth ? (logit[j] + shift) * a.sw[j] - shift : logit[j];
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
void Repformers<T>::local_attention(const Neighborhood& a, const NodeRow& row, Arena& arena) {
  const int heads = rep().attn1_nhead, width = rep().g1_dim, np = padded(a.n, lanes<T>());
  T* logit = arena.take<T>(static_cast<std::size_t>(heads) * np);
  T* weight = arena.take<T>(static_cast<std::size_t>(heads) * np);
  local_softmax(a, level_of(a.n, a.sw), row.u, logit, weight);
  for (int h = 0; h < heads; ++h) {
    for (int j = 0; j < a.n; ++j) weight[h * np + j] *= a.sw[j];
  }
  gemm(heads, width, a.n, plain<T>(weight, np), a.gg1, width, row.weighted, width, false);
}

// Adds to d gg1 and d sw, assigns d u.
template <class T>
void Repformers<T>::local_attention_backward(const Neighborhood& a, const NodeRow& row, const NodeRow& d,
                                             NeighborhoodGradient* g, Arena& arena) {
  const int n = a.n, np = padded(n, lanes<T>()), heads = rep().attn1_nhead, width = rep().g1_dim;
  T* logit = arena.take<T>(static_cast<std::size_t>(heads) * np);
  T* prob = arena.take<T>(static_cast<std::size_t>(heads) * np);
  T *dweight = arena.take<T>(np), *dshare = arena.zeros<T>(np);
  const T level = level_of(n, a.sw);
  local_softmax(a, level, row.u, logit, prob);
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
      if (model_.smooth) {
        g->sw[j] += dlogit * (l[j] + T(kAttentionShift));
        dlogit *= a.sw[j];
      }
      l[j] = dlogit;
      p[j] *= a.sw[j];
    }
  }
  if (value_of(level) > 0) slot_shares_backward(n, a.sw, level, dshare, g->sw);
  gemm(heads, width, n, plain<T>(logit, np), a.gg1, width, d.u, width, false);
  gemm(n, width, heads, transposed<T>(prob, np), d.weighted, width, g->gg1, width, true);
  gemm(n, width, heads, transposed<T>(logit, np), row.u, width, g->gg1, width, true);
}

#define DPA2MD_INSTANTIATE(T)                                                                                \
  template T Repformers<T>::level_of(int, const T*) const;                                                   \
  template void Repformers<T>::slot_shares_backward(int, const T*, T, const T*, T*) const;                   \
  template void Repformers<T>::local_attention(const Neighborhood&, const NodeRow&, Arena&);                 \
  template void Repformers<T>::local_attention_backward(const Neighborhood&, const NodeRow&, const NodeRow&, \
                                                        NeighborhoodGradient*, Arena&);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)
DPA2MD_INSTANTIATE(Dual<float>)
DPA2MD_INSTANTIATE(Dual<double>)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
