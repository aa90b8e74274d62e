// node_step: the g1 update of a repformer layer, forward and backward. With w_j = sw_j (1 in non-smooth
// models):
//   Q|S = [g2 w | h2 w]^T gg1       conv = sum_k P_kc Q_kc / N      drrd = sym(S c)      grrg = sym((h2 w)^T
//   g2 c) g1' = alpha g1 + s1 act(self g1) + s2 conv + s3 act(linear1 [...]) + s4 attention
// so the neighbours' g1 enter through one small product per atom; weights meet whole blocks of atoms.
#include <algorithm>
#include <cmath>

#include "cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// A block of atoms on its way through a node step; rows are atoms of the block.
template <class T>
struct CpuBackend<T>::NodeBlock {
  T* cat;            // (rows, linear1_in)
  T* mlp = nullptr;  // act(linear1 cat), and its slope
  T* mlp_slope = nullptr;
  T* self = nullptr;  // act(g1_self g1), and its slope
  T* self_slope = nullptr;
  T* conv = nullptr;      // (rows, g1), g1_out_conv only
  T* u = nullptr;         // (rows, head, g1) query against gg1
  T* weighted = nullptr;  // (rows, head, g1) sum_j a_jh gg1_j
  T* attn = nullptr;      // (rows, g1)
  T* s1 = nullptr;        // (rows, 3, g1) moments of gg1
  T* s2 = nullptr;        // (rows, 3, g2) moments of g2
  // columns of the concatenation; -1 when absent
  int at_conv = -1, at_grrg = -1, at_drrd = -1;
};

// The attention of one atom over its neighbours, all heads.
template <class T>
struct CpuBackend<T>::LocalAttention {
  T* prob;    // (n, head) softmax
  T* weight;  // (n, head) softmax * sw
  T* logit;   // (n, head) before the smooth shift
};

template <class T>
void CpuBackend<T>::gather_g1(int l, int i, T* gg1) {
  const int width = rep().g1_dim, n = pairs().repformer.count[i];
  const std::int32_t* row = pairs().row.data() + pairs().repinit.first[i];
  const T* rows = g1(l);
  for (int j = 0; j < n; ++j) {
    const T* source = rows + static_cast<std::size_t>(row[j]) * width;
    std::copy(source, source + width, gg1 + static_cast<std::size_t>(j) * width);
  }
}

template <class T>
T CpuBackend<T>::inverse_count(int n) const {
  return T(1.0 / (model_.smooth ? double(rep().nsel) : 1e-4 + n));
}

template <class T>
T CpuBackend<T>::inverse_moment(int n) const {
  if (!rep().use_sqrt_nnei) return inverse_count(n);
  return T(1.0 / (model_.smooth ? std::sqrt(double(rep().nsel)) : 1e-4 + std::sqrt(double(n))));
}

namespace {

constexpr double kShift = 20.0;  // DeePMD-kit's attnw_shift

// sym[a][d] = sum_x S[x][a] S[x][d] / 3 for a < axis
template <class T>
void symmetrise(const T* s, int width, int axis, T* out) {
  for (int a = 0; a < axis; ++a) {
    const T x = s[a] / 3, y = s[width + a] / 3, z = s[2 * width + a] / 3;
#pragma omp simd
    for (int d = 0; d < width; ++d) out[a * width + d] = x * s[d] + y * s[width + d] + z * s[2 * width + d];
  }
}

template <class T>
void symmetrise_backward(const T* s, int width, int axis, const T* dout, T* ds) {
  std::fill(ds, ds + 3 * width, T(0));
  for (int a = 0; a < axis; ++a) {
    for (int x = 0; x < 3; ++x) {
      axpy(width, s[x * width + a] / 3, dout + a * width, ds + x * width);
      ds[x * width + a] += dot(width, dout + a * width, s + x * width) / 3;
    }
  }
}

// out (3, width) = c sum_j w_j h2_j (x) g_j
template <class T>
void moments(int n, const T* h2, const T* w, const T* g, int width, T c, T* out) {
  std::fill(out, out + 3 * width, T(0));
  for (int j = 0; j < n; ++j) {
    for (int x = 0; x < 3; ++x)
      axpy(width, c * w[j] * h2[3 * j + x], g + static_cast<std::size_t>(j) * width, out + x * width);
  }
}

}  // namespace

