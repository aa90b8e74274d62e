// The gated attention of g2 (update_g2_has_attn) and the h2 update that shares its map, forward and backward.
// Folded per head (cpu_backend.cpp): M = Wq Wk^T / sqrt(hidden), V = Wv Wo. With hh_jk = h2_j . h2_k:
//   l = (g2 M) g2^T [* hh]      p = softmax_k((l + 20) sw_j sw_k - 20)      A = p sw_j sw_k hh / sqrt(3)
//   out = layernorm(sum_h (A_h g2) V_h + b)      h2' = alpha h2 + s sum_h w_h A_h h2
#include <algorithm>
#include <cmath>

#include "repformer_pair.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {

const double kInvSqrt3 = 1.0 / std::sqrt(3.0);

// One row of the softmax; the N - n empty slots keep l = -20 in a smooth model's denominator.
template <class T>
void softmax_row(int n, const T* logit, const T* gate, const T* sw, T swj, bool smooth, int nsel, T* prob) {
  const int empty = smooth ? nsel - n : 0;
  T top = empty ? T(-kAttentionShift) : T(-INFINITY);  // of all that is in the denominator
#pragma omp simd reduction(max : top)
  for (int k = 0; k < n; ++k) {
    const T l = gate ? logit[k] * gate[k] : logit[k];
    prob[k] = smooth ? (l + T(kAttentionShift)) * (swj * sw[k]) - T(kAttentionShift) : l;
    top = prob[k] > top ? prob[k] : top;
  }
  T sum = empty ? T(empty) * math::exp(T(-kAttentionShift) - top) : T(0);
#pragma omp simd reduction(+ : sum)
  for (int k = 0; k < n; ++k) {
    prob[k] = math::exp(prob[k] - top);
    sum += prob[k];
  }
  const T inv = T(1) / sum;
  for (int k = 0; k < n; ++k) prob[k] *= inv;
}

// x (rows, width) in place -> (x - mean) / sqrt(var + eps), biased variance
template <class T>
void normalise_rows(int rows, int width, T eps, T* x, T* rstd) {
  for (int j = 0; j < rows; ++j, x += width) {
    T mean = 0, var = 0;
    for (int c = 0; c < width; ++c) mean += x[c];
    mean /= width;
    for (int c = 0; c < width; ++c) var += (x[c] - mean) * (x[c] - mean);
    rstd[j] = T(1) / std::sqrt(var / width + eps);
    for (int c = 0; c < width; ++c) x[c] = (x[c] - mean) * rstd[j];
  }
}

}  // namespace

// ---- the map

template <class T>
void CpuBackend<T>::attention_map(int l, const Neighborhood& a, PairAttention* s, Arena& arena) {
  const Repformer& f = rep();
  const int n = s->n = a.n, np = s->np = padded(a.n, lanes<T>()), d = f.g2_dim, heads = f.attn2_nhead;
  s->hh = arena.take<T>(s->square());
  s->g2_t = arena.zeros<T>(static_cast<std::size_t>(d) * np);
  s->query = arena.take<T>(static_cast<std::size_t>(heads) * n * d);
  s->logit = arena.take<T>(heads * s->square());
  s->prob = arena.take<T>(heads * s->square());
  s->map = arena.take<T>(heads * s->square());
  transpose(n, d, a.g2, d, s->g2_t, np);
  for (int j = 0; j < n; ++j) {
    const T* x = a.h2 + 3 * j;
    for (int k = 0; k < n; ++k)
      s->hh[j * np + k] = x[0] * a.h2[3 * k] + x[1] * a.h2[3 * k + 1] + x[2] * a.h2[3 * k + 2];
  }
  for (int h = 0; h < heads; ++h) {
    T* query = s->query + static_cast<std::size_t>(h) * n * d;
    T* logit = s->logit + h * s->square();
    gemm(n, d, d, plain(a.g2, d), layers_[l].attn2_map.data() + h * d * d, d, query, d, false);
    gemm(n, np, d, plain(query, d), s->g2_t, np, logit, np, false);
    for (int j = 0; j < n; ++j) {
      const T* hh = s->hh + j * np;
      T* prob = s->prob + h * s->square() + j * np;
      T* map = s->map + h * s->square() + j * np;
      softmax_row(n, logit + j * np, f.attn2_gate ? hh : nullptr, a.sw, a.sw[j], model_.smooth, f.nsel, prob);
      for (int k = 0; k < n; ++k) map[k] = prob[k] * (a.sw[j] * a.sw[k]) * hh[k] * T(kInvSqrt3);
    }
  }
}

