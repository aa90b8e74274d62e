// pair_init and pair_step: the g2 (and h2) side of the repformers, forward and backward. One atom's
// neighbours attend to each other; everything of an atom stays in cache. Folded per head: M = Wq Wk^T /
// sqrt(hidden), V = Wv Wo, so
//   l = (g2 M) g2^T [* h2 h2^T]        A = softmax(...) * ww * h2 h2^T / sqrt(3)        out = sum_h (A_h g2)
//   V_h + b
#include <algorithm>
#include <cmath>

#include "cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {
constexpr double kShift = 20.0;
const double kInvSqrt3 = 1.0 / std::sqrt(3.0);
}  // namespace

template <class T>
struct CpuBackend<T>::PairAttention {
  int n;
  T* sw;       // (n) switch, or 1 in non-smooth models
  T* hh;       // (n, n) h2_j . h2_k
  T* g2_t;     // (g2, n)
  T* query;    // (head, n, g2) g2 M
  T* logit;    // (head, n, n) before gate and shift
  T* prob;     // (head, n, n)
  T* map;      // (head, n, n) the attention map A
  T* applied;  // (head, n, g2) A g2
  T* norm;     // (n, g2) layer norm's normalised input
  T* rstd;     // (n)
  T* out;      // (n, g2) layer norm's output
  T* dh2;      // (n, 3) h2 update
};

// Row softmax of the gated and shifted logits; the N - n empty slots stay in a smooth model's denominator.
template <class T>
static void attention_row(int n, const T* logit, const T* hh, const T* sw, T swj, bool gate, bool smooth,
                          int nsel, T* prob) {
  T top = smooth ? T(-kShift) : T(-INFINITY);
  for (int k = 0; k < n; ++k) {
    const T l = gate ? logit[k] * hh[k] : logit[k];
    prob[k] = smooth ? (l + T(kShift)) * (swj * sw[k]) - T(kShift) : l;
    top = std::max(top, prob[k]);
  }
  T sum = smooth ? T(nsel - n) * std::exp(T(-kShift) - top) : T(0);
#pragma omp simd reduction(+ : sum)
  for (int k = 0; k < n; ++k) {
    prob[k] = math::exp(prob[k] - top);
    sum += prob[k];
  }
  const T inv = T(1) / sum;
  for (int k = 0; k < n; ++k) prob[k] *= inv;
}

template <class T>
void CpuBackend<T>::pair_attention(int l, int i, Arena& arena, PairAttention* s) {
  const Repformer& f = rep();
  const RepformerWeights<T>& w = layers_[l];
  const int n = s->n = pairs().repformer.count[i], d = f.g2_dim, heads = f.attn2_nhead;
  const std::int64_t q0 = pairs().repformer.first[i];
  const T* pair = g2(l) + q0 * d;
  const T* vec = h2(l) + q0 * 3;
  const std::size_t nn = static_cast<std::size_t>(n) * n, nd = static_cast<std::size_t>(n) * d;
  s->sw = arena.take<T>(n);
  s->hh = arena.take<T>(nn);
  s->g2_t = arena.take<T>(nd);
  s->query = arena.take<T>(heads * nd);
  s->logit = arena.take<T>(heads * nn);
  s->prob = arena.take<T>(heads * nn);
  s->map = arena.take<T>(heads * nn);
  for (int j = 0; j < n; ++j) s->sw[j] = model_.smooth ? env_rep_.sw[q0 + j] : T(1);
  for (int j = 0; j < n; ++j) {
    for (int k = 0; k < n; ++k) {
      s->hh[j * n + k] =
          vec[3 * j] * vec[3 * k] + vec[3 * j + 1] * vec[3 * k + 1] + vec[3 * j + 2] * vec[3 * k + 2];
    }
  }
  transpose(n, d, pair, d, s->g2_t, n);
  for (int h = 0; h < heads; ++h) {
    T* query = s->query + h * nd;
    T* logit = s->logit + h * nn;
    gemm(n, d, d, plain(pair, d), w.attn2_map.data() + h * d * d, d, query, d, false);
    gemm(n, n, d, plain(query, d), s->g2_t, n, logit, n, false);
    for (int j = 0; j < n; ++j) {
      T* prob = s->prob + h * nn + j * n;
      T* map = s->map + h * nn + j * n;
      attention_row(n, logit + j * n, s->hh + j * n, s->sw, s->sw[j], f.attn2_gate, model_.smooth, f.nsel,
                    prob);
      for (int k = 0; k < n; ++k) map[k] = prob[k] * (s->sw[j] * s->sw[k]) * s->hh[j * n + k] * T(kInvSqrt3);
    }
  }
  if (f.has_g2_attn) {
    s->applied = arena.take<T>(heads * nd);
    s->norm = arena.take<T>(nd);
    s->rstd = arena.take<T>(n);
    s->out = arena.take<T>(nd);
    for (int j = 0; j < n; ++j) std::copy(w.attn2_bias.data(), w.attn2_bias.data() + d, s->norm + j * d);
    for (int h = 0; h < heads; ++h) {
      gemm(n, d, n, plain(s->map + h * nn, n), pair, d, s->applied + h * nd, d, false);
      gemm(n, d, d, plain(s->applied + h * nd, d), w.attn2_value.data() + h * d * d, d, s->norm, d, true);
    }
    for (int j = 0; j < n; ++j) {
      T* x = s->norm + j * d;
      T mean = 0, var = 0;
      for (int c = 0; c < d; ++c) mean += x[c];
      mean /= d;
      for (int c = 0; c < d; ++c) var += (x[c] - mean) * (x[c] - mean);
      s->rstd[j] = T(1) / std::sqrt(var / d + T(f.ln_eps));
      for (int c = 0; c < d; ++c) {
        x[c] = (x[c] - mean) * s->rstd[j];
        s->out[j * d + c] = x[c] * w.ln_w[c] + w.ln_b[c];
      }
    }
  }
  if (f.update_h2) {
    s->dh2 = arena.zeros<T>(3 * n);
    for (int h = 0; h < heads; ++h) {
      for (int j = 0; j < n; ++j) {
        for (int k = 0; k < n; ++k) {
          const T a = w.h2_head[h] * s->map[h * nn + j * n + k];
          for (int x = 0; x < 3; ++x) s->dh2[3 * j + x] += a * vec[3 * k + x];
        }
      }
    }
  }
}