template <class T>
void CpuBackend<T>::local_attention(int i, const T* gg1, const T* u, LocalAttention* s) {
  const int n = pairs().repformer.count[i], heads = rep().attn1_nhead, width = rep().g1_dim;
  const T* sw = env_rep_.sw.data() + pairs().repformer.first[i];
  for (int h = 0; h < heads; ++h) {
    T top = model_.smooth ? T(-kShift) : T(-INFINITY);
    const auto shifted = [&](int j) {
      const T l = s->logit[j * heads + h];
      return model_.smooth ? (l + T(kShift)) * sw[j] - T(kShift) : l;
    };
    for (int j = 0; j < n; ++j) {
      s->logit[j * heads + h] = dot(width, gg1 + static_cast<std::size_t>(j) * width, u + h * width);
      top = std::max(top, shifted(j));
    }
    // the N - n empty slots keep l = -20 and stay in the denominator
    T sum = model_.smooth ? T(rep().nsel - n) * std::exp(T(-kShift) - top) : T(0);
    for (int j = 0; j < n; ++j) sum += s->prob[j * heads + h] = std::exp(shifted(j) - top);
    for (int j = 0; j < n; ++j) {
      s->prob[j * heads + h] /= sum;
      s->weight[j * heads + h] = s->prob[j * heads + h] * (model_.smooth ? sw[j] : T(1));
    }
  }
}

template <class T>
void CpuBackend<T>::node_block(int l, Range range, Arena& arena, NodeBlock* s) {
  const Repformer& f = rep();
  const RepformerWeights<T>& w = layers_[l];
  const int rows = range.size(), width = f.g1_dim, g2w = f.g2_dim, heads = f.attn1_nhead, in = f.linear1_in();
  const T* x = g1(l) + static_cast<std::size_t>(range.begin) * width;
  const std::size_t block = static_cast<std::size_t>(rows) * width;

  int column = f.g1_out_mlp ? 0 : width;
  if (f.has_conv && !f.g1_out_conv) s->at_conv = column, column += g2w;
  if (f.has_grrg) s->at_grrg = column, column += f.axis * g2w;
  if (f.has_drrd) s->at_drrd = column;
  s->cat = arena.take<T>(static_cast<std::size_t>(rows) * in);
  if (f.has_conv && f.g1_out_conv) s->conv = arena.take<T>(block);
  if (f.has_drrd) s->s1 = arena.take<T>(3 * block);
  if (f.has_grrg) s->s2 = arena.take<T>(3 * static_cast<std::size_t>(rows) * g2w);
  if (f.has_g1_attn) {
    s->u = arena.take<T>(block * heads);
    s->weighted = arena.take<T>(block * heads);
    w.attn1_query.forward(rows, x, width, s->u, heads * width);
  }

  const int kq = f.has_conv ? g2w : 0, ks = f.has_drrd ? 3 : 0;
  for (int b = 0; b < rows; ++b) {
    Arena::Scope scope(arena);
    const int i = range.begin + b, n = pairs().repformer.count[i];
    const std::int64_t q0 = pairs().repformer.first[i];
    const T* pair = g2(l) + q0 * g2w;
    const T* vec = h2(l) + q0 * 3;
    T* cat = s->cat + static_cast<std::size_t>(b) * in;
    if (!f.g1_out_mlp)
      std::copy(x + static_cast<std::size_t>(b) * width, x + static_cast<std::size_t>(b + 1) * width, cat);
    T* sw = arena.take<T>(n + 1);
    for (int j = 0; j < n; ++j) sw[j] = model_.smooth ? env_rep_.sw[q0 + j] : T(1);
    if (f.has_grrg) {
      T* s2 = s->s2 + 3 * static_cast<std::size_t>(b) * g2w;
      moments(n, vec, sw, pair, g2w, inverse_moment(n), s2);
      symmetrise(s2, g2w, f.axis, cat + s->at_grrg);
    }
    if (!f.has_conv && !f.has_drrd && !f.has_g1_attn) continue;
    T* gg1 = arena.take<T>(static_cast<std::size_t>(n) * width);
    gather_g1(l, i, gg1);
    if (kq + ks) {
      T* left = arena.take<T>(static_cast<std::size_t>(n) * (kq + ks));
      for (int j = 0; j < n; ++j) {
        for (int k = 0; k < kq; ++k) left[j * (kq + ks) + k] = pair[j * g2w + k] * sw[j];
        for (int k = 0; k < ks; ++k) left[j * (kq + ks) + kq + k] = vec[3 * j + k] * sw[j];
      }
      T* product = arena.take<T>(static_cast<std::size_t>(kq + ks) * width);
      gemm(kq + ks, width, n, transposed(left, kq + ks), gg1, width, product, width, false);
      const T inv = inverse_count(n);
      if (s->conv) {
        T* conv = s->conv + static_cast<std::size_t>(b) * width;
        std::fill(conv, conv + width, T(0));
        for (int k = 0; k < kq; ++k) {
          const T* p = w.conv.data() + k * width;
#pragma omp simd
          for (int c = 0; c < width; ++c) conv[c] += p[c] * product[k * width + c] * inv;
        }
      } else if (f.has_conv) {
        for (int k = 0; k < kq; ++k)
          cat[s->at_conv + k] = inv * dot(width, w.conv.data() + k * width, product + k * width);
      }
      if (f.has_drrd) {
        T* s1 = s->s1 + 3 * static_cast<std::size_t>(b) * width;
        const T c = inverse_moment(n);
        for (int k = 0; k < 3 * width; ++k) s1[k] = c * product[kq * width + k];
        symmetrise(s1, width, f.axis, cat + s->at_drrd);
      }
    }
    if (f.has_g1_attn) {
      LocalAttention a;
      a.prob = arena.take<T>(static_cast<std::size_t>(n) * heads);
      a.weight = arena.take<T>(static_cast<std::size_t>(n) * heads);
      a.logit = arena.take<T>(static_cast<std::size_t>(n) * heads);
      const std::size_t at = static_cast<std::size_t>(b) * heads * width;
      local_attention(i, gg1, s->u + at, &a);
      gemm(heads, width, n, transposed(a.weight, heads), gg1, width, s->weighted + at, width, false);
    }
  }
  s->mlp = arena.take<T>(block);
  s->mlp_slope = arena.take<T>(block);
  w.mlp.forward(rows, s->cat, in, s->mlp, width);
  activate_array(f.act, block, s->mlp, s->mlp_slope);
  if (f.g1_out_mlp) {
    s->self = arena.take<T>(block);
    s->self_slope = arena.take<T>(block);
    w.self.forward(rows, x, width, s->self, width);
    activate_array(f.act, block, s->self, s->self_slope);
  }
  if (f.has_g1_attn) {
    s->attn = arena.take<T>(block);
    w.attn1_value.forward(rows, s->weighted, heads * width, s->attn, width);
  }
}