// Through A, the softmax, the shift and the gate of head h; dmap (n, np) is overwritten. Adds to d g2, sw and
// hh.
template <class T>
void CpuBackend<T>::attention_map_backward(int l, int h, const Neighborhood& a, const PairAttention& s,
                                           T* dmap, PairGradient* g, Arena& arena) {
  const int n = s.n, np = s.np, d = rep().g2_dim;
  const bool gate = rep().attn2_gate;
  for (int j = 0; j < n; ++j) {
    const T* prob = s.prob + h * s.square() + j * np;
    const T* logit = s.logit + h * s.square() + j * np;
    const T* hh = s.hh + j * np;
    T* dm = dmap + j * np;
    T* dhh = g->hh + j * np;
    const T swj = a.sw[j];
    T mean = 0, dswj = 0;
    for (int k = 0; k < n; ++k) {
      const T ww = swj * a.sw[k], da = dm[k] * T(kInvSqrt3), dww = da * prob[k] * hh[k];
      dhh[k] += da * prob[k] * ww;
      dswj += dww * a.sw[k];
      g->sw[k] += dww * swj;
      dm[k] = da * ww * hh[k];
      mean += dm[k] * prob[k];
    }
    for (int k = 0; k < n; ++k) {
      T dl = prob[k] * (dm[k] - mean);
      if (model_.smooth) {
        const T dww = dl * ((gate ? logit[k] * hh[k] : logit[k]) + T(kAttentionShift));
        dswj += dww * a.sw[k];
        g->sw[k] += dww * swj;
        dl *= swj * a.sw[k];
      }
      if (gate) dhh[k] += dl * logit[k];
      dm[k] = gate ? dl * hh[k] : dl;
    }
    g->sw[j] += dswj;
  }
  const T* query = s.query + static_cast<std::size_t>(h) * n * d;
  T* dquery = arena.take<T>(static_cast<std::size_t>(n) * d);
  gemm(n, d, n, plain(dmap, np), a.g2, d, dquery, d, false);
  gemm(n, d, n, transposed(dmap, np), query, d, g->g2, d, true);
  gemm(n, d, d, plain(dquery, d), layers_[l].attn2_map_t.data() + h * d * d, d, g->g2, d, true);
}

// ---- the map applied to g2: s->out (n, g2)

template <class T>
void CpuBackend<T>::attention_g2(int l, const Neighborhood& a, PairAttention* s, Arena& arena) {
  const RepformerWeights<T>& w = layers_[l];
  const int n = s->n, d = rep().g2_dim, heads = rep().attn2_nhead;
  const std::size_t size = static_cast<std::size_t>(n) * d;
  s->applied = arena.take<T>(heads * size);
  s->norm = arena.take<T>(size);
  s->rstd = arena.take<T>(n);
  s->out = arena.take<T>(size);
  for (int j = 0; j < n; ++j) std::copy(w.attn2_bias.data(), w.attn2_bias.data() + d, s->norm + j * d);
  for (int h = 0; h < heads; ++h) {
    gemm(n, d, n, plain(s->map + h * s->square(), s->np), a.g2, d, s->applied + h * size, d, false);
    gemm(n, d, d, plain(s->applied + h * size, d), w.attn2_value.data() + h * d * d, d, s->norm, d, true);
  }
  normalise_rows(n, d, T(rep().ln_eps), s->norm, s->rstd);
  for (std::size_t k = 0; k < size; ++k) s->out[k] = s->norm[k] * w.ln_w[k % d] + w.ln_b[k % d];
}

// dout (n, g2) of the layer's g2 -> gradient of what the layer norm reads
template <class T>
void CpuBackend<T>::attention_norm_backward(int l, const Neighborhood& a, const PairAttention& s,
                                            const T* dout, T* dsum) {
  const RepformerWeights<T>& w = layers_[l];
  const int d = rep().g2_dim;
  for (int j = 0; j < a.n; ++j) {
    const T* norm = s.norm + j * d;
    T* g = dsum + j * d;
    T mean = 0, along = 0;
    for (int c = 0; c < d; ++c) {
      g[c] = dout[j * d + c] * w.scale_attn2[c] * w.ln_w[c];
      mean += g[c];
      along += g[c] * norm[c];
    }
    for (int c = 0; c < d; ++c) g[c] = (g[c] - mean / d - norm[c] * (along / d)) * s.rstd[j];
  }
}

