// The attention of g2: repformer_pair_attention.h.
#include "cpu/stages/repformer_pair_attention.h"

#include <algorithm>
#include <cmath>

#include "cpu/stages/repformer_sums.h"
#include "cpu/vector/lanes.h"
#include "cpu/vector/simd_math.h"
#include "model/slot_shares.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {

const double kInvSqrt3 = 1.0 / std::sqrt(3.0);

template <class T>
DPA2MD_INLINE typename Vector<T, lanes<T>()>::type vec(const T* p) {
  return load<lanes<T>()>(p);
}
template <class T>
DPA2MD_INLINE void put(T* p, typename Vector<T, lanes<T>()>::type x) {
  store<lanes<T>()>(p, x);
}

// x (rows, width) -> x / sqrt(var + eps), biased variance, of rows whose mean is 0 already; rstd has room for
// whole vectors.
template <class T>
void normalise_rows(int rows, int width, Real<T> eps, T* x, T* rstd) {
  sum_rows<T>(rows, [&](int j) { return product_lanes(width, x + j * width, x + j * width); }, rstd);
  for (int j = 0; j < rows; ++j) rstd[j] = Real<T>(1) / math::sqrt(rstd[j] / width + eps);
  for (int j = 0; j < rows; ++j) {
    for (int c = 0; c < width; ++c) x[j * width + c] *= rstd[j];
  }
}

}  // namespace

// ---- what all heads share

// Rows are padded with switched-off neighbours, sw = 0: in a smooth model these are empty slots like the
// others, with l = -20 in the softmax and nothing in A; else c = -infinity shuts them out.
template <class T>
void NeighborAttention<T>::factors(const Neighborhood<T>& a, bool keep, PairAttention<T>* s, Arena& arena) {
  const Repformer& f = state_.rep();
  const int n = s->n = a.n, np = s->np = padded(a.n, lanes<T>()), d = f.g2_dim;
  const std::size_t square = static_cast<std::size_t>(n) * np, heads = keep ? f.attn2_nhead : 1;
  s->head_stride = keep ? square : 0;
  s->query_stride = keep ? static_cast<std::size_t>(n) * d : 0;
  s->sw = arena.zeros<T>(np);
  std::copy(a.sw, a.sw + n, s->sw);
  s->level = state_.level_of(n, a.sw);
  for (T** p : {&s->hh, &s->ww, &s->logit_factor, &s->logit_shift, &s->map_factor})
    *p = arena.take<T>(square);
  s->g2_t = arena.take<T>(static_cast<std::size_t>(d) * np);
  s->query = arena.take<T>(heads * n * d);
  s->total = arena.take<T>(np);
  s->empty = arena.take<T>(np);
  for (T** p : {&s->logit, &s->prob, &s->map}) *p = arena.take<T>(heads * square);
  transpose_padded(n, d, a.g2, s->g2_t, np);
  const T* h2_t = s->h2_t = arena.zeros<T>(3 * static_cast<std::size_t>(np));
  transpose(n, 3, a.h2, kH2Row, s->h2_t, np);
  const T off = state_.model.smooth ? T(0) : T(-1e30);
  for (int j = 0; j < n; ++j) {
    const T *x = a.h2 + kH2Row * j, swj = s->sw[j];
    const std::size_t at = static_cast<std::size_t>(j) * np;
    for (int k = 0; k < np; k += lanes<T>()) {
      const auto hh = x[0] * vec(h2_t + k) + x[1] * vec(h2_t + np + k) + x[2] * vec(h2_t + 2 * np + k);
      const auto ww = swj * vec(s->sw + k);
      put(s->hh + at + k, hh);
      put(s->ww + at + k, ww);
      const auto factor = f.attn2_gate ? hh * ww : ww;
      put(s->logit_factor + at + k, factor);
      put(s->logit_shift + at + k, Real<T>(kAttentionShift) * ww - Real<T>(kAttentionShift));
      put(s->map_factor + at + k, hh * ww * Real<T>(kInvSqrt3));
    }
    if (state_.model.smooth) continue;
    for (int k = 0; k < np; ++k) s->logit_shift[at + k] = k < n ? T(0) : off;
  }
}

// ---- the map of a head

