// pair_init and pair_step: the g2 and h2 side of the repformers, forward and backward. An atom's pairs stay
// in cache for all updates of a layer:
//   g2' = alpha g2 + s1 act(linear2 g2) + s2 (g1_i gg1_j sw_j) P + s3 layernorm(attention)      h2' alike
// Each update stands once: its forward function, then its backward one. The attention has its own file.
#include "repformer_pair.h"

#include <algorithm>

namespace dpa2md {
namespace DPA2MD_ISA {

// ---- layer 0: g2 = act(em_0 W + b), h2 = em[1:4]

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
  Arena& arena_ = arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(arena_);
    const std::size_t q0 = pairs().repformer.first[i], n = pairs().repformer.count[i];
    T* x = arena_.take<T>(n * d);
    T* slope = arena_.take<T>(n * d);
    for (std::size_t j = 0; j < n; ++j) {
      for (int c = 0; c < d; ++c) x[j * d + c] = env_rep_.em[4 * (q0 + j)] * w_g2_embd_[c] + b_g2_embd_[c];
    }
    activate_array(rep().act, n * d, x, slope);
    for (std::size_t j = 0; j < n; ++j) {
      T* dem = &env_rep_.dem[4 * (q0 + j)];
      for (int c = 0; c < d; ++c) slope[j * d + c] *= w_g2_embd_[c];
      dem[0] = dot(d, dg2(0) + (q0 + j) * d, slope + j * d);
      for (int c = 0; c < 3; ++c) dem[1 + c] = dh2(0)[3 * (q0 + j) + c];
    }
  }
}

// ---- act(linear2 g2); assigns alpha g2 too, being the first update

template <class T>
void CpuBackend<T>::pair_self(int l, const Neighborhood& a, T* out, Arena& arena) {
  const RepformerWeights<T>& w = layers_[l];
  const int d = rep().g2_dim, size = a.n * d;
  T* y = arena.take<T>(size);
  w.linear2.forward(a.n, a.g2, d, y, d);
  activate_array<T>(rep().act, size, y, nullptr);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < d; ++c)
      out[j * d + c] = w.g2_alpha * a.g2[j * d + c] + w.scale_linear2[c] * y[j * d + c];
  }
}

template <class T>
void CpuBackend<T>::pair_self_backward(int l, const Neighborhood& a, const T* dout, T* dx, Arena& arena) {
  const RepformerWeights<T>& w = layers_[l];
  const int d = rep().g2_dim, size = a.n * d;
  T* y = arena.take<T>(size);
  T* dy = arena.take<T>(size);
  w.linear2.forward(a.n, a.g2, d, y, d);
  activate_array(rep().act, size, y, dy);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < d; ++c) {
      dy[j * d + c] *= dout[j * d + c] * w.scale_linear2[c];
      dx[j * d + c] += w.g2_alpha * dout[j * d + c];
    }
  }
  w.linear2.backward(a.n, dy, d, dx, d, true);
}

// ---- (g1_i * gg1_j * sw_j) P

template <class T>
void CpuBackend<T>::pair_g1g1(int l, int i, const Neighborhood& a, T* out, Arena& arena) {
  const RepformerWeights<T>& w = layers_[l];
  const int d = rep().g2_dim, width = rep().g1_dim;
  const T* own = g1(l) + static_cast<std::size_t>(i) * width;
  T* product = arena.take<T>(static_cast<std::size_t>(a.n) * width);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < width; ++c) product[j * width + c] = own[c] * a.gg1[j * width + c] * a.sw[j];
  }
  T* y = arena.take<T>(static_cast<std::size_t>(a.n) * d);
  w.g1g1.forward(a.n, product, width, y, d);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < d; ++c) out[j * d + c] += w.scale_g1g1[c] * y[j * d + c];
  }
}

// Adds to d g1(l) of the atom, to the pairs' shares (node_step_backward began them), and to dsw.
template <class T>
void CpuBackend<T>::pair_g1g1_backward(int l, int i, const Neighborhood& a, const T* dout, T* dsw,
                                       Arena& arena) {
  const RepformerWeights<T>& w = layers_[l];
  const int d = rep().g2_dim, width = rep().g1_dim;
  const T* own = g1(l) + static_cast<std::size_t>(i) * width;
  T* down = dg1(l) + static_cast<std::size_t>(i) * width;
  T* dy = arena.take<T>(static_cast<std::size_t>(a.n) * d);
  T* dproduct = arena.take<T>(static_cast<std::size_t>(a.n) * width);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < d; ++c) dy[j * d + c] = dout[j * d + c] * w.scale_g1g1[c];
  }
  w.g1g1.backward(a.n, dy, d, dproduct, width, false);
  for (int j = 0; j < a.n; ++j) {
    const T* g = dproduct + j * width;
    const T* other = a.gg1 + j * width;
    T* shared = share(a.q0 + j);
    T along = 0;
#pragma omp simd reduction(+ : along)
    for (int c = 0; c < width; ++c) {
      shared[c] += g[c] * own[c] * a.sw[j];
      down[c] += g[c] * other[c] * a.sw[j];
      along += g[c] * own[c] * other[c];
    }
    dsw[j] += along;
  }
}

// ---- the whole step

template <class T>
void CpuBackend<T>::pair_step(int l, Range range) {
  const Repformer& f = rep();
  Arena& arena_ = arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(arena_);
    const Neighborhood a = neighborhood(l, i, f.has_g1g1, arena_);
    if (a.n == 0) continue;
    T* out = g2(l + 1) + a.q0 * f.g2_dim;
    pair_self(l, a, out, arena_);
    if (f.has_g1g1) pair_g1g1(l, i, a, out, arena_);
    if (f.has_g2_attn || f.update_h2) {
      attention(l, a, out, f.update_h2 ? h2(l + 1) + 3 * a.q0 : nullptr, arena_);
    }
  }
}

// Adds to d g2(l), d h2(l), d sw; with g1g1 also to d g1(l) of the atom and to the pairs' shares.
template <class T>
void CpuBackend<T>::pair_step_backward(int l, Range range) {
  const Repformer& f = rep();
  Arena& arena_ = arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(arena_);
    const Neighborhood a = neighborhood(l, i, f.has_g1g1, arena_);
    if (a.n == 0) continue;
    const T* dout = dg2(l + 1) + a.q0 * f.g2_dim;
    PairGradient d{dg2(l) + a.q0 * f.g2_dim, dh2(l) + 3 * a.q0, arena_.zeros<T>(a.n)};
    pair_self_backward(l, a, dout, d.g2, arena_);
    if (f.has_g1g1) pair_g1g1_backward(l, i, a, dout, d.sw, arena_);
    if (f.has_g2_attn || f.update_h2) {
      attention_backward(l, a, dout, f.update_h2 ? dh2(l + 1) + 3 * a.q0 : nullptr, &d, arena_);
    }
    for (int j = 0; model_.smooth && j < a.n; ++j) env_rep_.dsw[a.q0 + j] += d.sw[j];
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