// ---- the map applied to h2: out = alpha h2 + s sum_h w_h A_h h2

template <class T>
void CpuBackend<T>::attention_h2(int l, const Neighborhood& a, const PairAttention& s, T* out) {
  const RepformerWeights<T>& w = layers_[l];
  for (int k = 0; k < 3 * a.n; ++k) out[k] = w.h2_alpha * a.h2[k];
  for (int h = 0; h < rep().attn2_nhead; ++h) {
    const T* map = s.map + h * s.square();
    for (int j = 0; j < a.n; ++j) {
      for (int k = 0; k < a.n; ++k) {
        const T x = w.h2_scale * w.h2_head[h] * map[j * s.np + k];
        for (int c = 0; c < 3; ++c) out[3 * j + c] += x * a.h2[3 * k + c];
      }
    }
  }
}

// Head h's share: adds to dmap and to d h2 (alpha's share is added by attention_backward).
template <class T>
void CpuBackend<T>::attention_h2_backward(int l, int h, const Neighborhood& a, const PairAttention& s,
                                          const T* dh2_out, T* dmap, T* dh2) {
  const T* map = s.map + h * s.square();
  const T scale = layers_[l].h2_scale * layers_[l].h2_head[h];
  for (int j = 0; j < a.n; ++j) {
    const T* d = dh2_out + 3 * j;
    for (int k = 0; k < a.n; ++k) {
      const T* x = a.h2 + 3 * k;
      dmap[j * s.np + k] += scale * (d[0] * x[0] + d[1] * x[1] + d[2] * x[2]);
      for (int c = 0; c < 3; ++c) dh2[3 * k + c] += scale * map[j * s.np + k] * d[c];
    }
  }
}

// ---- both, in reverse. dh2_out is null without an h2 update.
template <class T>
void CpuBackend<T>::attention_backward(int l, const Neighborhood& a, const T* dout, const T* dh2_out,
                                       PairGradient* g, Arena& arena) {
  const RepformerWeights<T>& w = layers_[l];
  const int n = a.n, d = rep().g2_dim;
  const std::size_t size = static_cast<std::size_t>(n) * d;
  PairAttention s;
  attention_map(l, a, &s, arena);
  T* dmap = arena.take<T>(s.square());
  T* dsum = arena.take<T>(size);
  T* dapplied = arena.take<T>(size);
  g->hh = arena.zeros<T>(s.square());
  if (rep().has_g2_attn) {
    attention_g2(l, a, &s, arena);
    attention_norm_backward(l, a, s, dout, dsum);
  }
  for (int h = 0; h < rep().attn2_nhead; ++h) {
    Arena::Scope scope(arena);
    std::fill_n(dmap, s.square(), T(0));
    if (rep().has_g2_attn) {
      gemm(n, d, d, plain(dsum, d), w.attn2_value_t.data() + h * d * d, d, dapplied, d, false);
      gemm(n, s.np, d, plain(dapplied, d), s.g2_t, s.np, dmap, s.np, false);
      gemm(n, d, n, transposed(s.map + h * s.square(), s.np), dapplied, d, g->g2, d, true);
    }
    if (dh2_out) attention_h2_backward(l, h, a, s, dh2_out, dmap, g->h2);
    attention_map_backward(l, h, a, s, dmap, g, arena);
  }
  for (int j = 0; j < n; ++j) {
    for (int k = 0; k < n; ++k) {
      const T x = g->hh[j * s.np + k] + g->hh[k * s.np + j];
      for (int c = 0; c < 3; ++c) g->h2[3 * j + c] += x * a.h2[3 * k + c];
    }
  }
  for (int k = 0; dh2_out && k < 3 * n; ++k) g->h2[k] += w.h2_alpha * dh2_out[k];
}

#define DPA2MD_INSTANTIATE(T)                                                                    \
  template void CpuBackend<T>::attention_map(int, const Neighborhood&, PairAttention*, Arena&);  \
  template void CpuBackend<T>::attention_g2(int, const Neighborhood&, PairAttention*, Arena&);   \
  template void CpuBackend<T>::attention_h2(int, const Neighborhood&, const PairAttention&, T*); \
  template void CpuBackend<T>::attention_backward(int, const Neighborhood&, const T*, const T*,  \
                                                  PairGradient*, Arena&);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