template <class T>
void CpuBackend<T>::node_step(int l, Range range) {
  Arena& a = arena();
  Arena::Scope scope(a);
  NodeBlock s;
  node_block(l, range, a, &s);
  const RepformerWeights<T>& w = layers_[l];
  const int width = rep().g1_dim;
  for (int b = 0; b < range.size(); ++b) {
    const std::size_t at = static_cast<std::size_t>(b) * width;
    const T* x = g1(l) + static_cast<std::size_t>(range.begin) * width + at;
    T* y = g1(l + 1) + static_cast<std::size_t>(range.begin) * width + at;
    for (int c = 0; c < width; ++c) y[c] = w.g1_alpha * x[c] + w.scale_mlp[c] * s.mlp[at + c];
    for (int c = 0; s.self && c < width; ++c) y[c] += w.scale_self[c] * s.self[at + c];
    for (int c = 0; s.conv && c < width; ++c) y[c] += w.scale_conv[c] * s.conv[at + c];
    for (int c = 0; s.attn && c < width; ++c) y[c] += w.scale_attn1[c] * s.attn[at + c];
  }
}

// Assigns d g1(l) of the block's own atoms, d g2(l), and each pair's share dgg1; adds to d h2 and d sw.
template <class T>
void CpuBackend<T>::node_step_backward(int l, Range range) {
  Arena& a = arena();
  Arena::Scope scope(a);
  const Repformer& f = rep();
  const RepformerWeights<T>& w = layers_[l];
  const int rows = range.size(), width = f.g1_dim, g2w = f.g2_dim, heads = f.attn1_nhead, in = f.linear1_in();
  const std::size_t block = static_cast<std::size_t>(rows) * width,
                    first = static_cast<std::size_t>(range.begin) * width;
  const std::size_t p0 = pairs().repformer.first[range.begin], p1 = pairs().repformer.first[range.end];
  if (l == f.nlayers - 1) env_rep_.dsw.zero(p0, p1);
  if (l == f.nlayers - 1 || f.update_h2) std::memset(dh2(l) + 3 * p0, 0, 3 * (p1 - p0) * sizeof(T));
  std::memset(dg2(l) + p0 * g2w, 0, (p1 - p0) * g2w * sizeof(T));
  NodeBlock s;
  node_block(l, range, a, &s);

  const T* dout = dg1(l + 1) + first;
  T* dx = dg1(l) + first;
  for (std::size_t k = 0; k < block; ++k) dx[k] = w.g1_alpha * dout[k];
  T* d = a.take<T>(block);
  const auto scaled = [&](const Buffer<T>& scale, const T* slope) {
    for (int b = 0; b < rows; ++b) {
      for (int c = 0; c < width; ++c) {
        const std::size_t k = static_cast<std::size_t>(b) * width + c;
        d[k] = dout[k] * scale[c] * (slope ? slope[k] : T(1));
      }
    }
  };
  if (s.self) {
    scaled(w.scale_self, s.self_slope);
    w.self.backward(rows, d, width, dx, width, true);
  }
  T* dcat = a.take<T>(static_cast<std::size_t>(rows) * in);
  scaled(w.scale_mlp, s.mlp_slope);
  w.mlp.backward(rows, d, width, dcat, in, false);
  T* dweighted = nullptr;
  T* du = nullptr;
  if (s.attn) {
    dweighted = a.take<T>(block * heads);
    du = a.take<T>(block * heads);
    scaled(w.scale_attn1, nullptr);
    w.attn1_value.backward(rows, d, width, dweighted, heads * width, false);
  }
  T* dconv = nullptr;
  if (s.conv) {
    dconv = d;
    scaled(w.scale_conv, nullptr);
  }

  const int kq = f.has_conv ? g2w : 0, ks = f.has_drrd ? 3 : 0, kk = kq + ks;
  for (int b = 0; b < rows; ++b) {
    Arena::Scope atom(a);
    const int i = range.begin + b, n = pairs().repformer.count[i];
    const std::int64_t q0 = pairs().repformer.first[i];
    const T* pair = g2(l) + q0 * g2w;
    const T* vec = h2(l) + q0 * 3;
    T* dpair = dg2(l) + q0 * g2w;
    T* dvec = dh2(l) + q0 * 3;
    const T* dc = dcat + static_cast<std::size_t>(b) * in;
    T* sw = a.take<T>(n + 1);
    T* dsw = a.zeros<T>(n + 1);
    for (int j = 0; j < n; ++j) sw[j] = model_.smooth ? env_rep_.sw[q0 + j] : T(1);
    if (!f.g1_out_mlp) axpy(width, T(1), dc, dx + static_cast<std::size_t>(b) * width);
    if (f.has_grrg) {
      T* ds = a.take<T>(3 * g2w);
      symmetrise_backward(s.s2 + 3 * static_cast<std::size_t>(b) * g2w, g2w, f.axis, dc + s.at_grrg, ds);
      const T c = inverse_moment(n);
      for (int j = 0; j < n; ++j) {
        T along = 0;
        for (int x = 0; x < 3; ++x) {
          axpy(g2w, c * sw[j] * vec[3 * j + x], ds + x * g2w, dpair + j * g2w);
          const T g = c * dot(g2w, ds + x * g2w, pair + j * g2w);
          dvec[3 * j + x] += sw[j] * g;
          along += vec[3 * j + x] * g;
        }
        dsw[j] += along;
      }
    }
    if (kk || s.attn) {
      T* gg1 = a.take<T>(static_cast<std::size_t>(n) * width);
      T* dgg1 = dgg1_.data() + q0 * width;
      gather_g1(l, i, gg1);
      if (kk) {
        // the same product [g2 w | h2 w]^T gg1, its two factors' gradients
        T* left = a.take<T>(static_cast<std::size_t>(n) * kk);
        T* dproduct = a.take<T>(static_cast<std::size_t>(kk) * width);
        const T inv = inverse_count(n);
        for (int k = 0; k < kq; ++k) {
          const T* p = w.conv.data() + k * width;
          T* out = dproduct + k * width;
          const T* dcv = dconv ? dconv + static_cast<std::size_t>(b) * width : nullptr;
          const T one = dconv ? T(0) : dc[s.at_conv + k];
          for (int c = 0; c < width; ++c) out[c] = p[c] * inv * (dcv ? dcv[c] : one);
        }
        if (ks) {
          symmetrise_backward(s.s1 + 3 * static_cast<std::size_t>(b) * width, width, f.axis, dc + s.at_drrd,
                              dproduct + kq * width);
          const T c = inverse_moment(n);
          for (int k = 0; k < 3 * width; ++k) dproduct[kq * width + k] *= c;
        }
        for (int j = 0; j < n; ++j) {
          for (int k = 0; k < kq; ++k) left[j * kk + k] = pair[j * g2w + k] * sw[j];
          for (int k = 0; k < ks; ++k) left[j * kk + kq + k] = vec[3 * j + k] * sw[j];
        }
        gemm(n, width, kk, plain(left, kk), dproduct, width, dgg1, width, false);
        T* dproduct_t = a.take<T>(static_cast<std::size_t>(width) * kk);
        transpose(kk, width, dproduct, width, dproduct_t, kk);
        T* dleft = a.take<T>(static_cast<std::size_t>(n) * kk);
        gemm(n, kk, width, plain(gg1, width), dproduct_t, kk, dleft, kk, false);
        for (int j = 0; j < n; ++j) {
          T along = 0;
          for (int k = 0; k < kq; ++k) {
            dpair[j * g2w + k] += dleft[j * kk + k] * sw[j];
            along += dleft[j * kk + k] * pair[j * g2w + k];
          }
          for (int k = 0; k < ks; ++k) {
            dvec[3 * j + k] += dleft[j * kk + kq + k] * sw[j];
            along += dleft[j * kk + kq + k] * vec[3 * j + k];
          }
          dsw[j] += along;
        }
      } else {
        std::fill(dgg1, dgg1 + static_cast<std::size_t>(n) * width, T(0));
      }
      if (s.attn) {
        LocalAttention t;
        t.prob = a.take<T>(static_cast<std::size_t>(n) * heads);
        t.weight = a.take<T>(static_cast<std::size_t>(n) * heads);
        t.logit = a.take<T>(static_cast<std::size_t>(n) * heads);
        const std::size_t at = static_cast<std::size_t>(b) * heads * width;
        const T* u = s.u + at;
        const T* dwt = dweighted + at;
        local_attention(i, gg1, u, &t);
        T* dprob = a.take<T>(n + 1);
        std::fill(du + at, du + at + static_cast<std::size_t>(heads) * width, T(0));
        for (int h = 0; h < heads; ++h) {
          T mean = 0;
          for (int j = 0; j < n; ++j) {
            const T dweight = dot(width, gg1 + static_cast<std::size_t>(j) * width, dwt + h * width);
            const T p = t.prob[j * heads + h];
            if (model_.smooth) dsw[j] += dweight * p;
            dprob[j] = dweight * sw[j];
            mean += dprob[j] * p;
          }
          for (int j = 0; j < n; ++j) {
            T dl = t.prob[j * heads + h] * (dprob[j] - mean);
            if (model_.smooth) {
              dsw[j] += dl * (t.logit[j * heads + h] + T(kShift));
              dl *= sw[j];
            }
            T* out = dgg1 + static_cast<std::size_t>(j) * width;
            axpy(width, t.weight[j * heads + h], dwt + h * width, out);
            axpy(width, dl, u + h * width, out);
            axpy(width, dl, gg1 + static_cast<std::size_t>(j) * width, du + at + h * width);
          }
        }
      }
    }
    for (int j = 0; model_.smooth && j < n; ++j) env_rep_.dsw[q0 + j] += dsw[j];
  }
  if (s.attn) w.attn1_query.backward(rows, du, heads * width, dx, width, true);
}

