// The local attention of the g1 update (update_g1_has_attn), forward and backward. With the folded query u_h
// of an atom (Wq Wk^T / sqrt(nd), folding.h):
//   l_jh = gg1_j . u_h     a_jh = softmax_j((l + 20) sw - 20) sw_j     weighted_h = sum_j a_jh gg1_j
// The values' projection and head_map act on `weighted` for a group of atoms (dense.h).
#pragma once

#include "cuda/kernels/crowded.h"
#include "cuda/kernels/dense.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
struct LocalAttention {
  T *logit, *prob, *grad;  // (n, heads)
  SlotShares<T> shares;    // entries: the same
  DPA2MD_KERNEL LocalAttention(Scratch* s, const RepformerView& f, int n, bool back)
      : shares(s, f, 0, n * f.heads1, back) {
    const std::size_t size = f.has_g1_attn ? static_cast<std::size_t>(n) * f.heads1 : 0;
    logit = s->take<T>(size);
    prob = s->take<T>(size);
    grad = s->take<T>(back ? size : 0);
  }
};

// Computes probabilities and raw logits. The N - n empty slots count with l = -20 in the denominator; if
// neighbours exceed the slots, each has a share of a slot (level > 0). Returns the level.
template <class T>
DPA2MD_KERNEL T local_softmax(const ThreadBlock& b, const State<T>& s, int n, const T* sw, Plain<T> gg1,
                              const T* query, const LocalAttention<T>& a) {
  const int heads = s.rep.heads1, width = s.rep.g1;
  const T level = a.shares.find_level(b, s, n, sw);
  const int empty = s.smooth && level == T(0) ? s.repformer.nsel - n : 0;
  gemm(b, n, heads, width, gg1, transposed(query, width), a.logit, heads, false);
  b.each_warp(heads, [&](int h) {
    T top = empty ? T(0) : T(-INFINITY);  // of z + 20 of all that is in the denominator
    for (int j = b.lane; j < n; j += b.lanes) {
      const T l = a.logit[j * heads + h];
      const T above = s.smooth ? (l + T(kAttentionShift)) * sw[j] : l;
      a.prob[j * heads + h] = above;
      top = above > top ? above : top;
    }
    top = b.lane_max(top);
    T sum = 0;
    for (int j = b.lane; j < n; j += b.lanes) {
      const T above = a.prob[j * heads + h], e = a.prob[j * heads + h] = math::exp(above - top);
      sum += level > T(0) ? e * slot_term(above, level * sw[j]).value : e;
    }
    sum = b.lane_sum(sum);
    if (empty) sum += T(empty) * math::exp(-top);
    for (int j = b.lane; j < n; j += b.lanes) a.prob[j * heads + h] /= sum;
  });
  return level;
}

template <class T>
DPA2MD_KERNEL void local_attention(const ThreadBlock& b, const State<T>& s, int n, const T* sw, Plain<T> gg1,
                                   const T* query, const LocalAttention<T>& a, T* weighted) {
  const int heads = s.rep.heads1, width = s.rep.g1;
  local_softmax(b, s, n, sw, gg1, query, a);
  b.each(n * heads, [&](int k) { a.prob[k] *= sw[k / heads]; });
  gemm(b, heads, width, n, transposed(static_cast<const T*>(a.prob), heads), gg1, weighted, width, false);
}

// Adds to dgg1 and dsw, assigns dquery.
template <class T>
DPA2MD_KERNEL void local_attention_backward(const ThreadBlock& b, const State<T>& s, int n, const T* sw,
                                            Plain<T> gg1, const T* query, const T* dweighted,
                                            const LocalAttention<T>& a, T* dquery, T* dgg1, T* dsw) {
  const int heads = s.rep.heads1, width = s.rep.g1;
  const T level = local_softmax(b, s, n, sw, gg1, query, a);
  gemm(b, n, heads, width, gg1, transposed(dweighted, width), a.grad, heads, false);
  // grad: d weight -> d logit; prob -> weight; logit -> the pair's part of d sw
  b.each_warp(heads, [&](int h) {
    T mean = 0;
    for (int j = b.lane; j < n; j += b.lanes) mean += a.grad[j * heads + h] * sw[j] * a.prob[j * heads + h];
    mean = b.lane_sum(mean);
    for (int j = b.lane; j < n; j += b.lanes) {
      const int k = j * heads + h;
      const T p = a.prob[k];
      T taken = mean;
      if (level > T(0)) {
        const SlotTerm<T> y = slot_term((a.logit[k] + T(kAttentionShift)) * sw[j], level * sw[j]);
        taken *= y.of_logit;
        a.shares.gradient[k] = -mean * p * y.of_share;
      }
      const T dz = p * (a.grad[k] * sw[j] - taken);
      a.logit[k] = a.grad[k] * p + (s.smooth ? dz * (a.logit[k] + T(kAttentionShift)) : T(0));
      a.grad[k] = s.smooth ? dz * sw[j] : dz;
      a.prob[k] = p * sw[j];
    }
  });
  b.each(n, [&](int j) {
    for (int h = 0; h < heads; ++h) dsw[j] += a.logit[j * heads + h];
    T* share = a.shares.gradient + j * heads;
    for (int h = 1; level > T(0) && h < heads; ++h) share[0] += share[h];
  });
  if (level > T(0)) a.shares.to_switches(b, n, sw, heads, dsw);
  const T *weight = a.prob, *dlogit = a.grad;
  gemm(b, n, width, heads, plain(weight, heads), plain(dweighted, width), dgg1, width, true);
  gemm(b, n, width, heads, plain(dlogit, heads), plain(query, width), dgg1, width, true);
  gemm(b, heads, width, n, transposed(dlogit, heads), gg1, dquery, width, false);
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