// Layer 0: g2 = act(em_0 W + b), h2 = em[1:4].
template <class T>
void CpuBackend<T>::pair_init(Range range) {
  const int d = rep().g2_dim;
  const std::size_t q0 = pairs().repformer.first[range.begin], q1 = pairs().repformer.first[range.end];
  for (std::size_t q = q0; q < q1; ++q) {
    const T* em = &env_rep_.em[4 * q];
    T* out = g2(0) + q * d;
    for (int c = 0; c < d; ++c) out[c] = em[0] * w_g2_embd_[c] + b_g2_embd_[c];
    for (int x = 0; x < 3; ++x) h2(0)[3 * q + x] = em[1 + x];
  }
  activate_array<T>(rep().act, (q1 - q0) * d, g2(0) + q0 * d, nullptr);
}

template <class T>
void CpuBackend<T>::pair_init_backward(Range range) {
  const int d = rep().g2_dim;
  const std::size_t q0 = pairs().repformer.first[range.begin], q1 = pairs().repformer.first[range.end];
  Arena& a = arena();
  for (std::size_t q = q0; q < q1; ++q) {
    Arena::Scope scope(a);
    const T* em = &env_rep_.em[4 * q];
    T* x = a.take<T>(d);
    T* slope = a.take<T>(d);
    for (int c = 0; c < d; ++c) x[c] = em[0] * w_g2_embd_[c] + b_g2_embd_[c];
    activate_array(rep().act, d, x, slope);
    T sum = 0;
    for (int c = 0; c < d; ++c) sum += dg2(0)[q * d + c] * slope[c] * w_g2_embd_[c];
    T* dem = &env_rep_.dem[4 * q];
    dem[0] = sum;
    for (int c = 0; c < 3; ++c) dem[1 + c] = dh2(0)[3 * q + c];
  }
}