template <class T>
void NeighborAttention<T>::map(int l, int h, const Neighborhood<T>& a, PairAttention<T>* s) {
  const int n = s->n, np = s->np, d = state_.rep().g2_dim;
  T *query = s->query + h * s->query_stride, *logit = s->logit + h * s->head_stride;
  gemm(n, d, d, plain(a.g2, d), state_.weights(l).attn2_map.data() + h * d * d, d, query, d, false);
  gemm(n, np, d, plain(query, d), s->g2_t, np, logit, np, false);
  softmax_rows(*s, logit, s->prob + h * s->head_stride, s->map + h * s->head_stride);
}

// Without a maximum subtracted from each row where no row needs it: exp then neither overflows nor leaves a
// sum of nothing, nor one that the padding, taken off again, would drown.
template <class T>
void NeighborAttention<T>::softmax_rows(const PairAttention<T>& s, const T* logit, T* prob, T* map) const {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  using Values = typename Vector<Real<T>, W>::type;
  const Real<T> safe = sizeof(Real<T>) == 4 ? 60 : 600;
  const int n = s.n, np = s.np;
  Values top = Values{} - safe, bottom = Values{} + safe;
  for (int k = 0; k < n * np; k += W) {
    const V z = vec(logit + k) * vec(s.logit_factor + k) + vec(s.logit_shift + k);
    put(prob + k, z);
    top = max_lanes(top, value_of(z));
    bottom = min_lanes(bottom, value_of(z));
  }
  const Values one = Values{} + Real<T>(1);
  const Values outside = (top > safe) | (bottom < -safe) ? one : Values{};
  const Values below = bottom < Values{} - Real<T>(kAttentionShift) ? one : Values{};
  const bool low = sum_lanes<Real<T>, W>(below) != 0;
  const int slots = state_.model.smooth ? state_.rep().nsel - n : 0,
            beyond = state_.rep().nsel - np;  // empty; beyond the padding
  const bool tame = state_.model.smooth && sum_lanes<Real<T>, W>(outside) == 0 && (beyond >= 0 || !low);
  std::fill_n(s.empty, n, T(beyond) * math::exp(T(-kAttentionShift)));
  for (int j = 0; j < n && !tame; ++j) {
    T* z = prob + static_cast<std::size_t>(j) * np;
    const T most = *std::max_element(z, z + n),
            shift = slots > 0 ? std::max(most, T(-kAttentionShift)) : most;
    for (int k = 0; k < n; ++k) z[k] -= shift;
    std::fill(z + n, z + np, T(-1e30));
    s.empty[j] = slots != 0 ? T(slots) * math::exp(T(-kAttentionShift) - shift) : T(0);
  }
  // All exponentials, all sums, all products: within a row each would wait for the one before.
  for (int k = 0; k < n * np && tame; k += W) put(prob + k, exp_bounded_lanes<W>(vec(prob + k)));
  for (int k = 0; k < n * np && !tame; k += W) put(prob + k, exp_lanes<W>(vec(prob + k)));
  const auto row_sum = [&](int j) {
    V sum{};
    for (int k = 0; k < np; k += W) sum += vec(prob + static_cast<std::size_t>(j) * np + k);
    return sum;
  };
  sum_rows<T>(n, row_sum, s.total);
  for (int j = 0; j < n; ++j) s.total[j] += s.empty[j];
  if (value_of(s.level) > 0 && low) shared_totals(s, logit, prob);
  for (int j = 0; j < n; ++j) s.total[j] = Real<T>(1) / s.total[j];
  for (int j = 0, at = 0; j < n; ++j) {
    for (const int end = at + np; at < end; at += W) {
      const V p = vec(prob + at) * s.total[j];
      put(prob + at, p);
      put(map + at, p * vec(s.map_factor + at));
    }
  }
}

// The rows' softmax denominators of an atom with more neighbours than slots, if some logits are below -20.
// `prob` holds the exponentials. Zeroes those of the padding, which may be too large beside such
// denominators.
template <class T>
void NeighborAttention<T>::shared_totals(const PairAttention<T>& s, const T* logit, T* prob) const {
  for (int j = 0; j < s.n; ++j) {
    s.total[j] = T(0);
    for (int k = 0, at = j * s.np; k < s.n; ++k, ++at) {
      const T above = logit[at] * s.logit_factor[at] + s.logit_shift[at] + T(kAttentionShift);
      s.total[j] += prob[at] * slot_term(above, s.level * s.sw[k]).value;
    }
    std::fill(prob + j * s.np + s.n, prob + (j + 1) * s.np, T(0));
  }
}

