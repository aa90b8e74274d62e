// pair_init and pair_step: the g2 and h2 side of the repformers, forward and backward. An atom's pairs stay
// in cache for all updates of a layer:
//   g2' = alpha g2 + s1 act(linear2 g2) + s2 (g1_i gg1_j sw_j) P + s3 layernorm(attention)      h2' alike
// Each update stands once: its forward function, then its backward one. The attention has its own file.
#include "cpu/stages/repformer_pair.h"

#include <algorithm>

namespace dpa2md {
namespace DPA2MD_ISA {

// ---- storage of g2

// Layers whose g2 is kept for all atoms for the reverse sweep: with little memory every fifth, and one that
// the sweep recomputes; the energy alone needs two in turn.
constexpr int kKeptEvery = 5;

template <class T>
std::size_t Repformers<T>::g2_slot(int l) const {
  if (!work_.input.forces) return l % 2;
  return !work_.low_memory ? l - 1 : l % kKeptEvery == 0 ? l / kKeptEvery : 0;
}

template <class T>
std::size_t Repformers<T>::g2_slots() const {
  std::size_t slots = 0;
  for (int l = 1; l < last(); ++l) slots = std::max(slots, g2_slot(l) + 1);
  return slots;
}

// The rows that pair_step writes g2(l) to, l > 0.
template <class T>
T* Repformers<T>::g2_rows(int l, int i) {
  const Prefix& p = pairs().repformer;
  if (l == last()) return g2_block_.data() + work_.in_block(p, repformer_block_, i) * rep().g2_dim;
  return g2_.data() + g2_slot(l) * g2_stride_ + p.first[i] * rep().g2_dim;
}

// g2(l), in the arena where the next layer's comes to the same place.
template <class T>
const T* Repformers<T>::g2_of(int l, int i, Arena& arena) {
  const std::size_t size = static_cast<std::size_t>(pairs().repformer.count[i]) * rep().g2_dim;
  if (l > 0 && (l == last() || l + 1 == last() || g2_slot(l) != g2_slot(l + 1))) return g2_rows(l, i);
  T* x = arena.take<T>(size);
  if (l > 0) {
    std::copy_n(g2_rows(l, i), size, x);
  } else {
    first_g2(i, x, nullptr);
  }
  return x;
}

// With little memory: recomputes g2(l) from the last kept layer before it.
template <class T>
void Repformers<T>::remake_g2(int l, Range range) {
  const bool there = !work_.low_memory || l + 1 == last() || l % kKeptEvery == 0;
  for (int k = l - l % kKeptEvery; k < l && !there; ++k) pair_step(k, range);
}

// ---- layer 0: g2 = act(em_0 W + b), h2 = em[1:4]

// slope: act', or null
template <class T>
void Repformers<T>::first_g2(int i, T* out, T* slope) {
  const int d = rep().g2_dim, n = pairs().repformer.count[i];
  const T* em = env_.em.data() + 4 * pairs().repformer.first[i];
  for (int j = 0; j < n; ++j) {
    for (int c = 0; c < d; ++c) out[j * d + c] = em[4 * j] * w_g2_embd_[c] + b_g2_embd_[c];
  }
  activate_array(rep().act, static_cast<std::size_t>(n) * d, out, slope);
}

template <class T>
void Repformers<T>::pair_init([[maybe_unused]] Range range) {
  if constexpr (!is_dual<T>) find_radial_atoms(range);
}

template <class T>
void Repformers<T>::pair_init_backward(Range range) {
  const int d = rep().g2_dim;
  Arena& arena_ = arena();
  for (int i = range.begin; i < range.end; ++i) {
    if (radial_pairs(i)) continue;
    Arena::Scope scope(arena_);
    const std::size_t q0 = pairs().repformer.first[i], n = pairs().repformer.count[i];
    T* x = arena_.take<T>(n * d);
    T* slope = arena_.take<T>(n * d);
    first_g2(i, x, slope);
    if constexpr (is_dual<T>) {
      double *dw = w_g2_embd_gradient_->of(work_.group(i)), *db = b_g2_embd_gradient_->of(work_.group(i));
      for (std::size_t j = 0; j < n; ++j) {
        for (int c = 0; c < d; ++c) {
          const T dpre = dg2(i)[j * d + c] * slope[j * d + c];
          dw[c] += double(tangent_of(dpre * env_.em[4 * (q0 + j)])), db[c] += double(tangent_of(dpre));
        }
      }
      continue;
    }
    for (std::size_t j = 0; j < n; ++j) {
      for (int c = 0; c < d; ++c) slope[j * d + c] *= w_g2_embd_[c];
      env_.dem[4 * (q0 + j)] += dot(d, dg2(i) + j * d, slope + j * d);
    }
  }
}

// ---- act(linear2 g2); assigns alpha g2 too, being the first update

template <class T>
void Repformers<T>::pair_self(int l, const Neighborhood& a, T* out, Arena& arena) {
  const RepformerWeights<Real<T>>& w = weights(l);
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
void Repformers<T>::pair_self_backward(int l, [[maybe_unused]] int i, const Neighborhood& a, const T* dout,
                                       T* dx, Arena& arena) {
  const RepformerWeights<Real<T>>& w = weights(l);
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
  if constexpr (is_dual<T>) self_gradient(l, i, a, y, dy, dout, arena);
}

// ---- (g1_i * gg1_j * sw_j) P

template <class T>
void Repformers<T>::pair_g1g1(int l, int i, const Neighborhood& a, T* out, Arena& arena) {
  const RepformerWeights<Real<T>>& w = weights(l);
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
void Repformers<T>::pair_g1g1_backward(int l, int i, const Neighborhood& a, const T* dout, T* dsw,
                                       Arena& arena) {
  const RepformerWeights<Real<T>>& w = weights(l);
  const int d = rep().g2_dim, width = rep().g1_dim;
  const T* own = g1(l) + static_cast<std::size_t>(i) * width;
  T* down = dg1(l) + static_cast<std::size_t>(i) * width;
  T* dy = arena.take<T>(static_cast<std::size_t>(a.n) * d);
  T* dproduct = arena.take<T>(static_cast<std::size_t>(a.n) * width);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < d; ++c) dy[j * d + c] = dout[j * d + c] * w.scale_g1g1[c];
  }
  w.g1g1.backward(a.n, dy, d, dproduct, width, false);
  if constexpr (is_dual<T>) g1g1_gradient(l, i, a, dy, dout, arena);
  for (int j = 0; j < a.n; ++j) {
    const T* g = dproduct + j * width;
    const T* other = a.gg1 + j * width;
    T* shared = share(a.q0 + j);
    if constexpr (is_dual<T>) {  // no weight is before sw
      for (int c = 0; c < width; ++c) {
        shared[c] += g[c] * own[c] * a.sw[j];
        down[c] += g[c] * other[c] * a.sw[j];
      }
    } else {
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
}

// ---- the whole step

// Whether the reverse of this pair step follows in the same block and reuses its attention maps.
template <class T>
bool Repformers<T>::turns_with_attention(int l) const {
  return work_.input.forces && l + 1 == last() && rep().has_g2_attn && !rep().has_g1g1;
}

template <class T>
void Repformers<T>::pair_step(int l, Range range) {
  const Repformer& f = rep();
  Arena& arena_ = arena();
  const bool keep = turns_with_attention(l);
  Arena& kept_arena = keep ? kept_arenas_[thread_index()] : arena_;
  PairAttention* kept = nullptr;
  if (keep) {
    kept_arena.clear();
    kept = kept_[thread_index()] = kept_arena.template take<PairAttention>(range.size());
  }
  for (int i = range.begin; i < range.end; ++i) {
    if (radial_pairs(i)) continue;
    Arena::Scope scope(arena_);
    const Neighborhood a = neighborhood(l, i, f.has_g1g1, arena_);
    if (a.n == 0) continue;
    T* out = g2_rows(l + 1, i);
    pair_self(l, a, out, arena_);
    if (f.has_g1g1) pair_g1g1(l, i, a, out, arena_);
    if (f.has_g2_attn || f.update_h2) {
      PairAttention s;
      attention(l, a, keep, &s, out, f.update_h2 ? h2(l + 1, i) : nullptr, kept_arena);
      if (keep) kept[i - range.begin] = s;
    }
  }
}

// d g2 of the next layer gives way to that of this one; with an updated h2, assigns d h2(l), else adds to it;
// adds to d sw, and with g1g1 to d g1(l) of the atom and to the pairs' shares, which it begins.
template <class T>
void Repformers<T>::pair_step_backward(int l, Range range) {
  const Repformer& f = rep();
  Arena& arena_ = arena();
  if (f.has_g1g1) clear_shares(range);
  remake_g2(l, range);
  for (int i = range.begin; i < range.end; ++i) {
    if (radial_pairs(i)) continue;
    Arena::Scope scope(arena_);
    const Neighborhood a = neighborhood(l, i, f.has_g1g1, arena_);
    if (a.n == 0) continue;
    const std::size_t size = static_cast<std::size_t>(a.n) * f.g2_dim;
    PairGradient d{dg2(i), dh2(l, i), arena_.zeros<T>(a.n)};
    T* dout = arena_.take<T>(size);
    std::copy_n(d.g2, size, dout);
    std::fill_n(d.g2, size, T(0));
    if (f.update_h2) std::fill_n(d.h2, kH2Row * a.n - (kH2Row - 3), T(0));
    pair_self_backward(l, i, a, dout, d.g2, arena_);
    if (f.has_g1g1) pair_g1g1_backward(l, i, a, dout, d.sw, arena_);
    if (f.has_g2_attn || f.update_h2) {
      PairAttention s;
      if (turns_with_attention(l)) {
        s = kept_[thread_index()][i - range.begin];
      } else {
        attention_heads(l, a, true, nullptr, &s, arena_);
      }
      attention_backward(l, i, a, s, dout, f.update_h2 ? dh2(l + 1, i) : nullptr, &d, arena_);
    }
    for (int j = 0; model_.smooth && j < a.n; ++j) env_.dsw[a.q0 + j] += d.sw[j];
  }
}

#define DPA2MD_INSTANTIATE(T)                               \
  template std::size_t Repformers<T>::g2_slots() const;     \
  template const T* Repformers<T>::g2_of(int, int, Arena&); \
  template void Repformers<T>::pair_init(Range);            \
  template void Repformers<T>::pair_init_backward(Range);   \
  template void Repformers<T>::pair_step(int, Range);       \
  template void Repformers<T>::pair_step_backward(int, Range);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)
DPA2MD_INSTANTIATE(Dual<float>)
DPA2MD_INSTANTIATE(Dual<double>)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