template <class T>
void CpuBackend<T>::pair_step(int l, Range range) {
  const Repformer& f = rep();
  const RepformerWeights<T>& w = layers_[l];
  const int d = f.g2_dim, width = f.g1_dim;
  Arena& a = arena();
  for (int i = range.begin; i < range.end; ++i) {
    const int n = pairs().repformer.count[i];
    if (n == 0) continue;
    Arena::Scope scope(a);
    const std::int64_t q0 = pairs().repformer.first[i];
    const std::size_t size = static_cast<std::size_t>(n) * d;
    const T* x = g2(l) + q0 * d;
    T* y = g2(l + 1) + q0 * d;
    T* self = a.take<T>(size);
    w.linear2.forward(n, x, d, self, d);
    activate_array<T>(f.act, size, self, nullptr);
    for (std::size_t k = 0; k < size; ++k) y[k] = w.g2_alpha * x[k] + w.scale_linear2[k % d] * self[k];
    if (f.has_g1g1) {
      T* product = a.take<T>(static_cast<std::size_t>(n) * width);
      gather_g1(l, i, product);
      const T* own = g1(l) + static_cast<std::size_t>(i) * width;
      for (int j = 0; j < n; ++j) {
        const T sw = model_.smooth ? env_rep_.sw[q0 + j] : T(1);
        for (int c = 0; c < width; ++c) product[j * width + c] *= own[c] * sw;
      }
      w.g1g1.forward(n, product, width, self, d);
      for (std::size_t k = 0; k < size; ++k) y[k] += w.scale_g1g1[k % d] * self[k];
    }
    if (f.has_g2_attn || f.update_h2) {
      PairAttention s;
      pair_attention(l, i, a, &s);
      for (std::size_t k = 0; f.has_g2_attn && k < size; ++k) y[k] += w.scale_attn2[k % d] * s.out[k];
      for (int k = 0; f.update_h2 && k < 3 * n; ++k) {
        h2(l + 1)[3 * q0 + k] = w.h2_alpha * h2(l)[3 * q0 + k] + w.h2_scale * s.dh2[k];
      }
    }
  }
}

