// The gated attention of g2 (update_g2_has_attn) and the h2 update that shares its map, forward and backward.
// Folded per head (folding.h): M = Wq Wk^T / sqrt(hidden), V = Wv Wo. With hh_jk = h2_j . h2_k, ww_jk = sw_j
// sw_k:
//   l = (g2 M) g2^T      p = softmax_k(z), z = (l [hh] + 20) ww - 20      A = p ww hh / sqrt(3)
//   out = layernorm(sum_h (A_h g2) V_h + b)      h2' = alpha h2 + s sum_h w_h A_h h2
// The reverse sweep recomputes the maps, one head at a time, so that they fit into shared memory.
#pragma once

#include "cuda/kernels/crowded.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// The pair state of an atom in scratch.
template <class T>
struct PairScratch {
  int n, ld;
  std::int64_t q0 = 0;   // first pair in the repformers' prefix
  T *g2, *h2, *sw, *hh;  // (n, ld), (n, 3), (n), (n, spread(n)) with attention
  DPA2MD_KERNEL PairScratch(Scratch* s, int n, int ld, bool attends)
      : n(n),
        ld(ld),
        g2(s->take<T>(static_cast<std::size_t>(n) * ld)),
        h2(s->take<T>(static_cast<std::size_t>(n) * 3)),
        sw(s->take<T>(n)),
        hh(s->take<T>(attends ? static_cast<std::size_t>(n) * spread(n) : 0)) {}

  DPA2MD_KERNEL void directions_met(const ThreadBlock& b) const {
    const int ldn = spread(n);
    b.each_of(n, n, [&](int, int j, int k) {
      const T *u = h2 + 3 * j, *v = h2 + 3 * k;
      hh[j * ldn + k] = u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
    });
  }
};

template <class T>
struct Attention {
  int ldn;
  T *map, *norm, *rstd;  // (n, ldn) A of a head; (n, ld) the layer norm's normalised input; (n)
  T *logit, *prob;       // (n, ldn), for the reverse sweep
  T *dhh, *dww;          // (n, ldn), over all heads
  SlotShares<T> shares;
  DPA2MD_KERNEL Attention(Scratch* s, const RepformerView& f, int n, int ld, bool back)
      : shares(s, f, n, n, back) {
    const bool any = f.has_g2_attn || f.update_h2;
    ldn = spread(n);
    const std::size_t square = any ? static_cast<std::size_t>(n) * ldn : 0;
    const std::size_t row = any ? static_cast<std::size_t>(n) * ld : 0;
    map = s->take<T>(square);
    norm = s->take<T>(row);
    rstd = s->take<T>(n);
    logit = s->take<T>(back ? square : 0);
    prob = s->take<T>(back ? square : 0);
    dhh = s->take<T>(back ? square : 0);
    dww = s->take<T>(back ? square : 0);
  }
};

// Computes the map of head h. Overwrites `query` (n, ld); stores logit and prob unless they are null.
// `level`: of the shares of slots (slot_shares.h), or 0.
template <class T>
DPA2MD_KERNEL void attention_map(const ThreadBlock& b, const State<T>& s, const LayerView<T>& w, int h,
                                 const PairScratch<T>& x, T level, T* query, T* logit, T* prob, T* map,
                                 int ldn) {
  const int n = x.n, d = s.rep.g2;
  const T *g2 = x.g2, *q = query;
  gemm(b, n, d, d, plain(g2, x.ld), w.attn2_map[h], query, x.ld, false);
  gemm(b, n, n, d, plain(q, x.ld), transposed(g2, x.ld), map, ldn, false);
  const T shift = T(kAttentionShift), inv_sqrt3 = T(0.57735026918962576451);
  const int empty = s.smooth && level == T(0) ? s.repformer.nsel - n : 0;
  b.each_group(n, [&](int j, bool inside) {
    T* row = map + j * ldn;
    const T *hh = x.hh + j * ldn, sw = x.sw[j];
    const int end = inside ? n : 0, first = b.group_lane(), step = b.group_lanes();
    T top = empty ? T(0) : T(-INFINITY);  // of z + 20, as in the row
    for (int k = first; k < end; k += step) {
      const T l = row[k], gated = s.rep.gate ? l * hh[k] : l;
      if (logit) logit[j * ldn + k] = l;
      const T above = s.smooth ? (gated + shift) * (sw * x.sw[k]) : gated;
      row[k] = above;
      top = above > top ? above : top;
    }
    top = b.group_max(top);
    T sum = 0;
    for (int k = first; k < end; k += step) {
      const T above = row[k], e = row[k] = math::exp(above - top);
      sum += level > T(0) ? e * slot_term(above, level * x.sw[k]).value : e;
    }
    sum = b.group_sum(sum);
    if (empty) sum += T(empty) * math::exp(-top);
    const T inv = T(1) / sum, scale = sw * inv_sqrt3;
    for (int k = first; k < end; k += step) {
      const T p = row[k] * inv;
      if (prob) prob[j * ldn + k] = p;
      row[k] = p * (scale * x.sw[k]) * hh[k];
    }
  });
}