// d g1 of a row: what its own node step left there (local rows) plus the shares of all pairs that point at
// it.
template <class T>
void CpuBackend<T>::gather_g1_gradient(int l, Range rows) {
  const Repformer& f = rep();
  const int width = f.g1_dim;
  const bool shared = f.has_conv || f.has_drrd || f.has_g1_attn || (f.has_g1g1 && l + 1 < f.nlayers);
  const Transpose& t = pairs().by_row_repformer;
  for (int row = rows.begin; row < rows.end; ++row) {
    T* d = dg1(l) + static_cast<std::size_t>(row) * width;
    if (row >= pairs().natoms) std::fill(d, d + width, T(0));
    for (std::int64_t k = t.first[row]; shared && k < t.first[row + 1]; ++k) {
      axpy(width, T(1), dgg1_.data() + t.pair[k] * width, d);
    }
  }
}

#define DPA2MD_INSTANTIATE(T)                                  \
  template void CpuBackend<T>::gather_g1(int, int, T*);        \
  template T CpuBackend<T>::inverse_count(int) const;          \
  template T CpuBackend<T>::inverse_moment(int) const;         \
  template void CpuBackend<T>::node_step(int, Range);          \
  template void CpuBackend<T>::node_step_backward(int, Range); \
  template void CpuBackend<T>::gather_g1_gradient(int, Range);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