// Adds to d g2(l), d h2(l), d sw; with g1g1 also to d g1(l) of the atom and to the pairs' shares dgg1.
template <class T>
void CpuBackend<T>::pair_step_backward(int l, Range range) {
  const Repformer& f = rep();
  const RepformerWeights<T>& w = layers_[l];
  const int d = f.g2_dim, width = f.g1_dim, heads = f.attn2_nhead;
  Arena& a = arena();
  for (int i = range.begin; i < range.end; ++i) {
    const int n = pairs().repformer.count[i];
    if (n == 0) continue;
    Arena::Scope scope(a);
    const std::int64_t q0 = pairs().repformer.first[i];
    const std::size_t size = static_cast<std::size_t>(n) * d, nn = static_cast<std::size_t>(n) * n;
    const T* x = g2(l) + q0 * d;
    const T* vec = h2(l) + 3 * q0;
    const T* dout = dg2(l + 1) + q0 * d;
    T* dx = dg2(l) + q0 * d;
    T* dvec = dh2(l) + 3 * q0;
    T* dsw = a.zeros<T>(n);

    T* value = a.take<T>(size);
    T* slope = a.take<T>(size);
    w.linear2.forward(n, x, d, value, d);
    activate_array(f.act, size, value, slope);
    for (std::size_t k = 0; k < size; ++k) slope[k] *= dout[k] * w.scale_linear2[k % d];
    w.linear2.backward(n, slope, d, dx, d, true);
    for (std::size_t k = 0; k < size; ++k) dx[k] += w.g2_alpha * dout[k];

    if (f.has_g1g1) {
      T* gg1 = a.take<T>(static_cast<std::size_t>(n) * width);
      T* dproduct = a.take<T>(static_cast<std::size_t>(n) * width);
      gather_g1(l, i, gg1);
      for (std::size_t k = 0; k < size; ++k) value[k] = dout[k] * w.scale_g1g1[k % d];
      w.g1g1.backward(n, value, d, dproduct, width, false);
      const T* own = g1(l) + static_cast<std::size_t>(i) * width;
      T* down = dg1(l) + static_cast<std::size_t>(i) * width;
      const bool shared = f.has_conv || f.has_drrd || f.has_g1_attn;  // node_step_backward assigned dgg1 then
      for (int j = 0; j < n; ++j) {
        const T sw = model_.smooth ? env_rep_.sw[q0 + j] : T(1);
        T* share = dgg1_.data() + (q0 + j) * width;
        if (!shared) std::fill(share, share + width, T(0));
        T along = 0;
        for (int c = 0; c < width; ++c) {
          const T g = dproduct[j * width + c];
          share[c] += g * own[c] * sw;
          down[c] += g * gg1[j * width + c] * sw;
          along += g * own[c] * gg1[j * width + c];
        }
        dsw[j] += along;
      }
    }

    if (f.has_g2_attn || f.update_h2) {
      PairAttention s;
      pair_attention(l, i, a, &s);
      T* dmap = a.take<T>(nn);
      T* dhh = a.zeros<T>(nn);
      T* dnorm = a.take<T>(size);
      T* dapplied = a.take<T>(size);
      T* dquery = a.take<T>(size);
      if (f.has_g2_attn) {
        for (int j = 0; j < n; ++j) {
          T mean = 0, along = 0;
          const T* norm = s.norm + j * d;
          T* g = dnorm + j * d;
          for (int c = 0; c < d; ++c) {
            g[c] = dout[j * d + c] * w.scale_attn2[c] * w.ln_w[c];
            mean += g[c];
            along += g[c] * norm[c];
          }
          mean /= d;
          along /= d;
          for (int c = 0; c < d; ++c) g[c] = (g[c] - mean - norm[c] * along) * s.rstd[j];
        }
      }
      T* dh2_out = dh2(l + (f.update_h2 ? 1 : 0)) + 3 * q0;
      for (int h = 0; h < heads; ++h) {
        const T* map = s.map + h * nn;
        if (f.has_g2_attn) {
          gemm(n, d, d, plain(dnorm, d), w.attn2_value_t.data() + h * d * d, d, dapplied, d, false);
          gemm(n, n, d, plain(dapplied, d), s.g2_t, n, dmap, n, false);
          gemm(n, d, n, transposed(map, n), dapplied, d, dx, d, true);
        } else {
          std::fill(dmap, dmap + nn, T(0));
        }
        if (f.update_h2) {
          const T scale = w.h2_scale * w.h2_head[h];
          for (int j = 0; j < n; ++j) {
            for (int k = 0; k < n; ++k) {
              T along = 0;
              for (int c = 0; c < 3; ++c) {
                along += dh2_out[3 * j + c] * vec[3 * k + c];
                dvec[3 * k + c] += scale * map[j * n + k] * dh2_out[3 * j + c];
              }
              dmap[j * n + k] += scale * along;
            }
          }
        }
        // through A = prob * ww * hh / sqrt(3), the softmax, the shift and the gate: dmap becomes d logit
        for (int j = 0; j < n; ++j) {
          const T* prob = s.prob + h * nn + j * n;
          const T* logit = s.logit + h * nn + j * n;
          const T* hh = s.hh + j * n;
          T* dm = dmap + j * n;
          T* dhj = dhh + j * n;
          T mean = 0, dswj = 0;
          for (int k = 0; k < n; ++k) {
            const T ww = s.sw[j] * s.sw[k], g = dm[k] * T(kInvSqrt3);
            const T dww = g * prob[k] * hh[k];
            dhj[k] += g * prob[k] * ww;
            dswj += dww * s.sw[k];
            dsw[k] += dww * s.sw[j];
            dm[k] = g * ww * hh[k];
            mean += dm[k] * prob[k];
          }
          for (int k = 0; k < n; ++k) {
            T dl = prob[k] * (dm[k] - mean);
            if (model_.smooth) {
              const T dww = dl * ((f.attn2_gate ? logit[k] * hh[k] : logit[k]) + T(kShift));
              dswj += dww * s.sw[k];
              dsw[k] += dww * s.sw[j];
              dl *= s.sw[j] * s.sw[k];
            }
            if (f.attn2_gate) {
              dhj[k] += dl * logit[k];
              dl *= hh[k];
            }
            dm[k] = dl;
          }
          dsw[j] += dswj;
        }
        gemm(n, d, n, plain(dmap, n), x, d, dquery, d, false);
        gemm(n, d, n, transposed(dmap, n), s.query + h * size, d, dx, d, true);
        gemm(n, d, d, plain(dquery, d), w.attn2_map_t.data() + h * d * d, d, dx, d, true);
      }
      for (int j = 0; j < n; ++j) {
        for (int k = 0; k < n; ++k) {
          const T g = dhh[j * n + k] + dhh[k * n + j];
          for (int c = 0; c < 3; ++c) dvec[3 * j + c] += g * vec[3 * k + c];
        }
      }
      for (int k = 0; f.update_h2 && k < 3 * n; ++k) dvec[k] += w.h2_alpha * dh2_out[k];
    }
    for (int j = 0; model_.smooth && j < n; ++j) env_rep_.dsw[q0 + j] += dsw[j];
  }
}

#define DPA2MD_INSTANTIATE(T)                             \
  template void CpuBackend<T>::pair_init(Range);          \
  template void CpuBackend<T>::pair_init_backward(Range); \
  template void CpuBackend<T>::pair_step(int, Range);     \
  template void CpuBackend<T>::pair_step_backward(int, Range);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