// Adds head h's (A g2) V to `norm`; overwrites applied (n, ld).
template <class T>
DPA2MD_KERNEL void attention_value(const ThreadBlock& b, const State<T>& s, const LayerView<T>& w, int h,
                                   const PairScratch<T>& x, const Attention<T>& a, T* applied) {
  const int n = x.n, d = s.rep.g2;
  const T *map = a.map, *y = applied;
  gemm(b, n, d, n, plain(map, a.ldn), plain(static_cast<const T*>(x.g2), x.ld), applied, x.ld, false);
  gemm(b, n, d, d, plain(y, x.ld), w.attn2_value[h], a.norm, x.ld, true);
}

// A layer's attention, kept for the reverse sweep; null if memory was short: the reverse sweep recomputes it.
template <class T>
struct KeptAttention {
  T *norm, *rstd;  // (repformer pairs, g2), (repformer pairs)

  DPA2MD_KERNEL void keep(const ThreadBlock& b, const PairScratch<T>& x, const Attention<T>& a, int d) const {
    b.each_of(x.n, d, [&](int k, int j, int c) { norm[x.q0 * d + k] = a.norm[j * x.ld + c]; });
    b.each(x.n, [&](int j) { rstd[x.q0 + j] = a.rstd[j]; });
  }
  DPA2MD_KERNEL void take(const ThreadBlock& b, const PairScratch<T>& x, const Attention<T>& a, int d) const {
    b.each_of(x.n, d, [&](int k, int j, int c) { a.norm[j * x.ld + c] = norm[x.q0 * d + k]; });
    b.each(x.n, [&](int j) { a.rstd[j] = rstd[x.q0 + j]; });
  }
};

// norm -> (norm - mean) / sqrt(var + eps), biased variance
template <class T>
DPA2MD_KERNEL void attention_normalise(const ThreadBlock& b, const State<T>& s, const PairScratch<T>& x,
                                       const Attention<T>& a) {
  const int d = s.rep.g2;
  b.each_warp(x.n, [&](int j) {
    T* row = a.norm + j * x.ld;
    T mean = 0, var = 0;
    for (int c = b.lane; c < d; c += b.lanes) mean += row[c];
    mean = b.lane_sum(mean) / d;
    for (int c = b.lane; c < d; c += b.lanes) var += (row[c] - mean) * (row[c] - mean);
    const T rstd = T(1) / std::sqrt(b.lane_sum(var) / d + T(s.rep.ln_eps));
    for (int c = b.lane; c < d; c += b.lanes) row[c] = (row[c] - mean) * rstd;
    if (b.lane == 0) a.rstd[j] = rstd;
  });
}

template <class T>
DPA2MD_KERNEL void attention_start(const ThreadBlock& b, const State<T>& s, const LayerView<T>& w,
                                   const PairScratch<T>& x, const Attention<T>& a) {
  const int d = s.rep.g2;
  if (s.rep.has_g2_attn)
    b.each_of(x.n, d, [&](int, int j, int c) { a.norm[j * x.ld + c] = w.attn2_bias[c]; });
}

// Adds the attention's update to g2 (n, g2) of the next layer; assigns its h2 (rows kH2Row apart; null
// without an h2 update).
template <class T>
DPA2MD_KERNEL void attention(const ThreadBlock& b, const State<T>& s, const LayerView<T>& w,
                             const PairScratch<T>& x, const Attention<T>& a, T* query, T* g2_out, T* h2_out,
                             const KeptAttention<T>& kept) {
  const int n = x.n, d = s.rep.g2;
  attention_start(b, s, w, x, a);
  const T level = a.shares.find_level(b, s, n, x.sw);
  if (h2_out) b.each(n * 3, [&](int k) { h2_out[k / 3 * kH2Row + k % 3] = w.h2_alpha * x.h2[k]; });
  for (int h = 0; h < s.rep.heads2; ++h) {
    attention_map<T>(b, s, w, h, x, level, query, nullptr, nullptr, a.map, a.ldn);
    if (s.rep.has_g2_attn) attention_value(b, s, w, h, x, a, query);
    if (h2_out) {
      const T scale = w.h2_scale * w.h2_head[h];
      b.each(n * 3, [&](int e) {
        T sum = 0;
        for (int k = 0; k < n; ++k) sum += a.map[e / 3 * a.ldn + k] * x.h2[3 * k + e % 3];
        h2_out[e / 3 * kH2Row + e % 3] += scale * sum;
      });
    }
  }
  if (!s.rep.has_g2_attn) return;
  attention_normalise(b, s, x, a);
  if (kept.norm) kept.keep(b, x, a, d);
  b.each_of(n, d, [&](int k, int j, int c) {
    g2_out[k] += w.scale_attn2[c] * (a.norm[j * x.ld + c] * w.ln_w[c] + w.ln_b[c]);
  });
}