// The reverse of shared_totals: returns the totals' derivatives by z, (head, n, np), divided by the
// exponentials. Adds the totals' gradient through the shares to d sw.
template <class T>
T* NeighborAttention<T>::shared_slopes(const PairAttention<T>& s, const T* mean, T* dsw, Arena& arena) const {
  const int n = s.n, np = s.np, heads = state_.rep().attn2_nhead;
  T* slope = arena.zeros<T>(heads * s.square());
  T* dshare = arena.zeros<T>(n);
  for (int h = 0; h < heads; ++h) {
    const std::size_t first = h * s.square();
    for (int j = 0; j < n; ++j) {
      for (int k = 0, at = j * np; k < n; ++k, ++at) {
        const T z = s.logit[first + at] * s.logit_factor[at] + s.logit_shift[at];
        const SlotTerm<T> y = slot_term(z + T(kAttentionShift), s.level * s.sw[k]);
        slope[first + at] = y.of_logit;
        dshare[k] -= mean[h * np + j] * s.prob[first + at] * y.of_share;
      }
    }
  }
  state_.slot_shares_backward(n, s.sw, s.level, dshare, dsw);
  return slope;
}

// Turns dmap (head, n, np) into d l, and leaves the factors out; mean: of each row, slope: of shared_slopes
// or null.
template <class T>
void NeighborAttention<T>::logits_backward(const PairAttention<T>& s, const T* mean, const T* slope,
                                           T* dmap) const {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const int n = s.n, np = s.np, heads = state_.rep().attn2_nhead;
  for (int h = 0; h < heads; ++h) {
    for (int j = 0; j < n; ++j) {
      const V middle = spread<W>(mean[h * np + j]);
      for (int k = 0; k < np; k += W) {
        const std::size_t at = static_cast<std::size_t>(j) * np + k, there = h * s.square() + at;
        const V taken = slope ? middle * vec(slope + there) : middle;
        const V dz = vec(s.prob + there) * (vec(dmap + there) * vec(s.map_factor + at) - taken);
        put(dmap + there, dz * vec(s.logit_factor + at));
      }
    }
  }
}

// The reverse of A and the softmax of all heads: turns dmap (head, n, np) into d l, and adds the factors'
// gradients to d h2 and d sw. hh and ww are symmetric in j and k: either side gets its part of every element.
template <class T>
void NeighborAttention<T>::rows_backward(const Neighborhood<T>& a, const PairAttention<T>& s, T* dmap,
                                         PairGradient<T>* g, Arena& arena) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const int n = s.n, np = s.np, heads = state_.rep().attn2_nhead;
  const bool gate = state_.rep().attn2_gate;
  T* mean = arena.take<T>(static_cast<std::size_t>(heads) * np);
  for (int h = 0; h < heads; ++h) {
    const T *prob = s.prob + h * s.square(), *d = dmap + h * s.square();
    const auto row_mean = [&](int j) {
      V sum{};
      for (int k = j * np; k < (j + 1) * np; k += W)
        sum += vec(d + k) * vec(s.map_factor + k) * vec(prob + k);
      return sum;
    };
    sum_rows<T>(n, row_mean, mean + h * np);
  }
  T* dsw = arena.zeros<T>(np);
  const T* slope = value_of(s.level) > 0 ? shared_slopes(s, mean, dsw, arena) : nullptr;
  if (!state_.wants_geometry()) return logits_backward(s, mean, slope, dmap);
  T* dh2_t = arena.zeros<T>(3 * static_cast<std::size_t>(np));
  for (int j = 0; j < n; ++j) {
    const T *h2 = a.h2 + kH2Row * j, swj = s.sw[j];
    V own[3] = {}, own_sw{};
    for (int k = 0; k < np; k += W) {
      const std::size_t at = static_cast<std::size_t>(j) * np + k;
      const V map_factor = vec(s.map_factor + at), logit_factor = vec(s.logit_factor + at);
      V dmap_factor{}, dlogit{}, dshift{};
      for (int h = 0; h < heads; ++h) {
        const std::size_t there = h * s.square() + at;
        const V p = vec(s.prob + there), da = vec(dmap + there);
        dmap_factor += da * p;
        const V taken = slope ? mean[h * np + j] * vec(slope + there) : spread<W>(mean[h * np + j]);
        const V dz = p * (da * map_factor - taken);
        dlogit += dz * vec(s.logit + there);
        dshift += dz;
        put(dmap + there, dz * logit_factor);
      }
      dmap_factor *= Real<T>(kInvSqrt3);
      const V hh = vec(s.hh + at), ww = vec(s.ww + at);
      const V dhh = gate ? (dmap_factor + dlogit) * ww : dmap_factor * ww;
      for (int c = 0; c < 3; ++c) {
        own[c] += dhh * vec(s.h2_t + c * np + k);
        add<W>(dh2_t + c * np + k, dhh * h2[c]);
      }
      const V dww = dmap_factor * hh + (gate ? dlogit * hh : dlogit) + Real<T>(kAttentionShift) * dshift;
      own_sw += dww * vec(s.sw + k);
      add<W>(dsw + k, dww * swj);
    }
    for (int c = 0; c < 3; ++c) g->h2[kH2Row * j + c] += sum_lanes<T, W>(own[c]);
    dsw[j] += sum_lanes<T, W>(own_sw);
  }
  for (int k = 0; k < n; ++k) {
    for (int c = 0; c < 3; ++c) g->h2[kH2Row * k + c] += dh2_t[c * np + k];
    if (state_.model.smooth) g->sw[k] += dsw[k];
  }
}

// ---- the map applied to g2

// Head h's A g2; once all heads are there, they go through the values and the layer norm together. The values
// and their bias have been freed of the mean over their columns, so that the norm finds none to subtract.
template <class T>
void NeighborAttention<T>::apply_to_g2(int l, int h, const Neighborhood<T>& a, PairAttention<T>* s,
                                       Arena& arena) {
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int n = s->n, d = state_.rep().g2_dim, all = state_.rep().attn2_nhead * d;
  if (h == 0) s->applied = arena.take<T>(static_cast<std::size_t>(n) * all);
  gemm(n, d, n, plain(s->map + h * s->head_stride, s->np), a.g2, d, s->applied + h * d, all, false);
  if (h + 1 < state_.rep().attn2_nhead) return;
  s->norm = arena.take<T>(static_cast<std::size_t>(n) * d);
  s->rstd = arena.take<T>(s->np);
  for (int j = 0; j < n; ++j) {
    for (int c = 0; c < d; ++c) s->norm[j * d + c] = T(w.attn2_bias[c]);
  }
  gemm(n, d, all, plain(s->applied, all), w.attn2_value.data(), d, s->norm, d, true);
  normalise_rows(n, d, Real<T>(state_.rep().ln_eps), s->norm, s->rstd);
}

// dout (n, g2) of the layer's g2 -> gradient of what the layer norm reads, but for the mean of each row: the
// values' weights, with none of their own, let it drop out.
template <class T>
void NeighborAttention<T>::norm_backward(int l, const PairAttention<T>& s, const T* dout, T* dsum,
                                         Arena& arena) {
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int n = s.n, d = state_.rep().g2_dim;
  for (int j = 0; j < n; ++j) {
    for (int c = 0; c < d; ++c) dsum[j * d + c] = dout[j * d + c] * w.scale_attn2[c] * w.ln_w[c];
  }
  T* along = arena.take<T>(s.np);
  sum_rows<T>(n, [&](int j) { return product_lanes(d, dsum + j * d, s.norm + j * d); }, along);
  for (int j = 0; j < n; ++j) {
    const T x = along[j] / d;
    for (int c = 0; c < d; ++c) dsum[j * d + c] = (dsum[j * d + c] - s.norm[j * d + c] * x) * s.rstd[j];
  }
}

// ---- the map applied to h2: out = alpha h2 + s sum_h w_h A_h h2

template <class T>
void NeighborAttention<T>::apply_to_h2(int l, int h, const Neighborhood<T>& a, const PairAttention<T>& s,
                                       T* out) {
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  for (int j = 0; j < a.n && h == 0; ++j) {
    for (int c = 0; c < 3; ++c) out[kH2Row * j + c] = w.h2_alpha * a.h2[kH2Row * j + c];
  }
  const T* map = s.map + h * s.head_stride;
  for (int j = 0; j < a.n; ++j) {
    for (int k = 0; k < a.n; ++k) {
      const T x = w.h2_scale * w.h2_head[h] * map[j * s.np + k];
      for (int c = 0; c < 3; ++c) out[kH2Row * j + c] += x * a.h2[kH2Row * k + c];
    }
  }
}