// ---- backward

// Replaces norm (n, ld), the normalised input, by the gradient of the layer norm's input, from the gradient
// of the next layer's g2.
template <class T>
DPA2MD_KERNEL void attention_norm_backward(const ThreadBlock& b, const State<T>& s, const LayerView<T>& w,
                                           const PairScratch<T>& x, const Attention<T>& a, const T* dg2_out) {
  const int d = s.rep.g2;
  b.each_warp(x.n, [&](int j) {
    T* norm = a.norm + j * x.ld;
    T mean = 0, along = 0;
    for (int c = b.lane; c < d; c += b.lanes) {
      const T g = dg2_out[j * d + c] * w.scale_attn2[c] * w.ln_w[c];
      mean += g;
      along += g * norm[c];
    }
    mean = b.lane_sum(mean) / d, along = b.lane_sum(along) / d;
    for (int c = b.lane; c < d; c += b.lanes) {
      const T g = dg2_out[j * d + c] * w.scale_attn2[c] * w.ln_w[c];
      norm[c] = (g - mean - norm[c] * along) * a.rstd[j];
    }
  });
}

// The reverse of A and a head's softmax: turns dmap (n, ldn) into d l and adds to dhh and dww; the first head
// assigns them.
template <class T>
DPA2MD_KERNEL void attention_map_backward(const ThreadBlock& b, const State<T>& s, const PairScratch<T>& x,
                                          const Attention<T>& a, T level, T* dmap, bool first_head) {
  const int n = x.n, ldn = a.ldn;
  const T shift = T(kAttentionShift), inv_sqrt3 = T(0.57735026918962576451);
  b.each_group(n, [&](int j, bool inside) {
    const T *prob = a.prob + j * ldn, *logit = a.logit + j * ldn, *hh = x.hh + j * ldn;
    T *dm = dmap + j * ldn, *dhh = a.dhh + j * ldn, *dww = a.dww + j * ldn;
    const T sw = x.sw[j];
    const int end = inside ? n : 0, first = b.group_lane(), step = b.group_lanes();
    T mean = 0;
    for (int k = first; k < end; k += step) mean += prob[k] * (inv_sqrt3 * dm[k] * (sw * x.sw[k] * hh[k]));
    mean = b.group_sum(mean);
    if (level > T(0) && inside && first == 0) a.shares.mean[j] = mean;
    for (int k = first; k < end; k += step) {
      const T ww = sw * x.sw[k], h = hh[k], l = logit[k], p = prob[k], direct = inv_sqrt3 * dm[k];
      const T gate = s.rep.gate ? h : T(1);
      const T slope = level > T(0) ? slot_term((l * gate + shift) * ww, level * x.sw[k]).of_logit : T(1);
      const T dz = p * (direct * (ww * h) - mean * slope), of_hh = direct * p + (s.rep.gate ? dz * l : T(0));
      const T of_ww = direct * p * h + (s.smooth ? dz * (l * gate + shift) : T(0));
      dhh[k] = (first_head ? T(0) : dhh[k]) + of_hh * ww;
      dww[k] = (first_head ? T(0) : dww[k]) + of_ww;
      dm[k] = dz * gate * ww;
    }
  });
}

// Adds a head's part to the gradient of the neighbours' shares of the slots; the first head assigns it.
template <class T>
DPA2MD_KERNEL void attention_shares_backward(const ThreadBlock& b, const State<T>& s, const PairScratch<T>& x,
                                             const Attention<T>& a, T level, bool first_head) {
  const int n = x.n, ldn = a.ldn;
  b.each_group(n, [&](int k, bool inside) {
    T sum = 0;
    for (int j = b.group_lane(); j < (inside ? n : 0); j += b.group_lanes()) {
      const int at = j * ldn + k;
      const T l = s.rep.gate ? a.logit[at] * x.hh[at] : a.logit[at];
      const T above = (l + T(kAttentionShift)) * (x.sw[j] * x.sw[k]);
      sum += a.shares.mean[j] * a.prob[at] * slot_term(above, level * x.sw[k]).of_share;
    }
    sum = b.group_sum(sum);
    if (b.group_lane() != 0 || !inside) return;
    a.shares.gradient[k] = (first_head ? T(0) : a.shares.gradient[k]) - sum;
  });
}