// Head h's share: adds to dmap and to d h2 (alpha's share is added by attention_backward).
template <class T>
void NeighborAttention<T>::apply_to_h2_backward(int l, int h, const Neighborhood<T>& a,
                                                const PairAttention<T>& s, const T* dh2_out, T* dmap,
                                                T* dh2) {
  const T* map = s.map + h * s.head_stride;
  const Real<T> scale = state_.weights(l).h2_scale * state_.weights(l).h2_head[h];
  for (int j = 0; j < a.n; ++j) {
    const T* d = dh2_out + kH2Row * j;
    for (int k = 0; k < a.n; ++k) {
      const T* x = a.h2 + kH2Row * k;
      dmap[j * s.np + k] += scale * (d[0] * x[0] + d[1] * x[1] + d[2] * x[2]);
      for (int c = 0; c < 3; ++c) dh2[kH2Row * k + c] += scale * map[j * s.np + k] * d[c];
    }
  }
}

// ---- all heads

template <class T>
void NeighborAttention<T>::heads(int l, const Neighborhood<T>& a, bool keep, T* h2_out, PairAttention<T>* s,
                                 Arena& arena) {
  factors(a, keep, s, arena);
  for (int h = 0; h < state_.rep().attn2_nhead; ++h) {
    map(l, h, a, s);
    if (state_.rep().has_g2_attn) apply_to_g2(l, h, a, s, arena);
    if (h2_out) apply_to_h2(l, h, a, *s, h2_out);
  }
}

template <class T>
void NeighborAttention<T>::forward(int l, const Neighborhood<T>& a, bool keep, PairAttention<T>* s, T* g2_out,
                                   T* h2_out, Arena& arena) {
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int d = state_.rep().g2_dim;
  heads(l, a, keep, h2_out, s, arena);
  for (int j = 0; j < a.n && state_.rep().has_g2_attn; ++j) {
    T* out = g2_out + j * d;
    const T* norm = s->norm + j * d;
    for (int c = 0; c < d; ++c) out[c] += w.scale_attn2[c] * (norm[c] * w.ln_w[c] + w.ln_b[c]);
  }
}

template <class T>
void NeighborAttention<T>::backward(int l, [[maybe_unused]] int i, const Neighborhood<T>& a,
                                    const PairAttention<T>& s, const T* dout, const T* dh2_out,
                                    PairGradient<T>* g, Arena& arena) {
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int n = a.n, d = state_.rep().g2_dim, heads = state_.rep().attn2_nhead, rows = heads * n;
  const std::size_t size = static_cast<std::size_t>(n) * d;
  // of all heads, one below the other, so that what they add to d g2 is one product
  T* dmap = arena.take<T>(s.square() * heads);
  T* dhead = arena.take<T>(size * heads);
  if (state_.rep().has_g2_attn) {
    T* dsum = arena.take<T>(size);
    norm_backward(l, s, dout, dsum, arena);
    if constexpr (is_dual<T>) sums_->norm(l, i, s, dout, dsum, arena);
    for (int h = 0; h < heads; ++h) {
      gemm(n, d, d, plain(dsum, d), w.attn2_value_t.data() + h * d * d, d, dhead + h * size, d, false);
    }
    gemm(rows, s.np, d, plain(dhead, d), s.g2_t, s.np, dmap, s.np, false);
    gemm(n, d, rows, transposed(s.map, s.np), dhead, d, g->g2, d, true);
  } else {
    std::fill_n(dmap, s.square() * heads, T(0));
  }
  for (int h = 0; dh2_out && h < heads; ++h) {
    apply_to_h2_backward(l, h, a, s, dh2_out, dmap + h * s.square(), g->h2);
    if constexpr (is_dual<T>) sums_->h2(l, h, i, a, s, dh2_out);
  }
  rows_backward(a, s, dmap, g, arena);
  gemm(n, d, rows, transposed(dmap, s.np), s.query, d, g->g2, d, true);
  for (int h = 0; h < heads; ++h) {
    gemm(n, d, n, plain(dmap + h * s.square(), s.np), a.g2, d, dhead + h * size, d, false);
    if constexpr (is_dual<T>) sums_->map(l, h, i, a, dhead + h * size, arena);
    gemm(n, d, d, plain(dhead + h * size, d), w.attn2_map_t.data() + h * d * d, d, g->g2, d, true);
  }
  for (int j = 0; dh2_out && j < n; ++j) {
    for (int c = 0; c < 3; ++c) g->h2[kH2Row * j + c] += w.h2_alpha * dh2_out[kH2Row * j + c];
  }
}

template class NeighborAttention<float>;
template class NeighborAttention<double>;
template class NeighborAttention<Dual<float>>;
template class NeighborAttention<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