// d h2 and d sw from dhh and dww.
template <class T>
DPA2MD_KERNEL void attention_factors_backward(const ThreadBlock& b, const State<T>& s,
                                              const PairScratch<T>& x, const Attention<T>& a, T* dh2,
                                              T* dsw) {
  const int n = x.n, ldn = a.ldn;
  b.each_group(n, [&](int j, bool inside) {
    T h2[3] = {0, 0, 0}, sw = 0;
    for (int k = b.group_lane(); k < (inside ? n : 0); k += b.group_lanes()) {
      const T hh = a.dhh[j * ldn + k] + a.dhh[k * ldn + j];
      for (int c = 0; c < 3; ++c) h2[c] += hh * x.h2[3 * k + c];
      sw += (a.dww[j * ldn + k] + a.dww[k * ldn + j]) * x.sw[k];
    }
    for (int c = 0; c < 3; ++c) h2[c] = b.group_sum(h2[c]);
    sw = b.group_sum(sw);
    if (b.group_lane() != 0 || !inside) return;
    for (int c = 0; c < 3; ++c) dh2[j * kH2Row + c] += h2[c];
    if (s.smooth) dsw[j] += sw;
  });
}

// Adds to dg2 (n, ld), dh2 (rows kH2Row apart) and dsw (n). dg2_out (n, g2) and dh2_out (as dh2; null without
// an h2 update) are the next layer's gradients. Overwrites y and query (n, ld).
template <class T>
DPA2MD_KERNEL void attention_backward(const ThreadBlock& b, const State<T>& s, const LayerView<T>& w,
                                      const PairScratch<T>& x, const Attention<T>& a, T* y, T* query,
                                      const T* dg2_out, const T* dh2_out, T* dg2, T* dh2, T* dsw,
                                      const KeptAttention<T>& kept) {
  const int n = x.n, d = s.rep.g2, ld = x.ld, ldn = a.ldn;
  const bool values = s.rep.has_g2_attn;
  const T level = a.shares.find_level(b, s, n, x.sw);
  if (values && kept.norm) {
    kept.take(b, x, a, d);
  } else if (values) {
    attention_start(b, s, w, x, a);
    for (int h = 0; h < s.rep.heads2; ++h) {
      attention_map<T>(b, s, w, h, x, level, y, nullptr, nullptr, a.map, ldn);
      attention_value(b, s, w, h, x, a, y);
    }
    attention_normalise(b, s, x, a);
  }
  if (values) attention_norm_backward(b, s, w, x, a, dg2_out);
  const T *g2 = x.g2, *dsum = a.norm, *map = a.map;
  T *dapplied = y, *dquery = y, *dmap = a.map;  // one after the other
  for (int h = 0; h < s.rep.heads2; ++h) {
    const T scale = dh2_out ? w.h2_scale * w.h2_head[h] : T(0);
    attention_map<T>(b, s, w, h, x, level, query, a.logit, a.prob, a.map, ldn);
    if (dh2_out) {
      b.each(n * 3, [&](int e) {
        T sum = 0;
        for (int j = 0; j < n; ++j) sum += map[j * ldn + e / 3] * dh2_out[j * kH2Row + e % 3];
        dh2[e / 3 * kH2Row + e % 3] += scale * sum;
      });
    }
    if (values) {
      gemm(b, n, d, d, plain(dsum, ld), w.attn2_value_t[h], dapplied, ld, false);
      gemm(b, n, d, n, transposed(map, ldn), plain(static_cast<const T*>(dapplied), ld), dg2, ld, true);
      gemm(b, n, n, d, plain(static_cast<const T*>(dapplied), ld), transposed(g2, ld), dmap, ldn, false);
    } else {
      fill(b, n * ldn, dmap, T(0));
    }
    if (dh2_out) {
      b.each(n * n, [&](int e) {
        const T *u = dh2_out + e / n * kH2Row, *v = x.h2 + e % n * 3;
        dmap[e / n * ldn + e % n] += scale * (u[0] * v[0] + u[1] * v[1] + u[2] * v[2]);
      });
    }
    attention_map_backward(b, s, x, a, level, dmap, h == 0);
    if (level > T(0)) attention_shares_backward(b, s, x, a, level, h == 0);
    gemm(b, n, d, n, plain(map, ldn), plain(g2, ld), dquery, ld, false);
    gemm(b, n, d, n, transposed(map, ldn), plain(static_cast<const T*>(query), ld), dg2, ld, true);
    gemm(b, n, d, d, plain(static_cast<const T*>(dquery), ld), w.attn2_map_t[h], dg2, ld, true);
  }
  attention_factors_backward(b, s, x, a, dh2, dsw);
  if (level > T(0)) a.shares.to_switches(b, n, x.sw, 1, dsw);
  if (!dh2_out) return;
  b.each(n * 3, [&](int e) {
    const int at = e / 3 * kH2Row + e % 3;
    dh2[at] += w.h2_alpha * dh2_out[at];
  });
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
